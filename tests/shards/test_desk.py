"""Adding, fetching, deleting and finding models, with real files and links in memory."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from swarmd.domain.events import ModelDiscovered, ModelRemoved, PeerConnected, ShardDropped, ShardRejected, ShardStored
from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.models import ShardState, TrustLevel
from swarmd.domain.refusals import BadFile, Busy, NoCoverage, NoSpace, NotFound
from swarmd.domain.shards import Acquisition, Rescan, TransferState
from swarmd.kit.disk import Disk
from swarmd.models.slicing import fair_share
from swarmd.shards.jobs import Job
from swarmd.store.content import read_acquisitions
from swarmd.store.database import Database
from swarmd.transport.loopback import LoopbackHub
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.holders import HastyDisk, Holder, open_holder

SHARD = 100_000  # bytes: five shards of the tiny model
TINY = ModelId("tiny-model")


class Folks:
    """Holders of one test, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.hub = folder, LoopbackHub()
        self.stacks: dict[int, AsyncExitStack] = {}

    async def start(self, seed: int, *, disk: Disk | None = None, patience_s: float = 5.0) -> Holder:
        stack = self.stacks[seed] = AsyncExitStack()
        return await stack.enter_async_context(
            open_holder(seed, self.folder, self.hub, disk=disk, patience_s=patience_s)
        )

    async def stop(self, seed: int) -> None:
        await self.stacks.pop(seed).aclose()


@pytest.fixture
async def folks(tmp_path: Path) -> AsyncIterator[Folks]:
    made = Folks(tmp_path)
    yield made
    for seed in reversed(list(made.stacks)):
        await made.stop(seed)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(8):
        while not condition():
            await asyncio.sleep(0.002)


async def ended(holder: Holder, model: ModelId = TINY) -> Acquisition:
    def over() -> bool:
        one = holder.desk.acquisition(model)
        return one is not None and one.state in ("complete", "failed")

    await until(over)
    one = holder.desk.acquisition(model)
    assert one is not None
    return one


def another(tiny: Path) -> Path:
    """Another model in a file of the same name."""
    folder = tiny.parent / "other"
    folder.mkdir()
    return write_model(folder / tiny.name, TinyModel(seed=2))


async def with_model(folks: Folks, tiny: Path, seed: int = 1) -> Holder:
    holder = await folks.start(seed)
    assert await holder.desk.add_file(tiny, SHARD) == TINY
    return holder


async def test_a_file_becomes_shards_once(folks: Folks, tiny: Path) -> None:
    holder = await folks.start(1)
    with holder.store.bus.spy() as spy:
        assert await holder.desk.add_file(tiny, SHARD) == TINY
        known = holder.store.catalog.get(TINY)
        assert known is not None and known.manifest.publisher == holder.id
        count = len(known.manifest.shards)
        assert count > 2 and holder.store.registry.held(TINY) == tuple(range(count))
        assert [fact.shard.index for fact in spy.of(ShardStored)] == list(range(count))
        assert holder.store.catalog.trust(TINY) is TrustLevel.PINNED
        done = holder.desk.acquisition(TINY)
        assert done is not None and done.state == "complete"
        spy.clear()
        assert await holder.desk.add_file(tiny, None) == TINY
        assert spy.facts == []
    assert holder.gauges.snapshot() == {}
    for index in range(count):
        assert await holder.store.storage.verify(ShardRef(TINY, index))


async def test_what_is_no_model_is_refused(folks: Folks, tiny: Path, tmp_path: Path) -> None:
    holder = await folks.start(1)
    (tmp_path / "text.gguf").write_text("no model" * 100)
    (tmp_path / "short.gguf").write_bytes(tiny.read_bytes()[:2000])
    for path in (tmp_path / "text.gguf", tmp_path / "short.gguf", tmp_path, tmp_path / "absent.gguf"):
        assert isinstance(await holder.desk.add_file(path, SHARD), BadFile), path
    assert holder.store.catalog.all() == ()


