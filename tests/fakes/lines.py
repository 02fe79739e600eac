"""In place of the network and the disk, below the engine: lines with a rate each, and blocks in memory. For virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from swarmd.downloads.engine import Piece, Span
from swarmd.downloads.ranges import RemoteFile, SourceTrouble
from swarmd.kit.world import RealClock, SeededEntropy, World

STEP = 128 << 10  # bytes that come at a time


class Impatient(SeededEntropy):
    """Waits a hundredth of what it should: for tests that wait in real time."""

    def uniform(self, low: float, high: float) -> float:
        return super().uniform(low, high) / 100


def impatient_world() -> World:
    return World(clock=RealClock(), entropy=Impatient(1))


class Lines:
    """What the engine asks of a `RangeClient`. Requests are numbered from 0."""

    def __init__(
        self,
        data: bytes,
        *,
        rate: Callable[[int], float] = lambda _: 1e6,
        trouble: Callable[[int], BaseException | None] = lambda _: None,
        cut: Callable[[int], int | None] = lambda _: None,
        shared: float | None = None,
    ) -> None:
        """Of each request: bytes a second, what it fails with, after how many bytes it is cut. `shared`: of all together."""
        self._data, self._rate, self._trouble, self._cut, self._shared = data, rate, trouble, cut, shared
        self.requests: list[tuple[float, int, int]] = []
        """When (loop time), first byte, byte after the last."""
        self.open_now = self.most_open = 0
        self.sent = 0

    @asynccontextmanager
    async def open(self, file: RemoteFile, start: int, end: int) -> AsyncGenerator[_Served]:
        number = len(self.requests)
        self.requests.append((asyncio.get_running_loop().time(), start, end))
        await asyncio.sleep(0.02)  # of a round trip
        error = self._trouble(number)
        if error is not None:
            raise error
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            yield _Served(self, number, self._data[start:end])
        finally:
            self.open_now -= 1

    def seconds(self, number: int, size: int) -> float:
        rate = self._rate(number) if self._shared is None else self._shared / max(1, self.open_now)
        return size / rate

    def cut_at(self, number: int) -> int | None:
        return self._cut(number)


class _Served:
    def __init__(self, lines: Lines, number: int, data: bytes) -> None:
        self._lines, self._number, self._data = lines, number, data
        self._at = 0
        self._aborted = asyncio.Event()

    def abort(self) -> None:
        self._aborted.set()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._at >= len(self._data):
            raise StopAsyncIteration
        cut = self._lines.cut_at(self._number)
        part = self._data[self._at : self._at + STEP]
        if cut is not None and self._at + len(part) > cut:
            raise SourceTrouble("cut")
        try:
            async with asyncio.timeout(self._lines.seconds(self._number, len(part))):
                await self._aborted.wait()
        except TimeoutError:
            self._at += len(part)
            self._lines.sent += len(part)
            return part
        raise SourceTrouble("aborted")


class Blocks:
    """Work in memory."""

    def __init__(
        self, size: int, *, block_bytes: int = 1 << 20, grain: int = 1, write_s: Callable[[int], float] = lambda _: 0.0
    ) -> None:
        self.file = RemoteFile(url="http://hub/file", size_bytes=size, name="owner/name/file")
        self.size, self.block_bytes, self.grain, self._write_s = size, block_bytes, grain, write_s
        self.count = -(-size // block_bytes)
        self.free = set(range(self.count))
        self.held: dict[int, bytes] = {}
        self.times: dict[int, int] = {}
        """How often each block was handed over."""
        self.interrupted = 0
        self.spans: list[Span] = []
        self.refuse: Callable[[int, bytes], BaseException | None] = lambda _number, _data: None

    @property
    def data(self) -> bytes:
        return b"".join(self.held[number] for number in range(self.count))

    def block_size(self, number: int) -> int:
        return min(self.block_bytes, self.size - number * self.block_bytes)

    def left(self) -> int:
        return len(self.free)

    def claim(self, count: int) -> Span | None:
        if not self.free:
            return None
        first = min(self.free) // self.grain * self.grain
        last = first
        while last < self.count and last - first < max(count, self.grain) and last in self.free:
            last += 1
        last = last if last == self.count else last // self.grain * self.grain
        self.free -= set(range(first, last))
        self.spans.append(Span(first=first, count=last - first))
        return self.spans[-1]

    def release(self, span: Span) -> None:
        self.free |= {number for number in range(span.first, span.first + span.count) if number not in self.held}

    def missing(self, span: Span) -> Sequence[int]:
        return [number for number in range(span.first, span.first + span.count) if number not in self.held]

    def pieces(self, offset: int, size: int) -> Sequence[Piece]:
        return (Piece(file=self.file, offset=offset, size=size),)

    async def write(self, number: int, parts: Sequence[bytes | memoryview]) -> None:
        data = b"".join(parts)
        assert len(data) == self.block_size(number)
        self.times[number] = self.times.get(number, 0) + 1
        error = self.refuse(number, data)
        if error is not None:
            raise error
        try:
            await asyncio.sleep(self._write_s(number))
        except asyncio.CancelledError:
            self.interrupted += 1
            raise
        self.held[number] = data
