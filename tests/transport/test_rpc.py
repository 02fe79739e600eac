"""Calls, streams and handlers over real sockets on 127.0.0.1; time-dependent ones on the loopback network."""

from __future__ import annotations

import asyncio
import os

import pytest

from swarmd.domain.peers import PeerIdentity
from swarmd.domain.refusals import Busy
from swarmd.transport.loopback import LoopbackHub
from swarmd.transport.rpc import Link, LinkLost, ResetCode, Stream, StreamReset
from swarmd.wire import events
from swarmd.wire.frames import MAX_PAYLOAD, MESSAGE_COST, Message
from swarmd.wire.messages import Refused, encode
from swarmd.wire.session import CONNECTION_WINDOW
from tests.transport.nodes import Echo, Echoed, Step, Unhandled, echo, nodes, until


def held(link: Link) -> int:
    """Of the window of the connection, by messages that are not consumed."""
    session = link.connection._session
    return CONNECTION_WINDOW - session._receive_credit - session._returned


async def test_a_call_has_an_answer_and_leaves_nothing_behind() -> None:
    async with nodes("ab") as (a, b):
        b.dispatcher.answer(Echo, echo, payload_limit=300_000)
        link = await a.link_to(b)
        payload = os.urandom(300_000)
        reply = await link.call(Echo(text="hello"), Echoed, payload=payload, timeout_s=5)
        assert not isinstance(reply, Refused)
        assert reply.message == Echoed(text="hello")
        assert reply.payload == payload
        await until(lambda: b.links[0].connection._session.open_streams == 0)
        assert link.connection._session.open_streams == 0
        assert not link._streams and not b.links[0]._streams and not b.links[0]._tasks


@pytest.mark.looptime
async def test_what_handlers_wait_with_is_what_the_peer_may_make_us_hold() -> None:
    """Each has a payload of 8 MiB, and its credit came back before it had been handled."""
    doors_open = asyncio.Event()
    waiting = 0

    async def wait(request: Echo, payload: memoryview, peer: PeerIdentity) -> object:
        nonlocal waiting
        waiting += 1
        await doors_open.wait()
        waiting -= 1
        return Echoed(text=str(len(payload)))

    async with nodes("ab", hub=LoopbackHub(latency_s=0.001)) as (a, b):
        b.dispatcher.answer(Echo, wait, payload_limit=MAX_PAYLOAD)
        link = await a.link_to(b)
        asks = [link.call(Echo(text=""), Echoed, payload=bytes(MAX_PAYLOAD), timeout_s=100) for _ in range(12)]
        calls = [asyncio.create_task(ask) for ask in asks]
        await asyncio.sleep(10)
        assert waiting * MAX_PAYLOAD <= CONNECTION_WINDOW
        assert waiting == 7, "as many as go into the window"
        doors_open.set()
        replies = await asyncio.gather(*calls)
        assert all(not isinstance(reply, Refused) and reply.message.text == str(MAX_PAYLOAD) for reply in replies)
        await asyncio.sleep(1)
        assert held(b.links[0]) == 0


@pytest.mark.looptime
async def test_a_payload_that_does_not_belong_to_a_request_is_not_taken() -> None:
    asked = 0

    async def never(request: Echo, payload: memoryview, peer: PeerIdentity) -> object:
        nonlocal asked
        asked += 1
        return Echoed(text="")

    async with nodes("ab", hub=LoopbackHub(latency_s=0.001)) as (a, b):
        b.dispatcher.answer(Echo, never)
        b.dispatcher.answer(Step, echo_step, payload_limit=100)
        link = await a.link_to(b)
        for size in (1, 100_000, *([MAX_PAYLOAD] * 10)):
            with pytest.raises(StreamReset, match="comes with 0 bytes at most") as caught:
                await link.call(Echo(text=""), Echoed, payload=bytes(size), timeout_s=5)
            assert caught.value.code == ResetCode.BAD_MESSAGE
        with pytest.raises(StreamReset, match="comes with 100 bytes at most, not 101"):
            await link.call(Step(1), Step, payload=bytes(101), timeout_s=5)
        assert not isinstance(await link.call(Step(1), Step, payload=bytes(100), timeout_s=5), Refused)
        await asyncio.sleep(1)
        assert asked == 0 and held(b.links[0]) == 0 and not b.links[0]._streams


