"""A local GGUF file becomes shards: read its header, choose the cuts, hash the payloads.

The file is read twice, once to hash and once to copy, and never held in memory: a chunk at a time, in a thread. One that
is split counts as the file that its parts were: their headers are merged (`models.split_files`), offsets are of the whole.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import blake3

from swarmd.domain.ids import ModelId, model_slug
from swarmd.domain.models import CHUNK_BYTES, Manifest, ShardSpec
from swarmd.domain.refusals import BadFile
from swarmd.kit.disk import Disk
from swarmd.models.catalog import HEADER_LIMIT
from swarmd.models.gguf import BadGguf, GgufHeader, HeaderParser
from swarmd.models.manifest import PayloadHash, PayloadHasher
from swarmd.models.shard_file import Run, source_runs
from swarmd.models.slicing import Cut
from swarmd.models.split_files import Merged, merge, part_names, part_of, whole_name
from swarmd.shards.landing import pieces

_HEADER_STEP: Final = 1024 * 1024  # bytes a read: headers with a vocabulary have 2 to 16 of these

Progress = Callable[[int], None]
"""Told the number of payload bytes done since the last call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPart:
    """One file of a GGUF: all of it, or a part as `gguf-split` writes them."""

    path: Path
    size_bytes: int
    data_offset: int
    """Where its tensor data starts."""
    virtual_offset: int
    """Where that lies in the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFile:
    """A GGUF whose header was read and is sound, in one file or in several."""

    path: Path
    """Of the file, or of its first part: how people are told of it."""
    size_bytes: int
    """Of the whole."""
    header: GgufHeader
    header_data: bytes
    """The whole up to its tensor data."""
    parts: tuple[LocalPart, ...]
    """In order, at least one."""

    @property
    def header_blake3(self) -> str:
        return blake3.blake3(self.header_data).hexdigest()

    @property
    def stem(self) -> str:
        """Its name without folder and extension, as if it were not split."""
        return Path(whole_name(self.path.name)).stem


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """One file with its own header."""

    path: Path
    size_bytes: int
    header: GgufHeader
    data: bytes


def model_of_path(path: Path) -> ModelId | BadFile:
    """The id under which the model of this file is known: that of the hub's file of the same name."""
    try:
        return model_slug(whole_name(path.name))
    except ValueError as error:
        return BadFile(what=f"no model id can be made of the file name {path.name!r}: rename it ({error})")


async def open_local(path: Path, disk: Disk) -> LocalFile | BadFile:
    """`path`: of a GGUF, or of any part of one whose other parts lie beside it."""
    return await asyncio.to_thread(open_local_now, path, disk)


def open_local_now(path: Path, disk: Disk) -> LocalFile | BadFile:
    names = part_names(path.name)
    paths = [path] if len(names) == 1 else [path.with_name(name) for name in names]
    heads: list[_Head] = []
    room = HEADER_LIMIT  # together no more than the one may have that they become
    for one in paths:
        if len(paths) > 1 and not disk.exists_now(one):
            what = f"{path} is a part of a GGUF of {len(paths)} files, and {one.name} is missing: put it beside the others"
            return BadFile(what=what)
        head = _read_head_now(one, disk)
        if isinstance(head, BadFile):
            return head
        heads.append(head)
        room -= len(head.data)
        if room < 0:
            return BadFile(what=f"the headers of {paths[0]} and the parts beside it have more than {HEADER_LIMIT} bytes")
    return _single(heads[0]) if len(heads) == 1 else _several(heads)


def _read_head_now(path: Path, disk: Disk) -> _Head | BadFile:
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
    return _Head(path=path, size_bytes=status.st_size, header=header, data=header_data)


def _single(head: _Head) -> LocalFile | BadFile:
    try:
        count = head.header.integer("split.count") or 1
    except BadGguf as error:
        return BadFile(what=f"{head.path} is not a GGUF file that can be used: {error}")
    if count > 1 and part_of(head.path.name) is None:
        return BadFile(
            what=f"{head.path} is one of {count} parts of a GGUF: give all of them their names back, "
            f"{head.path.stem}-00001-of-{count:05d}.gguf and so on, side by side"
        )
    start = head.header.data_offset
    part = LocalPart(path=head.path, size_bytes=head.size_bytes, data_offset=start, virtual_offset=start)
    return LocalFile(path=head.path, size_bytes=head.size_bytes, header=head.header, header_data=head.data, parts=(part,))


