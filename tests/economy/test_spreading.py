"""Whose turn it is."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.ids import ModelId, NodeId
from swarmd.economy.spreading import fetch_order, may_drop, place

NODES = [NodeId(f"{number:064x}") for number in range(60)]
MODEL = ModelId("m")
some = st.sets(st.sampled_from(NODES), min_size=2, max_size=20)


@given(some, st.sampled_from(NODES))
def test_one_that_comes_or_goes_leaves_the_others_in_their_order(nodes: set[NodeId], other: NodeId) -> None:
    before = fetch_order(MODEL, [(node, 2) for node in nodes - {other}])
    after = fetch_order(MODEL, [(node, 2) for node in nodes | {other}])
    assert [node for node in after if node != other] == before


def test_tiers_come_first_and_models_are_spread() -> None:
    order = fetch_order(MODEL, [(node, number % 3) for number, node in enumerate(NODES)])
    assert [NODES.index(node) % 3 for node in order] == [0] * 20 + [1] * 20 + [2] * 20
    first = Counter(fetch_order(ModelId(f"m{n}"), [(node, 0) for node in NODES[:6]])[0] for n in range(600))
    assert len(first) == 6 and min(first.values()) > 60


@given(some, st.integers(1, 19), st.integers(0, 5), st.data())
def test_as_many_may_drop_as_are_too_many(holders: set[NodeId], surplus: int, turn: int, data: st.DataObject) -> None:
    surplus = min(surplus, len(holders) - 1)
    allowed = {node for node in holders if may_drop(node, MODEL, holders, surplus=surplus, turn=turn)}
    assert len(allowed) == surplus
    # One has dropped its copy: of those who see it, only those who might before may still.
    gone = data.draw(st.sampled_from(sorted(allowed)))
    rest = holders - {gone}
    after = {node for node in rest if may_drop(node, MODEL, rest, surplus=surplus - 1, turn=turn)}
    assert after == allowed - {gone}


def test_turns_change_who_it_is() -> None:
    holders = NODES[:5]
    who = {next(n for n in holders if may_drop(n, MODEL, holders, surplus=1, turn=turn)) for turn in range(40)}
    assert who == set(holders)
    assert place(NODES[0], MODEL) != place(NODES[0], MODEL, 0)
