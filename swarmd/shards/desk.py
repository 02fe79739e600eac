"""Where models are asked for: added from a file, fetched from peers and the hub, deleted, found again on the disk.

What is to be fetched is written down before `acquire` answers, so a node that is killed goes on at its next start. Publishes
`ShardDropped` for what somebody took away; the other facts come from where the work is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from pathlib import Path
from typing import Final

from swarmd.config.settings import Settings
from swarmd.domain.events import (
    DownloadEnded,
    DownloadProgressed,
    DownloadStarted,
    PeerConnected,
    PeerDisconnected,
    ShardDropped,
    SummaryReceived,
)
from swarmd.domain.ids import ModelId, NodeId, ShardRef
from swarmd.domain.models import ShardState
from swarmd.domain.refusals import BadFile, Busy, NoCoverage, NotFound, Refusal
from swarmd.domain.shards import Acquisition, Rescan
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk
from swarmd.kit.gauges import Gauges
from swarmd.kit.service import Ready, Supervisor
from swarmd.kit.world import World
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.models.manifest import Sign
from swarmd.models.slicing import fair_share
from swarmd.shards.adding import Adder
from swarmd.shards.cutting import LocalFile, model_of_path, open_local
from swarmd.shards.discovered import Discovered
from swarmd.shards.fetching import PATIENCE_S, Fetcher, Lines
from swarmd.shards.hub_source import HubLine
from swarmd.shards.jobs import Job
from swarmd.shards.landing import Landing
from swarmd.shards.learning import Learner, Summaries
from swarmd.shards.model_fetch import ModelFetch, fits, want
from swarmd.shards.queue import Queue
from swarmd.shards.registry import Registry
from swarmd.shards.rescanning import Rescanner
from swarmd.shards.sealing import Sealer
from swarmd.shards.sources import ChunkSource
from swarmd.shards.storage import ShardStorage
from swarmd.store.content import (
    AcquisitionRow,
    forget_acquisition,
    forget_cancelled,
    read_acquisitions,
    write_acquisition,
    write_cancelled,
    write_places,
)
from swarmd.store.database import Database
from swarmd.transport.rpc import Dispatcher

MEGABYTE: Final = 1_000_000
RESUME_PATIENCE_S: Final = 600.0  # after a power cut the machines of a house come back one by one
JOBS_KEPT: Final = 256  # as many as there are models; a finished one is kept for whoever asks how it went
MILESTONES: Final = (25, 50, 75)  # percent; the last quarter is the end
MILESTONE_S: Final = 1.0

BeforeDrop = Callable[[ShardRef], Awaitable[Refusal | None]]
"""Takes a shard out of the workers' memory before its file goes; a refusal when it cannot now."""

logger = logging.getLogger(__name__)


