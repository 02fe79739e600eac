"""Who has how many copies of what: holders, what is coming, and how many are missing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from swarmd.domain.ids import ModelId, NodeId
from swarmd.economy.replication import replication_target
from swarmd.economy.stock import NONE, ModelStock, NodeStock, Snapshot

GRACE_S: Final = 600.0
"""A node that vanished counts as a holder for so long: machines are restarted, lines come back, and shards are large."""
URGENT_GRACE_S: Final = 60.0
"""The same where only one copy of a demanded shard is left: a restart takes as long, losing that one too would be an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCopies:
    """One shard as the swarm has it. Nodes are distinct; this one is among them."""

    holders: tuple[NodeId, ...]
    """Nodes that are there."""
    coming: tuple[NodeId, ...]
    """Further nodes that are fetching it."""
    spared: int
    """Holders that vanished within the grace time."""
    linked: int
    """Other holders that this node can fetch from."""
    near: int
    """Holders in this node's region, this node included."""
    target: int

    @property
    def missing(self) -> int:
        """Copies to be made; 0 or more."""
        return max(0, self.target - len(self.holders) - len(self.coming) - self.spared)


def pool_of(snapshot: Snapshot) -> int:
    """Nodes of the swarm, this one included. Whoever vanished a moment ago counts, so that targets stay as they are."""
    return 1 + sum(one.gone_s is None or one.gone_s < GRACE_S for one in snapshot.nodes)


def copies_of(
    snapshot: Snapshot, model: ModelStock, nodes: Iterable[NodeStock], *, pool: int
) -> tuple[ShardCopies, ...]:
    """By shard index. `nodes`: those of the snapshot that have any of the model."""
    count = len(model.sizes)
    holders: list[list[NodeId]] = [[] for _ in range(count)]
    coming: list[list[NodeId]] = [[] for _ in range(count)]
    vanished: list[list[float]] = [[] for _ in range(count)]
    linked, near = [0] * count, [0] * count
    for index in model.held:
        holders[index].append(snapshot.own)
        near[index] += 1
    for index in model.coming - model.held:
        coming[index].append(snapshot.own)
    for one in nodes:
        held = frozenset(index for index in one.held.get(model.model, NONE) if index < count)
        if one.gone_s is not None:
            for index in held:
                vanished[index].append(one.gone_s)
            continue
        for index in held:
            holders[index].append(one.node)
            linked[index] += one.connected
            near[index] += one.region == snapshot.region
        for index in one.coming.get(model.model, NONE) - held:
            if index >= count:
                continue
            coming[index].append(one.node)
    target = replication_target(pool=pool, min_replicas=snapshot.limits.min_replicas, requests=model.requests)
    found: list[ShardCopies] = []
    for index in range(count):
        urgent = model.requests > 0 and len(holders[index]) <= 1
        grace_s = URGENT_GRACE_S if urgent else GRACE_S
        found.append(
            ShardCopies(
                holders=tuple(holders[index]), coming=tuple(coming[index]),
                spared=sum(gone_s < grace_s for gone_s in vanished[index]), linked=linked[index], near=near[index],
                target=target,
            )
        )  # fmt: skip
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The copies of every model of a snapshot."""

    pool: int
    copies: Mapping[ModelId, tuple[ShardCopies, ...]]
    nodes: Mapping[ModelId, Sequence[NodeStock]]
    """Others that have any of it, or are fetching it, gone ones included. Without those models that nobody has."""


def survey(snapshot: Snapshot) -> Survey:
    """Takes as long as there are holdings, not as there are nodes times models."""
    pool = pool_of(snapshot)
    nodes: dict[ModelId, list[NodeStock]] = {}
    for one in snapshot.nodes:
        for model in {**one.held, **one.coming}:
            nodes.setdefault(model, []).append(one)
    return Survey(
        pool=pool,
        copies={one.model: copies_of(snapshot, one, nodes.get(one.model, ()), pool=pool) for one in snapshot.models},
        nodes=nodes,
    )


def missing_of(copies: Sequence[ShardCopies]) -> int:
    """Of all shards of a model together."""
    return sum(one.missing for one in copies)


def model_holders(copies: Iterable[ShardCopies]) -> int:
    """Distinct nodes with any shard."""
    return len({node for one in copies for node in one.holders})
