"""Counts that only grow."""

from __future__ import annotations

import pytest

from swarmd.kit.tallies import Histogram


def test_a_value_falls_into_the_first_bucket_whose_end_it_does_not_exceed() -> None:
    found = Histogram((1, 2, 4))
    for value in (0, 1, 1.5, 2, 3, 4, 4.5, 1e9):
        found.add(value)
    assert found.counts == [2, 2, 2, 2] and found.count == 8
    assert found.total == pytest.approx(16 + 1e9)


def test_several_at_once() -> None:
    found = Histogram((1,))
    found.add(0.5, 3)
    assert (found.counts, found.total) == ([3, 0], 1.5)


def test_bounds_ascend() -> None:
    with pytest.raises(AssertionError):
        Histogram((2, 1))
