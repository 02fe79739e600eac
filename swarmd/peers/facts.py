"""A record of facts: what a node says about itself, so that everybody can believe it, whoever tells it. Pure.

Layout, numbers big-endian:

    layout u8 | node 32 | version u64 | boot 8 | rival 8 | certificate length u16 | certificate | summary | signature 64

The signature is the node's, over the id of its network and everything before it: a record is worth nothing in another
network, and nobody can put another certificate into it. The summary is msgpack (`domain.peers.NodeSummary`), with the
names of its fields: a newer node's further fields are ignored here and told on all the same.

`boot` is drawn at every start of a node. `rival` is the boot of a record of the same node that this one had to be
numbered above, zeros where there was none. Whoever finds its own boot as the rival in a record that it did not sign has
the proof that another process with its key runs at the same time: that one heard of this very run.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from swarmd.domain.ids import NetworkId, NodeId, short
from swarmd.domain.peers import NodeSummary
from swarmd.domain.refusals import Forbidden
from swarmd.identity.certificates import MAX_BYTES as MAX_CERTIFICATE_BYTES
from swarmd.identity.keys import SIGNATURE_BYTES, NodeKey, Signed, verify
from swarmd.peers.neighbours import unsound
from swarmd.wire.gossip import MAX_FACTS

LAYOUT: Final = 1
BOOT_BYTES: Final = 8  # 64 random bits never meet twice
NO_RIVAL: Final = bytes(BOOT_BYTES)
MAX_VERSION: Final = 2**63 - 1  # the highest bit is for the wire (`wire.gossip.pack_pairs`)

_HEAD: Final = struct.Struct(">B32sQ8s8sH")
_LEAST: Final = _HEAD.size + SIGNATURE_BYTES
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(NodeSummary)


@dataclass(frozen=True, slots=True, kw_only=True)
class FactRecord:
    """Decoded is not yet verified, and the summary not yet read."""

    node: NodeId
    version: int
    boot: bytes
    rival: bytes
    certificate_bytes: int
    data: bytes
    """The whole record; kept once, for a table has many."""

    @property
    def certificate(self) -> bytes:
        """As `identity.certificates` encodes it. Empty: none, as in a network that asks for none."""
        return self.data[_HEAD.size : _HEAD.size + self.certificate_bytes]

    @property
    def summary(self) -> bytes:
        return self.data[_HEAD.size + self.certificate_bytes : -SIGNATURE_BYTES]


def make(
    key: NodeKey, summary: NodeSummary, *, network: NetworkId, certificate: bytes, boot: bytes, rival: bytes = NO_RIVAL
) -> bytes:
    """The signed record, at most MAX_FACTS bytes; `fitted` makes a summary that fits. ValueError for one that does not."""
    assert summary.node == key.node, "a node speaks about itself only"
    head = _HEAD.pack(LAYOUT, bytes.fromhex(key.node), summary.version, boot, rival, len(certificate))
    body = head + certificate + _encoder.encode(summary)
    if len(body) + SIGNATURE_BYTES > MAX_FACTS:
        raise ValueError(f"a record of {len(body) + SIGNATURE_BYTES} bytes; {MAX_FACTS} are allowed")
    return body + key.sign(Signed.NODE_FACTS, bytes.fromhex(network) + body)


def fitted(summary: NodeSummary) -> NodeSummary:
    """The same, or without those of its holdings that would make it too large; what is loaded stays longest."""
    room = MAX_FACTS - _LEAST - MAX_CERTIFICATE_BYTES
    if len(_encoder.encode(summary)) <= room:
        return summary
    room -= len(_encoder.encode(replace(summary, holdings=()))) + 2  # an array of many has a longer head
    kept: set[int] = set()
    for index in sorted(range(len(summary.holdings)), key=lambda index: not summary.holdings[index].loaded):
        size = len(_encoder.encode(summary.holdings[index]))
        if size <= room:
            room -= size
            kept.add(index)
    return replace(summary, holdings=tuple(one for index, one in enumerate(summary.holdings) if index in kept))


def decode(data: bytes) -> FactRecord | Forbidden:
    """The record in `data`. Says nothing about who signed it, nor about the summary in it."""
    if not _LEAST <= len(data) <= MAX_FACTS:
        return Forbidden(what=f"a record of facts has {_LEAST} to {MAX_FACTS} bytes, not {len(data)}")
    layout, node, version, boot, rival, length = _HEAD.unpack_from(data)
    if layout != LAYOUT:
        return Forbidden(what=f"the record has layout {layout}, this program reads {LAYOUT}: update the older node")
    if version > MAX_VERSION or length > min(MAX_CERTIFICATE_BYTES, len(data) - _LEAST):
        return Forbidden(what="the record is not one: a number in its head is impossible")
    return FactRecord(
        node=NodeId(node.hex()),
        version=version,
        boot=boot,
        rival=rival,
        certificate_bytes=length,
        data=data,
    )


def is_other_layout(data: bytes) -> bool:
    """It may be sound to a newer program: nothing that its teller can be blamed for."""
    return bool(data) and data[0] != LAYOUT


def is_signed(record: FactRecord, *, network: NetworkId) -> bool:
    """Whether the node that it names made it, for this network."""
    signed, signature = record.data[:-SIGNATURE_BYTES], record.data[-SIGNATURE_BYTES:]
    return verify(record.node, Signed.NODE_FACTS, bytes.fromhex(network) + signed, signature)


def read_summary(record: FactRecord) -> NodeSummary | Forbidden:
    """What the record says. The signature has been checked, so a lie in here is the node's own."""
    try:
        summary = _decoder.decode(record.summary)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # Wrong types, not msgpack; text that is no UTF-8; arrays nested without end in fields we ignore.
        return Forbidden(what=f"what node {short(record.node)} says about itself cannot be read")
    if (summary.node, summary.version) != (record.node, record.version):
        return Forbidden(what=f"node {short(record.node)} contradicts the head of its own record")
    why = unsound(summary)
    return summary if why is None else Forbidden(what=f"node {short(record.node)} says {why} about itself")
