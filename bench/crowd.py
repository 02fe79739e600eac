"""A node that knows much, for `bench.api`: a real one but for its links, which say that so many peers are there.

    python -m bench.crowd --folder FOLDER --port 21300 [--models 50] [--peers 20] [--bare BYTES]

The models are cut from files, so catalogue, storage, registry and everything above are the node's own. The peers hold
shards of them and are linked as far as anybody asks, and nobody answers behind them. It prints `ready`, and the moment
of each first token (seconds of the monotonic clock), as the head of the generation hears of it.

`--bare`: no node at all, but an aiohttp server with one handler that answers so many bytes: what the library itself costs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from pathlib import Path

from aiohttp import web

from bench.random_model import Shape, write
from swarmd import app
from swarmd.cli.place import flags_of, settings_of
from swarmd.cli.running import with_fast_loop
from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.peers import Endpoint, Holding, NodeSummary, PeerRecord, PeerView
from swarmd.domain.refusals import Refusal
from swarmd.inference.head import NOTHING, Head
from swarmd.kit.world import real_world
from swarmd.peers.links import Links
from swarmd.wire.generation import StepDone

SHAPE = Shape(layers=8, width=64, heads=2, kv_heads=1, feed_forward=128, vocabulary=320)
SHARD_BYTES = 50_000  # some five shards of each model
LATE_S = 1_700_000_000.0

CROWD: dict[NodeId, PeerView] = {}


class CrowdedLinks(Links):
    """With everybody of CROWD."""

    def views(self) -> tuple[PeerView, ...]:
        return (*super().views(), *CROWD.values())

    def connected(self) -> tuple[NodeId, ...]:
        return (*super().connected(), *CROWD)

    def summary(self, node: NodeId) -> NodeSummary | None:
        return CROWD[node].summary if node in CROWD else super().summary(node)


def gather(count: int, models: list[tuple[ModelId, str, int]]) -> None:
    """So many peers, each with two shards of every second model."""
    for number in range(count):
        node = NodeId(f"{number + 1:02x}" * 32)
        holdings = tuple(
            Holding(model=model, layout=layout, shards=tuple(sorted({number % shards, (number + at) % shards})))
            for at, (model, layout, shards) in enumerate(models)
            if (at + number) % 2
        )
        summary = NodeSummary(
            node=node, version=1, software="swarmd/0.1.0", started_at=LATE_S, ram_free_bytes=2 << 30,
            ram_total_bytes=8 << 30, region=("DE", "US", "JP")[number % 3], holdings=holdings,
        )  # fmt: skip
        endpoint = Endpoint(f"10.0.0.{number + 1}", 8810)
        CROWD[node] = PeerView(
            record=PeerRecord(node=node, endpoints=(endpoint,), last_seen=LATE_S), connected=True, rtt_ms=1.5,
            min_rtt_ms=1.2, rtt_samples=9, summary=summary, addresses=(endpoint,), heard_at=LATE_S,
        )  # fmt: skip


async def serve(folder: Path, port: int, models: int, peers: int) -> int:
    app.Links = CrowdedLinks
    answered = Head.answered

    def listening(head: Head, done: StepDone, payload: memoryview = NOTHING) -> None:
        if done.tokens and not head.generated:
            print("first", time.monotonic(), flush=True)
        answered(head, done, payload)

    Head.answered = listening
    flags = flags_of(folder, node__listen_port=port, network__enable_mdns=False, auto_manage__enabled=False)
    async with app.open_node(
        settings_of(flags, config=None), world=real_world(), environ=os.environ, flags=flags
    ) as node:
        source = write(folder.parent / "crowd.gguf", SHAPE)
        while len(node.registry.models()) < models:
            path = folder.parent / f"crowd-{len(node.registry.models())}.gguf"
            path.unlink(missing_ok=True)
            path.hardlink_to(source)
            added = await node.desk.add_file(path, SHARD_BYTES)
            if isinstance(added, Refusal):
                raise RuntimeError(added.sentence)
        known = [view.manifest for model in node.registry.models() if (view := node.registry.view(model)) and view.manifest]
        gather(peers, [(one.model, one.layout, len(one.shards)) for one in known])
        print("ready", flush=True)
        await node.stop.wait()
    return 0


async def bare(port: int, size: int) -> int:
    body = b" " * size

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"content-type": "application/json"})

    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("ready", flush=True)
    await asyncio.Event().wait()
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.crowd", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--peers", type=int, default=20)
    parser.add_argument("--bare", type=int)
    options = parser.parse_args()
    if options.bare is not None:
        with_fast_loop(bare(options.port, options.bare))
    else:
        with_fast_loop(serve(options.folder, options.port, options.models, options.peers))


if __name__ == "__main__":
    main()
