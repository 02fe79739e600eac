"""Whole files: fetched into `NAME.part`, gone on with after a kill, verified in full, then given their name.

`NAME.part.journal` remembers the blocks that are there. The hash follows the blocks as they come, so that it is known soon
after the last one. When the whole has the wrong hash nobody can say which block is to blame: all are fetched once more and
compared with what was recorded; where they differ, what comes twice the same is right.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from blake3 import blake3

from swarmd.downloads.engine import PATIENCE_S, Engine, Piece, SourceFailed, Span, gravest
from swarmd.downloads.ranges import RemoteFile
from swarmd.kit.disk import Disk
from swarmd.kit.flow import TokenBucket
from swarmd.kit.journal import BlockJournal, block_sum

BLOCK_BYTES: Final = 1 << 20  # what a kill costs for each connection; a write and a sum of 8 bytes each
HASH_BYTES: Final = 4 << 20  # hashed at a time: long enough that the thread's way there does not count
RESERVE_BYTES: Final = 64 << 20  # left free for databases and logs of this machine
REPAIRS: Final = 2  # rounds of comparing; a source that changes its mind more often is not one


class Corrupt(SourceFailed):
    """What the source sends is not what it promised."""


class _Hasher(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Files:
    """One per node."""

    def __init__(self, *, engine: Engine, disk: Disk) -> None:
        self._engine, self._disk = engine, disk

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
        """Bring the file to `path`; what an earlier try left beside it is gone on with. One at a time for a path.

        `received` is told every number of bytes that came; `progress` how many of the file are there. Raises SourceFailed,
        SourceRefused; Corrupt when every round of repair left it wrong; OSError, ENOSPC before anything is written when the
        disk has too little room. Cancelled, it can be gone on with; `discard` removes what it left.
        """
        await self._disk.make_folder(path.parent)
        part, sidecar = parts_of(path)
        if file.size_bytes == 0:
            await self._disk.write_atomic(path, b"")
            return
        journal = BlockJournal(
            self._disk, sidecar, tag=_tag(file), size_bytes=file.size_bytes, block_bytes=BLOCK_BYTES
        )
        await asyncio.to_thread(self._open_now, part, journal)
        work = FileWork(self._disk, part, journal, file)
        progress(journal.done_bytes)

        def told(size: int) -> None:
            received(size)
            progress(journal.done_bytes)

        found = await self._bring(work, file, told, limit, patience_s)
        for _ in range(REPAIRS):
            if found != _promised(file):
                again = FileWork(self._disk, part, journal, file, compare=True)
                found = await self._bring(again, file, told, limit, patience_s)
        if found != _promised(file):
            await self.discard(path)
            raise Corrupt(f"{file.name} has another hash than the hub says, however often it is fetched: try another source")
        await self._disk.rename(part, path)
        await asyncio.to_thread(journal.remove_now)
        progress(file.size_bytes)

    async def _bring(
        self, work: FileWork, file: RemoteFile, received: Callable[[int], None], limit: TokenBucket | None, patience_s: float
    ) -> str:
        """Fetch what is missing; the hash of the whole."""
        try:
            async with asyncio.TaskGroup() as group:
                hashing = group.create_task(_hash(work, file))
                await self._engine.run(work, received=received, limit=limit, patience_s=patience_s)
        except BaseExceptionGroup as errors:
            raise gravest(errors) from errors
        return hashing.result()

    async def discard(self, path: Path) -> None:
        """Remove what an interrupted fetch left. Raises OSError."""
        for left in parts_of(path):
            await self._disk.remove(left)

    def _open_now(self, part: Path, journal: BlockJournal) -> None:
        def read_block(number: int) -> bytes:
            return self._disk.read_range_now(part, number * BLOCK_BYTES, journal.size(number))

        if not self._disk.exists_now(part):
            journal.remove_now()  # without its file it would call the zeros of the next one ours
        if not journal.load_now(read_block):
            self._disk.remove_now(part)
            free = self._disk.free_bytes_now(part.parent)
            if free < journal.size_bytes + RESERVE_BYTES:
                raise OSError(
                    errno.ENOSPC, f"{journal.size_bytes / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free", str(part)
                )
        self._disk.preallocate_now(part, journal.size_bytes)


class FileWork:
    """The blocks of one file, lowest first, so that the hash can follow."""

    def __init__(
        self, disk: Disk, part: Path, journal: BlockJournal, file: RemoteFile, *, compare: bool = False
    ) -> None:
        """`compare`: fetch every block once more. Where two tries differ a third decides, or one after it: a block counts
        when it came twice the same."""
        self._doubts: dict[int, bytes] = {}
        self._disk, self._part, self._journal, self._file, self._compare = disk, part, journal, file, compare
        self._claimed = bytearray(journal.count)
        self._wanted = bytearray(1 if compare or not journal.has(number) else 0 for number in range(journal.count))
        self._left = sum(self._wanted)
        self._cursor = 0
        self.news = asyncio.Event()
        """A block was written."""

    @property
    def block_bytes(self) -> int:
        return self._journal.block_bytes

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

    def missing(self, span: Span) -> Sequence[int]:
        return [number for number in range(span.first, span.first + span.count) if self._wanted[number]]

    def pieces(self, offset: int, size: int) -> Sequence[Piece]:
        return (Piece(file=self._file, offset=offset, size=size),)

    async def write(self, number: int, parts: Sequence[bytes | memoryview]) -> None:
        if not self._compare or self._settled(number, parts):
            await _finished(asyncio.get_running_loop().run_in_executor(None, self._write_now, number, parts))
            self._wanted[number] = 0
            self.news.set()

    def _settled(self, number: int, parts: Sequence[bytes | memoryview]) -> bool:
        """Whether these are the block's bytes. If not, it is fetched again: the claim gives it back."""
        came = block_sum(parts)
        if self._journal.matches(number, parts) or self._doubts.get(number) == came:
            return True
        self._doubts[number] = came
        return False

    async def read(self, first: int, last: int) -> bytes:
        """Blocks [first, last), as they lie on the disk."""
        end = min(last * self.block_bytes, self._journal.size_bytes)
        return await self._disk.read_range(self._part, first * self.block_bytes, end - first * self.block_bytes)

    def _write_now(self, number: int, parts: Sequence[bytes | memoryview]) -> None:
        if self._compare and self._journal.matches(number, parts):
            return
        self._disk.write_parts_now(self._part, number * self.block_bytes, parts)
        self._journal.record_now(number, parts)

    def _free(self, number: int) -> bool:
        return bool(self._wanted[number] and not self._claimed[number])


async def _finished(future: asyncio.Future[None]) -> None:
    """Waits for a thread, also when cancelled: nothing writes behind the back of whoever opens the file next."""
    try:
        await asyncio.wait((future,))
    except asyncio.CancelledError:
        await asyncio.wait((future,))
        raise
    future.result()


async def _hash(work: FileWork, file: RemoteFile) -> str:
    hasher = _hasher(file)
    if hasher is None:
        while not all(work.has(number) for number in range(work.count)):
            work.news.clear()
            await work.news.wait()
        return _promised(file)
    first, most = 0, max(1, HASH_BYTES // work.block_bytes)
    while first < work.count:
        last = first
        while last < work.count and last - first < most and work.has(last):
            last += 1
        # Small steps only at the end: a thread for every block would cost as much as the hash.
        if last == first or (last - first < most and last < work.count):
            work.news.clear()
            await work.news.wait()
            continue
        data = await work.read(first, last)
        await asyncio.to_thread(hasher.update, data)
        first = last
    return hasher.hexdigest()


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
