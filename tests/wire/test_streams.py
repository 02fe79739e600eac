"""Streams from open to end, turns and credit, through two sessions."""

from __future__ import annotations

import os

import pytest

from swarmd.wire import streams
from swarmd.wire.events import (
    MessageReceived,
    StreamEnded,
    StreamGone,
    StreamOpened,
    StreamOver,
    StreamReset,
    TooManyStreams,
    Writable,
)
from swarmd.wire.frames import HEAD, HEADER, MAX_PAYLOAD, MESSAGE_COST, Kind, credit_frame, frame
from swarmd.wire.session import CONNECTION_WINDOW, MAX_PEER_STREAMS
from swarmd.wire.streams import STREAM_WINDOW
from tests.wire.sessions import Forger, carry, closed, messages, session_pair

BIG = os.urandom(MAX_PAYLOAD)
COST = MAX_PAYLOAD + MESSAGE_COST


def test_a_call_is_one_frame_each_way() -> None:
    here, there = session_pair()
    number = here.open_stream(5, b"question", last=True)
    assert number == 1
    events = carry(here, there)
    assert [type(event) for event in events] == [StreamOpened, StreamEnded]
    assert messages(events) == [(5, b"question", b"")]
    there.send(number, 6, b"answer", b"payload", last=True)
    events = carry(there, here)
    assert [type(event) for event in events] == [MessageReceived, StreamEnded, StreamOver]
    assert there.take_events() == [StreamOver(stream=number)]
    assert messages(events) == [(6, b"answer", b"payload")]
    assert (here.open_streams, there.open_streams) == (0, 0)


def test_numbers_are_odd_and_even() -> None:
    here, there = session_pair()
    assert [here.open_stream(1, b""), here.open_stream(1, b"")] == [1, 3]
    assert [there.open_stream(1, b""), there.open_stream(1, b"")] == [2, 4]
    assert len(messages(carry(here, there))) == len(messages(carry(there, here))) == 2


def test_large_messages_arrive_whole() -> None:
    here, there = session_pair()
    number = here.open_stream(1, bytes(70_000), BIG)
    assert here.pending(number)
    events = carry(here, there)
    assert messages(events) == [(1, bytes(70_000), BIG)]
    assert here.take_events() == [Writable(stream=number)]
    here.send(number, 2, b"", [BIG[:5], BIG[5:100_000]])
    assert messages(carry(here, there)) == [(2, b"", BIG[:100_000])]


def test_a_token_does_not_wait_behind_a_prefill() -> None:
    here, there = session_pair()
    bulk, token = here.open_stream(1, b"", BIG), here.open_stream(2, b"token")
    got = []
    for record in here.outgoing():
        got += messages(there.receive(record, 0.0))
    assert got == [(2, b"token", b"")]
    assert here.pending(bulk)
    assert not here.pending(token)


def test_ends_of_both_kinds() -> None:
    here, there = session_pair()
    number = here.open_stream(1, b"", BIG)
    here.end(number)  # while the message is on its way
    here.end(number)
    with pytest.raises(StreamGone):
        here.send(number, 1, b"")
    events = carry(here, there)
    assert [type(event) for event in events] == [StreamOpened, StreamEnded]
    there.end(number)
    assert there.take_events() == [StreamOver(stream=number)]
    assert carry(there, here)[-2:] == [StreamEnded(stream=number), StreamOver(stream=number)]
    assert (here.open_streams, there.open_streams) == (0, 0)
    with pytest.raises(StreamGone):
        there.send(number, 1, b"")


def test_reset_ends_both_directions_and_late_frames_are_fine() -> None:
    here, there = session_pair()
    number = here.open_stream(1, b"one")
    carry(here, there)
    here.send(number, 1, b"two")
    late = here.outgoing()
    there.reset(number, 9, "no more")
    there.reset(number, 9, "twice")
    assert carry(there, here) == [StreamReset(stream=number, code=9, text="no more")]
    for record in late:
        assert there.receive(record, 0.0) == []
    assert (here.open_streams, there.open_streams) == (0, 0)
    here.end(number)
    here.reset(number, 1)
    assert not here.has_outgoing
    assert there.closed is None


