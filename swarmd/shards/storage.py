"""The files of this node's shards: landing, committed, quarantined.

A shard lands in `shard_NNN.gguf.partial`, in chunks from peers and in blocks from the hub; `shard_NNN.journal` remembers
which blocks are on the disk. A chunk whose hash is known counts as there once it matched; one that came before its hash was
known, or when it was another, is compared when the shard is opened anew. When all are there, the local GGUF header is put in
front, everything is synced and the final name given. So a final name means: every byte matched its hash. Killed at any
moment, the next start continues where the journal ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from weakref import WeakValueDictionary

import blake3

from swarmd.domain.hub import HubCompanion
from swarmd.domain.ids import ModelId, NodeId, ShardRef
from swarmd.domain.models import BLOCKS_PER_CHUNK, CHUNK_BYTES, ShardState
from swarmd.domain.refusals import BadFile, NoSpace, Refusal
from swarmd.kit.disk import Disk
from swarmd.kit.journal import BlockJournal
from swarmd.models import seals
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.models.shard_file import ShardFile
from swarmd.shards.cutting import open_local, open_local_now
from swarmd.shards.landing import Landing, pieces, read_payload_now

VISION_NAME = "mmproj.gguf"  # contract: swarmllm.md 4.1

logger = logging.getLogger(__name__)


class Damaged(OSError):
    """What is read is not what was written."""


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
        self._vision = set()
        for model in models:
            path = self.vision_path(model)
            if self._disk.exists_now(path) and isinstance(unusable := open_local_now(path, self._disk), BadFile):
                logger.warning("the vision encoder of %s is left alone: %s", model, unusable.sentence)
            elif self._disk.exists_now(path):
                self._vision.add(model)
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
                    logger.warning("shard %d of %s has the wrong size and is quarantined", spec.index + 1, model)
                    self._disk.rename_now(path, self.quarantine_path(ShardRef(model, spec.index)))

    def path(self, ref: ShardRef) -> Path:
        return self._catalog.folder(ref.model) / f"shard_{ref.index:03d}.gguf"

    def quarantine_path(self, ref: ShardRef) -> Path:
        """Of what turned out to be wrong."""
        return self.path(ref).with_suffix(".gguf.quarantine")

    def unverified_path(self, ref: ShardRef) -> Path:
        """Of what was put here while nobody knew its hash."""
        return self.path(ref).with_suffix(".gguf.unverified")

    def vision_path(self, model: ModelId) -> Path:
        return self._catalog.folder(model) / VISION_NAME

    def has_vision(self, model: ModelId) -> bool:
        """The model's vision encoder is on the disk, whole."""
        return model in self._vision

    async def vision_landed(self, model: ModelId) -> str | None:
        """It got its final name. A sentence when it is no encoder, and is deleted. Raises OSError."""
        unusable = await open_local(self.vision_path(model), self._disk)
        if isinstance(unusable, BadFile):
            await self._disk.remove(self.vision_path(model))
            return unusable.sentence
        self._vision.add(model)
        return None

    async def find_vision(self) -> list[tuple[ModelId, str | None]]:
        """Models whose encoder somebody put there or took away, and those with one that cannot be used: why."""
        found: list[tuple[ModelId, str | None]] = []
        for known in self._catalog.all():
            model = known.manifest.model
            path = self.vision_path(model)
            there = await self._disk.exists(path)
            if there == self.has_vision(model):
                continue
            source = known.manifest.source
            problem = await asyncio.to_thread(self._vision_fault, path, source and source.vision) if there else None
            if self._catalog.get(model) is not None and problem is None:
                (self._vision.add if there else self._vision.discard)(model)
            found.append((model, problem))
        return found

    def _vision_fault(self, path: Path, stated: HubCompanion | None) -> str | None:
        local = open_local_now(path, self._disk)
        if isinstance(local, BadFile):
            return local.sentence
        if stated is None or stated.sha256 is None:
            return None  # nobody says which one it should be
        hasher = hashlib.sha256()
        for offset in range(0, local.size_bytes, CHUNK_BYTES):
            hasher.update(self._disk.read_range_now(path, offset, CHUNK_BYTES))
        if hasher.hexdigest() == stated.sha256:
            return None
        return f"{path.name} is another file than {stated.filename} at the hub, which goes with this model"

    def held(self, model: ModelId) -> tuple[int, ...]:
        """Sorted indices of verified shards."""
        return tuple(sorted(self._held.get(model, ())))

    def state(self, ref: ShardRef) -> ShardState:
        if ref.index in self._held.get(ref.model, ()):
            return ShardState.HELD
        if self._disk.exists_now(self._partial(ref)):
            return ShardState.PARTIAL
        if self._disk.exists_now(self.quarantine_path(ref)):
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
        journal = self._blocks(ref, known)
        landing = Landing(self, self._disk, ref, spec, file, partial, journal)

        def work() -> None:
            if not self._disk.exists_now(partial):
                journal.remove_now()  # without its file it would call the zeros of the next one ours
            if not landing.load_now():
                # What lies in it is nobody's, also between the runs, where zeros belong.
                self._disk.remove_now(partial)
            self._disk.preallocate_now(partial, file.size_bytes)

        await asyncio.to_thread(work)
        return landing

    def _blocks(self, ref: ShardRef, known: KnownModel) -> BlockJournal:
        return BlockJournal(
            self._disk, self._journal(ref), tag=_tag(known, known.files[ref.index]),
            size_bytes=known.manifest.shards[ref.index].size_bytes, block_bytes=CHUNK_BYTES // BLOCKS_PER_CHUNK,
        )  # fmt: skip

    def kept_bytes(self, ref: ShardRef) -> int:
        """Of a shard that is not being landed: what an earlier landing left, as far as is written down."""
        return self._blocks(ref, self._need(ref.model)).stated_now() if self.state(ref) is ShardState.PARTIAL else 0

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
        """A chunk that is `present`, in pieces that follow each other, with its hash if that is known. Raises OSError;
        Damaged."""
        known = self._need(ref.model)
        offset, spec = number * CHUNK_BYTES, known.manifest.shards[ref.index]
        size = min(CHUNK_BYTES, known.manifest.shards[ref.index].size_bytes - offset)

        def work() -> list[bytes]:
            places = pieces(known.files[ref.index].runs, offset, size)

            def read(path: Path) -> list[bytes]:
                found = [self._disk.read_range_now(path, at, count) for at, _, count in places]
                if sum(map(len, found)) != size:
                    raise OSError(f"{path.name} ends within chunk {number}")
                if spec.sealed:
                    hasher = blake3.blake3()
                    for data in found:
                        hasher.update(data)
                    if hasher.hexdigest() != spec.chunk_blake3[number]:
                        raise Damaged(f"chunk {number} of {path.name} is not any more what it was")
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
            raise FileNotFoundError(f"shard {ref.number} of model {ref.model} is not on this node any more")
        return await asyncio.to_thread(read_payload_now, self._disk, self.path(ref), known.files[ref.index], offset, size)

    async def is_damaged(self, ref: ShardRef) -> bool:
        """A held shard is not any more what it was: then it is set aside. Reads all of it. False where its hash is lost."""
        if not self._held_and_sealed(ref):
            return False
        try:
            if await self.verify(ref):
                return False
        except OSError as error:
            logger.warning("shard %d of %s cannot be read: %s", ref.number, ref.model, error)
            return False  # whoever took it away; or the disk fails, and moving it would help nobody
        async with self._opening:
            if not self._held_and_sealed(ref):
                return False
            self.doubt(ref)
            await self._disk.rename(self.path(ref), self.quarantine_path(ref))
            return True

    def _held_and_sealed(self, ref: ShardRef) -> bool:
        known = self._catalog.get(ref.model)
        return known is not None and ref.index in self.held(ref.model) and known.manifest.shards[ref.index].sealed

    def doubt(self, ref: ShardRef) -> None:
        """A part of it was wrong: not held until `claim` has looked at all of it."""
        self._held.get(ref.model, set()).discard(ref.index)

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
                hasher.update(read_payload_now(self._disk, path, file, offset, min(CHUNK_BYTES, spec.size_bytes - offset)))
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

    async def unsealed(self) -> list[ShardRef]:
        """Shards whose file somebody put here, and nobody knows their hash."""
        found: list[ShardRef] = []
        for known in self._catalog.all():
            for spec in known.manifest.shards:
                ref = ShardRef(known.manifest.model, spec.index)
                if spec.sealed or not self._is_unclaimed(ref, known):
                    continue
                if await self._disk.exists(self.path(ref)) or await self._disk.exists(self.unverified_path(ref)):
                    found.append(ref)
        return found

    async def unverified(self) -> list[ShardRef]:
        """Those of them that are kept aside."""
        return [ref for ref in await self.unsealed() if await self._disk.exists(self.unverified_path(ref))]

    async def claim(self, ref: ShardRef) -> bool | None:
        """As `find_new`, of one. None: it is held, or there is nothing."""
        known = self._catalog.get(ref.model)
        return None if known is None or not self._is_unclaimed(ref, known) else await self._claim(ref, known)

    async def _claim(self, ref: ShardRef, known: KnownModel) -> bool | None:
        """Hold or set aside what lies at a final name. None: nothing does, its hash is not known, or it is not ours to tell
        any more. Hashing takes minutes: meanwhile the shard may have been fetched, or its model removed."""
        path, aside = self.path(ref), self.unverified_path(ref)
        async with self._opening:
            if not self._is_unclaimed(ref, known):
                return None
            if not self.expected_hash(ref):
                # Unknown is no mismatch. But the next start takes what has a final name for verified.
                if ref not in self._landings and await self._disk.exists(path):
                    logger.warning("shard %d of %s lies there and nobody knows its hash: kept aside", ref.number, ref.model)
                    await self._disk.rename(path, aside)
                return None
            if not await self._disk.exists(path) and await self._disk.exists(aside):
                await self._disk.rename(aside, path)
        if not await self._disk.exists(path):
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
            await self._disk.rename(path, self.quarantine_path(ref))
            return False

    def _is_unclaimed(self, ref: ShardRef, known: KnownModel) -> bool:
        """Not held; and the model is still known, with the same bytes."""
        now = self._catalog.get(ref.model)
        return now is not None and now.identity == known.identity and ref.index not in self._held.get(ref.model, ())

    async def drop(self, ref: ShardRef, *, unless: Callable[[], bool] | None = None) -> bool:
        """Delete a held or partial shard. False: there was nothing. `unless`: asked when its turn has come and no landing
        begins beside it; when it says so, nothing is deleted."""
        if unless is None:
            self._held.get(ref.model, set()).discard(ref.index)
        async with self._opening:
            if unless is not None and unless():
                return False
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

    async def take_back(self, ref: ShardRef) -> NodeId | None:
        """For `Landing` alone: each chunk has its hash and the whole has not. If its hashes came in a seal, it is a lie and
        goes; whose it was. None: they are the manifest's own. Raises OSError."""
        known = self._catalog.get(ref.model)
        if known is None:
            return None
        try:
            data = await self._disk.read_bytes(self._catalog.seal_path(ref.model, ref.index), limit=seals.SEAL_LIMIT)
        except FileNotFoundError:
            return None
        seal = seals.decode(data, manifest=known.manifest, index=ref.index, verify=lambda _signer, _data, _signature: True)
        await self._catalog.unseal(ref.model, ref.index)
        return None if isinstance(seal, Refusal) else seal.signer

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


def _tag(known: KnownModel, file: ShardFile) -> bytes:
    """Of a journal. First half: which bytes, and where in the file they lie. The header in front of them is made here, and
    another version of swarmd may make a longer one. Second half: the hashes that its chunks were checked with."""
    places = [file.data_offset, file.size_bytes]
    for run in file.runs:
        places += (run.payload_offset, run.size, run.file_offset)
    data = b"".join(number.to_bytes(8, "big") for number in places)
    what = blake3.blake3(bytes.fromhex(known.identity) + data).digest()
    if not file.spec.sealed:
        return what  # as it always was: a partial shard of an earlier version goes on
    return what[:16] + blake3.blake3("".join((file.spec.blake3, *file.spec.chunk_blake3)).encode()).digest()[:16]