def _several(heads: list[_Head]) -> LocalFile | BadFile:
    try:
        merged: Merged = merge([head.header for head in heads], [head.size_bytes for head in heads])
    except BadGguf as error:
        return BadFile(what=f"{heads[0].path} and the parts beside it are no GGUF that can be used: {error}")
    parts = tuple(
        LocalPart(path=head.path, size_bytes=head.size_bytes, data_offset=head.header.data_offset, virtual_offset=offset)
        for head, offset in zip(heads, merged.offsets, strict=True)
    )
    return LocalFile(
        path=heads[0].path, size_bytes=merged.size_bytes, header=merged.header, header_data=merged.header_data, parts=parts
    )


async def hash_payload(local: LocalFile, cut: Cut, disk: Disk, progress: Progress) -> PayloadHash:
    """Reads the whole payload of one shard. Raises OSError, also when the file has become shorter."""
    runs = runs_of(local, cut)
    hasher = PayloadHasher()
    for offset in range(0, cut.size_bytes, CHUNK_BYTES):
        size = min(CHUNK_BYTES, cut.size_bytes - offset)

        def work(offset: int = offset, size: int = size) -> None:
            hasher.feed(_read(local, runs, offset, size, disk))

        await asyncio.to_thread(work)
        progress(size)
    return hasher.finish()


async def read_chunk(local: LocalFile, shard: ShardSpec, number: int, disk: Disk) -> bytes:
    """One chunk of a shard's payload, out of the original file. Raises OSError."""
    offset = number * CHUNK_BYTES
    size = min(CHUNK_BYTES, shard.size_bytes - offset)
    return await asyncio.to_thread(_read, local, source_runs(shard), offset, size, disk)


async def is_same_file(local: LocalFile, manifest: Manifest, disk: Disk) -> bool:
    """Whether the file is the one this manifest was made of: size, header, and the first chunk of every shard.

    Cheap enough for a file that is added twice. What it does not see, the hash of each chunk does when it is copied.
    """
    if local.size_bytes != manifest.file_size_bytes or local.header_blake3 != manifest.header_blake3:
        return False
    for shard in manifest.shards:
        if not shard.sealed:  # nobody has read it yet: header and size have to do
            continue
        data = await read_chunk(local, shard, 0, disk)
        if blake3.blake3(data).hexdigest() != shard.chunk_blake3[0]:
            return False
    return True


async def is_same_throughout(local: LocalFile, manifest: Manifest, disk: Disk, progress: Progress) -> bool:
    """As `is_same_file`, and every chunk: for a manifest that somebody else made. Reads the whole file."""
    if not await is_same_file(local, manifest, disk):
        return False
    for shard in manifest.shards:
        for number, expected in enumerate(shard.chunk_blake3):
            data = await read_chunk(local, shard, number, disk)
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


def _read(local: LocalFile, runs: Iterable[Run], offset: int, size: int, disk: Disk) -> bytes:
    data = b"".join(
        disk.read_range_now(path, at, count)
        for start, _, length in pieces(runs, offset, size)
        for path, at, count in _in_parts(local, start, length)
    )
    if len(data) != size:
        raise OSError(f"{local.path} has become shorter while it was read")
    return data


def _in_parts(local: LocalFile, start: int, size: int) -> list[tuple[Path, int, int]]:
    """Where bytes [start, start + size) of the whole lie: (file, offset in it, count) each. A run of a payload may end in
    another part than it begins."""
    found: list[tuple[Path, int, int]] = []
    bounds = [*(part.virtual_offset for part in local.parts), start + size]
    for part, (first, end) in zip(local.parts, pairwise(bounds), strict=True):
        at, last = max(start, first), min(start + size, end)
        if at < last:
            found.append((part.path, part.data_offset + at - first, last - at))
    return found
