"""Joining, in virtual time: good codes, bad codes, and everybody who has none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from swarmd.discovery.invites import FRESH_BYTES, Invite, make_invite, read_invite
from swarmd.discovery.join import DEADLINE_S, Joined
from swarmd.domain.events import MemberAdmitted, NetworkFounded, NetworkJoined, PeerConnected
from swarmd.domain.ids import NetworkId, NodeId
from swarmd.domain.membership import NetworkCode, Phase
from swarmd.domain.peers import Endpoint, Purpose
from swarmd.domain.refusals import BadCode, Expired, Forbidden, Invalid, NoAnswer, OtherNetwork, UsedUp
from swarmd.kit.world import seeded_world
from swarmd.peers import hello as hellos
from swarmd.transport.connection import Connection
from swarmd.transport.doors import Admitted, TurnedAway
from tests.fakes.linked import Node, Swarm, joined, open_swarm

pytestmark = pytest.mark.looptime


@pytest.fixture
async def swarm(tmp_path: Path) -> AsyncIterator[Swarm]:
    async with open_swarm(tmp_path) as swarm:
        yield swarm


def code_of(node: Node, *, endpoints: tuple[Endpoint, ...], network: NetworkId | None = None) -> str:
    """A code with chosen addresses that `node` knows nothing about."""
    text, _ = make_invite(
        network=network or NetworkId("ab" * 32),
        inviter=node.id,
        endpoints=endpoints,
        now=node.member.world.clock.now(),
        fresh=node.member.world.entropy.token(FRESH_BYTES),
    )
    return text


async def test_a_code_makes_a_member_and_a_link(swarm: Swarm) -> None:
    a = await swarm.start(1)
    b = await swarm.start(2)
    with a.member.bus.spy() as at_a, b.member.bus.spy() as at_b:
        outcome = await joined(b, a)
        network = a.member.membership.network
        assert network is not None
        assert outcome == Joined(network=network, inviter=a.id, endpoint=a.at, linked=True, already=False)
        assert b.member.membership.network == network
        await at_a.wait_for(PeerConnected, lambda fact: fact.node == b.id)
        await at_b.wait_for(PeerConnected, lambda fact: fact.node == a.id)
        assert at_a.of(NetworkFounded) == [NetworkFounded(network=network)]
        assert at_a.of(MemberAdmitted) == [MemberAdmitted(node=b.id)]
        assert at_b.of(NetworkJoined) == [NetworkJoined(network=network, inviter=a.id)]
    code = await a.codes.network_code()
    assert isinstance(code, NetworkCode)
    assert (code.phase, code.peer_count) == (Phase.ESTABLISHED, 1)


async def test_a_used_code_says_that_it_is_used(swarm: Swarm) -> None:
    a = await swarm.start(1)
    b = await swarm.start(2)
    c = await swarm.start(3)
    text = await a.code()
    assert isinstance(await b.joiner.join(text), Joined)
    assert await c.joiner.join(text) == UsedUp()
    assert c.member.membership.network is None
    again = await b.joiner.join(text)  # the member itself is not told off
    assert isinstance(again, Joined)
    assert again.already
    assert again.linked


async def test_an_expired_code_is_refused_by_both_sides(swarm: Swarm) -> None:
    later = seeded_world(3, start=seeded_world(1).clock.now() + 2 * 86400)
    a = await swarm.start(1)
    b = await swarm.start(2)
    c = await swarm.start(3, world=later)
    code = await a.codes.network_code()
    assert isinstance(code, NetworkCode)
    assert await c.joiner.join(code.code) == Expired(expired_at=code.expires_at)
    ended = float(int(seeded_world(1).clock.now()) - 5)
    async with a.member.db.transaction() as tx:  # only the inviter's clock says so
        await tx.execute("UPDATE invites SET expires_at = ?", (ended,))
    assert await b.joiner.join(code.code) == Expired(expired_at=ended)


async def test_a_changed_or_strange_text_is_no_code(swarm: Swarm) -> None:
    a = await swarm.start(1)
    b = await swarm.start(2)
    text = await a.code()
    other = "A" if text[40] != "A" else "B"
    for wrong in (text[:40] + other + text[41:], text[:-1], text[10:], "", "hello", "x" * 5000):
        assert isinstance(await b.joiner.join(wrong), BadCode), wrong
    for wrong in ("/ip4/127.0.0.1", "/ip4/0.0.0.0/tcp/1", "/ip4/192.0.2.1/tcp/1"):
        assert isinstance(await b.joiner.join(wrong), Invalid), wrong
    assert isinstance(await b.joiner.join(text), Joined)


async def test_nobody_at_the_address_and_nobody_who_knows_the_code(swarm: Swarm) -> None:
    a = await swarm.start(1)
    b = await swarm.start(2)
    nobody = await b.joiner.join(code_of(a, endpoints=(Endpoint("127.0.0.1", 1),)))
    assert isinstance(nobody, NoAnswer)
    assert "127.0.0.1:1" in nobody.sentence
    unknown = await b.joiner.join(code_of(a, endpoints=(a.at,)))  # well made, but not by this node
    assert isinstance(unknown, NoAnswer)
    nowhere = await b.joiner.join(code_of(a, endpoints=(Endpoint("192.0.2.1", 1),)))
    assert isinstance(nowhere, Forbidden)
    assert b.member.membership.network is None


async def test_a_good_address_among_bad_ones_is_enough(swarm: Swarm) -> None:
    a = await swarm.start(1)
    b = await swarm.start(2)
    stranger = await swarm.start(3)
    a.announced[:] = [Endpoint("127.0.0.1", 1), stranger.at, a.at]
    outcome = await joined(b, a)
    assert outcome.endpoint == a.at
    assert outcome.linked


async def test_somebody_else_in_the_inviters_place_gets_nowhere(swarm: Swarm) -> None:
    a = await swarm.start(1)
    b = await swarm.start(2)
    thief = await swarm.start(3)
    # The thief has A's address and A's table of invites, but not A's key.
    await thief.member.membership.ensure_network()
    a.announced[:] = [thief.at]
    text = await a.code()
    for row in await a.member.db.fetch_all("SELECT * FROM invites"):
        async with thief.member.db.transaction() as tx:
            await tx.execute("INSERT INTO invites VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", tuple(row))
    admit = thief.member.gate.admit

    async def dishonest(hello: bytes, *, static_public: bytes, invite_tag: bytes | None) -> Admitted | TurnedAway:
        said = hellos.decode(hello)
        assert said is not None
        mine = hellos.encode(msgspec.structs.replace(said, expects=None))
        return await admit(mine, static_public=static_public, invite_tag=invite_tag)

    assert isinstance(await b.joiner.join(text), NoAnswer), "an honest node says that it was not meant"
    thief.member.gate.admit = dishonest
    outcome = await b.joiner.join(text)
    assert isinstance(outcome, Forbidden)
    assert "in place of" in outcome.sentence
    assert b.member.membership.network is None


async def test_our_own_code_and_a_second_network(swarm: Swarm) -> None:
    a = await swarm.start(1)
    b = await swarm.start(2)
    c = await swarm.start(3)
    own = await a.joiner.join(await a.code())
    assert isinstance(own, Forbidden)
    assert "this very node" in own.sentence
    await c.code()  # C has founded a network and is alone in it: it may leave
    alone = c.member.membership.network
    await joined(c, a)
    assert c.member.membership.network == a.member.membership.network != alone
    refusal = await a.joiner.join(await b.code())
    assert isinstance(refusal, OtherNetwork)
    member = await c.joiner.join(await b.code())
    assert isinstance(member, OtherNetwork)


async def test_a_node_that_lost_the_answer_joins_again_with_the_same_code(swarm: Swarm) -> None:
    a = await swarm.start(1)
    b = await swarm.start(2)
    text = await a.code()
    invite = read_invite(text, now=a.member.world.clock.now())
    assert isinstance(invite, Invite)
    visit = await b.doors.dial(a.at, expect=a.id, purpose=Purpose.CONTROL, invite=(invite.tag, invite.psk))
    assert isinstance(visit, Connection)
    visit.close("crash")
    assert b.member.membership.network is None
    outcome = await b.joiner.join(text)
    assert isinstance(outcome, Joined)


async def test_an_address_leads_to_a_member_only(swarm: Swarm) -> None:
    a = await swarm.start(1)
    b = await swarm.start(2)
    stranger = await swarm.start(3)
    address = a.at.multiaddr()
    none = await b.joiner.join(address)
    assert isinstance(none, Forbidden)
    assert "use an invite code" in none.sentence
    await joined(b, a)
    for text in (address, f"{address}/p2p/{a.id}"):
        outcome = await b.joiner.join(text)
        assert isinstance(outcome, Joined)
        assert outcome.already
        assert outcome.linked
    own = await a.joiner.join(f"{address}/p2p/{a.id}")
    assert isinstance(own, Forbidden)
    await stranger.code()
    assert isinstance(await stranger.joiner.join(address), NoAnswer)  # of another network: silence
    assert isinstance(await b.joiner.join(f"{address}/p2p/{NodeId('ab' * 32)}"), Forbidden)


async def test_an_inviter_that_cannot_be_reached_afterwards_is_dialled_for_ever(swarm: Swarm) -> None:
    a = await swarm.start(1)
    b = await swarm.start(2)
    text = await a.code()
    with a.member.bus.spy() as spy:
        joining = asyncio.ensure_future(b.joiner.join(text))
        await spy.wait_for(MemberAdmitted)
        await asyncio.sleep(0.011)  # the answer is there
        await swarm.stop(1)
        outcome = await joining
    assert isinstance(outcome, Joined)
    assert not outcome.linked
    assert b.member.membership.network is not None
    a = await swarm.start(1)
    assert await b.links.wait_for(a.id, timeout_s=35)


async def test_nobody_answers_within_the_deadline(swarm: Swarm) -> None:
    a = await swarm.start(1)
    b = await swarm.start(2)
    a.announced[:] = [Endpoint(f"10.0.0.{n}", 8810) for n in range(50, 58)]
    for n in range(50, 58):
        swarm.hub.partition("10.0.0.2", f"10.0.0.{n}")
    text = await a.code()
    began = asyncio.get_running_loop().time()
    assert isinstance(await b.joiner.join(text), NoAnswer)
    assert asyncio.get_running_loop().time() - began <= DEADLINE_S


async def open_trio(swarm: Swarm) -> tuple[Node, Node, Node]:
    """The second joined at the first, the third at the second, which has no certificate."""
    a, b, c = [await swarm.start(seed, is_open=True) for seed in (1, 2, 3)]
    await a.code()
    for guest, host in ((b, a), (c, b)):
        with guest.member.bus.spy() as spy:
            outcome = await guest.joiner.join(host.at.multiaddr())
            network = a.member.membership.network
            assert network is not None
            assert outcome == Joined(network=network, inviter=host.id, endpoint=host.at, linked=True, already=False)
            assert spy.of(NetworkJoined) == [NetworkJoined(network=network, inviter=host.id)]
    return a, b, c


async def all_linked(*nodes: Node) -> None:
    async with asyncio.timeout(60):
        while not all(
            one.links.link(other.id, purpose) for one in nodes for other in nodes if one is not other for purpose in Purpose
        ):
            await asyncio.sleep(0.1)


async def test_an_open_network_is_entered_by_an_address_and_again_after_a_restart(swarm: Swarm) -> None:
    a, b, c = await open_trio(swarm)
    await all_linked(a, b, c)
    assert b.member.membership.certificate is c.member.membership.certificate is None
    for seed in (2, 3):
        await swarm.stop(seed)
    b, c = [await swarm.start(seed, is_open=True) for seed in (2, 3)]
    await all_linked(a, b, c)
    await swarm.stop(1)
    d = await swarm.start(4, is_open=True)
    assert isinstance(await d.joiner.join(c.at.multiaddr()), Joined)
    await all_linked(b, c, d)
    again = await d.joiner.join(c.at.multiaddr())
    assert isinstance(again, Joined) and again.already
    refused = await b.codes.network_code()
    assert isinstance(refused, Forbidden) and "no certificate" in refused.sentence


async def test_nobody_enters_an_open_network_by_accident(swarm: Swarm) -> None:
    a, b, c = await open_trio(swarm)
    careful = await swarm.start(4)
    refused = await careful.joiner.join(a.at.multiaddr())
    assert isinstance(refused, Forbidden) and "network.admission" in refused.sentence
    assert careful.member.membership.network is None
    await joined(careful, a)  # by a code it may
    await asyncio.sleep(20)
    assert careful.links.connected() == (a.id,), "but nobody without a certificate is let in by it"
    assert careful.id not in (*b.links.connected(), *c.links.connected())
    assert {a.id, c.id} <= set(b.links.connected())


async def test_an_address_without_an_open_network_is_refused(swarm: Swarm) -> None:
    a = await swarm.start(1)
    b, fresh = [await swarm.start(seed, is_open=True) for seed in (2, 3)]
    none = await b.joiner.join(fresh.at.multiaddr())
    assert isinstance(none, Forbidden) and "`swarmd invite`" in none.sentence
    await a.code()
    assert isinstance(await b.joiner.join(a.at.multiaddr()), NoAnswer), "a closed one says nothing"
    await fresh.code()
    other = await b.joiner.join(f"{fresh.at.multiaddr()}/p2p/{a.id}")
    assert isinstance(other, Forbidden) and "in place of" in other.sentence
    assert b.member.membership.network is None


async def test_a_network_that_is_closed_lets_its_members_in_by_a_code(
    swarm: Swarm, caplog: pytest.LogCaptureFixture
) -> None:
    a, b, c = await open_trio(swarm)
    await all_linked(a, b, c)
    await swarm.stop(1)
    a = await swarm.start(1)
    with caplog.at_level(logging.WARNING):
        await asyncio.sleep(60)
    assert a.links.connected() == ()
    assert "ask for an invite code" in caplog.text
    assert 1 <= caplog.text.count("invited nodes alone") <= 2, "once at each of the two"
    redial = await b.joiner.join(a.at.multiaddr())
    assert isinstance(redial, Forbidden) and "ask for an invite code" in redial.sentence
    await joined(b, a)
    await asyncio.sleep(10)
    assert a.links.connected() == (b.id,) and b.member.membership.certificate is not None
    await swarm.stop(3)
    c = await swarm.start(3)
    await asyncio.sleep(40)
    assert c.links.connected() == ()
    await joined(c, a)
    await all_linked(a, b, c)
