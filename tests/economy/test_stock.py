"""The snapshot says nothing by itself: what is left out gives nothing away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarmd.domain.autopilot import Gate
from swarmd.domain.ids import ModelId, NodeId
from swarmd.economy import acquiring, pruning
from swarmd.economy.copies import survey
from swarmd.economy.stock import Limits, ModelStock, Snapshot


def test_an_empty_snapshot_proposes_nothing() -> None:
    empty = Snapshot(own=NodeId("0" * 64))
    found = survey(empty)
    assert found.pool == 1
    assert acquiring.propose(empty, found) == ((), ()) and pruning.propose(empty, found) == ((), ())


def test_a_name_alone_is_not_fetched() -> None:
    heard = Snapshot(own=NodeId("0" * 64), models=(ModelStock(model=ModelId("m"), name="m"),))
    fetches, (skipped,) = acquiring.propose(heard, survey(heard))
    assert fetches == () and skipped.gate is Gate.UNKNOWN and skipped.index is None


def test_the_pressure_with_more_is_the_highest_of_a_day() -> None:
    limits = Limits(pressure=0.6, taken_bytes=600, room_bytes=400)
    assert limits.pressure_with(0) == 0.6 and limits.pressure_with(100) == 0.7
    assert replace(limits, most_added=0.25).pressure_with(100) == pytest.approx(0.95)
    assert replace(limits, pressure=0.9).pressure_with(100) == 0.9, "the budget is overdrawn, or it is night"
    assert Limits().pressure_with(1) == 1.0, "no room at all"
