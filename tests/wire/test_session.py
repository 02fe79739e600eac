"""Keep-alive, goodbye and bad bytes, with a clock made of numbers."""

from __future__ import annotations

import pytest

from swarmd.wire.events import Closed, RttMeasured, StreamGone
from swarmd.wire.frames import Kind, frame
from swarmd.wire.session import DEAD_AFTER_S, IDLE_PING_S
from tests.wire.sessions import Forger, carry, closed, messages, session_pair, wire_of


def test_round_trips_are_measured() -> None:
    here, there = session_pair()
    here.ping(1.0)
    assert carry(here, there, 1.1) == []
    assert carry(there, here, 1.25) == [RttMeasured(seconds=0.25)]
    assert carry(there, here, 1.3) == []


def test_an_idle_peer_is_pinged_and_a_silent_one_given_up() -> None:
    here, there = session_pair(now=100.0)
    assert here.next_deadline() == 100.0 + IDLE_PING_S
    idle = 100.0 + IDLE_PING_S
    assert here.tick(idle - 0.1) == []
    assert not here.has_outgoing
    assert here.tick(idle) == []
    carry(here, there, idle + 0.1)
    assert here.next_deadline() == 100.0 + DEAD_AFTER_S
    heard = idle + 0.2
    assert carry(there, here, heard) == [RttMeasured(seconds=pytest.approx(0.2))]
    assert here.next_deadline() == pytest.approx(heard + IDLE_PING_S)
    here.tick(heard + IDLE_PING_S)
    assert here.tick(heard + IDLE_PING_S + 0.1) == []
    assert here.tick(heard + DEAD_AFTER_S) == [Closed(reason="silent")]
    assert here.tick(heard + 20) == []
    assert here.closed == "silent"


def test_a_flood_of_pings_gets_one_answer_at_a_time() -> None:
    _, there = session_pair()
    there.receive(Forger()(*[frame(Kind.PING, payload=index.to_bytes(8, "little")) for index in range(5000)]), 0.0)
    assert len(there.outgoing()) == 1


def test_own_pings_are_limited_while_nobody_answers() -> None:
    here, _ = session_pair()
    for _ in range(100):
        here.ping(0.0)
    assert len(here.outgoing()) == 4


def test_a_peer_that_never_reads_is_given_up() -> None:
    here, there = session_pair()
    for _ in range(10):
        numbers = [here.open_stream(1, b"") for _ in range(200)]
        carry(here, there)
        for number in numbers:
            there.reset(number, 1)
        for number in numbers:
            here.reset(number, 1)
    assert there.closed == "the peer does not read"


def test_goodbye_ends_everything() -> None:
    here, there = session_pair()
    number = here.open_stream(1, b"hello")
    carry(here, there)
    here.close("shutting down")
    assert here.take_events() == []
    assert closed(carry(here, there)) == "the peer said goodbye (0): shutting down"
    for side in (here, there):
        assert side.open_streams == 0
        with pytest.raises(StreamGone, match=r"goodbye|shutting down"):
            side.send(number, 1, b"")
        with pytest.raises(StreamGone):
            side.open_stream(1, b"")
        side.ping(0.0)
        side.end(number)
        side.reset(number, 1)
        side.consumed(number, 10)
        side.close("again")
        assert not side.has_outgoing
        assert not side.pending(number)


@pytest.mark.parametrize("cut", [1, 2, 3, 50, 100_000])
def test_bytes_may_come_in_any_pieces(cut: int) -> None:
    here, there = session_pair()
    payload = bytes(range(256)) * 600
    here.open_stream(1, b"", payload)
    here.ping(0.0)
    data = wire_of(here)
    got = []
    for start in range(0, len(data), cut):
        got += messages(there.receive(data[start : start + cut], 0.0))
    assert got == [(1, b"", payload)]


def test_a_changed_or_repeated_record_closes_the_session() -> None:
    here, there = session_pair()
    here.open_stream(1, b"hello")
    data = bytearray(wire_of(here))
    data[-1] ^= 1
    assert "changed on its way" in closed(there.receive(data, 0.0))
    here, there = session_pair()
    here.open_stream(1, b"hello")
    data = wire_of(here)
    assert messages(there.receive(data, 0.0))
    assert "changed on its way" in closed(there.receive(data, 0.0))


def test_a_half_open_link_is_noticed_within_ten_seconds() -> None:
    assert DEAD_AFTER_S < 10  # and a ping was sent, with time for its answer
    assert DEAD_AFTER_S - IDLE_PING_S >= 4
