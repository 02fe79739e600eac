"""What a steward remembers."""

from __future__ import annotations

from dataclasses import replace

from swarmd.domain.ids import ModelId, NodeId, ShardRef
from swarmd.domain.peers import Holding, ModelDemand, NodeSummary, PeerRecord, PeerView
from swarmd.economy.copies import GRACE_S
from swarmd.economy.notes import CANCELLED_S, HOUR_S, MAX_KEPT, MOVES_PER_HOUR, PEAK_S, RETRY_LIMIT_S, RETRY_S, Notes

M = ModelId("m")
REF = ShardRef(M, 0)
A = NodeId("a" * 64)


def summary(*shards: int) -> NodeSummary:
    return NodeSummary(
        node=A, version=1, software="t", started_at=0.0, ram_free_bytes=0, ram_total_bytes=0,
        holdings=(Holding(model=M, layout="0" * 32, shards=shards),),
    )  # fmt: skip


def view(told: NodeSummary | None, *, connected: bool = True) -> PeerView:
    return PeerView(record=PeerRecord(node=A, endpoints=(), last_seen=None), connected=connected, summary=told)


def test_who_vanished_is_remembered_for_the_grace_time() -> None:
    notes = Notes()
    assert notes.look_round([view(summary(0))], at=0.0) == ()
    assert notes.look_round([view(summary(0), connected=False)], at=100.0) == ((summary(0), 0.0),)
    assert notes.look_round([], at=160.0) == ((summary(0), 60.0),)
    assert notes.look_round([view(summary(0))], at=170.0) == (), "it is back"
    notes.look_round([], at=180.0)
    assert notes.look_round([], at=180.0 + GRACE_S) == ()


def test_only_shards_are_news() -> None:
    notes = Notes()
    assert notes.is_news(summary(0))
    notes.look_round([view(summary(0))], at=0.0)
    assert not notes.is_news(replace(summary(0), version=9, demand=(ModelDemand(model=M, requests=3),)))
    assert notes.is_news(summary(0, 1))


def test_peaks_last_an_hour() -> None:
    notes = Notes()
    assert notes.peak(M, 40, at=0.0) == 40
    assert notes.peak(M, 2, at=PEAK_S / 2) == 40
    assert notes.peak(M, 2, at=PEAK_S + 301) == 2
    assert notes.peak(M, 0, at=3 * PEAK_S) == 0


def test_waiting_begins_anew_with_each_copy_that_is_added() -> None:
    notes = Notes()
    assert notes.waited_s(M, 3, at=0.0) == 0.0
    assert notes.waited_s(M, 3, at=60.0) == 60.0
    assert notes.waited_s(M, 4, at=70.0) == 70.0
    assert notes.waited_s(M, 3, at=80.0) == 0.0
    assert notes.waited_s(M, 0, at=90.0) == 0.0
    assert notes.waited_s(M, 1, at=500.0) == 0.0


def test_who_owes_shards_is_late_when_none_of_them_comes() -> None:
    notes, b = Notes(), NodeId("b" * 64)
    assert notes.owed_s(M, {A: 3, b: 2}, at=0.0) == {A: 0.0, b: 0.0}
    assert notes.owed_s(M, {A: 3, b: 1}, at=60.0) == {A: 60.0, b: 0.0}
    assert notes.owed_s(M, {A: 4}, at=90.0) == {A: 90.0}, "more of them is no progress"
    assert notes.owed_s(M, {A: 4, b: 1}, at=100.0) == {A: 100.0, b: 0.0}
    assert notes.owed_s(M, {}, at=110.0) == {} and notes.owed_s(M, {A: 4}, at=120.0) == {A: 0.0}
    notes.forget(M)
    assert notes.owed_s(M, {A: 4}, at=130.0) == {A: 0.0}


def test_failures_are_tried_again_later_and_later() -> None:
    notes = Notes()
    notes.failed(REF, at=0.0)
    assert notes.retry_s(M, at=0.0) == {0: RETRY_S} and notes.retry_s(M, at=RETRY_S) == {}
    notes.failed(REF, at=RETRY_S)
    assert notes.retry_s(M, at=RETRY_S) == {0: 2 * RETRY_S}
    for _ in range(40):
        notes.failed(REF, at=0.0)
    assert notes.retry_s(M, at=0.0) == {0: RETRY_LIMIT_S}
    notes.stored(REF, at=1.0)
    assert notes.retry_s(M, at=1.0) == {} and notes.stored_s(M, at=5.0) == {0: 4.0}


