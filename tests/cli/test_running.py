"""`swarmd run`: options become settings, endings become exit codes. Whole nodes are in tests/journeys."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from swarmd import app
from swarmd.cli.failure import Failure
from swarmd.cli.program import program
from swarmd.cli.running import join_text, with_fast_loop
from swarmd.domain.ids import NodeId
from swarmd.kit.notify import LAUNCHER_FD
from swarmd.kit.service import Fatal
from swarmd.updates import launcher
from tests.cli.conftest import Cli


class FakeApp:
    """`app.run_node` without a node."""

    def __init__(self, url: str = "http://127.0.0.1:1/", folder: Path = Path("/nowhere")) -> None:
        self.ends: int | Exception = 0
        self.stays_s = 0.0
        self.given: Any = None
        self._url, self._folder = url, folder

    async def run_node(self, loaded: Any, *, on_ready: Any, **others: Any) -> int:
        self.given = SimpleNamespace(loaded=loaded, **others)
        if isinstance(self.ends, Exception):
            raise self.ends
        on_ready(SimpleNamespace(node=NodeId("a" * 64), url=self._url, api_key_path=self._folder / "api_key"))
        await asyncio.sleep(self.stays_s)
        return self.ends


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeApp:
    fake = FakeApp()
    monkeypatch.setattr(app, "run_node", fake.run_node)
    return fake


def run(*arguments: str) -> Result:
    return CliRunner().invoke(program(), ["run", *arguments])


def test_options_are_settings(fake: FakeApp, tmp_path: Path) -> None:
    result = run("--data-dir", str(tmp_path), "--port", "9000", "--listen", "0.0.0.0", "--log-level", "warning")
    assert result.exit_code == 0, result.output
    settings = fake.given.loaded.settings
    assert (settings.node.listen_port, settings.node.listen_address) == (9000, "0.0.0.0")
    assert (settings.node.data_dir, settings.logging.level) == (str(tmp_path), "warning")
    assert fake.given.flags["node.listen_port"] == 9000
    assert "node aaaaaaaaaaaaaaaa is ready: http://127.0.0.1:1/" in result.stdout


@pytest.mark.parametrize("code", [0, 1])
def test_the_exit_code_is_the_nodes(fake: FakeApp, tmp_path: Path, code: int) -> None:
    fake.ends = code
    assert run("--data-dir", str(tmp_path)).exit_code == code


def test_a_node_that_wants_to_be_started_again_makes_the_command_the_launcher(
    fake: FakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.ends = launcher.EXIT_AGAIN
    lines: list[list[str]] = []

    def execve(path: str, line: list[str], environ: dict[str, str]) -> None:
        assert path == line[0] and environ["PATH"] == os.environ["PATH"]
        lines.append(line)
        raise SystemExit(0)  # a real one does not come back

    monkeypatch.setattr(os, "execve", execve)
    assert run("--data-dir", str(tmp_path)).exit_code == 0
    assert [word for word in lines[0] if word.startswith("swarmd.")] == ["swarmd.updates.launcher"]
    monkeypatch.setenv(LAUNCHER_FD, "none")  # where one waits already, it is told by the exit code
    assert run("--data-dir", str(tmp_path)).exit_code == launcher.EXIT_AGAIN
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (Fatal(3, "restart wanted"), 3, "restart wanted"),
        (OSError(98, "address already in use"), 1, "cannot start: [Errno 98]"),
    ],
)
def test_what_ends_a_node_is_a_sentence(
    fake: FakeApp, tmp_path: Path, error: Exception, code: int, sentence: str
) -> None:
    fake.ends = error
    result = run("--data-dir", str(tmp_path))
    assert result.exit_code == code
    assert sentence in result.stderr and "Traceback" not in result.stderr


def test_wrong_settings_are_wrong_usage(fake: FakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("--data-dir", str(tmp_path), "--port", "70000").exit_code == 2
    assert run("--data-dir", str(tmp_path), "--peer", "nonsense").exit_code == 2
    monkeypatch.setenv("SWARMD_NODE_PRT", "1")
    result = run("--data-dir", str(tmp_path))
    assert result.exit_code == 2
    assert "SWARMD_NODE_PRT" in result.stderr
    assert fake.given is None


def test_peers_are_joined_once_the_node_is_ready(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeApp(url=cli.url + "/", folder=cli.folder)
    fake.stays_s = 1.0
    monkeypatch.setattr(app, "run_node", fake.run_node)
    cli.folder.mkdir()
    (cli.folder / "api_key").write_text(cli.key_file.read_text())
    result = run("--data-dir", str(cli.folder), "--peer", "swarm://abc")
    assert "connected to node " + "b" * 16 in result.stdout
    (cli.folder / "api_key").write_text("x" * 64)
    assert "could not join" in run("--data-dir", str(cli.folder), "--peer", "swarm://abc").stderr


def test_the_four_forms_of_a_peer() -> None:
    assert join_text(" swarm://abc ") == "swarm://abc"
    assert join_text("/ip4/10.0.0.5/tcp/8810") == "/ip4/10.0.0.5/tcp/8810"
    assert join_text("10.0.0.5:8810") == "/ip4/10.0.0.5/tcp/8810"
    assert join_text("9-lives.example:8810") == "/dns/9-lives.example/tcp/8810"
    assert join_text("7-crossover-clockwork@10.0.0.5:8810") == "7-crossover-clockwork@10.0.0.5:8810"
    with pytest.raises(Failure, match="no invite code"):
        join_text("nonsense")


def test_the_loop_is_uvloop_where_there_is_one() -> None:
    async def name() -> int:
        return "uvloop" in type(asyncio.get_running_loop()).__module__

    assert with_fast_loop(name())


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="a matter of glibc")
def test_threads_share_one_heap() -> None:
    """Each had its own, and the node grew by 10 MB with the shards it fetched."""
    code = """
import asyncio, ctypes, threading
from swarmd.cli.running import with_fast_loop

async def work():
    gate = threading.Barrier(8)
    await asyncio.gather(*(asyncio.to_thread(lambda: gate.wait(10) and bytes(100_000)) for _ in range(8)))
    return 0

async def wide():
    from concurrent.futures import ThreadPoolExecutor
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(8))
    return await work()

with_fast_loop(wide())
ctypes.CDLL(None).malloc_stats()
"""
    stats = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stderr
    assert stats.count("Arena ") == 1, stats
