"""Whether the shards of a model are, together, the file that the hub says they are: its SHA-256 over all of them.

A shard that was read from the hub has no hash of the hub's own; the file has one. So a node that holds all shards can put
the file together in its mind: header, tensors in the order of the file, and zeros between them, which is what every program
that writes GGUF puts there. Where a file has bytes between its tensors and the hash does not fit, nobody can tell.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from swarmd.domain.hub import HubPart
from swarmd.domain.ids import ShardRef
from swarmd.domain.models import TensorSpan
from swarmd.downloads.ranges import RangeClient, RemoteFile
from swarmd.kit.disk import Disk
from swarmd.models.catalog import HEADER_LIMIT, HEADER_NAME, Catalog, KnownModel
from swarmd.shards.storage import ShardStorage

STEP_BYTES: Final = 8 << 20  # read and hashed at a time
GAPS_LIMIT: Final = 256 << 20  # of one file; padding is some kB, and the hash of this much zeros takes a second


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A tensor, and where its bytes are here."""

    span: TensorSpan
    copies: tuple[tuple[int, int], ...]
    """Shard, and offset in its payload. A tied embedding is in the first shard and in the last."""


class WholeCheck:
    """One per node."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        storage: ShardStorage,
        disk: Disk,
        client: RangeClient,
        url: Callable[[str, str, str], str],
    ) -> None:
        """`url`: of (repository, commit, file name)."""
        self._catalog, self._storage, self._disk, self._client, self._url = catalog, storage, disk, client, url

    async def matches(self, known: KnownModel) -> bool | None:
        """None: it cannot be told. All shards have to be held. Raises OSError, SourceTrouble, SourceRefused."""
        source = known.manifest.source
        if source is None or not source.parts[0].sha256:
            return None
        places = _places(known)
        ends = [*(part.virtual_offset for part in source.parts[1:]), known.manifest.file_size_bytes]
        for part, end in zip(source.parts, ends, strict=True):
            if part.sha256 is None:
                return None
            hasher = hashlib.sha256()
            inside = [place for place in places if part.virtual_offset <= place.span.offset_bytes < end]
            gaps = part.size_bytes - part.data_offset - sum(place.span.size_bytes for place in inside)
            if gaps > GAPS_LIMIT:
                return None
            async for data in self._header(known, part):
                await asyncio.to_thread(hasher.update, data)
            position, last = part.virtual_offset, part.virtual_offset + part.size_bytes - part.data_offset
            for place in inside:
                await _hash_zeros(place.span.offset_bytes - position, hasher.update)
                if not await self._hash(known, place, hasher.update):
                    return False
                position = place.span.offset_bytes + place.span.size_bytes
            await _hash_zeros(last - position, hasher.update)
            if hasher.hexdigest() != part.sha256:
                return None if gaps else False
        return True

    async def _header(self, known: KnownModel, part: HubPart) -> AsyncIterator[bytes]:
        """The part up to its tensor data: of a file in one piece it is here, else the hub has it."""
        source = known.manifest.source
        assert source is not None, "asked above"
        if len(source.parts) == 1:
            path = self._catalog.folder(known.manifest.model) / HEADER_NAME
            yield await self._disk.read_bytes(path, limit=HEADER_LIMIT)
            return
        file = RemoteFile(
            url=self._url(source.repo_id, source.commit, part.filename), size_bytes=part.size_bytes, name=part.filename,
            sha256=part.sha256,
        )  # fmt: skip
        async with self._client.open(file, 0, part.data_offset) as body:
            async for data in body:
                yield data

    async def _hash(self, known: KnownModel, place: _Place, update: Callable[[bytes], object]) -> bool:
        """False: its copies are not alike, so one of them is wrong whatever the hash."""
        for offset in range(0, place.span.size_bytes, STEP_BYTES):
            size = min(STEP_BYTES, place.span.size_bytes - offset)
            data = None
            for shard, start in place.copies:
                ref = ShardRef(known.manifest.model, shard)
                again = await self._storage.read_payload(ref, start + offset, size)
                if data is None:
                    data = again
                    await asyncio.to_thread(update, data)
                elif data != again:
                    return False
        return True


async def _hash_zeros(count: int, update: Callable[[memoryview], object]) -> None:
    if count > 0:
        zeros = memoryview(bytes(min(count, STEP_BYTES)))
        for offset in range(0, count, STEP_BYTES):
            await asyncio.to_thread(update, zeros[: count - offset])


def _places(known: KnownModel) -> list[_Place]:
    """Every tensor once, in the order of the file."""
    spans: dict[str, TensorSpan] = {}
    copies: dict[str, list[tuple[int, int]]] = {}
    for shard in known.manifest.shards:
        position = 0
        for span in shard.tensors:
            spans.setdefault(span.name, span)
            copies.setdefault(span.name, []).append((shard.index, position))
            position += span.size_bytes
    places = (_Place(span=span, copies=tuple(copies[name])) for name, span in spans.items())
    return sorted(places, key=lambda place: place.span.offset_bytes)
