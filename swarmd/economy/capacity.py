"""What the nodes that are linked now can serve together. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from swarmd.domain.ids import ModelId
from swarmd.domain.shards import ModelView

MODELS_SHOWN: Final = 100  # in each list, every 2 s to every dashboard
MEGABYTE: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What counts of one linked node, or of this one. None: it does not tell."""

    region: str
    gpu: str | None
    vram_bytes: int | None
    disk_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCoverage:
    model_id: ModelId
    display_name: str
    size_mb: int
    holders: int
    """Distinct linked nodes with a shard of it, this one included."""
    total_shards: int
    shards_covered: int
    """With at least one of them."""
    hosted_by_us: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    model_id: ModelId
    display_name: str
    size_mb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmCapacity:
    """Contract: swarmllm.md 2.10."""

    online_nodes: int
    total_vram_mb: int | None
    """Of the nodes with a GPU; None: one of them does not tell."""
    total_disk_mb: int | None
    """Likewise, of all nodes."""
    gpu_nodes: int
    regions_represented: int
    serveable_models: tuple[ModelCoverage, ...]
    """Every shard has a holder; the largest first."""
    aspirational_models: tuple[ModelCoverage, ...]
    """Some have; the best covered first."""
    hosted_locally: tuple[ModelCoverage, ...]
    """Of which this node holds a shard; the largest first."""
    min_redundancy: int
    """Copies of the rarest shard of the worst off of the serveable models; 0 when there are none."""
    median_redundancy: float
    headline_model: Headline | None
    """The largest serveable one."""
    computed_at: int
    """Unix seconds."""


def coverage(view: ModelView) -> ModelCoverage:
    return ModelCoverage(
        model_id=view.model,
        display_name=view.name,
        size_mb=round(sum(shard.size_bytes for shard in view.shards) / MEGABYTE),
        holders=len(view.holders),
        total_shards=len(view.shards),
        shards_covered=sum(bool(shard.holders) for shard in view.shards),
        hosted_by_us=any(shard.held for shard in view.shards),
    )


def copies(view: ModelView) -> int:
    """Whole copies there could be: holders of its rarest shard."""
    return min((len(shard.holders) for shard in view.shards), default=0)


def swarm_capacity(machines: Sequence[Machine], models: Sequence[ModelView], *, now: float) -> SwarmCapacity:
    """`machines`: this node and those linked to it."""
    found = [(coverage(view), copies(view)) for view in models if view.shards]
    serveable = [(one, spare) for one, spare in found if one.shards_covered == one.total_shards]
    largest = sorted((one for one, _ in serveable), key=lambda one: (-one.size_mb, one.model_id))
    some = [one for one, _ in found if 0 < one.shards_covered < one.total_shards]
    some.sort(key=lambda one: (-one.shards_covered / one.total_shards, one.model_id))
    ours = sorted((one for one, _ in found if one.hosted_by_us), key=lambda one: (-one.size_mb, one.model_id))
    redundancies = [spare for _, spare in serveable]
    gpus = [machine for machine in machines if machine.gpu is not None]
    head = largest[0] if largest else None
    return SwarmCapacity(
        online_nodes=len(machines),
        total_vram_mb=_total([machine.vram_bytes for machine in gpus]),
        total_disk_mb=_total([machine.disk_bytes for machine in machines]),
        gpu_nodes=len(gpus),
        regions_represented=len({machine.region for machine in machines}),
        serveable_models=tuple(largest[:MODELS_SHOWN]),
        aspirational_models=tuple(some[:MODELS_SHOWN]),
        hosted_locally=tuple(ours[:MODELS_SHOWN]),
        min_redundancy=min(redundancies, default=0),
        median_redundancy=statistics.median(redundancies) if redundancies else 0,
        headline_model=head and Headline(model_id=head.model_id, display_name=head.display_name, size_mb=head.size_mb),
        computed_at=int(now),
    )


def _total(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return round(sum(known) / MEGABYTE) if len(known) == len(sizes) else None
