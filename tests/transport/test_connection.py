"""The edges of a connection's life: before start, at the end, under backpressure, after a stuck loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from swarmd.domain.peers import Purpose
from swarmd.transport.connection import Connection
from swarmd.transport.loopback import LoopbackHub
from swarmd.wire.events import Closed, MessageReceived, SessionEvent, StreamOpened
from tests.transport.nodes import Node, nodes

pytestmark = pytest.mark.looptime


@asynccontextmanager
async def raw_pair(hub: LoopbackHub) -> AsyncIterator[tuple[Connection, Connection]]:
    """Two connections that nobody has started."""
    async with nodes("ab", hub=hub) as (a, b):
        accepted: list[Connection] = []

        def take(connection: Connection) -> None:
            accepted.append(connection)

        b.doors._on_connection = take
        connection = await dialled(a, b)
        await asyncio.sleep(0.1)
        try:
            yield connection, accepted[0]
        finally:
            connection.close()
            accepted[0].close()


async def dialled(a: Node, b: Node) -> Connection:
    connection = await a.doors.dial(b.endpoint, expect=None, purpose=Purpose.CONTROL)
    assert isinstance(connection, Connection)
    return connection


def closed(events: list[SessionEvent]) -> list[str]:
    return [event.reason for event in events if isinstance(event, Closed)]


async def test_nothing_is_read_before_start_and_nothing_is_lost() -> None:
    async with raw_pair(LoopbackHub()) as (here, there):
        here.start(lambda event: None)
        here.open_stream(1, b"early")
        await asyncio.sleep(1)
        assert there.bytes_in == 0
        got: list[SessionEvent] = []
        there.start(got.append)
        await asyncio.sleep(1)
        assert [type(event) for event in got] == [StreamOpened]
        with pytest.raises(AssertionError, match="one sink"):
            there.start(got.append)


async def test_closed_is_said_once_and_with_the_reason() -> None:
    async with raw_pair(LoopbackHub()) as (here, there):
        ours: list[SessionEvent] = []
        theirs: list[SessionEvent] = []
        here.start(ours.append)
        there.start(theirs.append)
        waiting = asyncio.create_task(there.wait_closed())
        here.close("enough")
        here.close("twice")
        await asyncio.sleep(5)
        assert closed(ours) == ["enough"]
        assert closed(theirs) == ["the peer said goodbye (0): enough"]
        assert await waiting == there.closed == closed(theirs)[0]
        assert here.closed == await here.wait_closed() == "enough"


async def test_a_connection_lost_before_start_is_closed_at_start() -> None:
    hub = LoopbackHub()
    async with raw_pair(hub) as (here, there):
        hub.cut("a", "b")
        await asyncio.sleep(0.1)
        assert "broke: cut" in await here.wait_closed()
        got: list[SessionEvent] = []
        here.start(got.append)
        assert len(closed(got)) == 1
        there.close()


async def test_an_end_of_file_without_goodbye_is_noticed() -> None:
    async with raw_pair(LoopbackHub()) as (here, there):
        got: list[SessionEvent] = []
        here.start(got.append)
        there._transport.close()
        await asyncio.sleep(0.1)
        assert closed(got) == ["the peer hung up"]


async def test_goodbye_leaves_even_when_the_transport_is_full() -> None:
    hub = LoopbackHub(bytes_per_s=1_000_000)
    async with raw_pair(hub) as (here, there):
        got: list[SessionEvent] = []
        here.start(lambda event: None)
        there.start(got.append)
        for _ in range(4):
            here.open_stream(1, b"", bytes(1_000_000))
        assert here._paused
        assert here._session.has_outgoing
        here.close("enough")
        await asyncio.sleep(5)
        assert closed(got) == ["the peer said goodbye (0): enough"]


async def test_what_waits_in_memory_is_bounded() -> None:
    hub = LoopbackHub(bytes_per_s=10_000_000)
    async with raw_pair(hub) as (here, there):
        got: list[SessionEvent] = []
        here.start(lambda event: None)
        there.start(got.append)
        numbers = [here.open_stream(1, b"", bytes(1_000_000)) for _ in range(20)]
        assert here._transport.get_write_buffer_size() < 1_000_000
        assert here.pending(numbers[-1])
        await asyncio.sleep(3)
        assert sum(isinstance(event, StreamOpened) for event in got) == 20
        assert not here.pending(numbers[-1])


async def test_a_stuck_loop_is_not_taken_for_a_silent_peer() -> None:
    async with raw_pair(LoopbackHub()) as (here, there):
        got: list[SessionEvent] = []
        here.start(got.append)
        there.start(lambda event: None)
        await asyncio.sleep(1)
        here._session._heard -= 60
        here._tick(here._clock.ticks() - 30)  # the timer comes 30 s late
        assert closed(got) == []
        there.ping()
        await asyncio.sleep(1)
        assert closed(got) == []
        here._session._heard -= 60
        here._tick(here._clock.ticks())
        assert closed(got) == ["silent"]


async def test_what_an_event_sends_goes_out_at_once() -> None:
    async with raw_pair(LoopbackHub()) as (here, there):
        got: list[bytes] = []

        def answer(event: SessionEvent) -> None:
            if isinstance(event, StreamOpened):
                there.consumed(event.stream, event.message.cost)
                there.send(event.stream, 2, b"answer", last=True)

        def take(event: SessionEvent) -> None:
            if isinstance(event, MessageReceived):
                got.append(bytes(event.message.meta))

        here.start(take)
        there.start(answer)
        here.open_stream(1, b"question", last=True)
        await asyncio.sleep(0.1)
        assert got == [b"answer"]
        assert here.bytes_out == there.bytes_in > 0
