"""Which blocks of a file that is being fetched are on the disk, written down so that a kill loses none of them.

A sidecar file of a head and eight bytes for each block, big-endian:

    magic 8 | boot 16 | tag 16 and 16 | size u64 | block u64 | sums 8 each, zeros where the block is missing

The sum is the start of the block's BLAKE3. A block is written first and its sum after it, neither is synced. That order is
what a kill leaves: the page cache outlives a process. A power cut may keep the one and lose the other, so a journal of
another boot of the machine is believed only where the block on the disk has the sum that was written down. Syncing each
block would make the same promise at the pace of the disk.

The first half of the tag says which bytes these are, the second on which terms a block was taken: what it was checked with.
A journal of the same bytes on other terms is gone through by whoever opens it, who says which blocks do not count any more.

Its methods work on the disk and belong in threads; a block is recorded by one writer at a time.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import blake3

from swarmd.kit.disk import Disk

SUM_BYTES: Final = 8  # a wrong block passes with a chance of 2**-64, and the whole is hashed at its end
BLOCKS_LIMIT: Final = 1 << 24  # 16 TiB in blocks of 1 MiB, and 128 MiB of sums

_MAGIC: Final = b"swdjrnl1"
_MISSING: Final = bytes(SUM_BYTES)
_HEAD: Final = struct.Struct(">8s16s16s16sQQ")


class BlockJournal:
    """Owner of the sidecar. What it says of the file itself is only as good as the writes of whoever records."""

    def __init__(self, disk: Disk, path: Path, *, tag: bytes, size_bytes: int, block_bytes: int) -> None:
        """`tag`: 32 bytes of what the file is to become. Nothing is read or written yet."""
        assert len(tag) == 32 and size_bytes > 0 and block_bytes > 0, f"{len(tag)} bytes, {size_bytes}, {block_bytes}"
        self._disk, self._path, self._tag = disk, path, (tag[:16], tag[16:])
        self.size_bytes, self.block_bytes = size_bytes, block_bytes
        self.count = -(-size_bytes // block_bytes)
        assert self.count <= BLOCKS_LIMIT, f"a journal of {self.count} blocks"
        self._sums = bytearray(SUM_BYTES * self.count)
        self._boot = disk.boot_now()
        self.done_bytes = 0
        self._counting = threading.Lock()
        """Several threads record at the same time, each other blocks."""

    def load_now(
        self, read_block: Callable[[int], bytes], refused: Callable[[], Iterable[int]] | None = None
    ) -> bool:
        """Take what an earlier run wrote down. False: nothing of it counts, and a new journal is begun.

        `read_block` gives a block as it lies on the disk; it is asked only when the machine was started anew since, and
        may raise OSError for a block that is not there. `refused` gives the blocks that do not count on the terms of today;
        it is asked only when they were written on others, of which none counts without it. Raises OSError.
        """
        limit = _HEAD.size + len(self._sums)
        try:
            data = self._disk.read_bytes_now(self._path, limit=limit)
        except OSError:  # none, or a longer one: not ours
            data = b""
        head = _HEAD.pack(_MAGIC, self._boot, *self._tag, self.size_bytes, self.block_bytes)
        same = len(data) == limit and self._take_now(data, read_block, refused)
        if not same or data[: _HEAD.size] != head:
            self._disk.write_atomic_now(self._path, head + bytes(self._sums))
        self.done_bytes = self._bytes_of(range(self.count))
        return same and self.done_bytes > 0

    def stated_now(self) -> int:
        """Bytes that an earlier run wrote down, whatever of them will count; nothing is changed."""
        limit = _HEAD.size + len(self._sums)
        try:
            data = self._disk.read_bytes_now(self._path, limit=limit)
        except OSError:
            return 0
        if len(data) != limit:
            return 0
        magic, _, what, _, *sizes = _HEAD.unpack_from(data)
        if (magic, what, sizes) != (_MAGIC, self._tag[0], [self.size_bytes, self.block_bytes]):
            return 0
        sums = data[_HEAD.size :]
        return sum(
            self.size(number) for number in range(self.count)
            if sums[number * SUM_BYTES : (number + 1) * SUM_BYTES] != _MISSING
        )  # fmt: skip

    def _take_now(
        self, data: bytes, read_block: Callable[[int], bytes], refused: Callable[[], Iterable[int]] | None
    ) -> bool:
        """False: it is of something else."""
        magic, boot, what, terms, *sizes = _HEAD.unpack_from(data)
        if (magic, what, sizes) != (_MAGIC, self._tag[0], [self.size_bytes, self.block_bytes]):
            return False
        if terms != self._tag[1] and refused is None:
            return False
        self._sums[:] = data[_HEAD.size :]
        if boot != self._boot or not any(boot):
            self._check_now(read_block)
        if terms != self._tag[1] and refused is not None:
            for number in refused():
                self._drop(number)
        return True

    def has(self, number: int) -> bool:
        at = number * SUM_BYTES
        return bytes(self._sums[at : at + SUM_BYTES]) != _MISSING

    def missing(self) -> list[int]:
        """Ascending."""
        return [number for number in range(self.count) if not self.has(number)]

    def size(self, number: int) -> int:
        """Of a block: the last one is shorter."""
        return min(self.block_bytes, self.size_bytes - number * self.block_bytes)

    def matches(self, number: int, data: Iterable[bytes | memoryview]) -> bool:
        """Whether these are the bytes that were recorded for the block."""
        at = number * SUM_BYTES
        return bytes(self._sums[at : at + SUM_BYTES]) == block_sum(data)

    def record_now(self, number: int, data: Iterable[bytes | memoryview]) -> None:
        """The block is written. Raises OSError."""
        self._put_now(number, block_sum(data))

    def record_all_now(self, first: int, data: memoryview) -> None:
        """As `record_now`, of consecutive blocks that lie behind each other in `data`. Raises OSError."""
        parts = [data[at : at + self.block_bytes] for at in range(0, len(data), self.block_bytes)]
        self._put_now(first, b"".join(block_sum((part,)) for part in parts))

    def forget_now(self, numbers: Iterable[int]) -> None:
        """They have to be fetched again. Raises OSError."""
        for number in numbers:
            if self.has(number):
                self._put_now(number, _MISSING)

    def remove_now(self) -> None:
        self._disk.remove_now(self._path)

    def _put_now(self, first: int, sums: bytes) -> None:
        """Of `first` and those that follow."""
        numbers = range(first, first + len(sums) // SUM_BYTES)
        assert 0 <= first < numbers.stop <= self.count, f"blocks {numbers} of {self.count}"
        at = first * SUM_BYTES
        self._disk.write_range_now(self._path, _HEAD.size + at, sums)
        with self._counting:
            before = self._bytes_of(numbers)
            self._sums[at : at + len(sums)] = sums
            self.done_bytes += self._bytes_of(numbers) - before

    def _bytes_of(self, numbers: Iterable[int]) -> int:
        """Of those that are there."""
        return sum(self.size(number) for number in numbers if self.has(number))

    def _check_now(self, read_block: Callable[[int], bytes]) -> None:
        for number in range(self.count):
            if self.has(number):
                try:
                    good = self.matches(number, (read_block(number),))
                except OSError:
                    good = False
                if not good:
                    self._drop(number)

    def _drop(self, number: int) -> None:
        """Not written down yet."""
        self._sums[number * SUM_BYTES : (number + 1) * SUM_BYTES] = _MISSING


def block_sum(data: Iterable[bytes | memoryview]) -> bytes:
    hasher = blake3.blake3()
    for part in data:
        hasher.update(part)
    digest = hasher.digest(length=SUM_BYTES)
    return digest if any(digest) else b"\1" * SUM_BYTES  # zeros mean missing
