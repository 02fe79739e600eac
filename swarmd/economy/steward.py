"""The autopilot: looks at the swarm now and then, and fetches or drops a few shards so that each wanted one has its copies.

Thinking is pure (`acquiring`, `pruning`, from a `stock.Snapshot`); this service takes the snapshot, remembers what time does
to it (`notes`), and acts through the desk. Owner of policies, locks, the schedule, the list of what it fetched, and the
history of what it dropped: each is written before it is in force. Publishes `ShardsWanted`, `ShardPruned`, `ShardLocked`,
`AutopilotInstructed`.

It looks every `auto_manage.interval_minutes`, and sooner when something happened, though never twice within FLOOR_S.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, Protocol, cast

from swarmd.config.settings import Settings
from swarmd.domain.autopilot import (
    AutopilotPlan,
    Contribution,
    Drop,
    Fetch,
    Guard,
    ModelPolicy,
    PruneRecord,
    Schedule,
    ShardCount,
)
from swarmd.domain.events import (
    AutopilotInstructed,
    DownloadEnded,
    DownloadStarted,
    Fact,
    GenerationFinished,
    GenerationStarted,
    ModelDiscovered,
    ModelRemoved,
    PeerConnected,
    PeerDisconnected,
    SettingsChanged,
    ShardDropped,
    ShardLocked,
    ShardPruned,
    ShardRejected,
    ShardStored,
    ShardsWanted,
    StageServed,
    SummaryForgotten,
    SummaryReceived,
)
from swarmd.domain.ids import ModelId, NodeId, RequestId, ShardRef
from swarmd.domain.models import TrustLevel
from swarmd.domain.peers import ModelDemand, NodeSummary, PeerView
from swarmd.domain.refusals import Busy, Invalid, Refusal
from swarmd.domain.regions import as_region
from swarmd.domain.shards import Acquisition, TransferState
from swarmd.economy import acquiring, pruning
from swarmd.economy.copies import URGENT_GRACE_S, Survey, missing_of, survey
from swarmd.economy.notes import CANCELLED_S, Notes
from swarmd.economy.schedule import contribution_at, is_reduced, local_hour, most_pressure, pressure_at
from swarmd.economy.sharing import owed
from swarmd.economy.shelf import Shelved
from swarmd.economy.stock import Limits, ModelStock, NodeStock, Snapshot
from swarmd.kit.bus import EventBus
from swarmd.kit.logs import Seldom
from swarmd.kit.service import Ready
from swarmd.kit.world import World
from swarmd.store import content
from swarmd.store import steward as sql
from swarmd.store.database import Database

START_S: Final = 120.0  # links come up and gossip arrives within seconds; whoever acts before that sees holes everywhere
FLOOR_S: Final = 30.0  # between two looks: a look costs some ten milliseconds, and the news of one change come in a row
JITTER: Final = 0.2  # of the interval, so that nodes that start together do not look together
MEGABYTE: Final = 1_000_000
BUDGET_SHARES: Final[Mapping[Contribution, float]] = {"minimal": 0.25, "moderate": 0.50, "maximum": 0.75}
"""Of `resources.max_disk_mb`: contract, swarmllm.md 4.10."""
OVERDRAWN: Final = 0.9  # pressure where the budget was lowered below what is there: one copy less will do
MAX_POLICIES: Final = 1024  # four times the models that a node can know at once
RUNNING: Final = 1024  # four times the largest `inference.max_concurrent_requests`
SETTINGS: Final = ("auto_manage.", "node.contribution", "resources.max_disk_mb")
OVER: Final = ("complete", "failed", "cancelled")
TRIGGER: Final = "auto_manage"

logger = logging.getLogger(__name__)


class Desk(Protocol):
    """`shards.desk.ShardDesk`."""

    def acquire(
        self, model: ModelId, indices: tuple[int, ...] | None, trigger: str = "user"
    ) -> Awaitable[Acquisition | Refusal]: ...
    def acquisitions(self) -> tuple[Acquisition, ...]: ...
    def delete_shard(self, ref: ShardRef) -> Awaitable[Refusal | None]: ...


class Steward:
    """A service. `load` before anything else; what people ask of it works also while it is off."""

    name = "steward"

    def __init__(
        self,
        *,
        node: NodeId,
        region: str,
        shelf: Callable[[], tuple[Shelved, ...]],
        peers: Callable[[], tuple[PeerView, ...]],
        trust: Callable[[ModelId], TrustLevel],
        demand: Callable[[], tuple[ModelDemand, ...]],
        desk: Desk,
        room: Callable[[], int],
        used_bytes: Callable[[], int],
        settings: Callable[[], Settings],
        db: Database,
        bus: EventBus,
        world: World,
    ) -> None:
        """`demand`: at this node. `room`: bytes that shards may still take of the disk and of swarmd's share of it, beside
        those that are on their way. `used_bytes`: what swarmd takes of that share."""
        self._node, self._region = node, as_region(region)
        self._shelf, self._peers, self._trust, self._demand = shelf, peers, trust, demand
        self._desk, self._room, self._used_bytes, self._settings = desk, room, used_bytes, settings
        self._db, self._bus, self._world = db, bus, world
        self._notes = Notes()
        self._seldom = Seldom(clock=world.clock)
        self._policies: dict[ModelId, ModelPolicy] = {}
        self._locks: frozenset[ShardRef] = frozenset()
        self._locking: set[ShardRef] = set()
        """Being written: whoever asked must not find the shard gone when the answer comes."""
        self._dropping: ShardRef | None = None
        """The desk is at it, and nothing stops that any more."""
        self._fetched: dict[ShardRef, float] = {}
        self._asking: frozenset[ShardRef] = frozenset()
        """Being asked of the desk right now: not given up yet."""
        self._schedule = Schedule()
        self._served: dict[RequestId, ModelId] = {}
        """Generations of this head that run a stage here."""

    async def load(self) -> None:
        """What people decided, and what the last run was in the middle of."""
        self._policies = await sql.read_policies(self._db)
        self._locks = await sql.read_locks(self._db)
        self._fetched = await sql.read_fetched(self._db)
        self._schedule = await sql.read_schedule(self._db)
        await self._recover()
        self._look_here(self._shelf())
        await self._read_cancelled()

    async def run(self, ready: Ready) -> None:
        facts = (
            PeerConnected, PeerDisconnected, SummaryReceived, SummaryForgotten, ShardStored, ShardDropped, ModelDiscovered,
            ShardRejected, ModelRemoved, SettingsChanged, AutopilotInstructed, ShardLocked, GenerationStarted,
            GenerationFinished, StageServed, DownloadStarted, DownloadEnded,
        )  # fmt: skip
        clock = self._world.clock
        with self._bus.subscribe(*facts) as inbox:
            ready()
            looked_at = clock.monotonic()
            next_at = looked_at + self._jittered(START_S)
            floor_at = next_at
            while True:
                try:
                    async with asyncio.timeout_at(next_at):
                        fact = await anext(inbox)
                except TimeoutError:
                    next_at = await self.look()
                    floor_at = clock.monotonic() + FLOOR_S
                    next_at = max(next_at, floor_at)
                else:
                    if await self._hear(fact):
                        next_at = min(next_at, max(floor_at, clock.monotonic()))

    async def look(self) -> float:
        """One run: see, and act a little. Returns the monotonic time of the next one, unless something happens before."""
        settings, clock = self._settings(), self._world.clock
        await self._reconcile()
        if settings.auto_manage.enabled:
            plan = self.plan()
            for number, drop in enumerate(plan.drops):
                if number == 0 or self._is_still_right(drop):  # the one before took its time, and changed what is needed
                    await self._drop(drop)
            await self._fetch(self.plan().fetches if plan.drops else plan.fetches)
        now = clock.monotonic()
        self._notes.tidy(at=now)
        next_at = now + self._jittered(settings.auto_manage.interval_minutes * 60.0)
        gone = self._notes.look_round(self._peers(), at=now)
        fresh = [gone_s for _, gone_s in gone if gone_s < URGENT_GRACE_S]
        return min([next_at, *(now + URGENT_GRACE_S - gone_s + 1.0 for gone_s in fresh)])

    # ---- what people ask

    def plan(self) -> AutopilotPlan:
        """What it would do now, were it switched on. Changes nothing."""
        settings = self._settings()
        snapshot = self._snapshot(settings)
        found = survey(snapshot)
        snapshot = self._with_waits(snapshot, found)
        fetches, not_fetched = acquiring.propose(snapshot, found)
        drops, kept = pruning.propose(snapshot, found)
        limits = snapshot.limits
        return AutopilotPlan(
            enabled=settings.auto_manage.enabled,
            reduced=is_reduced(self._schedule, self._hour()),
            contribution=limits.contribution,
            pool=found.pool,
            budget_bytes=limits.budget_bytes,
            used_bytes=limits.used_bytes,
            pressure=limits.pressure,
            moves_left=limits.moves_left,
            fetches=fetches,
            drops=drops,
            not_fetched=not_fetched,
            kept=kept,
            counts=tuple(
                ShardCount(
                    shard=ShardRef(model.model, index), holders=len(one.holders), coming=len(one.coming), target=one.target
                )
                for model in snapshot.models
                for index, one in enumerate(found.copies[model.model])
            ),
        )

    def policy(self, model: ModelId) -> ModelPolicy:
        """The default where nobody set one."""
        return self._policies.get(model) or ModelPolicy(max_shards=self._settings().auto_manage.default_model_shard_cap)

    async def set_policy(self, model: ModelId, policy: ModelPolicy) -> Refusal | None:
        """Written, then in force; what a person cancelled before counts no more. Refuses Invalid where there are policies
        for too many models."""
        if model not in self._policies and len(self._policies) >= MAX_POLICIES:
            what = f"there are policies for {MAX_POLICIES} models already, and no room for {model}"
            return Invalid(what=what, param="model")
        async with self._db.transaction() as tx:
            await sql.write_policy(tx, model, policy)
            await content.forget_cancelled(tx, model)
        self._policies[model] = policy
        self._note_cancelled()
        self._notes.instructed(model)
        self._bus.publish(AutopilotInstructed(about="policy", model=model))
        return None

    def is_locked(self, shard: ShardRef) -> bool:
        return shard in self._locks

    async def lock(self, shard: ShardRef, *, locked: bool) -> Refusal | None:
        """Written, then in force. Refuses Invalid where no such shard is known here, Busy while it is being dropped."""
        sizes = next((one.sizes for one in self._shelf() if one.model == shard.model), ())
        if not sizes:
            return Invalid(what=f"the shards of a model {shard.model} are not known here", param="model")
        if not 0 <= shard.index < len(sizes):
            what = f"model {shard.model} has no shard {shard.index}: it has {len(sizes)}, from 0 on"
            return Invalid(what=what, param="index")
        if (shard in self._locks) is locked:
            return None
        if locked and shard == self._dropping:
            what = f"shard {shard.number} of {shard.model} is being dropped right now: fetch it again, then lock it"
            return Busy(what=what)
        wanted = {shard} - self._locking if locked else set[ShardRef]()  # two may ask at once: the first one's to end
        self._locking |= wanted
        try:
            async with self._db.transaction() as tx:
                await sql.write_lock(tx, shard, locked=locked)
        finally:
            self._locking -= wanted
        self._locks = self._locks | {shard} if locked else self._locks - {shard}
        self._bus.publish(ShardLocked(shard=shard, locked=locked))
        return None

    def schedule(self) -> Schedule:
        return self._schedule

    async def set_schedule(self, schedule: Schedule) -> None:
        """Written, then in force."""
        async with self._db.transaction() as tx:
            await sql.write_schedule(tx, schedule)
        self._schedule = schedule
        self._bus.publish(AutopilotInstructed(about="schedule", model=None))

    async def prune_history(self, limit: int) -> tuple[tuple[PruneRecord, ...], int]:
        """The newest first, and how many there are in all."""
        return await sql.read_history(self._db, limit=limit)

    # ---- seeing

    def _snapshot(self, settings: Settings) -> Snapshot:
        at = self._world.clock.monotonic()
        shelved = self._shelf()
        self._look_here(shelved)
        layouts = {one.model: one.layout for one in shelved if one.sizes}
        views = [view for view in self._peers() if view.record.node != self._node]
        gone = self._notes.look_round(views, at=at)
        there = [view for view in views if view.present]
        nodes = [
            _node(view.record.node, view.summary, layouts, connected=view.connected, gone_s=None) for view in there
        ]
        nodes += [_node(summary.node, summary, layouts, connected=False, gone_s=gone_s) for summary, gone_s in gone]
        requests = Counter({one.model: one.requests for one in self._demand()})
        shared = {one.model for one in shelved if one.shared}
        for view in there:
            if view.summary is not None:
                requests.update({one.model: one.requests for one in view.summary.demand})
                shared.update(one.model for one in view.summary.holdings if one.shared and view.connected)
        coming, slots = self._coming()
        self._note_cancelled()
        paused = {job.model for job in self._desk.acquisitions() if job.state == "paused"}
        models = tuple(
            self._model(
                one, requests[one.model], coming, shared=one.model in shared, paused=one.model in paused, at=at
            )
            for one in shelved
        )
        return Snapshot(
            own=self._node, region=self._region, now=self._world.clock.now(), nodes=tuple(nodes), models=models,
            limits=self._limits(settings, shelved, coming, slots=slots, at=at),
        )  # fmt: skip

    def _with_waits(self, snapshot: Snapshot, found: Survey) -> Snapshot:
        """How long copies have been missing, and who owes them, can be told only when they have been counted."""
        at, models = self._world.clock.monotonic(), list[ModelStock]()
        for model in snapshot.models:
            waited_s = self._notes.waited_s(model.model, missing_of(found.copies[model.model]), at=at)
            owing = {node: len(shards) for node, shards in owed(snapshot, model).items()}
            owed_s = self._notes.owed_s(model.model, owing, at=at)
            models.append(replace(model, waited_s=waited_s, owed_s=owed_s) if waited_s or owed_s else model)
        return replace(snapshot, models=tuple(models))

    def _model(
        self, one: Shelved, requests: int, coming: frozenset[ShardRef], *, shared: bool, paused: bool, at: float
    ) -> ModelStock:
        notes, model = self._notes, one.model
        return ModelStock(
            model=model, name=one.name, sizes=one.sizes, trust=self._trust(model), pinned=one.pinned,
            has_source=one.has_source, shared=shared, policy=self.policy(model), requests=requests,
            peak_requests=notes.peak(model, requests, at=at), held=one.held,
            coming=frozenset(ref.index for ref in coming if ref.model == model), paused=paused, loaded=one.loaded,
            locked=frozenset(ref.index for ref in self._locks if ref.model == model), running=one.running,
            used_s=0.0 if model in self._served.values() else notes.used_s(model, at=at),
            pruned_s=notes.pruned_s(model, at=at), stored_s=notes.stored_s(model, at=at),
            dropped_s=notes.dropped_s(model, at=at), unwanted=notes.unwanted(model),
            retry_s=notes.retry_s(model, at=at), cancelled_s=notes.cancelled_s(model, at=at),
        )  # fmt: skip

    def _limits(
        self, settings: Settings, shelved: Iterable[Shelved], coming: frozenset[ShardRef], *, slots: int, at: float
    ) -> Limits:
        auto, hour = settings.auto_manage, self._hour()
        given = cast("Contribution", settings.node.contribution)
        now_given = contribution_at(self._schedule, given, hour)
        used = sum(
            size
            for one in shelved
            for index, size in enumerate(one.sizes)
            if ShardRef(one.model, index) in self._fetched and (index in one.held or ShardRef(one.model, index) in coming)
        )
        room, taken = max(0, self._room()), self._used_bytes()
        pressure = taken / (taken + room) if taken + room else 0.0
        arriving = sum(
            size
            for one in shelved
            for index, size in enumerate(one.sizes)
            if ShardRef(one.model, index) in coming and index not in one.held
        )
        if used > _budget(settings, given):
            pressure = max(pressure, OVERDRAWN)
        return Limits(
            contribution=now_given, min_replicas=auto.min_replicas, budget_bytes=_budget(settings, now_given),
            used_bytes=used, room_bytes=room, pressure=min(1.0, pressure + pressure_at(self._schedule, hour)),
            taken_bytes=taken + arriving, most_added=most_pressure(self._schedule),
            free_slots=max(0, auto.max_concurrent_downloads - slots), moves_left=self._notes.moves_left(at=at),
            default_cap=auto.default_model_shard_cap, interval_s=auto.interval_minutes * 60.0,
            prune_enabled=auto.prune_enabled, prune_cooldown_s=float(auto.prune_cooldown_secs),
            max_load=auto.max_holder_load_for_prune,
        )  # fmt: skip

    def _coming(self) -> tuple[frozenset[ShardRef], int]:
        """Shards on their way here, and how many of them the autopilot asked for."""
        refs: set[ShardRef] = set(self._asking)
        ours = len(self._asking)
        for job in self._desk.acquisitions():
            if job.state in OVER:
                continue
            for one in job.transfers:
                ref = ShardRef(job.model, one.index)
                if one.state not in (TransferState.COMPLETE, TransferState.FAILED) and ref not in refs:
                    refs.add(ref)
                    ours += job.trigger == TRIGGER
        return frozenset(refs), ours

    def _note_cancelled(self) -> None:
        """The desk tells of a job until the next one of its model: asked at each look and at each end, none is missed."""
        at = self._world.clock.monotonic()
        for job in self._desk.acquisitions():
            if job.state == "cancelled":
                left = [ShardRef(job.model, one.index) for one in job.transfers if one.state is not TransferState.COMPLETE]
                self._notes.cancelled(job.model, left, began=job.started_at, at=at)

    async def _read_cancelled(self) -> None:
        """As the desk wrote it down: it knows what was cancelled before the last start, and before the shards were known."""
        clock = self._world.clock
        async with self._db.transaction() as tx:
            await content.forget_cancelled_before(tx, clock.now() - CANCELLED_S)
        written = await content.read_cancelled(self._db)
        coming, _ = self._coming()
        ago = clock.monotonic() - clock.now()
        self._notes.cancelled_before({ref: at + ago for ref, at in written.items() if ref not in coming})

    def _look_here(self, shelved: Iterable[Shelved]) -> frozenset[ShardRef]:
        """Every shard on this node. Facts come later than a look, where a look is under way."""
        known = {one.model: one.held for one in shelved if one.sizes}
        here = frozenset(ShardRef(model, index) for model, held in known.items() for index in held)
        self._notes.look_here(here, known.keys(), at=self._world.clock.monotonic())
        return here

    def _hour(self) -> int:
        return local_hour(self._world.clock.now())

    def _jittered(self, seconds: float) -> float:
        return seconds * self._world.entropy.uniform(1 - JITTER, 1 + JITTER)

    async def _hear(self, fact: Fact) -> bool:
        """Whether it is worth a look."""
        at = self._world.clock.monotonic()
        match fact:
            case SummaryReceived():
                return self._notes.is_news(fact.summary)
            case ShardStored():
                await self._stored(fact.shard)
            case ShardDropped():
                self._notes.dropped(fact.shard, at=at)
            case ShardRejected():
                self._notes.rejected(fact.shard, at=at)
            case DownloadStarted() | DownloadEnded():
                await self._hear_download(fact)
                return False
            case ModelRemoved():
                await self._forget(fact.model)
            case SettingsChanged():
                return any(key.startswith(SETTINGS) for key in fact.keys)
            case GenerationStarted():
                if self._node in fact.nodes:
                    self._served[fact.request] = fact.model
                    if len(self._served) > RUNNING:
                        self._served.pop(next(iter(self._served)))
                return False
            case GenerationFinished():
                if self._served.pop(fact.request, None) is not None:
                    self._notes.used(fact.model, at=at)
                return False
            case StageServed():
                self._notes.used(fact.model, at=at)
                return False
            case _:
                pass
        return True

    async def _hear_download(self, fact: DownloadStarted | DownloadEnded) -> None:
        if isinstance(fact, DownloadEnded):
            self._note_cancelled()
            if fact.state == "cancelled":
                await self._read_cancelled()
                await self._reconcile()  # nothing of it has failed, also if it may be fetched again a moment later
        elif any(job.model == fact.model and job.trigger != TRIGGER for job in self._desk.acquisitions()):
            if fact.shards:  # a person wants them: nothing that was said before counts
                self._notes.wanted(ShardRef(fact.model, index) for index in fact.shards)
            else:
                self._notes.instructed(fact.model)

    async def _stored(self, ref: ShardRef) -> None:
        if self._notes.is_cancelled(ref):
            async with self._db.transaction() as tx:
                await content.forget_cancelled(tx, ref.model, (ref.index,))
        self._notes.stored(ref, at=self._world.clock.monotonic())

    # ---- acting

    async def _fetch(self, fetches: tuple[Fetch, ...]) -> None:
        """Written down, then asked of the desk."""
        for model in dict.fromkeys(one.shard.model for one in fetches):
            wanted = [one for one in fetches if one.shard.model == model]
            refs = [one.shard for one in wanted]
            at = self._world.clock.now()
            async with self._db.transaction() as tx:
                await sql.write_fetched(tx, refs, at=at)
            self._fetched.update(dict.fromkeys(refs, at))
            self._notes.wanted(refs)
            self._asking = frozenset(refs)
            try:
                outcome = await self._desk.acquire(model, tuple(sorted(ref.index for ref in refs)), TRIGGER)
            finally:
                self._asking = frozenset()
            for _ in refs:
                self._notes.moved(at=self._world.clock.monotonic())
            if isinstance(outcome, Refusal):
                self._say(f"shards of {model} cannot be fetched: {outcome.sentence}")
                await self._give_up(refs)
                continue
            shards = tuple(sorted(ref.index for ref in refs))
            logger.info("fetching shards %s of %s: %s", ", ".join(map(str, shards)), model, wanted[0].why)
            self._bus.publish(ShardsWanted(model=model, shards=shards, reason=wanted[0].why))

    async def _drop(self, drop: Drop) -> bool:
        """Into the history, then off the disk. False: it is still here."""
        ref = drop.shard
        one = next((one for one in self._shelf() if one.model == ref.model), None)
        if one is None or ref.index not in one.held:
            return False
        record = PruneRecord(
            model=ref.model, name=one.name, shard=ref.index, reason=drop.why, freed_bytes=drop.size_bytes,
            remaining_local_shards=len(one.held) - 1, holder_count_before=drop.holders,
            holder_count_after=drop.holders - 1, at=self._world.clock.now(),
        )  # fmt: skip
        async with self._db.transaction() as tx:
            number = await sql.begin_prune(tx, record)
        refusal = await self._delete(ref)
        async with self._db.transaction() as tx:
            if refusal is not None:
                await sql.abandon_prune(tx, number)
            else:
                await sql.finish_prune(tx, number)
                await sql.forget_fetched(tx, (ref,))
        if refusal is not None:
            self._say(f"shard {ref.number} of {ref.model} cannot be dropped: {refusal.sentence}")
            return False
        at = self._world.clock.monotonic()
        self._fetched.pop(ref, None)
        self._notes.pruned(ref, at=at)
        self._notes.moved(at=at)
        logger.info("dropped shard %d of %s: %s", ref.number, ref.model, drop.why)
        self._bus.publish(
            ShardPruned(
                shard=ref, reason=drop.why, freed_bytes=drop.size_bytes, remaining_local_shards=len(one.held) - 1,
                holders_before=drop.holders, holders_after=drop.holders - 1,
            )
        )  # fmt: skip
        return True

    async def _delete(self, ref: ShardRef) -> Refusal | None:
        """Unless a person said otherwise while the history was written. Refuses Busy, and as the desk does."""
        policy = self.policy(ref.model)
        one = next((one for one in self._shelf() if one.model == ref.model), None)
        if ref in self._locks or ref in self._locking or (one is not None and one.pinned):
            return Busy(what="a person chose to keep it just now")
        if not (policy.enabled and policy.prune_enabled):
            return Busy(what="the policy of its model switches dropping off since just now")
        self._dropping = ref  # no await between the looks above and this
        try:
            return await self._desk.delete_shard(ref)
        finally:
            self._dropping = None

    def _is_still_right(self, drop: Drop) -> bool:
        """It would be dropped, or waits only for those of the same look."""
        plan = self.plan()
        waits = (Guard.COOLDOWN, Guard.LATER)
        return any(one.shard == drop.shard for one in plan.drops) or any(
            one.shard == drop.shard and one.guard in waits for one in plan.kept
        )

    async def _reconcile(self) -> None:
        """What was asked for and neither came nor is coming has failed, or somebody did not want it."""
        self._note_cancelled()
        coming, _ = self._coming()
        here = self._look_here(self._shelf())
        await self._give_up([ref for ref in self._fetched if ref not in coming and ref not in here])

    async def _give_up(self, refs: list[ShardRef]) -> None:
        if not refs:
            return
        at = self._world.clock.monotonic()
        async with self._db.transaction() as tx:
            await sql.forget_fetched(tx, refs)
        for ref in refs:
            self._fetched.pop(ref, None)
            if not self._notes.was_given_up(ref):
                self._notes.failed(ref, at=at)

    async def _recover(self) -> None:
        """Killed while it dropped a shard: it is history if the shard is gone, and nothing happened if it is not."""
        here = {ShardRef(one.model, index) for one in self._shelf() for index in one.held}
        for number, ref in (await sql.read_open_prunes(self._db)).items():
            async with self._db.transaction() as tx:
                await (sql.abandon_prune if ref in here else sql.finish_prune)(tx, number)

    async def _forget(self, model: ModelId) -> None:
        async with self._db.transaction() as tx:
            await sql.forget_model(tx, model)
            await content.forget_cancelled(tx, model)
        self._locks = frozenset(ref for ref in self._locks if ref.model != model)
        self._fetched = {ref: at for ref, at in self._fetched.items() if ref.model != model}
        self._notes.forget(model)

    def _say(self, sentence: str) -> None:
        if self._seldom.due(sentence):
            logger.info("%s", sentence)


def _budget(settings: Settings, contribution: Contribution) -> int:
    explicit = settings.auto_manage.max_storage_mb * MEGABYTE
    return explicit or int(settings.resources.max_disk_mb * MEGABYTE * BUDGET_SHARES[contribution])


def _node(
    node: NodeId, summary: NodeSummary | None, layouts: Mapping[ModelId, str], *, connected: bool, gone_s: float | None
) -> NodeStock:
    if summary is None:
        return NodeStock(node=node, connected=connected, gone_s=gone_s)
    fitting = [one for one in summary.holdings if layouts.get(one.model) == one.layout]
    return NodeStock(
        node=node,
        region=as_region(summary.region),
        connected=connected,
        gone_s=gone_s,
        held={one.model: frozenset(one.shards) for one in fitting},
        coming={one.model: frozenset(one.partial) for one in fitting if one.partial},
        memory_bytes=summary.ram_total_bytes,
    )
