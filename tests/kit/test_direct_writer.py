from __future__ import annotations

import asyncio
import socket
from typing import cast

from swarmd.kit.direct_writer import DirectWriter


class _Recorder(asyncio.Protocol):
    """Reads nothing; remembers whether it was told to wait."""

    def __init__(self) -> None:
        self.paused = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set_result(None)


async def _pair() -> tuple[asyncio.Transport, _Recorder, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    transport, protocol = await asyncio.get_running_loop().create_unix_connection(_Recorder, sock=ours)
    return cast("asyncio.Transport", transport), protocol, theirs


async def test_bytes_are_in_the_socket_when_write_returns() -> None:
    transport, protocol, theirs = await _pair()
    with theirs:
        DirectWriter(transport).write((b"head", bytearray(b"body"), memoryview(b"tail")))
        theirs.setblocking(False)
        assert theirs.recv(100) == b"headbodytail"
        transport.close()
        await protocol.over


async def test_what_the_socket_does_not_take_arrives_in_order_and_holds_the_sender_back() -> None:
    transport, protocol, theirs = await _pair()
    with theirs:
        transport.set_write_buffer_limits(high=1000, low=100)
        writer = DirectWriter(transport)
        parts = [bytes([number]) * 100_000 for number in range(20)]
        writer.write([parts[0], b"", *parts[1:10]])
        for part in parts[10:]:
            writer.write((part,))
        assert protocol.paused
        arrived = await asyncio.to_thread(_read, theirs, 2_000_000)
        assert arrived == b"".join(parts)
        while protocol.paused:
            await asyncio.sleep(0)
        transport.close()
        await protocol.over


async def test_many_parts_go_through_the_transport() -> None:
    transport, protocol, theirs = await _pair()
    with theirs:
        parts = [b"%04d" % number for number in range(2000)]
        DirectWriter(transport).write(parts)
        assert await asyncio.to_thread(_read, theirs, 8000) == b"".join(parts)
        transport.close()
        await protocol.over


async def test_writing_to_a_peer_that_is_gone_is_the_transports_news() -> None:
    transport, protocol, theirs = await _pair()
    theirs.close()
    writer = DirectWriter(transport)
    writer.write((b"lost",))
    await protocol.over
    writer.write((b"lost",))  # the descriptor is closed and may be somebody else's: nothing may be written to it


def _read(end: socket.socket, size: int) -> bytes:
    end.settimeout(10)
    parts: list[bytes] = []
    while size:
        parts.append(end.recv(min(size, 1 << 16)))
        size -= len(parts[-1])
    return b"".join(parts)