@pytest.mark.looptime
async def test_a_request_that_is_cancelled_before_its_handler_began_costs_nothing() -> None:
    began: list[object] = []

    async def begin(request: Echo, payload: memoryview, peer: PeerIdentity) -> object:
        began.append(request)
        return Echoed(text="")

    async with nodes("ab", hub=LoopbackHub(latency_s=0.001)) as (a, b):
        b.dispatcher.answer(Echo, begin)
        link = await a.link_to(b)
        await asyncio.sleep(1)
        number, (code, meta) = 1, encode(Echo(text=""))
        for event in (
            events.StreamOpened(stream=number, message=Message(code, memoryview(meta), memoryview(b""), 700)),
            events.StreamReset(stream=number, code=ResetCode.CANCELLED, text=""),
        ):
            b.links[0]._event(event)
        await asyncio.sleep(1)
        assert link.closed is None and not b.links[0]._tasks and not began
        assert held(b.links[0]) == -700, "it was given back, though it never came off the wire"


@pytest.mark.looptime
async def test_a_stream_that_lasts_keeps_of_the_window_what_its_first_message_took() -> None:
    async def read(first: Step, payload: memoryview, stream: Stream) -> None:
        while await stream.receive() is not None:
            pass

    async with nodes("ab", hub=LoopbackHub(latency_s=0.001)) as (a, b):
        b.dispatcher.serve(Step, read)
        link = await a.link_to(b)
        async with link.open(Step(0)) as stream:
            for position in range(1, 5):
                await stream.send(Step(position), bytes(MAX_PAYLOAD))
            await asyncio.sleep(10)
            assert not stream.pending
            assert 0 < held(b.links[0]) <= 2 * MESSAGE_COST
        await asyncio.sleep(1)
        assert held(b.links[0]) == 0


async def test_both_sides_may_call() -> None:
    async with nodes("ab") as (a, b):
        a.dispatcher.answer(Echo, echo)
        await a.link_to(b)
        await until(lambda: bool(b.links))
        reply = await b.links[0].call(Echo(text="back"), Echoed, timeout_s=5)
        assert not isinstance(reply, Refused)
        assert reply.message == Echoed(text="back")


async def test_a_refusal_comes_back_as_a_value() -> None:
    async def refuse(request: Echo, payload: memoryview, peer: PeerIdentity) -> object:
        return Busy(what=f"{peer.node[:1]} must wait")

    async with nodes("ab") as (a, b):
        b.dispatcher.answer(Echo, refuse)
        link = await a.link_to(b)
        assert await link.call(Echo(text=""), Echoed, timeout_s=5) == Refused(kind="Busy", sentence="a must wait")


async def test_what_breaks_comes_back_as_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: Echo, payload: memoryview, peer: PeerIdentity) -> object:
        raise RuntimeError("a bug")

    async with nodes("ab") as (a, b):
        b.dispatcher.answer(Echo, fail)
        link = await a.link_to(b)
        with pytest.raises(StreamReset) as caught:
            await link.call(Echo(text=""), Echoed, timeout_s=5)
        assert caught.value.code == ResetCode.FAILED
        with pytest.raises(StreamReset) as caught:
            await link.call(Unhandled(), Echoed, timeout_s=5)
        assert caught.value.code == ResetCode.UNKNOWN_MESSAGE
        assert "a bug" in caplog.text
        assert link.closed is None


async def test_a_reply_of_another_class_is_a_failure() -> None:
    async with nodes("ab") as (a, b):
        b.dispatcher.answer(Echo, echo)
        link = await a.link_to(b)
        with pytest.raises(StreamReset, match="Echoed is not Step"):
            await link.call(Echo(text=""), Step, timeout_s=5)


async def test_a_typed_part_that_is_not_what_its_code_says() -> None:
    async with nodes("ab") as (a, b):
        b.dispatcher.answer(Echo, echo)
        link = await a.link_to(b)
        number = link.connection.open_stream(61001, b"\xc0")
        stream = Stream(link.connection, number, forget=link._forget)
        link._streams[number] = stream
        with pytest.raises(StreamReset, match="bad message"):
            await stream.receive()


