"""Membership certificates: which node belongs to which network, as what, until when. Pure.

On the wire and in the store a certificate is its own 178 bytes followed by its issuer's, up to one that the network key
signed; most chains have one link. Layout of a link, numbers big-endian:

    version u8 | network 32 | node 32 | role u8 | issued_at u64 | expires_at u64 | issuer 32 | signature 64

The signature covers everything before it. Fixed layout and not msgpack: there is one way to write a certificate, so its
bytes can be compared, and a parser of hostile input has nothing to allocate.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from swarmd.domain.ids import NetworkId, NodeId, short
from swarmd.domain.refusals import Forbidden, Refusal, Revoked
from swarmd.identity.keys import SIGNATURE_BYTES, NetworkKey, NodeKey, Signed
from swarmd.identity.keys import verify as verify_signature

VERSION: Final = 1
MAX_CHAIN: Final = 4
"""Founder's network, an inviter, an inviter's inviter and one more: enough for a team; each link costs a signature
check."""

LIFE_S: Final = 90 * 24 * 3600
"""Default life. Expiry is what removes a lost machine when nobody thought of it, so it should be short; but a machine
in a drawer over a long holiday, or at a flat used in one season, should still be a member when it is switched on."""

SKEW_S: Final = 24 * 3600
"""How far in the future `issued_at` may lie: a machine whose time zone was entered as UTC is up to 14 hours off."""

_BODY: Final = struct.Struct(">B32s32sBQQ32s")
LINK_BYTES: Final = _BODY.size + SIGNATURE_BYTES
MAX_BYTES: Final = LINK_BYTES * MAX_CHAIN


class Role(Enum):
    """What a member may do. An inviter may also issue certificates of its own."""

    MEMBER = 1
    INVITER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One link and, unless the network key signed it, the certificate of its issuer. Decoded is not yet verified."""

    network: NetworkId
    node: NodeId
    role: Role
    issued_at: int
    """Unix seconds."""
    expires_at: int
    """Unix seconds; not valid from this second on."""
    issuer: NodeId | NetworkId
    """The network itself, or an inviter's node id."""
    signature: bytes
    parent: Certificate | None = None

    def body(self) -> bytes:
        """What the issuer signs."""
        return _BODY.pack(
            VERSION,
            bytes.fromhex(self.network),
            bytes.fromhex(self.node),
            self.role.value,
            self.issued_at,
            self.expires_at,
            bytes.fromhex(self.issuer),
        )

    def chain(self) -> tuple[Certificate, ...]:
        """This certificate first, the one signed by the network last."""
        links: list[Certificate] = [self]
        while (parent := links[-1].parent) is not None:
            links.append(parent)
        return tuple(links)


def issue(
    key: NetworkKey | NodeKey,
    *,
    node: NodeId,
    role: Role,
    now: float,
    life_s: float = LIFE_S,
    parent: Certificate | None = None,
) -> Certificate:
    """A certificate for `node`. With the network key no `parent`; an inviter gives its own certificate as `parent`.

    An inviter's issue never outlives its own certificate and never begins before it.
    """
    issued_at, expires_at = int(now), int(now + life_s)
    if isinstance(key, NetworkKey):
        assert parent is None, "the network key needs nobody above it"
        network, issuer = key.network, key.network
    else:
        assert parent is not None, "an inviter needs its own certificate"
        assert parent.node == key.node, "an inviter issues below its own certificate"
        assert len(parent.chain()) < MAX_CHAIN, "the chain would be too long: its holder may not invite"
        network, issuer = parent.network, key.node
        issued_at, expires_at = max(issued_at, parent.issued_at), min(expires_at, parent.expires_at)
    unsigned = Certificate(
        network=network,
        node=node,
        role=role,
        issued_at=issued_at,
        expires_at=expires_at,
        issuer=issuer,
        signature=b"",
        parent=parent,
    )
    return replace(unsigned, signature=key.sign(Signed.CERTIFICATE, unsigned.body()))


def encode(certificate: Certificate) -> bytes:
    return b"".join(link.body() + link.signature for link in certificate.chain())


def decode(data: bytes) -> Certificate | Forbidden:
    """The certificate in `data`, exactly: nothing missing, nothing left over. Says nothing about who signed it."""
    count, rest = divmod(len(data), LINK_BYTES)
    if rest or not 1 <= count <= MAX_CHAIN:
        return Forbidden(what=f"a certificate has 1 to {MAX_CHAIN} times {LINK_BYTES} bytes, not {len(data)}")
    certificate: Certificate | None = None
    for start in range((count - 1) * LINK_BYTES, -1, -LINK_BYTES):
        version, network, node, role, issued_at, expires_at, issuer = _BODY.unpack_from(data, start)
        if version != VERSION:
            return Forbidden(
                what=f"the certificate has version {version}, this program reads {VERSION}: update the older node"
            )
        if role not in (Role.MEMBER.value, Role.INVITER.value):
            return Forbidden(what=f"the certificate names an unknown role {role}")
        certificate = Certificate(
            network=NetworkId(network.hex()),
            node=NodeId(node.hex()),
            role=Role(role),
            issued_at=issued_at,
            expires_at=expires_at,
            issuer=NodeId(issuer.hex()),
            signature=bytes(data[start + _BODY.size : start + LINK_BYTES]),
            parent=certificate,
        )
    assert certificate is not None, "count is at least 1"
    return certificate


def verify(
    certificate: Certificate,
    *,
    network: NetworkId,
    now: float,
    revoked: Callable[[Certificate], bool] = lambda _: False,
) -> Certificate | Refusal:
    """The same certificate if every link of it holds for `network` at `now`, else why not.

    `revoked` is asked about every link; it is the place where revocation lists come in.
    """
    links = certificate.chain()
    if len(links) > MAX_CHAIN:
        return Forbidden(what=f"the certificate's chain has {len(links)} links, at most {MAX_CHAIN} are allowed")
    for link in links:
        refusal = _verify_link(link, network=network, now=now)
        if refusal is not None:
            return refusal
        if revoked(link):
            return Revoked(node=certificate.node, above=None if link is certificate else link.node)
    return certificate


def _verify_link(link: Certificate, *, network: NetworkId, now: float) -> Refusal | None:
    """Cheap checks first; the signature last."""
    if link.network != network:
        return Forbidden(what=f"node {short(link.node)} belongs to network {link.network[:16]}, not to {network[:16]}")
    if now >= link.expires_at:
        ended = datetime.fromtimestamp(link.expires_at, UTC)
        return Forbidden(
            what=f"the membership of node {short(link.node)} ended on {ended:%Y-%m-%d}: join again with a new code"
        )
    if link.issued_at > now + SKEW_S:
        return Forbidden(
            what=f"the certificate of node {short(link.node)} begins in the future: check the clocks of both nodes"
        )
    parent = link.parent
    if parent is None:
        if link.issuer != network:
            return Forbidden(what=f"the certificate of node {short(link.node)} does not lead up to the network key")
    elif link.issuer != parent.node:
        return Forbidden(what=f"the certificate of node {short(link.node)} does not fit its issuer's")
    elif parent.role is not Role.INVITER:
        return Forbidden(what=f"node {short(parent.node)} may not issue certificates")
    elif link.issued_at < parent.issued_at or link.expires_at > parent.expires_at:
        return Forbidden(what=f"the certificate of node {short(link.node)} is valid outside the time of its issuer's")
    if not verify_signature(link.issuer, Signed.CERTIFICATE, link.body(), link.signature):
        return Forbidden(what=f"the signature on the certificate of node {short(link.node)} is not its issuer's")
    return None
