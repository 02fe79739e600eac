"""`swarmd doctor`: each line by itself, and once all of it on this machine."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarmd.api.whereabouts import tell
from swarmd.cli import doctor, speed
from swarmd.cli.doctor import NO_NODE, _port_lines, disk_line, is_free, memory_line, node_line, port_line, python_line
from swarmd.cli.place import Chosen
from swarmd.cli.program import program
from swarmd.config.settings import Settings, with_values
from swarmd.kit.disk import Disk
from tests.cli.conftest import Cli


def test_little_memory_and_a_full_disk_are_problems() -> None:
    assert memory_line(8_000_000_000, 4_000_000_000).problem is None
    assert "close something" in (memory_line(8_000_000_000, 400_000_000).problem or "")
    assert disk_line(Path("/d"), 10_000_000_000).problem is None
    assert "--data-dir" in (disk_line(Path("/d"), 10_000_000).problem or "")
    assert python_line().problem is None


def test_a_port_is_free_taken_or_ours() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        assert "--port" in (port_line("API port", "127.0.0.1", port, running=False).problem or "")
        ours = port_line("API port", "127.0.0.1", port, running=True)
        assert ours.problem is None and "runs here" in ours.found
    assert is_free("127.0.0.1", port)
    assert "is free" in port_line("API port", "127.0.0.1", port, running=False).found
    assert not is_free("192.0.2.1", port), "not an address of this machine"


async def test_the_port_of_a_node_that_runs_elsewhere_is_not_ours(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was started with --port; what has the port of its settings is another program, which says nothing. Seen: half a
    minute went by."""
    await tell(cli.folder, cli.url, disk=Disk())
    with socket.socket() as taken, monkeypatch.context() as patch:
        patch.setattr(doctor, "OURS_S", 0.1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = with_values(Settings(), {"node.listen_port": taken.getsockname()[1]})
        line = (await _port_lines(settings, Chosen(data_dir=cli.folder)))[0]
        assert line.problem is not None and "another program has it" in line.problem
    ours = with_values(Settings(), {"node.listen_port": int(cli.url.rpartition(":")[2])})
    assert (await _port_lines(ours, Chosen(data_dir=cli.folder)))[0].problem is None


async def test_a_node_that_runs_is_named(tmp_path: Path) -> None:
    """Seen: beside a running node on another port, `start a node with swarmd run`."""
    assert node_line(tmp_path).found == NO_NODE
    await tell(tmp_path, "http://127.0.0.1:22000", disk=Disk())
    assert node_line(tmp_path).found == "http://127.0.0.1:22000"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_all_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the real engine in its worker process."""
    monkeypatch.setattr(speed, "COPIED_BYTES", 1_000_000)
    (tmp_path / "config.toml").write_text(f"[node]\nlisten_port = {min(free_port(), 60_000)}\n")
    result = CliRunner().invoke(program(), ["doctor", "--json", "--data-dir", str(tmp_path)])
    lines = {line["what"]: line for line in json.loads(result.stdout)}
    assert result.exit_code == (1 if any(line["problem"] for line in lines.values()) else 0)
    for name in ("engine", "engine layout", "prompt speed", "reply speed"):
        assert lines[name]["problem"] is None, lines[name]
    assert "tokens/s" in lines["reply speed"]["found"]
    assert "GB/s" in lines["memory bandwidth"]["found"]
    assert list(tmp_path.iterdir()) == [tmp_path / "config.toml"], "it changes nothing"


def test_an_engine_that_does_not_run_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from swarmd.inference.worker_process import WorkerGone

    async def broken(**_: object) -> None:
        raise WorkerGone("cannot run: the wheel is another one")

    monkeypatch.setattr("swarmd.inference.worker_process.start_worker", broken)
    monkeypatch.setattr(speed, "COPIED_BYTES", 1_000_000)
    result = CliRunner().invoke(program(), ["doctor", "--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "the wheel is another one" in result.stderr
