"""Whose turn it is: an order of nodes that all of them find by themselves, so that no two do the same thing. Pure.

Rendezvous hashing: each node's place for a model is a hash of both names, and the nodes are taken in the order of those
hashes. Against a hash ring with slots it has three advantages here. It gives a whole order and not only the next node, so
that "the best one cannot" has an answer; a node that comes or goes moves nothing but its own share; and there is no number
of slots to choose, with which shares of unequal size would come. It costs a hash for each node and model, which is nothing
among some hundred nodes.

The hash is of the model and not of the shard: one node then is the first for all shards of a model, and takes it whole
where it fits, which spares hops.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from blake3 import blake3

from swarmd.domain.ids import ModelId, NodeId

CACHED = 65_536  # places: of 256 models among 256 nodes; each some 200 bytes


def fetch_order(model: ModelId, candidates: Iterable[tuple[NodeId, int]]) -> list[NodeId]:
    """Who takes the next copy, the first one first. With each candidate its tier: a lower one goes first."""
    return [node for _, _, node in sorted((tier, place(node, model), node) for node, tier in candidates)]


def may_drop(own: NodeId, model: ModelId, holders: Iterable[NodeId], *, surplus: int, turn: int) -> bool:
    """Whether `own` is among the `surplus` holders that may drop a copy in this turn.

    When one of them has dropped its copy there is one holder less and a surplus of one less, and the others are still those
    who may: so it does no harm to see a little late what others did. The turn is in the hash, so that a holder that never
    drops (it is locked there, or switched off) stands in the way for one turn only.
    """
    order = sorted(holders, key=lambda node: (place(node, model, turn), node))
    return own in order[:surplus]


@lru_cache(maxsize=CACHED)
def place(node: NodeId, model: ModelId, turn: int = -1) -> bytes:
    """BLAKE3(node id ‖ model id), with the turn behind it where there is one."""
    data = bytes.fromhex(node) + model.encode() + (turn.to_bytes(8, "big") if turn >= 0 else b"")
    return blake3(data).digest(length=8)
