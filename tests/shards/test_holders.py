"""One holder as a source: its map of chunks, its refusals, how many calls it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from swarmd.domain.ids import ShardRef
from swarmd.domain.peers import PeerIdentity
from swarmd.domain.refusals import NotFound, Refusal
from swarmd.kit.gauges import Gauges
from swarmd.kit.world import real_world
from swarmd.shards.board import Board
from swarmd.shards.holders import CALLS, Holder
from swarmd.shards.jobs import Job
from swarmd.shards.sources import PLACES, Places, Work
from swarmd.transport.loopback import LoopbackHub
from swarmd.transport.rpc import Link, WithPayload
from swarmd.wire.exchange import AskChunk, AskChunkMap, ChunkMap, ShardChunk, pack_chunks
from tests.fakes.holders import open_store
from tests.shards.test_storage import MODEL, adopted, chunk
from tests.transport.nodes import nodes

REF = ShardRef(MODEL, 1)


@dataclass
class Scene:
    """A fetcher's work, and a peer that answers as a test says."""

    work: Work
    link: Link
    payload: bytes
    places: Places = field(default_factory=Places)
    has: set[int] = field(default_factory=set)
    asked: list[int] = field(default_factory=list)
    maps: int = 0
    at_once: int = 0
    most: int = 0
    refuse: Refusal | None = None
    before: Callable[[int], Awaitable[None]] | None = None
    map: bytes | None = None
    on_its_way: Callable[[], Awaitable[None]] | None = None
    """Awaited by each map that was made."""

    async def answer(self, ask: AskChunk, payload: memoryview, peer: PeerIdentity) -> WithPayload | Refusal:
        self.asked.append(ask.chunk)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            if self.before is not None:
                await self.before(ask.chunk)
        finally:
            self.at_once -= 1
        return self.refuse or WithPayload(ShardChunk(), chunk(self.payload, ask.chunk))

    async def answer_map(self, ask: AskChunkMap, payload: memoryview, peer: PeerIdentity) -> WithPayload:
        self.maps += 1
        bits = pack_chunks(self.has, self.work.landing.spec.chunk_count) if self.map is None else self.map
        if self.on_its_way is not None:
            await self.on_its_way()
        return WithPayload(ChunkMap(), bits)

    def holder(self, *, partial: bool) -> Holder:
        made = Holder(node=self.link.node, link=self.link, partial=partial, distance=1.0, places=self.places)
        self.work.join(made)
        return made


@asynccontextmanager
async def scene(folder: Path, tiny: Path) -> AsyncIterator[Scene]:
    store = open_store(1, folder)
    cut, known = await adopted(store, tiny)
    landing = await store.storage.open_landing(REF)
    job = Job(MODEL, trigger="user", started_at=0.0)
    job.want([(REF.index, landing.spec.size_bytes)])
    work = Work(
        job=job, landing=landing, layout=known.manifest.layout, clock=real_world().clock, gauges=Gauges(),
        board=Board(landing.missing(), count=landing.spec.chunk_count),
    )  # fmt: skip
    async with nodes("ab", hub=LoopbackHub()) as (server, client):
        made = Scene(work, await client.link_to(server), cut.payloads[REF.index])
        server.dispatcher.answer(AskChunk, made.answer)
        server.dispatcher.answer(AskChunkMap, made.answer_map)
        yield made


async def test_a_whole_holder_brings_all(tmp_path: Path, tiny: Path) -> None:
    async with scene(tmp_path, tiny) as one:
        holder = one.holder(partial=False)
        assert await holder.run(one.work) is None
        assert one.work.landing.missing() == [] and one.maps == 0 and holder.brought
        assert sorted(one.asked) == sorted(set(one.asked)), "each was asked for once"
        assert one.most <= CALLS


async def test_a_quick_holder_gets_more_calls_and_all_places_come_back(tmp_path: Path, tiny: Path) -> None:
    async with scene(tmp_path, tiny) as one:

        async def a_moment(number: int) -> None:
            await asyncio.sleep(0.01)

        one.before = a_moment
        assert await one.holder(partial=False).run(one.work) is None
        assert one.most == CALLS
        assert all([await one.places.take(str(number), lambda: (0.0, 1.0), 1.0) for number in range(PLACES)])