def test_reset_of_a_stream_nobody_heard_of_says_nothing() -> None:
    here, there = session_pair()
    number = here.open_stream(1, b"never mind")
    here.reset(number, 1)
    assert not here.has_outgoing
    assert here.open_stream(1, b"next") == number + 2
    assert messages(carry(here, there)) == [(1, b"next", b"")]


def test_reset_in_the_middle_of_a_message_returns_its_credit() -> None:
    here, there = session_pair()
    before = there._receive_credit
    for resetter in (here, there):
        for _ in range(12):  # 12 x 8 MiB is more than the window
            number = here.open_stream(1, b"", BIG)
            for record in here.outgoing():
                there.receive(record, 0.0)
            resetter.reset(number, 1)
            carry(here, there)
            carry(there, here)
    assert there.closed is None
    assert here.closed is None
    assert there._receive_credit + there._returned == before
    assert here._send_credit == there._receive_credit


@pytest.mark.parametrize("size", [1, 100_000, MAX_PAYLOAD])
def test_no_memory_is_taken_for_an_unwanted_first_message(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = session_pair()
    before = there._receive_credit
    there.screen(lambda code, payload_bytes: (9, "not that much") if code == 7 and payload_bytes else None)
    monkeypatch.setattr(streams, "_memory", lambda size: pytest.fail(f"{size} bytes"))
    number = here.open_stream(7, b"meta", BIG[:size], last=True)
    assert carry(here, there) == []
    assert carry(there, here) == [StreamReset(stream=number, code=9, text="not that much")]
    assert (here.open_streams, there.open_streams) == (0, 0)
    here.open_stream(7, b"meta")
    assert messages(carry(here, there)) == [(7, b"meta", b"")]
    assert there._receive_credit + there._returned == before


def test_without_credit_a_message_waits_and_the_next_is_refused() -> None:
    here, there = session_pair()
    number = here.open_stream(1, b"", BIG)
    first = carry(here, there, consume=False)
    here.send(number, 1, b"", BIG)
    second = carry(here, there, consume=False)
    here.send(number, 1, b"", bytes(STREAM_WINDOW - 2 * COST - 512))  # the rest of the window
    second += carry(here, there, consume=False)
    assert len(messages(second)) == 2
    here.take_events()
    here.send(number, 3, b"third")
    assert here.pending(number)
    assert not here.has_outgoing
    assert not here.send(number, 4, b"fourth")
    for event in first + second:
        if isinstance(event, (MessageReceived, StreamOpened)):
            there.consumed(number, event.message.cost)
    carry(there, here)
    assert messages(carry(here, there)) == [(3, b"third", b"")]
    assert Writable(stream=number) in here.take_events()


def test_the_connection_has_a_window_too_and_order_is_kept() -> None:
    here, there = session_pair()
    numbers = [here.open_stream(index, b"", BIG) for index in range(8)]  # 8 x (8 MiB + its cost) is just above 64 MiB
    small = here.open_stream(99, b"small")
    events = carry(here, there, consume=False)
    assert [code for code, _, _ in messages(events)] == list(range(7))
    assert here.pending(numbers[7])
    assert here.pending(small)
    for event in events:
        if isinstance(event, (MessageReceived, StreamOpened)):
            there.consumed(event.stream, event.message.cost)
    carry(there, here)
    assert sorted(code for code, _, _ in messages(carry(here, there))) == [7, 99]


def test_a_starved_message_that_is_reset_lets_the_next_one_pass() -> None:
    here, there = session_pair()
    numbers = [here.open_stream(index, b"", BIG) for index in range(8)]
    small = here.open_stream(99, b"small")
    carry(here, there, consume=False)
    here.reset(numbers[7], 1)
    assert messages(carry(here, there, consume=False)) == [(99, b"small", b"")]
    assert not here.pending(small)


def test_credit_flows_for_ever() -> None:
    here, there = session_pair()
    number = here.open_stream(1, b"")
    carry(here, there)
    for _ in range(40):
        here.send(number, 1, b"", BIG)
        assert len(messages(carry(here, there))) == 1
        carry(there, here)
    assert here.closed is None


def test_too_many_streams() -> None:
    here, there = session_pair()
    numbers = [here.open_stream(1, b"") for _ in range(MAX_PEER_STREAMS)]
    with pytest.raises(TooManyStreams):
        here.open_stream(1, b"")
    carry(here, there)
    there.reset(numbers[0], 1)
    carry(there, here)
    here.open_stream(1, b"")
    carry(here, there)
    assert there.closed is None
    forged = Forger()
    _, there = session_pair()
    opens = [frame(Kind.OPEN, stream=1 + 2 * index, payload=HEAD.pack(1, 0, 0, 0)) for index in range(MAX_PEER_STREAMS + 1)]
    assert "more than 256 streams" in closed(there.receive(forged(*opens), 0.0))


OPEN_1 = frame(Kind.OPEN, stream=1, payload=HEAD.pack(1, 0, 0, 0))
OPEN_3_PART = frame(Kind.OPEN, stream=3, payload=HEAD.pack(1, 1, 0, 100_000) + bytes(65507 - 12))


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([frame(Kind.OPEN, stream=2, payload=HEAD.pack(1, 0, 0, 0))], "cannot be opened"),
        ([OPEN_1, OPEN_1], "cannot be opened"),
        ([frame(Kind.DATA, stream=1, payload=b"x")], "never opened"),
        ([frame(Kind.DATA, stream=2, payload=b"x")], "never opened"),
        ([frame(Kind.END, stream=7)], "never opened"),
        ([frame(Kind.RESET, stream=7, payload=b"xx")], "never opened"),
        ([credit_frame(7, 1)], "never opened"),
        ([credit_frame(0, 1)], "never used"),
        ([OPEN_1, credit_frame(1, 1)], "never used"),
        ([OPEN_1, frame(Kind.DATA, stream=1, payload=b"x")], "no message"),
        ([OPEN_1, frame(Kind.END, stream=1), frame(Kind.END, stream=1)], "ends twice"),
        ([frame(Kind.OPEN, stream=1, payload=HEAD.pack(1, 0, 0, 9) + bytes(8))], "first frame"),
        ([frame(Kind.OPEN, stream=1, payload=HEAD.pack(1, 0, 0, 7) + bytes(8))], "first frame"),
        ([OPEN_3_PART, frame(Kind.DATA, stream=3, payload=b"x")], "asked for"),
        ([OPEN_3_PART, HEADER.pack(Kind.DATA, 1, 0, 3, 12) + HEAD.pack(1, 0, 0, 0)], "under way"),
        ([OPEN_3_PART, frame(Kind.END, stream=3)], "within a message"),
    ],
)
def test_broken_rules_close_the_session(frames: list[bytes], why: str) -> None:
    here, there = session_pair()
    events = there.receive(Forger()(*frames), 0.0)
    assert why in closed(events)
    assert there.closed is not None
    assert "goodbye (1)" in closed(carry(there, here))
    assert there.receive(b"more", 1.0) == []


def test_overrun_credit_closes_the_session() -> None:
    _, there = session_pair()
    forger = Forger()
    opens = [
        frame(Kind.OPEN, stream=1 + 2 * index, payload=HEAD.pack(1, 0, 0, MAX_PAYLOAD) + bytes(65507 - 12))
        for index in range(8)
    ]
    assert CONNECTION_WINDOW < 8 * COST
    assert "more than its credit" in closed(there.receive(forger(*opens), 0.0))
    _, there = session_pair()
    forger = Forger()
    assert 3 * COST > STREAM_WINDOW
    first = HEADER.pack(Kind.DATA, 1, 0, 1, 65507) + HEAD.pack(1, 0, 0, MAX_PAYLOAD) + bytes(65507 - 12)
    lengths = [min(65507, left) for left in range(MAX_PAYLOAD + 12 - 65507, 0, -65507)]
    rest = [frame(Kind.DATA, stream=1, payload=bytes(length)) for length in lengths]
    assert len(messages(there.receive(forger(OPEN_1, first, *rest, first, *rest), 0.0))) == 3
    assert "more than its credit" in closed(there.receive(forger(first), 0.0))
