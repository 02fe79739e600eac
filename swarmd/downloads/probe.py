"""The header of a GGUF on the hub, read in small steps: what a model is, before any of its data is here.

A header has some hundred kB to tens of MB and does not say how long it is, so the steps grow. A split model has one in each
part; the others are small and are read side by side. All are kept until they are merged, so they have one limit together.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from swarmd.domain.hub import HubPart, HubSource
from swarmd.domain.refusals import BadFile, HubFailed, Invalid, NotFound, Refusal
from swarmd.downloads.engine import gravest
from swarmd.downloads.hub import Hub, HubFile, RepoFiles
from swarmd.downloads.ranges import RangeClient, RemoteFile, SourceRefused, SourceTrouble
from swarmd.kit.flow import Backoff, SingleFlight
from swarmd.kit.world import World
from swarmd.models.catalog import HEADER_LIMIT
from swarmd.models.gguf import BadGguf, GgufHeader, HeaderParser
from swarmd.models.manifest import is_filename
from swarmd.models.split_files import Merged, merge, part_names

FIRST_STEP: Final = 256 << 10  # the whole header of a small vocabulary
LAST_STEP: Final = 4 << 20
TRIES: Final = 4  # in a row without a byte; about 8 s
PARTS_AT_ONCE: Final = 4
KEPT: Final = 4  # headers remembered for whoever fetches what was probed just before; up to 64 MB each

Progress = Callable[[int, str], None]
"""Bytes of headers read so far, and what is being read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A model on the hub, as its headers describe it."""

    source: HubSource
    header: GgufHeader
    header_data: bytes
    """Of the whole GGUF, which for a split one is nowhere but here."""
    size_bytes: int
    """Of the whole GGUF."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    header: GgufHeader
    data: bytes


class _Room:
    """What the headers of one model may take: no more than the one that they become may have."""

    def __init__(self) -> None:
        self._left = HEADER_LIMIT

    def take(self, size: int) -> None:
        """Raises BadGguf."""
        self._left -= size
        if self._left < 0:
            raise BadGguf(f"the headers of its parts have more than {HEADER_LIMIT >> 20} MiB together")


class Prober:
    """One per node."""

    def __init__(self, *, hub: Hub, client: RangeClient, world: World) -> None:
        self._hub, self._client, self._world = hub, client, world
        self._flights: SingleFlight[tuple[str, str, str], Probed | Refusal] = SingleFlight()
        self._kept: OrderedDict[tuple[str, str, str], Probed] = OrderedDict()

    async def probe(
        self, repo_id: str, filename: str, *, commit: str | None = None, progress: Progress = lambda _size, _what: None
    ) -> Probed | Refusal:
        """Refuses Invalid, NotFound, BadFile, HubForbidden, HubFailed. `commit`: None for the newest."""
        if not is_filename(filename):
            what = f"{filename[:80]!r} is no GGUF file of a repository: letters, digits, -, _, . and / ending in .gguf"
            return Invalid(what=what, param="filename")
        repo = await self._hub.repo(repo_id, commit)
        if isinstance(repo, Refusal):
            return repo
        names = part_names(filename)
        files = [repo.files[name] for name in names if name in repo.files]
        if len(files) < len(names):
            absent = next(name for name in names if name not in repo.files)
            return NotFound(what=f"there is no file {absent} in {repo_id} at the hub")
        key = (repo_id, repo.commit, names[0])
        if key not in self._kept:
            probed = await self._flights.do(key, lambda: self._probe(repo, files, progress))
            if isinstance(probed, Refusal):
                return probed
            self._kept[key] = probed
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    async def _probe(self, repo: RepoFiles, files: list[HubFile], progress: Progress) -> Probed | Refusal:
        read = 0

        def told(size: int, what: str) -> None:
            nonlocal read
            read += size
            progress(read, what)

        turns, room = asyncio.Semaphore(PARTS_AT_ONCE), _Room()

        async def one(file: HubFile) -> _Head:
            async with turns:
                return await self._head(self._hub.remote(repo, file), told, room)

        try:
            try:
                async with asyncio.TaskGroup() as group:  # one part that fails ends the others
                    reading = [group.create_task(one(file)) for file in files]
            except BaseExceptionGroup as errors:
                raise gravest(errors) from errors
            heads = [task.result() for task in reading]
            if len(heads) == 1:
                return self._single(repo, files[0], heads[0])
            headers, sizes = [head.header for head in heads], [file.size_bytes for file in files]
            merged = await asyncio.to_thread(merge, headers, sizes)
        except BadGguf as error:
            return BadFile(what=f"{files[0].filename} of {repo.repo_id} is not a GGUF that can be used: {error}")
        except SourceRefused as error:
            return NotFound(what=str(error))
        except SourceTrouble as error:
            return HubFailed(what=f"the header of {files[0].filename} could not be read: {error}")
        return self._several(repo, files, headers, merged)

    def _single(self, repo: RepoFiles, file: HubFile, head: _Head) -> Probed:
        part = HubPart(
            filename=file.filename, size_bytes=file.size_bytes, sha256=file.sha256, data_offset=head.header.data_offset,
            virtual_offset=head.header.data_offset,
        )  # fmt: skip
        source = HubSource(repo_id=repo.repo_id, commit=repo.commit, parts=(part,), vision=repo.vision())
        return Probed(source=source, header=head.header, header_data=head.data, size_bytes=file.size_bytes)

    def _several(self, repo: RepoFiles, files: list[HubFile], headers: list[GgufHeader], merged: Merged) -> Probed:
        parts = tuple(
            HubPart(
                filename=file.filename, size_bytes=file.size_bytes, sha256=file.sha256, data_offset=header.data_offset,
                virtual_offset=offset,
            )
            for file, header, offset in zip(files, headers, merged.offsets, strict=True)
        )  # fmt: skip
        source = HubSource(repo_id=repo.repo_id, commit=repo.commit, parts=parts, vision=repo.vision())
        return Probed(
            source=source, header=merged.header, header_data=merged.header_data, size_bytes=merged.size_bytes
        )

    async def _head(self, file: RemoteFile, told: Progress, room: _Room) -> _Head:
        """With its padding. Raises BadGguf, SourceRefused; SourceTrouble after TRIES in a row without a byte."""
        parser = HeaderParser(file_size_bytes=file.size_bytes)
        backoff = Backoff(0.5, 2.0, 8.0, entropy=self._world.entropy)
        data = bytearray()
        header: GgufHeader | None = None
        step, failures, kept = FIRST_STEP, 0, 0
        while header is None or len(data) < header.data_offset:
            if len(data) >= file.size_bytes:
                raise BadGguf(f"{file.name} ends within {parser.where}")
            end = min(len(data) + step if header is None else header.data_offset, file.size_bytes)
            try:
                async with self._client.open(file, len(data), end) as body:
                    async for piece in body:
                        failures = 0
                        data += piece
                        told(len(piece), file.name)
                        if header is None:
                            header = parser.feed(piece)
                        ours = len(data) if header is None else min(len(data), header.data_offset)
                        room.take(ours - kept)
                        kept = ours
                        if header is not None and len(data) >= header.data_offset:
                            break
                step = min(2 * step, LAST_STEP)
            except SourceTrouble as error:
                failures += 1
                if failures >= TRIES:
                    raise
                await asyncio.sleep(max(backoff.delay(), error.retry_after_s or 0.0))
        return _Head(header=header, data=bytes(data[: header.data_offset]))
