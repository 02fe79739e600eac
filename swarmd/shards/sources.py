"""What a source of chunks is, and what it works with: the board and the landing of one shard, and places in memory.

Each source runs by itself: it claims what it can bring, brings it, claims again. A shard has as many as there are, of
several kinds; which chunks are whose is the board's business alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from swarmd.domain.ids import NodeId, ShardRef
from swarmd.kit.gauges import Gauges
from swarmd.kit.world import Clock
from swarmd.shards.board import Board
from swarmd.shards.jobs import Job
from swarmd.shards.landing import Landing

PLACES: Final = 5
"""Chunks that are on their way to this node at a time, all shards and sources together: 40 MiB at most, when they all arrive
at the same moment."""
SECONDS: Final = 4
"""With so many on their way a source gets only its first: 32 MiB from one holder fill 1 Gbit/s over 0.25 s of round trip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a source ended before the shard was here."""

    reason: str
    lied: bool = False
    """It sent wrong bytes."""
    ours: bool = False
    """Our own disk failed: another source would not help."""
    contradicts: bool = False
    """It is the origin of the bytes, and they do not have the hashes that the shard is said to have."""
    refused: bool = False
    """It said that this is not for us, or not there. Asked later it may say something else."""
    sealed_by: NodeId | None = None
    """None of that: this node gave a seal of the shard, and the rest can come by its hashes."""


class ChunkSource(Protocol):
    """A peer, the hub, whatever has chunks of one shard. Made for one fetch of one shard."""

    @property
    def name(self) -> str:
        """Distinct within the fetch; for the board and for people."""
        ...

    @property
    def distance(self) -> float:
        """Milliseconds of round trip or the like; inf: not known. The nearest is asked first."""
        ...

    def chunks(self) -> frozenset[int] | None:
        """Those it can give when it starts; None: all. Later changes it tells the board itself."""
        ...

    def beaten(self, number: int) -> None:
        """Another source brought this chunk first: what is on its way here need not come."""
        ...

    async def run(self, work: Work) -> Trouble | None:
        """Claims and brings until nothing is wanted any more (None), or until it cannot go on. Cancelled, it stops at once.

        What it had claimed is free again when it returns or raises.
        """
        ...


class Work:
    """One shard that is being fetched, as its sources see it. Belongs to one `Fetcher.fetch`."""

    def __init__(self, *, job: Job, landing: Landing, layout: str, board: Board, clock: Clock, gauges: Gauges) -> None:
        self.job, self.landing, self.layout, self.board = job, landing, layout, board
        self.progress_at = clock.monotonic()
        """When the latest chunk came."""
        self._clock, self._gauges = clock, gauges
        self._changed: asyncio.Event = asyncio.Event()
        self._sources: dict[str, ChunkSource] = {}
        self._writing: set[int] = set()

    @property
    def ref(self) -> ShardRef:
        return self.landing.ref

    @property
    def wanted(self) -> bool:
        """Chunks are missing."""
        return bool(self.board.missing)

    @property
    def gauge(self) -> str:
        return f"shards.{self.ref.model}.{self.ref.index}.progress"

    def join(self, source: ChunkSource) -> None:
        self._sources[source.name] = source
        self.board.join(source.name, distance=source.distance, chunks=source.chunks())

    def leave(self, source: ChunkSource) -> None:
        """Its claims are free for others."""
        self._sources.pop(source.name, None)
        self.board.leave(source.name)
        self.change()

    def claim(self, source: ChunkSource, count: int, *, consecutive: bool = False) -> tuple[int, ...]:
        """See `Board.claim`."""
        return self.board.claim(source.name, count, now=self._clock.monotonic(), consecutive=consecutive)

    def release(self, source: ChunkSource, number: int) -> None:
        """It will not bring this chunk."""
        self.board.release(source.name, number)
        self.change()

    async def keep(self, source: ChunkSource, number: int, data: memoryview, *, node: NodeId | None) -> None:
        """A chunk has come: checked, written, counted. Raises ChunkMismatch; OSError of the disk.

        Nothing happens to one that came from elsewhere meanwhile.
        """
        with self.writing(number) as free:
            if not free:
                return
            await self.landing.write_chunk(number, data)
        self.arrived(source, number, node=node)

    @contextmanager
    def writing(self, number: int) -> Generator[bool]:
        """For the block, nobody else writes this chunk. False: it is here, or somebody writes it now."""
        if not self.board.wants(number) or number in self._writing:
            yield False
            return
        self._writing.add(number)
        try:
            yield True
        finally:
            self._writing.discard(number)

    def arrived(self, source: ChunkSource, number: int, *, node: NodeId | None = None, hub: bool = False) -> None:
        """For sources that write into the landing themselves: this chunk is on the disk, and verified if it can be.

        The hub's bytes are counted as they come, see `came`.
        """
        if not self.board.wants(number):
            return
        if not hub:
            self.came(self.landing.chunk_size(number), node=node)
        for name in self.board.finish(source.name, number):
            self._sources[name].beaten(number)
        self.change()

    def came(self, size: int, *, node: NodeId | None = None, hub: bool = False) -> None:
        """So many bytes more were written."""
        self.progress_at = self._clock.monotonic()
        self.job.gained(self.ref.index, size, done_bytes=self.landing.done_bytes, at=self.progress_at, source=node, hub=hub)
        self._gauges.set(self.gauge, self.job.progress(self.ref.index))

    def change(self) -> None:
        """Whoever waits in `changed` looks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, seconds: float) -> None:
        """Until something was claimed, freed or finished, at most so long: what is late grows later without an event."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    def now(self) -> float:
        return self._clock.monotonic()


Rank = Callable[[], tuple[float, float]]
"""How many places the asker has for this shard, and the seconds that its chunks take (inf: not known); less is sooner."""


class Places:
    """Room in memory for chunks that are on their way. One of these for all fetches.

    A free place goes to the source with the fewest, then to the shard for which it has the fewest, then to the quickest: so
    every source and every shard has its turn, and slow sources cannot keep a quick one out. The upper half is for sources
    that have none yet.
    """

    def __init__(self, count: int = PLACES, seconds: int = SECONDS) -> None:
        self._count, self._seconds = count, seconds
        self._used: Counter[str] = Counter()
        self._waiting: dict[asyncio.Future[None], tuple[str, Rank]] = {}  # bounded by the sources that run

    async def take(self, source: str, rank: Rank, seconds: float) -> bool:
        """Waits for a place, at most so long. Give it back with `put`. False: there was none."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = (source, rank)
        self._hand_out()
        try:
            if not turn.done():
                await asyncio.wait((turn,), timeout=seconds)
        except asyncio.CancelledError:
            if turn.done():
                self.put(source)
            raise
        finally:
            self._waiting.pop(turn, None)
        return turn.done()

    def put(self, source: str) -> None:
        """A place of this source is free."""
        self._used[source] -= 1
        if not self._used[source]:
            del self._used[source]
        self._hand_out()

    def pressing(self) -> float | None:
        """Seconds that the chunks of the quickest take who waits; inf: nobody knows; None: nobody waits."""
        return min((rank()[1] for _, rank in self._waiting.values()), default=None)

    def _order(self, turn: asyncio.Future[None]) -> tuple[float, float, float]:
        source, rank = self._waiting[turn]
        return (self._used[source], *rank())

    def _hand_out(self) -> None:
        while self._waiting:
            best = min(self._waiting, key=self._order)
            source, _ = self._waiting[best]
            if self._used.total() >= (self._seconds if self._used[source] else self._count):
                return
            del self._waiting[best]
            self._used[source] += 1
            best.set_result(None)
