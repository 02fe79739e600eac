"""A stream over a carrier made of lists."""

from __future__ import annotations

import asyncio

import pytest

from swarmd.domain.ids import NodeId
from swarmd.domain.peers import PeerIdentity, Purpose
from swarmd.transport.stream import LinkLost, Received, ResetCode, Stream, StreamReset
from swarmd.wire.events import StreamGone
from swarmd.wire.frames import Message, Payload
from swarmd.wire.messages import encode
from swarmd.wire.noise import Buffer
from tests.transport.nodes import Step

pytestmark = pytest.mark.looptime


class Carrier:
    """Remembers what it was told; `full` makes every message pending."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.credit = 0
        self.full = False
        self.gone = False

    @property
    def peer(self) -> PeerIdentity:
        return PeerIdentity(node=NodeId("a" * 64), purpose=Purpose.CONTROL, software="")

    def send(self, stream: int, code: int, meta: Buffer, payload: Payload = b"", *, last: bool = False) -> bool:
        if self.gone:
            raise StreamGone("over")
        if self.full:
            return False
        self.log.append(f"send {bytes(meta).hex()} {last}")
        return True

    def pending(self, stream: int) -> bool:
        return self.full

    def end(self, stream: int) -> None:
        self.log.append("end")

    def reset(self, stream: int, code: int, text: str = "") -> None:
        self.log.append(f"reset {code} {text}")

    def consumed(self, stream: int, cost: int) -> None:
        self.credit += cost


def step(position: int, payload: bytes = b"") -> Message:
    code, meta = encode(Step(position))
    return Message(code, memoryview(meta), memoryview(payload), 100)


def made() -> tuple[Stream, Carrier, list[Stream]]:
    carrier = Carrier()
    forgotten: list[Stream] = []
    return Stream(carrier, 7, forget=forgotten.append), carrier, forgotten


async def test_messages_come_in_order_then_the_end() -> None:
    stream, carrier, _ = made()
    stream.arrived(step(1, b"payload"))
    stream.arrived(step(2))
    stream.finished()
    received = await stream.receive()
    assert received == Received(Step(1), memoryview(b"payload"))
    assert carrier.credit == 100
    assert await stream.receive() == Received(Step(2), memoryview(b""))
    assert await stream.receive() is None
    assert await stream.receive() is None


async def test_a_waiting_reader_is_woken() -> None:
    for what, expected in (("arrived", Received(Step(1), memoryview(b""))), ("finished", None)):
        stream, _, _ = made()
        reader = asyncio.create_task(stream.receive())
        await asyncio.sleep(1)
        with pytest.raises(AssertionError, match="has a reader"):
            await stream.receive()
        stream.arrived(step(1)) if what == "arrived" else stream.finished()
        assert await reader == expected


async def test_messages_before_a_failure_are_still_received() -> None:
    stream, _, _ = made()
    stream.arrived(step(1))
    stream.fail(LinkLost("cut"))
    stream.fail(StreamReset(1, "too late to matter"))
    assert await stream.receive() == Received(Step(1), memoryview(b""))
    with pytest.raises(LinkLost, match="cut"):
        await stream.receive()
    with pytest.raises(LinkLost):
        stream.send_now(Step(1))
    with pytest.raises(LinkLost):
        await stream.drain()
    assert not stream.pending


async def test_senders_wait_while_a_message_is_pending() -> None:
    stream, carrier, _ = made()
    assert stream.send_now(Step(1))
    carrier.full = True
    assert not stream.send_now(Step(2))
    senders = [asyncio.create_task(stream.send(Step(index))) for index in (2, 3)]
    gives_up = asyncio.create_task(stream.drain())
    await asyncio.sleep(1)
    assert len(carrier.log) == 1
    gives_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gives_up
    carrier.full = False
    stream.writable()
    await asyncio.gather(*senders)
    assert carrier.log == ["send 9101 False", "send 9102 False", "send 9103 False"]


async def test_a_failure_wakes_senders() -> None:
    stream, carrier, _ = made()
    carrier.full = True
    sender = asyncio.create_task(stream.send(Step(1)))
    await asyncio.sleep(1)
    stream.fail(StreamReset(ResetCode.FAILED, "gone"))
    with pytest.raises(StreamReset, match="failed: gone"):
        await sender


async def test_what_the_session_refuses_is_a_reset() -> None:
    stream, carrier, _ = made()
    carrier.gone = True
    with pytest.raises(StreamReset, match="over"):
        stream.send_now(Step(1))


async def test_reset_forgets_once() -> None:
    stream, carrier, forgotten = made()
    stream.reset(9, "enough")
    stream.reset(9, "enough")
    stream.end()
    assert carrier.log == ["reset 9 enough"]
    assert forgotten == [stream]
    assert str(stream.failure) == "reset code 9: enough"


async def test_leaving_the_block_gives_everything_back() -> None:
    stream, carrier, forgotten = made()
    async with stream:
        stream.arrived(step(1))
        stream.arrived(step(2))
    assert carrier.credit == 200
    assert carrier.log == ["reset 1 "]
    assert forgotten == [stream]


async def test_bad_messages_reset_the_stream() -> None:
    stream, carrier, _ = made()
    stream.arrived(Message(61003, memoryview(b"\xc0"), memoryview(b""), 100))
    with pytest.raises(StreamReset, match="bad message"):
        await stream.receive()
    assert carrier.log[0].startswith(f"reset {ResetCode.BAD_MESSAGE}")
    assert carrier.credit == 100


async def test_callbacks_get_what_is_here_and_what_comes() -> None:
    stream, carrier, _ = made()
    got: list[object] = []
    ends: list[object] = []
    stream.arrived(step(1))
    stream.on_message(lambda message, payload: got.append(message), ends.append)
    assert got == [Step(1)]
    stream.arrived(step(2))
    assert got == [Step(1), Step(2)]
    assert carrier.credit == 200
    with pytest.raises(AssertionError, match="read by a callback"):
        await stream.receive()
    with pytest.raises(AssertionError, match="has a callback"):
        stream.on_message(lambda message, payload: None, ends.append)
    stream.finished()
    stream.fail(LinkLost("after the end"))
    assert ends == [None]


async def test_a_callback_may_reset_and_then_hears_no_more() -> None:
    stream, carrier, _ = made()
    got: list[object] = []
    ends: list[object] = []

    def once(message: object, payload: memoryview) -> None:
        got.append(message)
        stream.reset()

    for position in range(3):
        stream.arrived(step(position))
    stream.on_message(once, ends.append)
    assert got == [Step(0)]
    assert [type(end) for end in ends] == [StreamReset]
    assert carrier.credit == 300


async def test_bad_messages_end_the_callbacks() -> None:
    stream, _, _ = made()
    ends: list[object] = []
    stream.on_message(lambda message, payload: pytest.fail("nothing was good"), ends.append)
    stream.arrived(Message(60999, memoryview(b""), memoryview(b""), 100))
    stream.arrived(step(1))
    assert [type(end) for end in ends] == [StreamReset]
