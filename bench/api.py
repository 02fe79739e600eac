"""How fast the API answers, on one core, with 50 models and 20 peers known; what a hundred dashboards cost; the first byte.

    python -m bench.api [--rounds 5] [--seconds 3]

One process is the node (`bench.crowd`: a real one, but nobody answers behind its peers), bound to one core; wrk and the
dashboards are on another. Each round asks `GET /api/admin/stats` and `/models` in turns, for so many seconds each: with one
connection, which gives the time of an answer, and with eight, which gives how many come in a second, and how many for each
second of processor time that the node took. That is its rate with the core to itself, whoever else uses the machine.
Beside it a bare aiohttp server with bodies of the same sizes, which is as fast as anything on this library can be. Then,
for three times as long, what the node's process takes without dashboards, and with a hundred of them that read all they
are told. Then chats with the built-in model, node and worker on any core: from the moment in which the head of the
generation has the first token to the moment in which the client has its bytes, both by the clock of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.fleet import ROOT
from bench.results import Record, Round

PORT = 21300
PATHS = ("stats", "models")
DASHBOARDS = 100
CHATS = 20
READY_S = 120.0
UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


class Child:
    """A process of `bench.crowd`."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process, self.port = process, port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(READY_S):
            text = await self._process.stdout.readline()
        if not text:
            raise RuntimeError(f"the process at port {self.port} ended")
        return text.decode().strip()

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def bind(self, cores: set[int]) -> None:
        """All its threads; not its worker."""
        for thread in Path(f"/proc/{self._process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


@contextlib.asynccontextmanager
async def child(folder: Path, port: int, cores: set[int], *words: str) -> AsyncIterator[Child]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWARMD_")}
    settings = {"SWARMD_LOGGING_LEVEL": "warning", "SWARMD_NETWORK_LISTEN_ADDRESS": "127.0.0.1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.crowd", "--folder", str(folder), "--port", str(port), *words, cwd=ROOT,
        env={**kept, **settings}, stdout=asyncio.subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )  # fmt: skip
    found = Child(process, port)
    try:
        while await found.line() != "ready":
            pass
        yield found
    finally:
        await found.stop()


@dataclass(frozen=True, slots=True)
class Loaded:
    rate: float
    """Answers a second."""
    median_ms: float
    per_core: float
    """Answers for each second of processor time of the process that gives them: its rate with a core to itself."""


def load(child: Child, path: str, *, connections: int, seconds: float, core: int) -> Loaded:
    command = [
        "taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", child.url + path,
    ]  # fmt: skip
    before = child.cpu_s()
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    used = child.cpu_s() - before
    wrong = re.search(r"Non-2xx|Socket errors", text)
    rate, half = re.search(r"Requests/sec:\s*([\d.]+)", text), re.search(r"50%\s*([\d.]+)(us|ms|s)", text)
    count = re.search(r"(\d+) requests in", text)
    if wrong or rate is None or half is None or count is None:
        raise RuntimeError(f"wrk says: {text}")
    return Loaded(float(rate[1]), float(half[1]) * UNITS_MS[half[2]], int(count[1]) / used)


async def dashboards(session: aiohttp.ClientSession, node: Child, count: int, seconds: float) -> float:
    """Share of a core that the node's process takes meanwhile."""
    heard = 0

    async def listen(socket: aiohttp.ClientWebSocketResponse) -> None:
        nonlocal heard
        async for _ in socket:
            heard += 1

    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(session.ws_connect(f"{node.url}/api/admin/ws")) for _ in range(count)]
        async with asyncio.TaskGroup() as group:
            listening = [group.create_task(listen(socket)) for socket in sockets]
            await asyncio.sleep(2.5)  # what is told to a fresh socket is no part of it
            heard, before, began = 0, node.cpu_s(), time.monotonic()
            await asyncio.sleep(seconds)
            used, took = node.cpu_s() - before, time.monotonic() - began
            if heard < count * (seconds // 2 - 1):
                raise RuntimeError(f"{count} dashboards heard {heard} messages in {took:.1f} s")
            for task in listening:
                task.cancel()
    return used / took


async def first_bytes(session: aiohttp.ClientSession, node: Child, key: str, model: str) -> list[float]:
    """Milliseconds from the head to the client, of each chat."""
    found: list[float] = []
    body = {"model": model, "stream": True, "max_tokens": 4, "messages": [{"role": "user", "content": "What is a shard?"}]}
    for number in range(CHATS + 1):
        headers = {"authorization": f"Bearer {key}"}
        async with session.post(f"{node.url}/v1/chat/completions", json=body, headers=headers) as reply:
            if reply.status != 200:
                raise RuntimeError(await reply.text())
            arrived = 0.0
            async for text in reply.content:
                if not arrived and re.search(rb'"content":"[^"]', text):
                    arrived = time.monotonic()
        while not (said := await node.line()).startswith("first "):
            pass
        if number:  # the first one loads the model
            found.append((arrived - float(said.split()[1])) * 1e3)
    return found


async def measure(record: Record, *, rounds: int, seconds: float, cores: tuple[int, int], folder: Path) -> None:
    one, client_core = {cores[0]}, cores[1]
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {client_core})
    connector = aiohttp.TCPConnector(limit=0)
    async with child(folder / "node", PORT, every) as node, aiohttp.ClientSession(connector=connector) as session:
        key = (folder / "node" / "api_key").read_text().strip()
        sizes: dict[str, int] = {}
        for path in PATHS:
            async with session.get(f"{node.url}/api/admin/{path}") as reply:
                sizes[path] = len(await reply.read())
        async with session.get(f"{node.url}/api/admin/models") as reply:
            model = next(row["id"] for row in await reply.json() if "builtin" in row["id"])
        await first_bytes(session, node, key, model)
        for number in range(record.count(arm="first byte") + 1, rounds + 1):
            found: list[Round] = []
            node.bind(one)
            for path in PATHS:
                async with child(folder / "bare", PORT + 50, one, "--bare", str(sizes[path])) as bare:
                    for name, target, place in ((path, node, f"/api/admin/{path}"), (f"bare, {path}", bare, "/")):

                        def ask(connections: int, target: Child = target, place: str = place) -> Loaded:
                            return load(target, place, connections=connections, seconds=seconds, core=client_core)

                        alone, many = await asyncio.to_thread(ask, 1), await asyncio.to_thread(ask, 8)
                        found.append({
                            "arm": name, "round": number, "bytes": sizes[path], "median_ms": alone.median_ms,
                            "rate": many.rate, "per_core": many.per_core,
                        })  # fmt: skip
            idle = await dashboards(session, node, 0, 3 * seconds)
            watched = await dashboards(session, node, DASHBOARDS, 3 * seconds)
            found.append({"arm": "dashboards", "round": number, "count": DASHBOARDS, "idle": idle, "core": watched - idle})
            node.bind(every)
            found.append({"arm": "first byte", "round": number, "ms": await first_bytes(session, node, key, model)})
            record.add(*found)
            said = [
                f"{one['arm']} {one['rate']:.0f}/s ({one['per_core']:.0f} on a core) {one['median_ms']:.2f} ms"
                for one in found if "rate" in one
            ]  # fmt: skip
            print(
                f"round {number}: {', '.join(said)}, {DASHBOARDS} dashboards {watched - idle:.1%} of a core, first byte "
                f"{statistics.median(found[-1]['ms']):.2f} ms", flush=True,
            )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.api", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--fresh", action="store_true", help="measure anew what an earlier run has measured")
    options = parser.parse_args()
    subprocess.run(["sh", str(ROOT / "tools" / "api_packages.sh")], check=True)
    if shutil.which("taskset") is None:
        sys.exit("bench: taskset (util-linux) is missing, so nothing can be bound to a core")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("bench: this needs two cores, one for the node and one for those who ask")
    record = Record("api", {"seconds": options.seconds}, fresh=options.fresh)
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(
            measure(
                record, rounds=options.rounds, seconds=options.seconds, cores=(cores[0], cores[1]), folder=Path(scratch)
            )
        )


if __name__ == "__main__":
    main()
