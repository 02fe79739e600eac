"""Puts a local GGUF into the node, be it in one file or split: cut, signed, copied shard by shard. What
`ShardDesk.add_file` does.

What peers merely told of under the same name does not matter: a manifest of theirs is kept when it is one of this very file,
since shards in its layout fit theirs, and replaced when it is not.

Killed at any moment and asked again, it goes on: a manifest that exists is kept, shards that are here are not copied again,
and a shard that was half copied continues at its last chunk.
"""

from __future__ import annotations

import errno
import logging
from typing import Final

from swarmd.domain.ids import ModelId, NodeId, ShardRef
from swarmd.domain.refusals import BadFile, IdTaken, NoSpace, Refusal
from swarmd.domain.shards import TransferState
from swarmd.kit.disk import Disk
from swarmd.kit.gauges import Gauges
from swarmd.kit.world import World
from swarmd.models import manifest as manifests
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.models.gguf import BadGguf, GgufHeader
from swarmd.models.manifest import Sign
from swarmd.models.slicing import Cut, plan_layout
from swarmd.shards.cutting import LocalFile, Progress, hash_payload, is_same_file, is_same_throughout, read_chunk
from swarmd.shards.discovered import Discovered
from swarmd.shards.fetching import Seals
from swarmd.shards.jobs import Job
from swarmd.shards.landing import ChunkMismatch
from swarmd.shards.registry import Registry
from swarmd.shards.storage import ShardStorage

FULL: Final = (errno.ENOSPC, errno.EDQUOT)

logger = logging.getLogger(__name__)


