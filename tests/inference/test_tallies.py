"""What is counted of generations and steps."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from swarmd.domain.generation import Usage
from swarmd.domain.ids import NodeId
from swarmd.inference.tallies import NODES_LIMIT, OUTCOMES, Tallies
from tests.fakes.heads import NODES

USAGE = Usage(prompt_tokens=7, completion_tokens=3, prefill_ms=200.0, decode_ms=40.0, stages=(), link_ms=1.0)


def test_a_step_s_time_is_divided_into_engine_node_and_wire() -> None:
    tallies = Tallies()
    tallies.decoded(NODES, [(1000, 2000), (3000, 5000)], 0.010, 2)
    tallies.decoded(NODES, [(1000, 2000), (3000, 5000)], 0.006, 0)  # nothing counted, and nodes that took longer than all
    assert tallies.hops == 4 and tallies.link_s.count == 2 and tallies.link_s.total == pytest.approx(0.003)
    assert tallies.token_s.count == 2 and tallies.token_s.total == pytest.approx(0.010)
    assert tallies.stages[NODES[1]].compute_s.total == pytest.approx(0.006)
    assert tallies.stages[NODES[1]].node_s.total == pytest.approx(0.010)


def test_a_step_on_one_node_has_no_wire() -> None:
    tallies = Tallies()
    tallies.decoded(NODES[:1], [(1000, 2000)], 0.010, 1)
    assert tallies.link_s.count == tallies.hops == 0


def test_nodes_beyond_the_limit_share_an_entry() -> None:
    tallies = Tallies()
    for number in range(3 * NODES_LIMIT):
        tallies.decoded([NodeId(f"{number:064x}")], [(1000, 2000)], 0.010, 1)
    assert len(tallies.stages) == NODES_LIMIT + 1
    assert tallies.stages[None].node_s.count == 2 * NODES_LIMIT


def test_a_reply_adds_its_usage() -> None:
    tallies = Tallies()
    tallies.generated(replace(USAGE, cached_tokens=4, proposed_tokens=6, accepted_tokens=5), waited_s=0.5)
    tallies.generated(replace(USAGE, completion_tokens=0), waited_s=0.5)  # nobody saw a first token
    assert (tallies.prompt_tokens, tallies.cached_tokens, tallies.completion_tokens) == (14, 4, 3)
    assert (tallies.proposed_tokens, tallies.accepted_tokens) == (6, 5)
    assert tallies.prefill_s.total == pytest.approx(0.2) and tallies.first_token_s.total == pytest.approx(0.7)


def test_outcomes_are_those_that_are_known() -> None:
    tallies = Tallies()
    for outcome in (*OUTCOMES, "something else"):
        tallies.ended(outcome)
    assert tallies.requests == {**dict.fromkeys(OUTCOMES, 1), "failed": 2}


def test_counting_a_step_costs_a_fraction_of_what_the_shortest_step_takes() -> None:
    tallies = Tallies()
    trace = [(1000, 2000), (3000, 5000)]
    began = time.perf_counter()
    for _ in range(10_000):
        tallies.decoded(NODES, trace, 0.010, 1)
    assert (time.perf_counter() - began) / 10_000 < 50e-6, "some 3 us; the rest is for a busy machine"
