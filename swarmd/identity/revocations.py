"""Revocations: which node does not belong to the network any more, and since when. Pure.

A revocation takes back every certificate that the node got up to `revoked_at`. One that the same issuer gave it later is
valid: that is how a node comes back, by a new invite. So issue times are compared, and the issuer takes care that they
differ. One that somebody below the issuer gave it later is not: an inviter cannot undo what was decided above it.

The founder's (by the network key) speaks about every certificate of the node. An inviter's speaks about those that were
issued by it or below it, and about no other: its id must be in their chain. Whoever else it names, it does no harm.

On the wire and in the store 169 bytes, numbers big-endian, for the reasons in `certificates`:

    version u8 | network 32 | node 32 | revoked_at u64 | issuer 32 | signature 64 | proof

The signature covers everything before it. Version 1 is the founder's, without a proof. Version 2 is an inviter's: the proof
is its certificate (178 bytes a link, 1 to 3 links: whoever has four issued nothing), so that anybody can follow it up to the
network key. It must have been valid at `revoked_at`; that it ends later takes nothing back. The signature need not cover
it: another proof of the same issuer for the same moment says the same.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from typing import Final

from swarmd.domain.ids import NetworkId, NodeId, short
from swarmd.domain.refusals import Forbidden
from swarmd.identity import certificates
from swarmd.identity.certificates import LIFE_S, LINK_BYTES, MAX_CHAIN, SKEW_S, Certificate, Role
from swarmd.identity.keys import SIGNATURE_BYTES, NetworkKey, NodeKey, Signed
from swarmd.identity.keys import verify as verify_signature

FOUNDERS: Final = 1  # versions of the layout
INVITERS: Final = 2
MAX_PROOF: Final = MAX_CHAIN - 1
"""Links: a certificate whose chain is full has nothing below it that could be revoked."""
USEFUL_S: Final = LIFE_S + SKEW_S
"""No certificate that a revocation could take back lives longer after it; the founder's own does, and is never revoked."""

_BODY: Final = struct.Struct(">B32s32sQ32s")
REVOCATION_BYTES: Final = _BODY.size + SIGNATURE_BYTES
"""Of the founder's, and of an inviter's without its proof."""
MAX_BYTES: Final = REVOCATION_BYTES + MAX_PROOF * LINK_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """Decoded is not yet verified."""

    network: NetworkId
    node: NodeId
    revoked_at: int
    """Unix seconds; certificates issued in this second are taken back as well."""
    issuer: NodeId | NetworkId
    """The network itself, or an inviter's node id."""
    signature: bytes
    proof: Certificate | None = None
    """The inviter's certificate; None: the network key has signed."""

    def body(self) -> bytes:
        """What the issuer signs."""
        return _BODY.pack(
            FOUNDERS if self.proof is None else INVITERS,
            bytes.fromhex(self.network),
            bytes.fromhex(self.node),
            self.revoked_at,
            bytes.fromhex(self.issuer),
        )

    def covers(self, certificate: Certificate) -> bool:
        """Whether this link of a chain is taken back: it is of that node, this issuer is above it, and this issuer did not
        give it after the revocation."""
        return (
            certificate.node == self.node
            and certificate.network == self.network
            and (self.proof is None or any(one.node == self.issuer for one in certificate.chain()[1:]))
            and (certificate.issued_at <= self.revoked_at or certificate.issuer != self.issuer)
        )

    def is_useful(self, now: float) -> bool:
        """Whether there can still be a certificate that it takes back."""
        return now <= self.revoked_at + USEFUL_S


def revoke(
    key: NetworkKey | NodeKey, node: NodeId, *, now: float, proof: Certificate | None = None
) -> Revocation:
    """From now on. Rounded up, so that it also covers what was issued a moment ago. An inviter gives its certificate."""
    if isinstance(key, NetworkKey):
        assert proof is None, "the network key needs nobody above it"
        network, issuer = key.network, key.network
    else:
        assert proof is not None, "an inviter proves that it is one"
        assert proof.node == key.node, "an inviter shows its own certificate"
        assert len(proof.chain()) <= MAX_PROOF, "nobody is below it"
        network, issuer = proof.network, key.node
    unsigned = Revocation(
        network=network, node=node, revoked_at=math.ceil(now), issuer=issuer, signature=b"", proof=proof
    )
    return replace(unsigned, signature=key.sign(Signed.REVOCATION, unsigned.body()))


