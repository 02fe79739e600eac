"""What this node has and knows of each model, for the steward: catalogue, storage and registry in one row."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from swarmd.domain.ids import ModelId, ShardRef
from swarmd.models.catalog import Catalog
from swarmd.shards.registry import Registry

MAX_HEARD: Final = 256  # names without a manifest, as many as there may be models: the rest are nothing that can be fetched


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelved:
    """One model. Without a manifest only its name is known."""

    model: ModelId
    name: str
    layout: str = ""
    sizes: tuple[int, ...] = ()
    pinned: bool = False
    has_source: bool = False
    shared: bool = False
    """This node says so to others."""
    held: frozenset[int] = field(default_factory=frozenset[int])
    loaded: frozenset[int] = field(default_factory=frozenset[int])
    running: frozenset[int] = field(default_factory=frozenset[int])


class Shelf:
    """No state of its own."""

    def __init__(self, *, catalog: Catalog, registry: Registry) -> None:
        self._catalog, self._registry = catalog, registry

    def models(self) -> tuple[Shelved, ...]:
        """Known ones first, then names heard from peers."""
        shared = {holding.model for holding in self._registry.holdings() if holding.shared}
        known = tuple(self._row(model, shared=model in shared) for model in self._registry.models() if self._knows(model))
        heard = (model for model in self._registry.models() if not self._knows(model))
        return (*known, *(Shelved(model=model, name=model) for model in islice(heard, MAX_HEARD)))

    def _knows(self, model: ModelId) -> bool:
        return self._catalog.get(model) is not None

    def _row(self, model: ModelId, *, shared: bool) -> Shelved:
        known = self._catalog.get(model)
        assert known is not None, "the caller has looked"
        held = frozenset(self._registry.held(model))
        return Shelved(
            model=model,
            name=known.manifest.name,
            layout=known.manifest.layout,
            sizes=tuple(shard.size_bytes for shard in known.manifest.shards),
            pinned=known.pinned,
            has_source=known.manifest.source is not None,
            shared=shared,
            held=held,
            loaded=self._registry.loaded(model) & held,
            running=frozenset(index for index in held if self._registry.in_use(ShardRef(model, index))),
        )
