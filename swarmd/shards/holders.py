"""A peer that holds a shard, or a part of it, as a source of its chunks.

So many calls at a time as its speed asks for: one that needs longer than a second for a chunk has one, a quick one up to
CALLS. One that is lost, refuses or breaks off ends; what it had claimed others bring. A partial holder says which chunks it
has in a map of bits, asked for again every MAP_S, and at once when it has nothing more to give.
"""

from __future__ import annotations

import asyncio
from typing import Final

from swarmd.domain.ids import NodeId
from swarmd.shards.landing import ChunkMismatch
from swarmd.shards.sources import Places, Trouble, Work
from swarmd.transport.rpc import Link, LinkLost, Reply, StreamReset
from swarmd.wire.events import TooManyStreams
from swarmd.wire.exchange import AskChunk, AskChunkMap, ChunkMap, ShardChunk, unpack_chunks
from swarmd.wire.messages import Refused

CALLS: Final = 4  # at one holder for one shard: 32 MiB, half of a link's window
FIRST_CALLS: Final = 2  # until its speed is known: the second keeps the line busy while the first is checked and written
CHUNK_TIMEOUT_S: Final = 300.0  # four chunks over an uplink of 1 Mbit/s take 270 s; a dead link is noticed in 10 s
MAP_S: Final = 3.0  # between two maps of one holder: a chunk it has got meanwhile is a chunk we may get elsewhere
MAP_DRY_S: Final = 0.5  # when it has nothing for us: a chunk of 8 MiB takes so long over 134 Mbit/s
MAP_TIMEOUT_S: Final = 30.0
LOOK_S: Final = 1.0  # what is late grows later without an event
STALLED: Final = 4.0  # times as long as somebody who waits for the place would need
STALLED_S: Final = 30.0  # and never sooner
SMOOTHING: Final = 0.5  # of measured times: half of it is the latest chunk

assert FIRST_CALLS <= CALLS


