"""What would be dropped, and which guard keeps the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.autopilot import Guard, Kept, ModelPolicy
from swarmd.domain.ids import NodeId
from swarmd.economy.copies import survey
from swarmd.economy.pruning import EDGE_S, TURN_S, kept_copies, propose, prune_target
from swarmd.economy.replication import replication_target
from swarmd.economy.stock import ModelStock, NodeStock, Snapshot
from tests.economy.stocks import MB, NOON, M, model, peer, snapshot

IDLE: dict[str, Any] = {"requests": 0, "count": 1}
MANY = tuple(peer(number, 0) for number in range(1, 9))
"""Eight others hold shard 0: seven of nine copies are too many."""


def looked(seen: Snapshot) -> tuple[list[int], dict[int, Kept]]:
    drops, kept = propose(seen, survey(seen))
    return [one.shard.index for one in drops], {one.shard.index: one for one in kept}


def test_a_surplus_copy_goes() -> None:
    seen = snapshot(*MANY, models=(model(0, **IDLE),))
    drops, kept = propose(seen, survey(seen))
    (drop,) = drops
    assert drop.shard.index == 0 and drop.holders == 9 and drop.size_bytes == 100 * MB and kept == ()
    assert drop.why == "9 copies are there and 3 are needed"  # replication: pool 9, a third


@pytest.mark.parametrize(
    ("rest", "guard"),
    [
        ({"policy": ModelPolicy(enabled=False)}, Guard.POLICY),
        ({"policy": ModelPolicy(prune_enabled=False)}, Guard.POLICY),
        ({"coming": frozenset({0})}, Guard.ON_ITS_WAY),
        ({"locked": frozenset({0})}, Guard.LOCKED),
        ({"pinned": True}, Guard.PINNED),
        ({"private": frozenset({0})}, Guard.PRIVACY),
        ({"shared": True}, Guard.FAIR_SHARE),
        ({"running": frozenset({0})}, Guard.RUNNING),
        ({"used_s": 299.0}, Guard.USED_LATELY),
        ({"stored_s": {0: 1799.0}}, Guard.FETCHED_LATELY),
        ({"peak_requests": 500}, Guard.NEEDED),
        ({"pruned_s": 299.0}, Guard.COOLDOWN),
    ],
)
def test_guards_of_a_model(rest: dict[str, Any], guard: Guard) -> None:
    seen = snapshot(*MANY, models=(replace(model(0, **IDLE), **rest),))
    drops, kept = looked(seen)
    assert drops == [] and kept[0].guard is guard and kept[0].why


@pytest.mark.parametrize(
    ("rest", "guard"), [({"prune_enabled": False}, Guard.OFF), ({"moves_left": 0}, Guard.LATER)]
)
def test_guards_of_the_node(rest: dict[str, Any], guard: Guard) -> None:
    drops, kept = looked(snapshot(*MANY, models=(model(0, **IDLE),), **rest))
    assert drops == [] and kept[0].guard is guard


def test_only_holders_that_can_be_asked_count() -> None:
    away = tuple(replace(one, connected=False) for one in MANY)
    assert looked(snapshot(*away, models=(model(0, **IDLE),)))[1][0].guard is Guard.NO_WAY_BACK
    assert looked(snapshot(*away, models=(model(0, has_source=True, **IDLE),)))[1][0].guard is Guard.NEEDED
    gone = tuple(replace(one, gone_s=5.0) for one in MANY)
    assert looked(snapshot(*gone, models=(model(0, **IDLE),)))[1][0].guard is Guard.NO_WAY_BACK


def test_the_last_one_of_a_region_stays() -> None:
    theirs = tuple(replace(one, region="US") for one in MANY)
    assert looked(snapshot(*theirs, models=(model(0, **IDLE),), region="DE"))[1][0].guard is Guard.REGION
    ours = (*theirs[:-1], replace(MANY[-1], region="DE"))
    assert looked(snapshot(*ours, models=(model(0, **IDLE),), region="DE"))[0] == [0]


def test_busy_holders_keep_their_help() -> None:
    many = tuple(peer(number, 0) for number in range(1, 30))
    busy = model(0, requests=1000, count=1)
    assert looked(snapshot(*many, models=(busy,)))[1][0].guard is Guard.BUSY_HOLDERS
    assert looked(snapshot(*many, models=(busy,), max_load=4))[0] == [0]


def test_nobody_drops_while_turns_change() -> None:
    turn = NOON - NOON % TURN_S
    for now in (turn, turn + EDGE_S - 1, turn + TURN_S - EDGE_S + 1):
        assert looked(snapshot(*MANY, models=(model(0, **IDLE),), now=now))[1][0].guard is Guard.OTHERS_FIRST
    assert looked(snapshot(*MANY, models=(model(0, **IDLE),), now=turn + EDGE_S))[0] == [0]


def test_one_shard_of_a_model_at_a_time_and_two_when_it_is_full() -> None:
    nodes = tuple(peer(number, 0, 1, 2, 3) for number in range(1, 9))
    stock = model(0, 1, 2, 3, requests=0, loaded=frozenset({1}))
    drops, kept = looked(snapshot(*nodes, models=(stock,)))
    assert drops == [2], "neither the ends nor what is loaded goes first"
    assert {one.guard for one in kept.values()} == {Guard.LATER}
    assert len(looked(snapshot(*nodes, models=(stock,), pressure=0.96))[0]) == 2


@pytest.mark.parametrize(
    ("requests", "target"), [(0, 2), (1, 3), (10, 3), (11, 4), (50, 4), (51, 6)]
)
def test_the_contract_s_factors_where_they_are_more(requests: int, target: int) -> None:
    assert prune_target(pool=6, min_replicas=2, requests=requests) == max(
        target, replication_target(pool=6, min_replicas=2, requests=requests)
    )


@given(st.integers(1, 300), st.integers(1, 10), st.integers(0, 500), st.floats(0, 1))
def test_what_one_rule_fetches_the_other_does_not_drop(pool: int, least: int, requests: int, pressure: float) -> None:
    target = prune_target(pool=pool, min_replicas=least, requests=requests)
    assert replication_target(pool=pool, min_replicas=least, requests=requests) <= target
    keep = kept_copies(target, pressure, pool)
    assert keep >= min(2, pool) and keep >= target - 2
    if pressure < 0.8:
        assert keep >= target
    if pressure < 0.5:
        assert keep == max(target + 1, min(2, pool))


@given(st.lists(st.booleans(), min_size=2, max_size=14), st.integers(0, 100), st.floats(0, 1), st.integers(0, 50))
def test_all_who_look_at_once_leave_enough(held: list[bool], requests: int, pressure: float, turn: int) -> None:
    """Two copies at least, whatever the pressure; and as many as are kept."""
    nodes = [NodeId(f"{number:064x}") for number in range(len(held))]
    before = after = sum(held)
    now = TURN_S * turn + TURN_S / 2
    for at, node in enumerate(nodes):
        if not held[at]:
            continue
        others = tuple(
            NodeStock(node=other, held={M: frozenset({0})} if held[place] else {})
            for place, other in enumerate(nodes)
            if place != at
        )
        stock: ModelStock = model(0, count=1, requests=requests)
        seen = snapshot(*others, models=(stock,), own=node, pressure=pressure, now=now, max_load=10_000)
        after -= len(propose(seen, survey(seen))[0])
    target = prune_target(pool=len(nodes), min_replicas=2, requests=requests)
    assert after >= min(before, kept_copies(target, pressure, len(nodes))) >= min(before, 2)
