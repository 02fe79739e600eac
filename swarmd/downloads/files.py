"""Whole files: fetched into `NAME.part`, gone on with after a kill, verified in full, then given their name.

`NAME.part.journal` remembers the blocks that are there. The hash follows the blocks as they come, so that it is known soon
after the last one. When the whole has the wrong hash nobody can say which block is to blame: all are fetched once more and
compared with what was recorded; where they differ, what comes twice the same is right.

A server that sends whole files only is read from the start, over one connection; what is there already is passed over.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

from blake3 import blake3

from swarmd.downloads.engine import PATIENCE_S, Engine, NoRanges, Piece, SourceFailed, Span, gravest
from swarmd.downloads.ranges import RemoteFile, SourceRefused
from swarmd.kit.disk import Disk
from swarmd.kit.flow import SingleFlight, TokenBucket
from swarmd.kit.journal import BLOCKS_LIMIT, BlockJournal, block_sum

BLOCK_BYTES: Final = 1 << 20  # what a kill costs for each connection; a write and a sum of 8 bytes each
HASH_BLOCKS: Final = 4  # at least, for which a thread is sent: its way there and back takes as long as hashing one or two
RESERVE_BYTES: Final = 64 << 20  # left free for databases and logs of this machine
REPAIRS: Final = 2  # rounds of comparing; a source that changes its mind more often is not one
VERSIONS: Final = 4  # of one block that came, no two alike: nobody will ever know
RESTARTS: Final = 5  # of reading from the start without a new block

T = TypeVar("T")


class Corrupt(SourceFailed):
    """What the source sends is not what it promised."""


class _Hasher(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Files:
    """One per node."""

    def __init__(self, *, engine: Engine, disk: Disk) -> None:
        self._engine, self._disk = engine, disk
        self._flights: SingleFlight[tuple[Path, bytes], None] = SingleFlight()
        self._paths: dict[Path, bytes] = {}
        """What is being fetched, by where to."""

    async def fetch(
        self,
        file: RemoteFile,
        path: Path,
        *,
        received: Callable[[int], None] = lambda _: None,
        progress: Callable[[int], None] = lambda _: None,
        limit: TokenBucket | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Bring the file to `path`; what an earlier try left beside it is gone on with. Two of one file to one path are one.

        `received` is told every number of bytes that came; `progress` how many of the file are there. Raises SourceFailed,
        SourceRefused; Corrupt when every round of repair left it wrong; OSError, ENOSPC before anything is written when the
        disk has too little room. Cancelled, it can be gone on with; `discard` removes what it left.
        """
        tag = _tag(file)
        if self._paths.get(path, tag) != tag:
            raise SourceRefused(f"another file is being fetched to {path}: wait for it, or cancel it")

        async def work() -> None:
            self._paths[path] = tag
            try:
                await self._fetch(file, path, received, progress, limit, patience_s)
            finally:
                del self._paths[path]

        await self._flights.do((path, tag), work)
        progress(file.size_bytes)

    async def _fetch(
        self,
        file: RemoteFile,
        path: Path,
        received: Callable[[int], None],
        progress: Callable[[int], None],
        limit: TokenBucket | None,
        patience_s: float,
    ) -> None:
        if file.size_bytes > BLOCKS_LIMIT * BLOCK_BYTES:
            raise SourceRefused(f"{file.name} has {file.size_bytes} bytes: more than any disk here will have")
        part, sidecar = parts_of(path)
        await _in_thread(lambda: self._begin_now(part, file.size_bytes))
        if file.size_bytes == 0:
            await self._empty(file, path)
            return
        journal = BlockJournal(
            self._disk, sidecar, tag=_tag(file), size_bytes=file.size_bytes, block_bytes=BLOCK_BYTES
        )
        await _in_thread(lambda: self._open_now(part, journal))
        progress(journal.done_bytes)

        def told(size: int) -> None:
            received(size)
            progress(journal.done_bytes)

        found = await self._bring(FileWork(self._disk, part, journal, file), file, told, limit, patience_s)
        for _ in range(REPAIRS):
            if found != _promised(file):
                again = FileWork(self._disk, part, journal, file, compare=True)
                found = await self._bring(again, file, told, limit, patience_s)
        if found != _promised(file):
            await self.discard(path)
            raise Corrupt(f"{file.name} has another hash than the hub says, however often it is fetched: try another source")
        await _in_thread(lambda: self._sync_now(part, journal))
        await _in_thread(lambda: self._disk.rename_now(part, path))
        await _in_thread(journal.remove_now)

    def _sync_now(self, part: Path, journal: BlockJournal) -> None:
        try:
            self._disk.sync_now(part)
        except OSError:
            journal.remove_now()  # bytes are lost; the system tells of it once, and counts them as written from then on
            raise

    async def _empty(self, file: RemoteFile, path: Path) -> None:
        hasher = _hasher(file)
        if hasher is not None and hasher.hexdigest() != _promised(file):
            raise Corrupt(f"{file.name} is said to be empty, and to have a hash that nothing empty has")
        await _in_thread(lambda: self._disk.write_atomic_now(path, b""))

    async def _bring(
        self, work: FileWork, file: RemoteFile, received: Callable[[int], None], limit: TokenBucket | None, patience_s: float
    ) -> str:
        """Fetch what is missing; the hash of the whole."""
        try:
            async with asyncio.TaskGroup() as group:
                hashing = group.create_task(_hash(work, file))
                try:
                    await self._engine.run(work, received=received, limit=limit, patience_s=patience_s)
                except NoRanges:
                    await self._engine.run(_FromStart(work), received=received, limit=limit, patience_s=patience_s)
        except BaseExceptionGroup as errors:
            raise gravest(errors) from errors
        return hashing.result()

    async def discard(self, path: Path) -> None:
        """Remove what an interrupted fetch left. Raises OSError."""
        for left in parts_of(path):
            await self._disk.remove(left)

    def _begin_now(self, part: Path, size: int) -> None:
        """Before anything is written: is there room?"""
        self._disk.make_folder_now(part.parent)
        if not self._disk.exists_now(part):
            self._room_now(part, size)

    def _room_now(self, part: Path, size: int) -> None:
        free = self._disk.free_bytes_now(part.parent)
        if free < size + RESERVE_BYTES:
            needed, spare = size / 1e6, RESERVE_BYTES / 1e6
            what = f"{needed:.0f} MB are needed, {spare:.0f} MB have to stay free, and {free / 1e6:.0f} MB are"
            raise OSError(errno.ENOSPC, what, str(part))

    def _open_now(self, part: Path, journal: BlockJournal) -> None:
        def read_block(number: int) -> bytes:
            return self._disk.read_range_now(part, number * BLOCK_BYTES, journal.size(number))

        if not self._disk.exists_now(part):
            journal.remove_now()  # without its file it would call the zeros of the next one ours
        if not journal.load_now(read_block):
            self._disk.remove_now(part)
        try:
            if not self._disk.exists_now(part):
                self._room_now(part, journal.size_bytes)
            self._disk.preallocate_now(part, journal.size_bytes)
        except OSError:
            if not journal.done_bytes:  # nothing of it is worth keeping room for
                self._disk.remove_now(part)
                journal.remove_now()
            raise


