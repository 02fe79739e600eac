"""Shards on this node's disk and in its memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import UNSET

from swarmd.api import shapes, views
from swarmd.api.calls import Call
from swarmd.api.ports import Desk, HubDesk, Memory, Models, Peers
from swarmd.config.settings import Settings
from swarmd.domain.ids import NodeId, ShardRef, short
from swarmd.domain.refusals import Invalid, NoCoverage, NotFound, Refusal
from swarmd.domain.shards import Acquisition, ModelView
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
        hub: HubDesk | None = None,
    ) -> None:
        """`folder`: where the models lie, for what they really take. `hub`: None on a node that asks none."""
        self._node, self._settings, self._models, self._desk = node, settings, models, desk
        self._memory, self._peers, self._disk, self._folder = memory, peers, disk, folder
        self._hub = hub

    async def delete_shard(self, call: Call) -> shapes.ShardDeleted | Refusal:
        refusal = await self._desk.delete_shard(call.shard)
        if refusal is not None:
            return refusal
        return shapes.ShardDeleted(status="deleted", model_id=call.model, shard_index=call.shard.index)

    async def load_shard(self, call: Call) -> shapes.ShardLoaded | Refusal:
        loaded = await self._memory.load_shard(call.shard)
        if isinstance(loaded, Refusal):
            return loaded
        return shapes.ShardLoaded(
            status="loaded", model_id=call.model, shard_index=call.shard.index, loaded_shards=sorted(loaded)
        )

    async def unload_shard(self, call: Call) -> shapes.ShardUnloaded | Refusal:
        remaining = await self._memory.unload_shard(call.shard)
        if isinstance(remaining, Refusal):
            return remaining
        return shapes.ShardUnloaded(
            status="unloaded", model_id=call.model, shard_index=call.shard.index, remaining_loaded=sorted(remaining)
        )

    async def download_shard(self, call: Call) -> shapes.ShardDownload | Refusal:
        view = self._models.view(call.model)
        if view is None or (view.shards and call.shard.index >= len(view.shards)):
            return NotFound(what=f"there is no shard {call.shard.index} of a model {call.model}")
        if call.shard.index in self._models.held(call.model):
            return shapes.ShardDownload(status="already_local", model_id=call.model, shard_index=call.shard.index)
        if view.shards and not self._others(call.shard):
            missing = NoCoverage(model=call.model, missing=(call.shard.index,), shard_count=len(view.shards))
            return await self._from_hub(call.shard, view, missing)
        started = await self._desk.acquire(call.model, (call.shard.index,), "user")
        if isinstance(started, NoCoverage):
            return await self._from_hub(call.shard, view, started)
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
        return shapes.ShardStorageView(
            models=models,
            total_local_bytes=sum(model.local_bytes for model in models),
            disk_usage_bytes=await self._disk.folder_bytes(self._folder),
            auto_manage_enabled=settings.auto_manage.enabled,
            auto_manage_max_storage_mb=settings.auto_manage.max_storage_mb,
            max_disk_mb=settings.resources.max_disk_mb,
            pool_vram_mb=None,
            local_vram_mb=None,
            peer_count=sum(peer.connected for peer in self._peers.views()),
        )

    async def rescan(self, _call: Call) -> shapes.Rescanned:
        updated = await self._desk.rescan()
        return shapes.Rescanned(status="ok", models_updated=list(updated), count=len(updated))

    async def _from_hub(self, shard: ShardRef, view: ModelView, missing: NoCoverage) -> shapes.ShardDownload | Refusal:
        """No peer has it: where the hub has it, for whoever asked to fetch it from there."""
        known = view.manifest.source if view.manifest is not None else None
        if known is None and self._hub is not None:
            origin = await self._hub.origin(shard.model)
            known = None if isinstance(origin, Refusal) else origin
        if known is None:  # 400 in the contract, where the same refusal of a generation is 503
            return Invalid(what=f"{missing.sentence}; no Hugging Face source of it is known", param="index")
        return shapes.ShardDownload(
            status="use_hf",
            model_id=shard.model,
            shard_index=shard.index,
            source="huggingface",
            repo_id=known.repo_id,
            filename=known.filename,
        )

    def _others(self, shard: ShardRef) -> tuple[NodeId, ...]:
        """Connected nodes that hold it, but this one."""
        return tuple(node for node in self._models.holders(shard) if node != self._node)

    def _source(self, shard: ShardRef, started: Acquisition) -> NodeId | None:
        """Whom it comes from: the transfer says so once it runs; before that, whoever holds it."""
        sources = [one.source for one in started.transfers if one.index == shard.index and one.source is not None]
        return next(iter([*sources, *self._others(shard)]), None)
