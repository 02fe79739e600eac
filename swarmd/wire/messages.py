"""The typed part of a peer message, and the table of codes. The raw part (hidden states, shard bytes) never comes here.

A message is a frozen dataclass, or for what travels with every token a `msgspec.Struct` with `array_like=True`,
decorated with its code. Codes are for ever: a code that has been released is never used for another class, and fields
are only added with a default. Decoding is strict about types and lengths; it ignores fields it does not know, so newer
nodes can talk to older ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

import msgspec

from swarmd.domain.ids import NodeId
from swarmd.domain.peers import Endpoint
from swarmd.wire.frames import MAX_META
from swarmd.wire.noise import Buffer

T = TypeVar("T")

MAX_RECORD: Final = 768  # bytes; a revocation has 169, an inviter's with its proof up to 703 (`identity.revocations`)
MAX_CERTIFICATE: Final = 1024  # bytes; a chain of four has 712 (`identity.certificates`)
MAX_RECORDS: Final = 64  # in one message, 48 KiB at most; the rest follows in the next one

RETIRED: Final = frozenset({10})
"""Codes of messages that are gone, for ever theirs: 10 was a node about itself, unsigned; see `wire.gossip`."""

CODES: Final[dict[type[Any], int]] = {}
"""Code of every message class; filled as the classes are made, never changed afterwards."""

_DECODERS: Final[dict[int, msgspec.msgpack.Decoder[Any]]] = {}
_CLASSES: Final[dict[int, type[Any]]] = {}
_ENCODER: Final = msgspec.msgpack.Encoder()


class MessageError(Exception):
    """The peer sent a code we do not know, or a typed part that is not what its code says."""


def message(code: int) -> Callable[[type[T]], type[T]]:
    """Class decorator: registers a message class under `code` (1..65535). The class must be decodable by msgspec."""
    assert 0 < code < 2**16, f"a code has 16 bits: {code}"
    assert code not in RETIRED, f"code {code} was another message's"

    def register(cls: type[T]) -> type[T]:
        assert code not in _CLASSES, f"code {code} belongs to {_CLASSES[code].__name__}"
        CODES[cls] = code
        _CLASSES[code] = cls
        return cls

    return register


def encode(value: object) -> tuple[int, bytes]:
    """(code, meta) of a message. ValueError when the typed part is above MAX_META."""
    code = CODES[type(value)]
    meta = _ENCODER.encode(value)
    if len(meta) > MAX_META:
        raise ValueError(f"{type(value).__name__} takes {len(meta)} bytes; {MAX_META} are allowed")
    return code, meta


def decode(code: int, meta: Buffer) -> object:
    """The message. Raises MessageError."""
    decoder = _DECODERS.get(code)
    if decoder is None:
        cls = _CLASSES.get(code)
        if cls is None:
            raise MessageError(f"unknown message code {code}")
        # Made at first use: annotations of a class may name classes that come after it.
        decoder = _DECODERS[code] = msgspec.msgpack.Decoder(cls)
    try:
        return decoder.decode(meta)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        # Wrong types; text that is no UTF-8 (UnicodeDecodeError); arrays nested without end in fields we ignore.
        raise MessageError(f"{_CLASSES[code].__name__}: {error}") from error


def class_of(code: int) -> type[Any] | None:
    """The class registered under `code`."""
    return _CLASSES.get(code)


@message(1)
@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The answer to a request that cannot be served; the stream ends with it."""

    kind: str
    """Class name of the refusal on the side that refused, or `failed` for its bugs and failures."""
    sentence: str
    """For people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduced:
    """A member, and where the teller has reached it."""

    node: NodeId
    endpoints: tuple[Endpoint, ...]


@message(11)
@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """Other members the teller is linked to, so that nodes which joined at the same inviter find each other. Answered
    with Heard.

    A list without certificates: whoever dials them asks them for theirs.
    """

    members: tuple[Introduced, ...]


@message(12)
@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The answer to what needs none: it arrived, so the next one may be sent."""


@message(13)
@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """Who was put out of the network, as far as the teller knows and has not told yet; all of them on a new link. Answered
    with Heard.

    Each is a signed record of its own: the listener believes the signature, not the teller.
    """

    records: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=MAX_RECORD)], ...], msgspec.Meta(max_length=MAX_RECORDS)
    ]


@message(14)
@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    """A member whose certificate is half over asks a linked node that may issue for the next one. Answered with Renewed
    or Refused."""

    certificate: Annotated[bytes, msgspec.Meta(max_length=MAX_CERTIFICATE)]
    """The one it has."""


@message(15)
@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    certificate: Annotated[bytes, msgspec.Meta(max_length=MAX_CERTIFICATE)]


@message(16)
@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """To both of two machines that show the same identity: another one does. No answer. The listener takes it for a
    hint: the teller may be wrong, or lie."""
