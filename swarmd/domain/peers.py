"""Other nodes: where they listen, what they can do, what we remember of them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from swarmd.domain.ids import ModelId, NodeId

MAX_DEMANDS: Final = 64
"""Models whose demand a node tells: more than one node is asked for within ten minutes; some dozen bytes each."""
MAX_REQUESTS: Final = 1_000_000
"""Told of one model: 1600 a second for ten minutes, beyond any machine. A liar's sum stays a number that can be printed."""
MAX_NAMEPLATE: Final = 999  # three digits: easy to say, and enough for everybody who could be confused
MAX_NEAR: Final = 8  # as many stages as pipelines of sense have
MAX_RTT_TENTHS: Final = 600_000  # a minute: a link that is slower is lost
MAX_SESSIONS: Final = 4096  # far above what a node serves at once
MAX_NAMEPLATES: Final = 4
"""Of short codes a node tells its neighbours. Today one lives at a time."""

_NICKNAME = re.compile(r"\w(?:[\w .-]{0,30}[\w.])?")  # letters of any script; what a column of a table has room for
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.\-]{0,252}[A-Za-z0-9])?")  # an IPv4 address or a DNS name


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A TCP address on which a node accepts links. `host` is an IP address or a DNS name; IPv6 without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def multiaddr(self) -> str:
        """`/ip4/127.0.0.1/tcp/8810` and kin: the form in which the admin API shows addresses."""
        if ":" in self.host:
            kind = "ip6"
        elif self.host.replace(".", "").isdigit():
            kind = "ip4"
        else:
            kind = "dns"
        return f"/{kind}/{self.host}/tcp/{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """The reverse of `str(endpoint)`: `host:port`, IPv6 in brackets. Raises ValueError for anything else."""
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif not _HOST.fullmatch(host):
        raise ValueError(f"an address is host:port, IPv6 in brackets: not {text[:80]!r}")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"a port is a number from 1 to 65535: not {port[:80]!r}")
    return Endpoint(host, int(port))


def is_nickname(text: str) -> bool:
    """Whether a node may be called so: 1 to 32 letters, digits, blanks, dots, - and _, none of the blanks outside."""
    return _NICKNAME.fullmatch(text) is not None


class Purpose(Enum):
    """A pair of nodes keeps one connection for each purpose, so that a shard transfer never delays a token."""

    CONTROL = "control"  # messages and activations
    BULK = "bulk"  # shard bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerIdentity:
    """Who is at the other end of a link, proven by the handshake."""

    node: NodeId
    purpose: Purpose
    software: str
    """`name/version` as the peer states it; for people, never for decisions."""
    endpoints: tuple[Endpoint, ...] = ()
    """Where it says it listens. An unspecified host (`0.0.0.0`, `::`) means: at the address you see me coming from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """The shards of one model that a node has verified on its disk. `layout` must match for two nodes to work together."""

    model: ModelId
    layout: str
    shards: tuple[int, ...]
    """Sorted, distinct indices."""
    layer_ms: float | None = None
    """Measured decode time of one layer (`inference.effort`) on that node, milliseconds; None before its first step."""
    loaded: tuple[int, ...] = ()
    """Those of `shards` that are in that node's memory: running them takes no more of it."""
    partial: tuple[int, ...] = ()
    """Sorted, distinct indices of shards on their way there; none of `shards`. What has arrived of them is served."""
    vision: bool = False
    """The model's vision encoder is there."""
    shared: bool = False
    """Its user wants the swarm to hold the model: each node that manages its shards takes its fair share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """From the node that tells it to one with which it could share a pipeline."""

    node: str
    """Its short id (`ids.short`): a record goes to every node of the swarm, so its bytes count."""
    tenths_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDemand:
    """How often a model was asked for at one node in the window of `economy.demand`."""

    model: ModelId
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSummary:
    """What a node says about itself, to everybody (`peers.gossip`); the newest `version` wins."""

    node: NodeId
    version: int
    """Grows with every record; a restarted node starts above its last one (it is stamped with the clock, milliseconds)."""
    software: str
    started_at: float
    """Unix seconds."""
    ram_free_bytes: int
    ram_total_bytes: int
    region: str = "??"
    """As the node says; `domain.regions.as_region` reads it."""
    gpu: str | None = None
    endpoints: tuple[Endpoint, ...] = ()
    """Where the node listens, as it was configured; the receiver adds the address it really saw."""
    holdings: tuple[Holding, ...] = ()
    demand: tuple[ModelDemand, ...] = ()
    """Sorted by model, at most MAX_DEMANDS. What nobody asked for is left out."""
    nameplates: tuple[int, ...] = ()
    """The numbers of its live short codes, 1 to MAX_NAMEPLATE, sorted, at most MAX_NAMEPLATES."""
    near: tuple[RoundTrip, ...] = ()
    """To connected nodes that hold shards of a model of which it holds some too: the MAX_NEAR nearest, sorted by node."""
    sessions: int = 0
    """Stages of generations that run on it."""
    nickname: str = ""
    """As its owner calls it (`is_nickname`); nothing keeps two nodes from having one. Empty: it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRecord:
    """A member of our network as we remember it across restarts."""

    node: NodeId
    endpoints: tuple[Endpoint, ...]
    last_seen: float | None
    """Unix seconds of the last moment a link to it was up; None when never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkView:
    """One standing connection to a peer, as shown to people."""

    node: NodeId
    purpose: Purpose
    via: NodeId | None
    """The member that relays it; None: direct."""
    remote: Endpoint | None
    """Where we see the peer; None when it is relayed."""
    dialled: bool
    """We opened it."""
    up_s: float
    """Since it is up."""
    rtt_ms: float | None
    """Smoothed; None before the first ping came back."""
    min_rtt_ms: float | None
    bytes_in: int
    bytes_out: int
    queued_bytes: int
    """Sent by us and not yet taken by the system: what a new message would wait behind."""
    streams: int
    """Calls and streams in progress, both sides'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerView:
    """One peer as shown to people and planners: the record, the link and the newest summary together.

    Work goes to connected ones only. A peer that is not may be known by what others tell of it.
    """

    record: PeerRecord
    connected: bool
    via: NodeId | None = None
    """The member that relays the link; None: direct, or none."""
    rtt_ms: float | None = None
    min_rtt_ms: float | None = None
    rtt_samples: int = 0
    summary: NodeSummary | None = None
    addresses: tuple[Endpoint, ...] = field(default=())
    heard_at: float | None = None
    """Unix seconds: when `summary` was made, as far as can be told; None without one."""
    heard_lately: bool = False
    """So lately that it is there even if no link of ours says so."""

    @property
    def present(self) -> bool:
        """What is counted as a part of the swarm now."""
        return self.connected or self.heard_lately
