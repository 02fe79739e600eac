"""The models this node knows: manifest and original header of each, on disk and in memory.

A model is known once its manifest and its header passed their checks and lie in `models/<id>/`; holding shards of it is
another matter (`shards`). Owner of `manifest.json`, `gguf_header.bin` and `vocabulary.gguf`; publishes `ModelDiscovered`
and `ModelRemoved`. What a person removed is remembered by name, so that nobody brings it back by telling of it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import blake3
import msgspec

from swarmd.domain.events import ModelDiscovered, ModelRemoved
from swarmd.domain.hub import HubSource
from swarmd.domain.ids import MODEL_ID_MAX, ModelId, NodeId, parse_model_id, parse_node_id
from swarmd.domain.models import Manifest, TrustLevel
from swarmd.domain.refusals import BadFile, IdTaken, Refusal, UnsupportedModel
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk
from swarmd.models import manifest as manifests
from swarmd.models import seals
from swarmd.models.architectures import Architecture, check_supported
from swarmd.models.gguf import BadGguf, GgufHeader, parse_header
from swarmd.models.shard_file import ShardFile, shard_file, vocabulary_file

MANIFEST_NAME = "manifest.json"
HEADER_NAME = "gguf_header.bin"
VOCABULARY_NAME = "vocabulary.gguf"
PIN_NAME = "pinned"
SHARED_NAME = "shared"
TAKEN_SOURCE_NAME = "hub_source.json"
SOURCE_LIMIT = 1 << 20  # bytes: a thousand parts of 400
INTRODUCER_NAME = "introduced_by"
REMOVED_NAME = "_removed"  # beside the folders of the models; no model id has an underscore
REMOVED_LIMIT = 1024  # names; four times as many as a node can know. Beyond, the longest removed may be learned again
HEADER_LIMIT = 64 * 1024 * 1024  # the parser's own cap
MODELS_LIMIT = 256  # known at once; members could otherwise fill the disk with headers nobody asked for

_BESIDE = {HEADER_NAME, VOCABULARY_NAME, INTRODUCER_NAME, PIN_NAME, SHARED_NAME, TAKEN_SOURCE_NAME, "hf_source.json"}
_LEFT = re.compile(r"shard_\d+\.seal|\..*\.tmp")  # what a killed adoption or eviction may leave beside those

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A model with everything that is derived from its header once."""

    manifest: Manifest
    header: GgufHeader
    architecture: Architecture
    files: tuple[ShardFile, ...]
    """How each shard becomes a file here; same order as the manifest's shards."""
    pinned: bool
    """Somebody asked for it on this node."""
    shared: bool = False
    """Somebody on this node wants the swarm to hold it: every node that manages its shards takes its fair share."""
    introducer: NodeId | None = None
    """The peer that it was learned from; None: a file of this node, or learned before this was written down."""
    stored_bytes: int = 0
    """On the disk, shards not counted: manifest, header and vocabulary."""
    identity: str = ""
    """`seals.identity` of the manifest as it was published; `manifest` has the hashes of seals filled in."""


Admit = Callable[[KnownModel], tuple[ModelId, ...] | Refusal]
"""Which models give way to this one, or why it cannot come in. Must not change anything: the catalogue may still refuse."""


