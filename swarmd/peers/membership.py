"""Our network and what proves that we belong to it. The owner of the table `membership`.

A node founds a network the first time somebody asks it for a code, not when it starts: a node that is going to join
another network would otherwise leave a network behind that nobody wanted.

Renewal (`peers/renewal.py`) uses `issue_for` (what an inviter gives a member it knows already) and `adopt` (what the member
does with it).

Who may issue: whoever has the network key, and members whose certificate says inviter, is valid, and leaves room in the
chain below it. In an open network (`network.admission = "open"`) a node may be a member without a certificate: it states
the network's id, and that is all there is to know about it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from swarmd.domain.events import NetworkFounded
from swarmd.domain.ids import NetworkId, NodeId, short
from swarmd.domain.peers import Endpoint
from swarmd.domain.refusals import Busy, Forbidden, OtherNetwork, Refusal
from swarmd.identity import certificates, revocations
from swarmd.identity.certificates import MAX_CHAIN, Certificate, Role
from swarmd.identity.keys import NetworkKey, NodeKey, ensure_network_key, read_network_key
from swarmd.identity.revocations import Revocation
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk
from swarmd.kit.world import World
from swarmd.peers.book import PeerBook
from swarmd.peers.revocation_list import RevocationList
from swarmd.store import network as sql
from swarmd.store import peers as peers_sql
from swarmd.store.database import Database, Transaction
from swarmd.store.network import MembershipRow
from swarmd.store.peers import Source

FOUNDER_LIFE_S: Final = 10 * 365 * 24 * 3600.0
"""The founder holds the network key, so its certificate protects nothing that the key would not give away anyhow."""
FOUNDER_RENEWAL_S: Final = FOUNDER_LIFE_S / 2

ADMISSION_IS_INVITE: Final = (
    'this node enters no open network, because network.admission is "invite": ask for an invite code, or set it to "open" '
    "and start again"
)

logger = logging.getLogger(__name__)


class Membership:
    """One per node. `load` before anything else."""

    def __init__(
        self,
        *,
        key: NodeKey,
        network_key_path: Path,
        db: Database,
        disk: Disk,
        world: World,
        bus: EventBus,
        book: PeerBook,
        is_open: bool = False,
    ) -> None:
        """`is_open`: this node lets in whoever states its network's id, and may belong to one without a certificate."""
        self.is_open: Final = is_open
        self._key = key
        self._network_key_path = network_key_path
        self._db = db
        self._disk = disk
        self._world = world
        self._bus = bus
        self._book = book
        self._network_key: NetworkKey | None = None
        self._network: NetworkId | None = None
        self._certificate: Certificate | None = None
        """Of `_network`, else None."""
        self._founded = False
        self.revocations = RevocationList(
            own=key.node, network=lambda: self._network, db=db, clock=world.clock, bus=bus,
            certificate=lambda: self._certificate,
        )  # fmt: skip

    async def load(self) -> None:
        """Read what the last run knew. Raises KeyFileError or OSError for a network key that cannot be read."""
        await self.revocations.load()
        row = await sql.read_membership(self._db)
        if row is None:
            return
        self._network, self._founded = row.network, row.founded
        if row.certificate is not None:
            certificate = certificates.decode(row.certificate)
            assert isinstance(certificate, Certificate), f"the stored certificate is not one: {certificate}"
            self._certificate = certificate
        if row.founded:
            await self._load_network_key(row)
        if not self.has_network_key and not self.is_valid:
            self._say_why_invalid()

    def _say_why_invalid(self) -> None:
        network, ours = (self._network or "")[:16], self._certificate
        if ours is None and not self.is_open:
            logger.warning(
                'network %s was entered without a certificate, and network.admission is "invite": this node takes part in '
                'nothing until it joins with an invite code, or the setting is "open" again',
                network,
            )
        elif ours is not None and self._world.clock.now() >= ours.expires_at:
            logger.warning("the membership in network %s has ended: join again with a new code", network)
        else:
            logger.warning("this node was put out of network %s: join again with a new code", network)

    @property
    def node(self) -> NodeId:
        return self._key.node

    @property
    def network(self) -> NetworkId | None:
        return self._network

    @property
    def certificate(self) -> Certificate | None:
        """Ours; it may have expired. None: we belong to no network, or to an open one without."""
        return self._certificate

    @property
    def founded(self) -> bool:
        """This node made its network."""
        return self._founded

    @property
    def has_valid_certificate(self) -> bool:
        """It is not over, and as far as we know neither it nor one above it was taken back."""
        ours = self._certificate
        return (
            ours is not None
            and self._world.clock.now() < ours.expires_at
            and self.revocations.covering(ours) is None
        )

    @property
    def is_valid(self) -> bool:
        """As far as we know, other members let us in."""
        if self.has_valid_certificate:
            return True
        return self.is_open and self._network is not None and self.revocations.of_founder(self.node) is None

    def shown_certificate(self) -> Certificate | None:
        """What we show of ourselves. One that does not hold stays at home where one can be a member without."""
        return self._certificate if not self.is_open or self.has_valid_certificate else None

    def takes_bare(self, node: NodeId) -> bool:
        """Whether `node` is a member for us without a certificate: in an open network, unless the founder put it out."""
        return self.is_open and self.revocations.of_founder(node) is None

    @property
    def has_network_key(self) -> bool:
        """This is the founder's node: it issues and revokes for the whole network."""
        return self._network_key is not None

    @property
    def may_invite(self) -> bool:
        """Whether this node can issue certificates."""
        return self.may_give(Role.MEMBER) is None

    def may_give(self, role: Role) -> Forbidden | None:
        """Why this node cannot admit anybody with that role."""
        if self.has_network_key:
            return None
        ours = self._certificate
        if ours is None:
            return Forbidden(
                what="this node has no certificate of its network and may not invite: ask for a code at the node that "
                "founded the network; where it is open, others join by the address of any member"
            )
        if ours.role is not Role.INVITER:
            return Forbidden(
                what="this node may not invite: ask for a code at the node that founded the network, or at an inviter "
                "(`swarmd members` shows who is one)"
            )
        if not self.has_valid_certificate:
            return Forbidden(what="this node's own membership has ended or was revoked: join again before inviting others")
        depth = len(ours.chain()) + 1  # of what we would issue
        if depth > MAX_CHAIN or (role is Role.INVITER and depth >= MAX_CHAIN):
            return Forbidden(
                what=f"this node may not admit {'anybody' if depth > MAX_CHAIN else 'inviters, only members'}: between the "
                f"founder and a member stand at most {MAX_CHAIN - 1} inviters; ask the founder for this code"
            )
        return None

    async def ensure_network(self) -> NetworkId | Forbidden:
        """Our network, founded now when there is none; Forbidden when we may not invite anybody into ours.

        Callers take turns: `discovery/codes` holds a lock.
        """
        if self._network is not None:
            return self.may_give(Role.MEMBER) or self._network
        key = await ensure_network_key(self._network_key_path, disk=self._disk, entropy=self._world.entropy)
        now = self._world.clock.now()
        certificate = certificates.issue(key, node=self.node, role=Role.INVITER, now=now, life_s=FOUNDER_LIFE_S)
        async with self._db.transaction() as tx:
            await sql.write_membership(tx, _row(certificate, founded=True, joined_at=now))
        self._network_key, self._certificate, self._founded = key, certificate, True
        self._network = key.network
        logger.info("founded network %s", key.network[:16])
        self._bus.publish(NetworkFounded(network=key.network))
        return key.network

    async def may_join(self, network: NetworkId) -> OtherNetwork | None:
        """Whether this node could become a member of `network`: it has none, has this one, or is alone in its own."""
        return await self._may_join(self._db, network)

    async def adopt(
        self, certificate: Certificate, *, inviter: NodeId, endpoints: tuple[Endpoint, ...]
    ) -> OtherNetwork | Forbidden | None:
        """Become a member by this certificate, and remember the inviter, in one transaction. Also takes a renewal."""
        now = self._world.clock.now()
        verdict = certificates.verify(
            certificate, network=certificate.network, now=now, revoked=self.revocations.covers
        )
        if isinstance(verdict, Refusal):
            return Forbidden(what=verdict.sentence)
        if certificate.node != self.node:
            return Forbidden(what=f"the certificate is for node {short(certificate.node)}, not for this one")
        return await self._enter(certificate.network, certificate, inviter=inviter, endpoints=endpoints)

    async def adopt_open(
        self, network: NetworkId, *, inviter: NodeId, endpoints: tuple[Endpoint, ...]
    ) -> OtherNetwork | Forbidden | None:
        """Become a member of an open network without a certificate, and remember who told of it, in one transaction."""
        if not self.is_open:
            return Forbidden(what=ADMISSION_IS_INVITE)
        if self._certificate is not None and self._network == network:
            return None  # nothing is thrown away for less
        return await self._enter(network, None, inviter=inviter, endpoints=endpoints)

    async def _enter(
        self, network: NetworkId, certificate: Certificate | None, *, inviter: NodeId, endpoints: tuple[Endpoint, ...]
    ) -> OtherNetwork | None:
        now = self._world.clock.now()
        async with self._db.transaction() as tx:
            # Inside the transaction: at this very moment we could be admitting somebody to the network we mean to leave.
            if (other := await self._may_join(tx, network)) is not None:
                return other
            changed = self.network is not None and self.network != network
            founded = self._founded and not changed
            if changed:
                await sql.forget_invitations(tx)
            data = None if certificate is None else certificates.encode(certificate)
            await sql.write_membership(
                tx, MembershipRow(network=network, certificate=data, founded=founded, joined_at=now)
            )
            await peers_sql.add_peer(tx, inviter, now=now)
            for endpoint in endpoints:
                await peers_sql.add_endpoint(tx, inviter, endpoint, source=Source.INVITE, now=now)
        if changed:
            self._network_key = None  # the file stays: nobody but its owner throws a key away
            self.revocations.clear()
        self._network, self._certificate, self._founded = network, certificate, founded
        return None

    def issue_for(self, node: NodeId, *, role: Role = Role.MEMBER) -> Certificate | Forbidden:
        """A certificate for `node`, not stored yet. For a node that we put out it begins after that, so that it holds; for
        one that was put out above us there is none."""
        if (refusal := self.may_give(role)) is not None:
            return refusal
        key = self._network_key or self._key
        parent = None if self.has_network_key else self._certificate
        now = self._world.clock.now()
        for record in self.revocations.against(node, parent=parent):
            if record.issuer != self._issuer:
                return Forbidden(
                    what=f"node {short(node)} was put out by {_name_of(record)}, above this node: ask there for a code"
                )
            now = max(now, record.revoked_at + 1)
        certificate = certificates.issue(key, node=node, role=role, now=now, parent=parent)
        if certificate.issued_at >= certificate.expires_at:
            return Forbidden(what="this node's own membership ends too soon to invite anybody: let it be renewed first")
        return certificate

    def revoked_at(self, node: NodeId) -> int | None:
        """When this node itself put `node` out, in unix seconds: codes made before that admit it no more."""
        records = self.revocations.against(node, parent=None if self.has_network_key else self._certificate)
        return next((record.revoked_at for record in records if record.issuer == self._issuer), None)

    def issued(self, certificate: Certificate) -> bool:
        """Whether this node has signed it, so that it may renew it."""
        return certificate.issuer == self._issuer

    @property
    def _issuer(self) -> NodeId | NetworkId:
        """As what this node signs."""
        return self.node if self._network_key is None else self._network_key.network

    async def revoke(self, node: NodeId, *, certificate: Certificate | None = None) -> Revocation | Forbidden | Busy:
        """Take back every certificate that `node` has. On the disk when this returns; `links.enforce` does the rest.

        `certificate`: the newest of that node that is known here. The founder puts out anybody but itself; an inviter only
        those it admitted, directly or through others, by that certificate.
        """
        if (refusal := self._may_revoke(node, certificate)) is not None:
            return refusal
        async with self._db.transaction() as tx:
            data = await sql.newest_issued(tx, node=node)
        issued = None if data is None else certificates.decode(data)
        proof = None if self.has_network_key else self._certificate
        # Never before what it takes back, or what proves us: our clock may have been put back, or it was a moment ago.
        begun = [one.issued_at for one in (issued, certificate, proof) if isinstance(one, Certificate)]
        at = max(self._world.clock.now(), *begun, 0)
        record = revocations.revoke(self._network_key or self._key, node, now=at, proof=proof)
        kept = await self.revocations.keep(record)
        return kept if isinstance(kept, Refusal) else record

    def _may_revoke(self, node: NodeId, certificate: Certificate | None) -> Forbidden | None:
        if self.has_network_key:
            if node == self.node:
                return Forbidden(what="a founder cannot put itself out: its network would belong to nobody")
            return None
        if not self.may_invite:
            return Forbidden(
                what="this node may not put anybody out: do it at the node that founded the network, or at the inviter that "
                "admitted the member (`swarmd members` shows who)"
            )
        if certificate is None or all(link.node != self.node for link in certificate.chain()[1:]):
            return Forbidden(
                what=f"node {short(node)} was not admitted by this node, as far as it knows: do it at the node that did, or "
                "at the one that founded the network"
            )
        return None

    async def _may_join(self, source: Database | Transaction, network: NetworkId) -> OtherNetwork | None:
        ours = self.network
        if ours is None or ours == network:
            return None
        # Whoever did not found its network was invited by somebody, who is another member.
        alone = self._founded and not self._book.nodes() and not await sql.has_admitted(source, own=self.node)
        return None if alone else OtherNetwork(network=ours)

    async def _load_network_key(self, row: MembershipRow) -> None:
        key = await read_network_key(self._network_key_path, disk=self._disk)
        if key is None or key.network != row.network:
            logger.warning(
                "the key of network %s is not in %s: this node stays an inviter, and can neither renew nor put out whom the "
                "key admitted",
                row.network[:16],
                self._network_key_path,
            )
            return
        self._network_key = key
        certificate, now = self._certificate, self._world.clock.now()
        assert certificate is not None, "load has set it"
        if certificate.expires_at - now > FOUNDER_RENEWAL_S:
            return
        fresh = certificates.issue(key, node=self.node, role=Role.INVITER, now=now, life_s=FOUNDER_LIFE_S)
        async with self._db.transaction() as tx:
            await sql.write_membership(tx, _row(fresh, founded=True, joined_at=row.joined_at))
        self._certificate = fresh


def _name_of(record: Revocation) -> str:
    return "the founder" if record.proof is None else f"node {short(NodeId(record.issuer))}"


def _row(certificate: Certificate, *, founded: bool, joined_at: float) -> MembershipRow:
    return MembershipRow(
        network=certificate.network,
        certificate=certificates.encode(certificate),
        founded=founded,
        joined_at=joined_at,
    )
