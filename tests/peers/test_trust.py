"""The arithmetic of trust."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.peers.trust import CYCLE_S, DEFAULT, Deed, drifted, judged

SCORES, SPANS = st.floats(0, 1), st.floats(0, 1e7)


@pytest.mark.parametrize(("deed", "score"), [(Deed.SERVED, 0.51), (Deed.INVALID_GOSSIP, 0.45), (Deed.BAD_DATA, 0.40)])
def test_what_a_deed_is_worth(deed: Deed, score: float) -> None:
    assert judged(DEFAULT, deed) == pytest.approx(score)


def test_a_cycle_takes_a_hundredth_of_the_distance() -> None:
    assert drifted(1.0, CYCLE_S) == pytest.approx(0.995)
    assert drifted(0.0, 2 * CYCLE_S) == pytest.approx(0.5 - 0.5 * 0.99**2)
    assert drifted(0.9, -5.0) == 0.9, "a clock set back takes nothing away"


@given(SCORES, st.lists(st.sampled_from(Deed)))
def test_it_stays_between_0_and_1(score: float, deeds: list[Deed]) -> None:
    for deed in deeds:
        score = judged(score, deed)
    assert 0.0 <= score <= 1.0


@given(SCORES, SPANS, SPANS)
def test_it_does_not_matter_how_often_one_looks(score: float, first: float, then: float) -> None:
    assert drifted(drifted(score, first), then) == pytest.approx(drifted(score, first + then), abs=1e-9)


@given(SCORES, SPANS)
def test_time_never_crosses_the_middle(score: float, span: float) -> None:
    later = drifted(score, span)
    assert abs(later - DEFAULT) <= abs(score - DEFAULT) + 1e-12 and (later - DEFAULT) * (score - DEFAULT) >= 0
