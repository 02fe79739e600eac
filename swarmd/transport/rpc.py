"""Calls and streams over a connection, and who answers them.

A call is one message each way on a stream of its own. Cancelling the caller resets the stream, and a reset cancels the
handler at the other end; so does a lost link. A refusal travels as the message `Refused` and comes back as a value; what
breaks comes as `LinkLost` or `StreamReset`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, assert_never

from swarmd.domain.ids import NodeId, short
from swarmd.domain.peers import PeerIdentity
from swarmd.domain.refusals import Refusal
from swarmd.transport.connection import Connection
from swarmd.transport.stream import LinkLost, Received, ResetCode, Stream, StreamReset
from swarmd.wire import events
from swarmd.wire.frames import Message, Payload
from swarmd.wire.messages import CODES, MessageError, Refused, decode, encode

__all__ = [
    "Dispatcher",
    "Link",
    "LinkLost",
    "Received",
    "Reply",
    "ResetCode",
    "Spawn",
    "Stream",
    "StreamReset",
    "WithPayload",
]

logger = logging.getLogger(__name__)

M = TypeVar("M")
R = TypeVar("R")

Spawn = Callable[..., "asyncio.Task[Any]"]
"""`spawn(coroutine, name=...)`: `kit.service.Supervisor.spawn`."""


@dataclass(frozen=True, slots=True)
class Reply(Generic[R]):
    """The answer to a call."""

    message: R
    payload: memoryview
    """Read-only; stays valid as long as it is referenced."""


@dataclass(frozen=True, slots=True)
class WithPayload:
    """What a handler answers when raw bytes go with its message. The buffers must not change until they are written."""

    message: object
    payload: Payload


Answer = Callable[[M, memoryview, PeerIdentity], Awaitable[object]]
"""`await answer(request, payload, peer)` → a message, a WithPayload, or a Refusal."""

Serve = Callable[[M, memoryview, Stream], Awaitable[None]]
"""`await serve(first message, its payload, stream)`; when it returns, our direction ends, and the credit of the first
message goes back."""

Accept = Callable[[M, memoryview, Stream], None]
"""`accept(first message, its payload, stream)`, called within the event that opened the stream; keeps the stream, and not
the payload: its credit goes back at once."""


class Dispatcher:
    """Which message is handled by whom. Filled by `app` before the doors open, shared by all links.

    `payload_limit`: the most bytes of payload that come with the message; with more its stream is reset before they are
    read. What follows on the stream is bounded by its credit.
    """

    def __init__(self) -> None:
        self._answers: dict[int, Answer[Any]] = {}
        self._serves: dict[int, Serve[Any]] = {}
        self._accepts: dict[int, Accept[Any]] = {}
        self._payload_limits: dict[int, int] = {}

    def answer(self, request: type[M], handler: Answer[M], *, payload_limit: int = 0) -> None:
        """One reply for one request."""
        self._answers[self._free(request, payload_limit)] = handler

    def serve(self, first: type[M], handler: Serve[M], *, payload_limit: int = 0) -> None:
        """A stream that begins with this message, handled by a task."""
        self._serves[self._free(first, payload_limit)] = handler

    def accept(self, first: type[M], handler: Accept[M], *, payload_limit: int = 0) -> None:
        """A stream that begins with this message, handled by callbacks: no task, no switch (hot path)."""
        self._accepts[self._free(first, payload_limit)] = handler

    def unwanted(self, code: int, payload_bytes: int) -> tuple[ResetCode, str] | None:
        """Why nobody takes such a first message, with how its stream is reset; None when somebody does."""
        if self.find(code) == (None, None, None):
            return ResetCode.UNKNOWN_MESSAGE, f"nobody handles code {code} here"
        limit = self._payload_limits[code]
        if payload_bytes > limit:
            return ResetCode.BAD_MESSAGE, f"code {code} comes with {limit} bytes at most, not {payload_bytes}"
        return None

    def find(self, code: int) -> tuple[Answer[Any] | None, Serve[Any] | None, Accept[Any] | None]:
        """One of the three is set, unless the message is `unwanted`."""
        return self._answers.get(code), self._serves.get(code), self._accepts.get(code)

    def _free(self, cls: type[Any], payload_limit: int) -> int:
        code = CODES[cls]
        assert self.find(code) == (None, None, None), f"{cls.__name__} has a handler"
        self._payload_limits[code] = payload_limit
        return code


class Link:
    """All calls and streams of one connection. Made around a connection from the doors, which it starts."""

    def __init__(self, connection: Connection, *, dispatcher: Dispatcher, spawn: Spawn) -> None:
        self.connection = connection
        self._dispatcher = dispatcher
        self._spawn = spawn
        self._streams: dict[int, Stream] = {}
        self._tasks: dict[int, asyncio.Task[Any]] = {}
        connection.start(self._event, unwanted=dispatcher.unwanted)

    def __repr__(self) -> str:
        return f"<Link over {self.connection!r}>"

    @property
    def node(self) -> NodeId:
        return self.connection.node

    @property
    def peer(self) -> PeerIdentity:
        return self.connection.peer

    @property
    def streams(self) -> int:
        """In progress, both sides'."""
        return len(self._streams)

    @property
    def closed(self) -> str | None:
        """Why the link is over; None while it is not."""
        return self.connection.closed

    async def wait_closed(self) -> str:
        """Returns why, when the link is over."""
        return await self.connection.wait_closed()

    def close(self, reason: str = "closing") -> None:
        """Says goodbye; every stream fails with LinkLost, every handler is cancelled."""
        self.connection.close(reason)

    def open(self, message: object, payload: Payload = b"", *, last: bool = False) -> Stream:
        """A stream that begins with this message. Raises LinkLost, TooManyStreams, ValueError (size)."""
        code, meta = encode(message)
        try:
            number = self.connection.open_stream(code, meta, payload, last=last)
        except events.StreamGone as error:
            raise LinkLost(str(error)) from error
        stream = Stream(self.connection, number, forget=self._forget)
        # No await since open_stream: nothing can have arrived for it yet.
        if self.connection.closed is not None:
            stream.fail(LinkLost(self.connection.closed))
        else:
            self._streams[number] = stream
        return stream

    async def call(self, request: object, reply: type[R], *, payload: Payload = b"", timeout_s: float) -> Reply[R] | Refused:
        """Sends a request and waits for its one reply.

        Raises TimeoutError, LinkLost, TooManyStreams, or StreamReset (also for a reply of another class). Cancelling this,
        or its timeout, cancels the handler at the other end.
        """
        stream = self.open(request, payload, last=True)
        try:
            async with asyncio.timeout(timeout_s):
                received = await stream.receive()
        finally:
            if self._streams.get(stream.number) is stream:  # else the reply was the end of it
                stream.reset(ResetCode.CANCELLED)
            stream.drop_inbox()
        if received is None:
            raise StreamReset(ResetCode.BAD_MESSAGE, "the stream ended without a reply")
        if isinstance(received.message, Refused):
            return received.message
        if not isinstance(received.message, reply):
            raise StreamReset(ResetCode.BAD_MESSAGE, f"{type(received.message).__name__} is not {reply.__name__}")
        return Reply(received.message, received.payload)

    # ---- events of the connection

    def _event(self, event: events.SessionEvent) -> None:
        match event:
            case events.MessageReceived():
                stream = self._streams.get(event.stream)
                if stream is None:
                    self.connection.consumed(event.stream, event.message.cost)
                else:
                    stream.arrived(event.message)
            case events.StreamOpened(stream=number, message=message):
                self._opened(number, message)
            case events.StreamEnded(stream=number):
                if (stream := self._streams.get(number)) is not None:
                    stream.finished()
            case events.StreamOver(stream=number):
                self._streams.pop(number, None)
            case events.Writable(stream=number):
                if (stream := self._streams.get(number)) is not None:
                    stream.writable()
            case events.StreamReset(stream=number, code=code, text=text):
                self._broken(number, StreamReset(code, text))
            case events.Closed(reason=reason):
                for number in list(self._streams):
                    self._broken(number, LinkLost(reason))
            case events.RttMeasured():
                raise AssertionError("the connection keeps these")
            case _:
                assert_never(event)

    def _broken(self, number: int, failure: LinkLost | StreamReset) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.fail(failure)
        task = self._tasks.pop(number, None)
        if task is not None:
            task.cancel()
            if stream is not None:
                stream.drop_inbox()

    def _opened(self, number: int, message: Message) -> None:
        answer, serve, accept = self._dispatcher.find(message.code)
        try:
            first = decode(message.code, message.meta)
        except MessageError as error:
            self.connection.consumed(number, message.cost)
            self.connection.reset(number, ResetCode.BAD_MESSAGE, str(error))
            return
        stream = Stream(self.connection, number, forget=self._forget)
        self._streams[number] = stream
        if accept is not None:
            self.connection.consumed(number, message.cost)
            accept(first, message.payload, stream)
            return
        name = f"{type(first).__name__} from {short(self.node)}"
        if answer is not None:
            work = self._answer(answer, first, message.payload, stream)
        else:
            assert serve is not None, "one of the three"
            work = self._serve(serve, first, message.payload, stream)
        task = self._tasks[number] = self._spawn(work, name=name)
        # The handler has the payload while it waits, so the credit goes back afterwards. Not in a `finally` of the work: a
        # task that is cancelled before its first step never gets there.
        cost = message.cost
        task.add_done_callback(lambda _: self.connection.consumed(number, cost))

    async def _answer(self, handler: Answer[Any], request: object, payload: memoryview, stream: Stream) -> None:
        done = False
        try:
            result = await handler(request, payload, self.peer)
            await self._say(result, stream)
            done = True
        finally:
            self._handled(stream, done=done)

    async def _say(self, result: object, stream: Stream) -> None:
        try:
            if isinstance(result, Refusal):
                await stream.send(Refused(kind=type(result).__name__, sentence=result.sentence), last=True)
            elif isinstance(result, WithPayload):
                await stream.send(result.message, result.payload, last=True)
            else:
                await stream.send(result, last=True)
        except (LinkLost, StreamReset) as error:
            logger.debug("the answer of %r found nobody: %s", stream, error)

    async def _serve(self, handler: Serve[Any], first: object, payload: memoryview, stream: Stream) -> None:
        done = False
        try:
            await handler(first, payload, stream)
            done = True
        except (LinkLost, StreamReset) as error:
            logger.debug("%r broke under its handler: %s", stream, error)
        finally:
            self._handled(stream, done=done)

    def _handled(self, stream: Stream, *, done: bool) -> None:
        """The handler is through: end the stream, or tell the peer that nothing will come."""
        self._tasks.pop(stream.number, None)
        if done:
            stream.end()
        else:
            stream.reset(ResetCode.FAILED, "the handler failed")
        self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        if self._streams.get(stream.number) is stream:
            del self._streams[stream.number]
        stream.drop_inbox()
