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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A tensor, and where its bytes are here."""

    span: TensorSpan
    shard: int
    payload_offset: int


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
            gaps = 0
            async for data in self._header(known, part):
                await asyncio.to_thread(hasher.update, data)
            position, last = part.virtual_offset, part.virtual_offset + part.size_bytes - part.data_offset
            for place in inside:
                gaps += place.span.offset_bytes - position
                hasher.update(bytes(place.span.offset_bytes - position))
                await self._hash(known, place, hasher.update)
                position = place.span.offset_bytes + place.span.size_bytes
            gaps += last - position
            hasher.update(bytes(max(0, last - position)))
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

    async def _hash(self, known: KnownModel, place: _Place, update: Callable[[bytes], object]) -> None:
        ref = ShardRef(known.manifest.model, place.shard)
        for offset in range(0, place.span.size_bytes, STEP_BYTES):
            size = min(STEP_BYTES, place.span.size_bytes - offset)
            data = await self._storage.read_payload(ref, place.payload_offset + offset, size)
            await asyncio.to_thread(update, data)


def _places(known: KnownModel) -> list[_Place]:
    """Every tensor once, in the order of the file."""
    found: dict[str, _Place] = {}
    for shard in known.manifest.shards:
        position = 0
        for span in shard.tensors:
            found.setdefault(span.name, _Place(span=span, shard=shard.index, payload_offset=position))
            position += span.size_bytes
    return sorted(found.values(), key=lambda place: place.span.offset_bytes)
