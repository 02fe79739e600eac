"""Whole GGUF files that somebody put into the folder of models: named, with what can be done about them.

One row for each model, be it in one file or split. Links that lead out of the folder are not followed: whoever asks for a
rescan says nothing about what lies elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from swarmd.domain.ids import ModelId
from swarmd.domain.refusals import BadFile, Refusal
from swarmd.domain.shards import FoundFile
from swarmd.kit.disk import Disk
from swarmd.models.catalog import VOCABULARY_NAME, Catalog
from swarmd.models.split_files import part_names
from swarmd.shards.cutting import LocalFile, is_same_file, model_of_path, open_local
from swarmd.shards.storage import VISION_NAME, ShardStorage

FILES_SHOWN: Final = 100  # of a folder that somebody emptied his disk into
_SHARD_FILE: Final = re.compile(r"shard_\d{3,}\.gguf")

Judge = Callable[[LocalFile, ModelId], Awaitable[Refusal | None]]
"""What adding a file under an id would refuse before all of it is read."""


async def found_files(catalog: Catalog, storage: ShardStorage, disk: Disk, judge: Judge) -> tuple[FoundFile, ...]:
    """At most FILES_SHOWN, in the folder of models and in those of single models."""
    root = await _real(catalog.root)
    models: dict[Path, list[Path]] = {}
    """The first name of each model's files, and those that are there, in order."""
    for path in await disk.list_folder(catalog.root):
        inside = [path] if path.suffix.lower() == ".gguf" else await _inside(path, root, disk)
        for file in inside:
            models.setdefault(file.with_name(part_names(file.name)[0]), []).append(file)
    return tuple([await _row(files, root, catalog, storage, disk, judge) for files in list(models.values())[:FILES_SHOWN]])


async def _inside(folder: Path, root: Path, disk: Disk) -> list[Path]:
    """GGUF files in a model's folder that are not this node's own."""
    if not (await _real(folder)).is_relative_to(root):
        return []
    try:
        paths = await disk.list_folder(folder)
    except (NotADirectoryError, PermissionError):  # a file; or a folder of somebody else, as the `lost+found` of a disk
        return []
    own = (VISION_NAME, VOCABULARY_NAME)
    return [
        path for path in paths
        if path.suffix.lower() == ".gguf" and path.name not in own and not _SHARD_FILE.fullmatch(path.name)
    ]  # fmt: skip


async def _row(
    files: list[Path], root: Path, catalog: Catalog, storage: ShardStorage, disk: Disk, judge: Judge
) -> FoundFile:
    """Of one model. `files`: at least one; those that are there of a split one, in order."""
    model, size = model_of_path(files[0]), 0
    problem: str | None = None
    for file in files:
        if (await _real(file)).is_relative_to(root):
            size += await _size(file, disk)
        else:
            problem = problem or f"{file} is a link that leads out of the folder of models: add the file that it leads to"
    if problem is None:
        local = await open_local(files[0], disk)
        refusal = local if isinstance(local, BadFile) else await _judged(local, model, catalog, storage, disk, judge)
        problem = None if refusal is None else refusal.sentence
    return FoundFile(
        path=str(files[0]), size_bytes=size, model=None if isinstance(model, BadFile) else model, problem=problem
    )


async def _judged(
    local: LocalFile, model: ModelId | BadFile, catalog: Catalog, storage: ShardStorage, disk: Disk, judge: Judge
) -> Refusal | None:
    if isinstance(model, BadFile):
        return model
    for known in catalog.all():  # under whatever id
        all_here = len(storage.held(known.manifest.model)) == len(known.files)
        try:
            if all_here and await is_same_file(local, known.manifest, disk):
                return BadFile(what=f"all shards of {known.manifest.model} are here: the file is not needed any more")
        except OSError as error:
            return BadFile(what=f"{local.path} cannot be read: {error}")
    return await judge(local, model)


async def _real(path: Path) -> Path:
    """Without links; of a ring of links some path in it, which nothing lies at."""
    return Path(await asyncio.to_thread(os.path.realpath, path))


async def _size(path: Path, disk: Disk) -> int:
    try:
        return await disk.size_bytes(path)
    except OSError:  # taken away, or a link to nothing
        return 0
