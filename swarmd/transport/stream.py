"""One stream of a link, as the application sees it: messages in order, both ways, until an end.

Two ways to take messages, one for each stream: `receive` waits for the next one; `on_message` is called for each within the
event that brought it, without a task switch, which is what a decode step at a hop needs. Credit goes back to the peer when a
message has been taken, so a slow consumer slows its own stream down and nothing else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from swarmd.domain.peers import PeerIdentity
from swarmd.transport.foreign_text import WITH_SENTENCES, cleaned, cleaned_message
from swarmd.wire.events import StreamGone
from swarmd.wire.frames import Message, Payload
from swarmd.wire.messages import MessageError, decode, encode
from swarmd.wire.noise import Buffer


class LinkLost(Exception):  # a failure of the world, named after what happened
    """The connection under the stream is over."""


class StreamReset(Exception):
    """The stream was given up, by the peer or by us."""

    def __init__(self, code: int, text: str) -> None:
        text = cleaned(text)  # the peer's own words, or what a decoder says about its bytes
        super().__init__(f"{_name(code)}: {text}" if text else _name(code))
        self.code = code
        self.text = text


class ResetCode(IntEnum):
    """Why a stream was given up."""

    CANCELLED = 1
    FAILED = 2
    UNKNOWN_MESSAGE = 3
    BAD_MESSAGE = 4


def _name(code: int) -> str:
    return ResetCode(code).name.lower().replace("_", " ") if code in tuple(ResetCode) else f"reset code {code}"


@dataclass(frozen=True, slots=True)
class Received:
    """One message off a stream."""

    message: object
    payload: memoryview
    """Read-only; stays valid as long as it is referenced."""


class Carrier(Protocol):
    """What a stream needs of its connection; `transport.connection.Connection` is one."""

    @property
    def peer(self) -> PeerIdentity: ...

    def send(self, stream: int, code: int, meta: Buffer, payload: Payload = b"", *, last: bool = False) -> bool: ...

    def pending(self, stream: int) -> bool: ...

    def end(self, stream: int) -> None: ...

    def reset(self, stream: int, code: int, text: str = "") -> None: ...

    def consumed(self, stream: int, cost: int) -> None: ...


MessageCallback = Callable[[object, memoryview], None]
EndCallback = Callable[["LinkLost | StreamReset | None"], None]


class Stream:
    """See the module. Made by `transport.rpc.Link`."""

    __slots__ = (
        "_carrier",
        "_ended",
        "_failure",
        "_forget",
        "_inbox",
        "_on_end",
        "_on_message",
        "_on_writable",
        "_reader",
        "_writers",
        "number",
    )

    def __init__(self, carrier: Carrier, number: int, *, forget: Callable[[Stream], None]) -> None:
        """`forget` is called when we gave the stream up."""
        self._carrier = carrier
        self._forget = forget
        self.number = number
        self._inbox: deque[Message] = deque()  # bounded by the credit of the stream
        self._reader: asyncio.Future[None] | None = None
        self._writers: list[asyncio.Future[None]] = []
        self._on_message: MessageCallback | None = None
        self._on_end: EndCallback | None = None
        self._on_writable: Callable[[], None] | None = None
        self._ended = False
        self._failure: LinkLost | StreamReset | None = None

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leaving the block gives the stream up, unless both directions have ended."""
        self.reset(ResetCode.CANCELLED)
        self.drop_inbox()

    def __repr__(self) -> str:
        return f"<Stream {self.number} of {self._carrier!r}>"

    @property
    def peer(self) -> PeerIdentity:
        return self._carrier.peer

    @property
    def failure(self) -> LinkLost | StreamReset | None:
        """Why nothing can be sent or received any more; None while it can."""
        return self._failure

    @property
    def pending(self) -> bool:
        """The last message is not written yet: its buffers are still in use, and the next one would have to wait."""
        return self._failure is None and self._carrier.pending(self.number)

    # ---- sending

    def send_now(self, message: object, payload: Payload = b"", *, last: bool = False) -> bool:
        """Sends without waiting; False, with nothing done, while an earlier message is pending.

        Raises LinkLost, StreamReset, or ValueError above the size limits.
        """
        if self._failure is not None:
            raise self._failure
        code, meta = encode(message)
        try:
            return self._carrier.send(self.number, code, meta, payload, last=last)
        except StreamGone as error:
            raise StreamReset(ResetCode.CANCELLED, str(error)) from error

    async def send(self, message: object, payload: Payload = b"", *, last: bool = False) -> None:
        """Sends as soon as the message before is written. Raises as `send_now` does.

        When it returns, the buffers of `payload` may still be in use: see `pending` and `drain`.
        """
        while not self.send_now(message, payload, last=last):
            await self.drain()

    async def drain(self) -> None:
        """Returns when nothing is pending. Raises LinkLost or StreamReset."""
        while self.pending:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._writers.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._writers:
                    self._writers.remove(waiter)
        if self._failure is not None:
            raise self._failure

    def on_writable(self, callback: Callable[[], None]) -> None:
        """Calls `callback` when a message is written that was `pending`, or kept `send_now` from sending. It may send."""
        self._on_writable = callback

    def end(self) -> None:
        """We send nothing more; what was sent still arrives, and the peer may go on sending."""
        if self._failure is None:
            self._carrier.end(self.number)

    def reset(self, code: int = ResetCode.CANCELLED, text: str = "") -> None:
        """Gives the stream up in both directions. Nothing happens when it is over already."""
        if self._failure is None:
            self._carrier.reset(self.number, code, text)
            self.fail(StreamReset(code, text))
            self._forget(self)

    # ---- receiving

    async def receive(self) -> Received | None:
        """The next message; None at the end of the peer's direction.

        Raises LinkLost or StreamReset; messages that came before are returned first. One reader at a time.
        """
        assert self._on_message is None, "this stream is read by a callback"
        assert self._reader is None, "this stream has a reader"
        while not self._inbox:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._take(self._inbox.popleft())

    def on_message(self, callback: MessageCallback, on_end: EndCallback) -> None:
        """Calls `callback(message, payload)` for every message, at once; what is here already, now.

        `on_end` is called once: with None at the end of the peer's direction, else with the failure. Neither may raise or
        take long: they run in the event that read the socket. They may send, end and reset.
        """
        assert self._on_message is None, "this stream has a callback"
        self._on_message = callback
        self._on_end = on_end
        while self._inbox:
            self._call(self._inbox.popleft())
        self._tell_end()

    # ---- from the link

    def arrived(self, message: Message) -> None:
        """The link has a message for us."""
        if self._on_message is not None:
            self._call(message)
            return
        self._inbox.append(message)
        self._wake_reader()

    def finished(self) -> None:
        """The peer's direction has ended."""
        self._ended = True
        self._wake_reader()
        self._tell_end()

    def writable(self) -> None:
        """What was pending is written."""
        self._wake_writers()
        if self._on_writable is not None:
            self._on_writable()

    def fail(self, failure: LinkLost | StreamReset) -> None:
        """Nothing can be sent or received any more. The first failure is the one that is kept."""
        if self._failure is not None:
            return
        self._failure = failure
        self._wake_reader()
        self._wake_writers()
        self._tell_end()

    def drop_inbox(self) -> None:
        """Nobody will read: give the credit of what is here back."""
        while self._inbox:
            self._carrier.consumed(self.number, self._inbox.popleft().cost)

    def _take(self, message: Message) -> Received:
        self._carrier.consumed(self.number, message.cost)
        return Received(self._decoded(message), message.payload)

    def _call(self, message: Message) -> None:
        assert self._on_message is not None, "only with a callback"
        if self._failure is None:  # a reset by the callback itself ends its calls
            try:
                decoded = self._decoded(message)
            except StreamReset:
                decoded = None  # `on_end` has been told
            if decoded is not None:
                self._on_message(decoded, message.payload)
        self._carrier.consumed(self.number, message.cost)

    def _decoded(self, message: Message) -> object:
        try:
            decoded = decode(message.code, message.meta)
        except MessageError as error:
            self.reset(ResetCode.BAD_MESSAGE, str(error))
            raise StreamReset(ResetCode.BAD_MESSAGE, str(error)) from error
        return cleaned_message(decoded) if message.code in WITH_SENTENCES else decoded

    def _wake_writers(self) -> None:
        for waiter in self._writers:
            if not waiter.done():
                waiter.set_result(None)

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _tell_end(self) -> None:
        if self._on_end is None or (self._failure is None and not self._ended):
            return
        on_end, self._on_end = self._on_end, None
        on_end(None if self._ended else self._failure)
