"""Snapshots of a few lines, for tests of proposals."""

from __future__ import annotations

from typing import Any

from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.models import TrustLevel
from swarmd.economy.stock import Limits, ModelStock, NodeStock, Snapshot

OWN = NodeId("0" * 64)
M, OTHER = ModelId("m"), ModelId("other")
MB = 1_000_000
NOON = 3600.0 * 400_000 + 1800.0
"""In the middle of a turn."""


def peer(number: int, *held: int, model: ModelId = M, **rest: Any) -> NodeStock:
    coming = rest.pop("coming", ())
    return NodeStock(
        node=NodeId(f"{number:064x}"), held={model: frozenset(held)} if held else {},
        coming={model: frozenset(coming)} if coming else {}, **rest,
    )  # fmt: skip


def model(*held: int, count: int = 4, name: ModelId = M, **rest: Any) -> ModelStock:
    """Shards of 100 MB of a model that is asked for."""
    given: dict[str, Any] = {
        "trust": TrustLevel.DEMAND_VERIFIED, "requests": 5, "sizes": (100 * MB,) * count, "held": frozenset(held), **rest,
    }  # fmt: skip
    given.setdefault("peak_requests", given["requests"])
    return ModelStock(model=name, name=name, **given)


def limits(**rest: Any) -> Limits:
    given: dict[str, Any] = {
        "contribution": "maximum", "budget_bytes": 10_000 * MB, "room_bytes": 10_000 * MB, "free_slots": 10,
        "moves_left": 60, "pressure": 0.6, **rest,
    }  # fmt: skip
    return Limits(**given)


def snapshot(*nodes: NodeStock, models: tuple[ModelStock, ...], own: NodeId = OWN, **rest: Any) -> Snapshot:
    region = rest.pop("region", "??")
    now = rest.pop("now", NOON)
    return Snapshot(own=own, region=region, now=now, nodes=nodes, models=models, limits=limits(**rest))