async def test_a_partial_holder_is_asked_for_what_its_map_says(tmp_path: Path, tiny: Path) -> None:
    async with scene(tmp_path, tiny) as one:
        one.has = {0, 2}
        holder = one.holder(partial=True)
        running = asyncio.create_task(holder.run(one.work))
        async with asyncio.timeout(5):
            while one.work.board.wants(0) or one.work.board.wants(2):
                await asyncio.sleep(0.01)
        assert sorted(one.asked) == [0, 2]
        one.has.add(5)
        async with asyncio.timeout(5):
            while one.work.board.wants(5):
                await asyncio.sleep(0.01)
        maps = one.maps
        assert 2 <= maps <= 6, "asked again, and not without end"
        holder.whole(one.work)
        assert await running is None
        assert one.work.landing.missing() == [] and one.maps == maps


async def test_a_map_that_is_overtaken_by_the_news_that_all_is_there_does_not_count(tmp_path: Path, tiny: Path) -> None:
    """The map lay behind chunks on the bulk link, the summary came over the control link: the rest was never asked for."""
    async with scene(tmp_path, tiny) as one:
        one.has = {0, 2}
        made, go = asyncio.Event(), asyncio.Event()

        async def late() -> None:
            made.set()
            await go.wait()

        one.on_its_way = late
        holder = one.holder(partial=True)
        running = asyncio.create_task(holder.run(one.work))
        await made.wait()
        holder.whole(one.work)
        go.set()
        async with asyncio.timeout(5):
            assert await running is None
        assert one.work.landing.missing() == [] and one.maps == 1


@pytest.mark.parametrize("bits", [b"", b"\xff" * 200, b"\xff" * 2])
async def test_a_map_that_is_none_ends_it(tmp_path: Path, tiny: Path, bits: bytes) -> None:
    async with scene(tmp_path, tiny) as one:
        one.map = bits
        trouble = await one.holder(partial=True).run(one.work)
        assert trouble is not None and "map" in trouble.reason and not trouble.lied and one.asked == []


async def test_a_refusal_ends_it_and_its_chunks_are_free(tmp_path: Path, tiny: Path) -> None:
    async with scene(tmp_path, tiny) as one:
        one.refuse = NotFound(what="it was deleted here")
        holder = one.holder(partial=False)
        trouble = await holder.run(one.work)
        assert trouble is not None and "deleted" in trouble.reason and not (trouble.lied or trouble.ours)
        assert one.work.board.claims(holder.name) == () and not holder.brought


async def test_wrong_bytes_are_a_lie_and_what_others_found_out_counts(tmp_path: Path, tiny: Path) -> None:
    async with scene(tmp_path, tiny) as one:
        one.payload = bytes(len(one.payload))
        trouble = await one.holder(partial=False).run(one.work)
        assert trouble is not None and trouble.lied
        one.asked.clear()
        one.work.job.liars.add(one.link.node)
        trouble = await one.holder(partial=False).run(one.work)
        assert trouble is not None and not trouble.lied and one.asked == []


async def test_a_chunk_that_another_brought_first_is_not_waited_for(tmp_path: Path, tiny: Path) -> None:
    async with scene(tmp_path, tiny) as one:
        stuck = asyncio.Event()

        async def never_the_first(number: int) -> None:
            if number == 0:
                await stuck.wait()

        one.before = never_the_first
        holder = one.holder(partial=False)
        running = asyncio.create_task(holder.run(one.work))
        async with asyncio.timeout(5):
            while one.work.board.missing != {0}:
                await asyncio.sleep(0.01)
        await one.work.landing.write_chunk(0, chunk(one.payload, 0))
        one.work.arrived(holder, 0)
        holder.beaten(0)
        async with asyncio.timeout(5):
            assert await running is None
        assert not one.work.wanted
