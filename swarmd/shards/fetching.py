"""One shard from everybody who has it, at once: peers with the whole or a part of it, and further sources.

Sources come and go while it is fetched. One that is lost, refuses or breaks off leaves its chunks to the others and is asked
again after a pause. One that sends wrong bytes is not asked again in the same job. What has arrived is never lost, unless
the hashes it was checked with were a lie: a shard whose seal the hub contradicts is fetched from the hub, without a seal.

Without hashes no peer can bring anything. So while a shard that had none comes from the hub, near nodes that have got all of
it are asked for its seal, and with that the rest comes from them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from swarmd.domain.events import ShardDownloadStarted, ShardRejected
from swarmd.domain.ids import NodeId, ShardRef, short
from swarmd.domain.peers import PeerView, Purpose
from swarmd.domain.shards import TransferState
from swarmd.kit.bus import EventBus
from swarmd.kit.flow import Backoff
from swarmd.kit.gauges import Gauges
from swarmd.kit.world import World
from swarmd.shards.board import Board
from swarmd.shards.holders import CHUNK_TIMEOUT_S, Holder
from swarmd.shards.jobs import Job
from swarmd.shards.landing import ChunkMismatch, Landing
from swarmd.shards.registry import Registry
from swarmd.shards.sources import ChunkSource, Places, Trouble, Work
from swarmd.shards.storage import ShardStorage
from swarmd.transport.rpc import Link

PATIENCE_S: Final = 60.0  # a node that is restarted with its machine is back by then
FIRST_S: Final = 0.2
LOOK_S: Final = 0.2  # for holders that failed and may be asked again
SEAL_S: Final = 5.0  # for some kB, while the hub could be read: a slow uplink behind somebody's chunk is not waited for
NEAR_MS: Final = 5.0  # of round trip: the same house or campus, where bytes cost nothing
RELEARN_S: Final = 10.0  # between two looks for a seal, while the hub brings the shard without
REFUSED_FIRST_S: Final = 5.0  # a hub that is repaired or overloaded says 403 or 404 for some seconds
REFUSED_LIMIT_S: Final = 60.0
LIMIT_S: Final = 5.0  # news of a holder end the pause at once; this is for holders that refused or failed

logger = logging.getLogger(__name__)


class Lines(Protocol):
    """What is needed of `peers.links.Links`."""

    def link(self, node: NodeId, purpose: Purpose = Purpose.CONTROL) -> Link | None: ...
    def view(self, node: NodeId) -> PeerView | None: ...
    def connected(self) -> tuple[NodeId, ...]: ...


Others = Callable[[Job, Landing], Iterable[ChunkSource]]
"""Sources that are no peers, asked for when a fetch begins."""


class Seals(Protocol):
    """What is needed of `shards.sealing.Sealer`."""

    async def learn(self, ref: ShardRef, *, liars: Collection[NodeId], within_s: float) -> NodeId | None: ...
    async def take_back(self, ref: ShardRef) -> NodeId | None: ...
    async def make(self, landing: Landing) -> str | None: ...


@dataclass(slots=True, kw_only=True, eq=False)
class _Resting:
    """A source that failed: not asked before `until` (monotonic seconds)."""

    backoff: Backoff
    until: float = 0.0


@dataclass(slots=True, kw_only=True, eq=False)
class _LateSeal:
    """Looked for while a shard comes without hashes, not again before `again_at` (monotonic seconds)."""

    again_at: float
    giver: NodeId | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    """The look that is under way, if one is."""


class Fetcher:
    """Shared by all jobs."""

    def __init__(
        self,
        *,
        storage: ShardStorage,
        registry: Registry,
        lines: Lines,
        bus: EventBus,
        gauges: Gauges,
        world: World,
        others: Others | None = None,
        seals: Seals | None = None,
    ) -> None:
        """`others`: further sources of a shard, beside the peers. `seals`: None where every shard has its hashes."""
        self._seals = seals
        self._storage, self._registry, self._lines = storage, registry, lines
        self._bus, self._gauges, self._world, self._others = bus, gauges, world, others
        self._places = Places()
        self._news: set[asyncio.Event] = set()

    def wake(self) -> None:
        """Something changed among the peers: whoever waits for a holder looks again."""
        for news in self._news:
            news.set()

    async def pause(self, seconds: float) -> None:
        """Until there is news, at most so long."""
        with self._listening() as news:
            await _heard(news, seconds)

    @contextmanager
    def _listening(self) -> Generator[asyncio.Event]:
        news = asyncio.Event()
        self._news.add(news)
        try:
            yield news
        finally:
            self._news.discard(news)

    async def fetch(
        self, job: Job, ref: ShardRef, layout: str, arriving: asyncio.Semaphore, *, patience_s: float = PATIENCE_S
    ) -> str | None:
        """Bring one shard here. None: it is held now; else why not. What has arrived stays for the next try.

        It takes its turn of `arriving` as long as its bytes come: the line is the next one's while this one is committed.
        """
        found_out: set[NodeId] = set()
        problem, before = None, -1
        while before < len(found_out):
            before = len(found_out)
            problem = await self._try(job, ref, layout, arriving, found_out, patience_s=patience_s)
        if problem is not None:
            job.mark(ref.index, TransferState.FAILED)
            job.say(problem)
            return problem
        return None

    async def _try(
        self,
        job: Job,
        ref: ShardRef,
        layout: str,
        arriving: asyncio.Semaphore,
        found_out: set[NodeId],
        *,
        patience_s: float,
    ) -> str | None:
        """Once, as `fetch`. `found_out` gets whose seal of this shard was wrong as a whole: without them it may work."""
        landing: Landing | None = None
        giver: NodeId | None = None
        try:
            async with arriving:
                if self._is_held(ref):  # put there by hand while the job had other things to do
                    job.mark(ref.index, TransferState.COMPLETE)
                    return None
                landing, trouble, giver = await self._bring(job, ref, layout, patience_s=patience_s)
            problem = None if trouble is None else trouble.reason
            if problem is None:
                job.mark(ref.index, TransferState.VERIFYING)
                if self._seals is not None and not landing.spec.sealed:
                    problem = await self._seals.make(landing)
            if problem is None:
                await landing.commit()
        except asyncio.CancelledError:
            if landing is not None and self._is_held(ref):  # it got its name all the same
                self._arrived(job, ref)
            raise
        except ChunkMismatch as error:
            # Each chunk had its hash, the whole has not: whoever stated these hashes contradicts himself.
            problem, signer = str(error), error.signer
            self._bus.publish(ShardRejected(shard=ref, source=signer, reason=problem))
            if signer is not None:
                found_out |= {signer} if giver is None else {signer, giver}  # what the giver has is not the file, too
                job.liars |= found_out
                job.say(f"shard {ref.number}: {problem}, as {short(signer)} sealed it; it is brought anew", index=ref.index)
        except OSError as error:
            named = landing is not None and self._is_held(ref)
            problem = None if named else f"shard {ref.number} cannot be written: {error}"
        finally:
            if landing is not None:
                landing.give_up()  # nobody writes it from here on, so nobody is told that it arrives
            self._gauges.remove(f"shards.{ref.model}.{ref.index}.progress")
        if problem is None:
            self._arrived(job, ref)
        return problem

    def _is_held(self, ref: ShardRef) -> bool:
        return ref.index in self._registry.held(ref.model)

    def _arrived(self, job: Job, ref: ShardRef) -> None:
        job.mark(ref.index, TransferState.COMPLETE)
        job.say(f"shard {ref.number} is here")
        self._registry.hold(ref, source=job.source(ref.index), hub=job.from_hub(ref.index))

    async def _bring(
        self, job: Job, ref: ShardRef, layout: str, *, patience_s: float
    ) -> tuple[Landing, Trouble | None, NodeId | None]:
        """All chunks of it, with what is known of its hashes, and who gave these in this job. None: there is no trouble, and
        none is missing."""
        giver = await self._learn(job, ref, within_s=SEAL_S if job.hub else patience_s)
        landing = await self._storage.open_landing(ref)
        try:
            # Each further round has one liar less, or one seal more; the last of them waited for peers.
            while (trouble := await self._land(job, landing, layout, giver, patience_s=patience_s)) is not None:
                if trouble.contradicts:
                    giver = None
                    await self._storage.drop(ref)  # whoever lied about the hashes may have sent any of it
                elif trouble.sealed_by is not None:
                    giver = trouble.sealed_by
                elif job.hub and not (landing.spec.sealed or trouble.ours):
                    # The hub fails. Peers could bring it, with a seal that was not waited for.
                    giver = await self._learn(job, ref, within_s=patience_s)
                    if giver is None:
                        break
                else:
                    break
                landing = await self._storage.open_landing(ref)
        except BaseException:
            landing.give_up()
            raise
        return landing, trouble, giver

    async def _learn(self, job: Job, ref: ShardRef, *, within_s: float) -> NodeId | None:
        """Who gave the seal that the shard has from now on, if somebody did. Raises OSError."""
        return None if self._seals is None else await self._seals.learn(ref, liars=job.liars, within_s=within_s)

    async def _land(
        self, job: Job, landing: Landing, layout: str, giver: NodeId | None, *, patience_s: float
    ) -> Trouble | None:
        """Until no chunk is missing. Trouble when there was no progress for `patience_s`, when the disk failed, when the
        hub contradicts the seal, which is taken back then, or when a seal came for a shard that had none. `giver`: of the
        seal it has."""
        ref, count = landing.ref, landing.spec.chunk_count
        board = Board(landing.missing(), count=count, start=int(self._world.entropy.uniform(0, count)))
        work = Work(job=job, landing=landing, layout=layout, board=board, clock=self._world.clock, gauges=self._gauges)
        if not work.wanted:
            return None
        job.begin(ref.index, done_bytes=landing.done_bytes, source=None)
        running: dict[asyncio.Task[Trouble | None], ChunkSource] = {}
        last = ""
        resting: dict[NodeId, _Resting] = {}
        refused: dict[str, _Resting] = {}
        urged, late = job.urged, _LateSeal(again_at=work.now())
        fresh: list[ChunkSource] = list(self._others(job, landing)) if self._others is not None else []
        with self._listening() as news:
            async with asyncio.TaskGroup() as group:
                try:
                    while work.wanted:
                        news.clear()
                        if job.urged != urged:  # a person wants it now, with all the patience there is
                            urged, work.progress_at = job.urged, work.now()
                            refused = {name: replace(rest, until=0.0) for name, rest in refused.items()}
                        fresh += self._asked_again(work, running.values(), refused)
                        fresh += self._holders(work, {source.name: source for source in running.values()}, resting)
                        for source in fresh:
                            work.join(source)
                            task = group.create_task(source.run(work), name=f"shard {ref.number} from {source.name}")
                            task.add_done_callback(lambda _: news.set())
                            running[task] = source
                            self._joined(work, source)
                        fresh = []
                        if _nothing_comes(work, running.values(), patience_s):
                            what = "no node that holds it could be reached"
                            if running:
                                what = "no missing chunk came from the nodes that have some of it"
                            liars = f", {len(job.liars)} that sent wrong bytes left out" if job.liars else ""
                            return Trouble(
                                reason=f"shard {ref.number}: {what} for {patience_s:.0f} s{liars}"
                                + (f"; {last}" if last else "")
                            )
                        if not late.tasks and work.now() >= late.again_at and self._may_learn(work, running.values()):
                            late.tasks.add(group.create_task(self._learn_late(job, ref, late, news)))
                        await _heard(news, LOOK_S)
                        if late.giver is not None:
                            return Trouble(reason=f"sealed by {short(late.giver)}", sealed_by=late.giver)
                        for task in [task for task in running if task.done()]:
                            source = running.pop(task)
                            work.leave(source)
                            trouble = task.result()
                            if trouble is not None and not isinstance(source, Holder):
                                last = f"{source.name}: {trouble.reason}"
                            if trouble is not None and trouble.contradicts and await self._taken_back(work, trouble, giver):
                                return trouble
                            if trouble is not None and trouble.refused:
                                self._refused(work, source, trouble, refused)
                            problem = self._left(work, source, trouble, resting)
                            if problem is not None:
                                return Trouble(reason=problem, ours=True)
                finally:
                    for task in (*running, *late.tasks):
                        task.cancel()
        return None

    def _may_learn(self, work: Work, running: Iterable[ChunkSource]) -> bool:
        """It comes without hashes, and a node has all of it that is near, or better than nothing."""
        if self._seals is None or work.landing.spec.sealed:
            return False
        alone = not any(not isinstance(source, Holder) for source in running)
        return any(
            work.ref.index in holding.shards
            and node not in work.job.liars
            and self._lines.link(node, Purpose.BULK) is not None
            and (alone or self.distance(node) <= NEAR_MS)
            for node, holding in self._registry.remote(work.ref.model, work.layout).items()
        )

    async def _learn_late(self, job: Job, ref: ShardRef, late: _LateSeal, news: asyncio.Event) -> None:
        try:
            late.giver = await self._learn(job, ref, within_s=SEAL_S)
        except OSError as error:
            logger.warning("a seal of shard %d of %s cannot be kept: %s", ref.number, ref.model, error)
        late.again_at = self._world.clock.monotonic() + RELEARN_S
        late.tasks.clear()
        news.set()

    def _holders(
        self, work: Work, asked: Mapping[str, ChunkSource], resting: Mapping[NodeId, _Resting]
    ) -> list[Holder]:
        """Able ones that are not asked yet, the nearest first. One that has got the whole shard meanwhile is told so."""
        ref, job, now = work.ref, work.job, work.now()
        found: list[Holder] = []
        if not work.landing.spec.sealed:  # what they send could not be checked
            return found
        for node, holding in self._registry.remote(ref.model, work.layout).items():
            whole = ref.index in holding.shards
            if not (whole or ref.index in holding.partial) or node in job.liars:
                continue
            known = asked.get(node)
            if known is not None:
                if whole and isinstance(known, Holder):
                    known.whole(work)
                continue
            link = self._lines.link(node, Purpose.BULK)
            if link is None or (node in resting and now < resting[node].until):
                continue
            found.append(
                Holder(node=node, link=link, partial=not whole, distance=self.distance(node), places=self._places)
            )
        return sorted(found, key=lambda holder: (holder.distance, holder.node))

    def _asked_again(
        self, work: Work, running: Collection[ChunkSource], refused: Mapping[str, _Resting]
    ) -> list[ChunkSource]:
        """Sources that are no peers, refused, and may say something else by now."""
        names = {source.name for source in running}
        due = {name for name, rest in refused.items() if name not in names and rest.until <= work.now()}
        if not due or self._others is None:
            return []
        return [source for source in self._others(work.job, work.landing) if source.name in due]

    def _refused(
        self, work: Work, source: ChunkSource, trouble: Trouble, refused: dict[str, _Resting]
    ) -> None:
        work.job.hindrance = f"{source.name}: {trouble.reason}"
        rest = refused.get(source.name)
        if rest is None or work.progress_at > rest.until:  # it has brought something since, or somebody else has
            backoff = Backoff(REFUSED_FIRST_S, 2.0, REFUSED_LIMIT_S, entropy=self._world.entropy)
            rest = refused[source.name] = _Resting(backoff=backoff)
        rest.until = work.now() + rest.backoff.delay()

    def distance(self, node: NodeId) -> float:
        """Milliseconds of round trip; inf: not known."""
        view = self._lines.view(node)
        return float("inf") if view is None or view.rtt_ms is None else view.rtt_ms

    def _joined(self, work: Work, source: ChunkSource) -> None:
        if isinstance(source, Holder):
            self._bus.publish(ShardDownloadStarted(shard=work.ref, source=source.node))
            work.job.say(f"shard {work.ref.number} from {short(source.node)}", index=work.ref.index)
        else:
            work.job.say(f"shard {work.ref.number} from {source.name}", index=work.ref.index)

    async def _taken_back(self, work: Work, trouble: Trouble, giver: NodeId | None) -> bool:
        """The hub contradicts the seal. False: it is this node's own, or none, and stays."""
        try:
            signer = None if self._seals is None else await self._seals.take_back(work.ref)
        except OSError as error:
            logger.warning("the seal of shard %d of %s cannot be taken back: %s", work.ref.number, work.ref.model, error)
            return False
        if signer is None:
            return False
        reason = f"the hub contradicts the hashes that {short(signer)} signed: {trouble.reason}"
        logger.warning("node %s is not asked again for %s: %s", short(signer), work.ref.model, reason)
        work.job.say(f"shard {work.ref.number}: {reason}", index=work.ref.index)
        work.job.liars.add(signer)
        if giver is not None:
            work.job.liars.add(giver)  # be it in good faith: what it has is not the hub's file
        self._bus.publish(ShardRejected(shard=work.ref, source=signer, reason=reason))
        return True

    def _left(
        self, work: Work, source: ChunkSource, trouble: Trouble | None, resting: dict[NodeId, _Resting]
    ) -> str | None:
        """A source has ended. A sentence when the fetch cannot go on."""
        if trouble is None:
            return None
        job, ref = work.job, work.ref
        if not isinstance(source, Holder):
            job.say(f"shard {ref.number} from {source.name}: {trouble.reason}", index=ref.index)
            return f"shard {ref.number} cannot be written: {trouble.reason}" if trouble.ours else None
        node = source.node
        job.say(f"shard {ref.number} from {short(node)}: {trouble.reason}", index=ref.index)
        if trouble.ours:
            return f"shard {ref.number} cannot be written: {trouble.reason}"
        if trouble.lied:
            logger.warning("node %s is not asked again for %s: %s", short(node), ref.model, trouble.reason)
            job.liars.add(node)
            self._bus.publish(ShardRejected(shard=ref, source=node, reason=trouble.reason))
            return None
        if node not in resting:  # bounded by the nodes that told us of the shard
            resting[node] = _Resting(backoff=Backoff(FIRST_S, 2.0, LIMIT_S, entropy=self._world.entropy))
        elif source.brought:
            resting[node].backoff.reset()
        resting[node].until = work.now() + resting[node].backoff.delay()
        return None


def _nothing_comes(work: Work, sources: Collection[ChunkSource], patience_s: float) -> bool:
    """No chunk came within the patience, and none is on its way that may still come. Sources that are no peers have their
    own patience. Peers that take turns at owing a chunk and never bring it have one chunk's time, all together."""
    beyond_s = work.now() - work.progress_at - patience_s
    if beyond_s < 0 or not all(isinstance(source, Holder) for source in sources):
        return False
    return beyond_s >= CHUNK_TIMEOUT_S or not any(work.board.claims(source.name) for source in sources)


async def _heard(news: asyncio.Event, seconds: float) -> None:
    """Until there is news, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        pass
