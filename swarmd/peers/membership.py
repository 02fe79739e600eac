"""Our network and what proves that we belong to it. The owner of the table `membership`.

A node founds a network the first time somebody asks it for a code, not when it starts: a node that is going to join
another network would otherwise leave a network behind that nobody wanted.

Renewal (`peers/renewal.py`) uses `issue_for` (what an inviter gives a member it knows already) and `adopt` (what the member
does with it); members with the role of an inviter have theirs in `may_invite` and `issue_for`.
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
from swarmd.identity.certificates import Certificate, Role
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
    ) -> None:
        self._key = key
        self._network_key_path = network_key_path
        self._db = db
        self._disk = disk
        self._world = world
        self._bus = bus
        self._book = book
        self._network_key: NetworkKey | None = None
        self._certificate: Certificate | None = None
        self._founded = False
        self.revocations = RevocationList(
            own=key.node, network=lambda: self.network, db=db, clock=world.clock, bus=bus
        )

    async def load(self) -> None:
        """Read what the last run knew. Raises KeyFileError or OSError for a network key that cannot be read."""
        await self.revocations.load()
        row = await sql.read_membership(self._db)
        if row is None:
            return
        certificate = certificates.decode(row.certificate)
        assert isinstance(certificate, Certificate), f"the stored certificate is not one: {certificate}"
        self._certificate, self._founded = certificate, row.founded
        if row.founded:
            await self._load_network_key(row)
        if not self.may_invite and self._world.clock.now() >= certificate.expires_at:
            logger.warning("the membership in network %s has ended: join again with a new code", row.network[:16])
        elif self.revocations.covers(certificate):
            logger.warning("this node was put out of network %s: join again with a new code", row.network[:16])

    @property
    def node(self) -> NodeId:
        return self._key.node

    @property
    def network(self) -> NetworkId | None:
        return None if self._certificate is None else self._certificate.network

    @property
    def certificate(self) -> Certificate | None:
        """Ours; it may have expired."""
        return self._certificate

    @property
    def founded(self) -> bool:
        """This node made its network."""
        return self._founded

    @property
    def is_valid(self) -> bool:
        """We have a certificate, it is not over, and as far as we know it was not taken back."""
        ours = self._certificate
        if ours is None or self._world.clock.now() >= ours.expires_at:
            return False
        return not any(self.revocations.covers(one) for one in ours.chain())

    @property
    def may_invite(self) -> bool:
        """Whether this node can issue certificates: today, whether it has the network key."""
        return self._network_key is not None

    async def ensure_network(self) -> NetworkId | Forbidden:
        """Our network, founded now when there is none; Forbidden when we may not invite anybody into ours.

        Callers take turns: `discovery/codes` holds a lock.
        """
        if self._certificate is not None:
            if self.may_invite:
                return self._certificate.network
            return Forbidden(what="this node may not invite: ask for a code at the node that founded the network")
        key = await ensure_network_key(self._network_key_path, disk=self._disk, entropy=self._world.entropy)
        now = self._world.clock.now()
        certificate = certificates.issue(key, node=self.node, role=Role.INVITER, now=now, life_s=FOUNDER_LIFE_S)
        async with self._db.transaction() as tx:
            await sql.write_membership(tx, _row(certificate, founded=True, joined_at=now))
        self._network_key, self._certificate, self._founded = key, certificate, True
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
        async with self._db.transaction() as tx:
            # Inside the transaction: at this very moment we could be admitting somebody to the network we mean to leave.
            if (other := await self._may_join(tx, certificate.network)) is not None:
                return other
            changed = self.network is not None and self.network != certificate.network
            founded = self._founded and not changed
            if changed:
                await sql.forget_invitations(tx)
            await sql.write_membership(tx, _row(certificate, founded=founded, joined_at=now))
            await peers_sql.add_peer(tx, inviter, now=now)
            for endpoint in endpoints:
                await peers_sql.add_endpoint(tx, inviter, endpoint, source=Source.INVITE, now=now)
        if changed:
            self._network_key = None  # the file stays: nobody but its owner throws a key away
            self.revocations.clear()
        self._certificate, self._founded = certificate, founded
        return None

    def issue_for(self, node: NodeId, *, role: Role = Role.MEMBER) -> Certificate | Forbidden:
        """A certificate for `node`, not stored yet. For a revoked node it begins after the revocation, so that it holds."""
        if self._network_key is None:
            return Forbidden(what="this node has no network key and cannot issue certificates")
        now, revoked_at = self._world.clock.now(), self.revocations.revoked_at(node)
        if revoked_at is not None:
            now = max(now, revoked_at + 1)
        return certificates.issue(self._network_key, node=node, role=role, now=now)

    async def revoke(self, node: NodeId) -> Revocation | Forbidden | Busy:
        """Take back every certificate that `node` has. On the disk when this returns; `links.enforce` does the rest.

        Today only the founder may; inviters will sign theirs with their node key, for those below them.
        """
        if self._network_key is None:
            return Forbidden(what="this node may not put anybody out: do it at the node that founded the network")
        if node == self.node:
            return Forbidden(what="a founder cannot put itself out: its network would belong to nobody")
        async with self._db.transaction() as tx:
            data = await sql.newest_issued(tx, node=node)
        issued = None if data is None else certificates.decode(data)
        # Never before what it takes back: our clock may have been put back, or we admitted the node a moment ago.
        at = max(self._world.clock.now(), issued.issued_at if isinstance(issued, Certificate) else 0)
        record = revocations.revoke(self._network_key, node, now=at)
        kept = await self.revocations.keep(record)
        return kept if isinstance(kept, Refusal) else record

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
                "the key of network %s is not in %s: this node stays a member and cannot invite anybody",
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


def _row(certificate: Certificate, *, founded: bool, joined_at: float) -> MembershipRow:
    return MembershipRow(
        network=certificate.network,
        certificate=certificates.encode(certificate),
        founded=founded,
        joined_at=joined_at,
    )
