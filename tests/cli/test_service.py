"""What `service` writes, runs and says; systemd itself is played, its unit files are checked by systemd's own tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarmd.cli import service
from swarmd.cli.failure import Failure
from swarmd.cli.program import program
from swarmd.cli.service import HIDDEN, Outcome, Target, hidden_from_service, put_in, show, take_out


class Systemd:
    """Remembers what it was told."""

    def __init__(self, **answers: Outcome) -> None:
        self.lines: list[str] = []
        self.answers = answers

    def __call__(self, line: Sequence[str]) -> Outcome:
        self.lines.append(" ".join(line))
        return next((found for word, found in self.answers.items() if word.replace("_", "-") in line), Outcome(0, ""))


def system(root: Path, *, booted: bool = True) -> Target:
    return Target(user=False, root=root, home=root, booted=booted)


@pytest.fixture(autouse=True)
def _installed_where_it_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever these tests run."""
    monkeypatch.setattr(service.sys, "prefix", "/opt/venv")
    monkeypatch.setattr(service.sys, "base_prefix", "/usr")


def test_for_the_system_and_away_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where, systemd = system(tmp_path), Systemd()
    put_in(where, start=True, program="/opt/x/bin/swarmd run", run=systemd)
    text = (tmp_path / "etc/systemd/system/swarmd.service").read_text()
    assert "\nExecStart=/opt/x/bin/swarmd run\n" in text and text.count("ExecStart=") == 1 and "Type=notify" in text
    assert (tmp_path / "etc/sysusers.d/swarmd.conf").exists() and (tmp_path / "etc/tmpfiles.d/swarmd.conf").exists()
    assert systemd.lines == [
        "systemd-sysusers", "systemd-tmpfiles --create /etc/tmpfiles.d/swarmd.conf", "systemctl daemon-reload",
        "systemctl enable --now swarmd",
    ]  # fmt: skip
    said = capsys.readouterr().out
    assert all(f"ran {line}" in said for line in systemd.lines) and f"wrote {where.unit}" in said
    systemd.lines.clear()
    take_out(where, run=systemd)
    assert systemd.lines == ["systemctl disable --now swarmd", "systemctl daemon-reload"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert "stay in /var/lib/swarmd" in capsys.readouterr().out
    with pytest.raises(Failure, match="there is no service"):
        take_out(where, run=systemd)


def test_for_one_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where, systemd = Target(user=True, root=Path("/"), home=tmp_path, booted=True), Systemd()
    put_in(where, start=False, program="/home/a/.local/bin/swarmd run", run=systemd)
    assert "WantedBy=default.target" in (tmp_path / ".config/systemd/user/swarmd.service").read_text()
    assert systemd.lines == ["systemctl --user daemon-reload", "systemctl --user enable swarmd"]
    assert "enable-linger" in capsys.readouterr().out


def test_without_systemd_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where, systemd = Target(user=True, root=Path("/"), home=tmp_path, booted=False), Systemd()
    put_in(where, start=True, program="/x/swarmd run", run=systemd)
    said = capsys.readouterr().out
    assert systemd.lines == [] and "swarmd up" in said and "@reboot swarmd up" in said
    with pytest.raises(Failure, match="systemd does not run here"):
        show(where, run=systemd)
    take_out(where, run=systemd)
    assert systemd.lines == []


def test_a_command_that_fails_is_said(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"`systemctl enable --now swarmd` failed: Job for swarmd.service failed"):
        put_in(
            system(tmp_path), start=True, program="/x run", run=Systemd(enable=Outcome(1, "Job for swarmd.service failed"))
        )


@pytest.mark.parametrize(
    ("program_text", "base", "hidden"),
    [(f"{HIDDEN[1]}/.local/bin/swarmd run", "/usr", HIDDEN[1]), ("/home/a/bin/swarmd run", "/usr", "/home"),
     ("/opt/x/bin/swarmd run", f"{HIDDEN[1]}/.pyenv/versions/3.12", HIDDEN[1]), ("/homestead/swarmd run", "/usr", None)],
)  # fmt: skip
def test_what_the_unit_cannot_see_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program_text: str, base: str, hidden: str | None
) -> None:
    monkeypatch.setattr(service.sys, "base_prefix", base)
    assert hidden_from_service(program_text) == hidden
    if hidden and base == "/usr":
        with pytest.raises(Failure, match=f"does not look into {hidden}"):
            put_in(system(tmp_path), start=True, program=program_text, run=Systemd())
        assert list(tmp_path.iterdir()) == []


def test_a_path_with_blanks_and_percent_signs_is_one_word_of_the_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "my tools 100%" / "swarmd"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setattr(service.sys, "argv", [str(program)])
    line = service.program_line()
    assert line == f'"{tmp_path}/my tools 100%%/swarmd" run' and hidden_from_service(line) is None
    assert hidden_from_service('"/home/my tools/swarmd" run') == "/home"


def test_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = system(tmp_path)
    with pytest.raises(Failure, match="swarmd service install"):
        show(where, run=Systemd())
    where.unit.parent.mkdir(parents=True)
    where.unit.touch()
    show(where, run=Systemd(is_active=Outcome(0, "active\n"), is_enabled=Outcome(0, "enabled\n"), show=Outcome(0, "node x")))
    said = capsys.readouterr().out
    assert "starts at boot: enabled" in said and "now: active" in said and "node x" in said
    with pytest.raises(Failure, match="journalctl -u swarmd"):
        show(where, run=Systemd(is_active=Outcome(3, "failed\n")))


def test_the_command_writes_into_another_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "hidden_from_service", lambda *_: None)
    result = CliRunner().invoke(program(), ["service", "install", "--root", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "etc/systemd/system/swarmd.service").exists() and "nothing was started" in result.stdout
    assert CliRunner().invoke(program(), ["service", "uninstall", "--root", str(tmp_path)]).exit_code == 0
    assert CliRunner().invoke(program(), ["service", "uninstall", "--root", str(tmp_path)]).exit_code == 1
