"""A job as people see it."""

from __future__ import annotations

import pytest

from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.shards import TransferState
from swarmd.shards.jobs import LOG_LINES, RATE_WINDOW_S, Job


def job() -> Job:
    return Job(ModelId("tiny"), trigger="user", started_at=5.0)


def test_from_waiting_to_complete() -> None:
    one = job()
    assert one.snapshot(at=0).state == "awaiting_manifest" and one.wanted == ()
    one.want([(3, 100), (1, 50)])
    one.want([(3, 100)])
    one.begin(3, done_bytes=40, source=NodeId("a" * 64))
    one.gained(3, 20, at=1.0)
    assert one.open == (1, 3) and one.progress(3) == pytest.approx(0.6) and one.source(3) == "a" * 64
    one.mark(3, TransferState.COMPLETE)
    one.mark(1, TransferState.COMPLETE)
    one.complete()
    seen = one.snapshot(at=2.0)
    assert one.over and seen.state == "complete" and [transfer.done_bytes for transfer in seen.transfers] == [50, 100]


def test_the_rate_is_that_of_the_last_seconds() -> None:
    one = job()
    one.want([(0, 10_000)])
    one.begin(0, done_bytes=0, source=None)
    for second in range(20):
        one.gained(0, 100, at=float(second))
    assert one.snapshot(at=19.0).bytes_per_second == pytest.approx(100, rel=0.25)
    assert one.snapshot(at=19.1 + RATE_WINDOW_S).bytes_per_second == 0


def test_the_first_reason_stays_and_the_log_is_bounded() -> None:
    one = job()
    one.want([(0, 1)])
    one.fail("first")
    one.fail("second")
    assert one.reason == "first" and one.open == () and one.snapshot(at=0).transfers[0].state is TransferState.FAILED
    for number in range(200):
        one.say(str(number))
    assert len(one.snapshot(at=0).log) == LOG_LINES


def test_a_shard_that_was_given_up_is_wanted_again() -> None:
    one = job()
    one.want([(0, 10), (1, 10), (2, 10)])
    one.mark(0, TransferState.FAILED)
    one.mark(1, TransferState.COMPLETE)
    one.begin(2, done_bytes=5, source=None)
    assert one.given_up == (0,) and one.open == (2,)
    one.want([(0, 10), (1, 10), (2, 10)])
    assert one.given_up == () and one.open == (0, 1, 2) and one.progress(2) == 0.5


def test_what_is_asked_for_before_the_shards_are_known_adds_up() -> None:
    one = job()
    assert one.asked == ()
    one.ask((3,))
    one.ask((1, 3))
    assert one.asked == (1, 3)
    one.ask(None)
    one.ask((2,))
    assert one.asked is None
