"""Nodes for measurements: real `swarmd run` processes on 127.0.0.1, one founded swarm, a model spread evenly over it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench.delay import API_PORT, LIBC, Network

ROOT = Path(__file__).resolve().parent.parent
PR_SET_PDEATHSIG = 1  # linux/prctl.h
READY_S, SPREAD_S, STOP_S = 120.0, 300.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a node is started."""

    folder: Path
    port: int
    threads: int
    megabytes: float
    environment: dict[str, str]
    network: Network | None
    number: int
    core: int | None


@dataclass(slots=True)
class Node:
    url: str
    key: str
    process: asyncio.subprocess.Process
    recipe: Recipe

    async def call(self, session: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> Any:
        headers = {"authorization": f"Bearer {self.key}"}
        async with session.request(method, self.url + path, json=body, headers=headers) as reply:
            if reply.status >= 400:
                raise RuntimeError(f"{method} {path}: {reply.status} {await reply.text()}")
            return await reply.json()


async def until(check: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not await check():
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise RuntimeError(f"waited {seconds:.0f} s in vain for {what}") from None


@contextlib.asynccontextmanager
async def fleet(
    folder: Path, model: Path, *, count: int, threads: int, first_port: int, environment: dict[str, str],
    network: Network | None = None, cores: Sequence[int] | None = None,
) -> AsyncIterator[tuple[aiohttp.ClientSession, list[Node], str]]:
    """`count` nodes with the model's shards spread over them, and the model's id. The rest as `swarm`."""
    megabytes = model.stat().st_size / count / 1e6  # as many shards as nodes: every shard is a llama.cpp context
    async with swarm(
        folder, count=count, threads=threads, first_port=first_port, megabytes=megabytes, environment=environment,
        network=network, cores=cores,
    ) as (session, nodes):  # fmt: skip
        await nodes[0].call(session, "POST", "/api/admin/models", {"path": str(model)})
        name = await spread(session, nodes)
        yield session, nodes, name


@contextlib.asynccontextmanager
async def builtin_fleet(
    folder: Path, *, count: int, threads: int, first_port: int, environment: dict[str, str], network: Network | None = None
) -> AsyncIterator[tuple[aiohttp.ClientSession, list[Node], str]]:
    """As `fleet`, with the built-in model, which answers questions about swarmd."""

    def own(number: int) -> dict[str, str]:
        return {"SWARMD_UI_BUILTIN_MODEL": "true"} if number == 0 else {}

    async with swarm(
        folder, count=count, threads=threads, first_port=first_port, megabytes=64, environment=environment,
        network=network, own=own,
    ) as (session, nodes):  # fmt: skip
        yield session, nodes, await spread(session, nodes)


@contextlib.asynccontextmanager
async def swarm(
    folder: Path, *, count: int, threads: int, first_port: int, megabytes: float, environment: dict[str, str],
    network: Network | None = None, cores: Sequence[int] | None = None,
    own: Callable[[int], dict[str, str]] = lambda number: {},
) -> AsyncIterator[tuple[aiohttp.ClientSession, list[Node]]]:
    """`count` linked nodes without models. `megabytes`: of a shard. `network`: each in a place of its own, else all on
    loopback from `first_port` on. `cores`: the processor that each is bound to. `own`: settings of one node by number."""
    shutil.rmtree(folder, ignore_errors=True)
    nodes: list[Node] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
        try:
            for number in range(count):
                recipe = Recipe(
                    folder=folder / f"node-{number + 1}", port=first_port + 20 * number, threads=threads,
                    megabytes=megabytes, environment=environment | own(number), network=network, number=number,
                    core=None if cores is None else cores[number],
                )  # fmt: skip
                nodes.append(await start(recipe))
            for node in nodes:
                await until(lambda node=node: ready(session, node), READY_S, "ready")
                node.key = (node.recipe.folder / "api_key").read_text().strip()
            for node in nodes[1:]:
                code = await nodes[0].call(session, "GET", "/api/admin/network-code")
                await node.call(session, "POST", "/api/admin/join-network", {"code": code["code"]})
            await until(lambda: linked(session, nodes), READY_S, "linked")
            yield session, nodes
        finally:
            await asyncio.gather(*(stop(node) for node in nodes))
    shutil.rmtree(folder, ignore_errors=True)


async def start(recipe: Recipe, *, again: bool = False) -> Node:
    """`again`: with what an earlier process left in the folder."""
    recipe.folder.mkdir(parents=True, exist_ok=again)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWARMD_")}
    settings = {
        "SWARMD_NETWORK_LISTEN_ADDRESS": "127.0.0.1",
        "SWARMD_UI_BUILTIN_MODEL": "false",
        "SWARMD_RESOURCES_MAX_CPU_THREADS": str(recipe.threads),
        "SWARMD_MODEL_SHARD_SIZE_MB": str(max(64, math.ceil(recipe.megabytes))),
        "SWARMD_INFERENCE_CONTEXT_TOKENS": "2048",
        "SWARMD_NODE_CONTRIBUTION": "maximum",
        "SWARMD_LOGGING_LEVEL": "warning",
        "SWARMD_NETWORK_ENABLE_MDNS": "false",  # nothing but the tokens
        "SWARMD_AUTO_MANAGE_ENABLED": "false",  # the parts stay as they are shared out here
        "SWARMD_API_RATE_LIMIT_RPM": "0",
        "SWARMD_API_RATE_LIMIT_ADMIN_RPM": "0",
    }
    port, network = recipe.port, recipe.network
    if network is not None:
        port = API_PORT
        settings |= network.settings(recipe.number)

    def prepare() -> None:
        """In the child, before it is swarmd."""
        if sys.platform == "linux":
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a measurement that is killed leaves no nodes behind
        if network is not None:
            network.places[recipe.number].enter()
        if recipe.core is not None:
            os.sched_setaffinity(0, {recipe.core})

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "swarmd", "run", "--data-dir", str(recipe.folder), "--port", str(port), cwd=ROOT,
        env={**kept, **settings, **recipe.environment}, stdout=asyncio.subprocess.DEVNULL, start_new_session=True,
        preexec_fn=prepare,
    )  # fmt: skip
    port = recipe.port if network is None else network.api_port(recipe.number)
    return Node(f"http://127.0.0.1:{port}", "", process, recipe)


async def restart(session: aiohttp.ClientSession, node: Node) -> None:
    """The node whose process has ended, in place and with what it had; ready."""
    await node.process.wait()
    node.process = (await start(node.recipe, again=True)).process
    await until(lambda: ready(session, node), READY_S, "ready again")


async def ready(session: aiohttp.ClientSession, node: Node) -> bool:
    if node.process.returncode is not None:
        raise RuntimeError(f"the node at {node.url} ended with {node.process.returncode}")
    try:
        async with session.get(f"{node.url}/health/ready") as reply:
            return reply.status == 200
    except aiohttp.ClientConnectionError:
        return False


async def linked(session: aiohttp.ClientSession, nodes: list[Node], *, direct: bool = False) -> bool:
    """All with all. `direct`: and none through a third."""
    rows = [await node.call(session, "GET", "/api/admin/links") for node in nodes]
    links = [{row["node_id"]: row["path"] for row in some if row["purpose"] == "control"} for some in rows]
    if any(len(some) < len(nodes) - 1 for some in links):
        return False
    return not direct or all(path == "direct" for some in links for path in some.values())


async def model_row(session: aiohttp.ClientSession, node: Node) -> dict[str, Any] | None:
    rows = await node.call(session, "GET", "/api/admin/models")
    return next((row for row in rows if row["shard_count"]), None)


async def spread(session: aiohttp.ClientSession, nodes: list[Node]) -> str:
    row = await model_row(session, nodes[0])
    assert row is not None
    name, shards = row["id"], row["shard_count"]
    bounds = [round(i * shards / len(nodes)) for i in range(len(nodes) + 1)]
    for number, node in enumerate(nodes[1:], 1):
        await until(lambda node=node: knows(session, node), READY_S, "the manifest")
        for index in range(bounds[number], bounds[number + 1]):
            await node.call(session, "POST", f"/api/admin/models/{name}/shards/{index}/download")
    for number, node in enumerate(nodes[1:], 1):
        part = range(bounds[number], bounds[number + 1])
        await until(lambda node=node, part=part: holds(session, node, part), SPREAD_S, "the shards")
    await until(lambda: spread_seen(session, nodes[0], range(bounds[1], shards)), READY_S, "the holdings")
    for index in range(bounds[1], shards):
        await nodes[0].call(session, "DELETE", f"/api/admin/models/{name}/shards/{index}")
    return str(name)


async def knows(session: aiohttp.ClientSession, node: Node) -> bool:
    """Of the model, and of a holder for every shard."""
    row = await model_row(session, node)
    return row is not None and all(shard["holders"] for shard in row["shards"])


async def holds(session: aiohttp.ClientSession, node: Node, part: range) -> bool:
    row = await model_row(session, node)
    return row is not None and all(row["shards"][index]["local"] for index in part)


async def spread_seen(session: aiohttp.ClientSession, first: Node, given: range) -> bool:
    """Node 1 knows a second holder of every shard it is about to delete."""
    row = await model_row(session, first)
    assert row is not None
    return all(row["shards"][index]["holders"] >= 2 for index in given)


async def stop(node: Node) -> None:
    if node.process.returncode is None:
        node.process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await node.process.wait()
        except TimeoutError:
            node.process.kill()
            await node.process.wait()
