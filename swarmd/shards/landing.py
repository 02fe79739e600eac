"""One shard on its way to its final name: chunks and blocks are verified, written and remembered, in any order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import blake3

from swarmd.domain.ids import NodeId, ShardRef
from swarmd.domain.models import BLOCKS_PER_CHUNK, CHUNK_BYTES, ShardSpec
from swarmd.kit.disk import Disk
from swarmd.kit.journal import BlockJournal
from swarmd.models.manifest import PayloadHash, PayloadHasher
from swarmd.models.shard_file import Run, ShardFile


class ChunkMismatch(Exception):
    """Bytes that arrived do not have the hash the manifest promises."""

    signer: NodeId | None = None
    """Of the seal that was wrong as a whole and has been taken back."""


class Superseded(OSError):
    """The files of this landing belong to a later one, or were deleted."""


class Home(Protocol):
    """What is needed of `storage.ShardStorage`."""

    def path(self, ref: ShardRef) -> Path: ...
    def expected_hash(self, ref: ShardRef) -> str: ...
    def committed(self, ref: ShardRef) -> None: ...
    async def take_back(self, ref: ShardRef) -> NodeId | None: ...


class Landing:
    """One shard on its way to its final name.

    Whatever is done in a thread is waited for, also by a caller who is cancelled: nothing writes behind the back of whoever
    opens or deletes these files next. Two writers may work on different chunks at the same time, never on one.
    """

    def __init__(
        self,
        home: Home,
        disk: Disk,
        ref: ShardRef,
        spec: ShardSpec,
        file: ShardFile,
        partial: Path,
        journal: BlockJournal,
    ) -> None:
        self._home, self._disk, self.ref, self.spec, self._file = home, disk, ref, spec, file
        self._partial, self._journal = partial, journal
        self._hashed: str | None = None
        self._given_up = False
        self._working: set[asyncio.Future[None]] = set()

    @property
    def block_bytes(self) -> int:
        return self._journal.block_bytes

    def missing(self) -> list[int]:
        """Chunk numbers that are not on the disk yet, ascending."""
        return sorted({number // BLOCKS_PER_CHUNK for number in self._journal.missing()})

    def missing_blocks(self, chunk: int) -> list[int]:
        """Block numbers, counted over the whole shard, ascending."""
        return [number for number in self._blocks(chunk) if not self._journal.has(number)]

    def has(self, chunk: int) -> bool:
        """It is on the disk, and verified if its hash is known."""
        return all(self._journal.has(number) for number in self._blocks(chunk))

    @property
    def open(self) -> bool:
        """Somebody may still write."""
        return not self._given_up

    @property
    def done_bytes(self) -> int:
        return self._journal.done_bytes

    def chunk_size(self, number: int) -> int:
        return min(CHUNK_BYTES, self.spec.size_bytes - number * CHUNK_BYTES)

    def block_size(self, number: int) -> int:
        return self._journal.size(number)

    async def write_chunk(self, number: int, data: bytes | memoryview) -> None:
        """Verify a chunk and put it in its place. Raises ChunkMismatch; OSError of the disk."""

        def work() -> None:
            if len(data) != self.chunk_size(number) or (
                self.spec.sealed and blake3.blake3(data).hexdigest() != self.spec.chunk_blake3[number]
            ):
                raise self._mismatch(number)
            view = memoryview(data)
            self._write_now(number * CHUNK_BYTES, view)
            self._journal.record_all_now(number * BLOCKS_PER_CHUNK, view)

        await self._on_disk(work)

    async def write_block(
        self, number: int, parts: Sequence[bytes | memoryview], *, confirm: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        """Put a whole block in its place, and verify its chunk when it is the last one of it.

        `confirm` is asked about a chunk that has no hash to be verified with. Raises ChunkMismatch, and the chunk is missing
        as a whole again; OSError of the disk; whatever `confirm` raises, and the block is missing.
        """
        chunk = number // BLOCKS_PER_CHUNK
        data = b"".join(parts)
        assert len(data) == self.block_size(number), f"block {number} of {len(data)} bytes"
        last = self.missing_blocks(chunk) == [number]

        def work() -> None:
            self._write_now(number * self.block_bytes, memoryview(data))
            if last and self.spec.sealed and not self._matches_now(chunk):
                self._journal.forget_now(self._blocks(chunk))
                raise self._mismatch(chunk)
            if not last or self.spec.sealed or confirm is None:
                self._journal.record_now(number, (data,))

        await self._on_disk(work)
        if last and not self.spec.sealed and confirm is not None:
            if not await confirm():
                await self.forget(chunk)
                raise self._mismatch(chunk)
            await self._on_disk(lambda: self._journal.record_now(number, (data,)))

    def load_now(self) -> bool:
        """Take what an earlier landing left. False: nothing of it counts. Raises OSError."""

        def read_block(number: int) -> bytes:
            return read_payload_now(
                self._disk, self._partial, self._file, number * self.block_bytes, self.block_size(number)
            )

        return self._journal.load_now(read_block, self._refused_now)

    def _refused_now(self) -> Iterator[int]:
        """Blocks that came while the shard had other hashes, or none, and are not what it is to be now. Without hashes that
        is all of them: peers sent them, by hashes that are gone, and what lies here at the end is sealed as it is."""
        for chunk in range(self.spec.chunk_count):
            try:
                good = self.spec.sealed and (not self.has(chunk) or self._matches_now(chunk))
            except OSError:
                good = False
            if not good:
                yield from self._blocks(chunk)

    def _matches_now(self, chunk: int) -> bool:
        """What lies there of a chunk has its hash. Raises OSError."""
        data = read_payload_now(self._disk, self._partial, self._file, chunk * CHUNK_BYTES, self.chunk_size(chunk))
        return blake3.blake3(data).hexdigest() == self.spec.chunk_blake3[chunk]

    async def read_chunk(self, number: int) -> bytes:
        """A chunk that has arrived. Raises OSError."""
        return await asyncio.to_thread(
            read_payload_now, self._disk, self._partial, self._file, number * CHUNK_BYTES, self.chunk_size(number)
        )

    async def forget(self, chunk: int) -> None:
        """It turned out to be wrong: fetch it again. Raises OSError."""
        await self._on_disk(lambda: self._journal.forget_now(self._blocks(chunk)))

    async def hash(self) -> PayloadHash:
        """Of what lies there, all of it: what its seal is made of. Raises OSError."""
        assert not self.missing(), "hashed before the last chunk"
        hasher = PayloadHasher()
        await self._on_disk(lambda: self._read_all(hasher.feed), whole=True)
        payload = hasher.finish()
        self._hashed = payload.blake3
        return payload

    async def commit(self) -> None:
        """All chunks are there: put the header in front, check the whole, give the final name.

        A shard that was not sealed when this landing was opened has to be now, see `hash`. Raises ChunkMismatch, and a seal
        that made it wrong is gone; OSError of the disk, also when it lost what was written. Cancelled, it is done, or can be
        done again.
        """
        named = False
        expected = self._home.expected_hash(self.ref)

        def work() -> None:
            nonlocal named
            self._disk.write_range_now(self._partial, 0, self._file.header)
            for at, data in self._file.tail:
                self._disk.write_range_now(self._partial, at, data)
            hashed = self._hashed
            if hashed is None:
                hasher = blake3.blake3()
                self._read_all(hasher.update)
                hashed = hasher.hexdigest()
            if hashed != expected:
                if self.spec.sealed:  # else it was read at the source, and whoever sealed it meanwhile is wrong
                    self._refuse_damage_now()
                    self._journal.remove_now()
                    self._disk.remove_now(self._partial)
                raise ChunkMismatch(f"shard {self.ref.number} of {self.ref.model} has the wrong hash as a whole")
            self._go_on()
            path = self._home.path(self.ref)
            try:
                self._disk.rename_now(self._partial, path)
            finally:
                # Also when it failed: the name may be given, and the folder's sync fail after it. If it is not, bytes may be
                # lost that the system tells of once and counts as written from then on: none is believed to be here.
                named = not self._disk.exists_now(self._partial) and self._disk.exists_now(path)
                self._journal.remove_now()

        assert not self.missing(), "commit before the last chunk"
        assert expected, "commit of a shard without a seal"
        try:
            await self._on_disk(work, whole=True)
        except ChunkMismatch as error:
            error.signer = await self._home.take_back(self.ref)
            raise
        finally:
            if named:  # also when the caller was cancelled too late
                self._home.committed(self.ref)

    def _refuse_damage_now(self) -> None:
        """Raises OSError when chunks are not any more what they were when they came: this disk is to blame, and no seal."""
        damaged = [chunk for chunk in range(self.spec.chunk_count) if not self._matches_now(chunk)]
        for chunk in damaged:
            self._journal.forget_now(self._blocks(chunk))
        if damaged:
            raise OSError(f"{len(damaged)} chunks have changed on this disk since they came: is it well?")

    def _read_all(self, take: Callable[[bytes], object]) -> None:
        """The payload, piece by piece, in its order."""
        for offset in range(0, self.spec.size_bytes, self.block_bytes):  # a block: it stays in the processor's cache
            self._go_on()
            size = min(self.block_bytes, self.spec.size_bytes - offset)
            take(read_payload_now(self._disk, self._partial, self._file, offset, size))

    def _blocks(self, chunk: int) -> range:
        first = chunk * BLOCKS_PER_CHUNK
        return range(first, min(first + BLOCKS_PER_CHUNK, self._journal.count))

    def _write_now(self, offset: int, view: memoryview) -> None:
        for at, start, count in pieces(self._file.runs, offset, len(view)):
            self._disk.write_range_now(self._partial, at, view[start : start + count])
            self._disk.begin_sync_now(self._partial, at, count)

    def _mismatch(self, chunk: int) -> ChunkMismatch:
        return ChunkMismatch(f"chunk {chunk} of shard {self.ref.number} of {self.ref.model} has the wrong hash")

    def give_up(self) -> None:
        """Nothing more is written, apart from what is being written now."""
        self._given_up = True

    async def end(self) -> None:
        """`give_up`, and wait until nothing is being written: a chunk at most."""
        self.give_up()
        if self._working:
            await asyncio.wait(self._working)

    def _go_on(self) -> None:
        if self._given_up:
            raise Superseded(f"shard {self.ref.number} of {self.ref.model} is written by somebody else, or was deleted")

    async def _on_disk(self, work: Callable[[], None], *, whole: bool = False) -> None:
        """In a thread. A caller who is cancelled waits for it; the others who write go on. `whole`: work of minutes on all
        of it, beside which nobody writes: cancelled, it ends at its next block, and the landing with it."""
        self._go_on()
        future = asyncio.get_running_loop().run_in_executor(None, work)
        self._working.add(future)
        future.add_done_callback(self._worked)
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError:
            if whole:
                self.give_up()
            await asyncio.wait((future,))
            raise
        future.result()

    def _worked(self, future: asyncio.Future[None]) -> None:
        self._working.discard(future)
        if not future.cancelled():
            future.exception()  # read, also when nobody waits any more


def read_payload_now(disk: Disk, path: Path, file: ShardFile, offset: int, size: int) -> bytes:
    """Payload bytes [offset, offset + size) of a shard's file. Raises OSError, also when the file is short."""
    parts = [disk.read_range_now(path, at, count) for at, _, count in pieces(file.runs, offset, size)]
    data = b"".join(parts)
    if len(data) != size:
        raise OSError(f"{path.name} ends after {len(data)} of {size} bytes asked for at {offset}")
    return data


def pieces(runs: Iterable[Run], offset: int, size: int) -> list[tuple[int, int, int]]:
    """Where payload bytes [offset, offset + size) lie in the file: (file offset, offset within the range, count) each."""
    end = offset + size
    found: list[tuple[int, int, int]] = []
    for run in runs:
        first, last = max(offset, run.payload_offset), min(end, run.payload_offset + run.size)
        if first < last:
            found.append((run.file_offset + first - run.payload_offset, first - offset, last - first))
    return found
