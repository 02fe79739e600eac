"""Who takes which part of a model that somebody shares with all, and who has not taken its part yet. Pure.

A node's share is a run of shards from a place that a hash gives (`models.slicing.fair_share`). So shares overlap, and some
shards are in none: gaps. Those are divided among the nodes, each of them to the nearest share. Whoever sees the same nodes
finds the same parts, and so everybody also knows what the others are about to fetch, be it told or not: that is left to
them for FAIR_S.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from swarmd.domain.ids import ModelId, NodeId
from swarmd.economy.copies import GRACE_S
from swarmd.economy.spreading import place
from swarmd.economy.stock import NONE, ModelStock, Shards, Snapshot
from swarmd.models.slicing import fair_share

FAIR_S: Final = 600.0
"""What a node owes is left to it so long after the last of it came, or began to: it looks every five minutes, and a shard of
512 MB takes seven on a line of 10 Mbit/s."""
CACHED: Final = 256  # one for each model that a node knows


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    share: Shards
    gaps: Shards
    """In nobody's share: this node's as long as no other has them."""


def parts_of(model: ModelId, count: int, nodes: Iterable[NodeId]) -> dict[NodeId, Part]:
    """By node, in any order. Together they are all shards, and no gap is in two."""
    return _parts(model, count, tuple(sorted(nodes)))


@lru_cache(maxsize=CACHED)
def _parts(model: ModelId, count: int, nodes: tuple[NodeId, ...]) -> dict[NodeId, Part]:
    shares = {node: frozenset(fair_share(node, model, count, len(nodes) - 1)) for node in nodes}
    open_ = sorted(set(range(count)).difference(*shares.values()))
    most = -(-len(open_) // len(nodes))  # shares that lie together would leave one node with nearly all
    gaps: dict[NodeId, set[int]] = {node: set() for node in nodes}
    for index in open_:
        able = [node for node in nodes if len(gaps[node]) < most]
        gaps[min(able, key=lambda node: (_distance(shares[node], index), place(node, model), node))].add(index)
    return {node: Part(share=shares[node], gaps=frozenset(gaps[node])) for node in nodes}


def own_share(snapshot: Snapshot, model: ModelStock) -> Shards:
    """What this node takes and keeps, whoever else has it; nothing of a model that nobody shares."""
    return _all_parts(snapshot, model)[snapshot.own].share if model.shared and model.sizes else NONE


def own_gaps(snapshot: Snapshot, model: ModelStock) -> Shards:
    """What this node takes besides, since no other has it or is fetching it. Who vanished a moment ago counts."""
    if not (model.shared and model.sizes):
        return NONE
    others = (one.held.get(model.model, NONE) | one.coming.get(model.model, NONE) for one in snapshot.nodes)
    return _all_parts(snapshot, model)[snapshot.own].gaps.difference(*others)


def owed(snapshot: Snapshot, model: ModelStock) -> dict[NodeId, Shards]:
    """What others that are there neither have nor are seen to fetch of their parts."""
    if not (model.shared and model.sizes):
        return {}
    parts = _all_parts(snapshot, model)
    known = {one.node: one.held.get(model.model, NONE) | one.coming.get(model.model, NONE) for one in snapshot.nodes}
    anybody = (model.held | model.coming).union(*known.values())
    found = {
        one.node: (parts[one.node].share - known[one.node]) | (parts[one.node].gaps - anybody)
        for one in snapshot.nodes
        if one.gone_s is None
    }
    return {node: shards for node, shards in found.items() if shards}


def due(snapshot: Snapshot, model: ModelStock) -> dict[int, float]:
    """The shards that others owe, with the seconds for which the quickest of those has been idle."""
    found: dict[int, float] = {}
    for node, shards in owed(snapshot, model).items():
        idle_s = model.owed_s.get(node, 0.0)
        found |= {index: min(idle_s, found.get(index, idle_s)) for index in shards}
    return found


def _all_parts(snapshot: Snapshot, model: ModelStock) -> dict[NodeId, Part]:
    """Who vanished a moment ago has its part still: else all would fetch at once when a machine starts again."""
    others = (one.node for one in snapshot.nodes if one.gone_s is None or one.gone_s < GRACE_S)
    return parts_of(model.model, len(model.sizes), (snapshot.own, *others))


def _distance(share: Shards, index: int) -> int:
    return max(min(share) - index, index - max(share))
