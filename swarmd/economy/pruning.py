"""Which shards this node should drop by itself, and of all others what keeps them. Pure (swarmllm.md 4.11).

Every guard is a reason to keep, and each names itself. Holders are counted as far as this node is linked to them: what it
could not fetch back is no second copy. Beyond the original there are three guards. Two nodes must not drop the same
surplus copy in the same moment (`spreading.may_drop`, with a margin around each turn in which nobody drops, for clocks that
differ and news on its way). What arrived a moment ago stays, so that nothing goes to and fro. And no pressure takes a shard
below two copies.

Memory is no pressure here: dropping a file frees memory only where the shard is loaded, and what is loaded and used is kept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from swarmd.domain.autopilot import Drop, Guard, Kept
from swarmd.domain.ids import ModelId, NodeId, ShardRef
from swarmd.domain.regions import UNKNOWN
from swarmd.economy.copies import Survey
from swarmd.economy.replication import replication_target
from swarmd.economy.sharing import own_share
from swarmd.economy.spreading import may_drop
from swarmd.economy.stock import NONE, ModelStock, NodeStock, Snapshot

USED_LATELY_S: Final = 300.0  # contract
FETCHED_LATELY_S: Final = 1800.0  # contract's "held under 30 min", there a matter of score, here a guard
TURN_S: Final = 3600.0  # a model of twelve shards goes in one turn, at one shard in each cooldown of 5 min
EDGE_S: Final = 120.0  # clocks of machines that ask no time server differ by less; gossip takes seconds
LEAST_COPIES: Final = 2  # so that the loss of any one node loses nothing
SPARE: Final = 0.5  # contract, as the three below: under this pressure one copy more than needed stays
TIGHT: Final = 0.8  # over this one less will do
FULL: Final = 0.95  # over this two less, and two shards of a model in one run
_FACTORS: Final = ((0, 1.0), (10, 1.5), (50, 2.0))  # contract: up to so many requests
_FACTOR_BEYOND: Final = 3.0
WINDOW_MIN: Final = 10.0  # of `economy.demand`


@dataclass(frozen=True, slots=True)
class _View:
    """One shard that is here, and who else has it."""

    ref: ShardRef
    size: int
    holders: tuple[NodeId, ...]
    near: int
    """Other holders in this node's region."""


def prune_target(*, pool: int, min_replicas: int, requests: int) -> int:
    """Copies that are needed, for the highest demand of the last hour. Never fewer than are fetched for that demand: else
    what one rule fetches another would drop."""
    factor = next((factor for limit, factor in _FACTORS if requests <= limit), _FACTOR_BEYOND)
    fetched = replication_target(pool=pool, min_replicas=min_replicas, requests=requests)
    return max(fetched, min(pool, math.ceil(min_replicas * factor)))


def kept_copies(target: int, pressure: float, pool: int) -> int:
    """So many stay, whatever the pressure at least two where there are two nodes."""
    if pressure < SPARE:
        keep = target + 1
    elif pressure < TIGHT:
        keep = target
    else:
        keep = target - (1 if pressure <= FULL else 2)
    return max(keep, min(LEAST_COPIES, pool))


def staying(
    snapshot: Snapshot, model: ModelStock, index: int, *, near: int, pool: int, pressure: float
) -> int | None:
    """Up to how many copies a shard that is fetched now would stay here under this pressure; None: however many there are.

    `near`: other holders in this node's region.
    """
    lone = snapshot.region != UNKNOWN and not near
    if lone or _person(snapshot, model, index, own_share(snapshot, model)) is not None:
        return None
    target = prune_target(pool=pool, min_replicas=snapshot.limits.min_replicas, requests=model.peak_requests)
    return kept_copies(target, pressure, pool)


def propose(snapshot: Snapshot, found: Survey) -> tuple[tuple[Drop, ...], tuple[Kept, ...]]:
    """The most dispensable first; and every other shard that is here, with the first guard that keeps it."""
    drops: list[Drop] = []
    kept: list[Kept] = []
    most = 2 if snapshot.limits.pressure > FULL else 1
    taken: Counter[ModelId] = Counter()
    pool = found.pool
    for model in snapshot.models:
        if not model.held:
            continue
        linked = [one for one in found.nodes.get(model.model, ()) if one.gone_s is None and one.connected]
        target = prune_target(pool=pool, min_replicas=snapshot.limits.min_replicas, requests=model.peak_requests)
        views = [_view(snapshot, linked, model, index) for index in sorted(model.held) if index < len(model.sizes)]
        share = own_share(snapshot, model)
        scored = sorted(((_score(snapshot, model, view, views, target), view) for view in views), key=lambda one: -one[0])
        for score, view in scored:
            guard = _guard(snapshot, model, view, target, share, pool=pool)
            if guard is None and (taken[model.model] >= most or len(drops) >= snapshot.limits.moves_left):
                guard = Guard.LATER, "another shard goes first, and no more are dropped at a time"
            if guard is not None:
                kept.append(Kept(shard=view.ref, guard=guard[0], why=guard[1]))
                continue
            taken[model.model] += 1
            why = f"{len(view.holders)} copies are there and {target} are needed"
            drops.append(
                Drop(shard=view.ref, size_bytes=view.size, score=round(score, 3), why=why, holders=len(view.holders))
            )
    return tuple(drops), tuple(sorted(kept, key=lambda one: one.shard))


