"""One model being brought here, when it is its job's turn: its manifest, its shards, and what is done when all are there.

The desk decides what is fetched and owns the jobs; this does the work of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from swarmd.domain.events import ShardRejected
from swarmd.domain.ids import ModelId, NodeId, ShardRef
from swarmd.domain.refusals import Refusal
from swarmd.domain.shards import TransferState
from swarmd.downloads.engine import SourceFailed, gravest
from swarmd.downloads.ranges import RemoteFile, SourceRefused, SourceTrouble
from swarmd.kit.bus import EventBus
from swarmd.kit.flow import Backoff
from swarmd.kit.world import World
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.shards.fetching import FIRST_S, LIMIT_S, NEAR_MS, Fetcher, Lines
from swarmd.shards.hub_source import HubChunks, HubLine
from swarmd.shards.jobs import Job
from swarmd.shards.landing import Landing
from swarmd.shards.learning import Learner, Summaries
from swarmd.shards.registry import Registry
from swarmd.shards.sources import ChunkSource
from swarmd.shards.storage import ShardStorage

ARRIVING: Final = 2  # shards at a time: the end of one leaves holders idle; more would only share the same downlink
ASKED: Final = 3  # nodes at a time for one manifest: more would only share the same downlink
NEXT_S: Final = 10.0  # without an answer, and one more is asked: 8 MiB of header over 10 Mbit/s take 7 s
ENOUGH_S: Final = 30.0  # and whoever takes so long makes room for one that was not asked yet
COMMITTING: Final = 2  # beside them: hashed as a whole and synced, the work of the disk alone


class Owner(Protocol):
    """What is needed of `desk.ShardDesk`."""

    def choose(self, known: KnownModel, indices: tuple[int, ...] | None) -> tuple[int, ...] | Refusal: ...
    def dress(self, job: Job, known: KnownModel | None) -> None: ...
    def room(self) -> int: ...
    async def make_room(self, job: Job) -> None: ...
    async def write(self, job: Job) -> None: ...
    async def unload(self, ref: ShardRef) -> Refusal | None: ...


class ModelFetch:
    """Shared by all jobs."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        storage: ShardStorage,
        registry: Registry,
        lines: Lines,
        summaries: Summaries,
        learner: Learner,
        fetcher: Fetcher,
        hub: HubLine | None,
        bus: EventBus,
        world: World,
        owner: Owner,
    ) -> None:
        self._catalog, self._storage, self._registry, self._lines = catalog, storage, registry, lines
        self._summaries, self._learner, self._fetcher, self._hub = summaries, learner, fetcher, hub
        self._bus, self._world, self._owner = bus, world, owner

    async def run(self, job: Job, *, patience_s: float) -> str | None:
        known = await self._known(job, patience_s=patience_s)
        if known is None:
            return f"nobody sent a good manifest of model {job.model} within {patience_s:.0f} s"
        if job.trigger == "user":
            await self._catalog.pin(job.model)
        self._owner.dress(job, known)
        if job.state == "awaiting_manifest":
            selected = self._owner.choose(known, job.asked)
            if isinstance(selected, Refusal):
                return selected.sentence
            want(job, known, selected)
            await self._owner.write(job)
        problems: list[str] = []
        while self._fits(job) and (pending := job.open):  # shards may be added while others come
            await self._owner.make_room(job)
            turns, arriving = iter(pending), asyncio.Semaphore(ARRIVING)

            async def lane(turns: Iterator[int] = turns, arriving: asyncio.Semaphore = arriving) -> None:
                for index in turns:
                    ref = ShardRef(job.model, index)
                    layout = known.manifest.layout
                    problem = await self._fetcher.fetch(job, ref, layout, arriving, patience_s=patience_s)
                    if problem is not None:
                        problems.append(problem)
                        job.trouble = job.trouble or problem

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(ARRIVING + COMMITTING):
                        group.create_task(lane())
            except BaseExceptionGroup as errors:
                if self._fits(job):  # else it looked for a shard that there is not any more
                    raise gravest(errors) from errors
        if not self._fits(job):
            for index in job.open:
                job.mark(index, TransferState.FAILED)
            return f"model {job.model} was removed or cut anew while it was fetched: ask for it again"
        return problems[0] if problems else None

    def _fits(self, job: Job) -> bool:
        return fits(job, self._catalog.get(job.model))

    async def _known(self, job: Job, *, patience_s: float) -> KnownModel | None:
        """From whoever holds shards of it; None when nobody had a good one in time."""
        clock = self._world.clock
        deadline = clock.monotonic() + patience_s
        backoff = Backoff(FIRST_S, 2.0, LIMIT_S, entropy=self._world.entropy)
        while (known := self._catalog.get(job.model)) is None:
            await self._ask_all(job)
            if self._catalog.get(job.model) is None:
                if clock.monotonic() >= deadline:
                    return None
                await self._fetcher.pause(backoff.delay())
        return known

    async def _ask_all(self, job: Job) -> None:
        """Everybody who tells of the model, once, until it is known: the next one whenever one has refused or has not
        answered for NEXT_S, so that nobody who keeps silent keeps the others from being asked."""
        asked: set[tuple[NodeId, str]] = set()  # bounded by who tells of it
        asking: dict[asyncio.Task[KnownModel | Refusal], float] = {}
        now = self._world.clock.monotonic
        async with asyncio.TaskGroup() as group:
            try:
                while self._catalog.get(job.model) is None:
                    left = next((one for one in self._tellers(job.model) if one not in asked), None)
                    if left is None and not asking:
                        return
                    if left is not None and len(asking) >= ASKED:
                        oldest = min(asking, key=lambda task: asking[task])
                        if now() - asking[oldest] >= ENOUGH_S:
                            oldest.cancel()
                            del asking[oldest]
                    if left is not None and len(asking) < ASKED:
                        asked.add(left)
                        asking[group.create_task(self._learner.learn(left[0], job.model, left[1]))] = now()
                    done, _ = await asyncio.wait(asking, timeout=NEXT_S, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        del asking[task]
                        if isinstance(outcome := task.result(), Refusal):
                            job.say(outcome.sentence)
            finally:
                for task in asking:
                    task.cancel()

    def _tellers(self, model: ModelId) -> Iterator[tuple[NodeId, str]]:
        """With the layout that each of them has it in."""
        for node, summary in sorted(self._summaries().items()):
            for holding in summary.holdings:
                if holding.model == model:
                    yield node, holding.layout

    async def complete(self, job: Job) -> str | None:
        """With all shards here: the whole is verified, and what goes with it is fetched. A sentence when it is wrong.

        Done again after a restart in its middle: the job is settled only after it.
        """
        if self._hub is None:
            return None
        problem = await self._check_whole(job, self._hub)
        await self._fetch_vision(job, self._hub)
        return problem

    async def discard(self, model: ModelId) -> None:
        """What a cancelled job left beside shards. Raises OSError."""
        if self._hub is not None:
            await self._hub.files.discard(self._storage.vision_path(model))

    async def _fetch_vision(self, job: Job, hub: HubLine) -> None:
        """The encoder with which the model sees, for whoever holds its first shard. Without it the model still talks, so
        failing here is a line in the log."""
        known = self._catalog.get(job.model)
        source = None if known is None else known.manifest.source
        if source is None or source.vision is None or self._storage.has_vision(job.model):
            return
        if 0 not in self._storage.held(job.model):
            return
        vision = source.vision
        room = self._owner.room()
        if vision.size_bytes > room:
            job.say(f"the vision encoder has {vision.size_bytes} bytes, and {room} may be used: it is left out")
            return
        job.say(f"fetching the vision encoder {vision.filename}")
        file = RemoteFile(
            url=hub.url(source.repo_id, source.commit, vision.filename), size_bytes=vision.size_bytes,
            name=f"{source.repo_id}/{vision.filename}", sha256=vision.sha256,
        )  # fmt: skip
        try:
            await hub.files.fetch(file, self._storage.vision_path(job.model))
            unusable = await self._storage.vision_landed(job.model)
        except (OSError, SourceFailed, SourceRefused) as error:
            job.say(f"the vision encoder did not come: {error}")
            return
        job.say("the vision encoder is here" if unusable is None else f"the vision encoder is left out: {unusable}")

    async def _check_whole(self, job: Job, hub: HubLine) -> str | None:
        """With all shards here, whoever sent them, the hash of the file is known. A sentence when it is another than the hub
        says. Nobody can tell which shard is to blame, so all of them go."""
        known = self._catalog.get(job.model)
        if known is None or known.manifest.source is None:
            return None
        if len(self._storage.held(job.model)) < len(known.manifest.shards):
            return None
        job.say("comparing all shards with the SHA-256 that the hub states")
        refusal = await hub.confirm(known)
        if refusal is not None:  # without the hub nobody knows what it states; a peer may have made the manifest
            job.say(f"it could not be compared: {refusal.sentence}")
            return None
        try:
            matches = await hub.whole(known)
        except (OSError, SourceTrouble, SourceRefused) as error:
            job.say(f"it could not be compared: {error}")
            return None
        if matches is not False:
            job.say("it is the hub's file, byte for byte" if matches else "the hub's hash cannot be compared with shards")
            return None
        kept = 0
        for shard in known.manifest.shards:
            ref = ShardRef(job.model, shard.index)
            if await self._owner.unload(ref) is not None or self._registry.in_use(ref):
                kept += 1
                continue
            await self._registry.drop(ref)
            await self._catalog.unseal(job.model, shard.index)
            self._bus.publish(ShardRejected(shard=ref, source=None, reason="the whole file has another SHA-256"))
        for index in job.wanted:
            job.mark(index, TransferState.FAILED)
        rest = f"; {kept} of them are in use: remove the model" if kept else ""
        return f"the shards of {job.model} are not the file whose SHA-256 the hub states: fetch them again{rest}"

    def hub_chunks(self, job: Job, landing: Landing) -> Iterable[ChunkSource]:
        """The hub as a source of this shard, where it is one."""
        ref = landing.ref
        known = self._catalog.get(ref.model)
        if self._hub is None or known is None or known.manifest.source is None:
            return ()

        def near() -> bool:
            return landing.spec.sealed and any(
                ref.index in holding.shards and node not in job.liars and self._is_near(node)
                for node, holding in self._registry.remote(ref.model, known.manifest.layout).items()
            )

        source = known.manifest.source
        return (HubChunks(line=self._hub, known=known, source=source, spec=landing.spec, near=near),)

    def _is_near(self, node: NodeId) -> bool:
        return self._fetcher.distance(node) <= NEAR_MS


def want(job: Job, known: KnownModel, indices: Iterable[int]) -> None:
    """The job brings these shards too."""
    job.identity = job.identity or known.identity
    job.want((index, known.manifest.shards[index].size_bytes) for index in indices)


def fits(job: Job, known: KnownModel | None) -> bool:
    """The model is still cut as it was when the shards of the job were chosen: else their numbers mean nothing."""
    return not job.identity or (known is not None and known.identity == job.identity)
