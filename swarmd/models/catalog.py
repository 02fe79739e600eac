"""The models this node knows: manifest and original header of each, on disk and in memory.

A model is known once its manifest and its header passed their checks and lie in `models/<id>/`; holding shards of it is
another matter (`shards`). Owner of `manifest.json`, `gguf_header.bin` and `vocabulary.gguf`; publishes `ModelDiscovered`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

import blake3

from swarmd.domain.events import ModelDiscovered
from swarmd.domain.ids import ModelId, parse_model_id
from swarmd.domain.models import Manifest, TrustLevel
from swarmd.domain.refusals import BadFile, UnsupportedModel
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk
from swarmd.models import manifest as manifests
from swarmd.models.architectures import Architecture, check_supported
from swarmd.models.gguf import BadGguf, GgufHeader, parse_header
from swarmd.models.shard_file import ShardFile, shard_file, vocabulary_file

MANIFEST_NAME = "manifest.json"
HEADER_NAME = "gguf_header.bin"
VOCABULARY_NAME = "vocabulary.gguf"
PIN_NAME = "pinned"
HEADER_LIMIT = 64 * 1024 * 1024  # the parser's own cap
MODELS_LIMIT = 256  # known at once; members could otherwise fill the disk with headers nobody asked for

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


class Catalog:
    """One entry per model id. All methods belong to the event loop; disk work runs in threads."""

    def __init__(self, *, root: Path, disk: Disk, bus: EventBus, verify: manifests.Verify) -> None:
        self._root, self._disk, self._bus, self._verify = root, disk, bus, verify
        self._models: dict[ModelId, KnownModel] = {}
        self._adopting = asyncio.Lock()

    @property
    def root(self) -> Path:
        """The folder of all models."""
        return self._root

    def load_now(self) -> None:
        """Start-up: reads every folder. A folder that cannot be read is left alone, named in the log, and not a model."""
        self._disk.make_folder_now(self._root)
        for folder in sorted(self._disk.list_folder_now(self._root)):
            if not self._disk.exists_now(folder / MANIFEST_NAME):
                continue  # a header that was written before its manifest when the process died; adopting again repairs it
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
            self._models[model] = known

    def get(self, model: ModelId) -> KnownModel | None:
        return self._models.get(model)

    def all(self) -> tuple[KnownModel, ...]:
        """Sorted by model id."""
        return tuple(self._models[model] for model in sorted(self._models))

    def folder(self, model: ModelId) -> Path:
        return self._root / model

    def vocabulary_path(self, model: ModelId) -> Path:
        return self.folder(model) / VOCABULARY_NAME

    def trust(self, model: ModelId) -> TrustLevel:
        known = self._models.get(model)
        return TrustLevel.PINNED if known and known.pinned else TrustLevel.DISCOVERED

    async def adopt(
        self, manifest_data: bytes, header_data: bytes, *, expect: tuple[ModelId, str] | None = None
    ) -> KnownModel | BadFile | UnsupportedModel:
        """Check both, write both, know the model. Known already with the same layout: nothing changes.

        A manifest of a known model in another layout is refused: shards of two layouts do not fit together. `expect`: it
        comes from a peer, and has to be of this model in this layout, signed by its publisher. Raises OSError.
        """
        # In a thread: a header may have 64 MB, and the parser takes seconds for that.
        known = await asyncio.to_thread(self._check, manifest_data, header_data, pinned=False)
        if not isinstance(known, KnownModel):
            return known
        manifest = known.manifest
        if expect is not None and (manifest.model, manifest.layout) != expect:
            return BadFile(what=f"asked for {expect[0]} in layout {expect[1]}, got {manifest.model} in {manifest.layout}")
        if expect is not None and manifest.publisher is None:
            return BadFile(what=f"the manifest of model {manifest.model} is not signed")
        async with self._adopting:
            return await self._keep(known, manifest_data, header_data)

    async def _keep(self, known: KnownModel, manifest_data: bytes, header_data: bytes) -> KnownModel | BadFile:
        model = known.manifest.model
        present = self._models.get(model)
        if present is not None:
            if present.manifest.layout == known.manifest.layout:
                return present
            return BadFile(what=f"model {model} is already here in another layout: remove it first, or rename the file")
        if len(self._models) >= MODELS_LIMIT:
            return BadFile(what=f"this node already knows {MODELS_LIMIT} models: remove one first")
        folder = self.folder(model)
        await self._disk.make_folder(folder)
        await self._disk.write_atomic(folder / HEADER_NAME, header_data)
        await self._disk.write_atomic(folder / VOCABULARY_NAME, vocabulary_file(known.header))
        await self._disk.write_atomic(folder / MANIFEST_NAME, manifest_data)  # last: with it the model exists
        self._models[model] = known
        self._bus.publish(ModelDiscovered(model=model, name=known.manifest.name))
        return known

    async def pin(self, model: ModelId) -> None:
        """Remember that somebody asked for this model here. Idempotent."""
        known = self._models.get(model)
        if known is None or known.pinned:
            return
        await self._disk.write_atomic(self.folder(model) / PIN_NAME, b"")
        self._models[model] = KnownModel(
            manifest=known.manifest,
            header=known.header,
            architecture=known.architecture,
            files=known.files,
            pinned=True,
        )

    async def remove(self, model: ModelId) -> int:
        """Forget the model and delete its folder. Returns the number of files that were in it."""
        self._models.pop(model, None)
        folder = self.folder(model)
        # The manifest goes first: without it the folder is no model, whatever happens in between.
        await self._disk.remove(folder / MANIFEST_NAME)
        files = await self._disk.list_folder(folder)
        await self._disk.remove_folder(folder)
        return len(files) + 1

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
        return KnownModel(manifest=manifest, header=header, architecture=architecture, files=files, pinned=pinned)
