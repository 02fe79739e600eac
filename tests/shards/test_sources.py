"""Places for chunks on their way, and what one source's chunk means for the others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarmd.domain.ids import ShardRef
from swarmd.kit.gauges import Gauges
from swarmd.kit.world import real_world
from swarmd.shards.board import Board
from swarmd.shards.jobs import Job
from swarmd.shards.landing import ChunkMismatch
from swarmd.shards.sources import Places, Trouble, Work
from tests.fakes.holders import open_store
from tests.shards.test_storage import MODEL, adopted, chunk


class Plain:
    """A source that a test speaks for."""

    def __init__(self, name: str) -> None:
        self.name, self.distance = name, 1.0
        self.beaten_at: list[int] = []

    def chunks(self) -> frozenset[int] | None:
        return None

    def beaten(self, number: int) -> None:
        self.beaten_at.append(number)

    async def run(self, work: Work) -> Trouble | None:
        return None


@pytest.mark.looptime
async def test_a_free_place_goes_to_the_source_with_the_fewest_then_to_the_quickest() -> None:
    places, got = Places(4, 2), list[str]()

    async def ask(name: str, has: int, seconds: float) -> None:
        if await places.take(name, lambda: (float(has), seconds), 5.0):
            got.append(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            assert await places.take("greedy", lambda: (0.0, 0.1), 5.0)
        for name, has, seconds in (("greedy", 2, 0.1), ("slow", 0, 30.0), ("quick", 0, 1.0), ("slower", 0, 60.0)):
            group.create_task(ask(name, has, seconds))
        await asyncio.sleep(1)
        assert got == ["slow", "quick"], "two more places, for those that have none yet: the first who asked"
        assert places.pressing() == 0.1
        places.put("quick")
        await asyncio.sleep(1)
        assert got == ["slow", "quick", "slower"]
        places.put("slower")
        await asyncio.sleep(10)
        assert len(got) == 3, "another place of one that has some is to be had only when few are taken"
    places.put("slow")
    assert places.pressing() is None
    assert not await places.take("greedy", lambda: (2.0, 1.0), 1.0)
    places.put("greedy")
    assert await places.take("greedy", lambda: (1.0, 1.0), 1.0)


@pytest.mark.looptime
async def test_shards_share_a_source() -> None:
    places, got = Places(4, 4), list[str]()

    async def ask(shard: str, has: int) -> None:
        if await places.take("one", lambda: (float(has), 1.0), 5.0):
            got.append(shard)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            assert await places.take("one", lambda: (0.0, 1.0), 5.0)
        group.create_task(ask("has four", 4))
        group.create_task(ask("has none", 0))
        await asyncio.sleep(1)
        places.put("one")
        await asyncio.sleep(1)
        assert got == ["has none"]


@pytest.mark.looptime
async def test_who_is_cancelled_keeps_no_place() -> None:
    places = Places(1, 1)
    assert await places.take("a", lambda: (0.0, 1.0), 1.0)
    assert not await places.take("b", lambda: (0.0, 1.0), 1.0)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(places.take("b", lambda: (0.0, 1.0), 60.0))
        await asyncio.sleep(1)
        places.put("a")
        waiting.cancel()  # in the very moment in which it gets its turn
    assert await places.take("c", lambda: (0.0, 1.0), 1.0)


async def test_the_first_copy_of_a_chunk_wins(tmp_path: Path, tiny: Path) -> None:
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 1)
    cut, known = await adopted(store, tiny)
    landing = await store.storage.open_landing(ref)
    job, gauges = Job(MODEL, trigger="user", started_at=0.0), Gauges()
    job.want([(1, landing.spec.size_bytes)])
    board = Board(landing.missing(), count=landing.spec.chunk_count)
    work = Work(
        job=job, landing=landing, layout=known.manifest.layout, board=board, clock=real_world().clock, gauges=gauges
    )
    one, other = Plain("one"), Plain("other")
    work.join(one)
    work.join(other)
    total = len(board.missing)
    assert len(work.claim(one, total)) == total
    board.measured("one", 100.0)
    board.measured("other", 0.01)
    (number,) = work.claim(other, 1)
    with pytest.raises(ChunkMismatch):
        await work.keep(other, number, memoryview(b"x"), node=None)
    right = memoryview(chunk(cut.payloads[1], number))
    await work.keep(other, number, right, node=store.key.node)
    assert one.beaten_at == [number] and not board.wants(number)
    assert gauges.get(work.gauge) == job.progress(1) == len(right) / landing.spec.size_bytes
    await work.keep(one, number, memoryview(b"too late"), node=None)
    assert job.source(1) == store.key.node and landing.done_bytes == len(right)
    work.leave(one)
    assert len(work.claim(other, total)) == total - 1
