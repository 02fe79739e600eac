"""The invites this node gave and what they were spent on. The owner of the tables `invites` and `issued_certificates`.

A use is spent and the certificate stored in one transaction, before anybody hears of either. After a crash, or an
answer that got lost, the same node comes again with the same invite and gets the same certificate; no use is lost and
none is given away twice.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Final

from swarmd.domain.events import MemberAdmitted
from swarmd.domain.ids import NodeId, short
from swarmd.domain.membership import InviteRecord, InviteState, InviteView
from swarmd.domain.refusals import Busy, Expired, Forbidden, NotFound, UsedUp
from swarmd.identity import certificates
from swarmd.identity.certificates import Role
from swarmd.kit.bus import EventBus
from swarmd.kit.world import Clock
from swarmd.peers.membership import Membership
from swarmd.store import network as sql
from swarmd.store.database import Database

MAX_LIVE_INVITES: Final = 64  # codes somebody may still come with; more than that is a script running wild
MEMORY_S: Final = 7 * 24 * 3600.0  # how long a spent or expired code is answered with its reason
MAX_SPENT_INVITES: Final = 192
"""Remembered beyond those; the oldest go first. With the live ones 256 rows: a list a person can still look through, and
making and cancelling codes for ever fills no disk."""

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
            await sql.forget_spare_invites(tx, now=now, keep=MAX_SPENT_INVITES)
            if await sql.count_live_invites(tx, now=now) >= MAX_LIVE_INVITES:
                return Busy(
                    what=f"{MAX_LIVE_INVITES} invite codes are out, and no more may be: cancel one first "
                    "(`swarmd invite --list` shows them, `swarmd invite --cancel ID` ends one)"
                )
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

    async def burn(self, tag: bytes) -> None:
        """`withdraw`, because somebody guessed the words of its short code wrong."""
        async with self._db.transaction() as tx:
            await sql.burn_invite(tx, tag)

    async def withdraw_short(self) -> None:
        """The short codes of an earlier run: nobody knows their words any more."""
        async with self._db.transaction() as tx:
            await sql.cancel_short_invites(tx)

    async def views(self) -> tuple[InviteView, ...]:
        """Every invite that is remembered, newest first."""
        now = self._clock.now()
        return tuple(invite.view(now=now) for invite in await sql.read_invites(self._db))

    async def cancel(self, id: str) -> InviteView | NotFound:
        """`withdraw`, by the id people see. An invite that was spent already stays what it is."""
        now = self._clock.now()
        async with self._db.transaction() as tx:
            invite = next((one for one in await sql.read_invites(tx) if one.id == id), None)
            if invite is None:
                return NotFound(what=f"this node remembers no invite {id[:32]!r}: `swarmd invite --list` shows all")
            live = invite.state(now=now) is InviteState.LIVE
            if live:
                await sql.cancel_invite(tx, invite.tag)
                invite = replace(invite, cancelled=True)
        if live:
            logger.info("invite %s was cancelled", invite.id)
        return invite.view(now=now)

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
        async with self._db.transaction() as tx:
            invite = await sql.read_invite(tx, tag)
            certificate = self._membership.issue_for(node, role=_role_of(invite))
            if isinstance(certificate, Forbidden):
                return certificate
            revoked_at = self._membership.revoked_at(node)
            if invite is not None and revoked_at is not None and invite.created_at <= revoked_at:
                return _PUT_OUT
            before = await sql.read_issued(tx, tag=tag, node=node)
            if before is not None:
                return Redeemed(certificate=before)
            if invite is None:
                return _WITHDRAWN
            refusal = _spent(invite, now=now)
            if refusal is not None:
                return refusal
            data = certificates.encode(certificate)
            await sql.spend_invite(tx, tag)
            await sql.add_issued(tx, node=node, tag=tag, certificate=data, issued_at=now)
        logger.info("admitted node %s", short(node))
        self._bus.publish(MemberAdmitted(node=node))
        return Redeemed(certificate=data)


def _role_of(invite: InviteRecord | None) -> Role:
    """Of the certificate that the invite brings; without one, nobody gets any."""
    return Role.MEMBER if invite is None else Role[invite.role.upper()]


_WITHDRAWN: Final = Forbidden(what="this invite code was withdrawn: ask for a new one")

_PUT_OUT: Final = Forbidden(what="this node was put out of the network after the code was made: only a newer code admits it")


def _spent(invite: InviteRecord, *, now: float) -> UsedUp | Expired | Forbidden | None:
    """Why nobody can join with this invite any more."""
    match invite.state(now=now):
        case InviteState.LIVE:
            return None
        case InviteState.USED:
            return UsedUp()
        case InviteState.EXPIRED:
            return Expired(expired_at=invite.expires_at)
        case InviteState.CANCELLED | InviteState.BURNT:
            return _WITHDRAWN
