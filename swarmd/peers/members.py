"""Who belongs to the network as far as this node knows, and putting somebody out of it.

The founder knows everybody it gave a certificate; other members know whom they are linked to or have in their book, and
of those away not what their certificates say. Everybody knows who was put out.
"""

from __future__ import annotations

from typing import Final, Protocol

from swarmd.domain.ids import NodeId, short
from swarmd.domain.membership import MemberView
from swarmd.domain.peers import PeerView, Purpose
from swarmd.domain.refusals import NotFound, Refusal
from swarmd.identity import certificates
from swarmd.identity.certificates import Certificate
from swarmd.peers.links import certificate_of
from swarmd.peers.membership import Membership
from swarmd.store import network as sql
from swarmd.store.database import Database
from swarmd.transport.rpc import Link

MAX_LISTED: Final = 1000  # of those we issued to, the newest: as many as the book holds


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
        own = self._membership.certificate
        if own is None:
            return ()
        peers = {peer.record.node: peer for peer in self._lines.views()}
        known = await self._certificates(own, peers)
        revoked = (record.node for record in self._membership.revocations.records())
        nodes = sorted({*known, *peers, *revoked}, key=lambda node: (node != own.node, node))
        return tuple(self._view(node, known.get(node), peers.get(node)) for node in nodes)

    async def revoke(self, node: NodeId) -> MemberView | Refusal:
        """Put `node` out: no certificate that it has is good any more, here now and elsewhere as soon as it is heard of."""
        if self._membership.may_invite and node not in {view.node for view in await self.views()}:
            return NotFound(what=f"this node knows no member {short(node)}: `swarmd members` shows all")
        record = await self._membership.revoke(node)
        if isinstance(record, Refusal):
            return record
        await self._lines.enforce(node)
        return next(view for view in await self.views() if view.node == node)

    async def _certificates(self, own: Certificate, peers: dict[NodeId, PeerView]) -> dict[NodeId, Certificate]:
        """The newest one that we issued to each node, or that it showed us."""
        found = [own]
        for data in await sql.read_issued_newest(self._db, limit=MAX_LISTED):
            issued = certificates.decode(data)
            assert isinstance(issued, Certificate), f"the stored certificate is not one: {issued}"
            found.append(issued)
        links = [link for node in peers if (link := self._lines.link(node)) is not None]
        found.extend(shown for link in links if (shown := certificate_of(link.connection)) is not None)
        return {one.node: one for one in sorted(found, key=lambda one: one.issued_at)}

    def _view(self, node: NodeId, certificate: Certificate | None, peer: PeerView | None) -> MemberView:
        revocations = self._membership.revocations
        is_out = certificate is None or any(map(revocations.covers, certificate.chain()))
        return MemberView(
            node=node,
            role=None if certificate is None else certificate.role.name.lower(),
            issued_at=None if certificate is None else certificate.issued_at,
            expires_at=None if certificate is None else certificate.expires_at,
            revoked_at=revocations.revoked_at(node) if is_out else None,
            connected=self._lines.link(node) is not None,
            last_seen=None if peer is None else peer.record.last_seen,
            is_self=node == self._membership.node,
        )
