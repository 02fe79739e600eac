"""Keep-alive, goodbye and bad bytes, with a clock made of numbers."""

from __future__ import annotations

from itertools import pairwise

import pytest

from swarmd.wire import session, streams
from swarmd.wire.events import Closed, RttMeasured, StreamGone
from swarmd.wire.frames import Kind, frame
from swarmd.wire.session import DEAD_AFTER_S, IDLE_PING_S
from swarmd.wire.spare_memory import SpareMemory
from tests.wire.sessions import Forger, carry, closed, messages, session_pair, wire_of


def test_round_trips_are_measured() -> None:
    here, there = session_pair()
    here.ping(1.0)
    assert carry(here, there, 1.1) == []
    assert carry(there, here, 1.25) == [RttMeasured(seconds=0.25)]
    assert carry(there, here, 1.3) == []


def test_an_idle_link_carries_a_ping_every_few_seconds_and_a_silent_peer_is_given_up() -> None:
    here, there = session_pair(now=100.0)
    now, pinged = 100.0, []
    while now < 130.0:
        now = here.next_deadline()
        assert here.tick(now) == []
        if here.has_outgoing:
            pinged.append(now)
            carry(here, there, now + 0.1)
            assert carry(there, here, now + 0.2) == [RttMeasured(seconds=pytest.approx(0.2))]
    assert pinged[0] - 100.0 <= IDLE_PING_S
    assert {b - a for a, b in pairwise(pinged)} == {IDLE_PING_S}
    heard = pinged[-1] + 0.2
    while here.closed is None:
        now = here.next_deadline()
        events = here.tick(now)
        here.outgoing()
    assert events == [Closed(reason="silent")]
    assert now == pytest.approx(heard + DEAD_AFTER_S)
    assert here.tick(now + 20) == []
    assert here.closed == "silent"


def test_who_only_receives_says_that_it_is_there() -> None:
    """A long transfer over a slow line: a ping of its sender would wait in line behind it, and so would the answer."""
    sender, receiver = session_pair(now=0.0)
    stream = sender.open_stream(1, b"", b"first")
    carry(sender, receiver, 0.0)
    told: list[float] = []
    for step in range(1, 41):
        now = step / 2
        sender.send(stream, 1, b"", b"more")
        carry(sender, receiver, now)  # never idle, and never answered
        receiver.tick(now)
        if receiver.has_outgoing:
            told.append(now)
            carry(receiver, sender, now)
        assert sender.tick(now) == []
    assert max(b - a for a, b in pairwise([0.0, *told, 20.0])) <= IDLE_PING_S


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


def test_large_memory_stays_between_looks_and_goes_with_the_last_session(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SpareMemory()
    for module in (session, streams):
        monkeypatch.setattr(module, "spare_memory", memory)
    here, there = session_pair()
    for now in (2.0, 4.0, 6.0):
        here.open_stream(1, b"", bytes(2 * streams.LARGE_BYTES), last=True)
        carry(here, there, now)
        for side in (here, there):  # one after the other, at the same moment
            side.tick(now)
            assert len(memory._spares) == 1
    here.close("done")
    assert len(memory._spares) == 1
    there.close("done")
    assert memory._spares == []
