"""The ladder of demand, with times as arguments."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.models import TrustLevel
from swarmd.economy.trust import DECAY_S, RANK, TrustRecord, asked, checked, discovered, shown, told

D, P, V, N = TrustLevel.DISCOVERED, TrustLevel.PINNED, TrustLevel.DEMAND_VERIFIED, TrustLevel.NETWORK_POPULAR
T = 1_700_000_000.0


def test_the_third_request_verifies() -> None:
    record = discovered(T)
    for number, level in enumerate((D, D, V, V), start=1):
        record = asked(record, now=T + number)
        assert record.level is level and record.total_requests == number
    assert record.last_request_at == T + 4


def test_three_requests_elsewhere_verify_too() -> None:
    assert told(discovered(T), requests=2, now=T).level is D
    record = told(discovered(T), requests=3, now=T + 1)
    assert record.level is V and record.total_requests == 0 and record.last_request_at == T + 1
    assert told(record, requests=0, now=T + 9) == record


def test_three_holders_make_it_popular() -> None:
    assert checked(discovered(T), holders=2, now=T).level is D
    assert checked(discovered(T), holders=3, now=T).level is N


def test_a_step_down_after_seven_days_and_no_way_up_by_holders_alone() -> None:
    record = checked(asked(asked(asked(discovered(T), now=T), now=T), now=T), holders=5, now=T)
    assert record.level is N
    assert checked(record, holders=5, now=T + DECAY_S - 1).level is N
    record = checked(record, holders=5, now=T + DECAY_S)
    assert record.level is V
    assert checked(record, holders=5, now=T + 2 * DECAY_S - 1).level is V
    record = checked(record, holders=5, now=T + 2 * DECAY_S)
    assert record.level is D
    assert checked(record, holders=5, now=T + 9 * DECAY_S) == record
    record = asked(record, now=T + 3 * DECAY_S)
    assert record.level is D, "it has to be asked for three times again"
    assert checked(record, holders=5, now=T + 3 * DECAY_S).level is N, "somebody wants it again"


def test_a_request_puts_the_step_off() -> None:
    record = replace(discovered(T), level=N)
    record = asked(record, now=T + DECAY_S - 1)
    assert checked(record, holders=0, now=T + 2 * DECAY_S - 2).level is N
    assert checked(record, holders=0, now=T + 2 * DECAY_S - 1).level is V


def test_what_is_shown() -> None:
    assert shown(None, pinned=False, hosted=True) is P
    assert shown(None, pinned=False, hosted=False) is D
    assert shown(discovered(T), pinned=False, hosted=True) is D
    assert shown(discovered(T), pinned=True, hosted=False) is P
    assert shown(replace(discovered(T), level=V), pinned=True, hosted=False) is V
    assert RANK[D] < RANK[P] < RANK[V] < RANK[N]


kinds = st.sampled_from(["ask", "tell", "check"])
steps = st.lists(st.tuples(kinds, st.integers(0, 9), st.floats(0, 2 * DECAY_S)), max_size=30)


@given(steps)
def test_whatever_happens(todo: list[tuple[str, int, float]]) -> None:
    """No step goes two down, pinned never shows below Pinned, and the counter never exceeds the total."""
    now, record = T, discovered(T)
    for kind, number, wait in todo:
        now += wait
        before = record
        if kind == "ask":
            record = asked(record, now=now)
        elif kind == "tell":
            record = told(record, requests=number, now=now)
        else:
            record = checked(record, holders=number, now=now)
        if RANK[record.level] < RANK[before.level]:
            assert (before.level, record.level) in ((N, V), (V, D)) and kind == "check"
            assert now - max(before.first_seen, before.last_request_at or 0.0) >= DECAY_S
        assert RANK[shown(record, pinned=True, hosted=False)] >= RANK[P]
        assert record.counted_requests <= record.total_requests
        assert isinstance(record, TrustRecord) and record.first_seen == T
