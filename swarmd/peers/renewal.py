"""Certificates live 90 days; a member has a new one long before that, from the node that issued the one it has.

From no other: one that got a new certificate elsewhere would not be below its inviter any more, who could not put it out,
and it would stay when its inviter is put out. So whom an inviter admitted it renews, and the founder the others.

Asking and answering are both here. The founder renews its own certificate when it starts (`peers.membership`). A member
whose certificate is over has no links to ask over: it joins again, by a new code. So does one whose inviter is gone for
good: from half of its certificate's life on, a code is used although it is still a member (`discovery/join.py`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from swarmd.domain.events import PeerConnected
from swarmd.domain.ids import NodeId, short
from swarmd.domain.peers import PeerIdentity, Purpose
from swarmd.domain.refusals import Forbidden, Refusal
from swarmd.identity import certificates
from swarmd.identity.certificates import Certificate
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Ready
from swarmd.kit.world import World
from swarmd.peers.membership import Membership
from swarmd.store import network as sql
from swarmd.store.database import Database, Transaction
from swarmd.transport.rpc import Dispatcher, Link, LinkLost, StreamReset
from swarmd.wire.events import TooManyStreams
from swarmd.wire.messages import Refused, Renew, Renewed

CHECK_S: Final = 6 * 3600.0  # half a life is 45 days: a few checks a day are plenty, and cost nothing when there is time
ASK_TIMEOUT_S: Final = 10.0  # one signature and one sync of the issuer's disk; as long as a silent link lives

logger = logging.getLogger(__name__)


class Lines(Protocol):
    """What renewal needs of `peers.links.Links`."""

    def issuers(self) -> tuple[NodeId, ...]: ...
    def link(self, node: NodeId, purpose: Purpose = Purpose.CONTROL) -> Link | None: ...


def is_due(certificate: Certificate, *, now: float) -> bool:
    """Less than half of its life is left."""
    return certificate.expires_at - now < (certificate.expires_at - certificate.issued_at) / 2


class Renewal:
    """See the module. A service; answers others before it runs."""

    name = "renewal"

    def __init__(
        self, *, membership: Membership, lines: Lines, dispatcher: Dispatcher, db: Database, world: World, bus: EventBus
    ) -> None:
        self._membership = membership
        self._lines = lines
        self._db = db
        self._clock = world.clock
        self._bus = bus
        dispatcher.answer(Renew, self._asked)

    async def run(self, ready: Ready) -> None:
        """Look now, every CHECK_S, and whenever a link comes up: perhaps the first to an issuer for weeks."""
        with self._bus.tap(PeerConnected) as tap:
            ready()
            while True:
                await self.look()
                try:
                    async with asyncio.timeout(CHECK_S):
                        await anext(tap)
                except TimeoutError:
                    continue
                tap.drain()  # one look is for all of them

    async def look(self) -> bool:
        """Ask for a new certificate if ours is half over. True: we have one."""
        ours = self._membership.certificate
        if ours is None or self._membership.has_network_key or not is_due(ours, now=self._clock.now()):
            return False
        for node in self._lines.issuers():
            if ours.parent is not None and node != ours.issuer:
                continue  # which of the others is the founder, no certificate says: those without a parent ask them all
            fresh = await self._ask(node, ours)
            refusal = fresh if isinstance(fresh, Refusal) else await self._take(fresh, ours, issuer=node)
            if refusal is None:
                return True
            logger.info("node %s does not renew our membership: %s", short(node), refusal.sentence)
        return False

    async def _ask(self, node: NodeId, ours: Certificate) -> Certificate | Forbidden:
        link = self._lines.link(node)
        if link is None:
            return Forbidden(what="the link is gone")
        try:
            reply = await link.call(Renew(certificate=certificates.encode(ours)), Renewed, timeout_s=ASK_TIMEOUT_S)
        except (LinkLost, StreamReset, TooManyStreams, TimeoutError) as error:
            return Forbidden(what=str(error) or "no answer in time")
        if isinstance(reply, Refused):
            return Forbidden(what=reply.sentence)
        return certificates.decode(reply.message.certificate)

    async def _take(self, fresh: Certificate, ours: Certificate, *, issuer: NodeId) -> Refusal | None:
        if fresh.network != ours.network or fresh.expires_at <= ours.expires_at:
            return Forbidden(what="its certificate is for another network, or ends no later than ours")
        refusal = await self._membership.adopt(fresh, inviter=issuer, endpoints=())
        if refusal is None:
            logger.info("node %s renewed our membership", short(issuer))
        return refusal

    async def _asked(self, message: Renew, payload: memoryview, peer: PeerIdentity) -> Renewed | Refusal:
        """Judged as at the gate, by the certificate alone. Whoever asks again gets what it got: an answer may be lost, and
        nobody fills our table. On the disk before it is answered."""
        shown = certificates.decode(message.certificate)
        network, now = self._membership.network, self._clock.now()
        if network is None:
            return Forbidden(what="this node belongs to no network")
        if not isinstance(shown, Certificate):
            return shown
        if shown.node != peer.node:
            return Forbidden(what=f"the certificate is of node {short(shown.node)}, not of the one that asks")
        good = self._verified(shown)
        if not isinstance(good, Certificate):
            return good
        if not self._membership.issued(good):
            return Forbidden(what="another node has issued this certificate, and renews it")
        fresh = self._membership.issue_for(peer.node, role=good.role)
        if not isinstance(fresh, Certificate):
            return fresh
        async with self._db.transaction() as tx:
            before = await self._newest(tx, peer.node)
            # Read again in the transaction: it may have been put out since.
            if not isinstance(good := self._verified(shown), Certificate):
                return good
            if before is not None and before.role is good.role and not is_due(before, now=now):
                return Renewed(certificate=certificates.encode(before))
            if fresh.expires_at <= good.expires_at:
                return Forbidden(what="this node's own membership ends no later: once it is renewed, it renews others")
            data = certificates.encode(fresh)
            await sql.forget_renewals(tx, node=peer.node)
            await sql.add_issued(tx, node=peer.node, tag=None, certificate=data, issued_at=now)
        logger.info("renewed the membership of node %s", short(peer.node))
        return Renewed(certificate=data)

    async def _newest(self, tx: Transaction, node: NodeId) -> Certificate | None:
        data = await sql.newest_issued(tx, node=node)
        found = None if data is None else certificates.decode(data)
        return found if isinstance(found, Certificate) and isinstance(self._verified(found), Certificate) else None

    def _verified(self, certificate: Certificate) -> Certificate | Refusal:
        network = self._membership.network
        assert network is not None, "the caller has looked"
        return certificates.verify(
            certificate, network=network, now=self._clock.now(), revoked=self._membership.revocations.covers
        )
