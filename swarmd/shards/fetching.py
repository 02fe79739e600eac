"""One shard from the peers that hold it: several chunks in flight, each checked before it is kept.

A holder that is lost is followed by the next one, and what arrived is kept. A holder that sends wrong bytes is not asked
again in the same job. The order in which holders are tried: nearest first, turned by the shard's place in the job, so that
several shards come from several holders.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from swarmd.domain.events import ShardDownloadStarted, ShardRejected
from swarmd.domain.ids import NodeId, ShardRef, short
from swarmd.domain.peers import PeerView, Purpose
from swarmd.domain.shards import TransferState
from swarmd.kit.bus import EventBus
from swarmd.kit.flow import Backoff
from swarmd.kit.gauges import Gauges
from swarmd.kit.world import World
from swarmd.shards.jobs import Job
from swarmd.shards.registry import Registry
from swarmd.shards.storage import ChunkMismatch, Landing, ShardStorage
from swarmd.transport.rpc import Link, LinkLost, StreamReset
from swarmd.wire.events import TooManyStreams
from swarmd.wire.exchange import AskChunk, ShardChunk
from swarmd.wire.messages import Refused

CHUNKS_IN_FLIGHT: Final = 4  # 32 MiB: fills 100 Mbit/s over 2 s of round trip, and half of a link's window
CHUNK_TIMEOUT_S: Final = 300.0  # four chunks over an uplink of 1 Mbit/s take 270 s; a dead link is noticed in 10 s
PATIENCE_S: Final = 60.0  # a node that is restarted with its machine is back by then
FIRST_S: Final = 0.2
LIMIT_S: Final = 5.0  # news of a holder end the pause at once; this is for holders that refused or failed

logger = logging.getLogger(__name__)


class Lines(Protocol):
    """What is needed of `peers.links.Links`."""

    def link(self, node: NodeId, purpose: Purpose = Purpose.CONTROL) -> Link | None: ...
    def view(self, node: NodeId) -> PeerView | None: ...
    def connected(self) -> tuple[NodeId, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trouble:
    reason: str
    lied: bool = False
    """The holder sent wrong bytes."""
    ours: bool = False
    """Our own disk failed: another holder would not help."""


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
    ) -> None:
        self._storage, self._registry, self._lines = storage, registry, lines
        self._bus, self._gauges, self._world = bus, gauges, world
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Something changed among the peers: whoever waits for a holder looks again."""
        self._news.set()

    async def pause(self, seconds: float) -> None:
        """Until there is news, at most so long."""
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass

    async def fetch(self, job: Job, ref: ShardRef, layout: str, *, turn: int, patience_s: float = PATIENCE_S) -> str | None:
        """Bring one shard here. None: it is held now; else why not. What has arrived stays for the next try."""
        gauge = f"shards.{ref.model}.{ref.index}.progress"
        try:
            landing = await self._storage.open_landing(ref)
            problem = await self._land(job, landing, layout, gauge, turn=turn, patience_s=patience_s)
            if problem is None:
                job.mark(ref.index, TransferState.VERIFYING)
                await landing.commit()
        except ChunkMismatch as error:
            # Each chunk had the hash of the manifest, the whole has not: the manifest contradicts itself.
            self._bus.publish(ShardRejected(shard=ref, source=None, reason=str(error)))
            problem = str(error)
        except OSError as error:
            problem = f"shard {ref.index} cannot be written: {error}"
        finally:
            self._gauges.remove(gauge)
        if problem is not None:
            job.mark(ref.index, TransferState.FAILED)
            job.say(problem)
            return problem
        job.mark(ref.index, TransferState.COMPLETE)
        job.say(f"shard {ref.index} is here")
        self._registry.hold(ref, source=job.source(ref.index))
        return None

    async def _land(
        self, job: Job, landing: Landing, layout: str, gauge: str, *, turn: int, patience_s: float
    ) -> str | None:
        """Until no chunk is missing. A sentence when there was no progress for `patience_s`, or the disk failed."""
        ref, clock = landing.ref, self._world.clock
        backoff = Backoff(FIRST_S, 2.0, LIMIT_S, entropy=self._world.entropy)
        tried: set[NodeId] = set()
        progress_at = clock.monotonic()
        while missing := landing.missing():
            found = self._choose(job, ref, layout, turn=turn, tried=tried)
            if found is None:
                if clock.monotonic() - progress_at >= patience_s:
                    liars = f", {len(job.liars)} that sent wrong bytes left out" if job.liars else ""
                    return f"shard {ref.index}: no node that holds it could be reached for {patience_s:.0f} s{liars}"
                tried.clear()
                await self.pause(backoff.delay())
                continue
            node, link = found
            job.begin(ref.index, done_bytes=landing.done_bytes, source=node)
            job.say(f"shard {ref.index} from {short(node)}: {len(missing)} chunks")
            self._bus.publish(ShardDownloadStarted(shard=ref, source=node))
            trouble = await self._pull(job, landing, layout, link, gauge)
            if len(landing.missing()) < len(missing):
                progress_at = clock.monotonic()
                backoff.reset()
            if trouble is None:
                continue
            job.say(f"shard {ref.index} from {short(node)}: {trouble.reason}")
            if trouble.ours:
                return f"shard {ref.index} cannot be written: {trouble.reason}"
            tried.add(node)
            if trouble.lied:
                logger.warning("node %s is not asked again for %s: %s", short(node), ref.model, trouble.reason)
                job.liars.add(node)
                self._bus.publish(ShardRejected(shard=ref, source=node, reason=trouble.reason))
        return None

    def _choose(
        self, job: Job, ref: ShardRef, layout: str, *, turn: int, tried: set[NodeId]
    ) -> tuple[NodeId, Link] | None:
        able = [
            (self._distance(node), node, link)
            for node, holding in self._registry.remote(ref.model, layout).items()
            if ref.index in holding.shards
            and node not in job.liars
            and node not in tried
            and (link := self._lines.link(node, Purpose.BULK)) is not None
        ]
        if not able:
            return None
        able.sort(key=lambda one: one[:2])
        _, node, link = able[turn % len(able)]
        return node, link

    def _distance(self, node: NodeId) -> float:
        view = self._lines.view(node)
        return float("inf") if view is None or view.rtt_ms is None else view.rtt_ms

    async def _pull(self, job: Job, landing: Landing, layout: str, link: Link, gauge: str) -> _Trouble | None:
        """Everything that is missing, from one holder. The first trouble ends all lanes after what they have in hand."""
        troubles: list[_Trouble] = []
        numbers = iter(landing.missing())
        async with asyncio.TaskGroup() as group:
            for _ in range(CHUNKS_IN_FLIGHT):
                group.create_task(self._lane(job, landing, layout, link, gauge, numbers, troubles))
        # A lie counts for more than the lost link that often follows it.
        return max(troubles, key=lambda trouble: (trouble.ours, trouble.lied), default=None)

    async def _lane(
        self,
        job: Job,
        landing: Landing,
        layout: str,
        link: Link,
        gauge: str,
        numbers: Iterator[int],
        troubles: list[_Trouble],
    ) -> None:
        for number in numbers:
            trouble = await self._chunk(landing, layout, link, number)
            if trouble is not None:
                troubles.append(trouble)
            else:
                job.gained(landing.ref.index, landing.chunk_size(number), at=self._world.clock.monotonic())
                self._gauges.set(gauge, job.progress(landing.ref.index))
            if troubles:
                return

    async def _chunk(self, landing: Landing, layout: str, link: Link, number: int) -> _Trouble | None:
        ref = landing.ref
        ask = AskChunk(model=ref.model, layout=layout, shard=ref.index, chunk=number)
        try:
            reply = await link.call(ask, ShardChunk, timeout_s=CHUNK_TIMEOUT_S)
        except (LinkLost, StreamReset, TooManyStreams, TimeoutError) as error:
            return _Trouble(reason=str(error) or f"no answer within {CHUNK_TIMEOUT_S:.0f} s")
        if isinstance(reply, Refused):
            return _Trouble(reason=reply.sentence[:200])
        try:
            await landing.write_chunk(number, reply.payload)
        except ChunkMismatch as error:
            return _Trouble(reason=str(error), lied=True)
        except OSError as error:
            return _Trouble(reason=str(error), ours=True)
        return None
