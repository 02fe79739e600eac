"""Messages of a relay: two members that cannot dial each other run a whole link, handshake and all, through a third one.

    A                         relay                       B
    OpenCircuit(B)       ──►
                              IncomingCircuit(A)     ──►
                                                     ◄──  CircuitOpen
                         ◄──  CircuitOpen
    CircuitBytes         ◄─►                         ◄─►  CircuitBytes, until a side ends or breaks its stream

The payload of `CircuitBytes` is what would be on the wire between A and B: the relay sees sizes and times, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from swarmd.domain.ids import NodeId
from swarmd.wire.messages import message

MAX_CIRCUIT_BYTES: Final = 256 * 1024  # one flush of a connection: more at once a relay need not hold


@message(140)
@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCircuit:
    """To a node that might relay: connect me to this one. Answered with CircuitOpen or Refused."""

    node: NodeId


@message(141)
@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingCircuit:
    """From a relay: somebody wants to talk to you. Answered with CircuitOpen or Refused."""

    node: NodeId | None
    """Who, as the relay knows; the handshake inside proves it. None: somebody who is no member, with a short code."""


@message(142)
@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitOpen:
    """Bytes may follow."""


@message(143)
class CircuitBytes(msgspec.Struct, frozen=True, array_like=True):
    """The payload is the next bytes, MAX_CIRCUIT_BYTES at most."""