class FileWork:
    """The blocks of one file, lowest first, so that the hash can follow."""

    def __init__(
        self, disk: Disk, part: Path, journal: BlockJournal, file: RemoteFile, *, compare: bool = False
    ) -> None:
        """`compare`: fetch every block once more. Where two tries differ a third decides, or one after it: a block counts
        when it came twice the same."""
        self._doubts: dict[int, set[bytes]] = {}
        self._disk, self._part, self._journal, self.file, self._compare = disk, part, journal, file, compare
        self._claimed = bytearray(journal.count)
        self._wanted = bytearray(1 if compare or not journal.has(number) else 0 for number in range(journal.count))
        self._left = sum(self._wanted)
        self._cursor = 0
        self.news = asyncio.Event()
        """A block was written."""

    @property
    def block_bytes(self) -> int:
        return self._journal.block_bytes

    @property
    def grain(self) -> int:
        return 1

    def block_size(self, number: int) -> int:
        return self._journal.size(number)

    @property
    def count(self) -> int:
        return self._journal.count

    def has(self, number: int) -> bool:
        return not self._wanted[number]

    def left(self) -> int:
        return self._left

    def claim(self, count: int) -> Span | None:
        while self._cursor < self.count and not self._free(self._cursor):
            self._cursor += 1
        first = last = self._cursor
        while last < self.count and last - first < count and self._free(last):
            self._claimed[last] = 1
            last += 1
        self._cursor = last
        self._left -= last - first
        return Span(first=first, count=last - first) if last > first else None

    def release(self, span: Span) -> None:
        for number in range(span.first, span.first + span.count):
            self._claimed[number] = 0
            if self._wanted[number]:
                self._left += 1
                self._cursor = min(self._cursor, number)

    def recount(self) -> None:
        """Blocks were written that nobody had claimed."""
        self._cursor, self._left = 0, sum(self._wanted)

    def missing(self, span: Span) -> Sequence[int]:
        return [number for number in range(span.first, span.first + span.count) if self._wanted[number]]

    def pieces(self, offset: int, size: int) -> Sequence[Piece]:
        return (Piece(file=self.file, offset=offset, size=size),)

    async def write(self, number: int, parts: Sequence[bytes | memoryview]) -> None:
        if not self._compare or self._settled(number, parts):
            await _in_thread(lambda: self._write_now(number, parts))
            self._wanted[number] = 0
            self.news.set()

    def _settled(self, number: int, parts: Sequence[bytes | memoryview]) -> bool:
        """Whether these are the block's bytes. If not, it is fetched again: the claim gives it back. Raises Corrupt."""
        came, doubts = block_sum(parts), self._doubts.setdefault(number, set())
        if self._journal.matches(number, parts) or came in doubts:
            return True
        doubts.add(came)
        if len(doubts) >= VERSIONS:
            raise Corrupt(f"{self.file.name} comes otherwise each time it is fetched, at byte {number * self.block_bytes}")
        return False

    def read_now(self, number: int) -> bytes:
        """A block as it lies on the disk."""
        return self._disk.read_range_now(self._part, number * self.block_bytes, self.block_size(number))

    def _write_now(self, number: int, parts: Sequence[bytes | memoryview]) -> None:
        # When comparing too, where the bytes are those that were recorded: it may be the disk that lost them.
        self._disk.write_parts_now(self._part, number * self.block_bytes, parts)
        self._journal.record_now(number, parts)

    def _free(self, number: int) -> bool:
        return bool(self._wanted[number] and not self._claimed[number])


