"""Everything that people and the autopilot may ask of one model, at random and at the same time: whatever the order, nothing
is left behind, nothing hangs, nothing is held that is not there."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from swarmd.domain.ids import ShardRef
from swarmd.store.content import read_acquisitions
from tests.fakes.around import FILE, TINY, Around, asked, known_by, over
from tests.fakes.holders import Holder
from tests.hub.faults import Slow

SEEDS = range(3)  # each takes a second or two; a hundred of them were run when this was written
WISHES = 40
SPREAD_S = 0.8


async def wish(holder: Holder, lots: random.Random) -> None:
    """One, at a moment of its own. What is refused is refused."""
    await asyncio.sleep(lots.random() * SPREAD_S)
    desk, shard = holder.desk, lots.randrange(4)
    match lots.randrange(12):
        case 0 | 1 | 2:
            await asked(holder)
        case 3:
            await asked(holder, shards=(shard,))
        case 4:
            await desk.cancel(TINY)
        case 5:
            await desk.pause(TINY)
        case 6:
            await desk.resume(TINY)
        case 7:
            await desk.delete_model(TINY)
        case 8:
            await desk.rescan()
        case 9:
            await desk.delete_shard(ShardRef(TINY, shard))
        case 10:
            await desk.acquire(TINY, (shard,), "auto_manage")
        case _:
            await desk.move(TINY, 0)


async def at_rest(holder: Holder) -> None:
    async with asyncio.timeout(20):
        while any(one.state not in ("complete", "failed", "cancelled") for one in holder.desk.acquisitions()):
            await holder.desk.resume(TINY)
            await asyncio.sleep(0.02)
        while holder.desk._tasks:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("seed", SEEDS)
async def test_any_order_leaves_nothing_behind(
    around: Around, data: bytes, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    lots = random.Random(seed)
    holder, other = await around.start(1, patience_s=1.0), await around.start(2)
    await asked(other)
    await over(other)
    await holder.connect(other)
    around.hub.faults.add(Slow(400_000), path=FILE, origin="cdn", skip=1)
    async with asyncio.TaskGroup() as group:
        for _ in range(WISHES):
            group.create_task(wish(holder, lots))
    await at_rest(holder)
    said = [(one.state, one.reason) for one in holder.desk.acquisitions()]
    assert holder.desk._queue.order() == () and not holder.desk._queue._running, said
    assert await read_acquisitions(holder.desk._db) == (), said
    held = holder.store.registry.held(TINY)
    assert not held or holder.store.catalog.get(TINY) is not None
    for index in held:
        assert known_by(holder).manifest.shards[index].sealed
        assert await holder.store.storage.verify(ShardRef(TINY, index)), f"shard {index}: {said}"
    left = {path.suffix for path in holder.store.catalog.folder(TINY).glob("*")} if held else set[str]()
    assert not left & {".tmp", ".quarantine"}, (left, said)
    assert not [record.getMessage() for record in caplog.records], said
