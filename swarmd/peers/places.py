"""The one connection that a pair of nodes has for a purpose, what is known of it, and what its peer said in the handshake.

Used by `links`, which owns the places and keeps them up.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from swarmd.domain.ids import NodeId
from swarmd.domain.peers import Endpoint, LinkView, Purpose
from swarmd.identity import certificates
from swarmd.identity.certificates import Certificate
from swarmd.kit.flow import Backoff
from swarmd.peers import hello as hellos
from swarmd.peers.addresses import as_seen_from
from swarmd.peers.slots import Slot
from swarmd.transport.connection import Connection
from swarmd.transport.rpc import Link

RTT_WEIGHT: Final = 0.25  # of a new sample; pings come every 3 s, so a quarter of a minute of history


@dataclass(slots=True, kw_only=True, eq=False)
class Leg:
    """One connection and what we know about it."""

    link: Link
    boot: bytes
    up_at: float
    """Monotonic."""
    rtt_ms: float | None = None
    """Smoothed."""
    rtt_seen: int = 0
    talk: asyncio.Task[Any] | None = None

    @property
    def dialled(self) -> bool:
        return self.link.connection.dialled

    @property
    def relayed(self) -> bool:
        return self.link.connection.via is not None

    def sample(self) -> tuple[float, float] | None:
        """Smoothed and least round trip in ms, when there was a new one since the last call."""
        connection = self.link.connection
        latest, least = as_ms(connection.rtt_s), as_ms(connection.min_rtt_s)
        if connection.rtt_samples == self.rtt_seen or latest is None or least is None:
            return None
        self.rtt_seen = connection.rtt_samples
        self.rtt_ms = latest if self.rtt_ms is None else self.rtt_ms + RTT_WEIGHT * (latest - self.rtt_ms)
        return self.rtt_ms, least


@dataclass(slots=True, kw_only=True)
class Place:
    """The one connection to one node for one purpose, and the coroutine that keeps it up."""

    node: NodeId
    purpose: Purpose
    slot: Slot[Leg]
    backoff: Backoff
    up: asyncio.Event = field(default_factory=asyncio.Event)
    vacant: asyncio.Event = field(default_factory=asyncio.Event)
    """There is no connection."""
    lacking: asyncio.Event = field(default_factory=asyncio.Event)
    """There is no direct connection."""
    detoured: bool = False
    """The last connection was relayed."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    draining: Link | None = None
    """A relayed one that gave way, until what runs over it has ended."""
    challenged: bool = False
    """Whoever holds the connection is asked for a sign of life."""
    lost: bool = False
    """A connection has gone since the last dial."""
    lost_at: float | None = None
    """Monotonic; when the last connection went, None when there was none."""
    tender: asyncio.Task[Any] | None = None


def certificate_of(connection: Connection) -> Certificate | None:
    """What the peer showed when the connection was made; the gate has verified it. None: it was only joining, or is a
    member of an open network without."""
    hello = hellos.decode(connection.peer_hello)
    assert hello is not None, "the gate has read it"
    if hello.certificate is None:
        return None
    shown = certificates.decode(hello.certificate)
    assert isinstance(shown, Certificate), "the gate has verified it"
    return shown


def line_of(place: Place, leg: Leg, *, up_s: float) -> LinkView:
    """What people are shown of a connection."""
    connection = leg.link.connection
    return LinkView(
        node=place.node,
        purpose=place.purpose,
        via=connection.via,
        remote=None if connection.via is not None else connection.remote,
        dialled=leg.dialled,
        up_s=up_s,
        rtt_ms=leg.rtt_ms if leg.rtt_ms is not None else as_ms(connection.rtt_s),
        min_rtt_ms=as_ms(connection.min_rtt_s),
        bytes_in=connection.bytes_in,
        bytes_out=connection.bytes_out,
        queued_bytes=connection.queued_bytes,
        streams=leg.link.streams,
    )


def stated(connection: Connection) -> tuple[Endpoint, ...]:
    """Where the peer says that it listens, read in the light of where we see it."""
    observed_host = connection.remote.host if connection.via is None else None
    return as_seen_from(connection.peer.endpoints, observed_host=observed_host)


def as_ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
