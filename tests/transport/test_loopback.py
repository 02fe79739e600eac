"""The loopback network behaves as TCP does, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from swarmd.domain.peers import Endpoint
from swarmd.transport.loopback import LoopbackHub, MemoryTransport
from swarmd.transport.rpc import Stream
from tests.transport.nodes import Echo, Echoed, Step, echo, nodes

pytestmark = pytest.mark.looptime


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_latency_is_one_way() -> None:
    hub = LoopbackHub(latency_s=0.1)
    async with nodes("ab", hub=hub) as (a, b):
        b.dispatcher.answer(Echo, echo)
        link = await a.link_to(b)
        begin = now()
        await link.call(Echo(text=""), Echoed, timeout_s=5)
        assert now() - begin == pytest.approx(0.2)
        hub.change("a", "b", latency_s=0.5)
        begin = now()
        await link.call(Echo(text=""), Echoed, timeout_s=5)
        assert now() - begin == pytest.approx(1.0)


async def test_bandwidth_and_backpressure() -> None:
    hub = LoopbackHub(bytes_per_s=1_000_000)
    async with nodes("ab", hub=hub) as (a, b):

        async def pour(first: Echo, payload: memoryview, stream: Stream) -> None:
            for index in range(10):
                await stream.send(Step(index), bytes(1_000_000))

        b.dispatcher.serve(Echo, pour)
        link = await a.link_to(b)
        begin = now()
        async with link.open(Echo(text=""), last=True) as stream:
            assert await stream.receive() is not None
            waiting = b.links[0].connection._transport.get_write_buffer_size()
            assert 0 < waiting < 1_000_000  # 10 MB are to be sent
            while await stream.receive() is not None:
                pass
        assert now() - begin == pytest.approx(10, rel=0.02)


async def test_one_address_one_listener_and_refused_connections() -> None:
    hub = LoopbackHub()
    hub.listen(Endpoint("a", 1), asyncio.Protocol)
    with pytest.raises(OSError, match="in use"):
        hub.listen(Endpoint("a", 1), asyncio.Protocol)
    listener = await hub.network("b").listen(asyncio.Protocol, Endpoint("0.0.0.0", 7))
    assert listener.endpoint == Endpoint("b", 7)
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        await hub.network("a").connect(asyncio.Protocol, Endpoint("b", 7))


class Recorder(asyncio.Protocol):
    def __init__(self) -> None:
        self.got = b""
        self.log: list[str] = []
        self.transport: MemoryTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, MemoryTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data

    def eof_received(self) -> bool:
        self.log.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.log.append(f"lost {type(exc).__name__}")

    def pause_writing(self) -> None:
        self.log.append("pause")

    def resume_writing(self) -> None:
        self.log.append("resume")


async def connected(hub: LoopbackHub) -> tuple[Recorder, Recorder]:
    here, there = Recorder(), Recorder()
    hub.listen(Endpoint("b", 1), lambda: there)
    await hub.network("a").connect(lambda: here, Endpoint("b", 1))
    return here, there


async def test_what_was_written_arrives_before_the_end() -> None:
    here, there = await connected(LoopbackHub(latency_s=1))
    here.transport.writelines([b"last ", b"words"])
    here.transport.close()
    here.transport.write(b"too late")
    assert here.transport.is_closing()
    await asyncio.sleep(2)
    assert there.got == b"last words"
    assert there.log == ["eof", "lost NoneType"]
    assert here.log == ["lost NoneType"]


async def test_a_reader_that_pauses_makes_the_writer_pause() -> None:
    here, there = await connected(LoopbackHub())
    there.transport.pause_reading()
    here.transport.set_write_buffer_limits(high=1000, low=100)
    for _ in range(10):
        here.transport.write(bytes(100_000))
    await asyncio.sleep(1)
    assert (there.got, here.log) == (b"", ["pause"])
    there.transport.resume_reading()
    await asyncio.sleep(1)
    assert len(there.got) == 1_000_000
    assert here.log == ["pause", "resume"]


async def test_abort_loses_both_ends() -> None:
    here, there = await connected(LoopbackHub())
    here.transport.write(b"never arrives")
    here.transport.abort()
    here.transport.abort()
    await asyncio.sleep(1)
    assert here.log == ["lost NoneType"]
    assert (there.got, there.log) == (b"", ["lost ConnectionResetError"])


async def test_under_a_partition_nobody_hears_of_the_end() -> None:
    hub = LoopbackHub()
    here, there = await connected(hub)
    hub.partition("a", "b")
    here.transport.write(b"hello")
    here.transport.abort()
    await asyncio.sleep(100)
    assert there.log == []


async def test_connection_state_of_two_nodes_is_shared() -> None:
    hub = LoopbackHub(latency_s=0.25)
    assert hub.conditions("a", "b") is hub.conditions("b", "a")
    assert hub.conditions("a", "b").latency_s == 0.25