class Adder:
    def __init__(
        self,
        *,
        node: NodeId,
        catalog: Catalog,
        discovered: Discovered,
        storage: ShardStorage,
        registry: Registry,
        disk: Disk,
        gauges: Gauges,
        world: World,
        sign: Sign,
        seals: Seals,
    ) -> None:
        self._seals = seals
        self._node, self._catalog, self._storage, self._registry = node, catalog, storage, registry
        self._discovered = discovered
        self._disk, self._gauges, self._world, self._sign = disk, gauges, world, sign

    async def add(
        self, local: LocalFile, job: Job, *, shard_size_bytes: int, limit_bytes: int, promised: tuple[ShardRef, ...]
    ) -> Refusal | None:
        """Everything from a sound header to the last committed shard; `job` shows the progress."""
        gauge = f"models.{job.model}.hashing"
        try:
            known = await self._known(local, job, gauge, shard_size_bytes, limit_bytes, promised)
            if isinstance(known, Refusal):
                return known
            manifest = known.manifest
            wanted = self._wanted(known)
            job.want((spec.index, spec.size_bytes) for spec in manifest.shards)
            for index in self._registry.held(job.model):
                job.mark(index, TransferState.COMPLETE)
            refusal = self._no_space(known, limit_bytes, promised)
            if refusal is not None:
                return refusal
            await self._catalog.pin(job.model)
            await self._discovered.give_way(self._storage.short_of(wanted, limit_bytes=limit_bytes, promised=promised))
            for ref in wanted:
                await self._land(local, job, ref, known)
        except ChunkMismatch as error:
            return BadFile(what=f"{local.path} changed while it was read, or is not the file that was added before: {error}")
        except OSError as error:
            if error.errno in FULL:
                free = self._storage.room(limit_bytes=limit_bytes)
                return NoSpace(needed_bytes=local.size_bytes, free_bytes=free)
            return _unreadable(local, error)
        finally:
            self._gauges.remove(gauge)
        return None

    async def refusal(
        self, local: LocalFile, model: ModelId, *, shard_size_bytes: int, limit_bytes: int, promised: tuple[ShardRef, ...]
    ) -> Refusal | None:
        """What `add` would refuse before it reads all of the file; None: nothing."""
        known = self._catalog.get(model)
        try:
            if known is not None and await is_same_file(local, known.manifest, self._disk):
                return self._no_space(known, limit_bytes, promised)
        except OSError as error:
            return _unreadable(local, error)
        if known is not None and not self._discovered.is_merely(model):
            return _taken(local, model)
        cuts = self._plan(local, shard_size_bytes, limit_bytes, promised)
        return cuts if isinstance(cuts, Refusal) else None

    def _wanted(self, known: KnownModel) -> list[ShardRef]:
        model, held = known.manifest.model, self._registry.held(known.manifest.model)
        return [ShardRef(model, spec.index) for spec in known.manifest.shards if spec.index not in held]

    def _no_space(self, known: KnownModel, limit_bytes: int, promised: tuple[ShardRef, ...]) -> NoSpace | None:
        """For what is missing of it."""
        spare, wanted = self._discovered.spare_bytes(but=known.manifest.model), self._wanted(known)
        return self._storage.space_for(wanted, limit_bytes=limit_bytes, promised=promised, spare_bytes=spare)

    async def _known(
        self,
        local: LocalFile,
        job: Job,
        gauge: str,
        shard_size_bytes: int,
        limit_bytes: int,
        promised: tuple[ShardRef, ...],
    ) -> KnownModel | Refusal:
        known = self._catalog.get(job.model)
        if known is None:
            return await self._cut(local, job, gauge, shard_size_bytes, limit_bytes, promised)
        # The size asked for does not matter: a model that is cut keeps its shards.
        if self._discovered.is_merely(job.model):
            job.say("comparing the file with what a peer told of it")
            progress = self._progress(gauge, sum(spec.size_bytes for spec in known.manifest.shards))
            if await is_same_throughout(local, known.manifest, self._disk, progress):
                return known
            return await self._cut(local, job, gauge, shard_size_bytes, limit_bytes, promised)
        if await is_same_file(local, known.manifest, self._disk):
            return known
        return _taken(local, job.model)

    async def _cut(
        self,
        local: LocalFile,
        job: Job,
        gauge: str,
        shard_size_bytes: int,
        limit_bytes: int,
        promised: tuple[ShardRef, ...],
    ) -> KnownModel | Refusal:
        cuts = self._plan(local, shard_size_bytes, limit_bytes, promised)
        if isinstance(cuts, Refusal):
            return cuts
        total = sum(cut.size_bytes for cut in cuts)
        job.say(f"hashing {total} bytes of {len(cuts)} shards")
        progress = self._progress(gauge, total)
        hashes = [await hash_payload(local, cut, self._disk, progress) for cut in cuts]
        manifest = manifests.build_manifest(
            header=local.header,
            cuts=cuts,
            hashes=hashes,
            header_blake3=local.header_blake3,
            model=job.model,
            name=_name(local.header) or local.stem,
            file_size_bytes=local.size_bytes,
            shard_size_bytes=shard_size_bytes,
            created_at=int(self._world.clock.now()),
        )
        signed = manifests.signed(manifest, self._node, self._sign)
        return await self._catalog.adopt(
            manifests.encode(signed), local.header_data, admit=self._discovered.admit_own
        )

    def _plan(
        self, local: LocalFile, shard_size_bytes: int, limit_bytes: int, promised: tuple[ShardRef, ...]
    ) -> tuple[Cut, ...] | Refusal:
        """Where it would be cut, if it can be and has room."""
        cuts = plan_layout(local.header, shard_size_bytes)
        if isinstance(cuts, Refusal):
            return cuts
        total = sum(cut.size_bytes for cut in cuts)
        room = self._storage.room(limit_bytes=limit_bytes, promised=promised) + self._discovered.spare_bytes()
        if total > room:  # before an hour of hashing, not after
            return NoSpace(needed_bytes=total, free_bytes=room)
        return cuts

    def _progress(self, gauge: str, total: int) -> Progress:
        done = 0

        def progress(size: int) -> None:
            nonlocal done
            done += size
            self._gauges.set(gauge, done / total)

        return progress

    async def _land(self, local: LocalFile, job: Job, ref: ShardRef, known: KnownModel) -> None:
        """Raises ChunkMismatch and OSError."""
        spec = known.manifest.shards[ref.index]
        landing = await self._storage.open_landing(ref)
        job.begin(ref.index, done_bytes=landing.done_bytes, source=None)
        for number in landing.missing():
            await landing.write_chunk(number, await read_chunk(local, spec, number, self._disk))
            job.gained(ref.index, landing.chunk_size(number), at=self._world.clock.monotonic())
        job.mark(ref.index, TransferState.VERIFYING)
        if not landing.spec.sealed and (problem := await self._seals.make(landing)) is not None:
            raise ChunkMismatch(problem)
        await landing.commit()
        job.mark(ref.index, TransferState.COMPLETE)
        job.say(f"shard {ref.number} is here")
        self._registry.hold(ref, source=None)


def _taken(local: LocalFile, model: ModelId) -> IdTaken:
    what = f"another model is called {model} here: remove that one, or rename {local.path.name} and add it again"
    if len(local.parts) > 1:
        what = f"another model is called {model} here: remove that one, or rename all parts of this one and add it again"
    return IdTaken(what=what)


def _unreadable(local: LocalFile, error: OSError) -> BadFile:
    return BadFile(what=f"{local.path} could not be copied: {error}")


def _name(header: GgufHeader) -> str | None:
    try:
        return header.text("general.name")
    except BadGguf:
        return None