async def test_another_file_of_the_same_name_is_refused(folks: Folks, tiny: Path) -> None:
    holder = await with_model(folks, tiny)
    write_model(tiny, TinyModel(seed=2))
    assert isinstance(await holder.desk.add_file(tiny, SHARD), BadFile)


async def test_the_disk_limit_holds(folks: Folks, tmp_path: Path) -> None:
    holder = await folks.start(1)
    big = write_model(tmp_path / "big.gguf", TinyModel(layers=6, width=128, vocab=1000))
    holder.limit_disk(0)
    refusal = await holder.desk.add_file(big, SHARD)
    assert isinstance(refusal, NoSpace) and refusal.free_bytes == 0
    assert holder.store.catalog.all() == ()


class DiskThatEnds(HastyDisk):
    """Fails every write after the first `left` ranges, as a full disk would."""

    def __init__(self, left: int) -> None:
        self.left = left

    def write_range_now(self, path: Path, offset: int, data: bytes | memoryview) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(5, "the machine is gone")
        super().write_range_now(path, offset, data)


async def test_adding_goes_on_where_it_was_killed(folks: Folks, tiny: Path) -> None:
    first = await folks.start(1, disk=DiskThatEnds(20))
    assert isinstance(await first.desk.add_file(tiny, SHARD), BadFile)
    ref = ShardRef(TINY, len(first.store.registry.held(TINY)))
    assert first.store.storage.state(ref) is ShardState.PARTIAL
    await folks.stop(1)
    counting = DiskThatEnds(10_000)
    second = await folks.start(1, disk=counting)
    landing = await second.store.storage.open_landing(ref)
    assert landing.done_bytes > 0, "chunks from before are still there"
    assert await second.desk.add_file(tiny, SHARD) == TINY
    assert await second.store.storage.verify(ref)


async def test_a_neighbours_model_is_learned_and_fetched(folks: Folks, tiny: Path) -> None:
    one, two = await with_model(folks, tiny), await folks.start(2)
    with two.store.bus.spy() as spy:
        await two.connect(one)
        await spy.wait_for(ModelDiscovered)
        assert two.store.catalog.trust(TINY) is TrustLevel.DISCOVERED
        started = await two.desk.acquire(TINY, None)
        assert isinstance(started, Acquisition) and started.state == "downloading"
        done = await ended(two)
        assert done.state == "complete", done
        assert all(one_.state is TransferState.COMPLETE and one_.source == one.id for one_ in done.transfers)
        assert len(spy.of(ShardStored)) == len(done.transfers)
    for transfer in done.transfers:
        assert await two.store.storage.verify(ShardRef(TINY, transfer.index))
    again = await two.desk.acquire(TINY, None)
    assert isinstance(again, Acquisition)
    assert (await ended(two)).state == "complete"


async def test_a_name_that_was_only_heard_can_be_asked_for(folks: Folks, tiny: Path) -> None:
    one, two = await with_model(folks, tiny), await folks.start(2)
    await two.connect(one)
    started = await two.desk.acquire(TINY, None)  # before the manifest can have come
    assert isinstance(started, Acquisition) and started.state == "awaiting_manifest" and started.transfers == ()
    done = await ended(two)
    assert done.state == "complete" and done.transfers, done


