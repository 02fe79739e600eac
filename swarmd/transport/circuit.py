"""One end of a byte stream that a member relays, as a transport: doors, handshake and connection work over it as over a
socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from swarmd.domain.ids import NodeId, short
from swarmd.transport.stream import LinkLost, Stream, StreamReset
from swarmd.wire.circuits import MAX_CIRCUIT_BYTES, CircuitBytes
from swarmd.wire.messages import Refused

_LAST_S: Final = 10.0  # for the far side's end to come back; as long as a GOODBYE is waited for, and a slow line
_HIGH_WATER: Final = 256 * 1024
_UNREAD_LIMIT: Final = 1024 * 1024
"""A handshake reads nothing while it judges; meanwhile the far end may send what `wire.handshake` allows, which is half of
this. A connection always reads."""


class CircuitTransport(asyncio.Transport):
    """Over the stream of a circuit that is open. `begin` gives it its protocol."""

    def __init__(self, stream: Stream, *, via: NodeId) -> None:
        super().__init__()
        self._stream = stream
        self._via = via
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.Protocol | None = None
        self._reading = True
        self._unread: deque[bytes] = deque()  # at most _UNREAD_LIMIT bytes
        self._unread_bytes = 0
        self._end: LinkLost | StreamReset | None = None
        self._at_end = False
        """The stream is over on the far side, for `_end`; told once everything before it is read."""
        self._unsent = bytearray()  # bounded by the flow control of whoever writes
        self._high, self._low = _HIGH_WATER, _HIGH_WATER // 4
        self._writing_paused = False
        self._closing = False
        self._lost = False

    def begin(self, protocol: asyncio.Protocol) -> None:
        """From now on the protocol has the bytes."""
        assert self._protocol is None, "a transport begins once"
        self._protocol = protocol
        protocol.connection_made(self)
        self._stream.on_writable(self._send)
        self._stream.on_message(self._arrived, self._ended)

    # ---- asyncio.Transport

    def write(self, data: Any) -> None:
        if self._closing or self._lost:
            return
        self._unsent += data
        self._send()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = _HIGH_WATER if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        match name:
            case "peername":
                return (f"relay-{short(self._via)}", 0)
            case "via":
                return self._via
            case _:
                return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol), "a stream protocol"
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._running()

    def is_closing(self) -> bool:
        return self._closing or self._lost

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.call_soon(self._read)

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        """What was written still leaves."""
        if self._closing or self._lost:
            return
        self._closing = True
        if not self._unsent:
            self._finish()

    def abort(self) -> None:
        self._break_off(None)

    # ---- from the stream

    def _arrived(self, message: object, payload: memoryview) -> None:
        match message:
            case CircuitBytes() if self._lost:
                return  # we have closed, and the far side has not seen it yet
            case CircuitBytes():
                if len(payload) > MAX_CIRCUIT_BYTES:
                    self._break_off(ConnectionResetError(f"{len(payload)} bytes at once"))
                    return
                self._unread.append(bytes(payload))
                self._unread_bytes += len(payload)
                if self._unread_bytes > _UNREAD_LIMIT:
                    self._break_off(ConnectionResetError("more came than was asked for"))
                    return
                self._read()
            case Refused(sentence=sentence):
                self._break_off(ConnectionResetError(sentence))
            case _:
                self._break_off(ConnectionResetError(f"{type(message).__name__} on a circuit"))

    def _ended(self, failure: LinkLost | StreamReset | None) -> None:
        self._at_end, self._end = True, failure
        self._read()

    def _read(self) -> None:
        while self._reading and self._unread and not self._lost:
            data = self._unread.popleft()
            self._unread_bytes -= len(data)
            if not self._closing:
                self._running().data_received(data)
        if self._at_end and not self._unread and not self._lost:
            failure = self._end
            if failure is not None:
                self._break_off(ConnectionResetError(f"the relay {short(self._via)}: {failure}"))
            elif not self._running().eof_received():
                self.close()

    # ---- sending

    def _send(self) -> None:
        """As much as the stream takes now; it says when it takes more."""
        if self._lost:
            return
        try:
            while self._unsent:
                part = bytes(self._unsent[:MAX_CIRCUIT_BYTES])
                if not self._stream.send_now(CircuitBytes(), part):
                    break
                del self._unsent[: len(part)]
        except (LinkLost, StreamReset) as error:
            self._break_off(ConnectionResetError(str(error)))
            return
        if len(self._unsent) > self._high and not self._writing_paused:
            self._writing_paused = True
            self._running().pause_writing()
        elif self._writing_paused and len(self._unsent) <= self._low:
            self._writing_paused = False
            self._running().resume_writing()
        if self._closing and not self._unsent and not self._lost:
            self._finish()

    def _finish(self) -> None:
        self._stream.end()
        self._lose(None)
        # The far side ends its direction when it reads our end. One that does not has no more use for the stream either.
        self._loop.call_later(_LAST_S, self._stream.reset)

    def _break_off(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lose(error)  # first: the reset tells us that the stream is over
        self._stream.reset()

    def _lose(self, error: Exception | None) -> None:
        """The protocol hears of it in a turn of its own: it may be in the middle of a write."""
        self._lost = True
        self._unread.clear()
        self._unsent.clear()
        self._loop.call_soon(self._tell, error)

    def _tell(self, error: Exception | None) -> None:
        self._running().connection_lost(error)

    def _running(self) -> asyncio.Protocol:
        assert self._protocol is not None, "begun"
        return self._protocol
