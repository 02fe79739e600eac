"""Server-sent events: `data:` lines over one long reply. The socket's own pace is the backpressure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would otherwise hold tokens back until its buffer is full
}


class EventStream:
    """A begun reply. Writing to a client that went away cancels the handler (see `server`)."""

    def __init__(self, response: web.StreamResponse) -> None:
        self.response = response

    @classmethod
    async def open(cls, request: web.Request, headers: Mapping[str, str]) -> EventStream:
        response = web.StreamResponse(headers={**HEADERS, **headers})
        await response.prepare(request)
        return cls(response)

    async def send(self, event: Any) -> None:
        """One JSON value as one event. Returns when the socket's buffer has room again."""
        await self.response.write(b"data: " + msgspec.json.encode(event) + b"\n\n")

    async def done(self) -> None:
        """The end as the OpenAI contract marks it."""
        await self.response.write(b"data: [DONE]\n\n")
        await self.response.write_eof()

    async def fail(self, error: Any) -> None:
        """The stream ends with an error instead: there is no status to change any more."""
        await self.send(error)
        await self.response.write_eof()
