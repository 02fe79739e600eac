"""LoRA adapters that people registered on this node, and what their layers are to a stage.

Registering checks and converts everything before it answers: parts first, then the row in the database, so a kill leaves
parts that nobody needs and the next start forgets. Publishes `AdapterRegistered` and `AdapterRemoved`.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from swarmd.domain.adapters import Adapter, AdapterRef, NewAdapter, is_adapter_id
from swarmd.domain.events import AdapterRegistered, AdapterRemoved
from swarmd.domain.ids import ModelId, NodeId, model_slug
from swarmd.domain.models import ShardSpec
from swarmd.domain.refusals import BadFile, Busy, Invalid, NoSpace, Refusal
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk, TooLarge
from swarmd.kit.world import World
from swarmd.models import lora
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.models.safetensors import LENGTH_BYTES, BadSafetensors, StoredTensor, header_length, parse_header
from swarmd.shards.adapter_exchange import AdapterExchange
from swarmd.shards.adapter_parts import REMOVED, AdapterParts
from swarmd.store import adapters as sql
from swarmd.store.database import Database

ADAPTERS_LIMIT: Final = 256  # registered on one node; each has an index in memory
FILE_LIMIT: Final = lora.ADAPTER_LIMIT + (8 << 20)  # bytes of a safetensors file: what float32 has at most, and its header
TRIES: Final = 2  # a part that is damaged on the disk is fetched once more
CONFIG_NAME: Final = "adapter_config.json"
CONFIG_LIMIT: Final = 1 << 20  # bytes; real ones have 1 KB


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSlices:
    """An adapter as one stage loads it."""

    ref: AdapterRef
    files: Mapping[int, tuple[Path, int] | None]
    """By shard: a GGUF and its size in bytes; None where the adapter changes nothing."""


class Adapters:
    """Owner of the registrations."""

    def __init__(
        self,
        *,
        folder: Path,
        more_folder: Callable[[], str],
        catalog: Catalog,
        parts: AdapterParts,
        exchange: AdapterExchange,
        db: Database,
        disk: Disk,
        world: World,
        bus: EventBus,
    ) -> None:
        """Files are taken from `folder` and, unless empty, `more_folder`."""
        self._folder, self._more_folder = folder, more_folder
        self._catalog, self._parts, self._exchange = catalog, parts, exchange
        self._db, self._disk, self._world, self._bus = db, disk, world, bus
        self._adapters: dict[str, Adapter] = {}
        self._registering = asyncio.Lock()
        """One conversion at a time: it holds a part in memory and reads a whole file."""
        self._arriving: bytes | None = None
        """Of the adapter that is being registered: its parts must not make room for others'."""

    async def load(self) -> None:
        await self._disk.make_folder(self._folder)
        self._adapters = {adapter.id: adapter for adapter in await sql.read_adapters(self._db)}
        await asyncio.to_thread(self._parts.load_now)

    def digests(self) -> frozenset[bytes]:
        """Of what stays on the disk."""
        found = {adapter.ref.digest for adapter in self._adapters.values()}
        return frozenset(found if self._arriving is None else {*found, self._arriving})

    def all(self) -> tuple[Adapter, ...]:
        """By id."""
        return tuple(self._adapters[id] for id in sorted(self._adapters))

    def get(self, id: str) -> Adapter | None:
        return self._adapters.get(id)

    # -- people

    async def register(self, new: NewAdapter) -> Adapter | Refusal:
        """Checks and converts it. What is wrong is refused with the field that is to blame."""
        known = self._base(new.base_model)
        if isinstance(known, Refusal):
            return known
        async with self._registering:
            id = new.id or str(uuid.UUID(bytes=self._world.entropy.token(16), version=4))
            if not is_adapter_id(id):
                what = f"id {id[:80]!r} is none: 1 to 64 letters, digits, '.', '_' and '-', a letter or digit first"
                return Invalid(what=what, param="id")
            if id in self._adapters:
                what = f"adapter {id!r} is registered already: remove it first, or choose another id"
                return Invalid(what=what, param="id")
            if len(self._adapters) >= ADAPTERS_LIMIT:
                return Invalid(what=f"{ADAPTERS_LIMIT} adapters are registered already: remove one", param="id")
            path = await asyncio.to_thread(self._resolve_now, new.path)
            if isinstance(path, Refusal):
                return path
            try:
                made = await self._convert(path, new, known)
                if isinstance(made, Refusal):
                    return made
                adapter = replace(made, id=id)
                async with self._db.transaction() as tx:
                    await sql.write_adapter(tx, adapter)
                self._adapters[id] = adapter
            except OSError as error:
                what = f"adapter {new.path[:200]!r} cannot be read or kept: {error.strerror or error}"
                return BadFile(what=what, param="path")
            except asyncio.CancelledError:
                self._arriving = None  # the row may be in the database by now: the next start needs its parts
                raise
            finally:
                digest, self._arriving = self._arriving, None
                if digest is not None and digest not in self.digests():
                    await self._parts.forget(digest)
        self._bus.publish(AdapterRegistered(adapter=id, model=adapter.base_model))
        return adapter

    async def remove(self, id: str) -> Adapter | Refusal:
        """The file that it was made from stays."""
        adapter = self._adapters.get(id)
        if adapter is None:
            return Invalid(what=f"no adapter {id[:80]!r} is registered here", param="id")
        async with self._db.transaction() as tx:
            await sql.delete_adapter(tx, id)
        self._adapters.pop(id, None)
        await self._parts.forget(adapter.ref.digest)  # another registration of the same content keeps it
        self._bus.publish(AdapterRemoved(adapter=id, model=adapter.base_model))
        return adapter

    # -- stages

    async def prepare(
        self, ref: AdapterRef, known: KnownModel, first: int, last: int, *, source: NodeId | None
    ) -> AdapterSlices | Refusal:
        """The adapter's slices for shards [first, last]. `source`: who has what is missing here."""
        specs = known.manifest.shards[first : last + 1]
        found: AdapterSlices | Refusal = Busy(what=REMOVED)
        for _ in range(TRIES):
            refusal = await self._exchange.fetch(ref, known, specs[0].layer_start, specs[-1].layer_end, source=source)
            if refusal is not None:
                return refusal
            try:
                found = await self._slices(ref, specs)
            except OSError as error:
                return Busy(what=f"the adapter cannot be written on this node: {error.strerror or error}")
            if isinstance(found, AdapterSlices):
                return found
        return found

    async def _slices(self, ref: AdapterRef, specs: Sequence[ShardSpec]) -> AdapterSlices | Refusal:
        files: dict[int, tuple[Path, int] | None] = {}
        for spec in specs:
            file = await self._parts.slice(ref.digest, spec.layer_start, spec.layer_end)
            if isinstance(file, Refusal):
                return file
            files[spec.index] = file
        return AdapterSlices(ref=ref, files=files)

    # -- inside

    def _base(self, name: str) -> KnownModel | Invalid:
        try:
            model = model_slug(name)
        except ValueError:
            model = ModelId("")
        known = self._catalog.get(model)
        if known is None:
            return Invalid(what=f"base_model {name[:200]!r} is not known on this node: add it first", param="base_model")
        return known

    def _resolve_now(self, text: str) -> Path | Invalid:
        """A file inside one of the folders, after symbolic links (design, ruling 10)."""
        given = Path(text)
        if not text or "\0" in text or ".." in given.parts:
            return Invalid(what=f"path {text[:200]!r} must not be empty, nor go up with '..'", param="path")
        more = self._more_folder()
        roots = [self._folder, *([Path(more).expanduser()] if more else [])]
        inside = " or ".join(str(root) for root in roots)
        try:
            resolved = (self._folder / given).resolve()  # an absolute path stays what it is
            allowed = any(resolved.is_relative_to(root.resolve()) for root in roots)
            if allowed and not resolved.is_file():
                return Invalid(what=f"there is no file {text[:200]!r} in {inside}", param="path")
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            return Invalid(what=f"path {text[:200]!r} cannot be followed: {error}", param="path")
        if not allowed:
            what = f"path {text[:200]!r} lies outside {inside}: put the file there, or set inference.adapter_folder"
            return Invalid(what=what, param="path")
        return resolved

    async def _convert(self, path: Path, new: NewAdapter, known: KnownModel) -> Adapter | Refusal:
        """Its parts and its index are on the disk afterwards. Raises OSError."""
        plan = await asyncio.to_thread(self._plan_now, path, new, known)
        if isinstance(plan, Refusal):
            return plan
        free, needed = await self._disk.free_bytes(self._folder), 2 * _converted_bytes(plan)  # a slice of each, too
        if free < needed:
            return NoSpace(needed_bytes=needed, free_bytes=free)
        # Hashes come first, and the index of them: parts lie under its digest. So every layer is converted twice.
        parts: list[lora.Part] = []
        for layer in plan.layers:
            data = await asyncio.to_thread(self._layer_now, path, plan, layer)
            if isinstance(data, Refusal):
                return data
            hashed = await asyncio.to_thread(lora.part_hash, data)
            parts.append(lora.Part(layer, hashed, [one.pair() for one in plan.layers[layer]]))
        index = lora.Index(plan.architecture.name, plan.effective_alpha, parts)
        encoded = lora.encode_index(index)
        digest = self._arriving = lora.digest_of(encoded)
        kept = await self._parts.keep_index(digest, encoded)
        if isinstance(kept, Refusal):
            return kept
        for part in self._parts.missing(digest, 0, known.architecture.layer_count):
            data = await asyncio.to_thread(self._layer_now, path, plan, part.layer)
            refusal = data if isinstance(data, Refusal) else await self._parts.keep_part(digest, part.layer, data)
            if refusal is not None:
                return refusal
        return Adapter(
            id="", name=new.name, base_model=known.manifest.model, rank=plan.rank, alpha=plan.alpha, path=str(path),
            ref=AdapterRef(digest=digest, size_bytes=index.size_bytes),
        )  # fmt: skip

    def _plan_now(self, path: Path, new: NewAdapter, known: KnownModel) -> lora.Plan | BadFile:
        size = self._disk.size_bytes_now(path)
        if size > FILE_LIMIT:
            return BadFile(what=f"the adapter has {size} bytes, at most {FILE_LIMIT} are taken", param="path")
        try:
            length = header_length(self._disk.read_range_now(path, 0, LENGTH_BYTES), size)
            tensors = parse_header(self._disk.read_range_now(path, LENGTH_BYTES, length), size)
        except BadSafetensors as error:
            return BadFile(what=f"{path.name} is no safetensors file that can be used: {error}", param="path")
        config: lora.PeftConfig | None = None
        try:
            read = lora.read_config(self._disk.read_bytes_now(path.with_name(CONFIG_NAME), limit=CONFIG_LIMIT))
            if isinstance(read, BadFile):
                return read
            config = read
        except FileNotFoundError:
            pass
        except TooLarge:
            return BadFile(what=f"{CONFIG_NAME} beside the adapter has more than {CONFIG_LIMIT} bytes", param="path")
        return lora.plan_adapter(
            tensors, known.header, known.architecture, rank=new.rank, alpha=new.alpha, config=config
        )

    def _layer_now(self, path: Path, plan: lora.Plan, layer: int) -> bytes | BadFile:
        pieces: list[bytes] = []
        for pair in plan.layers[layer]:
            a, b = self._tensor_now(path, pair.a), self._tensor_now(path, pair.b)
            if len(a) != pair.a.size_bytes or len(b) != pair.b.size_bytes:
                return BadFile(what=f"{path.name} became shorter while it was read", param="path")
            piece = lora.convert(pair, a, b, plan.architecture)
            if isinstance(piece, BadFile):
                return replace(piece, what=f"layer {layer}, {piece.what}")
            pieces.append(piece)
        return b"".join(pieces)

    def _tensor_now(self, path: Path, tensor: StoredTensor) -> bytes:
        return self._disk.read_range_now(path, tensor.offset, tensor.size_bytes)


def _converted_bytes(plan: lora.Plan) -> int:
    return sum(4 * math.prod(one.shape) for pairs in plan.layers.values() for pair in pairs for one in (pair.a, pair.b))
