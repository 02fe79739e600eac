"""The snapshot says nothing by itself: what is left out gives nothing away."""

from __future__ import annotations

from swarmd.domain.autopilot import Gate
from swarmd.domain.ids import ModelId, NodeId
from swarmd.economy import acquiring, pruning
from swarmd.economy.copies import survey
from swarmd.economy.stock import ModelStock, Snapshot


def test_an_empty_snapshot_proposes_nothing() -> None:
    empty = Snapshot(own=NodeId("0" * 64))
    found = survey(empty)
    assert found.pool == 1
    assert acquiring.propose(empty, found) == ((), ()) and pruning.propose(empty, found) == ((), ())


def test_a_name_alone_is_not_fetched() -> None:
    heard = Snapshot(own=NodeId("0" * 64), models=(ModelStock(model=ModelId("m"), name="m"),))
    fetches, (skipped,) = acquiring.propose(heard, survey(heard))
    assert fetches == () and skipped.gate is Gate.UNKNOWN and skipped.index is None
