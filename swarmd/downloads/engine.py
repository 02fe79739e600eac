"""Many connections for one piece of work: who fetches what, how many at once, and what happens when one fails.

The work is an address space of blocks (`Work`). A connection claims a span of missing blocks, asks for its range and hands
over block after block; whatever goes wrong, the rest of the span goes back and another connection claims it. Spans are long
at the beginning, so that a request costs nothing, and short at the end, so that all finish together; what a slow connection
still has in hand by then is shared with an idle one. The number of connections grows as long as that makes the whole faster,
and halves when the server says that it is asked too much.

A connection is never broken off while it writes a block: what is half written belongs to nobody. Only whoever called `run`
may cancel that, and the work waits for its threads then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar, cast

from swarmd.downloads.ranges import Body, RangeClient, RangesIgnored, RemoteFile, SourceRefused, SourceTrouble
from swarmd.kit.flow import Backoff, TokenBucket
from swarmd.kit.world import World

FIRST_CONNECTIONS: Final = 4  # one request each, and no waiting for the first look at the rate
TICK_S: Final = 0.5  # of looking at the rate: some round trips to anywhere
GROWTH: Final = 1.1  # two more connections have to bring 10 %, else they only cost the server
LOOK_BYTES: Final = 8 << 20  # before a rate is believed: bytes come in lumps of up to 256 KiB
LOOK_TICKS: Final = 10  # or so long: a slow line is judged too
SETTLED_TICKS: Final = 30  # until it is tried again whether more would help: the line may have become free
SPAN_BYTES: Final = 64 << 20  # at most in one request: 5 s of a gigabit; a cut costs no more than the block in hand
GAP_BYTES: Final = 64 << 10  # between two stretches of one request; padding has 31 at most, and a request costs more
LAGGARD: Final = 0.1  # of the mean of the others: such a connection is on a bad path and is opened anew
LAGGARD_TICKS: Final = 20
STEAL_S: Final = 2.0  # what a connection has left for longer than that, an idle one shares; a new request costs some 0.1 s
PATIENCE_S: Final = 120.0  # without progress of anybody
TRIES: Final = 4  # at least, before patience ends: a machine that slept has waited without trying
WASTE_BYTES: Final = 64 << 20  # that came since the last whole block; beyond, bytes alone are no progress any more
ASKED_LIMIT_S: Final = 3600.0  # of waiting in a row because the server asks for it; a limit of the hub is over within 300 s
MISMATCHES: Final = 3  # wrong bytes of one chunk: the third time the source itself is wrong
IGNORED: Final = 6  # whole files in a row instead of parts: not the slip of one of its machines

T = TypeVar("T")


class SourceFailed(Exception):
    """The source did not deliver within the engine's patience. One sentence for people."""


class NoRanges(SourceFailed):
    """The source sends whole files only."""


class WrongBytes(Exception):
    """For `Work.write`: these bytes are not what was promised, and are not kept."""

    def __init__(self, block: int, what: str) -> None:
        """`block`: the first of those that have to come again."""
        super().__init__(what)
        self.block = block


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
    @property
    def grain(self) -> int:
        """Blocks that are claimed together: spans begin and end at multiples of it."""
        ...

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
    rate: float = 0.0
    """Bytes a second, smoothed."""
    slow_ticks: int = 0
    span: Span | None = None
    """What it has claimed."""
    numbers: deque[int] = field(default_factory=deque[int])
    """Blocks of it that are not written yet."""
    waiting: asyncio.Timeout | None = None
    """It waits for the server to answer, or for its share of the limit: this can end at once."""
    body: Body | None = None
    writing: bool = False
    broken: str = ""
    """Why it was told to stop what it does."""

    def break_off(self, why: str) -> None:
        """Its request fails with this reason, as soon as no block is being written."""
        self.broken = why
        if self.waiting is not None:
            if not self.waiting.expired():  # told a second time, before it has had its turn
                self.waiting.reschedule(asyncio.get_running_loop().time())
        elif self.body is not None:
            self.body.abort()


