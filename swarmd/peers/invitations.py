"""The invites this node gave and what they were spent on. The owner of the tables `invites` and `issued_certificates`.

A use is spent and the certificate stored in one transaction, before anybody hears of either. After a crash, or an
answer that got lost, the same node comes again with the same invite and gets the same certificate; no use is lost and
none is given away twice.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from swarmd.domain.events import MemberAdmitted
from swarmd.domain.ids import NodeId, short
from swarmd.domain.membership import InviteRecord
from swarmd.domain.refusals import Busy, Expired, Forbidden, UsedUp
from swarmd.identity import certificates
from swarmd.kit.bus import EventBus
from swarmd.kit.world import Clock
from swarmd.peers.membership import Membership
from swarmd.store import network as sql
from swarmd.store.database import Database

MAX_LIVE_INVITES: Final = 64  # codes somebody may still come with; more than that is a script running wild
MEMORY_S: Final = 7 * 24 * 3600.0  # how long a spent or expired code is answered with its reason

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redeemed:
    """An invite was turned into a certificate."""

    certificate: bytes


class Invitations:
    """One per node."""

    def __init__(self, *, membership: Membership, db: Database, clock: Clock, bus: EventBus) -> None:
        self._membership = membership
        self._db = db
        self._clock = clock
        self._bus = bus

    async def add(self, invite: InviteRecord) -> Busy | None:
        """From now on whoever knows the code's secret is let in. Busy when MAX_LIVE_INVITES codes are out."""
        now = self._clock.now()
        async with self._db.transaction() as tx:
            await sql.forget_old_invites(tx, before=now - MEMORY_S)
            if await sql.count_live_invites(tx, now=now) >= MAX_LIVE_INVITES:
                return Busy(what=f"{MAX_LIVE_INVITES} invite codes are out and unused: wait until one is used or expires")
            await sql.add_invite(tx, invite)
        return None

    async def is_live(self, tag: bytes) -> bool:
        """Whether somebody could still join with this invite."""
        invite = await sql.read_invite(self._db, tag)
        return invite is not None and _spent(invite, now=self._clock.now()) is None

    async def withdraw(self, tag: bytes) -> None:
        """Nobody joins with this invite any more. Who joined already stays a member."""
        async with self._db.transaction() as tx:
            await sql.cancel_invite(tx, tag)

    async def psk_for(self, tag: bytes) -> bytes | None:
        """Also of a spent or expired invite: only whoever proves to have the code is told that it is spent."""
        invite = await sql.read_invite(self._db, tag)
        if invite is None or self._clock.now() - invite.expires_at > MEMORY_S:
            return None
        return invite.psk

    async def redeem(self, tag: bytes, node: NodeId) -> Redeemed | UsedUp | Expired | Forbidden:
        """`node` has proven that it has this invite: spend a use and issue its certificate. Publishes
        MemberAdmitted."""
        now = self._clock.now()
        certificate = self._membership.issue_for(node)
        if isinstance(certificate, Forbidden):
            return certificate
        data = certificates.encode(certificate)
        async with self._db.transaction() as tx:
            before = await sql.read_issued(tx, tag=tag, node=node)
            if before is not None:
                return Redeemed(certificate=before)
            invite = await sql.read_invite(tx, tag)
            if invite is None:
                return _WITHDRAWN
            refusal = _spent(invite, now=now)
            if refusal is not None:
                return refusal
            await sql.spend_invite(tx, tag)
            await sql.add_issued(tx, node=node, tag=tag, certificate=data, issued_at=now)
        logger.info("admitted node %s", short(node))
        self._bus.publish(MemberAdmitted(node=node))
        return Redeemed(certificate=data)


_WITHDRAWN: Final = Forbidden(what="this invite code was withdrawn: ask for a new one")


def _spent(invite: InviteRecord, *, now: float) -> UsedUp | Expired | Forbidden | None:
    """Why nobody can join with this invite any more."""
    if invite.cancelled:
        return _WITHDRAWN
    if invite.uses_left <= 0:
        return UsedUp()
    if now >= invite.expires_at:
        return Expired(expired_at=invite.expires_at)
    return None
