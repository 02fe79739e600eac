"""The hub as one more source of a shard's chunks: runs of them are claimed and fetched by range.

A shard whose hashes are known is checked as if it came from a peer. One that nobody has read yet has none, and what comes
is believed because of the line it comes over: TLS, and a commit that cannot change. Over a line without TLS each chunk is
read twice and counts when it came the same both times. Bytes that do not have the hashes, again and again, contradict
whoever sealed the shard, and the hub is the one to know.

The hub is far for most people, and metered for some. As long as a near peer that has the whole shard brings it, the hub is
left alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import blake3

from swarmd.domain.hub import HubSource
from swarmd.domain.models import BLOCKS_PER_CHUNK, ShardSpec
from swarmd.domain.refusals import HubFailed, HubForbidden, NotFound, Refusal
from swarmd.downloads.engine import Engine, Piece, SourceFailed, Span, WrongBytes, requests_of
from swarmd.downloads.files import Files
from swarmd.downloads.ranges import RangeClient, RemoteFile, SourceRefused
from swarmd.kit.flow import TokenBucket
from swarmd.models.catalog import KnownModel
from swarmd.models.shard_file import source_runs
from swarmd.shards.landing import ChunkMismatch, pieces
from swarmd.shards.sources import Trouble, Work

DISTANCE_MS: Final = 40.0  # as a round trip: beyond every peer in the house, before most across the country
NEAR_STALL_S: Final = 10.0  # without a chunk from near peers, and the hub joins in
LOOK_S: Final = 2.0
PATIENCE_S: Final = 600.0  # without a byte: a line that is down for a while is the commonest trouble of a night's download


@dataclass(frozen=True, slots=True, kw_only=True)
class HubLine:
    """What it takes to read shards from the hub."""

    engine: Engine
    client: RangeClient
    files: Files
    url: Callable[[str, str, str], str]
    """Of (repository, commit, file name)."""
    confirm: Callable[[KnownModel], Awaitable[Refusal | None]]
    """Whether the manifest describes the file that lies at the hub: a peer may have made it. None: it does."""
    whole: Callable[[KnownModel], Awaitable[bool | None]]
    """`whole.WholeCheck.matches`."""


class HubChunks:
    """Made for one fetch of one shard; see `sources.ChunkSource`."""

    name = "the hub"
    distance = DISTANCE_MS

    def __init__(
        self,
        *,
        line: HubLine,
        known: KnownModel,
        source: HubSource,
        spec: ShardSpec,
        near: Callable[[], bool],
        limit: TokenBucket | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`near`: whether a near peer has the whole shard. `limit`: of this job alone."""
        self._line, self._known, self._source, self._spec, self._near = line, known, source, spec, near
        self._engine, self._client = line.engine, line.client
        self._limit, self._patience_s = limit, patience_s
        self._files = files_of(source, lambda name: line.url(source.repo_id, source.commit, name))

    def chunks(self) -> frozenset[int] | None:
        return None

    def beaten(self, number: int) -> None:
        """What is on its way comes to nothing by itself: its blocks are not written any more."""

    async def run(self, work: Work) -> Trouble | None:
        refusal = await self._confirmed(work)
        if refusal is not None:
            return Trouble(reason=refusal.sentence, refused=isinstance(refusal, HubForbidden | NotFound))
        while work.wanted:
            if self._near() and work.now() - work.progress_at < NEAR_STALL_S:
                await work.changed(LOOK_S)
                continue
            claims = _Claims(self, work)
            try:
                await self._engine.run(
                    claims, received=lambda _: None, limit=self._limit, patience_s=self._patience_s
                )
            except (SourceFailed, SourceRefused) as error:
                wrong = isinstance(error.__cause__, WrongBytes)
                refused = isinstance(error, SourceRefused)
                return Trouble(reason=str(error), contradicts=wrong and self._spec.sealed, refused=refused)
            except OSError as error:
                return Trouble(reason=str(error), ours=True)
            finally:
                claims.end()
            if work.wanted:
                await work.changed(LOOK_S)
        return None

    async def _confirmed(self, work: Work) -> Refusal | None:
        """Whether the manifest is of the file at the hub. A hub that stumbles is asked again, as long as for data."""
        deadline, backoff = work.now() + self._patience_s, None
        while isinstance(refusal := await self._line.confirm(self._known), HubFailed):
            if backoff is None:
                backoff = self._engine.backoff()
                what = f"shard {work.ref.number} from {self.name}: {refusal.what}; it is asked again"
                work.job.say(what, index=work.ref.index)
            again = work.now() + max(backoff.delay(), refusal.retry_after_s)
            if again >= deadline:
                return refusal
            while work.wanted and (left := again - work.now()) > 0:
                await work.changed(left)
            if not work.wanted:
                return None
        return refusal

    def pieces(self, offset: int, size: int) -> list[Piece]:
        """Where bytes of the payload lie at the hub."""
        found: list[Piece] = []
        for at, _, count in pieces(source_runs(self._spec), offset, size):
            found += self._in_parts(at, count)
        return found

    def _in_parts(self, at: int, count: int) -> list[Piece]:
        """Bytes [at, at + count) of the whole GGUF; they may lie in more than one file."""
        found: list[Piece] = []
        bounds = [part.virtual_offset for part in self._source.parts[1:]]
        for part, file, end in zip(self._source.parts, self._files, [*bounds, None], strict=True):
            first = max(at, part.virtual_offset)
            last = at + count if end is None else min(at + count, end)
            if first < last:
                offset = part.data_offset + first - part.virtual_offset
                found.append(Piece(file=file, offset=offset, size=last - first))
        return found

    async def confirm(self, work: Work, chunk: int) -> bool:
        """Whether the hub sends the same bytes again. Raises SourceTrouble, SourceRefused, OSError."""
        if all(file.url.startswith("https:") for file in self._files):
            return True
        start = chunk * BLOCKS_PER_CHUNK * work.landing.block_bytes
        again = blake3.blake3()
        for request in requests_of(self.pieces(start, work.landing.chunk_size(chunk))):
            for piece in request:
                async with self._client.open(piece.file, piece.offset, piece.offset + piece.size) as body:
                    async for data in body:
                        again.update(data)
                        await self._engine.pace(len(data))
        present = await work.landing.read_chunk(chunk)
        return await asyncio.to_thread(lambda: blake3.blake3(present).digest()) == again.digest()


