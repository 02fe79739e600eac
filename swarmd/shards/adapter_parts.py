"""Parts of LoRA adapters on this node's disk, each under the digest of its adapter, and the slices made of them.

What belongs to an adapter that is registered here stays; what was fetched for other nodes' generations makes room for newer
ones. A part is compared with its hash when it comes and when a slice is made of it, so a slice is what its digest says. The
folder of a digest has `index`, a file for each layer, and the slices, which can always be made again.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from swarmd.domain.refusals import BadFile, NoSpace, NotFound, Refusal
from swarmd.kit.disk import Disk
from swarmd.models import lora

INDEX_NAME: Final = "index"
FOREIGN_BYTES: Final = 2 * lora.ADAPTER_LIMIT
"""Of what was fetched for others: the largest adapter with all its slices."""
FOREIGN_COUNT: Final = 64  # digests; their indices are in memory, up to 400 KiB each
REMOVED: Final = "the adapter was removed meanwhile: try again"
_FOLDER: Final = re.compile(r"[0-9a-f]{64}")

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Kept:
    """One adapter."""

    index: lora.Index
    layers: set[int]
    """Whose parts are here."""
    slices: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    """Sizes in bytes, by layers [start, end)."""

    def size_bytes(self) -> int:
        return sum(part.size_bytes for part in self.index.parts if part.layer in self.layers) + sum(self.slices.values())


class AdapterParts:
    """Owner of the folder. Methods belong to the event loop; disk work runs in threads."""

    def __init__(
        self, *, root: Path, disk: Disk, registered: Callable[[], Collection[bytes]], budget_bytes: int = FOREIGN_BYTES
    ) -> None:
        """`registered`: digests that stay."""
        self._root, self._disk, self._registered, self._budget = root, disk, registered, budget_bytes
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()  # the latest used last; at most FOREIGN_COUNT foreign ones
        self._writing = asyncio.Lock()
        """One writes or deletes at a time."""

    def load_now(self) -> None:
        """Start-up: what cannot be read is deleted, it comes again from where it came."""
        self._disk.make_folder_now(self._root, mode=0o700)
        for folder in self._disk.list_folder_now(self._root):
            kept = self._read_now(folder) if _FOLDER.fullmatch(folder.name) else None
            if kept is None:
                self._disk.remove_folder_now(folder)
            else:
                self._kept[bytes.fromhex(folder.name)] = kept

    def _read_now(self, folder: Path) -> _Kept | None:
        try:
            data = self._disk.read_bytes_now(folder / INDEX_NAME, limit=lora.INDEX_LIMIT)
            index = lora.decode_index(data)
        except (OSError, lora.BadAdapter) as error:
            logger.warning("adapter %s is deleted: %s", folder.name[:16], error)
            return None
        if lora.digest_of(data).hex() != folder.name:
            return None
        sizes = {_part_name(part.layer): part for part in index.parts}
        layers: set[int] = set()
        for path in self._disk.list_folder_now(folder):
            part = sizes.get(path.name)
            if part is not None and self._disk.size_bytes_now(path) == part.size_bytes:
                layers.add(part.layer)
            elif path.name != INDEX_NAME:
                self._disk.remove_now(path)
        return _Kept(index, layers)

    def index(self, digest: bytes) -> lora.Index | None:
        kept = self._kept.get(digest)
        if kept is None:
            return None
        self._kept.move_to_end(digest)
        return kept.index

    def missing(self, digest: bytes, start: int, end: int) -> tuple[lora.Part, ...]:
        """Parts of layers [start, end) that are not here; the index is."""
        kept = self._kept[digest]
        return tuple(part for part in kept.index.between(start, end) if part.layer not in kept.layers)

    def path(self, digest: bytes, layer: int | None) -> Path | None:
        """Of a part, or of the index, to be read by a peer; None: not here."""
        kept = self._kept.get(digest)
        if kept is None or (layer is not None and layer not in kept.layers):
            return None
        return self._root / digest.hex() / (INDEX_NAME if layer is None else _part_name(layer))

    async def keep_index(self, digest: bytes, data: bytes | bytearray) -> lora.Index | Refusal:
        """BadFile: it is not what its digest says, or cannot be."""
        if lora.digest_of(data) != digest:
            return BadFile(what="an adapter's index has another digest than it was asked for with")
        try:
            index = lora.decode_index(data)
        except lora.BadAdapter as error:
            return BadFile(what=str(error))
        async with self._writing:
            if digest not in self._kept:
                await self._make_room(0, digest)
                folder = self._root / digest.hex()
                await self._disk.make_folder(folder, mode=0o700)
                await self._disk.write_atomic(folder / INDEX_NAME, memoryview(data), mode=0o600)
                self._kept[digest] = _Kept(index, set())
        return index

    async def keep_part(self, digest: bytes, layer: int, data: bytes | bytearray) -> Refusal | None:
        """BadFile: it is not what the index says; NoSpace: it does not fit the disk. Raises OSError."""
        kept = self._kept.get(digest)
        if kept is None:
            return NotFound(what=REMOVED)
        part = next((one for one in kept.index.parts if one.layer == layer), None)
        if part is None or len(data) != part.size_bytes or await asyncio.to_thread(lora.part_hash, data) != part.hash:
            return BadFile(what=f"what an adapter does to layer {layer} has another hash than its index says")
        async with self._writing:
            free = await self._disk.free_bytes(self._root)
            if free < 2 * len(data):  # a slice is made of it
                return NoSpace(needed_bytes=2 * len(data), free_bytes=free)
            if not await self._make_room(2 * len(data), digest):
                return NoSpace(needed_bytes=2 * len(data), free_bytes=self._budget)
            kept = self._kept.get(digest)
            if kept is None:
                return NotFound(what=REMOVED)
            await self._disk.write_atomic(self._root / digest.hex() / _part_name(layer), memoryview(data), mode=0o600)
            kept.layers.add(layer)
        return None

    async def slice(self, digest: bytes, start: int, end: int) -> tuple[Path, int] | Refusal | None:
        """A GGUF of layers [start, end) and its size; None: the adapter changes none of them.

        NotFound: a part is not here, or not any more what it was; then it counts as missing. Raises OSError.
        """
        async with self._writing:
            kept = self._kept.get(digest)
            if kept is None:
                return NotFound(what=REMOVED)
            self._kept.move_to_end(digest)
            cut = lora.slice_of(kept.index, start, end)
            if cut is None:
                return None
            path = self._root / digest.hex() / f"slice_{start}_{end}.gguf"
            if (start, end) in kept.slices and await self._disk.exists(path):
                return path, kept.slices[start, end]
            bad = await asyncio.to_thread(self._write_slice_now, path, kept.index, cut)
            if bad is not None:
                kept.layers.discard(bad)
                return NotFound(what=f"what the adapter does to layer {bad} is damaged on this node's disk")
            kept.slices[start, end] = cut.size_bytes
            return path, cut.size_bytes

    async def forget(self, digest: bytes) -> None:
        """Deletes it, unless it is registered."""
        async with self._writing:
            if digest in self._kept and digest not in self._registered():
                await self._drop(digest)

    def _write_slice_now(self, path: Path, index: lora.Index, cut: lora.Slice) -> int | None:
        """The layer whose part is damaged, or None. One part is in memory at a time."""
        temporary = path.with_name(f".{path.name}.tmp")
        self._disk.preallocate_now(temporary, cut.size_bytes)
        self._disk.write_range_now(temporary, 0, cut.header)
        parts = {part.layer: part for part in index.parts}
        data, held = b"", -1
        for layer, at, place, size in cut.places:
            if layer != held:
                part = parts[layer]
                try:
                    data = self._disk.read_bytes_now(path.with_name(_part_name(layer)), limit=part.size_bytes)
                except FileNotFoundError:
                    data = b""
                if len(data) != part.size_bytes or lora.part_hash(data) != part.hash:
                    self._disk.remove_now(temporary)
                    return layer
                held = layer
            self._disk.write_range_now(temporary, place, memoryview(data)[at : at + size])
        self._disk.rename_now(temporary, path)
        return None

    async def _make_room(self, more: int, newest: bytes) -> bool:
        """Drops foreign adapters, the longest unused first, until `more` bytes of `newest` fit the budget."""
        for digest in tuple(self._foreign()):
            foreign = list(self._foreign())
            used = sum(self._kept[one].size_bytes() for one in foreign)
            if used + more <= self._budget and len(foreign) + (newest not in self._kept) <= FOREIGN_COUNT:
                break
            if digest != newest:
                await self._drop(digest)
        if newest in self._registered():
            return True
        return sum(self._kept[one].size_bytes() for one in self._foreign()) + more <= self._budget

    def _foreign(self) -> Iterator[bytes]:
        registered = self._registered()
        return (digest for digest in self._kept if digest not in registered)

    async def _drop(self, digest: bytes) -> None:
        del self._kept[digest]
        await self._disk.remove_folder(self._root / digest.hex())


def _part_name(layer: int) -> str:
    return f"layer_{layer:03}"
