"""The files of this node's shards: landing, committed, quarantined.

A shard lands in `shard_NNN.gguf.partial`, in chunks from peers and in blocks from the hub; `shard_NNN.journal` remembers
which blocks are on the disk. A chunk whose hash is known counts as there once it matched. When all are there, the local
GGUF header is put in front, everything is synced and the final name given. So a final name means: every byte matched its
hash. Killed at any moment, the next start continues where the journal ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

import blake3

from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.models import BLOCKS_PER_CHUNK, CHUNK_BYTES, ShardSpec, ShardState
from swarmd.domain.refusals import NoSpace
from swarmd.kit.disk import Disk
from swarmd.kit.journal import BlockJournal
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.models.manifest import PayloadHash, PayloadHasher
from swarmd.models.shard_file import Run, ShardFile

VISION_NAME = "mmproj.gguf"  # contract: swarmllm.md 4.1

logger = logging.getLogger(__name__)


class ChunkMismatch(Exception):
    """Bytes that arrived do not have the hash the manifest promises."""


class Superseded(OSError):
    """The files of this landing belong to a later one, or were deleted."""


class ShardStorage:
    """Owner of shard files. Sizes in bytes; offsets of payloads count from the shard's first tensor byte."""

    def __init__(self, *, catalog: Catalog, disk: Disk) -> None:
        self._catalog, self._disk = catalog, disk
        self._held: dict[ModelId, set[int]] = {}
        self._vision: set[ModelId] = set()
        self._landings: WeakValueDictionary[ShardRef, Landing] = WeakValueDictionary()
        """The latest of each shard, as long as somebody has it or its thread runs."""
        self._opening = asyncio.Lock()
        """One at a time opens or deletes partial files: rare, and seconds at most."""

    def scan_now(self) -> None:
        """Start-up: final names are verified shards; one of the wrong size was damaged from outside and is set aside."""
        self._held = {}
        models = [known.manifest.model for known in self._catalog.all()]
        self._vision = {model for model in models if self._disk.exists_now(self.vision_path(model))}
        for known in self._catalog.all():
            model = known.manifest.model
            for spec in known.manifest.shards:
                path = self.path(ShardRef(model, spec.index))
                if not self._disk.exists_now(path):
                    continue
                if self._disk.size_bytes_now(path) == known.files[spec.index].size_bytes:
                    self._held.setdefault(model, set()).add(spec.index)
                    for left in (path.with_suffix(".gguf.partial"), path.with_suffix(".journal")):
                        self._disk.remove_now(left)  # killed when the final name was just given
                else:
                    logger.warning("shard %d of %s has the wrong size and is quarantined", spec.index, model)
                    self._disk.rename_now(path, path.with_suffix(".gguf.quarantine"))

    def path(self, ref: ShardRef) -> Path:
        return self._catalog.folder(ref.model) / f"shard_{ref.index:03d}.gguf"

    def vision_path(self, model: ModelId) -> Path:
        return self._catalog.folder(model) / VISION_NAME

    def has_vision(self, model: ModelId) -> bool:
        """The model's vision encoder is on the disk, whole."""
        return model in self._vision

    def vision_landed(self, model: ModelId) -> None:
        """It got its final name."""
        self._vision.add(model)

    def held(self, model: ModelId) -> tuple[int, ...]:
        """Sorted indices of verified shards."""
        return tuple(sorted(self._held.get(model, ())))

    def state(self, ref: ShardRef) -> ShardState:
        if ref.index in self._held.get(ref.model, ()):
            return ShardState.HELD
        if self._disk.exists_now(self._partial(ref)):
            return ShardState.PARTIAL
        if self._disk.exists_now(self.path(ref).with_suffix(".gguf.quarantine")):
            return ShardState.QUARANTINED
        return ShardState.ABSENT

    def local_bytes(self) -> int:
        """Payload bytes of all held shards."""
        return sum(
            known.manifest.shards[index].size_bytes
            for known in self._catalog.all()
            for index in self._held.get(known.manifest.model, ())
        )

    def room(self, *, limit_bytes: int, promised: Iterable[ShardRef] = (), wanted: Iterable[ShardRef] = ()) -> int:
        """Bytes that `wanted` may take of the disk and of swarmd's share of it, when `promised` shards come as well.

        Asks the file system at once: that takes microseconds, and whoever asked gets the answer.
        """
        return max(0, self._balance(limit_bytes, promised, wanted))

    def _balance(self, limit_bytes: int, promised: Iterable[ShardRef], wanted: Iterable[ShardRef]) -> int:
        """As `room`; negative when there is more than there should be."""
        ours = set(wanted)
        beside = [ref for ref in set(promised) - ours if self.state(ref) is not ShardState.HELD]
        stored = self.local_bytes() + self._catalog.stored_bytes()
        allowed = limit_bytes - stored - sum(self._size(ref) for ref in beside)
        # A partial file has its whole size reserved, so the file system does not count that as free any more.
        unreserved = sum(self._size(ref) for ref in beside if self.state(ref) is not ShardState.PARTIAL)
        reserved = sum(self._size(ref) for ref in ours if self.state(ref) is ShardState.PARTIAL)
        return min(allowed, self._disk.free_bytes_now(self._catalog.root) - unreserved + reserved)

    def short_of(self, wanted: Iterable[ShardRef], *, limit_bytes: int, promised: Iterable[ShardRef] = ()) -> int:
        """Bytes that are missing for these shards, none of them held, beside the promised ones; 0 when they have room."""
        refs = tuple(wanted)
        return max(0, sum(self._size(ref) for ref in refs) - self._balance(limit_bytes, promised, refs))

    def space_for(
        self, wanted: Iterable[ShardRef], *, limit_bytes: int, promised: Iterable[ShardRef] = (), spare_bytes: int = 0
    ) -> NoSpace | None:
        """None when these shards have room. `spare_bytes`: what would give way to them."""
        refs = tuple(wanted)
        if self.short_of(refs, limit_bytes=limit_bytes, promised=promised) <= spare_bytes:
            return None
        room = max(0, self._balance(limit_bytes, promised, refs) + spare_bytes)
        return NoSpace(needed_bytes=sum(self._size(ref) for ref in refs), free_bytes=room)

    async def open_landing(self, ref: ShardRef) -> Landing:
        """Continues a partial shard or begins one; reserves its whole size, so a full disk fails here.

        An earlier landing of the same shard ends: two must not write one file. Raises OSError.
        """
        async with self._opening:
            await self._end_landing(ref)
            landing = self._landings[ref] = await self._open(ref)
            return landing

    async def _end_landing(self, ref: ShardRef) -> None:
        landing = self._landings.get(ref)
        if landing is not None:
            await landing.end()

    async def _open(self, ref: ShardRef) -> Landing:
        known = self._need(ref.model)
        file, spec = known.files[ref.index], known.manifest.shards[ref.index]
        partial = self._partial(ref)
        journal = BlockJournal(
            self._disk, self._journal(ref), tag=_tag(known, file), size_bytes=spec.size_bytes,
            block_bytes=CHUNK_BYTES // BLOCKS_PER_CHUNK,
        )  # fmt: skip

        def work() -> None:
            def read_block(number: int) -> bytes:
                return self.read_payload_now(partial, file, number * journal.block_bytes, journal.size(number))

            if not self._disk.exists_now(partial):
                journal.remove_now()  # without its file it would call the zeros of the next one ours
            if not journal.load_now(read_block):
                # What lies in it is nobody's, also between the runs, where zeros belong.
                self._disk.remove_now(partial)
            self._disk.preallocate_now(partial, file.size_bytes)

        await asyncio.to_thread(work)
        return Landing(self, self._disk, ref, spec, file, partial, journal)

    def arriving(self, model: ModelId) -> tuple[int, ...]:
        """Sorted indices of shards with hashes that are landing now: verified chunks of them can be read."""
        return tuple(
            sorted(
                ref.index
                for ref, landing in list(self._landings.items())
                if ref.model == model and landing.open and landing.spec.sealed and ref.index not in self._held.get(model, ())
            )
        )

    def present(self, ref: ShardRef) -> frozenset[int]:
        """Chunks of a shard that can be read now: all of a held one, those on the disk of one that is landing."""
        count = self._need(ref.model).manifest.shards[ref.index].chunk_count
        return frozenset(number for number in range(count) if self.has_chunk(ref, number))

    def has_chunk(self, ref: ShardRef, number: int) -> bool:
        """It is here, verified, and can be read."""
        if ref.index in self._held.get(ref.model, ()):
            return True
        landing = self._landings.get(ref)
        return landing is not None and landing.open and landing.spec.sealed and landing.has(number)

    async def read_chunk(self, ref: ShardRef, number: int) -> list[bytes]:
        """A chunk that is `present`, in pieces that follow each other. Raises OSError."""
        known = self._need(ref.model)
        offset = number * CHUNK_BYTES
        size = min(CHUNK_BYTES, known.manifest.shards[ref.index].size_bytes - offset)

        def work() -> list[bytes]:
            places = pieces(known.files[ref.index].runs, offset, size)

            def read(path: Path) -> list[bytes]:
                found = [self._disk.read_range_now(path, at, count) for at, _, count in places]
                if sum(map(len, found)) != size:
                    raise OSError(f"{path.name} ends within chunk {number}")
                return found

            if ref.index in self._held.get(ref.model, ()):
                return read(self.path(ref))
            try:
                return read(self._partial(ref))
            except FileNotFoundError:  # it has got its final name just now
                return read(self.path(ref))

        return await asyncio.to_thread(work)

    async def read_payload(self, ref: ShardRef, offset: int, size: int) -> bytes:
        """Payload bytes [offset, offset + size) of a held shard. Raises OSError, also when the file is short, and when the
        model was removed a moment ago."""
        known = self._catalog.get(ref.model)
        if known is None or ref.index >= len(known.files):
            raise FileNotFoundError(f"shard {ref.index} of model {ref.model} is not on this node any more")
        return await asyncio.to_thread(self.read_payload_now, self.path(ref), known.files[ref.index], offset, size)

    def read_payload_now(self, path: Path, file: ShardFile, offset: int, size: int) -> bytes:
        parts = [self._disk.read_range_now(path, at, count) for at, _, count in pieces(file.runs, offset, size)]
        data = b"".join(parts)
        if len(data) != size:
            raise OSError(f"{path.name} ends after {len(data)} of {size} bytes asked for at {offset}")
        return data

    async def verify(self, ref: ShardRef) -> bool:
        """Hash the payload of a file that lies at the final name."""
        known = self._need(ref.model)
        spec, file = known.manifest.shards[ref.index], known.files[ref.index]

        def work() -> bool:
            path = self.path(ref)
            if self._disk.size_bytes_now(path) != file.size_bytes:
                return False
            hasher = blake3.blake3()
            for offset in range(0, spec.size_bytes, CHUNK_BYTES):
                hasher.update(
                    self.read_payload_now(path, file, offset, min(CHUNK_BYTES, spec.size_bytes - offset))
                )
            return hasher.hexdigest() == spec.blake3

        return await asyncio.to_thread(work)

    async def find_new(self) -> list[tuple[ShardRef, bool]]:
        """Files at final names that are not held yet, each with whether its hash matches; matching ones are held now."""
        found: list[tuple[ShardRef, bool]] = []
        for known in self._catalog.all():
            for spec in known.manifest.shards:
                ref = ShardRef(known.manifest.model, spec.index)
                if self._is_unclaimed(ref, known) and (matches := await self._claim(ref, known)) is not None:
                    found.append((ref, matches))
        return found

    async def _claim(self, ref: ShardRef, known: KnownModel) -> bool | None:
        """Hold or set aside what lies at a final name. None: nothing does, its hash is not known, or it is not ours to tell
        any more. Hashing takes minutes: meanwhile the shard may have been fetched, or its model removed."""
        path = self.path(ref)
        if not await self._disk.exists(path) or not self._is_unclaimed(ref, known):
            return None
        if not self.expected_hash(ref):  # unknown is not a mismatch: fetched, it is compared with what a source says
            logger.warning("shard %d of %s lies there and nobody knows its hash", ref.index, ref.model)
            return None
        try:
            matches = await self.verify(ref)
        except FileNotFoundError:  # taken away
            return None
        async with self._opening:  # no landing begins, nothing is dropped
            if not await self._disk.exists(path) or not self._is_unclaimed(ref, known):
                return None
            if matches:
                self._held.setdefault(ref.model, set()).add(ref.index)
                return True
            if ref in self._landings:  # what lies there now may be what it has just put there
                return None
            await self._disk.rename(path, path.with_suffix(".gguf.quarantine"))
            return False

    def _is_unclaimed(self, ref: ShardRef, known: KnownModel) -> bool:
        """Not held; and the model is still known, with the same bytes."""
        now = self._catalog.get(ref.model)
        return now is not None and now.identity == known.identity and ref.index not in self._held.get(ref.model, ())

    async def drop(self, ref: ShardRef) -> bool:
        """Delete a held or partial shard. False: there was nothing."""
        self._held.get(ref.model, set()).discard(ref.index)
        async with self._opening:
            await self._end_landing(ref)
            gone = [await self._disk.remove(path) for path in (self.path(ref), self._journal(ref), self._partial(ref))]
        return any(gone)

    async def find_lost(self) -> list[ShardRef]:
        """Held shards whose files somebody took away; they are not held any more."""
        lost: list[ShardRef] = []
        for model in sorted(self._held):
            for index in self.held(model):
                ref = ShardRef(model, index)
                if not await self._disk.exists(self.path(ref)):
                    self._held[model].discard(index)
                    lost.append(ref)
        return lost

    def forget(self, model: ModelId) -> None:
        """The model's folder is going: nothing of it is held from now on."""
        self._held.pop(model, None)
        self._vision.discard(model)
        for ref, landing in list(self._landings.items()):
            if ref.model == model:
                landing.give_up()

    def expected_hash(self, ref: ShardRef) -> str:
        """Of the whole payload, as the catalogue knows it now; empty when nobody has read it yet."""
        return self._need(ref.model).manifest.shards[ref.index].blake3

    def committed(self, ref: ShardRef) -> None:
        """For `Landing` alone."""
        self._held.setdefault(ref.model, set()).add(ref.index)

    def _need(self, model: ModelId) -> KnownModel:
        known = self._catalog.get(model)
        assert known is not None, f"{model} is not in the catalog"
        return known

    def _size(self, ref: ShardRef) -> int:
        return self._need(ref.model).manifest.shards[ref.index].size_bytes

    def _partial(self, ref: ShardRef) -> Path:
        return self.path(ref).with_suffix(".gguf.partial")

    def _journal(self, ref: ShardRef) -> Path:
        return self.path(ref).with_suffix(".journal")


