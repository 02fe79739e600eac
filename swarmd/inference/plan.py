"""Which nodes run which shards of a request. Pure: a snapshot in, a plan or a refusal out.

Fewest stages first, since every stage adds a hop to every token; among those, the least predicted time per token, from
measured layer times and round trips; then the lowest node ids, so that equal snapshots give equal plans. The search is a
shortest path over (shard, node): a stage is a run of consecutive shards on one node that fits its free memory, less what
the node's earlier stages take. Since the best way to a shard may have used up the memory that the rest needs, a search that
finds nothing is repeated with several ways kept.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.plans import PipelinePlan, Stage
from swarmd.domain.refusals import NoCapacity, NoCoverage

ASSUMED_LAYER_MS = 1.0  # a layer of a 1B model on a few cores; only ranks nodes that were never measured
ASSUMED_RTT_MS = 1.0  # a wired LAN; only ranks pairs that were never measured
STAGE_MS = 0.35  # of a node's own: socket, keys, the way to its worker and back; bench.predict measures it
SHARING = 0.3
"""How much longer a step takes for each further user in its batch: eight users get some 2.5 times one user's tokens."""
STANDBYS = 3  # of a stage, that are named; more than three nodes are not lost at once
ALTERNATIVES = 8
"""Ways to a shard and node that the second search keeps, those that are best by rank and leave different memory free.

It runs only where a refusal would follow. More find rarer splits and take as many times longer: 80 shards on ten nodes
that hold all of them take below a second with eight.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSize:
    """One shard as the planner sees it."""

    layer_start: int
    layer_end: int
    memory_bytes: int
    """Weights, caches and buffers when loaded."""
    effort: float
    """Of a decode step, in layers (`inference.effort`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOffer:
    """What one node can contribute right now."""

    node: NodeId
    shards: frozenset[int]
    """Held on disk, in the layout of the request."""
    loaded: frozenset[int] = frozenset()
    """Already in memory: they cost nothing more."""
    free_bytes: int | None = None
    """Memory it may still use; None when unknown, which does not stop a plan: the node itself checks again."""
    layer_ms: float | None = None
    """Of a decode step of one user, for an effort of one layer."""
    sessions: int = 0
    """Stages that run on it now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that the planner looks at."""

    model: ModelId
    layout: str
    head: NodeId
    shards: tuple[ShardSize, ...]
    offers: tuple[NodeOffer, ...]
    rtt_ms: Mapping[tuple[NodeId, NodeId], float]
    """Measured round trips; a pair is looked up in both orders."""
    enclosed: bool = False
    """The first and the last shard run on the head: others see no token."""


@dataclass(frozen=True, slots=True)
class _Path:
    """The best way to cover the first shards with the last stage on one node. Ordered by what the module says."""

    stages: int
    time_ms: float
    nodes: tuple[NodeId, ...]
    runs: tuple[tuple[NodeId, int, int], ...]
    taken: Mapping[NodeId, int]
    """Memory the runs need on each node, what is loaded not counted."""

    @property
    def rank(self) -> tuple[int, float, tuple[NodeId, ...]]:
        return (self.stages, self.time_ms, self.nodes)

    def spares(self, other: _Path) -> bool:
        """Leaves at least as much memory free on every node."""
        return all(other.taken.get(node, 0) >= amount for node, amount in self.taken.items())


def plan(snapshot: Snapshot) -> PipelinePlan | NoCoverage | NoCapacity:
    """Stages in layer order that cover every shard once."""
    count = len(snapshot.shards)
    held = {index for offer in snapshot.offers for index in offer.shards}
    missing = tuple(index for index in range(count) if index not in held)
    if missing:
        return _uncovered(snapshot, missing)
    if snapshot.enclosed and (ends := _missing_ends(snapshot)):
        return _uncovered(snapshot, ends)
    path = _search(snapshot) or _search(snapshot, keep=ALTERNATIVES)
    if path is None:
        unlimited = _search(snapshot, mind_memory=False)
        assert unlimited is not None, "every shard has a holder, so some path exists"
        short = _overcommitted(snapshot, unlimited)
        assert short is not None, "memory is the only thing that can stand in the way of a path"
        return short
    return PipelinePlan(
        model=snapshot.model,
        layout=snapshot.layout,
        stages=tuple(
            Stage(
                node=node,
                first_shard=first,
                last_shard=last,
                layer_start=snapshot.shards[first].layer_start,
                layer_end=snapshot.shards[last].layer_end,
                memory_bytes=sum(size.memory_bytes for size in snapshot.shards[first : last + 1]),
            )
            for node, first, last in path.runs
        ),
        predicted_token_ms=_predict(snapshot, path),
        standbys=tuple(_standbys(snapshot, run) for run in path.runs),
    )


def _uncovered(snapshot: Snapshot, missing: Sequence[int]) -> NoCoverage:
    layers: list[tuple[int, int]] = []
    for index in missing:
        start, end = snapshot.shards[index].layer_start, snapshot.shards[index].layer_end
        if layers and layers[-1][1] == start:
            layers[-1] = (layers[-1][0], end)
        else:
            layers.append((start, end))
    return NoCoverage(
        model=snapshot.model, missing=tuple(missing), shard_count=len(snapshot.shards), layers=tuple(layers)
    )


def _standbys(snapshot: Snapshot, run: tuple[NodeId, int, int]) -> tuple[NodeId, ...]:
    """Who could take over a stage as it is, the best first: those that have it in memory, then the fast ones."""
    node, first, last = run
    shards = frozenset(range(first, last + 1))
    enclosed = snapshot.enclosed and (first == 0 or last == len(snapshot.shards) - 1)
    others = [offer for offer in snapshot.offers if offer.node != node and shards <= offer.shards]
    found = [offer for offer in others if _fits(snapshot, offer, shards)]
    found.sort(key=lambda offer: (-len(shards & offer.loaded), offer.layer_ms or ASSUMED_LAYER_MS, offer.node))
    return () if enclosed else tuple(offer.node for offer in found[:STANDBYS])


def _fits(snapshot: Snapshot, offer: NodeOffer, shards: frozenset[int]) -> bool:
    needed = sum(snapshot.shards[index].memory_bytes for index in shards - offer.loaded)
    return offer.free_bytes is None or needed <= offer.free_bytes


def _missing_ends(snapshot: Snapshot) -> tuple[int, ...]:
    """Of an enclosed pipeline, on the head."""
    held = next((offer.shards for offer in snapshot.offers if offer.node == snapshot.head), frozenset[int]())
    return tuple(sorted({0, len(snapshot.shards) - 1} - held))


def _search(snapshot: Snapshot, *, mind_memory: bool = True, keep: int = 1) -> _Path | None:
    """best[b][node]: the `keep` best paths that cover shards [0, b) and end on `node`.

    Cost: shards^2 * nodes^2 * keep at worst.
    """
    count = len(snapshot.shards)
    best: list[dict[NodeId, list[_Path]]] = [{} for _ in range(count + 1)]
    for first in range(count):
        before = [path for paths in best[first].values() for path in paths]
        for offer in snapshot.offers:
            if first == 0 and snapshot.enclosed and offer.node != snapshot.head:
                continue
            starts = _cheapest(snapshot, before, offer.node, keep) if first else (_Path(0, 0.0, (), (), {}),)
            for previous in starts:
                _extend(snapshot, best, previous, offer, first, mind_memory=mind_memory, keep=keep)
    finished = [
        replace(path, time_ms=path.time_ms + _hop_ms(snapshot, node, snapshot.head))
        for node, paths in best[count].items()
        if not snapshot.enclosed or node == snapshot.head
        for path in paths
    ]
    return min(finished, key=lambda path: path.rank, default=None)


def _cheapest(snapshot: Snapshot, before: Sequence[_Path], node: NodeId, keep: int) -> Sequence[_Path]:
    """The best paths to hand over to `node`; none that end there, which would be a longer run of the same stage."""
    return heapq.nsmallest(
        keep,
        (path for path in before if path.nodes[-1] != node),
        key=lambda path: (path.stages, path.time_ms + _hop_ms(snapshot, path.nodes[-1], node), path.nodes),
    )


def _extend(
    snapshot: Snapshot,
    best: list[dict[NodeId, list[_Path]]],
    previous: _Path,
    offer: NodeOffer,
    first: int,
    *,
    mind_memory: bool,
    keep: int,
) -> None:
    """Every run of shards from `first` on that the node holds and that fits its memory."""
    arrival = previous.nodes[-1] if previous.nodes else snapshot.head
    time_ms = previous.time_ms + _hop_ms(snapshot, arrival, offer.node)
    layer_ms = (ASSUMED_LAYER_MS if offer.layer_ms is None else offer.layer_ms) * (1 + SHARING * offer.sessions)
    time_ms += STAGE_MS
    memory = previous.taken.get(offer.node, 0)
    for index in range(first, len(snapshot.shards)):
        if index not in offer.shards:
            return
        size = snapshot.shards[index]
        memory += 0 if index in offer.loaded else size.memory_bytes
        if mind_memory and offer.free_bytes is not None and memory > offer.free_bytes:
            return
        time_ms += layer_ms * size.effort
        path = _Path(
            previous.stages + 1,
            time_ms,
            (*previous.nodes, offer.node),
            (*previous.runs, (offer.node, first, index)),
            {**previous.taken, offer.node: memory},
        )
        known = best[index + 1].setdefault(offer.node, [])
        if any(other.rank <= path.rank and (keep == 1 or other.spares(path)) for other in known):
            continue
        known.append(path)
        known.sort(key=lambda path: path.rank)
        del known[keep:]


def _overcommitted(snapshot: Snapshot, path: _Path) -> NoCapacity | None:
    """The node that lacks most, over all its stages together; None when everything fits."""
    offers = {offer.node: offer for offer in snapshot.offers}
    layers: dict[NodeId, list[tuple[int, int]]] = {}
    for node, first, last in path.runs:
        layers.setdefault(node, []).append((snapshot.shards[first].layer_start, snapshot.shards[last].layer_end))
    lacking = [
        NoCapacity(node=node, needed_bytes=amount, free_bytes=free, layers=tuple(layers[node]))
        for node, amount in path.taken.items()
        if (free := offers[node].free_bytes) is not None and amount > free
    ]
    return max(lacking, key=lambda refusal: refusal.needed_bytes - refusal.free_bytes, default=None)


def _hop_ms(snapshot: Snapshot, one: NodeId, other: NodeId) -> float:
    """Half a round trip: activations are pushed, nobody waits for an answer."""
    if one == other:
        return 0.0
    rtt = snapshot.rtt_ms.get((one, other), snapshot.rtt_ms.get((other, one)))
    if rtt is None:  # as far as the farther one of them is from here: in one house both are near, else the way is long
        to_them = [snapshot.rtt_ms[snapshot.head, node] for node in (one, other) if (snapshot.head, node) in snapshot.rtt_ms]
        rtt = max(to_them, default=ASSUMED_RTT_MS)
    return rtt / 2


def _predict(snapshot: Snapshot, path: _Path) -> float | None:
    measured = {offer.node for offer in snapshot.offers if offer.layer_ms is not None}
    return path.time_ms if all(node in measured for node in path.nodes) else None
