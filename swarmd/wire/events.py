"""What a session tells its glue, and the two ways in which it refuses to send."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from swarmd.wire.frames import Message


class StreamGone(Exception):
    """The stream was ended or reset, or the session is closed: this message will not be sent."""


class TooManyStreams(Exception):
    """MAX_PEER_STREAMS of our streams are open already."""


class MessageReceived(msgspec.Struct, frozen=True):
    """A Struct for the same reason as Message."""

    stream: int
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOpened:
    """The peer opened a stream with this message."""

    stream: int
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnded:
    """The peer sends nothing more on this stream."""

    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReset:
    """The peer gave the stream up, in both directions."""

    stream: int
    code: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOver:
    """Both directions have ended, and all of ours is written. Not said after a reset."""

    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Writable:
    """A message that had to wait has been written to its end; the next one may be sent."""

    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RttMeasured:
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The link is over: the peer said goodbye, broke the protocol, or was silent for too long."""

    reason: str


SessionEvent = MessageReceived | StreamOpened | StreamEnded | StreamReset | StreamOver | Writable | RttMeasured | Closed
