"""Nodes around a local hub: real sockets to the hub, in-memory ones between the nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.refusals import Refusal
from swarmd.domain.shards import Acquisition
from swarmd.models.catalog import KnownModel
from swarmd.transport.loopback import LoopbackHub
from tests.fakes.holders import Holder, open_holder
from tests.hub.hub import LocalHub

TINY = ModelId("tiny.q8-0")
REPO, FILE = "maker/tiny-GGUF", "tiny.Q8_0.gguf"


class Around:
    """A hub, and nodes that use it."""

    def __init__(self, folder: Path, hub: LocalHub) -> None:
        self.folder, self.hub, self.net = folder, hub, LoopbackHub()
        self.stacks: dict[int, AsyncExitStack] = {}

    async def start(self, seed: int, *, patience_s: float = 5.0) -> Holder:
        stack = self.stacks[seed] = AsyncExitStack()
        holder = await stack.enter_async_context(
            open_holder(seed, self.folder, self.net, patience_s=patience_s, endpoint=self.hub.endpoint)
        )
        assert holder.hub_desk is not None
        return holder

    async def stop(self, seed: int) -> None:
        await self.stacks.pop(seed).aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.002)


async def asked(
    holder: Holder, *, filename: str = FILE, shards: tuple[int, ...] | None = None, fair: bool = False,
    model: ModelId | None = None,
) -> Acquisition | Refusal:  # fmt: skip
    assert holder.hub_desk is not None
    return await holder.hub_desk.fetch(REPO, filename, shards=shards, fair_share=fair, model=model)


async def over(holder: Holder, model: ModelId = TINY) -> Acquisition:
    def ended() -> bool:
        one = holder.desk.acquisition(model)
        return one is not None and one.state in ("complete", "failed", "cancelled")

    await until(ended)
    one = holder.desk.acquisition(model)
    assert one is not None
    return one


def known_by(holder: Holder, model: ModelId = TINY) -> KnownModel:
    known = holder.store.catalog.get(model)
    assert known is not None
    return known


async def whole_file(holder: Holder, model: ModelId = TINY) -> bytes:
    """Put together again out of the shards."""
    known = known_by(holder, model)
    data = bytearray(known.manifest.file_size_bytes)
    header = (holder.store.catalog.folder(model) / "gguf_header.bin").read_bytes()
    data[: len(header)] = header
    for shard in known.manifest.shards:
        position = 0
        for span in shard.tensors:
            payload = await holder.store.storage.read_payload(ShardRef(model, shard.index), position, span.size_bytes)
            data[span.offset_bytes : span.offset_bytes + span.size_bytes] = payload
            position += span.size_bytes
    return bytes(data)


def started(holder: Holder, model: ModelId = TINY) -> Acquisition:
    one = holder.desk.acquisition(model)
    assert one is not None
    return one
