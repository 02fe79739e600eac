"""The steward acts on what it sees: with a desk that only notes, real tables and virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from swarmd.config.settings import NodeSettings, ResourcesSettings, Settings, with_values
from swarmd.domain.autopilot import Gate, Guard, ModelPolicy, PruneRecord, Schedule
from swarmd.domain.events import (
    AutopilotInstructed,
    DownloadEnded,
    DownloadStarted,
    GenerationFinished,
    GenerationStarted,
    ModelRemoved,
    PeerDisconnected,
    ShardDropped,
    ShardLocked,
    ShardPruned,
    ShardRejected,
    ShardStored,
    ShardsWanted,
    StageServed,
)
from swarmd.domain.ids import ModelId, NodeId, RequestId, ShardRef
from swarmd.domain.models import TrustLevel
from swarmd.domain.peers import Holding, ModelDemand, NodeSummary, PeerRecord, PeerView
from swarmd.domain.refusals import Busy, Invalid, Refusal
from swarmd.domain.shards import Acquisition, Transfer, TransferState
from swarmd.economy.acquiring import DROPPED_LATELY_S
from swarmd.economy.copies import URGENT_GRACE_S
from swarmd.economy.notes import CANCELLED_S, RETRY_S
from swarmd.economy.pruning import TURN_S
from swarmd.economy.sharing import FAIR_S, parts_of
from swarmd.economy.shelf import Shelved
from swarmd.economy.steward import FLOOR_S, JITTER, MAX_POLICIES, OVERDRAWN, START_S, Steward
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World
from swarmd.store import content
from swarmd.store import steward as sql
from swarmd.store.database import Database, Transaction
from tests.fakes.inline_sqlite import inline_database

OWN = NodeId("0" * 64)
M = ModelId("m")
LAYOUT = "0" * 32
MB = 1_000_000
BEGUN_S = START_S * (1 + JITTER) + 1
INTERVAL_S = 300.0 * (1 + JITTER) + 1
pytestmark = pytest.mark.looptime


@dataclass
class Around:
    """The swarm around one steward, and the node under it. Shards are of 100 MB."""

    bus: EventBus = field(default_factory=EventBus)
    count: int = 2
    held: set[int] = field(default_factory=set)
    pinned: bool = False
    running: set[int] = field(default_factory=set)
    peers: dict[int, tuple[int, ...]] = field(default_factory=dict)
    requests: int = 5
    settings: Settings = field(
        default_factory=lambda: Settings(
            node=NodeSettings(contribution="maximum"), resources=ResourcesSettings(max_disk_mb=10_000)
        )
    )
    jobs: list[Acquisition] = field(default_factory=list)
    asked: list[tuple[int, ...]] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)
    says: Refusal | None = None
    room: int = 10_000 * MB
    db: Database | None = None
    open_when_deleted: int = 0
    taken: int | None = None
    has_source: bool = False
    shared: bool = False

    def shelf(self) -> tuple[Shelved, ...]:
        return (
            Shelved(
                model=M, name="M", layout=LAYOUT, sizes=(100 * MB,) * self.count, pinned=self.pinned,
                has_source=self.has_source, shared=self.shared, held=frozenset(self.held), running=frozenset(self.running),
            ),
        )  # fmt: skip

    def views(self) -> tuple[PeerView, ...]:
        return tuple(
            PeerView(
                record=PeerRecord(node=NodeId(f"{number:064x}"), endpoints=(), last_seen=None), connected=True,
                summary=NodeSummary(
                    node=NodeId(f"{number:064x}"), version=1, software="t", started_at=0.0, ram_free_bytes=0,
                    ram_total_bytes=1 << 40, holdings=(Holding(model=M, layout=LAYOUT, shards=shards),) if shards else (),
                ),
            )
            for number, shards in self.peers.items()
        )  # fmt: skip

    async def acquire(self, model: ModelId, indices: tuple[int, ...] | None, trigger: str = "user") -> Acquisition | Refusal:
        assert indices is not None and trigger == "auto_manage"
        self.asked.append(indices)
        if self.says is not None:
            return self.says
        transfers = tuple(
            Transfer(index=index, state=TransferState.PENDING, done_bytes=0, total_bytes=100 * MB, source=None)
            for index in indices
        )
        self.jobs.append(
            Acquisition(
                model=model, state="downloading", reason=None, transfers=transfers, bytes_per_second=0.0, started_at=0.0,
                log=(), trigger=trigger,
            )
        )  # fmt: skip
        return self.jobs[-1]

    def acquisitions(self) -> tuple[Acquisition, ...]:
        return tuple(self.jobs)

    def arrive(self) -> None:
        for job in self.jobs:
            for one in job.transfers:
                self.held.add(one.index)
                self.bus.publish(ShardStored(shard=ShardRef(M, one.index), size_bytes=1, source=None))
        self.jobs = [replace(job, state="complete") for job in self.jobs]

    async def delete_shard(self, ref: ShardRef) -> Refusal | None:
        assert self.db is not None
        self.open_when_deleted += len(await sql.read_open_prunes(self.db))
        if self.says is not None:
            return self.says
        self.deleted.append(ref.index)
        self.held.discard(ref.index)
        self.bus.publish(ShardDropped(shard=ref))
        return None

    def used_bytes(self) -> int:
        return len(self.held) * 100 * MB if self.taken is None else self.taken

    def end(self, state: str) -> None:
        """As the desk tells of it, and tells of it as long as nothing more of the model is asked for."""
        self.jobs = [
            replace(job, state=state, transfers=tuple(replace(one, state=TransferState.FAILED) for one in job.transfers))
            for job in self.jobs
        ]
        self.bus.publish(DownloadEnded(model=M, state=state))

    def set(self, path: str, value: bool | int | str) -> None:
        self.settings = with_values(self.settings, {path: value})


def steward_of(around: Around, db: Database, world: World, *, trust: TrustLevel = TrustLevel.DEMAND_VERIFIED) -> Steward:
    around.db = db
    return Steward(
        node=OWN, region="??", shelf=around.shelf, peers=around.views, trust=lambda _: trust,
        demand=lambda: (ModelDemand(model=M, requests=around.requests),) if around.requests else (), desk=around,
        room=lambda: around.room, used_bytes=around.used_bytes, settings=lambda: around.settings, db=db,
        bus=around.bus, world=world,
    )  # fmt: skip


@asynccontextmanager
async def stewarding(around: Around, world: World) -> AsyncIterator[tuple[Steward, Database]]:
    async with inline_database() as db, Supervisor("test", world=world) as supervisor:
        steward = steward_of(around, db, world)
        await steward.load()
        await supervisor.start(steward)
        yield steward, db


def spare(count: int = 1) -> Around:
    """Nobody asks, eight others hold all: what is here is too much."""
    return Around(count=count, held=set(range(count)), peers={n: tuple(range(count)) for n in range(1, 9)}, requests=0)


async def until_a_turn(world: World) -> None:
    """To the middle of a turn of dropping."""
    await asyncio.sleep(TURN_S - world.clock.now() % TURN_S + TURN_S / 4)


async def test_it_fetches_what_is_missing_and_says_so(world: World) -> None:
    around = Around(peers={1: (0, 1)})
    async with stewarding(around, world) as (steward, db):
        with around.bus.spy() as spy:
            await asyncio.sleep(START_S * (1 - JITTER) - 1)
            assert around.asked == [], "first the others are to be heard"
            await asyncio.sleep(BEGUN_S)
            assert around.asked == [(0, 1)]
            assert await sql.read_fetched(db) != {}
            (fact,) = spy.of(ShardsWanted)
            assert (fact.model, fact.shards) == (M, (0, 1)) and "1 of 2" in fact.reason
        assert steward.plan().used_bytes == 200 * MB, "what is coming counts"
        around.arrive()
        await asyncio.sleep(3 * INTERVAL_S)
        assert around.asked == [(0, 1)]
        assert steward.plan().used_bytes == 200 * MB and steward.plan().moves_left == 58


async def test_off_is_off_and_still_says_what_it_would_do(world: World) -> None:
    around = Around(peers={1: (0, 1)})
    around.set("auto_manage.enabled", False)
    async with stewarding(around, world) as (steward, _):
        await asyncio.sleep(2 * INTERVAL_S)
        assert around.asked == []
        plan = steward.plan()
        assert not plan.enabled and {one.shard.index for one in plan.fetches} == {0, 1}
        assert [(one.holders, one.target) for one in plan.counts] == [(1, 2), (1, 2)]


async def test_what_fails_is_not_asked_for_again_at_once(world: World) -> None:
    around = Around(peers={1: (0, 1)}, says=Busy(what="not now"))
    async with stewarding(around, world) as (steward, db):
        await asyncio.sleep(BEGUN_S)
        assert len(around.asked) == 1 and await sql.read_fetched(db) == {}
        assert {one.gate for one in steward.plan().not_fetched} == {Gate.FAILED_LATELY}
        await asyncio.sleep(RETRY_S - INTERVAL_S)
        assert len(around.asked) == 1
        await asyncio.sleep(2 * INTERVAL_S)
        assert len(around.asked) == 2


async def test_a_transfer_that_ended_in_nothing_has_failed(world: World) -> None:
    around = Around(peers={1: (0, 1)})
    async with stewarding(around, world) as (steward, db):
        await asyncio.sleep(BEGUN_S)
        around.jobs = [replace(job, state="failed") for job in around.jobs]
        await asyncio.sleep(INTERVAL_S)
        assert await sql.read_fetched(db) == {} and len(around.asked) == 1
        assert {one.gate for one in steward.plan().not_fetched} == {Gate.FAILED_LATELY}


async def test_a_surplus_shard_goes_into_the_history_and_off_the_disk(world: World) -> None:
    around = spare()
    async with inline_database() as db:
        steward = steward_of(around, db, world)
        await steward.load()
        await until_a_turn(world)
        with around.bus.spy() as spy:
            for _ in range(20):  # nine hold it, and each turn five of them may
                await steward.look()
                await asyncio.sleep(TURN_S)
            assert around.deleted == [0]
            assert around.open_when_deleted == 1, "it was written down before"
            (fact,) = spy.of(ShardPruned)
            assert (fact.freed_bytes, fact.holders_before, fact.holders_after) == (100 * MB, 9, 8)
            assert fact.remaining_local_shards == 0
        (record,), total = await steward.prune_history(10)
        assert total == 1 and (record.model, record.name, record.shard) == (M, "M", 0)
        assert 0 <= world.clock.now() - record.at <= 20 * TURN_S
        assert {one.gate for one in steward.plan().not_fetched} <= {Gate.DROPPED_LATELY, Gate.ENOUGH}


async def test_two_of_a_model_go_when_the_disk_is_full_and_one_else(world: World) -> None:
    for room, gone in ((0, 2), (10_000 * MB, 1)):
        around = spare(4)
        around.room = room
        async with inline_database() as db:
            steward = steward_of(around, db, world)
            while len(around.deleted) == 0:
                await until_a_turn(world)
                await steward.look()
            assert len(around.deleted) == gone


async def test_what_the_desk_does_not_delete_is_no_history(world: World) -> None:
    around = spare()
    around.says = Busy(what="it runs")
    async with inline_database() as db:
        steward = steward_of(around, db, world)
        await until_a_turn(world)
        for _ in range(12):
            await steward.look()
            await asyncio.sleep(TURN_S)
        assert around.open_when_deleted >= 1 and await sql.read_open_prunes(db) == {}
        assert await steward.prune_history(10) == ((), 0)


@pytest.mark.parametrize("gone", [True, False])
async def test_killed_in_the_middle_of_a_drop(world: World, gone: bool) -> None:
    around = spare()
    async with inline_database() as db:
        dying = steward_of(around, db, world)
        await until_a_turn(world)

        async def kill(ref: ShardRef) -> Refusal | None:
            if gone:
                around.held.discard(ref.index)
            raise asyncio.CancelledError

        around.delete_shard = kill  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            for _ in range(40):
                await dying.look()
                await asyncio.sleep(TURN_S)
        assert len(await sql.read_open_prunes(db)) == 1
        fresh = steward_of(around, db, world)
        await fresh.load()
        assert await sql.read_open_prunes(db) == {}
        assert (await fresh.prune_history(10))[1] == (1 if gone else 0)


async def test_locks_are_on_the_disk_and_keep(world: World) -> None:
    around = spare(2)
    async with inline_database() as db:
        steward = steward_of(around, db, world)
        await until_a_turn(world)
        with around.bus.spy() as spy:
            assert await steward.lock(ShardRef(M, 0), locked=True) is None
            assert await sql.read_locks(db) == {ShardRef(M, 0)} and steward.is_locked(ShardRef(M, 0))
            assert await steward.lock(ShardRef(M, 0), locked=True) is None
            assert spy.of(ShardLocked) == [ShardLocked(shard=ShardRef(M, 0), locked=True)]
        fresh = steward_of(around, db, world)
        await fresh.load()
        assert next(one for one in fresh.plan().kept if one.shard.index == 0).guard is Guard.LOCKED
        for ref, param in ((ShardRef(M, 2), "index"), (ShardRef(ModelId("x"), 0), "model")):
            refusal = await fresh.lock(ref, locked=True)
            assert isinstance(refusal, Invalid) and refusal.param == param
        await fresh.lock(ShardRef(M, 0), locked=False)
        assert await sql.read_locks(db) == frozenset() and not fresh.is_locked(ShardRef(M, 0))


async def test_a_lock_that_cannot_be_written_is_not_in_force(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    around = spare()
    async with inline_database() as db:
        steward = steward_of(around, db, world)

        async def full(*_: object, **__: object) -> None:
            raise OSError(28, "no space")

        monkeypatch.setattr(sql, "write_lock", full)
        with pytest.raises(OSError, match="no space"):
            await steward.lock(ShardRef(M, 0), locked=True)
        assert not steward.is_locked(ShardRef(M, 0))


async def test_policies_are_kept_and_wake_it(world: World) -> None:
    around = Around(peers={1: (0, 1)})
    around.set("auto_manage.default_model_shard_cap", 7)
    async with inline_database() as db:
        steward = steward_of(around, db, world)
        assert steward.policy(M) == ModelPolicy(max_shards=7)
        with around.bus.spy() as spy:
            assert await steward.set_policy(M, ModelPolicy(enabled=False)) is None
            assert spy.of(AutopilotInstructed) == [AutopilotInstructed(about="policy", model=M)]
        fresh = steward_of(around, db, world)
        await fresh.load()
        assert fresh.policy(M) == ModelPolicy(enabled=False)
        assert {one.gate for one in fresh.plan().not_fetched} == {Gate.POLICY}
        for number in range(MAX_POLICIES - 1):
            fresh._policies[ModelId(f"x{number}")] = ModelPolicy()
        assert isinstance(await fresh.set_policy(ModelId("new"), ModelPolicy()), Invalid)
    async with stewarding(around, world) as (steward, _):
        await steward.set_policy(M, ModelPolicy(enabled=False))
        await asyncio.sleep(BEGUN_S + FLOOR_S)
        assert around.asked == []
        await steward.set_policy(M, ModelPolicy())
        await asyncio.sleep(FLOOR_S + 1)
        assert around.asked == [(0, 1)], "long before the next regular look"


async def test_the_schedule_takes_away_and_presses(world: World) -> None:
    around = spare()
    async with inline_database() as db:
        steward = steward_of(around, db, world)
        before = steward.plan()
        assert not before.reduced and before.contribution == "maximum" and before.budget_bytes == 7_500 * MB
        hours = [one for one in range(24) if one != steward._hour()]
        await steward.set_schedule(Schedule(enabled=True, reduced_hours_start=steward._hour(), reduced_hours_end=hours[0]))
        fresh = steward_of(around, db, world)
        await fresh.load()
        after = fresh.plan()
        assert fresh.schedule().enabled and after.reduced and after.contribution == "minimal"
        assert after.budget_bytes == 2_500 * MB and after.pressure == pytest.approx(before.pressure + 0.15)


async def test_a_lowered_budget_is_pressure(world: World) -> None:
    around = Around(peers={1: (0, 1)})
    async with stewarding(around, world) as (steward, _):
        await asyncio.sleep(BEGUN_S)
        around.arrive()
        assert steward.plan().pressure < 0.1
        around.set("auto_manage.max_storage_mb", 150)
        assert steward.plan().pressure == OVERDRAWN


async def test_use_is_noticed(world: World) -> None:
    around = spare()
    async with stewarding(around, world) as (steward, _):
        def guard() -> Guard | None:
            return next((one.guard for one in steward.plan().kept), None)

        around.bus.publish(GenerationStarted(request=RequestId("r"), model=M, nodes=(OWN,)))
        await asyncio.sleep(1000)
        assert guard() is Guard.USED_LATELY, "it still runs"
        around.bus.publish(
            GenerationFinished(request=RequestId("r"), model=M, completion_tokens=1, duration_ms=1.0, outcome="stop")
        )
        await asyncio.sleep(299)
        assert guard() is Guard.USED_LATELY
        await asyncio.sleep(2)
        assert guard() is not Guard.USED_LATELY
        around.bus.publish(StageServed(model=M, head=NodeId("9" * 64), tokens=1))
        await asyncio.sleep(1)
        assert guard() is Guard.USED_LATELY


async def test_after_its_fair_share_it_leaves_the_rest_to_the_others_for_ten_minutes(world: World) -> None:
    """Seen: N2 took its two of five shards, and ten seconds later "0 of 1 copies are there" for the other three."""
    nodes = [OWN, NodeId(f"{1:064x}"), NodeId(f"{2:064x}")]
    parts = parts_of(M, 5, nodes)
    mine = parts[OWN].share | parts[OWN].gaps
    around = Around(count=5, held=set(mine), peers={1: (), 2: ()}, requests=0, has_source=True, shared=True)
    async with stewarding(around, world) as (steward, _):
        await asyncio.sleep(BEGUN_S)
        begun = [at for at in parts[nodes[1]].share if at not in mine][:1]
        around.peers[1] = tuple(begun)  # it is slow, but it is there
        steward.plan()
        await asyncio.sleep(FAIR_S - 2 * INTERVAL_S / 3)
        assert around.asked == []
        assert {row.gate for row in steward.plan().not_fetched} <= {Gate.OTHERS_FIRST, Gate.ENOUGH}
        around.peers = {number: tuple(parts[nodes[number]].share | parts[nodes[number]].gaps) for number in (1, 2)}
        await asyncio.sleep(7200)
        assert around.asked == [], "everybody has its part"


async def test_what_nobody_takes_of_a_shared_model_comes_after_all(world: World) -> None:
    """The others have no autopilot: somebody who wants the model still gets it."""
    around = Around(count=5, peers={1: (), 2: ()}, requests=0, has_source=True, shared=True)
    async with stewarding(around, world) as (_, _db):
        await asyncio.sleep(BEGUN_S)
        around.arrive()
        for _ in range(20):
            await asyncio.sleep(INTERVAL_S)
            around.arrive()
        assert around.held == {0, 1, 2, 3, 4}


async def test_a_lost_copy_is_replaced_after_the_grace(world: World) -> None:
    around = Around(count=1, peers={1: (0,), 2: (0,)})
    async with stewarding(around, world) as (steward, _):
        await asyncio.sleep(BEGUN_S)
        assert around.asked == []
        del around.peers[2]
        around.bus.publish(PeerDisconnected(node=NodeId(f"{2:064x}"), reason="gone"))
        await asyncio.sleep(FLOOR_S + 1)
        assert around.asked == [] and {one.gate for one in steward.plan().not_fetched} == {Gate.ENOUGH}
        await asyncio.sleep(URGENT_GRACE_S + FLOOR_S)
        assert around.asked == [(0,)]


async def test_a_removed_model_leaves_nothing_but_its_policy(world: World) -> None:
    around = Around(peers={1: (0, 1)})
    async with stewarding(around, world) as (steward, db):
        await steward.set_policy(M, ModelPolicy(max_shards=1))
        await steward.lock(ShardRef(M, 0), locked=True)
        await asyncio.sleep(BEGUN_S)
        assert await sql.read_fetched(db) != {}
        around.bus.publish(ModelRemoved(model=M))
        await asyncio.sleep(0.1)
        assert await sql.read_fetched(db) == {} and await sql.read_locks(db) == frozenset()
        assert not steward.is_locked(ShardRef(M, 0)) and steward.policy(M) == ModelPolicy(max_shards=1)


async def test_a_shard_that_a_person_deleted_does_not_come_back_at_once(world: World) -> None:
    around = Around(peers={1: (0, 1)})
    async with stewarding(around, world) as (_, _db):
        await asyncio.sleep(BEGUN_S)
        around.arrive()
        await asyncio.sleep(1)
        around.held.discard(1)
        around.bus.publish(ShardDropped(shard=ShardRef(M, 1)))
        await asyncio.sleep(1800)
        assert around.asked == [(0, 1)]


async def test_a_shard_that_a_person_deleted_did_not_fail(world: World) -> None:
    """Seen: `failed_lately`, "tried again in 10 min", where nothing had failed."""
    around = Around(peers={1: (0, 1)})
    async with stewarding(around, world) as (steward, db):
        await asyncio.sleep(BEGUN_S)
        around.arrive()
        await asyncio.sleep(1)
        for seconds in (0.0, 1.0, INTERVAL_S, 1800.0):
            if not seconds:
                await around.delete_shard(ShardRef(M, 1))
            await asyncio.sleep(seconds)
            (row,) = steward.plan().not_fetched
            assert (row.index, row.gate) == (1, Gate.DROPPED_LATELY), seconds
        assert set(await sql.read_fetched(db)) == {ShardRef(M, 0)}
        await asyncio.sleep(DROPPED_LATELY_S)
        assert around.asked == [(0, 1), (1,)], "after an hour it is wanted again"
        around.end("failed")
        await asyncio.sleep(1)
        assert [one.gate for one in steward.plan().not_fetched] != [Gate.DROPPED_LATELY], "what was asked for anew can fail"


async def test_a_shard_deleted_while_the_rest_comes_is_said_to_be_dropped(world: World) -> None:
    """Seen: as nobody else had it, it was on no list of what stays away until the download had ended."""
    around = Around(count=3, held={0}, peers={1: ()}, has_source=True)
    transfers = tuple(
        Transfer(index=index, state=state, done_bytes=0, total_bytes=100 * MB, source=None)
        for index, state in enumerate((TransferState.COMPLETE, TransferState.DOWNLOADING, TransferState.PENDING))
    )
    around.jobs = [
        Acquisition(
            model=M, state="downloading", reason=None, transfers=transfers, bytes_per_second=0.0, started_at=0.0, log=(),
            trigger="user",
        )
    ]  # fmt: skip
    async with stewarding(around, world) as (steward, _):
        await asyncio.sleep(1)
        for seconds in (0.0, 1.0, INTERVAL_S, 1800.0):
            if not seconds:
                await around.delete_shard(ShardRef(M, 0))
            await asyncio.sleep(seconds)
            rows = {row.index: row.gate for row in steward.plan().not_fetched}
            assert rows == {0: Gate.DROPPED_LATELY, 1: Gate.ON_ITS_WAY, 2: Gate.ON_ITS_WAY}, seconds
        around.held = {1, 2}
        around.jobs = [replace(job, state="complete") for job in around.jobs]
        for index in around.held:
            around.bus.publish(ShardStored(shard=ShardRef(M, index), size_bytes=1, source=None))
        await asyncio.sleep(INTERVAL_S)
        assert [(row.index, row.gate) for row in steward.plan().not_fetched] == [(0, Gate.DROPPED_LATELY)]
        assert around.asked == [], "a person's word stands against a missing copy for an hour"


async def test_what_was_thrown_away_as_wrong_is_fetched_again(world: World) -> None:
    around = Around(held={0, 1}, peers={1: ()}, has_source=True)
    async with stewarding(around, world) as (steward, _):
        await asyncio.sleep(BEGUN_S)
        for index in (0, 1):
            await around.delete_shard(ShardRef(M, index))
            around.bus.publish(ShardRejected(shard=ShardRef(M, index), source=None, reason="another SHA-256"))
        await asyncio.sleep(1)
        assert {row.gate for row in steward.plan().not_fetched} == {Gate.FAILED_LATELY}
        await asyncio.sleep(RETRY_S + INTERVAL_S)
        assert around.asked == [(0, 1)]


@pytest.mark.parametrize("case", ["a full disk", "nights"])
async def test_a_shard_is_not_fetched_and_dropped_in_turns(world: World, case: str) -> None:
    """Seen: nine nodes, three copies of three, one of them on a full disk: eighteen moves in three days."""
    around = Around(count=1, held={0}, peers={**{n: (0,) for n in (1, 2, 3)}, **{n: () for n in range(4, 9)}}, requests=0)
    around.taken, around.room = (9_600 * MB, 400 * MB) if case == "a full disk" else (6_000 * MB, 4_000 * MB)
    async with stewarding(around, world) as (steward, _):
        if case == "nights":
            await steward.set_schedule(
                Schedule(
                    enabled=True, reduced_hours_start=0, reduced_hours_end=23, reduced_contribution="maximum",
                    prune_aggressiveness="aggressive",
                )
            )  # fmt: skip
        around.peers[3] = ()
        for _ in range(72 * 12):
            await asyncio.sleep(300)
            if len(around.asked) > 0 and not around.held:
                around.arrive()
        assert around.deleted == [0], "one copy less does here"
        assert around.asked == []
        assert {one.gate for one in steward.plan().not_fetched} == {Gate.PRESSURE}


async def test_a_lock_given_while_the_history_is_written_holds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    around, real, told = spare(), sql.begin_prune, list[asyncio.Task[Refusal | None]]()
    async with stewarding(around, world) as (steward, db):

        async def begin(tx: Transaction, record: PruneRecord) -> int:
            number = await real(tx, record)
            if not told:
                told.append(asyncio.create_task(steward.lock(ShardRef(M, 0), locked=True)))
                await asyncio.sleep(0)
            return number

        monkeypatch.setattr(sql, "begin_prune", begin)
        await until_a_turn(world)
        await asyncio.sleep(40 * INTERVAL_S)
        assert await told[0] is None and steward.is_locked(ShardRef(M, 0))
        assert around.deleted == [] and await steward.prune_history(9) == ((), 0) and await sql.read_open_prunes(db) == {}


@pytest.mark.parametrize("word", ["policy", "pin"])
async def test_a_policy_or_a_pin_given_while_the_history_is_written_holds(
    world: World, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    around, real, begun = spare(), sql.begin_prune, list[int]()
    async with stewarding(around, world) as (steward, _):

        async def begin(tx: Transaction, record: PruneRecord) -> int:
            begun.append(1)
            if word == "pin":
                around.pinned = True
            else:
                steward._policies[M] = ModelPolicy(prune_enabled=False)
            return await real(tx, record)

        monkeypatch.setattr(sql, "begin_prune", begin)
        await until_a_turn(world)
        await asyncio.sleep(40 * INTERVAL_S)
        assert begun == [1] and around.deleted == [] and await steward.prune_history(9) == ((), 0)


async def test_a_shard_that_is_being_dropped_cannot_be_locked(world: World) -> None:
    around = spare()
    answers = list[Refusal | None]()
    async with stewarding(around, world) as (steward, _):
        delete = around.delete_shard

        async def while_deleting(ref: ShardRef) -> Refusal | None:
            answers.append(await steward.lock(ref, locked=True))
            return await delete(ref)

        around.delete_shard = while_deleting  # type: ignore[method-assign]
        await until_a_turn(world)
        await asyncio.sleep(40 * INTERVAL_S)
        assert [type(one) for one in answers] == [Busy] and around.deleted == [0]
        assert await steward.lock(ShardRef(M, 0), locked=True) is None, "afterwards it can, for when it comes again"


async def test_what_a_person_cancelled_is_not_asked_for_again_for_a_day(world: World) -> None:
    """Seen: it counted as failed, and came again after 20 minutes."""
    around = Around(peers={1: (0, 1)})
    async with stewarding(around, world) as (steward, _):
        await asyncio.sleep(BEGUN_S)
        around.end("cancelled")
        await asyncio.sleep(CANCELLED_S - 60)
        assert around.asked == [(0, 1)]
        assert {one.gate for one in steward.plan().not_fetched} == {Gate.CANCELLED}
        await asyncio.sleep(2 * INTERVAL_S)
        assert len(around.asked) == 2


async def test_a_cancelled_download_does_not_start_again_after_a_restart(world: World) -> None:
    around = Around(peers={1: (0, 1)})
    async with inline_database() as db:
        async with db.transaction() as tx:  # as the desk does, before it says that it was cancelled
            await content.write_cancelled(tx, [ShardRef(M, 1)], at=world.clock.now() - CANCELLED_S - 1)
            await content.write_cancelled(tx, [ShardRef(M, 0)], at=world.clock.now() - 7200.0)
        steward = steward_of(around, db, world)
        await steward.load()
        await steward.look()
        assert around.asked == [(1,)], "a day is over for this one"
        rows = {row.index: (row.gate, row.why) for row in steward.plan().not_fetched}
        assert rows[0] == (Gate.CANCELLED, "a person cancelled its download here 2 h ago")
        assert set(await content.read_cancelled(db)) == {ShardRef(M, 0)}, "and it is forgotten"
        await steward.set_policy(M, ModelPolicy())
        assert await content.read_cancelled(db) == {}


@pytest.mark.parametrize("shards", [(0,), ()])
async def test_a_person_that_asks_again_takes_the_cancellation_back(world: World, shards: tuple[int, ...]) -> None:
    around = Around(peers={1: (0, 1)})
    async with stewarding(around, world) as (steward, _):
        await asyncio.sleep(BEGUN_S)
        around.end("cancelled")
        await asyncio.sleep(1)
        assert {one.gate for one in steward.plan().not_fetched} == {Gate.CANCELLED}
        around.jobs = [replace(job, state="downloading", trigger="user", started_at=9.0) for job in around.jobs]
        around.bus.publish(DownloadStarted(model=M, shards=shards, hub=False))
        await asyncio.sleep(1)
        around.end("failed")
        await asyncio.sleep(1)
        gates = {row.index for row in steward.plan().not_fetched if row.gate is Gate.CANCELLED}
        assert gates == ({1} if shards else set())


async def test_a_model_that_is_removed_or_came_otherwise_is_not_cancelled_any_more(world: World) -> None:
    around = Around(peers={1: (0, 1)})
    async with stewarding(around, world) as (_, db):
        await asyncio.sleep(BEGUN_S)
        async with db.transaction() as tx:
            await content.write_cancelled(tx, [ShardRef(M, 0), ShardRef(M, 1)], at=world.clock.now())
        around.end("cancelled")
        await asyncio.sleep(1)
        around.held.add(0)
        around.bus.publish(ShardStored(shard=ShardRef(M, 0), size_bytes=1, source=None))
        await asyncio.sleep(1)
        assert set(await content.read_cancelled(db)) == {ShardRef(M, 1)}
        around.bus.publish(ModelRemoved(model=M))
        await asyncio.sleep(1)
        assert await content.read_cancelled(db) == {}


async def test_a_download_without_shards_that_was_cancelled_is_known_at_once(world: World) -> None:
    """Its manifest had not come: which shards were meant is known by their names alone."""
    around = Around(peers={1: (0, 1)})
    async with stewarding(around, world) as (steward, db):
        await asyncio.sleep(1)
        async with db.transaction() as tx:
            await content.write_cancelled(tx, [ShardRef(M, 0)], at=world.clock.now())
        around.bus.publish(DownloadEnded(model=M, state="cancelled"))
        await asyncio.sleep(1)
        assert [row.index for row in steward.plan().not_fetched if row.gate is Gate.CANCELLED] == [0]


async def test_a_policy_ends_the_rest_after_a_cancelled_download(world: World) -> None:
    around = Around(peers={1: (0, 1)})
    async with stewarding(around, world) as (steward, _):
        await asyncio.sleep(BEGUN_S)
        around.end("cancelled")
        await asyncio.sleep(60)
        assert len(around.asked) == 1
        await steward.set_policy(M, ModelPolicy())
        await asyncio.sleep(FLOOR_S + 1)
        assert len(around.asked) == 2


async def test_a_cancelled_download_is_noted_though_another_one_follows_at_once(world: World) -> None:
    around = Around(peers={1: (0, 1)})
    async with stewarding(around, world) as (steward, _):
        await asyncio.sleep(BEGUN_S)
        around.end("cancelled")
        await asyncio.sleep(0.1)
        around.jobs = [replace(job, state="complete", transfers=(), started_at=9.0) for job in around.jobs]
        await asyncio.sleep(3 * INTERVAL_S)
        assert around.asked == [(0, 1)] and {one.gate for one in steward.plan().not_fetched} == {Gate.CANCELLED}


async def test_what_a_person_paused_stays_paused(world: World) -> None:
    around = Around(count=3, peers={1: (0, 1)})
    async with stewarding(around, world) as (steward, _):
        await asyncio.sleep(BEGUN_S)
        around.jobs = [replace(job, state="paused") for job in around.jobs]
        around.peers[1] = (0, 1, 2)
        await asyncio.sleep(3 * INTERVAL_S)
        assert around.asked == [(0, 1)]
        assert [(one.gate, one.index) for one in steward.plan().not_fetched] == [(Gate.PAUSED, None)]
