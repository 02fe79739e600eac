"""Revocations: which node does not belong to the network any more, and since when. Pure.

A revocation takes back every certificate that the node got up to `revoked_at`. One issued later is valid: that is how a
node comes back, by a new invite. So issue times are compared, and the issuer takes care that they differ.

On the wire and in the store 169 bytes, numbers big-endian, for the reasons in `certificates`:

    version u8 | network 32 | node 32 | revoked_at u64 | issuer 32 | signature 64

The signature covers everything before it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from typing import Final

from swarmd.domain.ids import NetworkId, NodeId, short
from swarmd.domain.refusals import Forbidden
from swarmd.identity.certificates import LIFE_S, SKEW_S, Certificate
from swarmd.identity.keys import SIGNATURE_BYTES, NetworkKey, Signed
from swarmd.identity.keys import verify as verify_signature

VERSION: Final = 1
USEFUL_S: Final = LIFE_S + SKEW_S
"""No certificate that a revocation could take back lives longer after it; the founder's own does, and is never revoked."""

_BODY: Final = struct.Struct(">B32s32sQ32s")
REVOCATION_BYTES: Final = _BODY.size + SIGNATURE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """Decoded is not yet verified."""

    network: NetworkId
    node: NodeId
    revoked_at: int
    """Unix seconds; certificates issued in this second are taken back as well."""
    issuer: NodeId | NetworkId
    """The network itself. An inviter's node id has its place here for when inviters may revoke those they admitted."""
    signature: bytes

    def body(self) -> bytes:
        """What the issuer signs."""
        return _BODY.pack(
            VERSION, bytes.fromhex(self.network), bytes.fromhex(self.node), self.revoked_at, bytes.fromhex(self.issuer)
        )

    def covers(self, certificate: Certificate) -> bool:
        """Whether this link of a chain is taken back: issued to that node and not after the revocation."""
        return (
            certificate.node == self.node
            and certificate.network == self.network
            and certificate.issued_at <= self.revoked_at
        )

    def is_useful(self, now: float) -> bool:
        """Whether there can still be a certificate that it takes back."""
        return now <= self.revoked_at + USEFUL_S


def revoke(key: NetworkKey, node: NodeId, *, now: float) -> Revocation:
    """From now on. Rounded up, so that it also covers what was issued a moment ago."""
    unsigned = Revocation(
        network=key.network, node=node, revoked_at=math.ceil(now), issuer=key.network, signature=b""
    )
    return replace(unsigned, signature=key.sign(Signed.REVOCATION, unsigned.body()))


def encode(revocation: Revocation) -> bytes:
    return revocation.body() + revocation.signature


def decode(data: bytes) -> Revocation | Forbidden:
    """The revocation in `data`, exactly. Says nothing about who signed it."""
    if len(data) != REVOCATION_BYTES:
        return Forbidden(what=f"a revocation has {REVOCATION_BYTES} bytes, not {len(data)}")
    version, network, node, revoked_at, issuer = _BODY.unpack_from(data)
    if version != VERSION:
        return Forbidden(what=f"the revocation has version {version}, this program reads {VERSION}: update the older node")
    return Revocation(
        network=NetworkId(network.hex()),
        node=NodeId(node.hex()),
        revoked_at=revoked_at,
        issuer=NodeId(issuer.hex()),
        signature=bytes(data[_BODY.size :]),
    )


def refuse(revocation: Revocation, *, network: NetworkId, now: float) -> Forbidden | None:
    """Why it says nothing for `network` now, by what can be read off it; the signature is `is_signed`'s business.

    None of these makes its teller a liar: clocks differ, and so do versions.
    """
    who = short(revocation.node)
    if revocation.network != network:
        return Forbidden(what=f"the revocation of node {who} is for network {revocation.network[:16]}, not {network[:16]}")
    if revocation.issuer != network:
        return Forbidden(what=f"the revocation of node {who} was not made by the founder, and nobody else may revoke")
    if revocation.revoked_at > now + SKEW_S:
        return Forbidden(what=f"the revocation of node {who} begins in the future: check the clocks of both nodes")
    if not revocation.is_useful(now):
        return Forbidden(what=f"the revocation of node {who} is older than any certificate it could take back")
    return None


def is_signed(revocation: Revocation) -> bool:
    """Whether its issuer really made it."""
    return verify_signature(revocation.issuer, Signed.REVOCATION, revocation.body(), revocation.signature)
