"""Invites: counted, spent once, answered with reasons, safe against a crash in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

from swarmd.discovery.invites import FRESH_BYTES, make_invite
from swarmd.domain.events import MemberAdmitted
from swarmd.domain.ids import NodeId
from swarmd.domain.membership import InviteRecord, InviteState, InviteView
from swarmd.domain.peers import Endpoint
from swarmd.domain.refusals import Busy, Expired, Forbidden, NotFound, UsedUp
from swarmd.identity import certificates
from swarmd.identity.certificates import Certificate, Role
from swarmd.kit.world import SeededClock, World
from swarmd.peers.invitations import MAX_LIVE_INVITES, MAX_SPENT_INVITES, MEMORY_S, Redeemed
from tests.fakes.members import Member, open_member

GUEST, OTHER = NodeId("aa" * 32), NodeId("bb" * 32)


async def invited(a: Member, *, uses: int = 1, life_s: float = 3600) -> InviteRecord:
    network = await a.membership.ensure_network()
    assert not isinstance(network, Forbidden)
    _, invite = make_invite(
        network=network,
        inviter=a.key.node,
        endpoints=(Endpoint("10.0.0.1", 1),),
        now=a.world.clock.now(),
        life_s=life_s,
        uses=uses,
        fresh=a.world.entropy.token(FRESH_BYTES),
    )
    assert await a.invitations.add(invite) is None
    return invite


async def test_an_invite_becomes_a_certificate_once(world: World, tmp_path: Path) -> None:
    async with open_member(1, world=world, folder=tmp_path) as a:
        invite = await invited(a)
        assert await a.invitations.is_live(invite.tag)
        assert await a.invitations.psk_for(invite.tag) == invite.psk
        redeemed = await a.invitations.redeem(invite.tag, GUEST)
        assert isinstance(redeemed, Redeemed)
        certificate = certificates.decode(redeemed.certificate)
        assert isinstance(certificate, Certificate)
        assert a.membership.network is not None
        verdict = certificates.verify(certificate, network=a.membership.network, now=world.clock.now())
        assert verdict == certificate
        assert (certificate.node, certificate.role) == (GUEST, Role.MEMBER)
        assert not await a.invitations.is_live(invite.tag)
        assert await a.invitations.redeem(invite.tag, OTHER) == UsedUp()
        admitted = [fact for fact in a.bus.recent() if isinstance(fact, MemberAdmitted)]
        assert admitted == [MemberAdmitted(node=GUEST)]


async def test_the_same_node_gets_the_same_certificate_again_without_spending(world: World, tmp_path: Path) -> None:
    file = tmp_path / "swarmd.db"
    async with open_member(1, world=world, folder=tmp_path, database=file) as a:
        invite = await invited(a, uses=2)
        first = await a.invitations.redeem(invite.tag, GUEST)
    async with open_member(1, world=world, folder=tmp_path, database=file) as a:  # it crashed before it could answer
        assert await a.invitations.redeem(invite.tag, GUEST) == first
        assert a.bus.recent() == []
        assert isinstance(await a.invitations.redeem(invite.tag, OTHER), Redeemed)
        assert await a.invitations.redeem(invite.tag, NodeId("cc" * 32)) == UsedUp()
        assert await a.invitations.redeem(invite.tag, GUEST) == first


async def test_two_at_the_same_moment_do_not_share_one_use(world: World, tmp_path: Path) -> None:
    async with open_member(1, world=world, folder=tmp_path) as a:
        invite = await invited(a)
        outcomes = await asyncio.gather(*(a.invitations.redeem(invite.tag, node) for node in (GUEST, OTHER)))
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Redeemed", "UsedUp"]


async def test_an_expired_invite_is_answered_with_the_reason_for_a_week(world: World, tmp_path: Path) -> None:
    assert isinstance(world.clock, SeededClock)
    async with open_member(1, world=world, folder=tmp_path) as a:
        invite = await invited(a, life_s=60)
        world.clock.shift(61)
        assert await a.invitations.psk_for(invite.tag) == invite.psk
        assert await a.invitations.redeem(invite.tag, GUEST) == Expired(expired_at=invite.expires_at)
        world.clock.shift(MEMORY_S)
        assert await a.invitations.psk_for(invite.tag) is None


async def test_a_withdrawn_and_an_unknown_invite_admit_nobody(world: World, tmp_path: Path) -> None:
    async with open_member(1, world=world, folder=tmp_path) as a:
        invite = await invited(a)
        await a.invitations.withdraw(invite.tag)
        assert not await a.invitations.is_live(invite.tag)
        assert isinstance(await a.invitations.redeem(invite.tag, GUEST), Forbidden)
        assert isinstance(await a.invitations.redeem(b"unknown", GUEST), Forbidden)
        assert await a.invitations.psk_for(b"unknown") is None
        assert not await a.invitations.is_live(b"unknown")


async def test_the_list_says_what_became_of_each_and_holds_no_secret(world: World, tmp_path: Path) -> None:
    assert isinstance(world.clock, SeededClock)
    async with open_member(1, world=world, folder=tmp_path) as a:
        made: dict[InviteState, InviteRecord] = {}
        for state in (InviteState.EXPIRED, InviteState.USED, InviteState.CANCELLED, InviteState.LIVE):
            made[state] = await invited(a, life_s=60 if state is InviteState.EXPIRED else 3600)
            world.clock.shift(61)
        await a.invitations.redeem(made[InviteState.USED].tag, GUEST)
        await a.invitations.cancel(made[InviteState.CANCELLED].id)
        views = await a.invitations.views()
        assert [(view.id, view.state) for view in views] == [(made[state].id, state) for state in reversed(made)]
        assert [view.uses_left for view in views] == [1, 1, 0, 1]
        for invite in made.values():
            assert len(invite.id) == 16
            assert invite.psk.hex() not in repr(views) and repr(invite.psk) not in repr(views)
            assert invite.tag.hex() not in repr(views)


async def test_cancelling_changes_live_invites_only(world: World, tmp_path: Path) -> None:
    file = tmp_path / "swarmd.db"
    async with open_member(1, world=world, folder=tmp_path, database=file) as a:
        invite, spent = await invited(a, uses=2), await invited(a)
        await a.invitations.redeem(spent.tag, GUEST)
        for _ in range(2):  # the second one is told the same
            ended = await a.invitations.cancel(invite.id)
            assert isinstance(ended, InviteView)
            assert ended.state is InviteState.CANCELLED
        told = await a.invitations.cancel(spent.id)
        assert isinstance(told, InviteView)
        assert told.state is InviteState.USED
        for unknown in ("", "0" * 16, invite.id[:8], invite.id.upper() + "x", "%s'--"):
            assert isinstance(await a.invitations.cancel(unknown), NotFound)
    async with open_member(1, world=world, folder=tmp_path, database=file) as a:
        assert isinstance(await a.invitations.redeem(invite.tag, OTHER), Forbidden)


async def test_making_and_cancelling_for_ever_fills_no_disk(world: World, tmp_path: Path) -> None:
    async with open_member(1, world=world, folder=tmp_path) as a:
        kept = await invited(a)
        for _ in range(MAX_SPENT_INVITES + 5):
            await a.invitations.withdraw((await invited(a)).tag)
        last = await invited(a)
        views = await a.invitations.views()
        assert len(views) == MAX_SPENT_INVITES + 2
        assert {kept.id, last.id} <= {view.id for view in views if view.state is InviteState.LIVE}


async def test_codes_that_are_out_are_counted(world: World, tmp_path: Path) -> None:
    assert isinstance(world.clock, SeededClock)
    async with open_member(1, world=world, folder=tmp_path) as a:
        for _ in range(MAX_LIVE_INVITES):
            invite = await invited(a, life_s=60)
        one_more = InviteRecord(tag=b"more", psk=b"", created_at=0, expires_at=world.clock.now() + 60, uses_left=1)
        assert isinstance(await a.invitations.add(one_more), Busy)
        await a.invitations.redeem(invite.tag, GUEST)
        assert await a.invitations.add(one_more) is None
        world.clock.shift(61)
        await invited(a)
