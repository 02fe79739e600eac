"""Who belongs to the network as far as this node knows, and putting somebody out of it.

The founder and inviters know everybody they gave a certificate; besides, members know whom they are linked to or have in
their book, and of those away not what their certificates say. Everybody knows whom the founder put out.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Literal, Protocol

from swarmd.domain.ids import NodeId, short
from swarmd.domain.membership import MemberView, RoleName
from swarmd.domain.peers import PeerView, Purpose
from swarmd.domain.refusals import NotFound, Refusal
from swarmd.identity import certificates
from swarmd.identity.certificates import Certificate, Role
from swarmd.peers.membership import Membership
from swarmd.peers.places import certificate_of
from swarmd.store import network as sql
from swarmd.store.database import Database
from swarmd.transport.rpc import Link

MAX_LISTED: Final = 1000  # of those we issued to, the newest: as many as the book holds

ROLES: Final[dict[Role, RoleName]] = {Role.MEMBER: "member", Role.INVITER: "inviter"}


class Lines(Protocol):
    """What this needs of `peers.links.Links`."""

    def views(self) -> tuple[PeerView, ...]: ...
    def link(self, node: NodeId, purpose: Purpose = Purpose.CONTROL) -> Link | None: ...
    async def enforce(self, *nodes: NodeId) -> None: ...


class Members:
    """One per node."""

    def __init__(self, *, membership: Membership, lines: Lines, db: Database) -> None:
        self._membership = membership
        self._lines = lines
        self._db = db

    async def views(self) -> tuple[MemberView, ...]:
        """This node first, then the others in the order of their ids. Empty while it belongs to no network."""
        if self._membership.network is None:
            return ()
        peers = {peer.record.node: peer for peer in self._lines.views()}
        own, known = self._membership.node, await self._certificates(peers)
        # An inviter may name anybody in a record; the founder names members.
        revoked = (record.node for record in self._membership.revocations.records() if record.proof is None)
        nodes = sorted({own, *known, *peers, *revoked}, key=lambda node: (node != own, node))
        below = self._below(known)
        return tuple(self._view(node, known.get(node), peers.get(node), below=below[node]) for node in nodes)

    async def revoke(self, node: NodeId) -> MemberView | Refusal:
        """Put `node` out: no certificate that it has is good any more, here now and elsewhere as soon as it is heard of. The
        answer's `below` went with it."""
        peers = {peer.record.node: peer for peer in self._lines.views()}
        known = await self._certificates(peers)
        if self._membership.has_network_key and node not in {view.node for view in await self.views()}:
            return NotFound(what=f"this node knows no member {short(node)}: `swarmd members` shows all")
        below = self._below(known)[node]
        record = await self._membership.revoke(node, certificate=known.get(node))
        if isinstance(record, Refusal):
            return record
        await self._lines.enforce(node)
        return self._view(node, known.get(node), peers.get(node), below=below)

    async def _certificates(self, peers: dict[NodeId, PeerView]) -> dict[NodeId, Certificate]:
        """The newest one that we issued to each node, or that it showed us."""
        found: list[Certificate] = []
        for data in await sql.read_issued_newest(self._db, limit=MAX_LISTED):
            issued = certificates.decode(data)
            assert isinstance(issued, Certificate), f"the stored certificate is not one: {issued}"
            found.append(issued)
        links = [link for node in peers if (link := self._lines.link(node)) is not None]
        found.extend(shown for link in links if (shown := certificate_of(link.connection)) is not None)
        known = {one.node: one for one in sorted(found, key=lambda one: one.issued_at)}
        if (own := self._membership.certificate) is not None:
            known[own.node] = own
        return known

    def _below(self, known: dict[NodeId, Certificate]) -> Counter[NodeId]:
        """How many of the members known here, and still in, each stands above."""
        covering = self._membership.revocations.covering
        chains = (one.chain() for one in known.values() if covering(one) is None)
        return Counter(node for chain in chains for node in {link.node for link in chain[1:]})

    def _view(self, node: NodeId, certificate: Certificate | None, peer: PeerView | None, *, below: int) -> MemberView:
        revocations = self._membership.revocations
        record = revocations.of_founder(node) if certificate is None else revocations.covering(certificate)
        return MemberView(
            node=node,
            role=None if certificate is None else ROLES[certificate.role],
            issued_at=None if certificate is None else certificate.issued_at,
            expires_at=None if certificate is None else certificate.expires_at,
            admitted_by=None if certificate is None else _issuer_of(certificate),
            below=below,
            revoked_at=None if record is None else record.revoked_at,
            connected=self._lines.link(node) is not None,
            last_seen=None if peer is None else peer.record.last_seen,
            is_self=node == self._membership.node,
        )


def _issuer_of(certificate: Certificate) -> NodeId | Literal["founder"]:
    return "founder" if certificate.parent is None else certificate.parent.node
