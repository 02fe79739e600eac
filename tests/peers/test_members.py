"""Who belongs to the network: what the founder knows, what others know, and putting somebody out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from swarmd.discovery.join import Joined
from swarmd.domain.events import MemberRevoked
from swarmd.domain.ids import NodeId
from swarmd.domain.membership import MemberView, NewInvite, RoleName
from swarmd.domain.refusals import Forbidden, NotFound
from swarmd.identity import revocations
from swarmd.identity.certificates import LIFE_S, Role
from swarmd.kit.world import World, seeded_world
from swarmd.peers.members import Members
from tests.fakes.linked import Node, Swarm, joined, open_swarm

pytestmark = pytest.mark.looptime


@pytest.fixture
async def swarm(tmp_path: Path) -> AsyncIterator[Swarm]:
    async with open_swarm(tmp_path) as swarm:
        yield swarm


def members(node: Node) -> Members:
    return Members(membership=node.member.membership, lines=node.links, db=node.member.db)


async def listed(node: Node) -> dict[NodeId, MemberView]:
    return {view.node: view for view in await members(node).views()}


async def trio(swarm: Swarm) -> tuple[Node, Node, Node]:
    world = seeded_world(7)
    a, b, c = [await swarm.start(seed, world=world) for seed in (1, 2, 3)]
    await joined(b, a)
    await joined(c, a)
    await asyncio.sleep(5)
    return a, b, c


async def test_a_node_without_a_network_has_no_members(swarm: Swarm) -> None:
    assert await members(await swarm.start(1)).views() == ()


async def test_the_founder_knows_everybody_it_admitted_also_those_away(swarm: Swarm) -> None:
    a, b, c = await trio(swarm)
    await swarm.stop(3)
    await asyncio.sleep(5)
    views = await listed(a)
    assert list(views) == [a.id, *sorted((b.id, c.id))]
    assert [(views[node.id].is_self, views[node.id].connected, views[node.id].role) for node in (a, b, c)] == [
        (True, False, "inviter"),
        (False, True, "member"),
        (False, False, "member"),
    ]
    for node in (b, c):
        view = views[node.id]
        assert view.issued_at is not None and view.expires_at == view.issued_at + LIFE_S
        assert view.last_seen is not None and view.revoked_at is None


async def test_another_member_knows_the_certificates_of_those_it_is_linked_to(swarm: Swarm) -> None:
    a, b, c = await trio(swarm)
    assert next(iter(await listed(b))) == b.id
    assert {node: view.role for node, view in (await listed(b)).items()} == {a.id: "inviter", b.id: "member", c.id: "member"}
    await swarm.stop(3)
    await asyncio.sleep(5)
    away = (await listed(b))[c.id]
    assert (away.role, away.issued_at, away.expires_at, away.connected) == (None, None, None, False)
    assert away.last_seen is not None


async def test_putting_out_is_said_by_everybody_until_the_node_is_admitted_again(swarm: Swarm) -> None:
    a, b, c = await trio(swarm)
    out = await members(a).revoke(c.id)
    assert isinstance(out, MemberView)
    assert out.revoked_at is not None and not out.connected
    await asyncio.sleep(2)
    for node in (a, b, c):
        assert (await listed(node))[c.id].revoked_at == out.revoked_at
        assert (await listed(node))[b.id].revoked_at is None
    await joined(c, a)
    await asyncio.sleep(5)
    for node in (a, b, c):
        assert (await listed(node))[c.id].revoked_at is None


async def test_who_may_not_and_whom_nobody_knows(swarm: Swarm) -> None:
    a, b, c = await trio(swarm)
    refused = await members(b).revoke(c.id)
    assert isinstance(refused, Forbidden) and "founded the network" in refused.sentence
    assert isinstance(await members(a).revoke(a.id), Forbidden)
    assert isinstance(await members(a).revoke(NodeId("00" * 32)), NotFound)
    assert a.member.membership.revocations.records() == ()


async def invited(guest: Node, host: Node, *, role: RoleName = "member") -> None:
    made = await host.codes.new_code(role=role)
    assert isinstance(made, NewInvite), made
    assert (made.invite.role, isinstance(await guest.joiner.join(made.code), Joined)) == (role, True)


async def family(swarm: Swarm, world: World) -> tuple[Node, ...]:
    """The founder, its two inviters, a member of each, and an inviter of the first with one member: seven nodes."""
    founder, first, second, mine, yours, third, deep = [await swarm.start(seed, world=world) for seed in range(1, 8)]
    for guest, host, role in (
        (first, founder, "inviter"), (second, founder, "inviter"), (mine, first, "member"), (yours, second, "member"),
        (third, first, "inviter"), (deep, third, "member"),
    ):  # fmt: skip
        await invited(guest, host, role=role)
    await asyncio.sleep(10)
    nodes = (founder, first, second, mine, yours, third, deep)
    assert all(len(node.links.connected()) == 6 for node in nodes)
    return nodes


def cut_off(node: Node, others: Sequence[Node]) -> bool:
    return node.links.connected() == () and all(node.id not in one.links.connected() for one in others)


async def test_everybody_sees_role_and_inviter(swarm: Swarm) -> None:
    nodes = founder, first, second, mine, yours, third, deep = await family(swarm, seeded_world(7))
    for node in nodes:
        views = await listed(node)
        assert {one.id: (views[one.id].role, views[one.id].admitted_by) for one in nodes} == {
            founder.id: ("inviter", "founder"), first.id: ("inviter", "founder"), second.id: ("inviter", "founder"),
            mine.id: ("member", first.id), yours.id: ("member", second.id), third.id: ("inviter", first.id),
            deep.id: ("member", third.id),
        }  # fmt: skip
        assert [views[one.id].below for one in nodes] == [0, 3, 1, 0, 0, 1, 0]


async def test_an_inviter_puts_out_its_member_and_everybody_cuts_it_within_seconds(swarm: Swarm) -> None:
    world = seeded_world(7)
    founder, first, second, mine, yours, third, deep = await family(swarm, world)
    others = (founder, first, second, yours, third, deep)
    with yours.member.bus.spy() as spy:
        out = await members(first).revoke(mine.id)
        assert isinstance(out, MemberView) and (out.revoked_at, out.connected) != (None, True)
        await asyncio.sleep(3)
        assert spy.of(MemberRevoked) == [MemberRevoked(node=mine.id)]
    assert cut_off(mine, others)
    assert not mine.member.membership.is_valid, "it was told"
    assert all(len(node.links.connected()) == 5 for node in others)
    await asyncio.sleep(120)
    assert cut_off(mine, others) and all(mine.id not in node.member.book for node in others)
    await swarm.stop(5)
    yours = await swarm.start(5, world=world)
    await asyncio.sleep(60)
    assert cut_off(mine, (founder, first, second, yours, third, deep)), "it is on the disk"
    # Nobody below the inviter lets it in again; the inviter does.
    made = await third.codes.new_code()
    assert isinstance(made, NewInvite)
    assert isinstance(await mine.joiner.join(made.code), Forbidden)
    await invited(mine, first)
    await asyncio.sleep(10)
    assert len(mine.links.connected()) == 6
    assert (await listed(founder))[mine.id].revoked_at is None


async def test_an_inviter_reaches_whom_its_inviters_admitted(swarm: Swarm) -> None:
    founder, first, second, mine, yours, third, deep = await family(swarm, seeded_world(7))
    out = await members(first).revoke(deep.id)
    assert isinstance(out, MemberView) and out.revoked_at is not None
    await asyncio.sleep(3)
    assert cut_off(deep, (founder, first, second, mine, yours, third))


async def test_an_inviter_cannot_put_out_anothers_member_nor_by_a_record_of_its_own_making(swarm: Swarm) -> None:
    nodes = founder, first, second, mine, yours, *_ = await family(swarm, seeded_world(7))
    for target in (yours, founder, second, first):
        refused = await members(first).revoke(target.id)
        assert isinstance(refused, Forbidden), target.id
    assert isinstance(await members(mine).revoke(yours.id), Forbidden)
    for target in (yours, founder, second):  # as a changed program would
        proof = first.member.membership.certificate
        record = revocations.revoke(first.member.key, target.id, now=first.member.world.clock.now(), proof=proof)
        assert await first.member.membership.revocations.keep(record) is True
        await first.links.enforce(target.id)
    await asyncio.sleep(5)
    assert not [fact for node in nodes for fact in node.member.bus.recent() if isinstance(fact, MemberRevoked)]
    assert all(len(node.member.membership.revocations.records()) == 3 for node in nodes), "everybody has heard it"
    assert all(len(node.links.connected()) == 6 for node in nodes), "and nobody cares"
    for node in nodes:
        assert (await listed(node))[yours.id].revoked_at is None
    await swarm.stop(3)
    await asyncio.sleep(5)
    second = await swarm.start(3, world=founder.member.world)
    await asyncio.sleep(40)
    assert len(second.links.connected()) == 6, "nor was it forgotten"


async def test_an_inviter_that_is_put_out_takes_along_whom_it_invited_until_the_founder_invites_them(swarm: Swarm) -> None:
    founder, first, second, mine, yours, third, deep = await family(swarm, seeded_world(7))
    out = await members(founder).revoke(first.id)
    assert isinstance(out, MemberView) and out.below == 3
    await asyncio.sleep(5)
    stay = (founder, second, yours)
    for node in (first, mine, third, deep):
        assert cut_off_from(node, stay) and not node.member.membership.is_valid
    assert all(len(node.links.connected()) == 2 for node in stay)
    gone = {first.id, mine.id, third.id, deep.id}
    assert {fact.node for fact in yours.member.bus.recent() if isinstance(fact, MemberRevoked)} == gone
    refusal = third.member.membership.may_give(Role.MEMBER)
    assert isinstance(refusal, Forbidden) and "revoked" in refusal.sentence
    await asyncio.sleep(60)
    for node in stay:
        assert {*node.member.book.nodes(), node.id} == {one.id for one in stay}, "nobody dials them for ever"
    await invited(mine, founder)
    await asyncio.sleep(10)
    assert mine.member.membership.is_valid and set(mine.links.connected()) >= {one.id for one in stay}
    assert cut_off_from(first, stay)


def cut_off_from(node: Node, others: Sequence[Node]) -> bool:
    return not {one.id for one in others} & set(node.links.connected()) and all(
        node.id not in one.links.connected() for one in others
    )


async def test_an_open_network_lists_members_without_certificates(swarm: Swarm) -> None:
    world = seeded_world(7)
    a, b, c = [await swarm.start(seed, world=world, is_open=True) for seed in (1, 2, 3)]
    await a.code()
    for guest in (b, c):
        assert isinstance(await guest.joiner.join(a.at.multiaddr()), Joined)
    await asyncio.sleep(5)
    for node in (a, b, c):
        views = await listed(node)
        assert set(views) == {a.id, b.id, c.id}
        assert {one.id: (views[one.id].role, views[one.id].admitted_by) for one in (a, b, c)} == {
            a.id: ("inviter", "founder"), b.id: (None, None), c.id: (None, None),
        }  # fmt: skip
    refused = await members(b).revoke(c.id)
    assert isinstance(refused, Forbidden) and "may not put anybody out" in refused.sentence
    out = await members(a).revoke(c.id)
    assert isinstance(out, MemberView) and out.revoked_at is not None
    await asyncio.sleep(5)
    assert cut_off(c, (a, b)) and not c.member.membership.is_valid
    assert (await listed(b))[c.id].revoked_at == out.revoked_at
