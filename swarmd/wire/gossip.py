"""Messages by which node facts spread (`peers.gossip`); codes 80 to 89.

A record of facts is bytes here (`peers.facts` reads them): a node tells on what it does not wholly understand, as long as
the signature holds. Pairs and marks are packed bytes, for a table of 2,000 nodes is told in one message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from swarmd.domain.ids import NodeId
from swarmd.wire.messages import message

MAX_FACTS: Final = 16 * 1024  # bytes of one record; a usual one has 700, one with 60 models in all their shards fits
MAX_AGE_S: Final = 3600  # nobody tells of a record a quarter as old (`peers.fact_table.TOLD_S`)
MAX_TOLD: Final = 64  # records in a message: checking as many signatures takes 15 ms; the rest follows
BATCH_BYTES: Final = 64 * 1024
"""Records in one message, together, unless it is one alone: what a slow uplink (1 Mbit/s) takes half a second for."""

NODE_BYTES: Final = 32
MARK_BYTES: Final = 8
MAX_BUCKETS: Final = 256
MAX_HINTS: Final = 256  # pairs in one message, 10 KB
MAX_PAIRS: Final = 5000  # two tables of `peers.fact_table.MAX_NODES`, one of them of the dismissed, and room to grow
_PAIR: Final = struct.Struct(">32sQ")
_DISMISSED: Final = 1 << 63


class Told(msgspec.Struct, frozen=True, array_like=True):
    """One record, and how long ago the teller believes that it was made."""

    age_s: Annotated[int, msgspec.Meta(ge=0, le=MAX_AGE_S)]
    record: Annotated[bytes, msgspec.Meta(max_length=MAX_FACTS)]


@message(80)
@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What nodes say about themselves, the teller or others. Answered with Heard when it was read."""

    told: Annotated[tuple[Told, ...], msgspec.Meta(max_length=MAX_TOLD)]
    hints: Annotated[bytes, msgspec.Meta(max_length=MAX_HINTS * 40)] = b""
    """Further news that the teller has, as `pack_pairs`; whoever lacks it asks for it."""


@message(81)
@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """One mark for each bucket of the asker's table; answered with Versions. Nodes are in 1, 2, 4 ... 256 buckets by the
    first bits of their id."""

    marks: Annotated[bytes, msgspec.Meta(min_length=MARK_BYTES, max_length=MAX_BUCKETS * MARK_BYTES)]
    """A mark is the exclusive or of one number for each node and version."""


@message(82)
@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What the answerer knows in the buckets whose marks differ from its own."""

    differing: Annotated[bytes, msgspec.Meta(max_length=MAX_BUCKETS)]
    """Their numbers, a byte each."""
    pairs: Annotated[bytes, msgspec.Meta(max_length=MAX_PAIRS * _PAIR.size)]
    """See `pack_pairs`."""


@message(83)
@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """The asker lacks what these nodes say; answered with Given."""

    nodes: Annotated[bytes, msgspec.Meta(max_length=MAX_TOLD * NODE_BYTES)]


@message(84)
@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    answered: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOLD)]
    """How many of the nodes, from the first on, were looked at; the rest did not fit and may be asked for again."""
    told: Annotated[tuple[Told, ...], msgspec.Meta(max_length=MAX_TOLD)]


@dataclass(frozen=True, slots=True)
class Pair:
    """The newest version of a node's facts that somebody knows."""

    node: NodeId
    version: int
    dismissed: bool = False
    """It has no record to give and wants none up to this version: forgotten, or not fit to be kept."""


def pack_pairs(pairs: Iterable[Pair]) -> bytes:
    """40 bytes each: the node, then its version with the highest bit set for a dismissed one."""
    return b"".join(
        _PAIR.pack(bytes.fromhex(pair.node), pair.version | (_DISMISSED if pair.dismissed else 0)) for pair in pairs
    )


def unpack_pairs(data: bytes) -> tuple[Pair, ...] | None:
    """None: not whole pairs."""
    if len(data) % _PAIR.size:
        return None
    return tuple(
        Pair(NodeId(node.hex()), version & ~_DISMISSED, bool(version & _DISMISSED))
        for node, version in _PAIR.iter_unpack(data)
    )


def pack_nodes(nodes: Iterable[NodeId]) -> bytes:
    return b"".join(map(bytes.fromhex, nodes))


def unpack_nodes(data: bytes) -> tuple[NodeId, ...] | None:
    """None: not whole ids."""
    if len(data) % NODE_BYTES:
        return None
    return tuple(NodeId(data[at : at + NODE_BYTES].hex()) for at in range(0, len(data), NODE_BYTES))


def unpack_marks(data: bytes) -> tuple[int, ...] | None:
    """None: not as many as there may be buckets."""
    count, rest = divmod(len(data), MARK_BYTES)
    if rest or not 1 <= count <= MAX_BUCKETS or count & (count - 1):
        return None
    return tuple(int.from_bytes(data[at : at + MARK_BYTES]) for at in range(0, len(data), MARK_BYTES))


def pack_marks(marks: Iterable[int]) -> bytes:
    return b"".join(mark.to_bytes(MARK_BYTES) for mark in marks)


def bucket_of(node: NodeId, buckets: int) -> int:
    """`buckets`: a power of two up to MAX_BUCKETS."""
    return int(node[:2], 16) * buckets // MAX_BUCKETS
