"""An HTTP proxy on the loopback: CONNECT, and plain requests with a whole address in their first line."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

PIECE = 64 << 10


class Proxy:
    """Counts what goes through it. `dead`: it ends every connection at once. `closed`: it refuses tunnels."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        """First lines."""
        self.tried = 0
        self.heads: list[bytes] = []
        self.dead = self.closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._one(reader, writer)
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request for each connection: what follows goes the same way unread."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.tried += 1
        if self.dead:
            return
        self.heads.append(head)
        line, rest = head.split(b"\r\n", 1)
        self.seen.append(line.decode())
        method, address, version = line.decode().split(" ")
        if method == "CONNECT" and self.closed:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        if method == "CONNECT":
            host, port = address.rsplit(":", 1)
            other_reader, other = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            parts = urlsplit(address)
            assert parts.hostname is not None
            other_reader, other = await asyncio.open_connection(parts.hostname, parts.port or 80)
            path = address.split(parts.netloc, 1)[1] or "/"  # byte for byte
            rest = b"\r\n".join(one for one in rest.split(b"\r\n") if not one.lower().startswith(b"proxy-"))
            other.write(f"{method} {path} {version}\r\nConnection: close\r\n".encode() + rest)
        try:
            await asyncio.gather(_pump(reader, other), _pump(other_reader, writer))
        finally:
            other.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(PIECE):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