async def test_what_gossip_told_before_there_was_a_link_is_learned_with_the_link(
    folks: Folks, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await with_model(folks, tiny), await folks.start(2)
    monkeypatch.setattr(Holder, "hear", lambda self, other: None)
    await two.connect(one)
    two.store.wire.summaries[one.id] = one.summary()
    await asyncio.sleep(0.05)
    assert two.store.catalog.get(TINY) is None
    two.store.bus.publish(PeerConnected(node=one.id))
    await until(lambda: two.store.catalog.get(TINY) is not None)


async def test_a_node_with_little_space_takes_its_share(folks: Folks, tiny: Path) -> None:
    one, two = await with_model(folks, tiny), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    known = two.store.catalog.get(TINY)
    assert known is not None
    count = len(known.manifest.shards)
    two.desk._no_space = lambda known, indices: (  # type: ignore[method-assign]
        NoSpace(needed_bytes=2, free_bytes=1) if len(indices) == count else None
    )
    assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
    await ended(two)
    assert two.store.registry.held(TINY) == fair_share(two.id, TINY, count, 1)


async def test_a_refusal_for_want_of_space_says_the_whole_need(folks: Folks, tiny: Path) -> None:
    """It told the need of this node's share alone, of a few shards of many."""
    one, two = await with_model(folks, tiny), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    known = two.store.catalog.get(TINY)
    assert known is not None
    two.limit_disk(0)
    refusal = await two.desk.acquire(TINY, None)
    assert isinstance(refusal, NoSpace)
    assert refusal.needed_bytes == sum(spec.size_bytes for spec in known.manifest.shards)


async def test_one_shard_can_be_asked_for(folks: Folks, tiny: Path) -> None:
    one, two = await with_model(folks, tiny), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    assert isinstance(await two.desk.acquire(TINY, (2,)), Acquisition)
    await ended(two)
    assert two.store.registry.held(TINY) == (2,)
    assert isinstance(await two.desk.acquire(TINY, (99,)), NotFound)


async def test_what_nobody_has_is_refused(folks: Folks, tiny: Path) -> None:
    one, two = await with_model(folks, tiny), await folks.start(2)
    assert isinstance(await two.desk.acquire(TINY, None), NotFound)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    two.store.wire.summaries.clear()
    assert isinstance(await two.desk.acquire(TINY, None), NoCoverage)
    assert isinstance(await two.desk.acquire(TINY, (0,)), NoCoverage)


async def test_a_liar_is_left_and_another_holder_used(folks: Folks, tiny: Path) -> None:
    liar, honest, two = await with_model(folks, tiny, 1), await with_model(folks, tiny, 3), await folks.start(2)
    liar.lie()
    with two.store.bus.spy() as spy:
        await two.connect(liar)
        await until(lambda: two.store.catalog.get(TINY) is not None)
        assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
        await spy.wait_for(ShardRejected, lambda fact: fact.source == liar.id)
        await two.connect(honest)
        done = await ended(two)
    assert done.state == "complete", done
    assert {fact.source for fact in spy.of(ShardRejected)} == {liar.id}
    assert await two.store.storage.verify(ShardRef(TINY, 0))


async def test_giving_up_says_why(folks: Folks, tiny: Path) -> None:
    one, two = await with_model(folks, tiny), await folks.start(2, patience_s=0.05)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    one.store.storage.forget(TINY)  # it told that it holds them, and holds them no more
    assert isinstance(await two.desk.acquire(TINY, (0,)), Acquisition)
    done = await ended(two)
    assert done.state == "failed" and done.reason is not None and "could be reached" in done.reason
    assert done.transfers[0].state is TransferState.FAILED


async def test_a_restart_goes_on_fetching(folks: Folks, tiny: Path, tmp_path: Path) -> None:
    one, two = await with_model(folks, tiny), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    with two.store.bus.spy() as spy:
        await two.desk.acquire(TINY, None)
        await spy.wait_for(ShardStored)
    await folks.stop(2)
    async with await Database.open(tmp_path / "node-2" / "node.db") as db:
        assert [row.model for row in await read_acquisitions(db)] == [TINY]
    two = await folks.start(2)
    held = two.store.registry.held(TINY)
    resumed = two.desk.acquisition(TINY)
    assert held and resumed is not None and resumed.state == "downloading"
    await two.connect(one)
    assert (await ended(two)).state == "complete"
    known = two.store.catalog.get(TINY)
    assert known is not None and len(two.store.registry.held(TINY)) == len(known.manifest.shards)


def written_down(folder: Path) -> tuple[list[str], list[int]]:
    """What a process that starts after a kill would read: models, and shards chosen of them."""
    db = sqlite3.connect(folder / "node.db")
    try:
        models = [row[0] for row in db.execute("SELECT model FROM acquisitions")]
        return models, [row[0] for row in db.execute("SELECT shard FROM acquisition_shards ORDER BY shard")]
    finally:
        db.close()


async def test_a_wish_is_on_the_disk_when_it_is_answered(folks: Folks, tiny: Path, tmp_path: Path) -> None:
    """kill -9 right after the answer once forgot what had been promised."""
    one, two = await with_model(folks, tiny), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    one.store.storage.forget(TINY)  # nothing arrives: what is written down stays
    started = await two.desk.acquire(TINY, (1,))
    assert isinstance(started, Acquisition) and started.state == "downloading"
    assert written_down(tmp_path / "node-2") == ([TINY], [1])
    assert isinstance(await two.desk.acquire(TINY, (3,)), Acquisition)
    assert written_down(tmp_path / "node-2") == ([TINY], [1, 3])
    assert isinstance(await two.desk.acquire(TINY, (99,)), NotFound)
    job = two.desk.acquisition(TINY)
    assert job is not None and [transfer.index for transfer in job.transfers] == [1, 3]


async def test_wishes_before_the_manifest_add_up(folks: Folks, tiny: Path, tmp_path: Path) -> None:
    """The second one was answered and forgotten."""
    one, two = await with_model(folks, tiny), await folks.start(2)
    two.desk._learner.heard = lambda node, spawn: None  # type: ignore[method-assign]
    await two.connect(one)
    async with two.store.catalog._folders:  # no manifest can be kept yet
        for index in (3, 1):
            started = await two.desk.acquire(TINY, (index,))
            assert isinstance(started, Acquisition) and started.state == "awaiting_manifest"
        assert written_down(tmp_path / "node-2") == ([TINY], [1, 3])
    assert (await ended(two)).state == "complete"
    assert two.store.registry.held(TINY) == (1, 3) and written_down(tmp_path / "node-2") == ([], [])


async def test_a_wish_that_cannot_be_written_down_is_refused(folks: Folks, tiny: Path) -> None:
    one, two = await with_model(folks, tiny), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)

    async def full(job: Job) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    two.desk.write = full  # type: ignore[method-assign]
    assert isinstance(await two.desk.acquire(TINY, None), Busy)
    done = await ended(two)
    assert done.state == "failed" and done.reason is not None and "written down" in done.reason


