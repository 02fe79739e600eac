"""All holders at once, whole and partial ones, and what happens when they go away or lie."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmd.domain.events import ShardDownloadStarted, ShardRejected
from swarmd.domain.ids import ShardRef
from swarmd.domain.shards import Acquisition
from swarmd.shards.storage import Landing
from tests.fakes.holders import HastyDisk, Holder
from tests.shards.test_desk import TINY, Folks, ended, until, with_model

WHOLE = 10_000_000  # bytes of a shard: the tiny model is one
REF = ShardRef(TINY, 0)
SLOW = 300_000  # bytes a second: the tiny model takes more than a second


@pytest.fixture
async def folks(tmp_path: Path) -> AsyncIterator[Folks]:
    made = Folks(tmp_path)
    yield made
    for seed in reversed(list(made.stacks)):
        await made.stop(seed)


async def test_several_shards_come_from_several_holders(folks: Folks, tiny: Path) -> None:
    one, three, two = await with_model(folks, tiny, 1), await with_model(folks, tiny, 3), await folks.start(2)
    await two.connect(one)
    await two.connect(three)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    with two.store.bus.spy() as spy:
        assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
        assert (await ended(two)).state == "complete"
    assert {fact.source for fact in spy.of(ShardDownloadStarted)} == {one.id, three.id}


async def test_a_lost_holder_is_followed_by_the_next(folks: Folks, tiny: Path) -> None:
    one, three, two = await with_model(folks, tiny, 1), await with_model(folks, tiny, 3), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    with two.store.bus.spy() as spy:
        assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
        await spy.wait_for(ShardDownloadStarted)
        two.store.wire.links[one.id].close("the cable is out")
        await two.connect(three)
        done = await ended(two)
    assert done.state == "complete", done
    assert await two.store.storage.verify(ShardRef(TINY, len(done.transfers) - 1))


async def with_one_shard(folks: Folks, tiny: Path, seed: int) -> Holder:
    holder = await folks.start(seed)
    assert await holder.desk.add_file(tiny, WHOLE) == TINY
    return holder


def throttle(folks: Folks, one: int, other: int, bytes_per_s: float) -> None:
    folks.hub.change(f"node-{one}", f"node-{other}", bytes_per_s=bytes_per_s)


async def half(holder: Holder, origin: Holder, *, first: bool) -> None:
    """One half of the chunks, as an earlier try would have left them."""
    landing: Landing = await holder.store.storage.open_landing(REF)
    numbers = landing.missing()
    middle = len(numbers) // 2
    for number in numbers[:middle] if first else numbers[middle:]:
        await landing.write_chunk(number, b"".join(await origin.store.storage.read_chunk(REF, number)))
    landing.give_up()


async def test_one_shard_comes_from_all_holders_at_once(folks: Folks, tiny: Path) -> None:
    holders = [await with_one_shard(folks, tiny, seed) for seed in (1, 3, 4)]
    two = await folks.start(2)
    for seed in (1, 3, 4):
        throttle(folks, 2, seed, 4 * SLOW)
    for holder in holders:
        await two.connect(holder)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    before = {holder.id: two.store.wire.links[holder.id].connection.bytes_in for holder in holders}
    assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
    done = await ended(two)
    assert done.state == "complete" and done.transfers[0].log, done
    came = {node: two.store.wire.links[node].connection.bytes_in - start for node, start in before.items()}
    size = done.transfers[0].total_bytes
    assert all(size / 6 < count < size / 1.5 for count in came.values()), "each has brought its part"
    assert sum(came.values()) < size * 1.25, "hardly anything came twice"


async def test_a_holder_that_comes_later_joins_in(folks: Folks, tiny: Path) -> None:
    one, three, two = (
        await with_one_shard(folks, tiny, 1), await with_one_shard(folks, tiny, 3), await folks.start(2)
    )  # fmt: skip
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    throttle(folks, 1, 2, 20_000)  # alone it would take 20 s
    with two.store.bus.spy() as spy:
        assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
        await spy.wait_for(ShardDownloadStarted)
        await two.connect(three)
        done = await ended(two)
        assert {fact.source for fact in spy.of(ShardDownloadStarted)} == {one.id, three.id}
    assert done.state == "complete", done
    assert await two.store.storage.verify(REF)


async def test_two_halves_become_two_wholes_when_the_original_holder_is_gone(folks: Folks, tiny: Path) -> None:
    one, two, three = await with_one_shard(folks, tiny, 1), await folks.start(2), await folks.start(3)
    for node, first in ((two, True), (three, False)):
        await node.connect(one)
        await until(lambda node=node: node.store.catalog.get(TINY) is not None)
        await half(node, one, first=first)
        assert node.store.registry.holdings() == (), "nothing arrives yet"
    throttle(folks, 1, 2, 100)
    throttle(folks, 1, 3, 100)
    for node in (two, three):
        assert isinstance(await node.desk.acquire(TINY, None), Acquisition)
        await until(lambda node=node: node.store.storage.arriving(TINY) == (0,))
        assert [holding.partial for holding in node.store.registry.holdings()] == [(0,)]
    for node in (two, three):
        node.store.wire.links[one.id].close("the original holder is gone")
    await folks.stop(1)
    await two.connect(three)
    for node in (two, three):
        done = await ended(node)
        assert done.state == "complete", done
        assert await node.store.storage.verify(REF)
        holdings = node.store.registry.holdings()
        assert [(holding.shards, holding.partial) for holding in holdings] == [((0,), ())]


class FlippingDisk(HastyDisk):
    """A bit is wrong in what is read, once that is wanted."""

    lies = False

    def read_range_now(self, path: Path, offset: int, size: int) -> bytes:
        data = super().read_range_now(path, offset, size)
        return bytes([data[0] ^ 1]) + data[1:] if self.lies and path.suffix == ".gguf" and data else data


async def test_a_liar_among_holders_is_left_out_and_the_others_finish(folks: Folks, tiny: Path) -> None:
    disk = FlippingDisk()
    liar = await folks.start(1, disk=disk)
    assert await liar.desk.add_file(tiny, WHOLE) == TINY
    honest, two = await with_one_shard(folks, tiny, 3), await folks.start(2)
    disk.lies = True
    throttle(folks, 2, 3, 2 * SLOW)  # the liar is the quicker one
    await two.connect(liar)
    await two.connect(honest)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    with two.store.bus.spy() as spy:
        assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
        done = await ended(two)
        rejected = spy.of(ShardRejected)
        started = [fact.source for fact in spy.of(ShardDownloadStarted)]
    assert done.state == "complete" and done.transfers[0].source == honest.id, done
    assert [fact.source for fact in rejected] == [liar.id] and started.count(liar.id) == 1, "it is not asked again"
    assert await two.store.storage.verify(REF)


async def test_nobody_answers_and_what_came_stays(folks: Folks, tiny: Path) -> None:
    one, two = await with_one_shard(folks, tiny, 1), await folks.start(2, patience_s=0.5)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    throttle(folks, 1, 2, SLOW)
    assert isinstance(await two.desk.acquire(TINY, None), Acquisition)

    def some_came() -> bool:
        job = two.desk.acquisition(TINY)
        return job is not None and job.transfers[0].done_bytes > 0

    await until(some_came)
    two.store.wire.links[one.id].close("gone for good")
    done = await ended(two)
    assert done.state == "failed" and done.reason is not None and "no node that holds it" in done.reason
    assert two.store.storage.arriving(TINY) == () and two.store.registry.holdings() == (), "nobody is told of it any more"
    landing = await two.store.storage.open_landing(REF)
    assert landing.done_bytes > 0