async def test_cancelling_a_call_cancels_the_handler_at_the_other_end() -> None:
    cancelled = asyncio.Event()
    started = asyncio.Event()

    async def never(request: Echo, payload: memoryview, peer: PeerIdentity) -> object:
        started.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()
        return None

    async with nodes("ab") as (a, b):
        b.dispatcher.answer(Echo, never)
        link = await a.link_to(b)
        for how in ("cancel", "timeout"):
            call = asyncio.create_task(link.call(Echo(text=""), Echoed, timeout_s=30 if how == "cancel" else 0.05))
            async with asyncio.timeout(5):
                await started.wait()
            if how == "cancel":
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            else:
                with pytest.raises(TimeoutError):
                    await call
            async with asyncio.timeout(5):
                await cancelled.wait()
            started.clear()
            cancelled.clear()
        assert not link._streams
        await until(lambda: not b.links[0]._streams and not b.links[0]._tasks)


async def test_a_lost_link_fails_calls_and_cancels_handlers() -> None:
    cancelled = asyncio.Event()

    async def never(request: Echo, payload: memoryview, peer: PeerIdentity) -> object:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()
        return None

    async with nodes("ab") as (a, b):
        b.dispatcher.answer(Echo, never)
        link = await a.link_to(b)
        call = asyncio.create_task(link.call(Echo(text=""), Echoed, timeout_s=30))
        await until(lambda: bool(b.links) and bool(b.links[0]._tasks))
        link.connection._transport.abort()
        with pytest.raises(LinkLost):
            await call
        async with asyncio.timeout(5):
            await cancelled.wait()
            await b.links[0].wait_closed()
        with pytest.raises(LinkLost):
            await link.call(Echo(text=""), Echoed, timeout_s=30)


async def test_goodbye_tells_why() -> None:
    async with nodes("ab") as (a, b):
        link = await a.link_to(b)
        await until(lambda: bool(b.links))
        link.close("shutting down")
        assert await link.wait_closed() == "shutting down"
        assert "shutting down" in await b.links[0].wait_closed()


async def test_a_hundred_streams_at_once() -> None:
    async def count(first: Step, payload: memoryview, stream: Stream) -> None:
        expected = first.position
        while (received := await stream.receive()) is not None:
            expected += 1
            assert received.message == Step(expected)
            await stream.send(received.message, received.payload)

    async with nodes("ab") as (a, b):
        b.dispatcher.serve(Step, count)
        link = await a.link_to(b)

        async def talk(begin: int) -> None:
            async with link.open(Step(begin)) as stream:
                for index in range(1, 11):
                    payload = os.urandom(index * 100)
                    await stream.send(Step(begin + index), payload)
                    received = await stream.receive()
                    assert received is not None
                    assert received.message == Step(begin + index)
                    assert received.payload == payload
                stream.end()
                assert await stream.receive() is None

        async with asyncio.timeout(20):
            await asyncio.gather(*[talk(1000 * index) for index in range(100)])
        await until(lambda: link.connection._session.open_streams == 0)
        await until(lambda: not link._streams and not b.links[0]._streams and not b.links[0]._tasks)


async def test_bulk_arrives_intact() -> None:
    chunk = os.urandom(8 * 1024 * 1024)

    async def send_all(first: Echo, payload: memoryview, stream: Stream) -> None:
        for index in range(8):
            await stream.send(Step(index), memoryview(chunk))

    async with nodes("ab") as (a, b):
        b.dispatcher.serve(Echo, send_all)
        link = await a.link_to(b)
        async with asyncio.timeout(30), link.open(Echo(text="all"), last=True) as stream:
            for index in range(8):
                received = await stream.receive()
                assert received is not None
                assert received.message == Step(index)
                assert received.payload == chunk
            assert await stream.receive() is None