async def test_a_wish_at_the_very_end_of_a_job_is_fetched_too(folks: Folks, tiny: Path, tmp_path: Path) -> None:
    """The job had fetched everything and was about to say so: what was asked for in that moment was lost."""
    one, two = await with_model(folks, tiny), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    settled, orders = two.desk._settled, []

    async def late(job: Job) -> bool:
        if not orders:
            orders.append(await two.desk.acquire(TINY, (2,)))
        return await settled(job)

    two.desk._settled = late  # type: ignore[method-assign]
    assert isinstance(await two.desk.acquire(TINY, (1,)), Acquisition)
    assert (await ended(two)).state == "complete"
    assert isinstance(orders[0], Acquisition) and two.store.registry.held(TINY) == (1, 2)
    assert written_down(tmp_path / "node-2") == ([], [])


async def test_who_leaves_does_not_take_the_wish_along(folks: Folks, tiny: Path) -> None:
    one, two = await with_model(folks, tiny), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    caller = asyncio.create_task(two.desk.acquire(TINY, (0,)))
    await asyncio.sleep(0)
    caller.cancel()
    assert (await ended(two)).state == "complete" and two.store.registry.held(TINY) == (0,)


async def test_a_removed_model_does_not_come_back_with_the_next_word(folks: Folks, tiny: Path) -> None:
    one, two = await with_model(folks, tiny), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None and not two.desk._learner._busy)
    assert isinstance(await two.desk.delete_model(TINY), int)
    known = one.store.catalog.get(TINY)
    assert known is not None
    assert isinstance(await two.desk._learner.learn(one.id, TINY, known.manifest.layout), NotFound)
    await folks.stop(2)
    two = await folks.start(2)
    await two.connect(one)
    assert two.desk._learner._unknown(one.id) == [] and two.store.catalog.all() == ()
    assert isinstance(await two.desk.acquire(TINY, (0,)), Acquisition), "a person may change their mind"
    assert (await ended(two)).state == "complete"
    assert not two.store.catalog.was_removed(TINY)


