"""Which models the swarm should hold more of, with a score and reasons. Pure; it shows, and the steward decides for itself.

Models of the hub that nobody here has asked about are no candidates: this node does not ask the hub by itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from swarmd.domain.ids import ModelId
from swarmd.domain.shards import ModelView
from swarmd.economy.capacity import MEGABYTE, copies, coverage

ENTRIES: Final = 100  # contract: swarmllm.md 2.10
MEMORY_FACTOR: Final = 1.15  # contract: swarmllm.md 2.2.1
BUSY, VERY_BUSY = 10, 50  # requests of the demand window; contract: swarmllm.md 4.9
NEED_POINTS, DEMAND_POINTS, COVERED_POINTS = 60.0, 30.0, 10.0
"""Copies that are missing weigh most, then what people ask for; of two alike, the one that is nearer to being complete."""
DEMAND_FULL: Final = 100  # requests that bring all points of demand: the demand factor grows no further (swarmllm.md 4.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Contract: swarmllm.md 2.10."""

    model_id: ModelId
    display_name: str
    status: str
    """`blocked`: its user said that the autopilot shall not touch it here; else `hosting` (a shard is here), `serveable`,
    `aspirational` (some shards have a holder) or `unreachable`."""
    score: int
    """0 to 100."""
    why_tags: tuple[str, ...]
    """Keys of sentences: `under_replicated`, `enough_copies`, `in_demand`, `incomplete`, `no_holder`, `hosted_here`."""
    swarm_replicas: int
    """Whole copies: holders of its rarest shard."""
    target_replicas: int
    size_mb: int
    vram_required_mb: int
    shards_covered: int
    total_shards: int
    hosted_by_us: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishlist:
    computed_at: int
    """Unix seconds."""
    entries: tuple[Wish, ...]
    """The highest score first."""


def target(*, nodes: int, demand: int) -> int:
    """The lighter formula of the wishlist (swarmllm.md 4.9)."""
    factor = 2.0 if demand > VERY_BUSY else 1.5 if demand > BUSY else 1.0
    return max(1, min(nodes, math.ceil(max(1, (nodes - 1).bit_length()) * factor)))


def wishlist(
    models: Sequence[ModelView], *, nodes: int, demand: Mapping[ModelId, int], blocked: Collection[ModelId], now: float
) -> Wishlist:
    """`nodes`: this one and those linked to it; `demand`: requests of the last ten minutes, by model."""
    wishes = [
        _wish(view, nodes=nodes, demand=demand.get(view.model, 0), blocked=view.model in blocked)
        for view in models
        if view.shards
    ]
    wishes.sort(key=lambda wish: (-wish.score, wish.model_id))
    return Wishlist(computed_at=int(now), entries=tuple(wishes[:ENTRIES]))


def _wish(view: ModelView, *, nodes: int, demand: int, blocked: bool) -> Wish:
    known, spare = coverage(view), copies(view)
    wanted = target(nodes=nodes, demand=demand)
    share = known.shards_covered / known.total_shards
    missing = max(0, wanted - spare) / wanted
    asked = min(1.0, math.log1p(demand) / math.log1p(DEMAND_FULL))
    points = NEED_POINTS * missing + DEMAND_POINTS * asked + COVERED_POINTS * share
    tags = ["under_replicated" if missing else "enough_copies"]
    if demand:
        tags.append("in_demand")
    if not share:
        tags.append("no_holder")
    elif share < 1:
        tags.append("incomplete")
    if known.hosted_by_us:
        tags.append("hosted_here")
    return Wish(
        model_id=view.model, display_name=view.name, status=_status(share, hosted=known.hosted_by_us, blocked=blocked),
        score=0 if blocked else round(points), why_tags=tuple(tags), swarm_replicas=spare, target_replicas=wanted,
        size_mb=known.size_mb,
        vram_required_mb=round(sum(shard.size_bytes for shard in view.shards) * MEMORY_FACTOR / MEGABYTE),
        shards_covered=known.shards_covered, total_shards=known.total_shards, hosted_by_us=known.hosted_by_us,
    )  # fmt: skip


def _status(share: float, *, hosted: bool, blocked: bool) -> str:
    if blocked:
        return "blocked"
    if hosted:
        return "hosting"
    if share == 1:
        return "serveable"
    return "aspirational" if share else "unreachable"
