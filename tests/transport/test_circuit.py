"""A relayed byte stream behaves as the transport of a socket: order, back pressure, an end that loses nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.ids import NodeId
from swarmd.domain.peers import PeerIdentity, Purpose
from swarmd.transport.circuit import _HIGH_WATER, _UNREAD_LIMIT, CircuitTransport
from swarmd.transport.stream import LinkLost, Stream
from swarmd.wire.circuits import MAX_CIRCUIT_BYTES, CircuitBytes, CircuitOpen
from swarmd.wire.frames import Message
from swarmd.wire.messages import Refused, encode

VIA = NodeId("ab" * 32)


class Line:
    """A connection with one stream that takes messages only while it is `open`."""

    def __init__(self) -> None:
        self.peer = PeerIdentity(node=VIA, purpose=Purpose.CONTROL, software="t/1")
        self.open = True
        self.sent: list[bytes] = []
        self.ended = False
        self.was_reset = False
        self.returned = 0
        self.stream = Stream(self, 1, forget=lambda stream: None)

    def send(self, stream: int, code: int, meta: Any, payload: Any = b"", *, last: bool = False) -> bool:
        if self.open:
            self.sent.append(bytes(payload))
        return self.open

    def pending(self, stream: int) -> bool:
        return not self.open

    def end(self, stream: int) -> None:
        self.ended = True

    def reset(self, stream: int, code: int, text: str = "") -> None:
        self.was_reset = True

    def consumed(self, stream: int, cost: int) -> None:
        self.returned += cost

    def opens(self) -> None:
        self.open = True
        self.stream.writable()

    def brings(self, message: object, payload: bytes = b"") -> None:
        code, meta = encode(message)
        self.stream.arrived(Message(code, memoryview(meta), memoryview(payload), len(payload)))


class Recorder(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.events: list[str] = []
        self.error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self.events.append("eof")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.error = exc


async def begun() -> tuple[Line, CircuitTransport, Recorder]:
    line, protocol = Line(), Recorder()
    transport = CircuitTransport(line.stream, via=VIA)
    transport.begin(protocol)
    return line, transport, protocol


async def test_bytes_leave_at_once_and_arrive_in_order() -> None:
    line, transport, protocol = await begun()
    transport.write(b"one")
    transport.writelines([b"two", memoryview(b"three")])
    assert b"".join(line.sent) == b"onetwothree"
    for part in (b"a", b"b", b"c"):
        line.brings(CircuitBytes(), part)
    assert protocol.data == b"abc"
    assert transport.get_extra_info("via") == VIA and transport.get_extra_info("socket") is None
    assert transport.get_extra_info("peername")[0].startswith("relay-")


async def test_a_writer_is_paused_while_the_line_takes_nothing_and_goes_on_after() -> None:
    line, transport, protocol = await begun()
    line.open = False
    transport.write(bytes(_HIGH_WATER))
    assert protocol.events == ["made"]
    transport.write(b"x")
    assert protocol.events == ["made", "pause"]
    assert transport.get_write_buffer_size() == _HIGH_WATER + 1
    line.opens()
    assert protocol.events == ["made", "pause", "resume"]
    assert sum(map(len, line.sent)) == _HIGH_WATER + 1 and transport.get_write_buffer_size() == 0


async def test_what_was_written_before_the_close_still_leaves() -> None:
    line, transport, protocol = await begun()
    line.open = False
    transport.write(b"last words")
    transport.close()
    transport.write(b"too late")
    await asyncio.sleep(0)
    assert not line.ended and "lost" not in protocol.events
    line.opens()
    await asyncio.sleep(0)
    assert line.sent == [b"last words"] and line.ended
    assert protocol.events[-1] == "lost" and protocol.error is None


async def test_the_end_comes_after_everything_before_it_even_when_reading_is_paused() -> None:
    line, transport, protocol = await begun()
    transport.pause_reading()
    line.brings(CircuitBytes(), b"unread")
    line.stream.finished()
    await asyncio.sleep(0)
    assert protocol.data == b"" and protocol.events == ["made"]
    transport.resume_reading()
    for _ in range(3):
        await asyncio.sleep(0)
    assert protocol.data == b"unread" and protocol.events == ["made", "eof", "lost"] and line.ended


@pytest.mark.parametrize("how", ["refused", "lost", "other message"])
async def test_a_relay_that_gives_up_is_a_lost_connection_with_its_reason(how: str) -> None:
    line, _, protocol = await begun()
    match how:
        case "refused":
            line.brings(Refused(kind="Busy", sentence="no more circuits"))
        case "lost":
            line.stream.fail(LinkLost("the cable"))
        case _:
            line.brings(CircuitOpen())
    await asyncio.sleep(0)
    assert protocol.events[-1] == "lost"
    assert isinstance(protocol.error, ConnectionResetError)
    expected = {"refused": "no more circuits", "lost": "the cable", "other message": "CircuitOpen"}[how]
    assert expected in str(protocol.error)


async def test_who_is_not_read_cannot_fill_the_memory() -> None:
    line, transport, protocol = await begun()
    transport.pause_reading()
    for _ in range(_UNREAD_LIMIT // 65536 + 1):
        line.brings(CircuitBytes(), bytes(65536))
    await asyncio.sleep(0)
    assert line.was_reset and protocol.events[-1] == "lost" and protocol.data == b""


async def test_an_abort_resets_the_stream_and_is_told_once() -> None:
    line, transport, protocol = await begun()
    transport.abort()
    transport.abort()
    line.stream.fail(LinkLost("later"))
    await asyncio.sleep(0)
    assert line.was_reset and protocol.events == ["made", "lost"]


@given(st.lists(st.tuples(st.binary(max_size=2000), st.booleans()), max_size=30))
def test_whatever_the_line_takes_when_the_bytes_are_the_same(writes: list[tuple[bytes, bool]]) -> None:
    async def scene() -> None:
        line, transport, _ = await begun()
        for data, opens in writes:
            transport.write(data)
            line.open = False
            if opens:
                line.opens()
        line.opens()
        transport.close()
        assert b"".join(line.sent) == b"".join(data for data, _ in writes)
        assert line.ended

    asyncio.run(scene())


async def test_bytes_that_come_after_we_closed_are_not_kept_and_the_stream_is_given_up() -> None:
    line, transport, protocol = await begun()
    transport.close()
    await asyncio.sleep(0)
    for _ in range(20):
        line.brings(CircuitBytes(), bytes(65536))
    assert transport._unread_bytes == 0 and protocol.data == b""
    assert line.returned == 20 * 65536, "the credit goes back, else the far side could not end"


@pytest.mark.looptime
async def test_a_far_side_that_never_ends_its_direction_loses_the_stream() -> None:
    line, transport, _ = await begun()
    transport.close()
    await asyncio.sleep(9)
    assert not line.was_reset
    await asyncio.sleep(2)
    assert line.was_reset


async def test_more_at_once_than_a_relay_need_hold_breaks_the_circuit() -> None:
    line, _, protocol = await begun()
    line.brings(CircuitBytes(), bytes(MAX_CIRCUIT_BYTES + 1))
    await asyncio.sleep(0)
    assert line.was_reset and protocol.events[-1] == "lost" and protocol.data == b""
