"""Shards on this node's disk and in its memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import UNSET

from swarmd.api import shapes, views
from swarmd.api.calls import Call
from swarmd.api.ports import Desk, HubDesk, Machine, Memory, Models, Peers
from swarmd.config.settings import Settings
from swarmd.domain.ids import NodeId, ShardRef, short
from swarmd.domain.models import Manifest
from swarmd.domain.refusals import Invalid, NoCoverage, Refusal
from swarmd.domain.shards import Acquisition
from swarmd.kit.disk import Disk


class StorageHandlers:
    def __init__(
        self,
        *,
        node: NodeId,
        settings: Callable[[], Settings],
        models: Models,
        desk: Desk,
        memory: Memory,
        peers: Peers,
        disk: Disk,
        folder: Path,
        machine: Machine,
        hub: HubDesk | None = None,
    ) -> None:
        """`folder`: where the models lie, for what they really take. `hub`: None on a node that asks none."""
        self._node, self._settings, self._models, self._desk = node, settings, models, desk
        self._memory, self._peers, self._disk, self._folder = memory, peers, disk, folder
        self._machine, self._hub = machine, hub

    async def delete_shard(self, call: Call) -> shapes.ShardDeleted | Refusal:
        if (fault := self._index_fault(call.shard)) is not None:
            return fault
        refusal = await self._desk.delete_shard(call.shard)
        if refusal is not None:
            return refusal
        return shapes.ShardDeleted(status="deleted", model_id=call.model, shard_index=call.shard.index)

    async def load_shard(self, call: Call) -> shapes.ShardLoaded | Refusal:
        if (fault := self._index_fault(call.shard)) is not None:
            return fault
        loaded = await self._memory.load_shard(call.shard)
        if isinstance(loaded, Refusal):
            return loaded
        return shapes.ShardLoaded(
            status="loaded", model_id=call.model, shard_index=call.shard.index, loaded_shards=sorted(loaded)
        )

    async def unload_shard(self, call: Call) -> shapes.ShardUnloaded | Refusal:
        if (fault := self._index_fault(call.shard)) is not None:
            return fault
        remaining = await self._memory.unload_shard(call.shard)
        if isinstance(remaining, Refusal):
            return remaining
        return shapes.ShardUnloaded(
            status="unloaded", model_id=call.model, shard_index=call.shard.index, remaining_loaded=sorted(remaining)
        )

    async def download_shard(self, call: Call) -> shapes.ShardDownload | Refusal:
        if (fault := self._index_fault(call.shard)) is not None:
            return fault
        view = self._models.view(call.model)
        if view is None:
            unknown = Invalid(what=f"neither this node nor a connected one knows a model {call.model}", param="model")
            return await self._from_hub(call.shard, None, unknown)
        if call.shard.index in self._models.held(call.model):
            return shapes.ShardDownload(status="already_local", model_id=call.model, shard_index=call.shard.index)
        if view.shards and not self._others(call.shard):
            missing = NoCoverage(model=call.model, missing=(call.shard.index,), shard_count=len(view.shards))
            return await self._from_hub(call.shard, view.manifest, _nobody_has(missing))
        started = await self._desk.acquire(call.model, (call.shard.index,), "user")
        if isinstance(started, NoCoverage):
            return await self._from_hub(call.shard, view.manifest, _nobody_has(started))
        if isinstance(started, Refusal):
            return started
        peer = self._source(call.shard, started)
        return shapes.ShardDownload(
            status="downloading",
            model_id=call.model,
            shard_index=call.shard.index,
            source="p2p",
            peer=UNSET if peer is None else short(peer),
        )

    async def shard_storage(self, _call: Call) -> shapes.ShardStorageView:
        settings = self._settings()
        found = [self._models.view(model, self._desk.acquisition(model)) for model in self._models.models()]
        models = [views.stored_model(view) for view in found if view is not None]
        vram_mb = None if self._machine.snapshot().gpu_name else 0  # of a GPU nobody has measured it yet
        return shapes.ShardStorageView(
            models=models,
            total_local_bytes=sum(model.local_bytes for model in models),
            disk_usage_bytes=await self._disk.folder_bytes(self._folder),
            auto_manage_enabled=settings.auto_manage.enabled,
            auto_manage_max_storage_mb=settings.auto_manage.max_storage_mb,
            max_disk_mb=settings.resources.max_disk_mb,
            pool_vram_mb=vram_mb,
            local_vram_mb=vram_mb,
            peer_count=sum(peer.connected for peer in self._peers.views()),
        )

    async def rescan(self, _call: Call) -> shapes.Rescanned:
        found = await self._desk.rescan()
        return shapes.Rescanned(
            status="ok",
            models_updated=list(found.models),
            count=len(found.models),
            found_files=[
                shapes.FoundFileRow(
                    path=one.path, size_bytes=one.size_bytes, model_id=one.model, problem=one.problem
                )
                for one in found.files
            ],
        )

    async def _from_hub(
        self, shard: ShardRef, manifest: Manifest | None, missing: Invalid
    ) -> shapes.ShardDownload | Refusal:
        """No peer has it: where the hub has it, for whoever asked to fetch it from there. `missing`: what is said where the
        hub is not known to have it either, 400 in the contract."""
        known = manifest.source if manifest is not None else None
        if known is None and self._hub is not None:
            origin = await self._hub.origin(shard.model)
            known = None if isinstance(origin, Refusal) else origin
        if known is None:
            return Invalid(what=f"{missing.what}; no Hugging Face source of it is known", param=missing.param)
        return shapes.ShardDownload(
            status="use_hf",
            model_id=shard.model,
            shard_index=shard.index,
            source="huggingface",
            repo_id=known.repo_id,
            filename=known.filename,
        )

    def _index_fault(self, shard: ShardRef) -> Invalid | None:
        """An index that a model does not have whose shards are known."""
        view = self._models.view(shard.model)
        if view is None or not view.shards or shard.index < len(view.shards):
            return None
        what = f"model {shard.model} has no shard {shard.index}: it has {len(view.shards)}, from 0 on"
        return Invalid(what=what, param="index")

    def _others(self, shard: ShardRef) -> tuple[NodeId, ...]:
        """Connected nodes that hold it, but this one."""
        return tuple(node for node in self._models.holders(shard) if node != self._node)

    def _source(self, shard: ShardRef, started: Acquisition) -> NodeId | None:
        """Whom it comes from: the transfer says so once it runs; before that, whoever holds it."""
        sources = [one.source for one in started.transfers if one.index == shard.index and one.source is not None]
        return next(iter([*sources, *self._others(shard)]), None)


def _nobody_has(missing: NoCoverage) -> Invalid:
    return Invalid(what=missing.sentence, param="index")
