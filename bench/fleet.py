"""Nodes for measurements: real `swarmd run` processes on 127.0.0.1, one founded swarm, a model spread evenly over it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parent.parent
READY_S, SPREAD_S, STOP_S = 60.0, 300.0, 10.0


@dataclass(slots=True)
class Node:
    url: str
    key: str
    process: asyncio.subprocess.Process

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
    folder: Path, model: Path, *, count: int, threads: int, first_port: int, environment: dict[str, str]
) -> AsyncIterator[tuple[aiohttp.ClientSession, list[Node], str]]:
    """`count` nodes with the model's shards spread over them, and the model's id."""
    megabytes = model.stat().st_size / count / 1e6  # as many shards as nodes: every shard is a llama.cpp context
    async with swarm(
        folder, count=count, threads=threads, first_port=first_port, megabytes=megabytes, environment=environment
    ) as (session, nodes):
        await nodes[0].call(session, "POST", "/api/admin/models", {"path": str(model)})
        name = await spread(session, nodes)
        yield session, nodes, name


@contextlib.asynccontextmanager
async def swarm(
    folder: Path, *, count: int, threads: int, first_port: int, megabytes: float, environment: dict[str, str]
) -> AsyncIterator[tuple[aiohttp.ClientSession, list[Node]]]:
    """`count` linked nodes without models. `megabytes`: of a shard."""
    shutil.rmtree(folder, ignore_errors=True)
    nodes: list[Node] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
        try:
            for number in range(count):
                home, port = folder / f"node-{number + 1}", first_port + 20 * number
                nodes.append(await start(home, port, threads, megabytes, environment))
            for node in nodes:
                await until(lambda node=node: ready(session, node), READY_S, "ready")
                node.key = (folder / f"node-{nodes.index(node) + 1}" / "api_key").read_text().strip()
            for node in nodes[1:]:
                code = await nodes[0].call(session, "GET", "/api/admin/network-code")
                await node.call(session, "POST", "/api/admin/join-network", {"code": code["code"]})
            await until(lambda: linked(session, nodes), READY_S, "linked")
            yield session, nodes
        finally:
            await asyncio.gather(*(stop(node) for node in nodes))
    shutil.rmtree(folder, ignore_errors=True)


async def start(
    folder: Path, port: int, threads: int, megabytes: float, environment: dict[str, str], *, again: bool = False
) -> Node:
    """`again`: with what an earlier process left in the folder."""
    folder.mkdir(parents=True, exist_ok=again)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWARMD_")}
    settings = {
        "SWARMD_NETWORK_LISTEN_ADDRESS": "127.0.0.1",
        "SWARMD_UI_BUILTIN_MODEL": "false",
        "SWARMD_RESOURCES_MAX_CPU_THREADS": str(threads),
        "SWARMD_MODEL_SHARD_SIZE_MB": str(max(64, math.ceil(megabytes))),
        "SWARMD_INFERENCE_CONTEXT_TOKENS": "2048",
        "SWARMD_NODE_CONTRIBUTION": "maximum",
        "SWARMD_LOGGING_LEVEL": "warning",
        "SWARMD_NETWORK_ENABLE_MDNS": "false",  # nothing but the tokens
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "swarmd", "run", "--data-dir", str(folder), "--port", str(port), cwd=ROOT,
        env={**kept, **settings, **environment}, stdout=asyncio.subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    return Node(f"http://127.0.0.1:{port}", "", process)


async def ready(session: aiohttp.ClientSession, node: Node) -> bool:
    if node.process.returncode is not None:
        raise RuntimeError(f"the node at {node.url} ended with {node.process.returncode}")
    try:
        async with session.get(f"{node.url}/health/ready") as reply:
            return reply.status == 200
    except aiohttp.ClientConnectionError:
        return False


async def linked(session: aiohttp.ClientSession, nodes: list[Node]) -> bool:
    peers = [await node.call(session, "GET", "/api/admin/peers") for node in nodes]
    return all(sum(1 for row in rows if row["healthy"]) >= len(nodes) - 1 for rows in peers)


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
