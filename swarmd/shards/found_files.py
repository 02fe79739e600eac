"""Whole GGUF files that somebody put into the folder of models: named, with what can be done about them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from swarmd.domain.ids import model_slug
from swarmd.domain.refusals import BadFile
from swarmd.domain.shards import FoundFile
from swarmd.kit.disk import Disk
from swarmd.models.catalog import VOCABULARY_NAME, Catalog
from swarmd.shards.cutting import open_local
from swarmd.shards.storage import VISION_NAME, ShardStorage

FILES_SHOWN: Final = 100  # of a folder that somebody emptied his disk into
_SHARD_FILE: Final = re.compile(r"shard_\d{3,}\.gguf")


async def found_files(catalog: Catalog, storage: ShardStorage, disk: Disk, shard_size_bytes: int) -> tuple[FoundFile, ...]:
    """At most FILES_SHOWN, in the folder of models and in those of single models."""
    found: list[FoundFile] = []
    for path in await disk.list_folder(catalog.root):
        inside = [path] if path.suffix.lower() == ".gguf" else await _inside(path, disk)
        found += [await _found_file(file, catalog, storage, disk) for file in inside[: FILES_SHOWN - len(found)]]
    return tuple(found)


async def _inside(folder: Path, disk: Disk) -> list[Path]:
    """GGUF files in a model's folder that are not this node's own."""
    try:
        paths = await disk.list_folder(folder)
    except NotADirectoryError:
        return []
    own = (VISION_NAME, VOCABULARY_NAME)
    return [
        path for path in paths
        if path.suffix.lower() == ".gguf" and path.name not in own and not _SHARD_FILE.fullmatch(path.name)
    ]  # fmt: skip


async def _found_file(path: Path, catalog: Catalog, storage: ShardStorage, disk: Disk) -> FoundFile:
    local = await open_local(path, disk)
    try:
        model = model_slug(path.name)
    except ValueError:
        model = None
    problem: str | None = None
    if isinstance(local, BadFile):
        problem = local.sentence
    elif model is None:
        problem = f"no model id can be made of the file name {path.name!r}: rename it"
    elif (known := catalog.get(model)) is not None and len(storage.held(model)) == len(known.files):
        problem = f"all shards of {model} are here: the file is not needed any more"
    size = 0 if isinstance(local, BadFile) else local.size_bytes
    return FoundFile(path=str(path), size_bytes=size, model=model, problem=problem)
