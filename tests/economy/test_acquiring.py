"""What would be fetched, and which gate is closed to the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.autopilot import Fetch, Gate, ModelPolicy, NotFetched
from swarmd.domain.ids import NodeId
from swarmd.domain.models import TrustLevel
from swarmd.economy import pruning
from swarmd.economy.acquiring import AT_ONCE, propose
from swarmd.economy.copies import survey
from swarmd.economy.stock import ModelStock, NodeStock, Snapshot
from swarmd.models.slicing import fair_share
from tests.economy.stocks import MB, OTHER, OWN, M, model, peer, snapshot

WHOLE = peer(1, 0, 1, 2, 3)
LONG = 1e9
"""Waited so long that everybody may take it."""


def proposed(seen: Snapshot) -> tuple[tuple[Fetch, ...], dict[int | None, NotFetched]]:
    fetches, skipped = propose(seen, survey(seen))
    return fetches, {one.index: one for one in skipped}


def gate_of(seen: Snapshot, index: int | None = 0) -> Gate:
    return proposed(seen)[1][index].gate


def test_a_second_copy_of_what_is_asked_for() -> None:
    fetches, skipped = proposed(snapshot(WHOLE, models=(model(waited_s=LONG),)))
    first, second = (one.shard.index for one in fetches)
    assert abs(first - second) == 1, "neighbours"
    assert fetches[0].size_bytes == 100 * MB and "1 of 2 copies are there" in fetches[0].why
    assert {one.gate for one in skipped.values()} == {Gate.LATER} and set(skipped) == {0, 1, 2, 3} - {first, second}


@pytest.mark.parametrize(
    ("rest", "gate"),
    [
        ({"policy": ModelPolicy(enabled=False)}, Gate.POLICY),
        ({"sizes": ()}, Gate.UNKNOWN),
        ({"trust": TrustLevel.DISCOVERED}, Gate.TRUST),
        ({"trust": TrustLevel.PINNED}, Gate.TRUST),  # by the level alone; `pinned` says that it was here
    ],
)
def test_gates_of_a_whole_model(rest: dict[str, Any], gate: Gate) -> None:
    assert gate_of(snapshot(WHOLE, models=(model(waited_s=LONG, **rest),)), None) is gate


@pytest.mark.parametrize(
    "rest",
    [
        {"pinned": True}, {"shared": True}, {"held": frozenset({3})}, {"coming": frozenset({3})},
        {"trust": TrustLevel.NETWORK_POPULAR},
    ],
)  # fmt: skip
def test_what_opens_the_trust_gate(rest: dict[str, Any]) -> None:
    stock = replace(model(waited_s=LONG, trust=TrustLevel.DISCOVERED), **rest)
    fetches, _ = proposed(snapshot(WHOLE, peer(2), models=(stock,)))
    assert fetches


@pytest.mark.parametrize(
    ("rest", "gate"),
    [
        ({"coming": frozenset({0})}, Gate.ON_ITS_WAY),
        ({"retry_s": {0: 60.0}}, Gate.FAILED_LATELY),
        ({"dropped_s": {0: 60.0}}, Gate.DROPPED_LATELY),
        ({"policy": ModelPolicy(max_shards=1), "held": frozenset({3})}, Gate.SHARD_CAP),
    ],
)
def test_gates_of_one_shard(rest: dict[str, Any], gate: Gate) -> None:
    assert gate_of(snapshot(WHOLE, models=(replace(model(waited_s=LONG), **rest),))) is gate


def test_what_was_dropped_comes_back_when_nobody_else_has_it() -> None:
    stock = model(waited_s=LONG, dropped_s={0: 60.0}, has_source=True, count=1)
    assert proposed(snapshot(peer(1), models=(stock,)))[0]


def test_what_a_person_dropped_stays_away_for_an_hour_whoever_has_it() -> None:
    stock = model(waited_s=LONG, dropped_s={0: 60.0}, unwanted=frozenset({0}), has_source=True, count=1)
    assert gate_of(snapshot(peer(1), models=(stock,))) is Gate.DROPPED_LATELY
    assert proposed(snapshot(peer(1), models=(replace(stock, dropped_s={0: 3600.0}),)))[0]


def test_enough_no_source_and_the_turn_of_others() -> None:
    assert gate_of(snapshot(WHOLE, peer(2, 0), models=(model(waited_s=LONG),))) is Gate.ENOUGH
    coming = snapshot(WHOLE, peer(2, coming=(0,)), models=(model(waited_s=LONG),))
    assert "1 coming" in proposed(coming)[1][0].why
    assert gate_of(snapshot(replace(WHOLE, connected=False), models=(model(waited_s=LONG),))) is Gate.NO_SOURCE
    assert proposed(snapshot(replace(WHOLE, connected=False), models=(model(waited_s=LONG, has_source=True),)))[0]
    neighbour = snapshot(WHOLE, peer(2, 1), models=(model(),))
    assert gate_of(neighbour) is Gate.OTHERS_FIRST, "who holds a neighbouring shard comes first"
    waited = snapshot(WHOLE, peer(2, 1), models=(model(waited_s=300.0),))
    fetches, skipped = proposed(waited)
    assert 0 in {one.shard.index for one in fetches} | {i for i, one in skipped.items() if one.gate is Gate.LATER}


@pytest.mark.parametrize(
    ("rest", "gate"),
    [
        ({"budget_bytes": 99 * MB}, Gate.STORAGE), ({"room_bytes": 99 * MB}, Gate.STORAGE),
        ({"budget_bytes": 300 * MB, "used_bytes": 201 * MB}, Gate.STORAGE),
        ({"default_cap": 1}, Gate.SHARD_CAP), ({"free_slots": 0}, Gate.LATER), ({"moves_left": 0}, Gate.LATER),
    ],
)  # fmt: skip
def test_limits_of_this_node(rest: dict[str, Any], gate: Gate) -> None:
    stock = model(waited_s=LONG, held=frozenset({3}))
    assert gate_of(snapshot(WHOLE, models=(stock,), **rest)) is gate


@pytest.mark.parametrize(("contribution", "few", "many"), [("minimal", 1, 1), ("moderate", 1, 2), ("maximum", 2, 4)])
def test_so_many_at_once(contribution, few: int, many: int) -> None:
    assert AT_ONCE[contribution] == (few, many)
    two = snapshot(WHOLE, models=(model(waited_s=LONG),), contribution=contribution)
    six = snapshot(WHOLE, *(peer(n) for n in range(2, 7)), models=(model(waited_s=LONG),), contribution=contribution)
    assert (len(proposed(two)[0]), len(proposed(six)[0])) == (few, many)


def test_models_take_turns_and_neighbours_of_what_is_here_come_first() -> None:
    other = peer(2, 0, 1, 2, 3, model=OTHER)
    both = snapshot(WHOLE, other, models=(model(2, waited_s=LONG), model(name=OTHER, waited_s=LONG)))
    fetches, _ = proposed(both)
    assert {one.shard.model for one in fetches} == {M, OTHER}
    mine = next(one for one in fetches if one.shard.model == M)
    assert mine.shard.index in (1, 3), "adjacent to shard 2"


def test_the_last_copy_of_what_is_asked_for_is_more_urgent() -> None:
    thin = model(name=OTHER, waited_s=LONG, count=1)
    safe = model(waited_s=LONG, count=1, requests=50, peak_requests=50)
    seen = snapshot(
        peer(1, 0), peer(2, 0), peer(3, 0, model=OTHER), peer(4), peer(5), peer(6), models=(safe, thin),
        contribution="minimal",
    )  # fmt: skip
    assert proposed(seen)[0][0].shard.model == OTHER


def test_a_gap_in_the_region_is_rarer() -> None:
    here = peer(3, 0, model=OTHER, region="DE")
    seen = snapshot(
        peer(1, 0, region="US"), here, models=(model(waited_s=LONG, count=1), model(name=OTHER, waited_s=LONG, count=1)),
        region="DE",
    )  # fmt: skip
    first, second = proposed(seen)[0]
    assert first.shard.model == M and first.score > second.score


def test_every_node_takes_its_fair_share_of_a_shared_model() -> None:
    nodes = [NodeId(f"{number:064x}") for number in range(1, 5)]
    taken: set[int] = set()
    for own in nodes[1:]:
        others = tuple(peer(int(n, 16), *(range(12) if n == nodes[0] else ())) for n in nodes if n != own)
        stock = model(count=12, trust=TrustLevel.DISCOVERED, shared=True, requests=0)
        seen = snapshot(*others, models=(stock,), own=own)
        share = set(fair_share(own, M, 12, 3))
        _, skipped = proposed(seen)
        fetches, _ = proposed(seen)
        assert {one.shard.index for one in fetches} <= share and fetches
        later = {index for index, one in skipped.items() if one.gate is Gate.LATER}
        assert later | {one.shard.index for one in fetches} == share
        taken |= share
    assert len(taken) >= 3


def test_what_has_no_holder_of_a_shared_model_is_filled_from_the_hub() -> None:
    late = {NodeId(f"{number:064x}"): LONG for number in (1, 2, 3)}
    stock = model(
        count=12, trust=TrustLevel.DISCOVERED, shared=True, has_source=True, requests=0, waited_s=LONG, owed_s=late
    )
    fetches, skipped = proposed(snapshot(peer(1), peer(2), peer(3), models=(stock,)))
    share = set(fair_share(OWN, M, 12, 3))
    wanted = {one.shard.index for one in fetches} | {i for i, one in skipped.items() if one.gate is Gate.LATER}
    assert wanted == set(range(12)) > share, "its share, and after a while what nobody took"


def test_a_shared_model_has_all_slots_where_demand_has_one() -> None:
    """Somebody waits for it: its rest came one shard in half a minute."""
    stock = model(count=12, trust=TrustLevel.DISCOVERED, shared=True, has_source=True, requests=0, waited_s=LONG)
    seen = snapshot(peer(1), models=(stock,), contribution="minimal", free_slots=3)
    assert len(proposed(seen)[0]) == 3
    both = snapshot(
        peer(1), peer(2, 0, 1, 2, 3, model=OTHER), models=(stock, model(name=OTHER, waited_s=LONG)), contribution="minimal",
        free_slots=3,
    )  # fmt: skip
    fetches, _ = proposed(both)
    assert len(fetches) == 3 and sum(one.shard.model == OTHER for one in fetches) <= 1


counts = st.sets(st.integers(0, 3))


@given(st.lists(counts, min_size=1, max_size=8), counts, st.integers(0, 200), st.booleans())
def test_one_swarm_many_views(others: list[set[int]], own: set[int], requests: int, slow: bool) -> None:
    """Every node looks at once, with fresh eyes: no shard gets more copies than are missing."""
    holdings = [own, *others]
    nodes = [NodeId(f"{number:064x}") for number in range(len(holdings))]
    added = [0] * 4
    for at, (node, held) in enumerate(zip(nodes, holdings, strict=True)):
        stocks = tuple(
            NodeStock(node=other, held={M: frozenset(theirs)} if theirs else {})
            for place, (other, theirs) in enumerate(zip(nodes, holdings, strict=True))
            if place != at
        )
        stock: ModelStock = model(*held, requests=requests)
        seen = snapshot(*stocks, models=(stock,), own=node, contribution="minimal" if slow else "maximum")
        fetches, skipped = propose(seen, survey(seen))
        for one in fetches:
            assert one.shard.index not in held
            added[one.shard.index] += 1
        assert {one.shard.index for one in fetches} | {s.index for s in skipped} == set(range(4)) - held
        target = survey(seen).copies[M][0].target
    for index in range(4):
        assert added[index] <= max(0, target - sum(index in held for held in holdings))


def test_a_copy_that_a_full_disk_would_let_go_again_is_not_fetched() -> None:
    """Seen: above 80 % a copy less was kept than was fetched, and the same shard came and went for days."""
    others = [peer(number, *((0,) if number < 3 else ())) for number in range(1, 9)]  # two of three copies
    short = model(count=1, waited_s=LONG, requests=0)
    for pressure, gate in ((0.79, None), (0.81, Gate.PRESSURE), (0.96, Gate.PRESSURE)):
        skipped = proposed(snapshot(*others, models=(short,), pressure=pressure))[1]
        assert (skipped[0].gate if skipped else None) is gate, pressure
    assert "full" in skipped[0].why and "2" in skipped[0].why
    lone = snapshot(*others[1:], models=(short,), pressure=1.0)
    assert proposed(lone)[0], "two copies there are whatever the pressure"
    near_full = {"taken_bytes": 7_950 * MB, "room_bytes": 2_050 * MB, "pressure": 0.795}
    assert gate_of(snapshot(*others, models=(short,), **near_full)) is Gate.PRESSURE, "with it, it is over 80 %"
    nights = {"taken_bytes": 6_000 * MB, "room_bytes": 4_000 * MB, "pressure": 0.6, "most_added": 0.3}
    assert gate_of(snapshot(*others, models=(short,), **nights)) is Gate.PRESSURE, "it would go tonight"


@pytest.mark.parametrize(
    ("of_model", "of_node"),
    [
        ({"pinned": True}, {}), ({"locked": frozenset({0})}, {}), ({"policy": ModelPolicy(prune_enabled=False)}, {}),
        ({}, {"prune_enabled": False}), ({}, {"region": "DE"}),
    ],
)  # fmt: skip
def test_what_no_pressure_takes_is_fetched_under_pressure(of_model: dict[str, Any], of_node: dict[str, Any]) -> None:
    others = [peer(number, *((0,) if number < 3 else ()), region="US") for number in range(1, 9)]
    seen = snapshot(*others, models=(model(count=1, waited_s=LONG, requests=0, **of_model),), pressure=0.9, **of_node)
    assert [one.shard.index for one in proposed(seen)[0]] == [0]


@given(
    peers=st.integers(2, 20), holders=st.integers(1, 6), coming=st.integers(0, 2), taken=st.integers(5_000, 9_900),
    added=st.sampled_from([0.0, 0.15, 0.3]), requests=st.sampled_from([0, 5, 30, 60]),
)  # fmt: skip
def test_what_is_fetched_is_not_dropped_for_the_same_reasons(
    peers: int, holders: int, coming: int, taken: int, added: float, requests: int
) -> None:
    def others(arrived: bool) -> list[NodeStock]:
        have, get = range(1, holders + 1), range(holders + 1, holders + coming + 1)
        return [
            peer(number, *((0,) if number in have or (arrived and number in get) else ()),
                 coming=(0,) if number in get and not arrived else ())
            for number in range(1, peers + 1)
        ]  # fmt: skip

    room = 10_000 - taken
    before = snapshot(
        *others(False), models=(model(count=1, waited_s=LONG, requests=requests),), taken_bytes=taken * MB,
        room_bytes=room * MB, pressure=taken / 10_000, most_added=added,
    )  # fmt: skip
    if not proposed(before)[0]:
        return
    for turn in range(8):
        after = snapshot(
            *others(True), models=(model(0, count=1, requests=requests),), pressure=(taken + 100) / 10_000 + added,
            now=pruning.TURN_S * (400_000 + turn) + pruning.TURN_S / 2,
        )  # fmt: skip
        assert pruning.propose(after, survey(after))[0] == ()


def test_what_a_person_paused_or_cancelled_is_left_alone() -> None:
    assert gate_of(snapshot(WHOLE, models=(model(waited_s=LONG, paused=True),)), None) is Gate.PAUSED
    seen = snapshot(WHOLE, models=(model(waited_s=LONG, cancelled_s={0: 7200.0}),))
    assert proposed(seen)[1][0] == NotFetched(
        model=M, index=0, gate=Gate.CANCELLED, why="a person cancelled its download here 2 h ago"
    )