class _Claims:
    """The board's chunks as the engine's blocks."""

    def __init__(self, source: HubChunks, work: Work) -> None:
        self._source, self._work, self._landing = source, work, work.landing
        self._waiting: deque[int] = deque()  # at most SPAN_BYTES of chunks
        """Chunks that are claimed and that no connection has yet."""

    @property
    def block_bytes(self) -> int:
        return self._landing.block_bytes

    @property
    def grain(self) -> int:
        return BLOCKS_PER_CHUNK

    def block_size(self, number: int) -> int:
        return self._landing.block_size(number)

    def left(self) -> int:
        return (len(self._waiting) + self._work.board.free) * BLOCKS_PER_CHUNK

    def claim(self, count: int) -> Span | None:
        if not self._waiting:
            chunks = max(1, count // BLOCKS_PER_CHUNK)
            self._waiting.extend(self._work.claim(self._source, chunks, consecutive=True))
        if not self._waiting:
            return None
        # All of a claim in one request: it was made as long as the engine wants it.
        first = last = self._waiting.popleft()
        while self._waiting and self._waiting[0] == last + 1:
            last = self._waiting.popleft()
        return Span(first=first * BLOCKS_PER_CHUNK, count=(last - first + 1) * BLOCKS_PER_CHUNK)

    def release(self, span: Span) -> None:
        for chunk in self._chunks(span):
            self._work.release(self._source, chunk)

    def end(self) -> None:
        while self._waiting:
            self._work.release(self._source, self._waiting.popleft())

    def missing(self, span: Span) -> Sequence[int]:
        for chunk in self._chunks(span):
            if self._landing.has(chunk):  # written to its end by a source that was cancelled meanwhile
                self._work.arrived(self._source, chunk, hub=True)
        return [number for chunk in self._chunks(span) for number in self._landing.missing_blocks(chunk)]

    def pieces(self, offset: int, size: int) -> Sequence[Piece]:
        return self._source.pieces(offset, size)

    async def write(self, number: int, parts: Sequence[bytes | memoryview]) -> None:
        chunk, work = number // BLOCKS_PER_CHUNK, self._work
        with work.writing(chunk) as free:
            if not free:
                return  # a peer brought it first
            try:
                await self._landing.write_block(number, parts, confirm=lambda: self._source.confirm(work, chunk))
            except ChunkMismatch as error:
                work.came(0, hub=True)
                raise WrongBytes(chunk * BLOCKS_PER_CHUNK, str(error)) from error
        whole = self._landing.has(chunk)
        work.came(self._landing.block_size(number), hub=True)
        if whole:
            work.arrived(self._source, chunk, hub=True)

    def _chunks(self, span: Span) -> range:
        """The last chunk of a shard may have fewer blocks than the span says."""
        return range(span.first // BLOCKS_PER_CHUNK, -(-(span.first + span.count) // BLOCKS_PER_CHUNK))


def files_of(source: HubSource, url: Callable[[str], str]) -> tuple[RemoteFile, ...]:
    """The parts as they are asked for. `url`: of a file name, at the source's commit."""
    return tuple(
        RemoteFile(
            url=url(part.filename),
            size_bytes=part.size_bytes,
            name=f"{source.repo_id}/{part.filename}",
            sha256=part.sha256,
        )
        for part in source.parts
    )


