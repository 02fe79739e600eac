"""`swarmd logs`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarmd.cli import logs
from swarmd.cli.program import program


def test_the_last_lines_of_the_file(tmp_path: Path) -> None:
    (tmp_path / logs.FILE_NAME).parent.mkdir()
    (tmp_path / logs.FILE_NAME).write_text("".join(f"line {number}\n" for number in range(10)))
    shown = CliRunner().invoke(program(), ["logs", "--data-dir", str(tmp_path), "-n", "2"])
    assert (shown.exit_code, shown.stdout) == (0, "line 8\nline 9\n")


def test_no_log_anywhere_says_where_it_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_unit", lambda: (None, False))
    for arguments in (["--data-dir", str(tmp_path)], []):
        shown = CliRunner().invoke(program(), ["logs", *arguments])
        assert (shown.exit_code, shown.stdout) == (6, "")
        assert "there is no log" in shown.stderr and logs.FILE_NAME in shown.stderr.replace("\n", "")


def test_the_journal_is_read_while_the_service_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMD_NODE_DATA_DIR", str(tmp_path))
    (tmp_path / logs.FILE_NAME).parent.mkdir()
    (tmp_path / logs.FILE_NAME).write_text("of last week\n")
    asked: list[list[str]] = []
    monkeypatch.setattr(logs.os, "execvp", lambda _name, command: asked.append(command))
    for active, from_journal in ((True, 1), (False, 0)):
        asked.clear()
        monkeypatch.setattr(logs, "_unit", lambda active=active: ("--system", active))
        shown = CliRunner().invoke(program(), ["logs"])
        assert (len(asked), "of last week" in shown.stdout) == (from_journal, not active)


def test_what_journalctl_is_asked() -> None:
    assert logs.journal_command("--user", lines=5, follow=True) == [
        "journalctl", "--user", "-u", "swarmd.service", "-n", "5", "-o", "cat", "-f",
    ]  # fmt: skip
    assert "--user" not in logs.journal_command("--system", lines=5, follow=False)


def test_what_is_appended_is_read_and_a_rotated_file_from_its_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    path.write_text("one\n")
    at = logs._write_from(path, 4)
    with path.open("a") as file:
        file.write("two\n")
    at = logs._write_from(path, at)
    assert capsys.readouterr().out == "two\n"
    path.write_text("new\n")
    logs._write_from(path, at)
    path.unlink()
    assert logs._write_from(path, at) == 0
    assert capsys.readouterr().out == "new\n"


def test_following_goes_on_until_ctrl_c(tmp_path: Path) -> None:
    import signal

    path = tmp_path / logs.FILE_NAME
    path.parent.mkdir()
    path.write_text("one\n")
    command = [sys.executable, "-m", "swarmd", "logs", "-f", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "one\n"
        with path.open("a") as file:
            file.write("two\n")
        assert reader.stdout.readline() == "two\n"
        reader.send_signal(signal.SIGINT)
        assert reader.communicate(timeout=20) == ("", "")
    assert reader.returncode == 0
