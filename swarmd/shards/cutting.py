"""A local GGUF file becomes shards: read its header, choose the cuts, hash the payloads.

The file is read twice, once to hash and once to copy, and never held in memory: a chunk at a time, in a thread.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import blake3

from swarmd.domain.models import CHUNK_BYTES, Manifest, ShardSpec
from swarmd.domain.refusals import BadFile
from swarmd.kit.disk import Disk
from swarmd.models.gguf import BadGguf, GgufHeader, HeaderParser
from swarmd.models.manifest import PayloadHash, PayloadHasher
from swarmd.models.shard_file import Run, source_runs
from swarmd.models.slicing import Cut
from swarmd.shards.landing import pieces

_HEADER_STEP: Final = 1024 * 1024  # bytes a read: headers with a vocabulary have 2 to 16 of these

Progress = Callable[[int], None]
"""Told the number of payload bytes done since the last call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFile:
    """A GGUF file whose header was read and is sound."""

    path: Path
    size_bytes: int
    header: GgufHeader
    header_data: bytes
    """The file up to its tensor data."""

    @property
    def header_blake3(self) -> str:
        return blake3.blake3(self.header_data).hexdigest()


async def open_local(path: Path, disk: Disk) -> LocalFile | BadFile:
    return await asyncio.to_thread(open_local_now, path, disk)


def open_local_now(path: Path, disk: Disk) -> LocalFile | BadFile:
    try:
        status = path.stat()
        # Before anything is opened: a pipe or a device would block for ever.
        if not stat.S_ISREG(status.st_mode):
            return BadFile(what=f"{path} is not a regular file: give the path of a GGUF file")
        parser = HeaderParser(file_size_bytes=status.st_size)
        header: GgufHeader | None = None
        offset = 0
        while header is None:
            data = disk.read_range_now(path, offset, _HEADER_STEP)
            if not data:
                return BadFile(what=f"{path} is not a whole GGUF file: it ends within {parser.where}")
            header = parser.feed(data)
            offset += len(data)
        header_data = disk.read_range_now(path, 0, header.data_offset)
    except BadGguf as error:
        return BadFile(what=f"{path} is not a GGUF file that can be used: {error}")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        return BadFile(what=f"{str(path)!r} cannot be read: {error}")
    if len(header_data) != header.data_offset:
        return BadFile(what=f"{path} ends within its header")
    return LocalFile(path=path, size_bytes=status.st_size, header=header, header_data=header_data)


async def hash_payload(local: LocalFile, cut: Cut, disk: Disk, progress: Progress) -> PayloadHash:
    """Reads the whole payload of one shard. Raises OSError, also when the file has become shorter."""
    runs = runs_of(local, cut)
    hasher = PayloadHasher()
    for offset in range(0, cut.size_bytes, CHUNK_BYTES):
        size = min(CHUNK_BYTES, cut.size_bytes - offset)

        def work(offset: int = offset, size: int = size) -> None:
            hasher.feed(_read(local.path, runs, offset, size, disk))

        await asyncio.to_thread(work)
        progress(size)
    return hasher.finish()


async def read_chunk(path: Path, shard: ShardSpec, number: int, disk: Disk) -> bytes:
    """One chunk of a shard's payload, out of the original file. Raises OSError."""
    offset = number * CHUNK_BYTES
    size = min(CHUNK_BYTES, shard.size_bytes - offset)
    return await asyncio.to_thread(_read, path, source_runs(shard), offset, size, disk)


async def is_same_file(local: LocalFile, manifest: Manifest, disk: Disk) -> bool:
    """Whether the file is the one this manifest was made of: size, header, and the first chunk of every shard.

    Cheap enough for a file that is added twice. What it does not see, the hash of each chunk does when it is copied.
    """
    if (local.size_bytes, local.header_blake3) != (manifest.file_size_bytes, manifest.header_blake3):
        return False
    for shard in manifest.shards:
        if not shard.sealed:  # nobody has read it yet: header and size have to do
            continue
        data = await read_chunk(local.path, shard, 0, disk)
        if blake3.blake3(data).hexdigest() != shard.chunk_blake3[0]:
            return False
    return True


async def is_same_throughout(local: LocalFile, manifest: Manifest, disk: Disk, progress: Progress) -> bool:
    """As `is_same_file`, and every chunk: for a manifest that somebody else made. Reads the whole file."""
    if not await is_same_file(local, manifest, disk):
        return False
    for shard in manifest.shards:
        for number, expected in enumerate(shard.chunk_blake3):
            data = await read_chunk(local.path, shard, number, disk)
            if blake3.blake3(data).hexdigest() != expected:
                return False
            progress(len(data))
    return True


def runs_of(local: LocalFile, cut: Cut) -> tuple[Run, ...]:
    """Where the payload of a cut lies in the file."""
    runs: list[Run] = []
    position = 0
    for tensor in cut.tensors:
        at = local.header.data_offset + tensor.offset_bytes
        runs.append(Run(payload_offset=position, size=tensor.size_bytes, file_offset=at))
        position += tensor.size_bytes
    return tuple(runs)


def _read(path: Path, runs: Iterable[Run], offset: int, size: int, disk: Disk) -> bytes:
    data = b"".join(disk.read_range_now(path, at, count) for at, _, count in pieces(runs, offset, size))
    if len(data) != size:
        raise OSError(f"{path} has become shorter while it was read")
    return data

