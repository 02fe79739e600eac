"""What a file holds: bytes in memory, a file on disk, or a long pattern that is made as it is read.

Names of blobs are the hub's: SHA-256 for files in large file storage (LFS), git's blob SHA-1 for plain ones. Both are
computed once, when they are first asked for; for gigabytes call `sha256` in a thread.
"""

from __future__ import annotations

import array
import functools
import hashlib
import os
import random
import sys
import threading
from pathlib import Path
from typing import Protocol

PIECE = 1 << 20  # bytes read at once where something reads a whole file: big enough for hashing at full speed
PAGE = 4096  # bytes of a pattern that carry one number of their own


class Content(Protocol):
    """Bytes of a known number, read anywhere."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def identity(self) -> str:
        """Cheap to make, and another one for other bytes; no hash of them."""
        ...

    @property
    def path(self) -> Path | None:
        """The file to send from, where there is one."""
        ...

    def read(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from `offset`; fewer at the end."""
        ...


class Held:
    """Bytes in memory."""

    path = None

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)
        self.identity = hashlib.sha1(data, usedforsecurity=False).hexdigest()

    def read(self, offset: int, count: int) -> bytes:
        return self._data[offset : offset + count]


class OnDisk:
    """A file. It must not change while it is served; where it did, a reply ends early.

    Raises OSError where there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        stat = path.stat()
        self.size = stat.st_size
        self.identity = f"{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"

    def read(self, offset: int, count: int) -> bytes:
        with self.path.open("rb") as file:
            return os.pread(file.fileno(), count, offset)


class Pattern:
    """`size` bytes that are made when they are read: any length without memory or disk.

    One block of chance, over and over; every 4 KiB page of it begins with the page's number (8 bytes, little-endian), so
    that a range put in the wrong place is seen. Equal seeds give equal bytes.
    """

    path = None

    def __init__(self, size: int, seed: int = 0) -> None:
        if size < 0:
            raise ValueError(f"a pattern of {size} bytes: the size must be 0 or more")
        self.size = size
        self.seed = seed
        self.identity = f"pattern:{size}:{seed}"
        self._block = _chance(seed)

    def read(self, offset: int, count: int) -> bytes:
        stop = min(offset + count, self.size)
        if stop <= offset:
            return b""
        first, last = offset // PIECE, (stop - 1) // PIECE
        whole = b"".join(self._numbered(block) for block in range(first, last + 1))
        return whole[offset - first * PIECE : stop - first * PIECE]

    def write_to(self, path: Path) -> Path:
        """The same bytes as a file, which is sent faster."""
        with path.open("wb") as file:
            for offset in range(0, self.size, PIECE):
                file.write(self.read(offset, PIECE))
        return path

    def _numbered(self, block: int) -> bytes:
        pages = PIECE // PAGE
        numbers = array.array("Q", range(block * pages, (block + 1) * pages))
        if sys.byteorder == "big":
            numbers.byteswap()
        data = bytearray(self._block)
        memoryview(data).cast("Q")[:: PAGE // 8] = memoryview(numbers)
        return bytes(data)


class Altered:
    """Another content with single bytes inverted: what a broken disk or line makes of it."""

    path = None

    def __init__(self, content: Content, offsets: tuple[int, ...]) -> None:
        self._content = content
        self._offsets = offsets
        self.size = content.size
        self.identity = f"{content.identity}:{offsets}"

    def read(self, offset: int, count: int) -> bytes:
        data = bytearray(self._content.read(offset, count))
        for at in self._offsets:
            if offset <= at < offset + len(data):
                data[at - offset] ^= 0xFF
        return bytes(data)


@functools.lru_cache(maxsize=8)  # 1 MiB each
def _chance(seed: int) -> bytes:
    return random.Random(seed).randbytes(PIECE)


class Blob:
    """A content as the hub keeps it: with its names.

    `lfs` says whether it is in large file storage; `xet` whether the hub says that it is in Xet storage too.
    """

    def __init__(self, content: Content, *, lfs: bool, xet: bool) -> None:
        self.content = content
        self.lfs = lfs
        self.xet = xet and lfs
        self._hashing = threading.Lock()  # one thread hashes; the others wait for what it finds

    @property
    def size(self) -> int:
        return self.content.size

    @functools.cached_property
    def _sha256(self) -> str:
        return _digest(hashlib.sha256(), self.content)

    @functools.cached_property
    def _git_sha1(self) -> str:
        return _digest(hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False), self.content)

    @property
    def sha256(self) -> str:
        """SHA-256 of the content, 64 hex digits."""
        with self._hashing:
            return self._sha256

    @property
    def oid(self) -> str:
        """Git's blob SHA-1, 40 hex digits: of a plain file itself, of an LFS file's pointer."""
        if self.lfs:
            pointer = self.pointer
            return hashlib.sha1(b"blob %d\0" % len(pointer) + pointer, usedforsecurity=False).hexdigest()
        with self._hashing:
            return self._git_sha1

    @property
    def pointer(self) -> bytes:
        """The text that git holds in place of an LFS file."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @property
    def etag(self) -> str:
        """What the hub calls the file, without quotes: SHA-256 for LFS, git's blob SHA-1 for plain files."""
        return self.sha256 if self.lfs else self.oid

    @property
    def xet_hash(self) -> str | None:
        """64 hex digits in the shape of a Xet hash, where the hub says that it has one; no real chunk tree is behind it."""
        return hashlib.sha256(b"xet " + self.sha256.encode()).hexdigest() if self.xet else None

    @property
    def storage_etag(self) -> str:
        """What object storage calls the file, without quotes: the shape of an upload in parts, which is no hash of it."""
        parts = max(1, -(-self.size // (16 << 20)))
        return f"{hashlib.md5(self.sha256.encode(), usedforsecurity=False).hexdigest()}-{parts}"


def _digest(digest: hashlib._Hash, content: Content) -> str:
    for offset in range(0, content.size, PIECE):
        digest.update(content.read(offset, PIECE))
    return digest.hexdigest()


def content_of(data: Content | bytes | str | Path) -> Content:
    """Bytes, a text (as UTF-8), a path, or what is a content already."""
    match data:
        case bytes():
            return Held(data)
        case str():
            return Held(data.encode())
        case Path():
            return OnDisk(data)
        case _:
            return data