async def test_a_slow_reader_slows_the_sender_down() -> None:
    sent = 0

    async def pour(first: Echo, payload: memoryview, stream: Stream) -> None:
        nonlocal sent
        while True:
            await stream.send(Step(sent), bytes(1024 * 1024))
            sent += 1

    async with nodes("ab") as (a, b):
        b.dispatcher.serve(Echo, pour)
        b.dispatcher.answer(Step, echo_step)
        link = await a.link_to(b)
        async with link.open(Echo(text="all")) as stream:
            await asyncio.sleep(0.3)
            before = sent
            assert before <= 20  # the window of the stream: 20 MiB
            held = sum(len(message.payload) for message in stream._inbox)
            assert held <= 20 * 1024 * 1024
            # Others are not slowed down.
            reply = await link.call(Step(5), Step, timeout_s=2)
            assert not isinstance(reply, Refused)
            for _ in range(15):
                assert await stream.receive() is not None
            await until(lambda: sent >= before + 10)
        await until(lambda: not b.links[0]._tasks)
        await until(lambda: link.connection._session.open_streams == 0)
        session = link.connection._session
        assert session._receive_credit + session._returned == 64 * 1024 * 1024


async def echo_step(request: Step, payload: memoryview, peer: PeerIdentity) -> object:
    return request


async def test_callbacks_run_within_the_event() -> None:
    """A relay: what comes from one link goes out on another without a task in between."""
    async with nodes("abc") as (a, b, c):
        b_to_c = await b.link_to(c)
        got: list[int] = []
        ends: list[object] = []

        def tail(first: Step, payload: memoryview, stream: Stream) -> None:
            got.append(first.position)
            stream.on_message(lambda message, payload: got.append(message.position), ends.append)  # type: ignore[attr-defined]

        def relay(first: Step, payload: memoryview, stream: Stream) -> None:
            onward = b_to_c.open(first, payload)

            def forward(message: object, payload: memoryview) -> None:
                assert onward.send_now(message, payload)

            def end(failure: object) -> None:
                onward.end()
                stream.end()

            stream.on_message(forward, end)

        b.dispatcher.accept(Step, relay)
        c.dispatcher.accept(Step, tail)
        link = await a.link_to(b)
        stream = link.open(Step(0))
        for position in range(1, 50):
            assert stream.send_now(Step(position), os.urandom(8192))
        stream.end()
        assert await stream.receive() is None
        await until(lambda: ends == [None])
        assert got == list(range(50))
        await until(lambda: not link._streams)
        assert not b.links[1]._streams


async def test_one_class_has_one_handler() -> None:
    async with nodes("b") as (b,):
        b.dispatcher.answer(Echo, echo)
        with pytest.raises(AssertionError, match="Echo has a handler"):
            b.dispatcher.answer(Echo, echo)


@pytest.mark.looptime
async def test_a_silent_peer_is_given_up_after_ten_seconds() -> None:
    hub = LoopbackHub(latency_s=0.01)
    async with nodes("ab", hub=hub) as (a, b):
        b.dispatcher.answer(Echo, echo)
        link = await a.link_to(b)
        await asyncio.sleep(100)
        assert link.closed is None
        assert link.connection.rtt_s == pytest.approx(0.02)
        hub.partition("a", "b")
        begin = asyncio.get_running_loop().time()
        with pytest.raises(LinkLost, match="silent"):
            await link.call(Echo(text="anybody?"), Echoed, timeout_s=60)
        assert 5 <= asyncio.get_running_loop().time() - begin <= 10.1


@pytest.mark.looptime
async def test_a_short_stall_is_survived() -> None:
    hub = LoopbackHub(latency_s=0.01)
    async with nodes("ab", hub=hub) as (a, b):
        b.dispatcher.answer(Echo, echo)
        link = await a.link_to(b)
        hub.partition("a", "b")
        call = asyncio.create_task(link.call(Echo(text="late"), Echoed, timeout_s=60))
        await asyncio.sleep(4)
        hub.heal("a", "b")
        reply = await call
        assert not isinstance(reply, Refused)
        assert reply.message == Echoed(text="late")


@pytest.mark.looptime
async def test_a_cut_is_noticed_at_once() -> None:
    hub = LoopbackHub(latency_s=0.01)
    async with nodes("ab", hub=hub) as (a, b):
        b.dispatcher.answer(Echo, echo)
        link = await a.link_to(b)
        call = asyncio.create_task(link.call(Echo(text="", wait_s=30), Echoed, timeout_s=60))
        await asyncio.sleep(1)
        begin = asyncio.get_running_loop().time()
        hub.cut("a", "b")
        with pytest.raises(LinkLost):
            await call
        assert asyncio.get_running_loop().time() == pytest.approx(begin)
