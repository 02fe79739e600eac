"""Many connections for one piece of work: who fetches what, how many at once, and what happens when one fails.

The work is an address space of blocks (`Work`). A connection claims a span of missing blocks, asks for its range and hands
over block after block; whatever goes wrong, the rest of the span goes back and another connection claims it. Spans are long
at the beginning, so that a request costs nothing, and short at the end, so that all finish together. The number of
connections grows as long as that makes the whole faster, and halves when the server says that it is asked too much.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

from swarmd.downloads.ranges import RangeClient, RangesIgnored, RemoteFile, SourceTrouble
from swarmd.kit.flow import Backoff, TokenBucket
from swarmd.kit.world import World

FIRST_CONNECTIONS: Final = 4  # one request each, and no waiting for the first look at the rate
TICK_S: Final = 0.5  # of looking at the rate: some round trips to anywhere
GROWTH: Final = 1.1  # two more connections have to bring 10 %, else they only cost the server
SETTLED_TICKS: Final = 30  # until it is tried again whether more would help: the line may have become free
SPAN_BYTES: Final = 64 << 20  # at most in one request: 5 s of a gigabit; a cut costs no more than the block in hand
GAP_BYTES: Final = 64 << 10  # between two stretches of one request; padding has 31 at most, and a request costs more
LAGGARD: Final = 0.1  # of the mean of the others: such a connection is on a bad path and is opened anew
LAGGARD_TICKS: Final = 20
PATIENCE_S: Final = 120.0  # without a byte from anybody
MISMATCHES: Final = 3  # wrong bytes of one chunk: the third time the source itself is wrong


class SourceFailed(Exception):
    """The source did not deliver within the engine's patience. One sentence for people."""


class WrongBytes(Exception):
    """For `Work.write`: these bytes are not what was promised, and are not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Blocks [first, first + count)."""

    first: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Bytes [offset, offset + size) of a remote file."""

    file: RemoteFile
    offset: int
    size: int


class Work(Protocol):
    """What is to be fetched: a file, or the part of a shard that nobody else has claimed."""

    @property
    def block_bytes(self) -> int: ...
    def block_size(self, number: int) -> int: ...
    def left(self) -> int:
        """Blocks that nobody has claimed."""
        ...

    def claim(self, count: int) -> Span | None:
        """Up to `count` consecutive missing blocks, or the least that can be claimed; None: nothing is left."""
        ...

    def release(self, span: Span) -> None:
        """The claim is over; what is still missing of it can be claimed again."""
        ...

    def missing(self, span: Span) -> Sequence[int]:
        """Blocks of a claimed span that have to be fetched, ascending."""
        ...

    def pieces(self, offset: int, size: int) -> Sequence[Piece]:
        """Where these bytes of the address space lie, in order."""
        ...

    async def write(self, number: int, parts: Sequence[bytes | memoryview]) -> None:
        """One whole block. Raises WrongBytes; OSError of the disk."""
        ...


@dataclass(slots=True, eq=False)
class _Lane:
    """One connection."""

    received: int = 0
    last: int = 0
    """`received` at the last look."""
    slow_ticks: int = 0
    reading: asyncio.Timeout | None = None


@dataclass(slots=True)
class Pace:
    """How many connections are wanted. Pure: told the rate at every tick, it says the number."""

    limit: int
    wanted: int = FIRST_CONNECTIONS
    best: float = 0.0
    """The highest rate before the last step up."""
    settled: int = 0
    """Ticks for which it stays as it is."""

    def __post_init__(self) -> None:
        self.wanted = min(self.wanted, self.limit)

    def tick(self, rate: float) -> int:
        if self.settled:
            self.settled -= 1
            if not self.settled:
                self.best = 0.0
        elif rate > self.best * GROWTH and self.wanted < self.limit:
            self.best = rate
            self.wanted = min(self.limit, self.wanted + 2)
        else:
            self.settled = SETTLED_TICKS
        return self.wanted

    def slower(self) -> None:
        """The server is asked too much."""
        self.wanted = max(1, self.wanted // 2)
        self.settled = SETTLED_TICKS


class Engine:
    """Shared by all work of the node; keeps to one limit of bytes a second together."""

    def __init__(
        self, *, client: RangeClient, world: World, connections: Callable[[], int], bytes_per_s: Callable[[], float | None]
    ) -> None:
        """`connections`: at most so many for one piece of work. `bytes_per_s`: of all together; None: no limit."""
        self._client, self._world = client, world
        self._connections, self._bytes_per_s = connections, bytes_per_s
        self._bucket: TokenBucket | None = None
        self._rate: float | None = None

    async def run(
        self,
        work: Work,
        *,
        received: Callable[[int], None] = lambda _: None,
        limit: TokenBucket | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Until nothing of the work is left to claim and everything claimed is written.

        `received` is told every number of bytes that came, also of those that come again. `limit`: of this work alone.
        Raises SourceFailed, SourceRefused; OSError of the disk.
        """
        crew = _Crew(self, self._client, self._world, work, received, limit, patience_s, Pace(self._connections()))
        try:
            await crew.run()
        except BaseExceptionGroup as group:
            raise gravest(group) from group

    async def pace(self, size: int) -> None:
        """Wait until the node's own limit allows `size` more bytes."""
        rate = self._bytes_per_s()
        if rate is None:
            return
        if self._bucket is None:
            self._bucket = TokenBucket(rate, rate, clock=self._world.clock)
        elif rate != self._rate:
            self._bucket.set_rate(rate, rate)
        self._rate = rate
        await self._bucket.take(size)


