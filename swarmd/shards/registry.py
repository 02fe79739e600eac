"""Who holds which shard: ours from the disk, the others' from what they told us. Also: which of ours are in use.

A view, not a store: the files are `storage`'s, the summaries `links`'. Owner of the leases and of what is loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager

from swarmd.domain.events import ShardDropped, ShardStored
from swarmd.domain.ids import ModelId, NodeId, ShardRef
from swarmd.domain.models import TrustLevel
from swarmd.domain.peers import Holding, NodeSummary
from swarmd.domain.shards import Acquisition, ModelView, ShardView
from swarmd.kit.bus import EventBus
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.shards.storage import ShardStorage

Summaries = Callable[[], Mapping[NodeId, NodeSummary]]
Trust = Callable[[ModelId], TrustLevel]
Locked = Callable[[ShardRef], bool]


class Registry:
    """Snapshots of holdings, and leases on shards that run."""

    def __init__(
        self,
        *,
        node: NodeId,
        catalog: Catalog,
        storage: ShardStorage,
        bus: EventBus,
        summaries: Summaries,
        trust: Trust | None = None,
        locked: Locked | None = None,
    ) -> None:
        """`trust`: levels as they are shown; None: the catalogue's. `locked`: against the autopilot; None: nothing is."""
        self._node, self._catalog, self._storage, self._bus, self._summaries = node, catalog, storage, bus, summaries
        self._leases: Counter[ShardRef] = Counter()
        self._loaded: dict[ModelId, frozenset[int]] = {}
        self._trust: Trust = trust or (lambda model: catalog.trust(model))
        self._locked: Locked = locked or (lambda _ref: False)
        self._coming: frozenset[ModelId] = frozenset()
        self._told: dict[NodeId, NodeSummary] = {}
        self._index: dict[tuple[ModelId, str], dict[NodeId, Holding]] = {}
        """Of `_told`, by model and layout: every list of models asks for each of them."""

    def held(self, model: ModelId) -> tuple[int, ...]:
        """Verified on this node's disk, sorted."""
        return self._storage.held(model)

    def hold(self, ref: ShardRef, *, source: NodeId | None, hub: bool = False) -> None:
        """A shard got its final name; tells everybody."""
        known = self._catalog.get(ref.model)
        assert known is not None, "a shard is held of a model that is not known"
        size = known.manifest.shards[ref.index].size_bytes
        self._bus.publish(ShardStored(shard=ref, size_bytes=size, source=source, hub=hub))

    async def drop(self, ref: ShardRef) -> bool:
        """Delete a shard that nobody uses (the caller asked `in_use`). False: it was not there."""
        assert not self.in_use(ref), "the caller must ask first"
        existed = await self._storage.drop(ref)
        if existed:
            self._bus.publish(ShardDropped(shard=ref))
        return existed

    @contextmanager
    def lease(self, model: ModelId, shards: Iterable[int]) -> Generator[None]:
        """While the block runs, these shards are in use and must not be deleted."""
        refs = [ShardRef(model, index) for index in shards]
        self._leases.update(refs)
        try:
            yield
        finally:
            self._leases.subtract(refs)
            for ref in refs:
                if self._leases[ref] <= 0:
                    del self._leases[ref]

    def in_use(self, ref: ShardRef) -> bool:
        return self._leases[ref] > 0

    def set_loaded(self, model: ModelId, shards: Iterable[int]) -> None:
        """For `inference/workers`: these shards, and no others, are in memory."""
        self._loaded[model] = frozenset(shards)

    def set_coming(self, models: Iterable[ModelId]) -> None:
        """For the desk: these are fetched from the hub. They are told of before a shard of them is here, so that others can
        join in."""
        self._coming = frozenset(models)

    def loaded(self, model: ModelId) -> frozenset[int]:
        return self._loaded.get(model, frozenset())

    def holdings(self) -> tuple[Holding, ...]:
        """What this node tells others that it holds, and what arrives here; speeds are added by whoever measured them."""
        return tuple(
            Holding(
                model=known.manifest.model,
                layout=known.manifest.layout,
                shards=shards,
                loaded=tuple(sorted(self.loaded(known.manifest.model).intersection(shards))),
                partial=partial,
                vision=self._storage.has_vision(known.manifest.model),
                shared=known.shared,
            )
            for known in self._catalog.all()
            for shards, partial in [(self._storage.held(known.manifest.model), self._storage.arriving(known.manifest.model))]
            if shards or partial or known.shared or known.manifest.model in self._coming
        )

    def remote(self, model: ModelId, layout: str) -> dict[NodeId, Holding]:
        """Connected nodes that hold shards of this model in this layout, or parts of shards."""
        told = self._summaries()
        if told != self._told:  # summaries are frozen, and the same ones are compared by identity
            self._told, self._index = dict(told), {}
            for node, summary in told.items():
                for holding in summary.holdings:
                    self._index.setdefault((holding.model, holding.layout), {})[node] = holding
        return dict(self._index.get((model, layout), {}))

    def holders(self, ref: ShardRef) -> tuple[NodeId, ...]:
        """Distinct connected nodes with this shard, this one included, sorted."""
        known = self._catalog.get(ref.model)
        if known is None:
            return ()
        others = self.remote(ref.model, known.manifest.layout)
        nodes = {node for node, holding in others.items() if ref.index in holding.shards}
        if ref.index in self._storage.held(ref.model):
            nodes.add(self._node)
        return tuple(sorted(nodes))

    def view(self, model: ModelId, acquisition: Acquisition | None = None) -> ModelView | None:
        known = self._catalog.get(model)
        if known is not None:
            return self._view_known(known, acquisition)
        heard = {
            node
            for node, summary in self._summaries().items()
            for holding in summary.holdings
            if holding.model == model and holding.shards
        }
        if not heard:
            return None
        return ModelView(
            model=model, name=model, manifest=None, trust=TrustLevel.DISCOVERED, shards=(),
            holders=tuple(sorted(heard)), architecture_supported=False, acquisition=acquisition,
        )  # fmt: skip

    def models(self) -> tuple[ModelId, ...]:
        """Known ones first, then names heard from peers; each group sorted."""
        known = [entry.manifest.model for entry in self._catalog.all()]
        heard = {
            holding.model for summary in self._summaries().values() for holding in summary.holdings if holding.shards
        }
        return (*known, *sorted(heard.difference(known)))

    def _view_known(self, known: KnownModel, acquisition: Acquisition | None) -> ModelView:
        manifest = known.manifest
        others = self.remote(manifest.model, manifest.layout)
        held, loaded = set(self._storage.held(manifest.model)), self.loaded(manifest.model)
        transfers = {transfer.index: transfer for transfer in acquisition.transfers} if acquisition else {}
        shards: list[ShardView] = []
        for spec in manifest.shards:
            nodes = {node for node, holding in others.items() if spec.index in holding.shards}
            if spec.index in held:
                nodes.add(self._node)
            shards.append(
                ShardView(
                    index=spec.index,
                    size_bytes=spec.size_bytes,
                    layer_start=spec.layer_start,
                    layer_end=spec.layer_end,
                    held=spec.index in held,
                    loaded=spec.index in loaded,
                    holders=tuple(sorted(nodes)),
                    transfer=transfers.get(spec.index),
                    locked=self._locked(ShardRef(manifest.model, spec.index)),
                )
            )
        return ModelView(
            model=manifest.model,
            name=manifest.name,
            manifest=manifest,
            trust=self._trust(manifest.model),
            shards=tuple(shards),
            holders=tuple(sorted({node for shard in shards for node in shard.holders})),
            architecture_supported=True,
            acquisition=acquisition,
            vision_here=self._storage.has_vision(manifest.model),
            vision_holders=tuple(sorted(
                {node for node, holding in others.items() if holding.vision}
                | ({self._node} if self._storage.has_vision(manifest.model) else set())
            )),
        )
