"""Models: what is known, added, fetched, planned, unloaded and removed."""

from __future__ import annotations

from pathlib import Path

from swarmd.api import shapes, views
from swarmd.api.calls import Call, Encoded
from swarmd.api.fresh import Fresh
from swarmd.api.metadata import metadata_view
from swarmd.api.ports import Desk, Encrypted, Generations, Memory, Models
from swarmd.api.replies import about
from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.refusals import Invalid, NotFound, Refusal
from swarmd.domain.shards import ModelView
from swarmd.models.catalog import Catalog
from swarmd.shards.desk import MEGABYTE


class ModelHandlers:
    def __init__(
        self,
        *,
        node: NodeId,
        catalog: Catalog,
        models: Models,
        desk: Desk,
        memory: Memory,
        generations: Generations,
        encrypted: Encrypted,
        listing: Fresh,
    ) -> None:
        """`listing`: keeps the list of all models."""
        self._listing = listing
        self._node, self._catalog, self._models, self._encrypted = node, catalog, models, encrypted
        self._desk, self._memory, self._generations = desk, memory, generations

    async def models(self, _call: Call) -> Encoded:
        """A list of `shapes.ModelRow`."""
        return self._listing.reply(self._rows)

    def _rows(self) -> list[shapes.ModelRow]:
        views_now = [self._view(model) for model in self._models.models()]
        return [
            views.model_row(view, node=self._node, encrypted=self._is_encrypted(view.model))
            for view in views_now
            if view is not None
        ]

    def _is_encrypted(self, model: ModelId) -> bool:
        state = self._encrypted.state(model)
        return not isinstance(state, Refusal) and state.enabled

    async def add_file(self, call: Call) -> shapes.ModelAdded | Refusal:
        body: shapes.AddFile = call.body
        path = Path(body.path)
        if not path.is_absolute() or "\0" in body.path:
            what = f"{body.path[:200]!r} is not an absolute path: the node has another working folder"
            return Invalid(what=what, param="path")
        size_bytes = None if body.shard_size_mb is None else body.shard_size_mb * MEGABYTE
        model = await self._desk.add_file(path, size_bytes)
        if isinstance(model, Refusal):
            return about(model, "path")
        view = self._view(model)
        return shapes.ModelAdded(status="added", model_id=model, shard_count=len(view.shards) if view else 0)

    async def remove(self, call: Call) -> shapes.ModelDeleted | Refusal:
        removed = await self._desk.delete_model(call.model)
        if isinstance(removed, Refusal):
            return removed
        return shapes.ModelDeleted(status="deleted", model_id=call.model, files_removed=removed)

    async def add(self, call: Call) -> shapes.Acquiring | Refusal:
        started = await self._desk.acquire(call.model, None, "user")
        return started if isinstance(started, Refusal) else shapes.Acquiring(status="acquiring", model_id=call.model)

    async def status(self, call: Call) -> shapes.AcquisitionStatus | shapes.NoAcquisition:
        acquisition = self._desk.acquisition(call.model)
        return views.acquisition_status(acquisition) if acquisition else views.no_acquisition(call.model)

    async def metadata(self, call: Call) -> shapes.Metadata | Invalid:
        known = self._catalog.get(call.model)
        if known is None:  # the seed: 400, not 404 (design, ruling 3)
            return Invalid(what=f"there is no GGUF header of model {call.model} on this node", param="model")
        return metadata_view(call.model, known.header, architecture_supported=True)  # the catalogue takes no others

    async def pipeline_plan(self, call: Call) -> shapes.PlanView | Refusal:
        plan = self._generations.plan(call.model)
        return plan if isinstance(plan, Refusal) else views.pipeline_plan(plan)

    async def unload(self, call: Call) -> shapes.ModelUnloaded | Refusal:
        view = self._view(call.model)
        if view is None:
            return NotFound(what=f"this node knows no model {call.model}")
        segments = len(self._memory.loaded(call.model))
        freed = await self._memory.unload_model(call.model)
        if isinstance(freed, Refusal):
            return freed
        return shapes.ModelUnloaded(
            status="unloaded",
            model_id=call.model,
            model_name=view.name,
            segments_removed=segments,
            estimated_freed_mb=views.megabytes(freed),
        )

    def _view(self, model: ModelId) -> ModelView | None:
        return self._models.view(model, self._desk.acquisition(model))
