"""What a handler receives and what it may answer with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from swarmd.api.sse import EventStream
from swarmd.domain.ids import ModelId, RequestId, ShardRef

NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, as far as the rim knows."""

    address: str
    """IP address of the other end of the socket; empty when the socket is already gone."""
    local: bool
    """On this machine, and not through a proxy that says it forwards for somebody."""
    keyed: bool
    """Showed the API key."""
    known_host: bool
    """Named us in `Host` by an address that is really ours (DNS rebinding cannot)."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One request that passed the guard. Path parameters and the body have been checked against the row."""

    request: web.Request
    request_id: RequestId
    caller: Caller
    now: float
    """Unix seconds, read once at the door."""
    path: Mapping[str, str]
    """Path parameters, as text."""
    body: Any = None
    """An instance of the row's request type; None when it has none."""
    stream: EventStream | None = field(default=None, init=False)
    """Set by `open_stream`: from then on errors go into the stream."""

    @property
    def model(self) -> ModelId:
        return ModelId(self.path["model"])

    @property
    def shard(self) -> ShardRef:
        return ShardRef(self.model, int(self.path["index"]))

    async def open_stream(self, headers: Mapping[str, str] = NO_HEADERS, *, error_name: str = "") -> EventStream:
        """Send the head of a reply of server-sent events. `error_name`: of the event that says why it ended early."""
        self.stream = await EventStream.open(self.request, headers, error_name=error_name)
        return self.stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A body with something beside it. A handler that needs neither status nor headers returns the body itself."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Encoded:
    """A JSON body that is ready to be sent."""

    data: bytes


Handler = Callable[[Call], Awaitable[Any]]
"""Answers a struct (or a list of them), that `Encoded`, a `Reply`, a `Refusal`, an `EventStream` or an aiohttp response."""

Elsewhere = Callable[[Call, bytes], Handler | None]
"""Of a call and its body as it came: who answers in place of the row's handler; None: the handler does."""
