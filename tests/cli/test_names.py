"""What TAB asks the node."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from swarmd.cli import names
from tests.cli.conftest import Cli
from tests.fakes.rim import SPREAD, acquisition


def asked(cli: Cli, kind: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    names.main([kind, "swarmd", "rm", "--url", cli.url, f"--api-key-file={cli.key_file}"])
    return capsys.readouterr().out.splitlines()


def test_it_knows_what_there_is(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    cli.rim.desk.running[SPREAD] = acquisition(SPREAD)
    assert asked(cli, "models", capsys) == ["tiny-q8", "spread-q8"]
    assert asked(cli, "downloads", capsys) == ["spread-q8"]
    assert len(asked(cli, "members", capsys)) == 2
    assert asked(cli, "no-such-kind", capsys) == []


def test_it_is_silent_without_a_node_and_with_nonsense(
    nowhere: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    for words in (["--url", nowhere], ["--url"], ["--url", "ftp://x"], ["--api-key-file", str(tmp_path)], []):
        names.main(["models", *words, "--data-dir", str(tmp_path)])
    names.main([])
    assert capsys.readouterr() == ("", "")
    assert time.monotonic() - started < 10


def test_names_that_a_shell_would_take_apart_are_left_out() -> None:
    rows = [{"id": text} for text in ("good", "two words", "$(reboot)", "a;b", "quo'te", "esc\x1b", "tiny:style")] + [
        {"id": 3},
        7,
    ]
    assert list(names._names(rows, "id")) == ["good", "tiny:style"]
    assert list(names._names({"status": "ok", "adapters": [{"id": "x"}]}, "id")) == ["x"]
    assert list(names._names("nothing", "id")) == []


def test_a_tab_does_not_import_the_commands() -> None:
    """It would be a second on a small machine, at every TAB."""
    code = (
        "import sys; sys.argv = ['swarmd', '_names', 'models', '--url', 'http://127.0.0.1:9']\n"
        "import swarmd.cli\n"
        "try: swarmd.cli.main()\n"
        "except SystemExit as ended: assert ended.code == 0\n"
        "heavy = {'aiohttp', 'numpy', 'swarmd.cli.program', 'rich.progress'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