class Catalog:
    """One entry per model id. All methods belong to the event loop; disk work runs in threads."""

    def __init__(self, *, root: Path, disk: Disk, bus: EventBus, verify: manifests.Verify) -> None:
        self._root, self._disk, self._bus, self._verify = root, disk, bus, verify
        self._models: dict[ModelId, KnownModel] = {}
        self._removed: dict[ModelId, None] = {}  # the latest last
        self._folders = asyncio.Lock()
        """Held while folders are written or deleted: one of the same name must not do both."""

    @property
    def root(self) -> Path:
        """The folder of all models."""
        return self._root

    def load_now(self) -> None:
        """Start-up: reads every folder. A folder that cannot be read is left alone, named in the log, and not a model."""
        self._disk.make_folder_now(self._root)
        self._removed = self._read_removed_now()
        for folder in sorted(self._disk.list_folder_now(self._root)):
            if not self._disk.exists_now(folder / MANIFEST_NAME):
                self._clear_now(folder)
                continue
            try:
                model = parse_model_id(folder.name)
                data = self._disk.read_bytes_now(folder / MANIFEST_NAME, limit=manifests.MANIFEST_LIMIT)
                header = self._disk.read_bytes_now(folder / HEADER_NAME, limit=HEADER_LIMIT)
            except (OSError, ValueError) as error:
                logger.warning("model folder %s is left alone: %s", folder.name, error)
                continue
            known = self._check(data, header, pinned=self._disk.exists_now(folder / PIN_NAME))
            if not isinstance(known, KnownModel) or known.manifest.model != model:
                reason = "its manifest is of another model" if isinstance(known, KnownModel) else known.sentence
                logger.warning("model folder %s is left alone: %s", folder.name, reason)
                continue
            self._models[model] = replace(
                self._with_source_now(self._with_seals_now(known, folder), folder),
                shared=self._disk.exists_now(folder / SHARED_NAME),
                introducer=self._read_introducer_now(folder),
                stored_bytes=self._stored_bytes_now(folder),
            )

    def get(self, model: ModelId) -> KnownModel | None:
        return self._models.get(model)

    def all(self) -> tuple[KnownModel, ...]:
        """Sorted by model id."""
        return tuple(self._models[model] for model in sorted(self._models))

    def oldest_first(self) -> tuple[KnownModel, ...]:
        """In the order in which they came; those of an earlier run are first, by name."""
        return tuple(self._models.values())

    def was_removed(self, model: ModelId) -> bool:
        """A person removed it here and nobody asked for it since."""
        return model in self._removed

    def stored_bytes(self) -> int:
        """What all models take of the disk, shards not counted."""
        return sum(known.stored_bytes for known in self._models.values())

    def folder(self, model: ModelId) -> Path:
        return self._root / model

    def vocabulary_path(self, model: ModelId) -> Path:
        return self.folder(model) / VOCABULARY_NAME

    def trust(self, model: ModelId) -> TrustLevel:
        known = self._models.get(model)
        return TrustLevel.PINNED if known and known.pinned else TrustLevel.DISCOVERED

    async def check_manifest(self, data: bytes, *, expect: tuple[ModelId, str]) -> Manifest | BadFile:
        """Of a peer, before its header is asked for: this model in this layout, signed by its publisher."""
        manifest = await asyncio.to_thread(manifests.decode, data, verify=self._verify)
        return manifest if isinstance(manifest, BadFile) else _unexpected(manifest, expect) or manifest

    async def adopt(
        self,
        manifest_data: bytes,
        header_data: bytes,
        *,
        expect: tuple[ModelId, str] | None = None,
        introducer: NodeId | None = None,
        admit: Admit = lambda _known: (),
    ) -> KnownModel | Refusal:
        """Check both, write both, know the model. Known already with the same layout: nothing changes.

        A manifest of a known model in another layout is refused: shards of two layouts do not fit together. `expect`: it
        comes from the peer `introducer`, and has to be of this model in this layout, signed by its publisher. `admit` is
        asked when nothing else can come in between, and what it names is gone before the model comes. Raises OSError.
        """
        # In a thread: a header may have 64 MB, and the parser takes seconds for that.
        known = await asyncio.to_thread(self._check, manifest_data, header_data, pinned=False)
        if not isinstance(known, KnownModel):
            return known
        if expect is not None and (fault := _unexpected(known.manifest, expect)) is not None:
            return fault
        vocabulary = await asyncio.to_thread(vocabulary_file, known.header)
        size = len(manifest_data) + len(header_data) + len(vocabulary)
        known = replace(known, introducer=introducer, stored_bytes=size)
        async with self._folders:
            return await self._keep(known, manifest_data, header_data, vocabulary, admit)

    async def _keep(
        self, known: KnownModel, manifest_data: bytes, header_data: bytes, vocabulary: bytes, admit: Admit
    ) -> KnownModel | Refusal:
        model = known.manifest.model
        going = admit(known)  # no await between this answer and the end of those who go
        if isinstance(going, Refusal):
            return going
        for one in going:
            self._forget(one)
        for one in going:
            await self._delete(one)
        present = self._models.get(model)
        if present is not None:
            if present.manifest.layout == known.manifest.layout:
                return present
            what = f"another model, or another cut of this one, is called {model} here: remove that one, or take another id"
            return IdTaken(what=what)
        if len(self._models) >= MODELS_LIMIT:
            return BadFile(what=f"this node already knows {MODELS_LIMIT} models: remove one first")
        if model in self._removed:  # somebody wants it again
            await self._write_removed({one: None for one in self._removed if one != model})
        folder = self.folder(model)
        await self._disk.make_folder(folder)
        try:
            await self._disk.write_atomic(folder / HEADER_NAME, header_data)
            await self._disk.write_atomic(folder / VOCABULARY_NAME, vocabulary)
            if known.introducer is not None:
                await self._disk.write_atomic(folder / INTRODUCER_NAME, known.introducer.encode())
            await self._disk.write_atomic(folder / MANIFEST_NAME, manifest_data)  # last: with it the model exists
        except OSError:
            await self._delete(model)  # the disk is full: what was written of it would be counted by nobody
            raise
        self._models[model] = known
        self._bus.publish(ModelDiscovered(model=model, name=known.manifest.name))
        return known

    async def take_source(self, model: ModelId, source: HubSource) -> KnownModel | None:
        """Remember where on the hub the file of a model lies whose manifest does not say. None: the model is gone.

        Beside the manifest, which its publisher signed without it. Its shards have hashes: nothing else of the hub counts.
        Raises OSError.
        """
        async with self._folders:
            known = self._models.get(model)
            if known is None or known.manifest.source is not None:
                return known
            data = msgspec.json.encode(source, order="sorted")
            await self._disk.write_atomic(self.folder(model) / TAKEN_SOURCE_NAME, data)
            if (known := self._models.get(model)) is not None:
                known = self._models[model] = replace(known, manifest=replace(known.manifest, source=source))
            return known

    async def seal(self, model: ModelId, index: int, data: bytes) -> KnownModel | BadFile:
        """Keep the hashes of a shard that its manifest has none of. The first seal of a shard stays. Raises OSError.

        BadFile: it is not a good seal of this shard, or the model has gone.
        """
        async with self._folders:
            known = self._models.get(model)
            if known is None or not 0 <= index < len(known.manifest.shards):
                return BadFile(what=f"this node knows no shard {index + 1} of a model {model}")
            spec = known.manifest.shards[index]
            if spec.sealed:
                return known
            seal = await asyncio.to_thread(
                seals.decode, data, manifest=known.manifest, index=index, verify=self._verify
            )
            if isinstance(seal, BadFile):
                return seal
            await self._disk.write_atomic(self.seal_path(model, index), data)
            if self._models.get(model) is not known:  # it was forgotten while we wrote, or somebody pinned it
                known = self._models.get(model)
                if known is None:
                    return BadFile(what=f"model {model} was removed meanwhile")
            sealed = self._models[model] = _with_hashes(known, index, seal.blake3, seal.chunk_blake3)
            return sealed

    async def take_seals(self) -> None:
        """Seals that somebody put beside shards that have no hashes; one that is no good is left alone. Raises OSError."""
        for known in self.all():
            for spec in known.manifest.shards:
                path = self.seal_path(known.manifest.model, spec.index)
                if spec.sealed or not await self._disk.exists(path):
                    continue
                data = await self._disk.read_bytes(path, limit=seals.SEAL_LIMIT)
                sealed = await self.seal(known.manifest.model, spec.index, data)
                if isinstance(sealed, BadFile):
                    logger.warning("%s of %s does not count: %s", path.name, known.manifest.model, sealed.sentence)

    async def unseal(self, model: ModelId, index: int) -> None:
        """The hashes turned out to be of wrong bytes. Raises OSError."""
        async with self._folders:
            await self._disk.remove(self.seal_path(model, index))
            known = self._models.get(model)
            if known is not None and known.manifest.source is not None:
                self._models[model] = _with_hashes(known, index, "", ())

    def seal_path(self, model: ModelId, index: int) -> Path:
        return self.folder(model) / f"shard_{index:03d}.seal"

    async def pin(self, model: ModelId) -> None:
        """Remember that somebody asked for this model here. Idempotent; one that is gone is left alone. Raises OSError."""
        await self._mark(model, PIN_NAME, lambda known: replace(known, pinned=True))

    async def share(self, model: ModelId) -> None:
        """Remember that somebody here wants the swarm to hold this model. As `pin`."""
        await self._mark(model, SHARED_NAME, lambda known: replace(known, shared=True))

    async def _mark(self, model: ModelId, name: str, marked: Callable[[KnownModel], KnownModel]) -> None:
        if (known := self._models.get(model)) is None or marked(known) == known:
            return
        async with self._folders:  # a removal does not take the folder from under the file
            known = self._models.get(model)
            if known is None or marked(known) == known:
                return
            await self._disk.write_atomic(self.folder(model) / name, b"")
            if (known := self._models.get(model)) is not None:
                self._models[model] = marked(known)

    async def remove(self, model: ModelId) -> int:
        """A person does not want it: forget the model, delete its folder, and remember the name until somebody asks for it
        again. Returns the number of files that were in the folder."""
        self._forget(model)
        async with self._folders:
            self._forget(model)  # it may have come back while we waited
            kept = [one for one in self._removed if one != model][-REMOVED_LIMIT + 1 :]
            await self._write_removed(dict.fromkeys((*kept, model)))
            return await self._delete(model)

    async def evict(self, models: Iterable[ModelId]) -> None:
        """Delete what nobody asked for. It may be learned again when there is room. Raises OSError."""
        going = tuple(models)
        for model in going:
            self._forget(model)
        async with self._folders:
            for model in going:
                if model not in self._models:  # it may have come back while we waited
                    await self._delete(model)

    def _forget(self, model: ModelId) -> None:
        if self._models.pop(model, None) is not None:
            self._bus.publish(ModelRemoved(model=model))

    async def _delete(self, model: ModelId) -> int:
        folder = self.folder(model)
        # The manifest goes first: without it the folder is no model, whatever happens in between.
        await self._disk.remove(folder / MANIFEST_NAME)
        files = await self._disk.list_folder(folder)
        await self._disk.remove_folder(folder)
        return len(files) + 1

    def _clear_now(self, folder: Path) -> None:
        """A folder without a manifest: what is left of a removal or an adoption that was killed goes, all else stays."""
        if not folder.is_dir():
            return
        names = {path.name for path in self._disk.list_folder_now(folder)}
        half = bool(names) and all(name in _BESIDE or _LEFT.fullmatch(name) for name in names)
        if half or folder.name in self._removed:
            self._disk.remove_folder_now(folder)

    async def _write_removed(self, removed: dict[ModelId, None]) -> None:
        self._removed = removed
        await self._disk.write_atomic(self._root / REMOVED_NAME, "\n".join(removed).encode())

    def _read_removed_now(self) -> dict[ModelId, None]:
        path = self._root / REMOVED_NAME
        try:
            text = self._disk.read_bytes_now(path, limit=REMOVED_LIMIT * (MODEL_ID_MAX + 1)).decode()
            return {parse_model_id(line): None for line in text.split()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            logger.warning("what was removed before is not known any more: %s: %s", path, error)
            return {}

    def _with_seals_now(self, known: KnownModel, folder: Path) -> KnownModel:
        """One that cannot be read is left alone: the shard is then one that nobody has read yet."""
        for spec in known.manifest.shards:
            path = self.seal_path(known.manifest.model, spec.index)
            if spec.sealed or not self._disk.exists_now(path):
                continue
            try:
                data = self._disk.read_bytes_now(path, limit=seals.SEAL_LIMIT)
            except OSError as error:
                logger.warning("%s of %s cannot be read: %s", path.name, folder.name, error)
                continue
            seal = seals.decode(data, manifest=known.manifest, index=spec.index, verify=self._verify)
            if isinstance(seal, BadFile):
                logger.warning("%s of %s does not count: %s", path.name, folder.name, seal.sentence)
            else:
                known = _with_hashes(known, spec.index, seal.blake3, seal.chunk_blake3)
        return known

    def _with_source_now(self, known: KnownModel, folder: Path) -> KnownModel:
        path = folder / TAKEN_SOURCE_NAME
        if known.manifest.source is not None or not self._disk.exists_now(path):
            return known
        try:
            data = self._disk.read_bytes_now(path, limit=SOURCE_LIMIT)
            source = msgspec.json.decode(data, type=HubSource)
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            logger.warning("%s of %s does not count: %s", path.name, folder.name, error)
            return known
        manifest = replace(known.manifest, source=source)
        if (fault := manifests.source_fault(manifest)) is not None:
            logger.warning("%s of %s does not count: %s", path.name, folder.name, fault)
            return known
        return replace(known, manifest=manifest)

    def _read_introducer_now(self, folder: Path) -> NodeId | None:
        try:
            return parse_node_id(self._disk.read_bytes_now(folder / INTRODUCER_NAME, limit=64).decode())
        except (OSError, ValueError):
            return None

    def _stored_bytes_now(self, folder: Path) -> int:
        paths = (folder / name for name in (MANIFEST_NAME, HEADER_NAME, VOCABULARY_NAME))
        return sum(self._disk.size_bytes_now(path) for path in paths if self._disk.exists_now(path))

    def _check(self, manifest_data: bytes, header_data: bytes, *, pinned: bool) -> KnownModel | BadFile | UnsupportedModel:
        manifest = manifests.decode(manifest_data, verify=self._verify)
        if isinstance(manifest, BadFile):
            return manifest
        if len(header_data) != manifest.header_size_bytes:
            return BadFile(
                what=f"the header of {manifest.model} has {len(header_data)} bytes, "
                f"its manifest says {manifest.header_size_bytes}"
            )
        if blake3.blake3(header_data).hexdigest() != manifest.header_blake3:
            return BadFile(what=f"the header of {manifest.model} does not match the hash in its manifest")
        try:
            header = parse_header(header_data, file_size_bytes=manifest.file_size_bytes)
        except BadGguf as error:
            return BadFile(what=f"the header of {manifest.model} is not valid: {error}")
        architecture = check_supported(header)
        if isinstance(architecture, UnsupportedModel):
            return architecture
        fault = manifests.check_against_header(manifest, header)
        if fault is not None:
            return fault
        files = tuple(shard_file(header, manifest, shard.index) for shard in manifest.shards)
        return KnownModel(
            manifest=manifest, header=header, architecture=architecture, files=files, pinned=pinned,
            identity=seals.identity(manifest),
        )  # fmt: skip


def _with_hashes(known: KnownModel, index: int, blake3: str, chunk_blake3: tuple[str, ...]) -> KnownModel:
    manifest = seals.with_hashes(known.manifest, index, blake3, chunk_blake3)
    files = list(known.files)
    files[index] = replace(files[index], spec=manifest.shards[index])
    return replace(known, manifest=manifest, files=tuple(files))


def _unexpected(manifest: Manifest, expect: tuple[ModelId, str]) -> BadFile | None:
    if (manifest.model, manifest.layout) != expect:
        return BadFile(what=f"asked for {expect[0]} in layout {expect[1]}, got {manifest.model} in {manifest.layout}")
    return BadFile(what=f"the manifest of model {manifest.model} is not signed") if manifest.publisher is None else None
