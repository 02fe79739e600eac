"""Whole nodes for journeys: real sockets on 127.0.0.1, real sqlite, real worker processes, several nodes in one loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

from swarmd.app import Node, open_node
from swarmd.config.loading import load
from swarmd.config.settings import PEER_PORT_OFFSET
from swarmd.discovery.join import Joined
from swarmd.domain.events import ShardStored, SummaryReceived
from swarmd.domain.generation import ChatMessage, GenerationRequest, Sampling, TokenChunk
from swarmd.domain.ids import ModelId, RequestId, ShardRef
from swarmd.domain.membership import NetworkCode
from swarmd.domain.refusals import Refusal
from swarmd.inference.generation import Generation
from swarmd.kit.world import real_world


def free_port() -> int:
    """A port for the API whose peer port is free as well."""
    while True:
        with socket.socket() as api, socket.socket() as peers:
            api.bind(("127.0.0.1", 0))
            port = api.getsockname()[1]
            if port + PEER_PORT_OFFSET > 65535:
                continue
            try:
                peers.bind(("127.0.0.1", port + PEER_PORT_OFFSET))
            except OSError:
                continue
            return port


@asynccontextmanager
async def running(folder: Path, *, port: int | None = None, **settings: str | int | bool) -> AsyncIterator[Node]:
    """One node. `settings` by dotted path with `__` for the dot."""
    flags: dict[str, str | int | bool | None] = {
        "node.data_dir": str(folder),
        "node.listen_port": port or free_port(),
        "network.listen_address": "127.0.0.1",
        "network.enable_mdns": False,  # nodes of two tests never meet
        "ui.builtin_model": False,
        "resources.max_cpu_threads": 1,
        "inference.context_tokens": 512,
        "inference.max_batch_size": 2,
    }
    flags |= {key.replace("__", "."): value for key, value in settings.items()}
    loaded = load(folder / "swarmd.toml", {}, flags)
    assert not isinstance(loaded, Refusal), loaded
    async with open_node(loaded, world=real_world(), environ={}, flags=flags) as node:
        yield node


@asynccontextmanager
async def swarm(folder: Path, count: int, **settings: str | int | bool) -> AsyncIterator[list[Node]]:
    """`count` nodes, all members of the first one's network, all linked to each other."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(running(folder / f"node-{i}", **settings)) for i in range(count)]
        await join(nodes)
        yield nodes


async def join(nodes: Sequence[Node]) -> None:
    for guest in nodes[1:]:
        code = await nodes[0].codes.network_code()
        assert isinstance(code, NetworkCode), code
        joined = await guest.joiner.join(code.code)
        assert isinstance(joined, Joined), joined
    for one in nodes:
        for other in nodes:
            assert one is other or await one.links.wait_for(other.node, timeout_s=20)


def division(shards: int, nodes: int) -> list[tuple[int, ...]]:
    bounds = [round(i * shards / nodes) for i in range(nodes + 1)]
    return [tuple(range(a, b)) for a, b in pairwise(bounds)]


async def spread(nodes: Sequence[Node], model: ModelId) -> None:
    """Node 0 holds the model; afterwards each holds its part and no other, and node 0 knows."""
    view = nodes[0].registry.view(model)
    assert view is not None
    parts = division(len(view.shards), len(nodes))
    for node, part in zip(nodes[1:], parts[1:], strict=True):
        with node.bus.spy() as spy:
            while not ((known := node.registry.view(model)) and known.manifest and known.covered):
                await spy.wait_for(object, timeout_s=20)
                spy.clear()
        with node.bus.spy() as spy:
            started = await node.desk.acquire(model, part)
            assert not isinstance(started, Refusal), started
            for index in part:
                await spy.wait_for(ShardStored, lambda fact, index=index: fact.shard.index == index, timeout_s=30)
    for part in parts[1:]:
        for index in part:
            refusal = await nodes[0].desk.delete_shard(ShardRef(model, index))
            assert refusal is None, refusal
    with nodes[0].bus.spy() as spy:
        while not nodes[0].registry.view(model).covered:
            await spy.wait_for(SummaryReceived, timeout_s=20)
            spy.clear()
    assert nodes[0].registry.held(model) == parts[0]


async def holding(node: Node, model: ModelId, shards: tuple[int, ...], *, told: Node) -> None:
    """The node fetches these shards, and the other one knows."""
    while not ((known := node.registry.view(model)) and known.manifest):
        await asyncio.sleep(0.02)
    await node.desk.acquire(model, shards)
    async with asyncio.timeout(20):
        while not set(shards) <= set(node.registry.held(model)):
            await asyncio.sleep(0.02)
        layout = node.registry.view(model).manifest.layout
        while not ((seen := told.registry.remote(model, layout).get(node.node)) and set(shards) <= set(seen.shards)):
            await asyncio.sleep(0.02)


def chat(model: ModelId, text: str, **rest) -> GenerationRequest:
    rest.setdefault("sampling", Sampling(temperature=0.0))
    return GenerationRequest(
        request=RequestId("test"), model=model, messages=(ChatMessage(role="user", content=text),), **rest
    )


async def generated(node: Node, request: GenerationRequest) -> list[TokenChunk]:
    generation = await node.pipeline.open(request)
    assert isinstance(generation, Generation), generation
    async with generation:
        return [chunk async for chunk in generation]


def text_of(chunks: Sequence[TokenChunk]) -> str:
    return "".join(chunk.text for chunk in chunks)