async def test_a_name_that_a_peer_uses_does_not_keep_out_an_own_file(folks: Folks, tiny: Path) -> None:
    other = another(tiny)
    one, two = await with_model(folks, other), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    assert await two.desk.add_file(tiny, SHARD) == TINY
    known = two.store.catalog.get(TINY)
    assert known is not None and known.pinned and known.manifest.publisher == two.id and known.introducer is None
    for spec in known.manifest.shards:
        assert await two.store.storage.verify(ShardRef(TINY, spec.index))
    assert isinstance(await two.desk.add_file(other, SHARD), BadFile), "now it is this node's own"


async def test_a_file_that_a_peer_has_too_is_added_in_its_layout(folks: Folks, tiny: Path) -> None:
    one, two = await with_model(folks, tiny), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    assert await two.desk.add_file(tiny, 3 * SHARD) == TINY
    mine, theirs = two.store.catalog.get(TINY), one.store.catalog.get(TINY)
    assert mine is not None and theirs is not None and mine.manifest == theirs.manifest and mine.pinned
    assert len(two.store.registry.held(TINY)) == len(theirs.manifest.shards)


async def test_a_manifest_that_is_learned_while_a_file_is_hashed_does_not_win(folks: Folks, tiny: Path) -> None:
    other = another(tiny)
    one, two = await with_model(folks, other), await folks.start(2)
    theirs = one.store.catalog.get(TINY)
    assert theirs is not None
    cut, outcomes = two.desk._adder._cut, []

    async def learning(*rest: Any) -> Any:
        outcomes.append(await two.desk._learner.learn(one.id, TINY, theirs.manifest.layout))
        return await cut(*rest)

    two.desk._adder._cut = learning  # type: ignore[method-assign]
    two.desk._learner.heard = lambda node, spawn: None  # type: ignore[method-assign]
    await two.connect(one)
    assert await two.desk.add_file(tiny, SHARD) == TINY
    assert isinstance(outcomes[0], NotFound)


async def test_deleting(folks: Folks, tiny: Path) -> None:
    holder = await with_model(folks, tiny)
    registry, ref = holder.store.registry, ShardRef(TINY, 1)
    with registry.lease(TINY, (1,)):
        assert isinstance(await holder.desk.delete_shard(ref), Busy)
        assert isinstance(await holder.desk.delete_model(TINY), Busy)
    registry.set_loaded(TINY, (1,))
    holder.drop_refusals.append(Busy(what="loading"))
    assert isinstance(await holder.desk.delete_shard(ref), Busy)
    holder.drop_refusals.clear()
    with holder.store.bus.spy() as spy:
        assert await holder.desk.delete_shard(ref) is None
        assert holder.dropped == [ref] and spy.of(ShardDropped) == [ShardDropped(shard=ref)]
        assert isinstance(await holder.desk.delete_shard(ref), NotFound)
        removed = await holder.desk.delete_model(TINY)
        assert isinstance(removed, int) and removed > 4
        assert spy.of(ModelRemoved) == [ModelRemoved(model=TINY)]
    assert isinstance(await holder.desk.delete_model(TINY), NotFound)
    assert not holder.store.catalog.folder(TINY).exists() and registry.models() == ()
    assert await holder.desk.add_file(tiny, SHARD) == TINY


async def test_rescan_finds_what_was_put_or_taken(folks: Folks, tiny: Path) -> None:
    holder = await with_model(folks, tiny)
    path = holder.store.storage.path(ShardRef(TINY, 0))
    path.rename(path.with_suffix(".away"))
    assert (await holder.desk.rescan()).models == (TINY,)
    assert 0 not in holder.store.registry.held(TINY)
    path.with_suffix(".away").rename(path)
    assert (await holder.desk.rescan()).models == (TINY,)
    assert 0 in holder.store.registry.held(TINY)
    assert await holder.desk.rescan() == Rescan(models=())
