"""A membership goes on as long as its node meets the founder now and then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from swarmd.discovery.join import Joined
from swarmd.domain.ids import NodeId
from swarmd.domain.membership import NewInvite
from swarmd.identity import certificates
from swarmd.identity.certificates import LIFE_S, Certificate, Role
from swarmd.identity.keys import NetworkKey, NodeKey
from swarmd.kit.world import SeededClock, World, seeded_world
from swarmd.peers import renewal
from swarmd.peers.renewal import is_due
from swarmd.wire.messages import Refused, Renew, Renewed
from tests.fakes.linked import Node, Swarm, joined, open_swarm

pytestmark = pytest.mark.looptime

HALF_S = LIFE_S / 2
CHECKED_S = 60.0  # in place of hours, in which the links of a test would ping ten thousand times


@pytest.fixture
async def swarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Swarm]:
    monkeypatch.setattr(renewal, "CHECK_S", CHECKED_S)
    async with open_swarm(tmp_path) as swarm:
        yield swarm


async def until(condition: Callable[[], bool], *, within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.05)


async def pair(swarm: Swarm, world: World) -> tuple[Node, Node]:
    """Founder and member with one clock."""
    a, b = await swarm.start(1, world=world), await swarm.start(2, world=world)
    await joined(b, a)
    await until(lambda: b.links.issuers() == (a.id,))
    return a, b


def shift(world: World, seconds: float) -> None:
    assert isinstance(world.clock, SeededClock)
    world.clock.shift(seconds)


def certificate(node: Node) -> Certificate:
    found = node.member.membership.certificate
    assert found is not None
    return found


async def asked(member: Node, founder: Node, shown: Certificate | bytes) -> Renewed | Refused:
    link = member.links.link(founder.id)
    assert link is not None
    data = shown if isinstance(shown, bytes) else certificates.encode(shown)
    reply = await link.call(Renew(certificate=data), Renewed, timeout_s=5)
    return reply if isinstance(reply, Refused) else reply.message


async def rows(founder: Node) -> int:
    return len(await founder.member.db.fetch_all("SELECT id FROM issued_certificates"))


def test_it_is_due_when_less_than_half_is_left() -> None:
    made = certificates.issue(NetworkKey(bytes([9]) * 32), node=NodeId("ab" * 32), role=Role.MEMBER, now=0)
    assert not is_due(made, now=HALF_S)
    assert is_due(made, now=HALF_S + 1)


async def test_a_member_gets_the_next_certificate_by_itself(swarm: Swarm) -> None:
    world = seeded_world(7)
    a, b = await pair(swarm, world)
    first = certificate(b)
    await asyncio.sleep(CHECKED_S * 2)
    assert certificate(b) == first, "not before it is half over"
    shift(world, HALF_S)
    await asyncio.sleep(CHECKED_S + 5)
    second = certificate(b)
    assert second.expires_at > first.expires_at + HALF_S
    assert b.member.membership.is_valid and not b.member.membership.founded
    await swarm.stop(2)
    b = await swarm.start(2, world=world)
    assert certificate(b) == second
    shift(world, HALF_S + 3600)
    await until(lambda: a.links.link(b.id) is not None)
    assert first.expires_at < world.clock.now(), "the old one would not have brought it back"


async def test_a_member_that_comes_back_late_renews_with_the_first_link_to_the_founder(swarm: Swarm) -> None:
    world = seeded_world(7)
    a, b = await pair(swarm, world)
    first = certificate(b)
    await swarm.stop(1)
    shift(world, HALF_S + 86400)
    await asyncio.sleep(CHECKED_S * 2)
    assert certificate(b) == first, "nobody is there to ask"
    a = await swarm.start(1, world=world)
    await until(lambda: certificate(b) != first)
    assert a.links.link(b.id) is not None


async def test_two_members_do_not_ask_each_other(swarm: Swarm) -> None:
    world = seeded_world(7)
    a, b = await pair(swarm, world)
    c = await swarm.start(3, world=world)
    await joined(c, a)
    await until(lambda: b.links.link(c.id) is not None)
    assert b.links.issuers() == (a.id,)
    assert a.links.issuers() == ()
    refused = await asked(b, c, certificate(b))
    assert isinstance(refused, Refused) and "another node has issued" in refused.sentence


async def test_asking_again_brings_the_same_one_and_fills_no_table(swarm: Swarm) -> None:
    world = seeded_world(7)
    a, b = await pair(swarm, world)
    first = certificate(b)
    assert await asked(b, a, first) == Renewed(certificate=certificates.encode(first))
    shift(world, HALF_S + 60)
    once = await asked(b, a, first)
    assert isinstance(once, Renewed) and once.certificate != certificates.encode(first)
    await asyncio.sleep(30)
    assert [await asked(b, a, first) for _ in range(5)] == [once] * 5
    assert await rows(a) == 2
    shift(world, HALF_S - 600)
    assert await b.renewal.look()
    assert await rows(a) == 2, "the old renewal made room"


async def test_certificates_that_do_not_hold_are_not_renewed(swarm: Swarm) -> None:
    world = seeded_world(7)
    a, b = await pair(swarm, world)
    now = world.clock.now()
    network_key = a.member.membership._network_key
    assert network_key is not None
    stranger = NetworkKey(bytes([77]) * 32)
    inviter = certificates.issue(network_key, node=NodeId("ef" * 32), role=Role.MEMBER, now=now)
    before = await rows(a)
    for shown, word in (
        (b"nonsense", "bytes"),
        (certificate(a), "not of the one that asks"),
        (inviter, "not of the one that asks"),
        (certificates.issue(stranger, node=b.id, role=Role.INVITER, now=now), "belongs to network"),
        (certificates.issue(network_key, node=b.id, role=Role.MEMBER, now=now - 2 * LIFE_S), "ended"),
    ):
        refused = await asked(b, a, shown)
        assert isinstance(refused, Refused) and word in refused.sentence, word
    record = await a.member.membership.revoke(b.id)
    assert record
    refused = await asked(b, a, certificate(b))
    assert isinstance(refused, Refused) and "was revoked" in refused.sentence
    assert await rows(a) == before


async def test_a_false_issuer_cannot_move_us_elsewhere(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    world = seeded_world(7)
    a, b = await pair(swarm, world)
    first = certificate(b)
    shift(world, HALF_S + 60)
    now = world.clock.now()
    elsewhere = certificates.issue(NetworkKey(bytes([77]) * 32), node=b.id, role=Role.MEMBER, now=now)
    forged = certificates.issue(NetworkKey(bytes([77]) * 32), node=NodeKey(bytes([5]) * 32).node, role=Role.MEMBER, now=now)
    monkeypatch.setattr(a.member.membership, "issue_for", lambda node, role: said[0])
    said = [elsewhere]
    for answer in (elsewhere, forged, certificates.issue(_key(a), node=b.id, role=Role.MEMBER, now=now - LIFE_S)):
        said[0] = answer
        await a.member.db.fetch_all("SELECT 1")
        assert not await b.renewal.look()
        assert certificate(b) == first


async def test_an_ended_member_joins_again_by_a_new_code(swarm: Swarm) -> None:
    world = seeded_world(7)
    a, b = await pair(swarm, world)
    await swarm.stop(2)
    shift(world, LIFE_S + 60)
    b = await swarm.start(2, world=world)
    await asyncio.sleep(60)
    assert b.links.connected() == ()
    outcome = await joined(b, a)
    assert outcome.linked and b.member.membership.is_valid


def _key(node: Node) -> NetworkKey:
    key = node.member.membership._network_key
    assert key is not None
    return key


async def branch(swarm: Swarm, world: World) -> tuple[Node, Node, Node]:
    """Founder, its inviter, and that one's member."""
    a, b, c = [await swarm.start(seed, world=world) for seed in (1, 2, 3)]
    for guest, host, role in ((b, a, "inviter"), (c, b, "member")):
        made = await host.codes.new_code(role=role)
        assert isinstance(made, NewInvite), made
        assert isinstance(await guest.joiner.join(made.code), Joined)
    await until(lambda: set(c.links.issuers()) == {a.id, b.id})
    return a, b, c


