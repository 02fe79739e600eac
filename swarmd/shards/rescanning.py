"""A look at the disk: what somebody put there or took away, and whether what is held is still what it was.

A shard counts when its bytes have their hashes. Those of a model of the hub may not be known here: then the seal beside the
file is taken, or that of a member; without one the file is kept aside, and a later look tries again. A held shard is read
whole and compared, one at a time: reading and BLAKE3 take 0.2 s for a GB in memory, so the disk says how long it takes.

A damaged shard is set aside, told of, and fetched anew.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final, Protocol

from swarmd.domain.events import ShardDropped, ShardRejected
from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.refusals import Refusal
from swarmd.domain.shards import Acquisition, FoundFile, Rescan
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk
from swarmd.kit.gauges import Gauges
from swarmd.kit.world import World
from swarmd.models.catalog import Catalog
from swarmd.shards.cutting import LocalFile
from swarmd.shards.fetching import SEAL_S
from swarmd.shards.found_files import found_files
from swarmd.shards.registry import Registry
from swarmd.shards.sealing import Sealer
from swarmd.shards.storage import ShardStorage

GAUGE: Final = "shards.rescan.progress"  # of the bytes of held shards, 0 to 1
TOLD_S: Final = 1.0  # what takes longer is told of in the log

logger = logging.getLogger(__name__)


class Owner(Protocol):
    """What is needed of `desk.ShardDesk`."""

    async def add_refusal(self, local: LocalFile, model: ModelId) -> Refusal | None: ...
    async def unload(self, ref: ShardRef) -> Refusal | None: ...
    async def acquire(self, model: ModelId, indices: tuple[int, ...] | None, trigger: str) -> Acquisition | Refusal: ...


class Rescanner:
    """One per node; one look at a time."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        storage: ShardStorage,
        registry: Registry,
        seals: Sealer,
        disk: Disk,
        bus: EventBus,
        gauges: Gauges,
        world: World,
        owner: Owner,
    ) -> None:
        self._catalog, self._storage, self._registry, self._seals = catalog, storage, registry, seals
        self._disk, self._bus, self._gauges, self._world, self._owner = disk, bus, gauges, world, owner
        self._turn = asyncio.Lock()

    async def run(self) -> Rescan:
        async with self._turn:
            models: set[ModelId] = set()
            files: list[FoundFile] = []
            for ref in await self._storage.find_lost():
                self._bus.publish(ShardDropped(shard=ref))
                models.add(ref.model)
            held = [ShardRef(known.manifest.model, index) for known in self._catalog.all()
                    for index in self._storage.held(known.manifest.model)]  # fmt: skip
            await self._learn_seals()
            for ref, matches in await self._storage.find_new():
                if matches:
                    self._registry.hold(ref, source=None)
                    models.add(ref.model)
                else:
                    what = f"these are not the bytes of shard {ref.number} of {ref.model}: it was set aside"
                    files.append(await self._row(ref, what, quarantine=True))
            for ref in await self._storage.unverified():
                what = f"nobody knows the hash of shard {ref.number} of {ref.model}: rescan beside a node that holds it"
                files.append(await self._row(ref, what, quarantine=False))
            for ref in await self._damaged(held):
                models.add(ref.model)
                files.append(await self._row(ref, await self._mend(ref), quarantine=True))
            for model, problem in await self._storage.find_vision():
                if problem is None:
                    models.add(model)
                else:
                    path = self._storage.vision_path(model)
                    files.append(FoundFile(path=str(path), size_bytes=await self._size(path), model=model, problem=problem))
            files += await found_files(self._catalog, self._storage, self._disk, self._owner.add_refusal)
            return Rescan(models=tuple(sorted(models)), files=tuple(files))

    async def check(self, ref: ShardRef) -> None:
        """Of one that nobody is told of any more, since a part of it was wrong: held again, or set aside and fetched."""
        async with self._turn:
            matches = await self._storage.claim(ref)
            if matches:
                self._registry.hold(ref, source=None)
            elif matches is False:
                await self._mend(ref)

    async def _learn_seals(self) -> None:
        """Of shards that lie here without hashes."""
        try:
            await self._catalog.take_seals()
            for ref in await self._storage.unsealed():
                await self._seals.learn(ref, within_s=SEAL_S)
        except OSError as error:
            logger.warning("seals of shards that were put here cannot be read or kept: %s", error)

    async def _damaged(self, held: list[ShardRef]) -> list[ShardRef]:
        """Those of the held ones that are not any more what they were: set aside."""
        clock, found = self._world.clock, list[ShardRef]()
        since, done, total = clock.monotonic(), 0, sum(self._size_of(ref) for ref in held)
        told = since
        try:
            for ref in held:
                size = self._size_of(ref)
                if await self._storage.is_damaged(ref):
                    self._bus.publish(ShardDropped(shard=ref))
                    found.append(ref)
                done += size
                if clock.monotonic() - told >= TOLD_S:
                    told = clock.monotonic()
                    self._gauges.set(GAUGE, done / max(1, total))
                    logger.info("%d of %d MB of held shards are compared with their hashes", done // 10**6, total // 10**6)
        finally:
            self._gauges.remove(GAUGE)
        return found

    async def _mend(self, ref: ShardRef) -> str:
        """It is set aside. Out of memory, and fetched anew; what came of that."""
        refusal = await self._owner.unload(ref)
        if refusal is not None:
            logger.warning("shard %d of %s is damaged and still in memory: %s", ref.number, ref.model, refusal.sentence)
        known = self._catalog.get(ref.model)
        trigger = "user" if known is not None and known.pinned else "auto_manage"
        outcome = await self._owner.acquire(ref.model, (ref.index,), trigger)
        what = "it is fetched anew" if not isinstance(outcome, Refusal) else f"it is not fetched anew: {outcome.sentence}"
        reason = f"its file was damaged on this disk, and {what}"
        logger.warning("shard %d of %s: %s", ref.number, ref.model, reason)
        self._bus.publish(ShardRejected(shard=ref, source=None, reason=reason))
        return f"shard {ref.number} of {ref.model} was damaged on this disk: {what}"

    def _size_of(self, ref: ShardRef) -> int:
        known = self._catalog.get(ref.model)
        return 0 if known is None else known.manifest.shards[ref.index].size_bytes

    async def _row(self, ref: ShardRef, problem: str, *, quarantine: bool) -> FoundFile:
        path = self._storage.quarantine_path(ref) if quarantine else self._storage.unverified_path(ref)
        return FoundFile(path=str(path), size_bytes=await self._size(path), model=ref.model, problem=problem)

    async def _size(self, path: Path) -> int:
        try:
            return await self._disk.size_bytes(path)
        except OSError:
            return 0
