"""`make swarm` itself: three processes, a question, `kill -9` of a node, and a clean end."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import psutil

ROOT = Path(__file__).parents[2]
UP_S = 90.0
BACK_S = 40.0
# The command with a shorter pause before a killed node is started again: a dozen of them make half a minute otherwise.
SHORT_PAUSES = "import sys; from tools import swarm; swarm.FIRST_RESTART_S = 0.1; sys.exit(swarm.main(sys.argv[1:]))"
COMMAND = (sys.executable, "-c", SHORT_PAUSES)


class Running:
    """The command, what it printed, and the nodes it started."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process, self.folder, self.lines = process, folder, list[str]()

    async def until(self, words: str) -> str:
        assert self.process.stdout is not None
        while True:
            line = (await self.process.stdout.readline()).decode()
            assert line, f"it ended before it printed {words!r}:\n{''.join(self.lines)}"
            self.lines.append(line)
            if words in line:
                return line

    def nodes(self) -> dict[int, psutil.Process]:
        """Process of each node by its number."""
        found = {}
        try:
            children = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:  # it gave up: `until` says why
            return {}
        for child in children:
            try:
                arguments = child.cmdline()
            except (psutil.ZombieProcess, psutil.NoSuchProcess):  # just killed
                continue
            if "--data-dir" in arguments:
                found[int(Path(arguments[arguments.index("--data-dir") + 1]).name.removeprefix("node-"))] = child
        return found

    def port(self, number: int) -> int:
        return json.loads((self.folder / "ports.json").read_text())[number - 1]

    def ask(self, number: int) -> str | None:
        """The answer to a question through one node's API; None while it cannot answer."""
        key = (self.folder / f"node-{number}" / "api_key").read_text().strip()
        body = {
            "model": "swarmd-builtin", "temperature": 0, "max_tokens": 60,
            "messages": [{"role": "user", "content": "What is a shard?"}],
        }  # fmt: skip
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port(number)}/v1/chat/completions", json.dumps(body).encode(),
            {"authorization": f"Bearer {key}", "content-type": "application/json"},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                return json.load(reply)["choices"][0]["message"]["content"]
        except OSError:
            return None

    async def answered(self, number: int) -> str:
        async with asyncio.timeout(BACK_S):
            while (answer := await asyncio.to_thread(self.ask, number)) is None:
                await asyncio.sleep(0.3)
        return answer


    async def killed(self, number: int) -> None:
        """`kill -9` of one node; returns when its successor runs, or when the command gave up, which `until` tells."""
        while (victim := self.nodes().get(number)) is None and self.process.returncode is None:
            await asyncio.sleep(0.05)
        if victim is None:
            return
        victim.kill()
        while (again := self.nodes().get(number)) is None or again.pid == victim.pid:
            if self.process.returncode is not None:
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def make_swarm(folder: Path, *, kills: Mapping[str, int] = MappingProxyType({})) -> AsyncIterator[Running]:
    """`kills`: a node to kill when these words are printed."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--folder", str(folder), cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    running = Running(process, folder)
    try:
        async with asyncio.timeout(UP_S):
            for words, number in kills.items():
                await running.until(words)
                await running.killed(number)
            await running.until("Dashboard:")
        yield running
    finally:
        nodes = running.nodes() if process.returncode is None else {}
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(40):
                await process.communicate()
    assert process.returncode == 0, "".join(running.lines)
    assert not [node for node in nodes.values() if node.is_running()], "a node was left behind"


async def test_a_node_killed_once_the_swarm_is_up_rejoins_and_it_answers_the_same(tmp_path):
    async with make_swarm(tmp_path / "swarm") as running:
        printed = "".join(running.lines)
        assert "layers 0-2" in printed
        assert "tokens/s" in printed
        before = await running.answered(1)
        for number in (1, 2, 3):
            identity = (running.folder / f"node-{number}" / "identity.key").read_bytes()
            async with asyncio.timeout(BACK_S):
                await running.killed(number)
            assert await running.answered(1) == before
            assert await running.answered(3) == before
            assert (running.folder / f"node-{number}" / "identity.key").read_bytes() == identity


async def test_nodes_killed_while_the_swarm_comes_up_are_started_again_and_it_answers(tmp_path):
    kills = {"starting three nodes ...": 2, "node 1 invites": 1, "linking": 3, "node 1 has": 1, "sharing": 2, "> What": 3}
    async with make_swarm(tmp_path / "swarm", kills=kills) as running:
        answers = {await running.answered(number) for number in (1, 2, 3)}
        assert len(answers) == 1, answers


async def test_a_reader_that_went_away_does_not_leave_the_nodes_running(tmp_path):
    async with asyncio.timeout(UP_S):
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "--folder", str(tmp_path / "swarm"), cwd=ROOT,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        running = Running(process, tmp_path / "swarm")
        await running.until("ok  starting three nodes")
        nodes = running.nodes()
        assert len(nodes) == 3
        process._transport.get_pipe_transport(1).close()
        process.send_signal(signal.SIGINT)
        await process.wait()
    assert not [node for node in nodes.values() if node.is_running() and node.status() != psutil.STATUS_ZOMBIE]
