"""Which shards this node should fetch by itself, and of all others why not. Pure (swarmllm.md 4.10).

A shard is proposed when its model may be fetched (the trust gate), copies of it are missing, and it is this node's turn
(`spreading`): nodes that hold a neighbouring shard come first, then those with any shard of the model, then the rest. Not
all nodes have room or want to, and nobody knows of the others; so as long as nothing happens, twice as many may take it
after each interval. A shard that is coming to somebody counts as one that is there. Of a model that is shared with all,
what falls to others is left to them first (`sharing`).

Two parts of the original formula are left out. It prefers models of which a node holds little; here it is the other way
round, since neighbouring shards on one node are one hop less for every token. And it bypasses the ring for models that a
node already hosts, whereupon two hosts fetch the same shard; here they are merely first in the order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from swarmd.domain.autopilot import Contribution, Fetch, Gate, NotFetched
from swarmd.domain.ids import ModelId, NodeId, ShardRef
from swarmd.domain.models import TrustLevel
from swarmd.domain.regions import UNKNOWN
from swarmd.economy.copies import ShardCopies, Survey, model_holders
from swarmd.economy.pruning import staying
from swarmd.economy.sharing import FAIR_S, due, own_gaps, own_share
from swarmd.economy.spreading import fetch_order
from swarmd.economy.stock import NONE, ModelStock, Shards, Snapshot
from swarmd.economy.trust import RANK

DROPPED_LATELY_S: Final = 3600.0  # as long as a peak of demand counts: what was surplus then is hardly wanted back before
WIDEST: Final = 20  # doublings: a million nodes, so that the exponent stays small
FEW_PEERS: Final = 5  # contract, as the five numbers below
AT_ONCE: Final[dict[Contribution, tuple[int, int]]] = {"minimal": (1, 1), "moderate": (1, 2), "maximum": (2, 4)}
"""Shards of one run, with fewer than FEW_PEERS other nodes and with more."""
NEVER_HERE: Final = 20.0  # contract: regional rarity where nobody in the region has it
PINNED: Final = 1000.0  # contract
NEAR_SOURCE: Final = 1.5  # contract
LAST_COPY: Final = 20.0  # as rare as a regional gap: the next node that goes may take the model with it
NEIGHBOUR: Final = 3.0  # outweighs a near source and half of a rarity: hops are paid with every token, a transfer once
WHOLE: Final = 1.5  # as much as a near source
MEMORY_FACTOR: Final = 1.15  # contract: weights, plus caches and buffers
LEAST_FITNESS: Final = 0.1  # contract


@dataclass(slots=True)
class _Candidate:
    shard: ShardRef
    size: int
    score: float
    why: str
    model: ModelStock
    copies: ShardCopies


@dataclass(frozen=True, slots=True)
class _Parts:
    """Of a shared model; all empty of any other."""

    share: Shards
    gaps: Shards
    due: Mapping[int, float]


@dataclass(slots=True)
class _Run:
    """What has been chosen so far."""

    fetches: list[Fetch] = field(default_factory=list[Fetch])
    chosen: dict[ModelId, set[int]] = field(default_factory=dict[ModelId, set[int]])
    bytes: int = 0


def propose(snapshot: Snapshot, found: Survey) -> tuple[tuple[Fetch, ...], tuple[NotFetched, ...]]:
    """The best first; and every other shard that is not here, with the first gate that is closed to it."""
    candidates: list[_Candidate] = []
    skipped: list[NotFetched] = []
    for model in snapshot.models:
        closed = _closed(model)
        if closed is not None:
            skipped.append(NotFetched(model=model.model, index=None, gate=closed[0], why=closed[1]))
            continue
        copies = found.copies[model.model]
        parts = _Parts(own_share(snapshot, model), own_gaps(snapshot, model), due(snapshot, model))
        hosts = _hosts(snapshot, model)
        for index in range(len(model.sizes)):
            if index in model.held:
                continue
            gate = _gate(snapshot, model, index, copies[index], parts, hosts)
            if gate is not None:
                skipped.append(NotFetched(model=model.model, index=index, gate=gate[0], why=gate[1]))
                continue
            candidates.append(_candidate(snapshot, model, index, copies, parts))
    fetches, left = _choose(snapshot, candidates, pool=found.pool)
    return fetches, (*skipped, *left)


def _closed(model: ModelStock) -> tuple[Gate, str] | None:
    """What keeps the whole model away."""
    if not model.policy.enabled:
        return Gate.POLICY, "its policy switches the autopilot off"
    if not model.sizes:
        return Gate.UNKNOWN, "its manifest is not known here yet"
    if model.paused:
        return Gate.PAUSED, "a person paused its download here"
    if RANK[model.trust] >= RANK[TrustLevel.DEMAND_VERIFIED] or model.pinned or model.shared or model.held or model.coming:
        return None
    return Gate.TRUST, f"it is {model.trust.value}: nobody pinned it here and it was not asked for three times"


def _hosts(snapshot: Snapshot, model: ModelStock) -> list[tuple[NodeId, frozenset[int]]]:
    """Every node that is there, with what it has or will have of the model."""
    others = [
        (one.node, one.held.get(model.model, NONE) | one.coming.get(model.model, NONE))
        for one in snapshot.nodes
        if one.gone_s is None
    ]
    return [(snapshot.own, model.held | model.coming), *others]


def _gate(
    snapshot: Snapshot,
    model: ModelStock,
    index: int,
    copies: ShardCopies,
    parts: _Parts,
    hosts: list[tuple[NodeId, frozenset[int]]],
) -> tuple[Gate, str] | None:
    """The first gate that is closed to one shard."""
    if index in model.coming:
        return Gate.ON_ITS_WAY, "it is on its way here"
    if (cancelled_s := model.cancelled_s.get(index)) is not None:
        return Gate.CANCELLED, f"a person cancelled its download here {cancelled_s / 3600:.0f} h ago"
    if (retry_s := model.retry_s.get(index)) is not None:
        return Gate.FAILED_LATELY, f"fetching it failed: tried again in {retry_s / 60:.0f} min"
    dropped_s = model.dropped_s.get(index)
    if dropped_s is not None and dropped_s < DROPPED_LATELY_S and (copies.holders or index in model.unwanted):
        return Gate.DROPPED_LATELY, f"it was dropped here {dropped_s / 60:.0f} min ago"
    have = f"{len(copies.holders)} of {copies.target} copies are there"
    if not copies.missing and index not in parts.share:
        more = "".join((
            f", {len(copies.coming)} coming" if copies.coming else "",
            f", {copies.spared} with nodes that may come back" if copies.spared else "",
        ))  # fmt: skip
        return Gate.ENOUGH, have + more
    if not copies.linked and not model.has_source:
        return Gate.NO_SOURCE, "no node that this one is linked to holds it, and it has no source on a hub"
    if index in parts.share or index in parts.gaps:
        return None
    late_s = parts.due.get(index, math.inf) - FAIR_S
    if late_s < 0:
        return Gate.OTHERS_FIRST, f"{have}; it is in the fair share of another node, which has {-late_s / 60:.0f} min left"
    beside = {index - 1, index + 1}
    tiers = [(node, 0 if has & beside else 1 if has else 2) for node, has in hosts if index not in has]
    order = fetch_order(model.model, tiers)
    turn = order.index(snapshot.own)
    allowed = copies.missing * 2 ** min(WIDEST, int(min(model.waited_s, late_s) // snapshot.limits.interval_s))
    if turn >= allowed:
        return Gate.OTHERS_FIRST, f"{have}; {turn} of {len(order)} nodes come before this one"
    return None


def _candidate(
    snapshot: Snapshot, model: ModelStock, index: int, copies: Sequence[ShardCopies], parts: _Parts
) -> _Candidate:
    one = copies[index]
    hosts = model_holders(copies)
    score = float(max(1, hosts))
    score *= _rarity(snapshot, model, index, copies, hosts)
    score *= PINNED if model.pinned else 1.0
    score *= _fitness(snapshot, model)
    score *= NEAR_SOURCE if snapshot.region != UNKNOWN and one.near else 1.0
    if model.requests and len(one.holders) <= 1:
        score *= LAST_COPY
    rest = sum(size for at, size in enumerate(model.sizes) if at not in model.held and at not in model.coming)
    if rest <= min(snapshot.limits.budget_bytes - snapshot.limits.used_bytes, snapshot.limits.room_bytes):
        score *= WHOLE
    score += blake3(bytes.fromhex(snapshot.own) + model.model.encode() + index.to_bytes(4, "little")).digest(1)[0] / 2550
    reasons = [f"{len(one.holders)} of {one.target} copies are there"] if one.missing else []
    if index in parts.share:
        reasons.insert(0, "this node's fair share of a shared model")
    elif index in parts.gaps:
        reasons.insert(0, "in no node's fair share of a shared model, and this one is the nearest")
    return _Candidate(ShardRef(model.model, index), model.sizes[index], score, ", ".join(reasons), model, one)


def _rarity(snapshot: Snapshot, model: ModelStock, index: int, copies: Sequence[ShardCopies], hosts: int) -> float:
    one = copies[index]
    if snapshot.region != UNKNOWN:
        if not one.near:
            return NEVER_HERE
        least = 2 if model.trust is TrustLevel.NETWORK_POPULAR else 1
        if one.near < least:
            return 10.0 / (one.near + 1)
    average = sum(len(other.holders) for other in copies) / len(copies)
    return (average + 1) / (len(one.holders) + 1)


def _fitness(snapshot: Snapshot, model: ModelStock) -> float:
    """1 where the memory of all nodes together holds the model."""
    memory = sum(one.memory_bytes for one in snapshot.nodes if one.gone_s is None)
    if not memory:
        return 1.0
    return max(LEAST_FITNESS, min(1.0, memory / (sum(model.sizes) * MEMORY_FACTOR)))


def _choose(
    snapshot: Snapshot, candidates: list[_Candidate], *, pool: int
) -> tuple[tuple[Fetch, ...], tuple[NotFetched, ...]]:
    """As many as may be begun, one model after the other, neighbours of what is here first."""
    limits = snapshot.limits
    able = min(limits.free_slots, limits.moves_left)
    most = min(AT_ONCE[limits.contribution][pool - 1 >= FEW_PEERS], able)
    run, left, open_ = _Run(), list[NotFetched](), list(candidates)
    while open_:
        picks = Counter({model: len(shards) for model, shards in run.chosen.items()})
        open_.sort(key=lambda one: (picks[one.shard.model], -_with_neighbours(one, run), one.shard))
        best = open_.pop(0)
        # A shared model is what a person waits for: all slots are its, where demand alone gets what the contribution gives.
        gate = _full(snapshot, best, run, able if best.model.shared else most, pool=pool)
        if gate is not None:
            left.append(NotFetched(model=best.shard.model, index=best.shard.index, gate=gate[0], why=gate[1]))
            continue
        score = _with_neighbours(best, run)
        run.fetches.append(Fetch(shard=best.shard, size_bytes=best.size, score=round(score, 3), why=best.why))
        run.chosen.setdefault(best.shard.model, set()).add(best.shard.index)
        run.bytes += best.size
    return tuple(run.fetches), tuple(sorted(left, key=lambda one: (one.model, one.index or 0)))


def _with_neighbours(one: _Candidate, run: _Run) -> float:
    mine = one.model.held | one.model.coming | run.chosen.get(one.shard.model, set())
    return one.score * (NEIGHBOUR if mine & {one.shard.index - 1, one.shard.index + 1} else 1.0)


def _full(snapshot: Snapshot, one: _Candidate, run: _Run, most: int, *, pool: int) -> tuple[Gate, str] | None:
    limits, model = snapshot.limits, one.model
    cap = model.policy.max_shards or limits.default_cap
    mine = len(model.held | model.coming | run.chosen.get(model.model, set()))
    if cap and mine >= cap:
        return Gate.SHARD_CAP, f"{one.why}; this node has {mine} of the {cap} shards of it that it may hold"
    left = min(limits.budget_bytes - limits.used_bytes, limits.room_bytes) - run.bytes
    if one.size > left:
        return Gate.STORAGE, f"{one.why}; it needs {one.size / 1e6:.0f} MB and {max(0, left) / 1e6:.0f} MB are left"
    pressure = limits.pressure_with(run.bytes + one.size)
    stay = staying(snapshot, model, one.shard.index, near=one.copies.near, pool=pool, pressure=pressure)
    if stay is not None and one.copies.linked + len(one.copies.coming) >= stay:  # it would be fetched and dropped in turns
        return Gate.PRESSURE, f"{one.why}; so full a disk ({min(1.0, pressure):.0%}) would let go of all above {stay} again"
    if len(run.fetches) >= most:
        return Gate.LATER, f"{one.why}; others come first, and no more are fetched at a time"
    return None
