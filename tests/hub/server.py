"""HTTP/1.1 on plain sockets: bodies of files go out with sendfile, and every byte of a reply is ours to spoil.

One task for each connection, requests one after another. Everything has an end: connections, heads, bodies, idle time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Awaitable, Callable

from tests.hub.counters import Counters, Request
from tests.hub.messages import MOST_HEAD_BYTES, BadRequest, Exchange, Origin, Reply, head_of, parse_head, refuses

MOST_CONNECTIONS = 512  # of one origin at once; who comes later is turned away
MOST_BODY_BYTES = 1 << 20  # of a request: lists of paths, rules of faults
IDLE_SECONDS = 60.0  # for the next request on a connection, and for each piece of one
SEE_OFF_SECONDS = 1.0  # for the other side to end a connection that was refused
RECEIVE_BYTES = 64 << 10
SENDFILE_BYTES = 8 << 20  # at once; the kernel takes what its buffer has room for
MADE_BYTES = 1 << 20  # of a content that is made in memory, at once

Handler = Callable[[Exchange], Awaitable[Reply]]


class Gone(Exception):
    """The other side has ended the connection."""


class Server:
    """One origin: a port that is listened on, and its connections."""

    def __init__(self, origin: Origin, handler: Handler, counters: Counters) -> None:
        self._origin: Origin = origin
        self._handler = handler
        self._counters = counters
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # at most MOST_CONNECTIONS and one that accepts

    def listen(self, host: str, port: int) -> int:
        """Listen; port 0 takes a free one. Returns the port. Raises OSError where that cannot be."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(MOST_CONNECTIONS)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        self._listener = listener
        self._spawn(self._accept(listener))
        return listener.getsockname()[1]

    async def close(self) -> None:
        """Stop listening and end every connection, in the middle of a reply too."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED):
                    raise
                await asyncio.sleep(0.05)  # until a descriptor is free again
                continue
            if len(self._tasks) > MOST_CONNECTIONS:
                connection.close()
                continue
            self._spawn(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        self._counters.connected(self._origin)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await _Connection(connection, self._origin, self._handler, self._counters).run()
        except (Gone, OSError, TimeoutError):
            pass
        finally:
            self._counters.disconnected(self._origin)
            connection.close()


class _Connection:
    def __init__(self, connection: socket.socket, origin: Origin, handler: Handler, counters: Counters) -> None:
        self._socket = connection
        self._origin: Origin = origin
        self._handler = handler
        self._counters = counters
        self._buffer = b""
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        while True:
            try:
                exchange = await self._receive()
            except BadRequest as error:
                reply = refuses(error.status, str(error))
                await self._loop.sock_sendall(self._socket, head_of(reply, close=True) + reply.content.read(0, reply.stop))
                await self._see_off()
                return
            if exchange is None or not await self._answer(exchange):
                return

    async def _receive(self) -> Exchange | None:
        """The next request; none where the connection ended before one began."""
        end = self._buffer.find(b"\r\n\r\n")
        while end < 0:
            if len(self._buffer) > MOST_HEAD_BYTES:
                raise BadRequest(431, f"a head of more than {MOST_HEAD_BYTES} bytes")
            more = await self._more()
            if not more:
                return None
            self._buffer += more
            end = self._buffer.find(b"\r\n\r\n")
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        exchange = parse_head(head, self._origin)
        if "transfer-encoding" in exchange.headers:
            raise BadRequest(411, "a body without Content-Length")
        length = exchange.headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise BadRequest(400, "Content-Length is no number")
        if len(length) > 9 or int(length) > MOST_BODY_BYTES:
            raise BadRequest(413, f"a body of more than {MOST_BODY_BYTES} bytes")
        while len(self._buffer) < int(length):
            more = await self._more()
            if not more:
                return None
            self._buffer += more
        exchange.body, self._buffer = self._buffer[: int(length)], self._buffer[int(length) :]
        return exchange

    async def _more(self) -> bytes:
        async with asyncio.timeout(IDLE_SECONDS):
            return await self._loop.sock_recv(self._socket, RECEIVE_BYTES)

    async def _see_off(self) -> None:
        """Let the other side read the reply: to close with something unread would reset the connection under it."""
        self._socket.shutdown(socket.SHUT_WR)
        left = MOST_BODY_BYTES
        async with asyncio.timeout(SEE_OFF_SECONDS):
            while left > 0 and (more := await self._loop.sock_recv(self._socket, RECEIVE_BYTES)):
                left -= len(more)

    async def _answer(self, exchange: Exchange) -> bool:
        """Whether the connection may carry another request."""
        try:
            reply = await self._handler(exchange)
        except BadRequest as error:
            reply = refuses(error.status, str(error))
        except Exception as error:  # noqa: BLE001 - a bug of the hub: say so here, and answer the client
            self._loop.call_exception_handler({"message": f"the local hub failed at {exchange.path}", "exception": error})
            reply = refuses(500, "the local hub failed; see what it wrote")
        request = Request(
            origin=self._origin, kind=exchange.kind, method=exchange.method, path=exchange.path, label=exchange.label,
            range=exchange.headers.get("range"), user=exchange.user, start=reply.start, bulk=reply.bulk,
        )  # fmt: skip
        self._counters.began(request)
        try:
            return await self._send(exchange, reply, request)
        finally:
            request.ended = True

    async def _send(self, exchange: Exchange, reply: Reply, request: Request) -> bool:
        await self._pause(reply.delay)
        self._counters.answered(request, reply.status, exchange.faults)
        ends = reply.end_at is not None or exchange.headers.get("connection", "").lower() == "close"
        await self._loop.sock_sendall(self._socket, head_of(reply, close=ends and reply.end_at is None))
        if exchange.method != "HEAD" and reply.status != 304:
            stop = reply.size if reply.end_at is None else min(reply.size, reply.end_at)
            if reply.content.path is None:
                whole = await self._body(reply, request, stop, None)
            else:
                file = os.open(reply.content.path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    whole = await self._body(reply, request, stop, file)
                finally:
                    os.close(file)
            ends = ends or not whole
        if reply.reset:
            # No lingering: the kernel drops what it holds and sends a reset.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return not ends

    async def _body(self, reply: Reply, request: Request, stop: int, file: int | None) -> bool:
        """Send the first `stop` bytes of the body. Whether they were all there."""
        done, stall_at = 0, reply.stall_at
        while done < stop:
            if stall_at is not None and done >= stall_at:
                stall_at = None
                await self._pause(reply.stall_for)
            count = (stop if stall_at is None else min(stop, stall_at)) - done
            if reply.pace is not None:
                count = min(count, reply.pace.step)
                await self._pause(reply.pace.wait(count, self._loop.time()))
            if file is not None:
                sent = await self._sendfile(file, reply.start + done, min(count, SENDFILE_BYTES))
            else:
                data = reply.content.read(reply.start + done, min(count, MADE_BYTES))
                await self._loop.sock_sendall(self._socket, data)
                sent = len(data)
            if not sent:
                return False  # the file has become shorter
            done += sent
            self._counters.gave(request, sent)
            await asyncio.sleep(0)  # sending to a fast reader never waits: let the other connections have their turn
        return True

    async def _sendfile(self, file: int, offset: int, count: int) -> int:
        while True:
            try:
                return os.sendfile(self._socket.fileno(), file, offset, count)
            except BlockingIOError:
                await self._writable()

    async def _writable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        descriptor = self._socket.fileno()
        self._loop.add_writer(descriptor, wake)
        try:
            await ready
        finally:
            self._loop.remove_writer(descriptor)

    async def _pause(self, seconds: float) -> None:
        """Wait; raises Gone as soon as the other side ends the connection."""
        if seconds <= 0:
            return
        ended: asyncio.Future[None] = self._loop.create_future()
        descriptor = self._socket.fileno()

        def look() -> None:
            try:
                data = self._socket.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self._loop.remove_reader(descriptor)
            if not data and not ended.done():
                ended.set_result(None)

        self._loop.add_reader(descriptor, look)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await ended
                    raise Gone
        finally:
            self._loop.remove_reader(descriptor)
