"""`up` and `down` with a real node and a real launcher."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from swarmd.api import whereabouts
from swarmd.cli.background import LOG_NAME, PID_NAME, running_pid, start
from swarmd.cli.failure import Failure
from swarmd.cli.program import program
from swarmd.kit.disk import Disk
from swarmd.updates.launcher import take_pid_file
from tests.fakes.nodes import free_port
from tests.meta.sources import ROOT


@pytest.fixture
def swarmd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    for name, text in {
        "PYTHONPATH": str(ROOT), "SWARMD_NETWORK_ENABLE_MDNS": "false", "SWARMD_UI_BUILTIN_MODEL": "false",
        "SWARMD_NETWORK_LISTEN_ADDRESS": "127.0.0.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, text)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(program(), [*arguments, "--data-dir", str(tmp_path / "data")])

    yield call
    if (pid := running_pid(tmp_path / "data")) is not None:
        os.kill(pid, signal.SIGKILL)


def test_up_says_where_a_crash_is_mended_and_down_ends_it(tmp_path: Path, swarmd: Callable[..., Result]) -> None:
    data, port = tmp_path / "data", str(free_port())
    result = swarmd("up", "--port", port)
    assert result.exit_code == 0, result.output
    assert f"swarmd is ready: http://127.0.0.1:{port}" in result.stdout and "`swarmd down` ends it" in result.stdout
    assert "is ready" in (data / LOG_NAME).read_text() and data.stat().st_mode & 0o777 == 0o700
    pid = running_pid(data)
    assert f"a node runs already (process {pid})" in swarmd("up", "--port", port).stdout

    node = int(Disk().read_bytes_now(data / "running.json", limit=4096).split(b'"pid":')[1].split(b",")[0])
    assert node != pid
    os.kill(node, signal.SIGKILL)
    until = time.monotonic() + 60
    log = data / LOG_NAME
    while "is started again in 1 s" not in log.read_text() or whereabouts.read_now(data, disk=Disk()) is None:
        assert time.monotonic() < until and running_pid(data) == pid, (data / LOG_NAME).read_text()
        time.sleep(0.1)

    assert "the node has ended" in swarmd("down").stdout
    assert running_pid(data) is None and whereabouts.read_now(data, disk=Disk()) is None
    assert "no node runs in the background" in swarmd("down").stdout


def test_a_node_that_cannot_start_says_why(tmp_path: Path, swarmd: Callable[..., Result]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "identity.key").write_text("damaged")
    result = swarmd("up")
    assert result.exit_code == 1 and "the node did not start" in result.stderr and "identity.key" in result.stderr
    assert running_pid(tmp_path / "data") is None


async def test_up_beside_a_node_of_swarmd_run_says_that_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: `the node did not start`, and no reason."""
    monkeypatch.setattr("subprocess.Popen", None)  # nothing is started
    (tmp_path / "data").mkdir()
    await whereabouts.tell(tmp_path / "data", "http://127.0.0.1:8800", disk=Disk())
    with pytest.raises(Failure, match=r"a node runs already at http://127.0.0.1:8800, not by"):
        start(tmp_path / "data", [], wait=True)


def test_settings_that_are_refused_start_nothing(tmp_path: Path, swarmd: Callable[..., Result]) -> None:
    result = swarmd("up", "--port", "0")
    assert result.exit_code == 2 and "node.listen_port" in result.stderr and not (tmp_path / "data").exists()


def test_a_pid_file_that_was_left_behind_names_nobody(tmp_path: Path) -> None:
    (tmp_path / PID_NAME).write_text(f"{os.getpid()}\n")
    assert running_pid(tmp_path) is None
    held = take_pid_file(tmp_path / PID_NAME)
    assert held is not None and running_pid(tmp_path) == os.getpid()
    os.close(held)