class _Crew:
    """The connections of one piece of work."""

    def __init__(
        self,
        engine: Engine,
        client: RangeClient,
        world: World,
        work: Work,
        received: Callable[[int], None],
        limit: TokenBucket | None,
        patience_s: float,
        pace: Pace,
    ) -> None:
        self._engine, self._client, self._world, self._work = engine, client, world, work
        self._received, self._limit, self._patience_s, self._pace = received, limit, patience_s, pace
        self._lanes: set[_Lane] = set()
        self._claims = 0
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._progress_at = world.clock.monotonic()
        self._quiet_until = 0.0
        self._mismatches: dict[int, int] = {}
        self._ignored = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._pace.wanted):
                group.create_task(self._lane())
            group.create_task(self._watch(group))

    async def _watch(self, group: asyncio.TaskGroup) -> None:
        """Looks at the rate, opens more connections, breaks those that lag behind."""
        while not self._over.is_set():
            try:
                async with asyncio.timeout(TICK_S):
                    await self._over.wait()
            except TimeoutError:
                lanes = [lane for lane in self._lanes if lane.reading is not None]
                gains = {lane: lane.received - lane.last for lane in lanes}
                wanted = self._pace.tick(sum(gains.values()) / TICK_S)
                for lane, gain in gains.items():
                    self._judge(lane, gain, (sum(gains.values()) - gain) / max(1, len(gains) - 1))
                    lane.last = lane.received
                for _ in range(min(wanted - len(self._lanes), self._work.left())):
                    group.create_task(self._lane())

    def _judge(self, lane: _Lane, gain: int, others: float) -> None:
        lane.slow_ticks = lane.slow_ticks + 1 if gain < others * LAGGARD else 0
        if lane.slow_ticks >= LAGGARD_TICKS and lane.reading is not None:
            lane.slow_ticks = 0
            lane.reading.reschedule(asyncio.get_running_loop().time())  # as if nothing had come: its span goes back

    async def _lane(self) -> None:
        lane = _Lane()
        self._lanes.add(lane)
        backoff = Backoff(0.25, 2.0, 15.0, entropy=self._world.entropy)
        try:
            while len(self._lanes) <= self._pace.wanted and not self._over.is_set():
                await self._quiet()
                span = self._work.claim(self._span_blocks())
                if span is None:
                    if not self._claims:
                        break
                    self._news.clear()
                    await self._news.wait()  # somebody may give something back
                    continue
                self._claims += 1
                try:
                    await self._fetch(lane, span)
                    backoff.reset()
                    continue
                except (SourceTrouble, WrongBytes) as error:
                    self._take_in(error, span)
                finally:
                    self._claims -= 1
                    self._work.release(span)
                    self._news.set()
                await asyncio.sleep(backoff.delay())
        finally:
            self._lanes.discard(lane)
            if not self._claims and not self._work.left():
                self._over.set()
            self._news.set()

    async def _quiet(self) -> None:
        wait = self._quiet_until - self._world.clock.monotonic()
        if wait > 0:
            await asyncio.sleep(wait + self._world.entropy.uniform(0.0, 0.5))  # not all at the same moment

    def _take_in(self, error: SourceTrouble | WrongBytes, span: Span) -> None:
        """Raises SourceFailed when there is no use in going on."""
        now = self._world.clock.monotonic()
        if isinstance(error, WrongBytes):
            self._mismatches[span.first] = self._mismatches.get(span.first, 0) + 1
            if self._mismatches[span.first] >= MISMATCHES:
                raise SourceFailed(f"the source sent wrong bytes {MISMATCHES} times: {error}") from error
            return
        if isinstance(error, RangesIgnored):
            self._ignored += 1
            if self._ignored >= MISMATCHES * self._pace.limit:
                raise SourceFailed(f"{error}, again and again: it cannot be fetched in parts from there") from error
        if error.retry_after_s is not None:
            self._quiet_until = max(self._quiet_until, now + error.retry_after_s)
            self._pace.slower()
        if max(now, self._quiet_until) - max(self._progress_at, self._quiet_until) >= self._patience_s:
            raise SourceFailed(f"nothing came for {self._patience_s:.0f} s: {error}") from error

    def _span_blocks(self) -> int:
        share = self._work.left() // (2 * max(1, self._pace.wanted))
        return max(1, min(share, SPAN_BYTES // self._work.block_bytes))

    async def _fetch(self, lane: _Lane, span: Span) -> None:
        """Raises SourceTrouble, WrongBytes, SourceRefused, OSError."""
        work = self._work
        numbers = work.missing(span)
        builder = _Builder(work, deque(numbers))
        wanted = (
            piece
            for first, last in runs_of(numbers)
            for piece in work.pieces(
                first * work.block_bytes, (last - first) * work.block_bytes + work.block_size(last)
            )
        )
        for request in requests_of(wanted):
            file, first, end = request[0].file, request[0].offset, request[-1].offset + request[-1].size
            try:
                async with asyncio.timeout(None) as reading, self._client.open(file, first, end) as body:
                    lane.reading = reading
                    position = first
                    async for data in body:
                        self._progress_at = self._world.clock.monotonic()
                        lane.received += len(data)
                        self._received(len(data))
                        for part in cut_out(request, position, memoryview(data)):
                            await builder.add(part)
                        position += len(data)
                        await self._engine.pace(len(data))
                        if self._limit is not None:
                            await self._limit.take(len(data))
            except TimeoutError:
                raise SourceTrouble("the connection lagged far behind the others") from None
            finally:
                lane.reading = None


@dataclass(slots=True)
class _Builder:
    """Puts what comes together to whole blocks and hands them over."""

    work: Work
    numbers: deque[int]
    parts: list[memoryview] = field(default_factory=list[memoryview])
    have: int = 0

    async def add(self, view: memoryview) -> None:
        while view:
            want = self.work.block_size(self.numbers[0]) - self.have
            part, view = view[:want], view[want:]
            self.parts.append(part)
            self.have += len(part)
            if len(part) == want:
                parts, self.parts, self.have = self.parts, [], 0
                await self.work.write(self.numbers.popleft(), parts)


def runs_of(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of each run of consecutive numbers."""
    first = last = -2
    for number in numbers:
        if number != last + 1:
            if first >= 0:
                yield first, last
            first = number
        last = number
    if first >= 0:
        yield first, last


def requests_of(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """The pieces that one request can bring: of one file, in order, with small gaps."""
    group: list[Piece] = []
    for piece in pieces:
        if group:
            before = group[-1]
            gap = piece.offset - before.offset - before.size
            if piece.file != before.file or not 0 <= gap <= GAP_BYTES:
                yield group
                group = []
        group.append(piece)
    if group:
        yield group


def cut_out(pieces: Sequence[Piece], position: int, data: memoryview) -> Iterator[memoryview]:
    """The bytes of the pieces, out of `data` that lies at `position` of their file."""
    end = position + len(data)
    for piece in pieces:
        first, last = max(position, piece.offset), min(end, piece.offset + piece.size)
        if first < last:
            yield data[first - position : last - position]


def gravest(error: BaseException) -> BaseException:
    """Of what tasks side by side raised: a refusal or a failure of our own disk counts for more than lost patience."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    return min((gravest(one) for one in group.exceptions), key=lambda one: isinstance(one, SourceFailed))