class Holder:
    """Of one shard, for one fetch."""

    def __init__(self, *, node: NodeId, link: Link, partial: bool, distance: float, places: Places) -> None:
        """`partial`: it has some of the chunks, and nobody knows yet which."""
        self.node, self._link, self._places, self._distance = node, link, places, distance
        self._partial = partial
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._arrived: set[int] = set()  # of the calls: here, and being checked and written
        self._seconds: float | None = None
        self._trouble: Trouble | None = None
        self._asked_at: float | None = None
        self.brought = False
        """A chunk of it was kept."""

    @property
    def name(self) -> str:
        return self.node

    @property
    def distance(self) -> float:
        return self._distance

    def chunks(self) -> frozenset[int] | None:
        return frozenset[int]() if self._partial else None

    def whole(self, work: Work) -> None:
        """It has got all of them meanwhile."""
        if self._partial:
            self._partial = False
            work.board.join(self.name, distance=self.distance)
            work.change()

    def beaten(self, number: int) -> None:
        self._give_up(number)

    async def run(self, work: Work) -> Trouble | None:
        async with asyncio.TaskGroup() as group:
            while work.wanted and self._trouble is None:
                if self.node in work.job.liars:  # found out with another shard
                    self._fail(Trouble(reason="it sent wrong bytes of another shard"))
                    break
                await self._look(work)
                room = self._trouble is None and len(self._calls) < self._window()
                if room and await self._places.take(self.name, self._rank, LOOK_S):
                    if self._start(work, group):
                        continue
                    self._places.put(self.name)
                self._drop_stalled(work)
                if work.wanted and self._trouble is None:
                    dry = self._partial and not self._calls
                    await work.changed(MAP_DRY_S if dry else LOOK_S)
            for number in self._calls:
                self._give_up(number)
        return self._trouble

    def _give_up(self, number: int) -> None:
        """Unless it is being written: the chunk is here then."""
        call = self._calls.get(number)
        if call is not None and number not in self._arrived:
            call.cancel()

    def _rank(self) -> tuple[float, float]:
        return float(len(self._calls)), float("inf") if self._seconds is None else self._seconds

    def _window(self) -> int:
        """Calls at a time: those that it answers within a second, and one to follow."""
        if self._seconds is None:
            return FIRST_CALLS
        one_s = self._seconds / max(1, len(self._calls))  # calls at a time share the line
        return max(1, min(CALLS, 1 + int(1.0 / max(one_s, 1e-3))))

    def _start(self, work: Work, group: asyncio.TaskGroup) -> bool:
        """With a place in hand: claims a chunk and asks for it. False: there is none for this holder now."""
        if self._trouble is not None:
            return False
        numbers = work.claim(self, 1)
        if not numbers:
            return False
        (number,) = numbers
        call = self._calls[number] = group.create_task(self._bring(work, number), name=f"chunk {number}")
        call.add_done_callback(lambda _: self._ended(work, number))  # also when it is cancelled before it begins
        return True

    def _ended(self, work: Work, number: int) -> None:
        del self._calls[number]
        self._arrived.discard(number)
        self._places.put(self.name)
        work.release(self, number)

    async def _bring(self, work: Work, number: int) -> None:
        ref, since = work.ref, work.now()
        ask = AskChunk(model=ref.model, layout=work.layout, shard=ref.index, chunk=number)
        try:
            reply = await self._link.call(ask, ShardChunk, timeout_s=CHUNK_TIMEOUT_S)
        except (LinkLost, StreamReset, TooManyStreams, TimeoutError) as error:
            self._fail(Trouble(reason=str(error) or f"no answer within {CHUNK_TIMEOUT_S:.0f} s"))
            return
        if isinstance(reply, Refused):
            self._fail(Trouble(reason=reply.sentence[:200]))
            return
        self._measure(work, work.now() - since)
        self._arrived.add(number)
        try:
            await work.keep(self, number, reply.payload, node=self.node)
        except ChunkMismatch as error:
            self._fail(Trouble(reason=str(error), lied=True))
        except OSError as error:
            self._fail(Trouble(reason=str(error), ours=True))
        else:
            self.brought = True

    def _measure(self, work: Work, took: float) -> None:
        known = self._seconds
        self._seconds = took if known is None else SMOOTHING * took + (1 - SMOOTHING) * known
        work.board.measured(self.name, self._seconds)

    def _fail(self, trouble: Trouble) -> None:
        """A lie counts for more than the lost link that often follows it, and our own disk for more than both."""
        old = self._trouble
        if old is None or (trouble.ours, trouble.lied) > (old.ours, old.lied):
            self._trouble = trouble

    def _drop_stalled(self, work: Work) -> None:
        """A call that has taken very long gives its place to a source that is known to be quicker."""
        pressing = self._places.pressing()
        if pressing is None or pressing == float("inf"):
            return
        for number, age in work.board.ages(self.name, now=work.now()):
            if age > max(STALLED_S, STALLED * pressing) and work.board.elsewhere(self.name, number):
                self._seconds = max(age, self._seconds or 0.0)
                work.board.measured(self.name, self._seconds)
                self._give_up(number)

    async def _look(self, work: Work) -> None:
        """Which chunks a partial holder has now, when it is time to ask."""
        if not self._partial:
            return
        now = work.now()
        dry = not self._calls
        if self._asked_at is not None and now - self._asked_at < (MAP_DRY_S if dry else MAP_S):
            return
        self._asked_at = now
        ref = work.ref
        ask = AskChunkMap(model=ref.model, layout=work.layout, shard=ref.index)
        try:
            reply = await self._link.call(ask, ChunkMap, timeout_s=MAP_TIMEOUT_S)
        except (LinkLost, StreamReset, TooManyStreams, TimeoutError) as error:
            self._fail(Trouble(reason=str(error) or f"no answer within {MAP_TIMEOUT_S:.0f} s"))
            return
        if not self._partial:  # `whole` came over a quicker link: the map is of before
            return
        if not isinstance(reply, Reply):
            self._fail(Trouble(reason=reply.sentence[:200]))
            return
        count = work.landing.spec.chunk_count
        try:
            having = unpack_chunks(reply.payload, count)
        except ValueError as error:
            self._fail(Trouble(reason=f"its map of chunks is none: {error}"))
            return
        work.board.join(self.name, distance=self.distance, chunks=having)
        work.change()