def test_drops_and_use() -> None:
    notes = Notes()
    notes.stored(REF, at=0.0)
    notes.pruned(REF, at=10.0)
    assert notes.stored_s(M, at=10.0) == {} and notes.dropped_s(M, at=40.0) == {0: 30.0}
    assert notes.pruned_s(M, at=40.0) == 30.0
    notes.used(M, at=20.0)
    assert notes.used_s(M, at=21.0) == 1.0 and notes.used_s(ModelId("x"), at=21.0) is None
    notes.forget(M)
    assert notes.dropped_s(M, at=40.0) == {} and notes.pruned_s(M, at=40.0) is None


def test_who_dropped_it() -> None:
    notes, other, third = Notes(), ShardRef(M, 1), ShardRef(M, 2)
    notes.look_here([REF, other, third], [M], at=0.0)
    notes.pruned(REF, at=1.0)
    notes.dropped(other, at=2.0)
    notes.dropped(REF, at=3.0)
    assert notes.unwanted(M) == {1} and notes.dropped_s(M, at=3.0) == {0: 2.0, 1: 1.0}, "told again, it is the same"
    notes.look_here([], [ModelId("x")], at=4.0)
    assert notes.unwanted(M) == {1}, "its whole model is gone"
    notes.look_here([third], [M], at=4.0)
    notes.look_here([], [M], at=5.0)
    assert notes.unwanted(M) == {1, 2} and notes.was_given_up(third), "nobody has told yet"
    notes.wanted([other])
    assert notes.unwanted(M) == {2} and not notes.was_given_up(other)
    notes.rejected(other, at=6.0)
    assert notes.retry_s(M, at=6.0) == {}, "bytes on their way: the download tells how that ends"
    notes.rejected(third, at=6.0)
    assert notes.unwanted(M) == frozenset() and notes.retry_s(M, at=6.0) == {2: RETRY_S}
    notes.stored(REF, at=7.0)
    notes.dropped(REF, at=8.0)
    assert notes.unwanted(M) == {0}, "it had come again"


def test_moves_of_an_hour() -> None:
    notes = Notes()
    for at in range(MOVES_PER_HOUR):
        notes.moved(at=float(at))
    assert notes.moves_left(at=60.0) == 0
    assert notes.moves_left(at=HOUR_S + 10.0) == 11


def test_nothing_grows_without_end() -> None:
    notes = Notes()
    for number in range(MAX_KEPT + 50):
        notes.stored(ShardRef(M, number), at=float(number) / 1e3)
        notes.waited_s(ModelId(f"m{number}"), 1, at=0.0)
    notes.tidy(at=5.0)
    assert len(notes.stored_s(M, at=5.0)) == MAX_KEPT and 0 not in notes.stored_s(M, at=5.0)
    notes.tidy(at=1e6)
    assert notes.stored_s(M, at=1e6) == {}


def test_what_was_cancelled_rests_a_day_or_until_a_person_says_more() -> None:
    notes, other = Notes(), ShardRef(M, 1)
    notes.cancelled(M, [REF, other], began=5.0, at=0.0)
    notes.cancelled(M, [REF, other], began=5.0, at=1000.0)
    assert notes.cancelled_s(M, at=2000.0) == {0: 2000.0, 1: 2000.0}, "told twice, it is still the same"
    assert notes.cancelled_s(M, at=CANCELLED_S) == {}
    notes.stored(REF, at=3000.0)
    assert notes.cancelled_s(M, at=4000.0) == {1: 4000.0}
    notes.tidy(at=4000.0)
    notes.instructed(M)
    notes.cancelled(M, [other], began=5.0, at=5000.0)
    assert notes.cancelled_s(M, at=6000.0) == {}
    notes.cancelled(M, [other], began=6.0, at=6000.0)
    assert notes.cancelled_s(M, at=6000.0) == {1: 0.0}, "the next one"
    notes.forget(M)
    assert notes.cancelled_s(M, at=6000.0) == {}
