"""Models that nobody asked for: how much they may take, and which of them give way.

A model that a peer told of, with no shard of it here and nobody who wants it, costs the disk its manifest, its header and
its vocabulary, and the memory its header. All of these together have a limit, and every peer that introduced some has an
equal share of it: one that tells of many models cannot keep out those of the others. A share shrinks when one more peer
introduces its first, and then whoever has more gives way. Only what stays within its peer's share comes in, so nothing that
gave way comes back to push out something else. For what a person adds, asks for or fetches, all of them give way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from swarmd.domain.ids import ModelId, NodeId, short
from swarmd.domain.refusals import NotFound, Refusal
from swarmd.models import catalog as catalogs
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.shards.jobs import Job
from swarmd.shards.storage import ShardStorage

LEARNED_BYTES: Final = 1 << 30
"""All together: 2 % of the disk that swarmd may use by default, and half of it in memory. Some 50 models with large
vocabularies (10 MB each, once in the header and once in the vocabulary)."""
LEAST_BYTES: Final = 8 << 20
"""What a model counts at least, since a small one takes as much of a list: 128 of them, half of `MODELS_LIMIT`."""
SHARES: Final = 4
"""At least so many, also when there is one peer: so that the next few need nobody to give way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spare:
    """A model that may give way. `introducer` None: nobody remembers."""

    model: ModelId
    introducer: NodeId | None
    size_bytes: int


def plan_place(
    spares: Sequence[Spare], node: NodeId | None, size_bytes: int, *, free_bytes: int, free_places: int
) -> tuple[ModelId, ...] | None:
    """Which spares (the oldest first) have to go so that one more from `node` has its place; None: there is none for it."""
    counted = [max(spare.size_bytes, LEAST_BYTES) for spare in spares]
    size = max(size_bytes, LEAST_BYTES)
    capacity = min(
        LEARNED_BYTES,
        sum(spare.size_bytes for spare in spares) + free_bytes,
        (len(spares) + free_places) * LEAST_BYTES,
    )
    taken: Counter[NodeId | None] = Counter()
    for spare, count in zip(spares, counted, strict=True):
        taken[spare.introducer] += count
    share = capacity // max(SHARES, len(taken.keys() | {node}))
    if taken[node] + size > share:
        return None
    excess = sum(counted) + size - capacity
    going: list[ModelId] = []
    # The newest first: what has been shown for long is more likely to be what somebody looks at.
    for spare, count in reversed(list(zip(spares, counted, strict=True))):
        if excess > 0 and taken[spare.introducer] > share:
            taken[spare.introducer] -= count
            excess -= count
            going.append(spare.model)
    assert excess <= 0, "within their shares all have room"
    return tuple(going)


class Discovered:
    """Judges models of the catalogue; changes nothing but by `give_way`."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        storage: ShardStorage,
        job: Callable[[ModelId], Job | None],
        in_memory: Callable[[], Collection[ModelId]],
        free_bytes: Callable[[], int],
    ) -> None:
        """`job`: the running one. `in_memory`: workers use them. `free_bytes`: that anything new may take of the disk."""
        self._catalog, self._storage = catalog, storage
        self._job, self._in_memory, self._free_bytes = job, in_memory, free_bytes

    def is_merely(self, model: ModelId) -> bool:
        """Known, but there is nothing of it here that somebody asked for. A job that adds it may be running."""
        known = self._catalog.get(model)
        return known is not None and self._is_merely(known, self._in_memory())

    def may_go(self, model: ModelId) -> bool:
        """Nothing of it is here that somebody asked for, and no job holds on to it: shards mean nothing in another cut."""
        return self.is_merely(model) and self._job(model) is None

    def _is_merely(self, known: KnownModel, in_memory: Collection[ModelId]) -> bool:
        model = known.manifest.model
        return not known.pinned and not self._storage.held(model) and model not in in_memory

    def spare_bytes(self, *, but: ModelId | None = None) -> int:
        """What could give way, beside the model for which it would."""
        return sum(spare.size_bytes for spare in self._spares() if spare.model != but)

    def may_come(self, model: ModelId) -> bool:
        """Whether anybody may tell of it: no person removed it, or adds it from a file just now."""
        job = self._job(model)
        return not self._catalog.was_removed(model) if job is None else not job.local

    def has_room(self, node: NodeId, size_bytes: int = 0) -> bool:
        """For one more model that `node` tells of. 0: its size is not known yet."""
        return self._plan(node, size_bytes) is not None

    def wants(self, node: NodeId, model: ModelId, size_bytes: int) -> bool:
        """Whether `admit` would let it in."""
        return not isinstance(self._judge(node, model, size_bytes), Refusal)

    def admit(self, node: NodeId, known: KnownModel) -> tuple[ModelId, ...] | Refusal:
        """For `Catalog.adopt` of what `node` sent. NotFound: not now."""
        return self._judge(node, known.manifest.model, known.stored_bytes)

    def admit_own(self, known: KnownModel) -> tuple[ModelId, ...]:
        """For `Catalog.adopt` of a file of this node: it takes the place of what peers call by its name."""
        model = known.manifest.model
        return (model,) if self.is_merely(model) else self._one_place()

    async def give_way(self, short_bytes: int) -> None:
        """So many bytes less, if there are as many. Raises OSError."""
        going: list[ModelId] = []
        for spare in reversed(self._spares()):
            if short_bytes > 0:
                short_bytes -= spare.size_bytes
                going.append(spare.model)
        if going:
            await self._catalog.evict(going)

    def _judge(self, node: NodeId, model: ModelId, size_bytes: int) -> tuple[ModelId, ...] | Refusal:
        if not self.may_come(model):
            return NotFound(what=f"model {model} was removed here, or is being added from a file: nobody else's is taken")
        if self._job(model) is not None:  # somebody waits for it: it needs no share, and its shards are what needs room
            return self._one_place()
        going = self._plan(node, size_bytes)
        if going is None:
            return NotFound(what=f"models that nobody asked for have no room left for {model} of node {short(node)}")
        return going

    def _plan(self, node: NodeId, size_bytes: int) -> tuple[ModelId, ...] | None:
        free_places = catalogs.MODELS_LIMIT - len(self._catalog.all())
        return plan_place(
            self._spares(), node, size_bytes, free_bytes=self._free_bytes(), free_places=free_places
        )

    def _one_place(self) -> tuple[ModelId, ...]:
        """Nothing when there is a place; or nothing could be done: then the catalogue refuses."""
        if len(self._catalog.all()) < catalogs.MODELS_LIMIT:
            return ()
        return tuple(spare.model for spare in self._spares()[-1:])

    def _spares(self) -> list[Spare]:
        """The oldest first."""
        in_memory = self._in_memory()
        return [
            Spare(model=known.manifest.model, introducer=known.introducer, size_bytes=known.stored_bytes)
            for known in self._catalog.oldest_first()
            if self._is_merely(known, in_memory) and self._job(known.manifest.model) is None
        ]