def encode(revocation: Revocation) -> bytes:
    proof = b"" if revocation.proof is None else certificates.encode(revocation.proof)
    return revocation.body() + revocation.signature + proof


def decode(data: bytes) -> Revocation | Forbidden:
    """The revocation in `data`, exactly: nothing missing, nothing left over. Says nothing about who signed it."""
    links, rest = divmod(len(data) - REVOCATION_BYTES, LINK_BYTES)
    if rest or not 0 <= links <= MAX_PROOF:
        return Forbidden(
            what=f"a revocation has {REVOCATION_BYTES} bytes and 0 to {MAX_PROOF} times {LINK_BYTES} of proof, "
            f"not {len(data)}"
        )
    version, network, node, revoked_at, issuer = _BODY.unpack_from(data)
    if version not in (FOUNDERS, INVITERS):
        return Forbidden(
            what=f"the revocation has version {version}, this program reads {FOUNDERS} and {INVITERS}: "
            "update the older node"
        )
    if (version == FOUNDERS) != (links == 0):
        return Forbidden(what=f"a revocation of version {version} does not have {links} links of proof")
    proof = certificates.decode(data[REVOCATION_BYTES:]) if links else None
    if isinstance(proof, Forbidden):
        return proof
    return Revocation(
        network=NetworkId(network.hex()),
        node=NodeId(node.hex()),
        revoked_at=revoked_at,
        issuer=NodeId(issuer.hex()),
        signature=bytes(data[_BODY.size : REVOCATION_BYTES]),
        proof=proof,
    )


def refuse(revocation: Revocation, *, network: NetworkId, now: float) -> Forbidden | None:
    """Why it says nothing for `network` now, by what can be read off it; the signature is `is_signed`'s business.

    None of these makes its teller a liar: clocks differ, and so do versions.
    """
    who = short(revocation.node)
    if revocation.network != network:
        return Forbidden(what=f"the revocation of node {who} is for network {revocation.network[:16]}, not {network[:16]}")
    if revocation.proof is None:
        if revocation.issuer != network:
            return Forbidden(what=f"the revocation of node {who} was not made by the founder, and has no proof of another")
    elif (refusal := _refuse_proof(revocation, revocation.proof)) is not None:
        return refusal
    if revocation.revoked_at > now + SKEW_S:
        return Forbidden(what=f"the revocation of node {who} begins in the future: check the clocks of both nodes")
    if not revocation.is_useful(now):
        return Forbidden(what=f"the revocation of node {who} is older than any certificate it could take back")
    return None


def _refuse_proof(revocation: Revocation, proof: Certificate) -> Forbidden | None:
    who, issuer = short(revocation.node), short(NodeId(revocation.issuer))
    if proof.node != revocation.issuer:
        return Forbidden(what=f"the revocation of node {who} shows the certificate of another node than its maker {issuer}")
    if proof.role is not Role.INVITER:
        return Forbidden(what=f"the revocation of node {who} was made by node {issuer}, which is no inviter")
    if any(link.node == revocation.node for link in proof.chain()):
        return Forbidden(what=f"node {issuer} cannot put out node {who}, to which it owes its own membership")
    if not proof.issued_at <= revocation.revoked_at < proof.expires_at:
        return Forbidden(what=f"the revocation of node {who} was made when node {issuer} was no inviter")
    return None


def is_signed(revocation: Revocation) -> bool:
    """Whether its issuer really made it, and an inviter was one at that time. Up to four signatures are checked."""
    proof = revocation.proof
    if not verify_signature(revocation.issuer, Signed.REVOCATION, revocation.body(), revocation.signature):
        return False
    if proof is None:
        return True
    # At that time, not now: what an inviter took back stays taken back when its own membership is over.
    verdict = certificates.verify(proof, network=revocation.network, now=revocation.revoked_at)
    return isinstance(verdict, Certificate)
