"""What a line of the benchmarks' proxy does to bytes; namespaces, which need root, are not made here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest

from bench.delay import Cut, Line, _End, _Pipe

LATE_S = 0.02


class Wire:
    """The two outer ends of a pipe."""

    def __init__(self, line: Line, near: socket.socket, far: socket.socket) -> None:
        self.line, self.near, self.far = line, near, far

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.near, data)

    async def receive(self, count: int) -> bytes:
        loop, got = asyncio.get_running_loop(), b""
        async with asyncio.timeout(5):
            while len(got) < count and (data := await loop.sock_recv(self.far, count - len(got))):
                got += data
        return got


@contextlib.asynccontextmanager
async def wire(line: Line) -> AsyncIterator[Wire]:
    near, inner_near = _pair()
    far, inner_far = _pair()
    one, two = _End(line), _End(line)
    _Pipe(line, one, two)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: two, sock=inner_far)
    await loop.create_connection(lambda: one, sock=inner_near)
    try:
        yield Wire(line, near, far)
    finally:
        line.break_(Cut.RESET)
        await asyncio.sleep(0)
        near.close()
        far.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    """Of TCP, which socketpair is not."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        one = socket.create_connection(listener.getsockname())
        two, _ = listener.accept()
    for end in (one, two):
        end.setblocking(False)
    return one, two


async def test_bytes_are_late_and_in_order() -> None:
    async with wire(Line(LATE_S)) as through:
        began = time.perf_counter()
        for piece in (b"a" * 1000, b"b" * 200_000, b"c"):
            await through.send(piece)
        assert await through.receive(201_001) == b"a" * 1000 + b"b" * 200_000 + b"c"
        assert time.perf_counter() - began >= LATE_S
        assert through.line.carried_bytes == 201_001


async def test_a_silent_line_swallows_and_resets_what_lost_bytes_when_it_is_mended() -> None:
    async with wire(Line()) as through:
        await through.send(b"heard")
        assert await through.receive(5) == b"heard"
        through.line.break_(Cut.SILENT)
        await through.send(b"lost")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2 * LATE_S):
                await through.receive(1)
        through.line.mend()
        with pytest.raises(ConnectionResetError):
            await through.receive(1)


async def test_a_reset_line_says_so_at_once() -> None:
    async with wire(Line(LATE_S)) as through:
        await through.send(b"on its way")
        through.line.break_(Cut.RESET)
        with pytest.raises(ConnectionResetError):
            await through.receive(1)


async def test_an_end_arrives_behind_the_last_bytes() -> None:
    async with wire(Line(LATE_S)) as through:
        await through.send(b"last words")
        through.near.close()
        assert await through.receive(100) == b"last words"


@pytest.mark.parametrize("delay_s", [0.0, LATE_S])
async def test_a_pipe_whose_both_ends_have_ended_is_gone(delay_s: float) -> None:
    """Whoever kills nodes for an hour has no descriptors left otherwise."""
    async with wire(Line(delay_s)) as through:
        await through.send(b"last words")
        through.near.shutdown(socket.SHUT_WR)
        assert await through.receive(10) == b"last words"
        assert await through.receive(1) == b"", "the end comes through"
        assert through.line.pipes, "the other direction goes on"
        await asyncio.get_running_loop().sock_sendall(through.far, b"answer")
        through.far.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(5):
            assert await asyncio.get_running_loop().sock_recv(through.near, 100) == b"answer"
            while through.line.pipes:
                await asyncio.sleep(0.001)