@dataclass(slots=True)
class Pace:
    """How many connections are wanted. Pure: told the rate at every tick, it says the number."""

    limit: int
    wanted: int = FIRST_CONNECTIONS
    best: float = 0.0
    """The rate before the last step up."""
    before: int = 0
    """Connections before a step up that has not shown yet what it brings; 0: there is none."""
    settled: int = 0
    """Ticks for which it stays as it is."""
    looked: int = 0
    """Ticks since the last step, and the bytes that came in them."""
    came: float = 0.0

    def __post_init__(self) -> None:
        self.wanted = max(1, min(self.wanted, self.limit))

    def tick(self, rate: float) -> int:
        if self.settled:
            self.settled -= 1
            return self.wanted
        self.looked, self.came = self.looked + 1, self.came + rate * TICK_S
        if self.came < LOOK_BYTES and self.looked < LOOK_TICKS:
            return self.wanted
        rate = self.came / (self.looked * TICK_S)
        self.looked, self.came = 0, 0.0
        if rate <= 0.0:
            pass  # nothing is known yet
        elif self.before and rate <= self.best * GROWTH:
            self.wanted, self.before = self.before, 0
            self.settled = SETTLED_TICKS
        elif self.wanted < self.limit:
            self.best, self.before = rate, self.wanted
            self.wanted = min(self.limit, self.wanted + 2)
        else:
            self.before = 0
            self.settled = SETTLED_TICKS
        return self.wanted

    def slower(self) -> None:
        """The server is asked too much."""
        self.wanted, self.before = max(1, self.wanted // 2), 0
        self.looked, self.came = 0, 0.0
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
        Raises SourceFailed (NoRanges), SourceRefused; OSError of the disk. Whichever it is, a block that was being written
        is written to its end.
        """
        crew = _Crew(self, self._client, self._world, work, received, limit, patience_s, Pace(self._connections()))
        try:
            await crew.run()
        except BaseExceptionGroup as group:
            raise gravest(group) from group

    @property
    def limited(self) -> bool:
        return self._bytes_per_s() is not None

    def backoff(self) -> Backoff:
        """Between tries at a server, of this engine and of whoever asks the same server for something else."""
        return Backoff(0.25, 2.0, 15.0, entropy=self._world.entropy)

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
        self._failure: BaseException | None = None
        self._typical = 0.0
        """Bytes a second of one of several connections, over the last 5 s or so."""
        self._quiet_until = 0.0
        self._mismatches: dict[int, int] = {}
        self._ignored = 0
        self._progress_at = world.clock.monotonic()
        self._tries = 0
        self._unkept = 0
        self._asked_s = 0.0
        """Of waiting because the server asked for it. This and the three above begin anew with each progress."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._pace.wanted):
                group.create_task(self._lane())
            group.create_task(self._watch(group))
        if self._failure is not None:
            raise self._failure

    async def _watch(self, group: asyncio.TaskGroup) -> None:
        """Looks at the rate, opens more connections, breaks those that lag behind."""
        while not self._over.is_set():
            await self._pause(max(TICK_S, self._quiet_until - self._world.clock.monotonic()))
            lanes = [lane for lane in self._lanes if lane.span is not None]
            gains = {lane: lane.received - lane.last for lane in lanes}
            total = sum(gains.values())
            wanted = self._pace.tick(total / TICK_S)
            for lane, gain in gains.items():
                lane.last = lane.received
                lane.rate += 0.3 * (gain / TICK_S - lane.rate)  # bytes come in lumps
            together = sum(lane.rate for lane in lanes)
            if len(lanes) > 1:
                self._typical += 0.1 * (together / len(lanes) - self._typical)
            for lane in lanes:
                self._judge(lane, max((together - lane.rate) / max(1, len(lanes) - 1), self._typical))
            if not self._over.is_set():
                for _ in range(min(wanted - len(self._lanes), self._work.left())):
                    group.create_task(self._lane())
            self._tell()  # an idle one may share what has turned out to be slow

    def _judge(self, lane: _Lane, others: float) -> None:
        """One that waits for us, for the disk or for its share of the limit, is not to blame."""
        idle = lane.body is None or lane.waiting is not None or lane.writing
        lane.slow_ticks = lane.slow_ticks + 1 if lane.rate < others * LAGGARD and not idle else 0
        if lane.slow_ticks >= LAGGARD_TICKS:
            lane.slow_ticks = 0
            self._typical /= 2  # it may be the whole line that has become slow
            lane.break_off("the connection lagged far behind the others")

    async def _lane(self) -> None:
        lane = _Lane()
        self._lanes.add(lane)
        try:
            await self._work_on(lane)
        except (SourceFailed, SourceRefused, OSError) as error:
            self._failure = error if self._failure is None else min(self._failure, error, key=_lightness)
            self._over.set()
            for other in self._lanes:
                other.break_off("the work is over")
        finally:
            self._lanes.discard(lane)
            self._tell()

    async def _work_on(self, lane: _Lane) -> None:
        backoff = self._engine.backoff()
        while len(self._lanes) <= self._pace.wanted and not self._over.is_set():
            if self._quiet_until > self._world.clock.monotonic():
                await self._quiet()
                continue
            lane.span = self._work.claim(self._span_blocks()) or self._steal()
            if lane.span is None:
                if not self._claims:
                    self._over.set()  # who waits to try again need not
                    break
                await self._news.wait()  # somebody may give something back
                continue
            self._claims += 1
            try:
                await self._fetch(lane)
                backoff.reset()
                continue
            except (SourceTrouble, WrongBytes) as error:
                if not self._over.is_set():
                    self._take_in(error)
            finally:
                self._claims -= 1
                span, lane.span, lane.broken = lane.span, None, ""
                lane.numbers.clear()
                self._work.release(span)
                self._tell()
            await self._pause(backoff.delay())

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _pause(self, seconds: float) -> None:
        """At most so long, and not beyond the end of the work."""
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            pass

    async def _quiet(self) -> None:
        wait = self._quiet_until - self._world.clock.monotonic()
        await self._pause(wait + self._world.entropy.uniform(0.0, 0.5))  # not all at the same moment

    def _steal(self) -> Span | None:
        """The second half of what the slowest connection has left, when that is worth a request of its own."""
        work = self._work

        def seconds(lane: _Lane) -> float:
            return len(lane.numbers) * work.block_bytes / max(lane.rate, 1.0)

        victim = max((lane for lane in self._lanes if len(lane.numbers) > 1), key=seconds, default=None)
        if victim is None or victim.span is None or seconds(victim) < STEAL_S or victim.rate == 0.0:
            return None
        middle = -(-victim.numbers[len(victim.numbers) // 2] // work.grain) * work.grain
        end = victim.span.first + victim.span.count
        if not victim.numbers[0] < middle <= victim.numbers[-1]:
            return None
        while victim.numbers[-1] >= middle:
            victim.numbers.pop()
        victim.span = Span(first=victim.span.first, count=middle - victim.span.first)
        return Span(first=middle, count=end - middle)

    def _progress(self) -> None:
        self._progress_at = self._world.clock.monotonic()
        self._tries, self._asked_s = 0, 0.0

    def _kept(self) -> None:
        """A block was written."""
        self._unkept = self._ignored = 0
        self._progress()

    def _take_in(self, error: SourceTrouble | WrongBytes) -> None:
        """Raises SourceFailed when there is no use in going on."""
        now = self._world.clock.monotonic()
        if isinstance(error, WrongBytes):
            count = self._mismatches[error.block] = self._mismatches.get(error.block, 0) + 1
            if count >= MISMATCHES:
                raise SourceFailed(f"the source sent wrong bytes {count} times: {error}") from error
            return
        self._tries += 1
        if isinstance(error, RangesIgnored):
            self._ignored += 1
            if self._ignored >= IGNORED:
                raise NoRanges(f"{error}, again and again: it cannot be fetched in parts from there") from error
        if error.retry_after_s is not None:
            if self._quiet_until <= now:  # several connections are told at once, and it counts once
                self._pace.slower()
            until = max(self._quiet_until, now + error.retry_after_s)
            self._asked_s += until - max(self._quiet_until, now)
            self._quiet_until = until
        if self._asked_s >= ASKED_LIMIT_S:
            raise SourceFailed(f"the server only asked to wait for {ASKED_LIMIT_S / 60:.0f} minutes: {error}") from error
        if self._tries >= TRIES and now - self._progress_at - self._asked_s >= self._patience_s:
            raise SourceFailed(f"nothing came for {self._patience_s:.0f} s: {error}") from error

    def _span_blocks(self) -> int:
        share = self._work.left() // (2 * max(1, self._pace.wanted))
        return max(1, min(share, SPAN_BYTES // self._work.block_bytes))

    async def _fetch(self, lane: _Lane) -> None:
        """What the lane has claimed. Raises SourceTrouble, WrongBytes, SourceFailed, SourceRefused, OSError."""
        work, span = self._work, lane.span
        assert span is not None, "claimed before"
        numbers = work.missing(span)
        lane.numbers = deque(numbers)  # at most SPAN_BYTES of blocks
        builder = _Builder(self._write, lane, work)
        wanted = (
            piece
            for first, last in runs_of(numbers)
            for piece in work.pieces(
                first * work.block_bytes, (last - first) * work.block_bytes + work.block_size(last)
            )
        )
        for request in requests_of(wanted):
            if not lane.numbers:
                return  # another one has taken the rest
            await self._request(lane, request, builder)

    async def _request(self, lane: _Lane, request: Sequence[Piece], builder: _Builder) -> None:
        file, position, end = request[0].file, request[0].offset, request[-1].offset + request[-1].size
        try:
            async with contextlib.AsyncExitStack() as stack:
                opening = stack.enter_async_context(self._client.open(file, position, end))
                lane.body = await self._unless_broken(lane, opening)
                async for data in lane.body:
                    self._came(lane, len(data))
                    for part in cut_out(request, position, memoryview(data)):
                        await builder.add(part)
                    position += len(data)
                    if not lane.numbers:
                        return
                    if lane.broken:
                        break
                    if self._engine.limited or self._limit is not None:
                        await self._unless_broken(lane, self._share(len(data)))
        except SourceTrouble:
            if not lane.broken:
                raise
        finally:
            lane.body = None
        if lane.broken:
            raise SourceTrouble(lane.broken)

    async def _unless_broken(self, lane: _Lane, awaitable: Awaitable[T]) -> T:
        """What may be broken off at any moment. Raises SourceTrouble when it was."""
        try:
            async with asyncio.timeout(None) as lane.waiting:
                return await awaitable
        except TimeoutError:
            raise SourceTrouble(lane.broken) from None
        finally:
            lane.waiting = None

    async def _share(self, size: int) -> None:
        await self._engine.pace(size)
        if self._limit is not None:
            await self._limit.take(size)

    def _came(self, lane: _Lane, size: int) -> None:
        lane.received += size
        self._unkept += size
        if self._unkept < WASTE_BYTES:
            self._progress()
        self._received(size)

    async def _write(self, lane: _Lane, number: int, parts: Sequence[bytes | memoryview]) -> None:
        lane.writing = True
        try:
            await self._work.write(number, parts)
        finally:
            lane.writing = False
        self._kept()


@dataclass(slots=True)
class _Builder:
    """Puts what comes together to whole blocks and hands them over."""

    write: Callable[[_Lane, int, Sequence[bytes | memoryview]], Awaitable[None]]
    lane: _Lane
    work: Work
    parts: list[memoryview] = field(default_factory=list[memoryview])
    have: int = 0

    async def add(self, view: memoryview) -> None:
        numbers = self.lane.numbers
        while view and numbers:
            want = self.work.block_size(numbers[0]) - self.have
            part, view = view[:want], view[want:]
            self.parts.append(part)
            self.have += len(part)
            if len(part) == want:
                parts, self.parts, self.have = self.parts, [], 0
                await self.write(self.lane, numbers[0], parts)
                numbers.popleft()


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
    return min((gravest(one) for one in group.exceptions), key=_lightness)


def _lightness(error: BaseException) -> int:
    return int(isinstance(error, SourceFailed))
