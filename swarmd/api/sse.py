"""Server-sent events: `data:` lines over one long reply. The socket's own pace is the backpressure."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from aiohttp import web

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would otherwise hold tokens back until its buffer is full
}


STALLED_S: Final = 600.0
"""For the socket's buffers to get room. As long a stage waits for its next step: a client that reads nothing must not keep
its place among those that are served."""
SILENT_S: Final = 15.0  # proxies wait for a minute; of their usual deadlines 30 s is the shortest


def frame(name: str, event: Any) -> bytes:
    """One JSON value as one event with a name."""
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"


class EventStream:
    """A begun reply. Writing to a client that went away cancels the handler (see `server`); writing to one that reads
    nothing for `STALLED_S` closes its connection and raises ConnectionResetError."""

    def __init__(
        self, response: web.StreamResponse, transport: asyncio.Transport | None, *, error_name: str = ""
    ) -> None:
        self.response, self._transport, self._error_name = response, transport, error_name
        self._wrote, self._torn = 0, False

    @classmethod
    async def open(cls, request: web.Request, headers: Mapping[str, str], *, error_name: str = "") -> EventStream:
        response = web.StreamResponse(headers={**HEADERS, **headers})
        await response.prepare(request)
        return cls(response, request.transport, error_name=error_name)

    async def send(self, event: Any, name: str = "") -> None:
        """One JSON value as one event, with the name of its kind where a contract has one. Returns when the socket's buffer
        has room again."""
        await self._write(frame(name, event) if name else b"data: " + msgspec.json.encode(event) + b"\n\n")

    async def comment(self) -> None:
        """A line that every reader skips: proxies close what is silent."""
        await self._write(b": \n\n")

    @asynccontextmanager
    async def kept_alive(self, beat: Callable[[], Awaitable[None]]) -> AsyncGenerator[None]:
        """`beat` whenever nothing was written for `SILENT_S` within the block."""
        fault: Exception | None = None
        async with asyncio.TaskGroup() as group:
            beats = group.create_task(self._beats(beat))
            try:
                yield
            except Exception as caught:  # noqa: BLE001 - raised below: out of the group, which would wrap it
                fault = caught
            finally:
                beats.cancel()
        if fault is not None:
            raise fault

    async def _beats(self, beat: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(ConnectionError):  # whoever writes next notices too
            while True:
                wrote = self._wrote
                await asyncio.sleep(SILENT_S)
                if wrote == self._wrote:
                    await beat()

    async def write(self, data: bytes) -> None:
        """Events that are ready, as `frame` makes them, or a piece of somebody else's. Returns as `send` does."""
        self._torn = not data.endswith((b"\n\n", b"\r\n\r\n"))
        await self._write(data)

    async def done(self) -> None:
        """The end as the OpenAI contract marks it."""
        await self._write(b"data: [DONE]\n\n")
        await self.response.write_eof()

    async def fail(self, error: Any) -> None:
        """The stream ends with an error instead: there is no status to change any more. Where half an event was written, an
        empty line ends it first: it is no event to a reader."""
        if self._torn:
            await self._write(b"\n\n")
        await self.send(error, self._error_name)
        await self.response.write_eof()

    async def finish(self) -> None:
        """Where the contract marks no end: the last event says what became of it."""
        await self.response.write_eof()

    async def _write(self, data: bytes) -> None:
        self._wrote += 1
        try:
            async with asyncio.timeout(STALLED_S):
                await self.response.write(data)
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()
            raise ConnectionResetError(f"the client read nothing for {STALLED_S:.0f} s") from None