class Landing:
    """One shard on its way to its final name.

    Whatever is done in a thread is waited for, also by a caller who is cancelled: nothing writes behind the back of whoever
    opens or deletes these files next. Two writers may work on different chunks at the same time, never on one.
    """

    def __init__(
        self,
        storage: ShardStorage,
        disk: Disk,
        ref: ShardRef,
        spec: ShardSpec,
        file: ShardFile,
        partial: Path,
        journal: BlockJournal,
    ) -> None:
        self._storage, self._disk, self.ref, self.spec, self._file = storage, disk, ref, spec, file
        self._partial, self._journal = partial, journal
        self._hashed: str | None = None
        self._given_up = False
        self._working: set[asyncio.Future[None]] = set()

    @property
    def block_bytes(self) -> int:
        return self._journal.block_bytes

    def missing(self) -> list[int]:
        """Chunk numbers that are not on the disk yet, ascending."""
        return sorted({number // BLOCKS_PER_CHUNK for number in self._journal.missing()})

    def missing_blocks(self, chunk: int) -> list[int]:
        """Block numbers, counted over the whole shard, ascending."""
        return [number for number in self._blocks(chunk) if not self._journal.has(number)]

    def has(self, chunk: int) -> bool:
        """It is on the disk, and verified if its hash is known."""
        return all(self._journal.has(number) for number in self._blocks(chunk))

    @property
    def open(self) -> bool:
        """Somebody may still write."""
        return not self._given_up

    @property
    def done_bytes(self) -> int:
        return self._journal.done_bytes

    def chunk_size(self, number: int) -> int:
        return min(CHUNK_BYTES, self.spec.size_bytes - number * CHUNK_BYTES)

    def block_size(self, number: int) -> int:
        return self._journal.size(number)

    async def write_chunk(self, number: int, data: bytes | memoryview) -> None:
        """Verify a chunk and put it in its place. Raises ChunkMismatch; OSError of the disk."""

        def work() -> None:
            if len(data) != self.chunk_size(number) or (
                self.spec.sealed and blake3.blake3(data).hexdigest() != self.spec.chunk_blake3[number]
            ):
                raise self._mismatch(number)
            view = memoryview(data)
            self._write_now(number * CHUNK_BYTES, view)
            for block in self._blocks(number):
                at = block * self.block_bytes - number * CHUNK_BYTES
                self._journal.record_now(block, (view[at : at + self.block_size(block)],))

        await self._on_disk(work)

    async def write_block(
        self, number: int, parts: Sequence[bytes | memoryview], *, confirm: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        """Put a whole block in its place, and verify its chunk when it is the last one of it.

        `confirm` is asked about a chunk that has no hash to be verified with. Raises ChunkMismatch, and the chunk is missing
        as a whole again; OSError of the disk; whatever `confirm` raises, and the block is missing.
        """
        chunk = number // BLOCKS_PER_CHUNK
        data = b"".join(parts)
        assert len(data) == self.block_size(number), f"block {number} of {len(data)} bytes"
        last = self.missing_blocks(chunk) == [number]

        def work() -> None:
            self._write_now(number * self.block_bytes, memoryview(data))
            if last and self.spec.sealed:
                whole = self._storage.read_payload_now(
                    self._partial, self._file, chunk * CHUNK_BYTES, self.chunk_size(chunk)
                )
                if blake3.blake3(whole).hexdigest() != self.spec.chunk_blake3[chunk]:
                    self._journal.forget_now(self._blocks(chunk))
                    raise self._mismatch(chunk)
            if not last or self.spec.sealed or confirm is None:
                self._journal.record_now(number, (data,))

        await self._on_disk(work)
        if last and not self.spec.sealed and confirm is not None:
            if not await confirm():
                await self.forget(chunk)
                raise self._mismatch(chunk)
            await self._on_disk(lambda: self._journal.record_now(number, (data,)))

    async def read_chunk(self, number: int) -> bytes:
        """A chunk that has arrived. Raises OSError."""
        return await asyncio.to_thread(
            self._storage.read_payload_now, self._partial, self._file, number * CHUNK_BYTES, self.chunk_size(number)
        )

    async def forget(self, chunk: int) -> None:
        """It turned out to be wrong: fetch it again. Raises OSError."""
        await self._on_disk(lambda: self._journal.forget_now(self._blocks(chunk)))

    async def hash(self) -> PayloadHash:
        """Of what lies there, all of it: what its seal is made of. Raises OSError."""
        assert not self.missing(), "hashed before the last chunk"
        hasher = PayloadHasher()
        await self._on_disk(lambda: self._read_all(hasher.feed), whole=True)
        payload = hasher.finish()
        self._hashed = payload.blake3
        return payload

    async def commit(self) -> None:
        """All chunks are there: put the header in front, check the whole, give the final name.

        A shard that was not sealed when this landing was opened has to be now, see `hash`. Raises ChunkMismatch; OSError of
        the disk. Cancelled, it is done, or can be done again.
        """
        named = False
        expected = self._storage.expected_hash(self.ref)

        def work() -> None:
            nonlocal named
            self._disk.write_range_now(self._partial, 0, self._file.header)
            for at, data in self._file.tail:
                self._disk.write_range_now(self._partial, at, data)
            hashed = self._hashed
            if hashed is None:
                hasher = blake3.blake3()
                self._read_all(hasher.update)
                hashed = hasher.hexdigest()
            if hashed != expected:
                self._journal.remove_now()
                self._disk.remove_now(self._partial)
                raise ChunkMismatch(f"shard {self.ref.index} of {self.ref.model} has the wrong hash as a whole")
            self._go_on()
            self._disk.rename_now(self._partial, self._storage.path(self.ref))
            named = True
            self._journal.remove_now()

        assert not self.missing(), "commit before the last chunk"
        assert expected, "commit of a shard without a seal"
        try:
            await self._on_disk(work, whole=True)
        finally:
            if named:  # also when the caller was cancelled too late
                self._storage.committed(self.ref)

    def _read_all(self, take: Callable[[bytes], object]) -> None:
        """The payload, piece by piece, in its order."""
        for offset in range(0, self.spec.size_bytes, self.block_bytes):  # a block: it stays in the processor's cache
            self._go_on()
            size = min(self.block_bytes, self.spec.size_bytes - offset)
            take(self._storage.read_payload_now(self._partial, self._file, offset, size))

    def _blocks(self, chunk: int) -> range:
        first = chunk * BLOCKS_PER_CHUNK
        return range(first, min(first + BLOCKS_PER_CHUNK, self._journal.count))

    def _write_now(self, offset: int, view: memoryview) -> None:
        for at, start, count in pieces(self._file.runs, offset, len(view)):
            self._disk.write_range_now(self._partial, at, view[start : start + count])

    def _mismatch(self, chunk: int) -> ChunkMismatch:
        return ChunkMismatch(f"chunk {chunk} of shard {self.ref.index} of {self.ref.model} has the wrong hash")

    def give_up(self) -> None:
        """Nothing more is written, apart from what is being written now."""
        self._given_up = True

    async def end(self) -> None:
        """`give_up`, and wait until nothing is being written: a chunk at most."""
        self.give_up()
        if self._working:
            await asyncio.wait(self._working)

    def _go_on(self) -> None:
        if self._given_up:
            raise Superseded(f"shard {self.ref.index} of {self.ref.model} is written by somebody else, or was deleted")

    async def _on_disk(self, work: Callable[[], None], *, whole: bool = False) -> None:
        """In a thread. A caller who is cancelled waits for it; the others who write go on. `whole`: work of minutes on all
        of it, beside which nobody writes: cancelled, it ends at its next block, and the landing with it."""
        self._go_on()
        future = asyncio.get_running_loop().run_in_executor(None, work)
        self._working.add(future)
        future.add_done_callback(self._worked)
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError:
            if whole:
                self.give_up()
            await asyncio.wait((future,))
            raise
        future.result()

    def _worked(self, future: asyncio.Future[None]) -> None:
        self._working.discard(future)
        if not future.cancelled():
            future.exception()  # read, also when nobody waits any more


def _tag(known: KnownModel, file: ShardFile) -> bytes:
    """Of a journal: which bytes, and where in the file they lie. The header in front of them is made here, and another
    version of swarmd may make a longer one."""
    places = [file.data_offset, file.size_bytes]
    for run in file.runs:
        places += (run.payload_offset, run.size, run.file_offset)
    data = b"".join(number.to_bytes(8, "big") for number in places)
    return blake3.blake3(bytes.fromhex(known.identity) + data).digest()


def pieces(runs: Iterable[Run], offset: int, size: int) -> list[tuple[int, int, int]]:
    """Where payload bytes [offset, offset + size) lie in the file: (file offset, offset within the range, count) each."""
    end = offset + size
    found: list[tuple[int, int, int]] = []
    for run in runs:
        first, last = max(offset, run.payload_offset), min(end, run.payload_offset + run.size)
        if first < last:
            found.append((run.file_offset + first - run.payload_offset, first - offset, last - first))
    return found
