"""The planner: what it prefers, what it refuses, and that every plan covers every shard once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.plans import PipelinePlan
from swarmd.domain.refusals import NoCapacity, NoCoverage
from swarmd.inference.plan import STAGE_MS, NodeOffer, ShardSize, Snapshot, plan

A, B, C, D = (NodeId(letter * 64) for letter in "abcd")


def sizes(count: int, memory: int = 100) -> tuple[ShardSize, ...]:
    return tuple(ShardSize(layer_start=2 * i, layer_end=2 * i + 2, memory_bytes=memory, effort=2.0) for i in range(count))


def offer(node: NodeId, *shards: int, **rest) -> NodeOffer:
    return NodeOffer(node=node, shards=frozenset(shards), **rest)


def snapshot(*offers: NodeOffer, count: int = 6, rtt=None, memory: int = 100) -> Snapshot:
    return Snapshot(
        model=ModelId("m"), layout="l", head=A, shards=sizes(count, memory), offers=offers, rtt_ms=rtt or {}
    )


def runs(result) -> list[tuple[NodeId, int, int]]:
    assert isinstance(result, PipelinePlan), result
    return [(stage.node, stage.first_shard, stage.last_shard) for stage in result.stages]


def test_three_thirds_make_three_stages_in_layer_order():
    result = plan(snapshot(offer(C, 4, 5), offer(A, 0, 1), offer(B, 2, 3)))
    assert runs(result) == [(A, 0, 1), (B, 2, 3), (C, 4, 5)]
    assert [(stage.layer_start, stage.layer_end) for stage in result.stages] == [(0, 4), (4, 8), (8, 12)]


def test_a_node_that_holds_everything_runs_alone_even_if_it_is_slower():
    result = plan(
        snapshot(offer(B, *range(6), layer_ms=5.0), offer(A, 0, 1, 2, layer_ms=1.0), offer(C, 3, 4, 5, layer_ms=1.0))
    )
    assert runs(result) == [(B, 0, 5)]
    assert result.predicted_token_ms == 12 * 5.0 + STAGE_MS + 1.0  # and there and back again


def test_among_equal_stage_counts_the_faster_nodes_win():
    slow, fast = offer(B, 3, 4, 5, layer_ms=4.0), offer(C, 3, 4, 5, layer_ms=2.0)
    assert runs(plan(snapshot(offer(A, 0, 1, 2, layer_ms=1.0), slow, fast)))[1][0] == C


def test_a_long_round_trip_outweighs_a_faster_node():
    near, far = offer(B, 3, 4, 5, layer_ms=4.0), offer(C, 3, 4, 5, layer_ms=2.0)
    result = plan(snapshot(offer(A, 0, 1, 2, layer_ms=1.0), near, far, rtt={(A, B): 1.0, (C, A): 100.0}))
    assert runs(result)[1][0] == B


def test_the_slower_of_two_is_used_where_its_run_saves_a_stage():
    result = plan(snapshot(offer(A, 0, 1, 2, 3), offer(B, 3, 4, 5), offer(C, 2, 3), offer(D, 4, 5)))
    assert [node for node, _, _ in runs(result)] == [A, B]


def test_a_node_may_appear_twice_when_the_middle_is_elsewhere():
    assert runs(plan(snapshot(offer(A, 0, 2), offer(B, 1), count=3))) == [(A, 0, 0), (B, 1, 1), (A, 2, 2)]


def test_missing_shards_are_named():
    result = plan(snapshot(offer(A, 0, 1), offer(B, 4)))
    assert isinstance(result, NoCoverage)
    assert result.missing == (2, 3, 5)
    assert "shard 3, 4, 6" in result.sentence


def test_nobody_at_all_means_everything_is_missing():
    assert isinstance(result := plan(snapshot(count=2)), NoCoverage)
    assert result.missing == (0, 1)


def test_memory_splits_a_model_that_one_node_holds_but_cannot_run():
    whole, half = offer(A, *range(6), free_bytes=350), offer(B, 3, 4, 5, free_bytes=300)
    assert runs(plan(snapshot(whole, half))) == [(A, 0, 2), (B, 3, 5)]


def test_too_little_memory_is_another_refusal_than_no_coverage_and_has_the_numbers():
    result = plan(snapshot(offer(A, *range(6), free_bytes=350)))
    assert isinstance(result, NoCapacity)
    assert (result.node, result.needed_bytes, result.free_bytes) == (A, 600, 350)
    assert "for layers 0 to 11 and has" in result.sentence


def test_two_runs_on_one_node_share_its_memory():
    result = plan(snapshot(offer(A, 0, 2, free_bytes=150), offer(B, 1), count=3))
    assert isinstance(result, NoCapacity)
    assert (result.needed_bytes, result.free_bytes) == (200, 150)
    assert "for layers 0 to 1, 4 to 5 and has" in result.sentence


def test_a_third_node_is_used_where_two_runs_would_share_too_little_memory():
    result = plan(snapshot(offer(A, 0, 2, free_bytes=150), offer(B, 1), offer(C, 2), count=3))
    assert runs(result) == [(A, 0, 0), (B, 1, 1), (C, 2, 2)]


def test_the_best_way_to_the_middle_is_given_up_where_it_takes_the_memory_of_the_end():
    result = plan(snapshot(offer(A, 0, 2, free_bytes=150), offer(B, 1), offer(C, 0), count=3))
    assert runs(result) == [(C, 0, 0), (B, 1, 1), (A, 2, 2)]
    result = plan(snapshot(offer(A, 0, 1, 3, free_bytes=250), offer(B, 1, 2), count=4))
    assert runs(result) == [(A, 0, 0), (B, 1, 2), (A, 3, 3)]


def test_loaded_shards_of_both_runs_count():
    offers = offer(A, 0, 2, loaded=frozenset((0,)), free_bytes=100), offer(B, 1)
    assert runs(plan(snapshot(*offers, count=3))) == [(A, 0, 0), (B, 1, 1), (A, 2, 2)]


def test_loaded_shards_need_no_more_memory():
    result = plan(snapshot(offer(A, *range(6), loaded=frozenset(range(4)), free_bytes=200)))
    assert runs(result) == [(A, 0, 5)]


def test_no_prediction_without_a_measurement():
    assert plan(snapshot(offer(A, *range(6)))).predicted_token_ms is None


nodes = st.sampled_from([A, B, C, D])


@given(
    count=st.integers(1, 6),
    held=st.dictionaries(nodes, st.sets(st.integers(0, 5)), min_size=1),
    free=st.dictionaries(nodes, st.integers(0, 400)),
    loaded=st.dictionaries(nodes, st.sets(st.integers(0, 5))),
)
def test_no_plan_takes_more_than_a_node_has_and_no_refusal_is_said_of_what_fits(count, held, free, loaded):
    offers = [
        NodeOffer(
            node=node, shards=frozenset(i for i in shards if i < count), free_bytes=free.get(node),
            loaded=frozenset(loaded.get(node, ())),
        )
        for node, shards in held.items()
    ]  # fmt: skip
    result = plan(snapshot(*offers, count=count))
    if isinstance(result, NoCapacity):
        assert result.needed_bytes > result.free_bytes == free[result.node]
    elif isinstance(result, PipelinePlan):
        for one in offers:
            taken = {i for node, a, b in runs(result) if node == one.node for i in range(a, b + 1)} - one.loaded
            assert one.free_bytes is None or 100 * len(taken) <= one.free_bytes


@given(
    count=st.integers(1, 9),
    held=st.dictionaries(nodes, st.sets(st.integers(0, 8)), min_size=1),
    speed=st.dictionaries(nodes, st.floats(0.1, 10)),
)
def test_every_plan_covers_every_shard_once_on_holders_with_as_few_stages_as_greedy(count, held, speed):
    offers = [
        NodeOffer(node=node, shards=frozenset(i for i in shards if i < count), layer_ms=speed.get(node))
        for node, shards in held.items()
    ]
    result = plan(snapshot(*offers, count=count))
    covered = set().union(*(o.shards for o in offers))
    if covered != set(range(count)):
        assert isinstance(result, NoCoverage)
        assert set(result.missing) == set(range(count)) - covered
        return
    flat = [(node, index) for node, first, last in runs(result) for index in range(first, last + 1)]
    assert [index for _, index in flat] == list(range(count))
    assert all(index in held[node] for node, index in flat)
    stages = at = 0  # the greedy cover, always taking the longest run, has the fewest runs
    while at < count:
        at = max(next(i for i in range(at, count + 1) if i == count or i not in o.shards) for o in offers)
        stages += 1
    assert len(result.stages) == stages


def enclosed(*offers: NodeOffer, **rest) -> Snapshot:
    return replace(snapshot(*offers, **rest), enclosed=True)


def test_an_enclosed_pipeline_begins_and_ends_on_the_head_though_others_hold_the_ends_too():
    result = plan(enclosed(offer(A, 0, 5), offer(B, *range(6)), offer(C, 0, 1, 2)))
    assert runs(result) == [(A, 0, 0), (B, 1, 4), (A, 5, 5)]
    assert runs(plan(enclosed(offer(A, *range(6)), offer(B, *range(6))))) == [(A, 0, 5)]
    assert runs(plan(enclosed(offer(A, 0, 1), offer(B, 0, 1), count=2))) == [(A, 0, 1)]


def test_an_enclosed_pipeline_whose_ends_the_head_lacks_is_no_plan_at_all():
    for held, missing in (((0, 1, 2), (5,)), ((5,), (0,)), ((2,), (0, 5))):
        refused = plan(enclosed(offer(A, *held), offer(B, *range(6))))
        assert isinstance(refused, NoCoverage) and refused.missing == missing
    refused = plan(enclosed(offer(B, *range(6))))
    assert isinstance(refused, NoCoverage) and refused.missing == (0, 5)


def test_an_enclosed_pipeline_needs_memory_for_both_ends_on_the_head():
    refused = plan(enclosed(offer(A, 0, 5, free_bytes=150), offer(B, *range(6))))
    assert isinstance(refused, NoCapacity) and (refused.node, refused.needed_bytes) == (A, 200)


def test_the_less_loaded_of_two_equals_is_taken():
    result = plan(snapshot(offer(B, *range(6), layer_ms=1.0, sessions=3), offer(C, *range(6), layer_ms=1.1)))
    assert runs(result) == [(C, 0, 5)]


def test_a_pair_that_nobody_measured_is_as_far_as_the_farther_one_is_from_here():
    offers = [offer(A, 0, 1), offer(B, 2, 3), offer(C, 4, 5)]
    far = plan(snapshot(*[replace(one, layer_ms=1.0) for one in offers], rtt={(A, B): 10.0, (A, C): 40.0}))
    told = plan(snapshot(*[replace(one, layer_ms=1.0) for one in offers], rtt={(A, B): 10.0, (A, C): 40.0, (B, C): 2.0}))
    assert far.predicted_token_ms - told.predicted_token_ms == pytest.approx((40.0 - 2.0) / 2)


def test_a_long_way_between_two_stages_is_avoided():
    """Both are near the head, and far from each other."""
    offers = [offer(A, 0, 1), offer(B, 2, 3), offer(C, 4, 5), offer(D, 4, 5)]
    trips = {(A, B): 2.0, (A, C): 2.0, (A, D): 4.0, (B, C): 80.0, (B, D): 4.0}
    assert [node for node, _, _ in runs(plan(snapshot(*offers, rtt=trips)))] == [A, B, D]


def test_standbys_hold_all_of_a_stage_and_have_the_room():
    first, second = offer(A, 0, 1, 2, layer_ms=1.0), offer(B, 3, 4, 5, layer_ms=1.0)
    offers = (first, second, offer(C, 3, 4, 5, layer_ms=9.0, loaded=frozenset({3})), offer(D, 3, 4, 5, layer_ms=2.0))
    result = plan(snapshot(*offers))
    assert result.standbys == ((), (C, D)), "what is in memory already goes first"
    full = [replace(one, free_bytes=150) if one.node == C else one for one in offers]
    assert plan(snapshot(*full)).standbys == ((), (D,))
    ends = plan(replace(snapshot(offer(A, 0, 5), offer(B, *range(6)), offer(C, *range(6))), enclosed=True))
    assert ends.standbys == ((), (C,), ()), "of an encrypted pipeline's ends nobody else can"


def test_a_refusal_for_coverage_names_the_layers():
    result = plan(snapshot(offer(A, 0, 3)))
    assert isinstance(result, NoCoverage) and result.layers == ((2, 6), (8, 12))
    assert "(layers 2 to 5, 8 to 11; 6 shards in all)" in result.sentence
