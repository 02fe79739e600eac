"""Hostile frames from a peer with the right keys: no crash, no hang, nothing kept beyond the limits."""

from __future__ import annotations

import random
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.wire.events import MessageReceived, StreamOpened
from swarmd.wire.frames import HEAD, HEADER, MAX_MESSAGE, Kind, credit_frame, frame, reason_payload
from swarmd.wire.session import Session
from tests.wire.sessions import Forger, session_pair

SEEDS = [
    frame(Kind.OPEN, stream=1, payload=HEAD.pack(1, 0, 4, 8) + b"metapayload!"),
    frame(Kind.OPEN, stream=3, payload=HEAD.pack(1, 1, 4, 100_000) + bytes(65507 - 12)),
    HEADER.pack(Kind.DATA, 1, 0, 1, 20) + HEAD.pack(2, 0, 0, 8) + bytes(8),
    HEADER.pack(Kind.DATA, 0, 0, 3, 34509) + bytes(34509),
    frame(Kind.END, stream=1),
    frame(Kind.RESET, stream=1, payload=reason_payload(1, "no")),
    credit_frame(0, 1000),
    credit_frame(2, 1000),
    frame(Kind.PING, payload=bytes(8)),
    frame(Kind.PONG, payload=bytes(8)),
    frame(Kind.GOODBYE, payload=reason_payload(0, "bye")),
]


def feed(there: Session, data: bytes) -> None:
    """Whatever comes: events, or Closed and then nothing any more."""
    for event in there.receive(data, 0.0):
        if isinstance(event, (MessageReceived, StreamOpened)):
            assert event.message.cost <= MAX_MESSAGE
            there.consumed(event.stream, event.message.cost)
            if there.open_streams and event.stream % 3 == 0:
                there.reset(event.stream, 1)
    there.tick(1.0)
    for record in there.outgoing():
        assert len(record) <= 65537
    if there.closed is not None:
        assert there.receive(data, 1.0) == []


def mutated(chance: random.Random) -> bytes:
    data = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randint(0, 3)):
        at = chance.randrange(min(len(data), 32))
        match chance.randrange(5):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.choice((0, 1, 2, 255))
            case 2:
                del data[at:]
            case 3:
                data += chance.randbytes(chance.randint(1, 30))
            case _:
                data[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\0\0\0\0", b"\x01\0\0\0"))
        if not data:
            data = bytearray(b"\0")
    return bytes(data[:65519])


def test_ten_thousand_mutated_frames() -> None:
    chance = random.Random(7)
    frames = closed = 0
    tracemalloc.start()
    try:
        while frames < 10_000:
            _, there = session_pair()
            there.open_stream(1, b"ours")
            there.outgoing()
            forger = Forger()
            for _ in range(chance.randint(1, 12)):
                feed(there, forger(mutated(chance)))
                frames += 1
            closed += there.closed is not None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert closed > 500  # the mutations do bite
    assert peak < 4 * 1024 * 1024  # a head may announce 8 MiB, but memory is taken only for what has come


@settings(max_examples=300, deadline=None)
@given(plaintexts=st.lists(st.one_of(st.binary(max_size=64), st.sampled_from(SEEDS)), max_size=10))
def test_any_plaintext(plaintexts: list[bytes]) -> None:
    _, there = session_pair()
    feed(there, Forger()(*plaintexts))


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(st.binary(max_size=300), max_size=10))
def test_any_bytes(pieces: list[bytes]) -> None:
    _, there = session_pair()
    for piece in pieces:
        feed(there, piece)