async def test_the_founder_renews_an_inviter_and_the_inviter_its_member(swarm: Swarm) -> None:
    world = seeded_world(7)
    a, b, c = await branch(swarm, world)
    inviters, members = certificate(b), certificate(c)
    shift(world, HALF_S + 60)
    await asyncio.sleep(CHECKED_S * 3)
    assert certificate(b).expires_at > inviters.expires_at and certificate(b).role is Role.INVITER
    fresh = certificate(c)
    assert fresh.expires_at > members.expires_at and fresh.parent == certificate(b)
    assert fresh.expires_at <= certificate(b).expires_at
    assert len(await a.member.db.fetch_all("SELECT id FROM issued_certificates WHERE node = ?", (c.id,))) == 0


async def test_nobody_else_renews_it_for_then_it_would_have_left_its_inviter(swarm: Swarm) -> None:
    world = seeded_world(7)
    a, b, c = await branch(swarm, world)
    shift(world, HALF_S + 60)
    refused = await asked(c, a, certificate(c))
    assert isinstance(refused, Refused) and "another node has issued" in refused.sentence
    assert isinstance(await asked(b, a, certificate(b)), Renewed)


async def test_an_inviter_that_ends_as_soon_renews_nobody(swarm: Swarm) -> None:
    world = seeded_world(7)
    _, b, c = await branch(swarm, world)
    await swarm.stop(1)
    shift(world, HALF_S + 60)
    await asyncio.sleep(5)
    before = await rows(b)
    refused = await asked(c, b, certificate(c))
    assert isinstance(refused, Refused) and "ends no later" in refused.sentence
    assert await rows(b) == before


async def test_a_member_whose_inviter_is_gone_for_good_uses_a_code_of_the_founder(swarm: Swarm) -> None:
    world = seeded_world(7)
    a, _, c = await branch(swarm, world)
    first = certificate(c)
    again = await c.joiner.join(await a.code())
    assert isinstance(again, Joined) and again.already and certificate(c) == first, "nothing is spent while all is well"
    await swarm.stop(2)
    shift(world, HALF_S + 60)
    await asyncio.sleep(CHECKED_S * 2)
    assert certificate(c) == first
    outcome = await c.joiner.join(await a.code())
    assert isinstance(outcome, Joined) and not outcome.already
    assert certificate(c).parent is None and certificate(c).expires_at > first.expires_at