class _FromStart:
    """The whole file as one claim, for a server that sends nothing less."""

    def __init__(self, work: FileWork) -> None:
        self._work = work
        self._claimed = False
        self._restarts: int = 0
        self._had: int = 0
        """Blocks that were there at the last start."""

    @property
    def block_bytes(self) -> int:
        return self._work.block_bytes

    @property
    def grain(self) -> int:
        return self._work.count  # it cannot be shared

    def block_size(self, number: int) -> int:
        return self._work.block_size(number)

    def left(self) -> int:
        return 0 if self._claimed else self._work.left()

    def claim(self, count: int) -> Span | None:
        """Raises SourceFailed when starting anew brings nothing."""
        if self._claimed or not self._work.left():
            return None
        have = self._work.count - self._work.left()
        self._restarts = self._restarts + 1 if have == self._had else 0
        if self._restarts > RESTARTS:
            raise SourceFailed(f"the server sends {self._work.file.name} as a whole only, and breaks off each time")
        self._had, self._claimed = have, True
        return Span(first=0, count=self._work.count)

    def release(self, span: Span) -> None:
        self._claimed = False
        self._work.recount()

    def missing(self, span: Span) -> Sequence[int]:
        return range(self._work.count)

    def pieces(self, offset: int, size: int) -> Sequence[Piece]:
        return self._work.pieces(offset, size)

    async def write(self, number: int, parts: Sequence[bytes | memoryview]) -> None:
        if not self._work.has(number):
            await self._work.write(number, parts)


async def _in_thread(work: Callable[[], T]) -> T:
    """Waits for the thread, also when cancelled: nothing writes behind the back of whoever opens the file next."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        await asyncio.wait((future,))
    except asyncio.CancelledError:
        await asyncio.wait((future,))
        if not future.cancelled():
            future.exception()  # read: nobody is left to tell it
        raise
    return future.result()


async def _hash(work: FileWork, file: RemoteFile) -> str:
    """The hash of the whole, as its blocks come; what the hub promises where that is nothing."""
    hasher = _hasher(file)
    done, there, stopped = 0, 0, False

    def follow() -> int:
        """Until it has caught up: with several threads on few processors, each way through the loop would cost it blocks."""
        at = done
        while at < work.count and work.has(at) and not stopped:
            if hasher is not None:
                hasher.update(work.read_now(at))
            at += 1
        return at

    while done < work.count:
        while there < work.count and work.has(there):
            there += 1
        if there < min(done + HASH_BLOCKS, work.count):
            work.news.clear()
            await work.news.wait()
            continue
        try:
            done = there = await asyncio.to_thread(follow)
        except asyncio.CancelledError:
            stopped = True  # it reads one more block at most
            raise
    return _promised(file) if hasher is None else hasher.hexdigest()


def _hasher(file: RemoteFile) -> _Hasher | None:
    if file.sha256 is not None:
        return hashlib.sha256()
    if file.git_sha1 is not None:
        return hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)  # git's own name of a file
    return None


def _promised(file: RemoteFile) -> str:
    """Empty: the hub does not say."""
    return file.sha256 or file.git_sha1 or ""


def _tag(file: RemoteFile) -> bytes:
    return blake3("\n".join((file.url, str(file.size_bytes), _promised(file))).encode()).digest()


def parts_of(path: Path) -> tuple[Path, Path]:
    """What lies beside `path` while it is fetched: the bytes and their journal."""
    return path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.journal")