class ShardDesk:
    """A service. `acquire` works while it runs."""

    name = "desk"

    def __init__(
        self,
        *,
        node: NodeId,
        catalog: Catalog,
        storage: ShardStorage,
        registry: Registry,
        lines: Lines,
        summaries: Summaries,
        db: Database,
        disk: Disk,
        world: World,
        bus: EventBus,
        gauges: Gauges,
        settings: Callable[[], Settings],
        sign: Sign,
        before_drop: BeforeDrop,
        in_memory: Callable[[], Collection[ModelId]],
        hub: HubLine | None = None,
        patience_s: float = PATIENCE_S,
        resume_patience_s: float = RESUME_PATIENCE_S,
    ) -> None:
        """`lines`: the links. `summaries`: of connected nodes. `sign`: as the publisher of a manifest. `in_memory`: models
        that workers have, be it only their vocabulary. `hub`: None for a node that fetches from peers alone."""
        self._node, self._catalog, self._storage, self._registry = node, catalog, storage, registry
        self._lines, self._summaries, self._db, self._disk = lines, summaries, db, disk
        self._world, self._bus, self._settings, self._before_drop = world, bus, settings, before_drop
        self._patience_s, self._resume_patience_s = patience_s, resume_patience_s
        self._discovered = Discovered(
            catalog=catalog,
            storage=storage,
            job=self._running,
            in_memory=in_memory,
            free_bytes=self.room,
        )
        self._learner = Learner(
            catalog=catalog, discovered=self._discovered, lines=lines, summaries=summaries, world=world
        )
        self._hub = hub
        self._sealer = Sealer(
            node=node, catalog=catalog, storage=storage, registry=registry, lines=lines, disk=disk, sign=sign
        )
        self._fetcher = Fetcher(
            storage=storage, registry=registry, lines=lines, bus=bus, gauges=gauges, world=world,
            others=self._others, seals=self._sealer,
        )  # fmt: skip
        self._model_fetch = ModelFetch(
            catalog=catalog, storage=storage, registry=registry, lines=lines, summaries=summaries, learner=self._learner,
            fetcher=self._fetcher, hub=hub, bus=bus, world=world, owner=self,
        )  # fmt: skip
        self._queue = Queue(lambda: self._settings().downloads.models_at_once)
        self._adder = Adder(
            node=node, catalog=catalog, discovered=self._discovered, storage=storage, registry=registry, disk=disk,
            gauges=gauges, world=world, sign=sign, seals=self._sealer,
        )  # fmt: skip
        self._rescanner = Rescanner(
            catalog=catalog, storage=storage, registry=registry, seals=self._sealer, disk=disk, bus=bus, gauges=gauges,
            world=world, owner=self,
        )  # fmt: skip
        self._jobs: dict[ModelId, Job] = {}
        self._tasks: dict[ModelId, asyncio.Task[None]] = {}
        self._supervisor: Supervisor | None = None

    async def run(self, ready: Ready) -> None:
        """Goes on with what was begun, then listens to what neighbours hold."""
        try:
            async with Supervisor("desk", world=self._world) as supervisor:
                self._supervisor = supervisor
                with self._bus.subscribe(SummaryReceived, PeerConnected, PeerDisconnected, DownloadEnded) as inbox:
                    for row in await read_acquisitions(self._db):
                        self._resume(row)
                    for node in self._summaries():
                        self._learner.heard(node, supervisor.spawn)
                    ready()
                    async for fact in inbox:
                        self._fetcher.wake()
                        if isinstance(fact, SummaryReceived):
                            self._learner.heard(fact.summary.node, supervisor.spawn)
                        elif isinstance(fact, PeerConnected):  # gossip may have told long before what it holds
                            self._learner.heard(fact.node, supervisor.spawn)
                        elif isinstance(fact, DownloadEnded) and fact.state != "complete":
                            # As long as it ran, no other cut of its model was taken.
                            for node in self._summaries():
                                self._learner.heard(node, supervisor.spawn)
        finally:
            self._supervisor = None

    def register(self, dispatcher: Dispatcher) -> None:
        """What peers may ask. Once, before the doors open."""
        self._sealer.register(dispatcher)

    # ---- from a file

    async def add_file(self, path: Path, shard_size_bytes: int | None) -> ModelId | Refusal:
        """Cut a local GGUF file, or all parts of the one that it is a part of; None: to the size in the settings. Returns
        when all its shards are here.

        The same file again does nothing, or goes on where it was interrupted. Refuses BadFile, UnsupportedModel, NoSpace,
        Busy.
        """
        local = await open_local(path, self._disk)
        if isinstance(local, BadFile):
            return local
        model = model_of_path(path)
        if isinstance(model, BadFile):
            return model
        # No await between this look and the entry of the job.
        if (busy := self._busy(model)) is not None:
            return busy
        promised = self._promised()
        job = self._enter(Job(model, trigger="user", started_at=self._world.clock.now(), local=True))
        try:
            refusal = await self._adder.add(
                local,
                job,
                shard_size_bytes=shard_size_bytes or self.shard_bytes(),
                limit_bytes=self._limit_bytes(),
                promised=promised,
            )
            if refusal is not None:
                job.fail(refusal.sentence)
                return refusal
            job.complete()
            return model
        finally:
            if not job.over:
                job.fail("it was interrupted: add the file again to go on")

    def _busy(self, model: ModelId) -> Busy | None:
        if self._running(model) is None:
            return None
        return Busy(what=f"model {model} is already being added or fetched: wait until that is done")

    async def add_refusal(self, local: LocalFile, model: ModelId) -> Refusal | None:
        """What `add_file` would refuse of this file before it reads all of it; None: nothing."""
        return self._busy(model) or await self._adder.refusal(
            local,
            model,
            shard_size_bytes=self.shard_bytes(),
            limit_bytes=self._limit_bytes(),
            promised=self._promised(),
        )

    # ---- from peers and the hub

    async def adopt_own(self, model: ModelId, manifest_data: bytes, header_data: bytes) -> KnownModel | Refusal:
        """Know a model that a person here asked for; it takes the place of what peers merely told of under its name, but not
        under the hands of a job that fetches that. Raises OSError.
        """

        def admit(known: KnownModel) -> tuple[ModelId, ...] | Refusal:
            if self._running(model) is not None and self._catalog.get(model) is not None:
                return Busy(what=f"model {model} is being fetched as a peer told of it: cancel that, and ask again")
            return self._discovered.admit_own(known)

        return await self._catalog.adopt(manifest_data, header_data, admit=admit)

    async def acquire(
        self, model: ModelId, indices: tuple[int, ...] | None, trigger: str = "user"
    ) -> Acquisition | Refusal:
        """Fetch these shards in the background; None: all that are missing if they fit, else this node's fair share.

        Answers when the wish is on the disk: killed after that, the node fetches them all the same. Refuses NotFound,
        NoCoverage, NoSpace, Busy. More shards of a model that is on its way join that job.
        """
        begun = self._begin(model, indices, trigger)
        if isinstance(begun, Refusal):
            return begun
        acquisition, note = begun
        await asyncio.wait((note,))  # who leaves meanwhile does not take the wish along
        if note.cancelled() or note.exception() is not None:
            return Busy(what=f"that model {model} is wanted could not be written down: ask again")
        return acquisition

    def _begin(
        self, model: ModelId, indices: tuple[int, ...] | None, trigger: str
    ) -> tuple[Acquisition, asyncio.Task[None]] | Refusal:
        """The job, and the task that writes it down. No await between the looks and the entry of the job."""
        if self._supervisor is None:
            return Busy(what="this node is starting or stopping: try again in a moment")
        job = self._running(model)
        known = self._catalog.get(model)
        if known is None and self._registry.view(model) is None:
            return NotFound(what=f"neither this node nor a connected one knows a model {model}")
        chosen = self.choose(known, indices) if known is not None else indices
        if isinstance(chosen, Refusal):
            return chosen
        if job is not None and job.local:
            return Busy(what=f"model {model} is being added from a file: wait until that is done")
        joined = job is not None
        if job is None:
            job = self._enter(Job(model, trigger=trigger, started_at=self._world.clock.now()))
        elif job.waiting == "paused" and trigger != "user":
            return Busy(what=f"model {model} was paused by a person: resume it first")
        elif job.waiting == "paused" and model in self._tasks:
            return Busy(what=f"model {model} is being paused at this moment: ask again")
        elif trigger == "user":
            job.trigger = trigger  # from now on somebody wants it, whoever began
            job.urged += 1
            self._fetcher.wake()
        if known is None or (joined and job.state == "awaiting_manifest"):
            job.ask(indices)
        else:
            want(job, known, chosen or ())
        self.dress(job, known)
        self._queue.enter(model)
        note = self._supervisor.spawn(self._note(job), name=f"noting {model}")
        self._bus.publish(DownloadStarted(model=model, shards=job.wanted, hub=job.hub))
        if not joined or job.waiting == "paused":  # who asks again wants it now
            self._start(job, note, patience_s=self._patience_s)
        return self._snapshot(job), note

    def acquisition(self, model: ModelId) -> Acquisition | None:
        """Of the running or the latest job."""
        job = self._jobs.get(model)
        return None if job is None else self._snapshot(job)

    def acquisitions(self) -> tuple[Acquisition, ...]:
        """Those that are not over in the order of the queue, then the others, the oldest first."""
        jobs = sorted(self._jobs.values(), key=lambda job: (job.over, self._queue.place(job.model)))
        return tuple(self._snapshot(job) for job in jobs)

    # ---- the queue

    async def cancel(self, model: ModelId) -> Refusal | None:
        """Nothing more is fetched, and what has arrived of unfinished shards goes. Refuses NotFound, Busy."""
        job = self._running(model)
        if job is None:
            return NotFound(what=f"nothing of model {model} is being fetched")
        if job.local:
            return Busy(what=f"model {model} is being added from a file, which ends by itself: wait until that is done")
        unfinished = [ShardRef(model, index) for index in (job.open if job.wanted else job.asked or ())]
        job.cancelled()
        await self._cancel(model, unwanted=unfinished)
        self._ended(job)
        if self._running(model) is None:  # else somebody has asked for it anew, and goes on with it
            await self._model_fetch.discard(model)
        for ref in unfinished:
            await self._storage.drop(ref, unless=lambda ref=ref: not self._is_left(ref))
        return None

    def _is_left(self, ref: ShardRef) -> bool:
        """Something of it has arrived, and nobody brings the rest."""
        known, partial = self._catalog.get(ref.model) is not None, self._storage.state(ref) is ShardState.PARTIAL
        return known and partial and not self._is_coming(ref)

    def _is_coming(self, ref: ShardRef) -> bool:
        """Or may be, as long as the shards are not chosen."""
        job = self._running(ref.model)
        return job is not None and (ref.index in job.open or not job.wanted)

    async def pause(self, model: ModelId) -> Refusal | None:
        """Nothing is fetched until `resume`; what has arrived stays, also over a restart. Refuses NotFound, Busy."""
        job = self._running(model)
        if job is None:
            return NotFound(what=f"nothing of model {model} is being fetched")
        if job.local:
            return Busy(what=f"model {model} is being added from a file, which cannot be paused: wait until that is done")
        if job.waiting == "paused":
            return None
        job.waiting = "paused"
        await self.write(job)
        if self._running(model) is job:  # else it came to its end meanwhile, and what runs now is another
            await self._stop(model)
            job.stand_still()
            job.say("paused")
        return None

    async def resume(self, model: ModelId) -> Refusal | None:
        """Refuses NotFound, Busy; nothing happens to one that is not paused."""
        job = self._running(model)
        if job is None or job.local:
            return NotFound(what=f"nothing of model {model} is being fetched")
        if job.waiting == "paused" and model in self._tasks:
            return Busy(what=f"model {model} is being paused at this moment: ask again")
        if job.waiting == "paused":
            if self._supervisor is None:
                return Busy(what="this node is starting or stopping: try again in a moment")
            job.waiting = "queued"
            job.say("resumed")
            self._start(job, self._supervisor.spawn(self.write(job), name=f"noting {model}"), patience_s=self._patience_s)
        return None

    async def move(self, model: ModelId, place: int) -> Refusal | None:
        """To another place in the queue, 0 is the first. Refuses NotFound."""
        if self._running(model) is None or model not in self._queue.order():
            return NotFound(what=f"nothing of model {model} is being fetched")
        self._queue.move(model, place)
        async with self._db.transaction() as tx:
            await write_places(tx, self._queue.order())
        return None

    # ---- deleting, finding

    async def delete_model(self, model: ModelId) -> int | Refusal:
        """Delete all that is here of a model. Returns how many files that were. Refuses NotFound, Busy."""
        if self._catalog.get(model) is None:
            return NotFound(what=f"this node knows no model {model}")
        job = self._running(model)
        if job is not None and job.local:
            return Busy(what=f"model {model} is being added from a file: wait until that is done")
        refs = [ShardRef(model, index) for index in self._registry.held(model)]
        for ref in refs:
            refusal = await self.unload(ref)
            if refusal is not None:
                return refusal
        job = self._running(model)  # another one may have begun while memory was freed
        if job is not None and job.local:
            return Busy(what=f"model {model} is being added from a file: wait until that is done")
        if job is not None:
            job.cancelled()
        await self._cancel(model)
        if job is not None:
            self._ended(job)
        # No await between this look and `remove`: after it nothing is held or known, so nothing new can begin.
        refusal = next((refusal for ref in refs if (refusal := self._in_use(ref)) is not None), None)
        if refusal is not None:
            return refusal
        if self._running(model) is not None:
            return Busy(what=f"somebody asked for model {model} just now: delete it again if it is not wanted")
        self._storage.forget(model)
        self._jobs.pop(model, None)
        return await self._catalog.remove(model)

    async def delete_shard(self, ref: ShardRef) -> Refusal | None:
        """Delete one shard, or what has arrived of it. Refuses NotFound, Busy."""
        known = self._catalog.get(ref.model)
        if known is None or not 0 <= ref.index < len(known.manifest.shards):
            return NotFound(what=f"this node knows no shard {ref.number} of a model {ref.model}")
        if self._storage.state(ref) not in (ShardState.HELD, ShardState.PARTIAL):
            return NotFound(what=f"shard {ref.number} of model {ref.model} is not on this node")
        if self._is_coming(ref):
            return Busy(what=f"shard {ref.number} of model {ref.model} is on its way here: wait until it has arrived")
        refusal = await self.unload(ref) or self._in_use(ref)  # no await between this look and the drop
        if refusal is not None:
            return refusal
        await self._registry.drop(ref)
        return None

    async def rescan(self) -> Rescan:
        """Look at the disk again: shards that were put there by hand are held if their bytes are right, those that were
        taken away are not any more, and damaged ones are fetched anew. Reads all that is held. Whole files are named, not
        cut: that takes their size of the disk once more."""
        return await self._rescanner.run()

    def doubt(self, ref: ShardRef) -> None:
        """A part of a held shard was not what it should be: nobody is told of it any more until all of it was looked at."""
        if self._supervisor is None or ref.index not in self._registry.held(ref.model):
            return
        self._storage.doubt(ref)
        self._bus.publish(ShardDropped(shard=ref))
        self._supervisor.spawn(self._rescanner.check(ref), name=f"looking at shard {ref.number} of {ref.model}")

    def shard_bytes(self) -> int:
        """As the settings say that models are cut."""
        return self._settings().model.shard_size_mb * MEGABYTE

    # ---- jobs

    def _running(self, model: ModelId) -> Job | None:
        job = self._jobs.get(model)
        return None if job is None or job.over or job.settled else job

    def _enter(self, job: Job) -> Job:
        self._jobs.pop(job.model, None)
        for old in [model for model, one in self._jobs.items() if one.over][: max(0, len(self._jobs) - JOBS_KEPT + 1)]:
            del self._jobs[old]
        self._jobs[job.model] = job
        return job

    def _snapshot(self, job: Job) -> Acquisition:
        return job.snapshot(at=self._world.clock.monotonic(), place=self._queue.place(job.model))

    def dress(self, job: Job, known: KnownModel | None) -> None:
        """What people see of it beside the shards."""
        if known is not None:
            job.name = known.manifest.name
            job.hub = self._hub is not None and known.manifest.source is not None
        hub_jobs = [one.model for one in self._jobs.values() if one.hub and not one.over]
        self._registry.set_coming(hub_jobs)

    def _ended(self, job: Job) -> None:
        """Once, when it is over."""
        if self._jobs.get(job.model) in (job, None):  # else another one has begun, and has its place
            self._queue.leave(job.model)
        self.dress(job, None)
        self._bus.publish(DownloadEnded(model=job.model, state=job.state, reason=job.reason, hub=job.hub))

    def _promised(self) -> tuple[ShardRef, ...]:
        """Shards that are on their way and will take their space."""
        coming = [job for job in self._jobs.values() if not job.over and fits(job, self._catalog.get(job.model))]
        return tuple(ShardRef(job.model, index) for job in coming for index in job.open)

    async def unload(self, ref: ShardRef) -> Refusal | None:
        """Out of the workers' memory, if it is there."""
        if (refusal := self._in_use(ref)) is not None:
            return refusal
        return await self._before_drop(ref) if ref.index in self._registry.loaded(ref.model) else None

    def _in_use(self, ref: ShardRef) -> Busy | None:
        if not self._registry.in_use(ref):
            return None
        return Busy(what=f"shard {ref.number} of model {ref.model} runs in a generation: try again when that has ended")

    def choose(self, known: KnownModel, indices: tuple[int, ...] | None) -> tuple[int, ...] | Refusal:
        """Missing shards to fetch, sorted; none when everything asked for is here."""
        manifest = known.manifest
        count = len(manifest.shards)
        outside = [index for index in indices or () if not 0 <= index < count]
        if outside:
            return NotFound(what=f"model {manifest.model} has no shard {outside[0]}: it has {count}, from 0 on")
        held = self._registry.held(manifest.model)
        wanted = tuple(sorted(set(range(count) if indices is None else indices).difference(held)))
        remote = self._registry.remote(manifest.model, manifest.layout).values()
        offered = {index for holding in remote for index in (*holding.shards, *holding.partial)}
        if self._hub is not None and manifest.source is not None:
            offered = set(wanted)  # what no peer has, the hub has
        uncovered = tuple(index for index in wanted if index not in offered)
        if uncovered and (indices is not None or len(uncovered) == len(wanted)):
            return NoCoverage(model=manifest.model, missing=uncovered, shard_count=count)
        refusal = self._no_space(known, wanted)
        if refusal is not None and indices is None:
            whole = refusal
            share = fair_share(self._node, manifest.model, count, len(self._lines.connected()))
            wanted = tuple(index for index in share if index not in held)
            refusal = None if self._no_space(known, wanted) is None else whole  # what was asked for, not what would do
        return wanted if refusal is None else refusal

    def _no_space(self, known: KnownModel, indices: tuple[int, ...]) -> Refusal | None:
        refs = [ShardRef(known.manifest.model, index) for index in indices]
        if not refs:
            return None
        spare = self._discovered.spare_bytes(but=known.manifest.model)
        limit = self._limit_bytes()
        return self._storage.space_for(refs, limit_bytes=limit, promised=self._promised(), spare_bytes=spare)

    def _limit_bytes(self) -> int:
        return self._settings().resources.max_disk_mb * MEGABYTE

    def _resume(self, row: AcquisitionRow) -> None:
        """A job that the last run of this node did not finish."""
        known = self._catalog.get(row.model)
        job = self._enter(Job(row.model, trigger=row.trigger, started_at=row.started_at))
        if known is None or not row.shards:
            job.ask(row.shards or None)
        else:
            held = self._registry.held(row.model)
            want(job, known, (index for index in row.shards if index < len(known.manifest.shards) and index not in held))
            for index in job.open:
                job.kept(index, self._storage.kept_bytes(ShardRef(row.model, index)))
        self.dress(job, known)
        self._queue.enter(job.model)
        if row.paused:
            job.waiting = "paused"
        else:
            job.say("going on after a restart")
            self._start(job, None, patience_s=self._resume_patience_s)

    def _start(self, job: Job, note: asyncio.Task[None] | None, *, patience_s: float) -> None:
        """`note` writes the job down; None: it is written down."""
        assert self._supervisor is not None, "the callers have looked"
        job.waiting = "queued" if len(self._tasks) >= self._settings().downloads.models_at_once else None
        work = self._work(job, note, patience_s=patience_s)
        self._tasks[job.model] = self._supervisor.spawn(work, name=f"fetching {job.model}")

    async def _work(self, job: Job, note: asyncio.Task[None] | None, *, patience_s: float) -> None:
        """The life of a job. Cancelled with the node, it stays written down; ended, well or not, it is forgotten."""
        assert self._supervisor is not None, "it is spawned by it"
        milestones = self._supervisor.spawn(self._tell_milestones(job), name=f"milestones of {job.model}")
        crashed = True
        try:
            if note is not None:
                await asyncio.wait((note,))
                if note.cancelled() or note.exception() is not None:
                    job.fail("it could not be written down: ask again")
                    crashed = False
                    self._ended(job)
                    return
            job.waiting = job.waiting or ("queued" if self._queue.is_full else None)
            async with self._queue.turn(job.model):
                if job.waiting == "queued":  # or somebody pauses it just now, and stops this task in a moment
                    job.waiting = None
                problem = await self._fetch_until_settled(job, patience_s=patience_s)
            if problem is None:
                job.complete()
            else:
                job.fail(problem)
                logger.warning("model %s is not complete: %s", job.model, problem)
            crashed = False
            self._ended(job)
        except asyncio.CancelledError:
            crashed = False
            raise
        except OSError as error:
            logger.warning("model %s cannot be kept: %s", job.model, error)
            job.fail(f"it cannot be written here: {error}")
            crashed = False
            self._ended(job)
        finally:
            milestones.cancel()
            if not job.over and job.waiting != "paused":
                job.fail("it failed in a way nobody thought of: see the node's log" if crashed else "it was interrupted")
                if crashed or job.settled:  # settled: nobody else has it in hand any more
                    self._ended(job)
            if self._tasks.get(job.model) is asyncio.current_task():
                del self._tasks[job.model]

    async def _fetch_until_settled(self, job: Job, *, patience_s: float) -> str | None:
        """All of it: shards, the hash of the whole, what goes with it; and again for what was asked for meanwhile."""
        while True:
            problem = await self._model_fetch.run(job, patience_s=patience_s)
            if problem is None and not job.given_up:
                problem = await self._model_fetch.complete(job)
            if await self._settled(job):
                return problem or (job.trouble if job.given_up else None)

    async def _tell_milestones(self, job: Job) -> None:
        told = job.percent
        while True:
            await asyncio.sleep(MILESTONE_S)
            passed = [mark for mark in MILESTONES if told < mark <= job.percent]
            if passed:
                self._bus.publish(DownloadProgressed(model=job.model, percent=passed[-1]))
            told = max(told, job.percent)

    async def _settled(self, job: Job) -> bool:
        """Forget what was to be done, unless more has been asked for meanwhile."""
        async with self._db.transaction() as tx:
            if not job.open:
                job.settled = True
                await forget_acquisition(tx, job.model)
        return job.settled

    def room(self) -> int:
        """Bytes that may be taken beside what is on its way."""
        return self._storage.room(limit_bytes=self._limit_bytes(), promised=self._promised())

    async def make_room(self, job: Job) -> None:
        """What nobody asked for gives way to the open shards; whether that is enough was looked at when they were chosen."""
        refs = [ShardRef(job.model, index) for index in job.open]
        short = self._storage.short_of(refs, limit_bytes=self._limit_bytes(), promised=self._promised())
        try:
            await self._discovered.give_way(short)
        except OSError as error:  # if the room is not there, the landing will say so
            logger.warning("what nobody asked for cannot be deleted: %s", error)

    def _others(self, job: Job, landing: Landing) -> Iterable[ChunkSource]:
        return self._model_fetch.hub_chunks(job, landing)

    async def _note(self, job: Job) -> None:
        """Raises OSError and what the database raises: it was not noted then."""
        if job.trigger == "user":
            await self._catalog.pin(job.model)
        await self.write(job)

    async def write(self, job: Job) -> None:
        """What is to be fetched, as it is when its turn at the database comes."""
        async with self._db.transaction() as tx:
            if job.over or job.settled or not (job.wanted or job.asked != ()):
                return
            shards = job.wanted or job.asked or ()
            row = AcquisitionRow(
                model=job.model, trigger=job.trigger, started_at=job.started_at, shards=shards,
                place=self._queue.place(job.model), paused=job.waiting == "paused",
            )  # fmt: skip
            await write_acquisition(tx, row)
            if job.trigger == "user":
                await forget_cancelled(tx, job.model, shards)

    async def _cancel(self, model: ModelId, *, unwanted: Iterable[ShardRef] = ()) -> None:
        """End a job that fetches, and forget that it was to be done. `unwanted`: what a person cancelled of it."""
        await self._stop(model)
        async with self._db.transaction() as tx:
            if self._running(model) is None:  # else somebody has asked for it anew
                await forget_acquisition(tx, model)
                await write_cancelled(tx, unwanted, at=self._world.clock.now())

    async def _stop(self, model: ModelId) -> None:
        task = self._tasks.get(model)
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
            if self._tasks.get(model) is task:  # it was stopped before its first step, and never came to its end
                del self._tasks[model]