def _view(snapshot: Snapshot, linked: Sequence[NodeStock], model: ModelStock, index: int) -> _View:
    others = [one for one in linked if index in one.held.get(model.model, NONE)]
    return _View(
        ShardRef(model.model, index),
        model.sizes[index],
        (snapshot.own, *(one.node for one in others)),
        sum(one.region == snapshot.region for one in others),
    )


def _score(snapshot: Snapshot, model: ModelStock, view: _View, views: Sequence[_View], target: int) -> float:
    """Contract; "held under 30 min" is a guard here."""
    index = view.ref.index
    score = len(view.holders) / target + 0.5 * snapshot.limits.pressure
    score += 0.0 if index in model.loaded else 1.0
    score -= 0.5 if index in (0, len(model.sizes) - 1) else 0.0
    score -= 0.3 if len(view.holders) == min(len(one.holders) for one in views) else 0.0
    return score


def _guard(
    snapshot: Snapshot, model: ModelStock, view: _View, target: int, share: frozenset[int], *, pool: int
) -> tuple[Guard, str] | None:
    """The first guard that keeps one shard: what people said, then what runs, then what the swarm needs, then whose turn
    it is."""
    return (
        _person(snapshot, model, view.ref.index, share)
        or _running(model, view.ref.index)
        or _needed(snapshot, model, view, target, pool=pool)
        or _turn(snapshot, model, view, surplus=len(view.holders) - kept_copies(target, snapshot.limits.pressure, pool))
    )


def _person(snapshot: Snapshot, model: ModelStock, index: int, share: frozenset[int]) -> tuple[Guard, str] | None:
    if not snapshot.limits.prune_enabled:
        return Guard.OFF, "dropping is switched off (auto_manage.prune_enabled)"
    if not (model.policy.enabled and model.policy.prune_enabled):
        return Guard.POLICY, "the policy of its model switches dropping off"
    if index in model.coming:
        return Guard.ON_ITS_WAY, "it is being fetched"
    if index in model.locked:
        return Guard.LOCKED, "it is locked"
    if model.pinned:
        return Guard.PINNED, "a person chose its model on this node"
    if index in model.private:
        return Guard.PRIVACY, "prompts stay on this node with it"
    if index in share:
        return Guard.FAIR_SHARE, "it is this node's fair share of a shared model"
    return None


def _running(model: ModelStock, index: int) -> tuple[Guard, str] | None:
    if index in model.running:
        return Guard.RUNNING, "it runs in a generation"
    if model.used_s is not None and model.used_s < USED_LATELY_S:
        return Guard.USED_LATELY, f"its model was used here {model.used_s:.0f} s ago"
    stored_s = model.stored_s.get(index)
    if stored_s is not None and stored_s < FETCHED_LATELY_S:
        return Guard.FETCHED_LATELY, f"it came {stored_s / 60:.0f} min ago"
    return None


def _needed(
    snapshot: Snapshot, model: ModelStock, view: _View, target: int, *, pool: int
) -> tuple[Guard, str] | None:
    holders = len(view.holders)
    if holders == 1 and not model.has_source:
        return Guard.NO_WAY_BACK, "no other node that this one is linked to holds it: nobody could send it again"
    keep = kept_copies(target, snapshot.limits.pressure, pool)
    if holders <= keep:
        spare = ", one of them to spare" if keep > target else ""
        return Guard.NEEDED, f"{holders} copies can be reached and {keep} stay{spare}"
    if snapshot.region != UNKNOWN and not view.near:
        return Guard.REGION, f"no other node in {snapshot.region} holds it"
    load = model.requests / WINDOW_MIN / (holders - 1)
    if load > snapshot.limits.max_load:
        return Guard.BUSY_HOLDERS, f"each of the other holders would get {load:.1f} requests a minute"
    return None


def _turn(snapshot: Snapshot, model: ModelStock, view: _View, *, surplus: int) -> tuple[Guard, str] | None:
    cooldown_s = snapshot.limits.prune_cooldown_s
    if model.pruned_s is not None and model.pruned_s < cooldown_s:
        return Guard.COOLDOWN, f"a shard of its model was dropped {model.pruned_s:.0f} s ago"
    turn, within = divmod(snapshot.now, TURN_S)
    if not EDGE_S <= within <= TURN_S - EDGE_S:
        return Guard.OTHERS_FIRST, "the turns change, and nobody drops anything for a moment"
    if not may_drop(snapshot.own, model.model, view.holders, surplus=surplus, turn=int(turn)):
        return Guard.OTHERS_FIRST, f"{len(view.holders)} nodes hold it, and it is the turn of {surplus} others to drop it"
    return None
