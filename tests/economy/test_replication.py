"""The formula against the contract's worked examples, and its bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.economy.replication import replication_target

POOLS, REPLICAS, REQUESTS = st.integers(1, 10_000), st.integers(1, 100), st.integers(0, 1_000_000)


@pytest.mark.parametrize(
    ("pool", "requests", "target"),
    [(3, 5, 2), (1, 0, 1), (10, 0, 3), (100, 0, 7), (1000, 0, 10), (10, 101, 9), (10, 1, 5), (10, 20, 6), (10, 100, 8)],
)
def test_the_worked_examples(pool: int, requests: int, target: int) -> None:
    assert replication_target(pool=pool, min_replicas=2, requests=requests) == target


@given(POOLS, REPLICAS, REQUESTS)
def test_there_is_always_a_target_that_the_pool_can_meet(pool: int, replicas: int, requests: int) -> None:
    assert 1 <= replication_target(pool=pool, min_replicas=replicas, requests=requests) <= pool


@given(POOLS, REPLICAS, REQUESTS, REQUESTS)
def test_more_demand_never_asks_for_less(pool: int, replicas: int, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert replication_target(pool=pool, min_replicas=replicas, requests=low) <= replication_target(
        pool=pool, min_replicas=replicas, requests=high
    )


@given(st.integers(2, 10_000), st.integers(1, 10_000), REPLICAS, REQUESTS)
def test_a_larger_pool_never_asks_for_less(pool: int, more: int, replicas: int, requests: int) -> None:
    assert replication_target(pool=pool, min_replicas=replicas, requests=requests) <= replication_target(
        pool=pool + more, min_replicas=replicas, requests=requests
    )


@given(POOLS, REPLICAS, REQUESTS)
def test_it_is_the_formula_in_fractions(pool: int, replicas: int, requests: int) -> None:
    factor = next(f for f, most in ((1, 0), (1.5, 5), (2, 20), (2.5, 100), (3, math.inf)) if requests <= most)
    most = max(1, math.floor(pool / 3))
    floor = replicas if pool <= 1 else min(max(math.ceil(math.log2(pool)), min(replicas, most)), most)
    expected = max(1, min(pool, math.ceil(floor * factor)))
    assert replication_target(pool=pool, min_replicas=replicas, requests=requests) == expected
