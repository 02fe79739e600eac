"""Founding, joining, switching, and what a restart finds."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from swarmd.domain.events import NetworkFounded
from swarmd.domain.ids import NetworkId, NodeId
from swarmd.domain.peers import Endpoint
from swarmd.domain.refusals import Forbidden, OtherNetwork
from swarmd.identity import certificates, revocations
from swarmd.identity.certificates import Certificate, Role
from swarmd.identity.keys import NetworkKey
from swarmd.identity.revocations import Revocation
from swarmd.kit.world import SeededClock, World
from swarmd.peers.membership import FOUNDER_LIFE_S
from swarmd.store import network as sql
from swarmd.store.peers import Source
from tests.fakes.members import Member, open_member

ELSEWHERE = NetworkKey(bytes([77]) * 32)
INVITER = NodeId("cd" * 32)
ENDPOINT = Endpoint("10.0.0.7", 8810)


def elsewhere(node: NodeId, world: World, *, life_s: float = certificates.LIFE_S) -> Certificate:
    return certificates.issue(ELSEWHERE, node=node, role=Role.MEMBER, now=world.clock.now(), life_s=life_s)


async def test_a_network_is_founded_once_and_found_again(world: World, tmp_path: Path) -> None:
    file = tmp_path / "swarmd.db"
    async with open_member(1, world=world, folder=tmp_path, database=file) as a:
        assert a.membership.network is None
        assert not a.membership.may_invite
        network = await a.membership.ensure_network()
        assert network == await a.membership.ensure_network()
        assert [fact for fact in a.bus.recent() if isinstance(fact, NetworkFounded)] == [NetworkFounded(network=network)]
        own = a.membership.certificate
        assert own is not None
        assert own.role is Role.INVITER
    async with open_member(1, world=world, folder=tmp_path, database=file) as a:
        assert a.membership.network == network
        assert a.membership.founded
        assert a.membership.may_invite
        assert a.membership.certificate == own


async def test_a_founder_without_its_key_stays_an_inviter(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "swarmd.db"
    async with open_member(1, world=world, folder=tmp_path, database=file) as a:
        network = await a.membership.ensure_network()
    (tmp_path / "network-1.key").unlink()
    with caplog.at_level(logging.WARNING):
        async with open_member(1, world=world, folder=tmp_path, database=file) as a:
            assert a.membership.network == network
            assert a.membership.may_invite and not a.membership.has_network_key
            assert await a.membership.ensure_network() == network
            assert isinstance(await a.membership.revoke(INVITER), Forbidden), "nor whom the key admitted"
            issued = a.membership.issue_for(INVITER)
            assert isinstance(issued, Certificate) and issued.issuer == a.key.node
    assert "stays an inviter" in caplog.text
    assert not (tmp_path / "network-1.key").exists()


async def test_a_founder_renews_its_own_certificate(world: World, tmp_path: Path) -> None:
    file = tmp_path / "swarmd.db"
    async with open_member(1, world=world, folder=tmp_path, database=file) as a:
        await a.membership.ensure_network()
    assert isinstance(world.clock, SeededClock)
    world.clock.shift(FOUNDER_LIFE_S * 0.6)
    for _ in range(2):
        async with open_member(1, world=world, folder=tmp_path, database=file) as a:
            own = a.membership.certificate
            assert own is not None
            assert own.expires_at > world.clock.now() + FOUNDER_LIFE_S * 0.9


async def test_a_node_becomes_a_member_and_remembers_its_inviter(world: World, tmp_path: Path) -> None:
    file = tmp_path / "swarmd.db"
    async with open_member(1, world=world, folder=tmp_path, database=file) as a:
        certificate = elsewhere(a.key.node, world)
        assert await a.membership.adopt(certificate, inviter=INVITER, endpoints=(ENDPOINT,)) is None
    async with open_member(1, world=world, folder=tmp_path, database=file) as a:
        assert a.membership.network == ELSEWHERE.network
        assert not a.membership.founded
        assert a.membership.certificate == certificate
        assert a.book.endpoints(INVITER) == (ENDPOINT,)
        refusal = await a.membership.ensure_network()
        assert isinstance(refusal, Forbidden)
        assert "may not invite" in refusal.sentence
        assert isinstance(a.membership.issue_for(INVITER), Forbidden)


async def test_a_renewal_is_adopted_like_the_first_certificate(world: World, tmp_path: Path) -> None:
    async with open_member(1, world=world, folder=tmp_path) as a:
        for life_s in (100.0, 200.0):
            certificate = elsewhere(a.key.node, world, life_s=life_s)
            assert await a.membership.adopt(certificate, inviter=INVITER, endpoints=()) is None
            assert a.membership.certificate == certificate


async def test_a_certificate_that_is_not_ours_or_not_valid_is_not_adopted(world: World, tmp_path: Path) -> None:
    async with open_member(1, world=world, folder=tmp_path) as a:
        foreign = await a.membership.adopt(elsewhere(INVITER, world), inviter=INVITER, endpoints=())
        assert isinstance(foreign, Forbidden)
        assert "not for this one" in foreign.sentence
        ended = await a.membership.adopt(elsewhere(a.key.node, world, life_s=0), inviter=INVITER, endpoints=())
        assert isinstance(ended, Forbidden)
        assert a.membership.network is None


async def test_a_founder_alone_may_switch_and_keeps_its_key_file(world: World, tmp_path: Path) -> None:
    async with open_member(1, world=world, folder=tmp_path) as a:
        await a.membership.ensure_network()
        assert await a.membership.may_join(ELSEWHERE.network) is None
        assert await a.membership.adopt(elsewhere(a.key.node, world), inviter=INVITER, endpoints=()) is None
        assert a.membership.network == ELSEWHERE.network
        assert not a.membership.may_invite
        assert not a.membership.founded
        assert (tmp_path / "network-1.key").exists()


async def test_a_node_with_others_in_its_network_does_not_switch(world: World, tmp_path: Path) -> None:
    async with open_member(1, world=world, folder=tmp_path) as a:
        network = await a.membership.ensure_network()
        assert not isinstance(network, Forbidden)
        await a.book.offer(INVITER, (), source=Source.OBSERVED)
        refusal = await a.membership.adopt(elsewhere(a.key.node, world), inviter=INVITER, endpoints=())
        assert refusal == OtherNetwork(network=network)
        assert a.membership.network == network
        assert await a.membership.may_join(network) is None
    async with open_member(2, world=world, folder=tmp_path) as b:
        await b.membership.adopt(elsewhere(b.key.node, world), inviter=INVITER, endpoints=())
        assert isinstance(await b.membership.may_join(NetworkId("00" * 32)), OtherNetwork)


async def test_an_ended_membership_is_said_at_the_start(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "swarmd.db"
    async with open_member(1, world=world, folder=tmp_path, database=file) as a:
        await a.membership.adopt(elsewhere(a.key.node, world, life_s=5), inviter=INVITER, endpoints=())
    assert isinstance(world.clock, SeededClock)
    world.clock.shift(6)
    with caplog.at_level(logging.WARNING):
        async with open_member(1, world=world, folder=tmp_path, database=file):
            pass
    assert "join again" in caplog.text


async def test_only_the_founder_puts_others_out_and_never_itself(world: World, tmp_path: Path) -> None:
    async with (
        open_member(1, world=world, folder=tmp_path) as a,
        open_member(2, world=world, folder=tmp_path) as b,
    ):
        assert isinstance(await b.membership.revoke(INVITER), Forbidden)
        await a.membership.ensure_network()
        assert isinstance(await a.membership.revoke(a.key.node), Forbidden)
        before = a.membership.issue_for(INVITER)
        record = await a.membership.revoke(INVITER)
        after = a.membership.issue_for(INVITER)
        assert isinstance(record, Revocation) and isinstance(before, Certificate) and isinstance(after, Certificate)
        assert record.covers(before)
        assert not record.covers(after), "in the very same second, it comes back"
        assert a.membership.is_valid


async def test_a_membership_that_was_taken_back_is_none_and_not_adopted(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "swarmd.db"
    async with open_member(1, world=world, folder=tmp_path, database=file) as a:
        certificate = elsewhere(a.key.node, world)
        assert await a.membership.adopt(certificate, inviter=INVITER, endpoints=()) is None
        assert a.membership.is_valid
        await a.membership.revocations.keep(revocations.revoke(ELSEWHERE, a.key.node, now=world.clock.now()))
        assert not a.membership.is_valid
        refusal = await a.membership.adopt(certificate, inviter=INVITER, endpoints=())
        assert isinstance(refusal, Forbidden) and "revoked" in refusal.sentence
    with caplog.at_level(logging.WARNING):
        async with open_member(1, world=world, folder=tmp_path, database=file) as a:
            assert not a.membership.is_valid
    assert "was put out" in caplog.text


async def test_a_revocation_covers_what_was_issued_before_the_clock_was_put_back(world: World, tmp_path: Path) -> None:
    assert isinstance(world.clock, SeededClock)
    async with open_member(1, world=world, folder=tmp_path) as a:
        await a.membership.ensure_network()
        issued = a.membership.issue_for(INVITER)
        assert isinstance(issued, Certificate)
        async with a.db.transaction() as tx:
            await sql.add_issued(tx, node=INVITER, tag=None, certificate=certificates.encode(issued), issued_at=1.0)
        world.clock.shift(-3600)
        record = await a.membership.revoke(INVITER)
        assert isinstance(record, Revocation) and record.covers(issued)


@asynccontextmanager
async def chain_of(count: int, *, world: World, folder: Path) -> AsyncIterator[list[Member]]:
    """A founder and `count` inviters, each admitted by the one before."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(open_member(1 + n, world=world, folder=folder)) for n in range(count + 1)]
        await nodes[0].membership.ensure_network()
        for above, own in pairwise(nodes):
            certificate = above.membership.issue_for(own.key.node, role=Role.INVITER)
            assert isinstance(certificate, Certificate), certificate
            assert await own.membership.adopt(certificate, inviter=above.key.node, endpoints=()) is None
        yield nodes


async def test_an_inviter_admits_members_and_inviters_as_long_as_the_chain_has_room(world: World, tmp_path: Path) -> None:
    async with chain_of(3, world=world, folder=tmp_path) as (founder, first, second, third):
        for node in (founder, first, second):
            assert node.membership.may_give(Role.MEMBER) is node.membership.may_give(Role.INVITER) is None
            assert await node.membership.ensure_network() == founder.membership.network
        assert third.membership.may_give(Role.MEMBER) is None
        refusal = third.membership.may_give(Role.INVITER)
        assert isinstance(refusal, Forbidden) and "at most 3 inviters" in refusal.sentence
        assert third.membership.issue_for(INVITER, role=Role.INVITER) == refusal
        member = third.membership.issue_for(INVITER)
        assert isinstance(member, Certificate) and len(member.chain()) == certificates.MAX_CHAIN
        assert certificates.verify(member, network=member.network, now=world.clock.now()) == member
        assert third.membership.issued(member) and not second.membership.issued(member)


async def test_whoever_is_no_valid_inviter_is_told_why_it_may_not_invite(world: World, tmp_path: Path) -> None:
    assert isinstance(world.clock, SeededClock)
    async with chain_of(1, world=world, folder=tmp_path) as (founder, first), open_member(
        9, world=world, folder=tmp_path
    ) as member:
        certificate = first.membership.issue_for(member.key.node)
        assert isinstance(certificate, Certificate)
        await member.membership.adopt(certificate, inviter=first.key.node, endpoints=())
        refusal = member.membership.may_give(Role.MEMBER)
        assert isinstance(refusal, Forbidden) and "at an inviter" in refusal.sentence
        assert isinstance(await member.membership.revoke(INVITER), Forbidden)
        world.clock.shift(certificates.LIFE_S)
        refusal = first.membership.may_give(Role.MEMBER)
        assert isinstance(refusal, Forbidden) and "has ended" in refusal.sentence
        assert isinstance(await first.membership.ensure_network(), Forbidden)
        assert founder.membership.may_invite


async def test_an_inviter_puts_out_those_below_it_and_nobody_else(world: World, tmp_path: Path) -> None:
    async with chain_of(2, world=world, folder=tmp_path) as (founder, first, second):
        member = second.membership.issue_for(INVITER)
        direct = founder.membership.issue_for(NodeId("ef" * 32))
        assert isinstance(member, Certificate) and isinstance(direct, Certificate)
        for node, certificate in ((direct.node, direct), (direct.node, None), (founder.key.node, None)):
            refusal = await first.membership.revoke(node, certificate=certificate)
            assert isinstance(refusal, Forbidden) and "was not admitted by this node" in refusal.sentence
        above = await second.membership.revoke(first.key.node, certificate=first.membership.certificate)
        assert isinstance(above, Forbidden)
        assert isinstance(await first.membership.revoke(first.key.node, certificate=first.membership.certificate), Forbidden)
        record = await first.membership.revoke(member.node, certificate=member)
        assert isinstance(record, Revocation) and record.proof == first.membership.certificate
        assert record.covers(member)
        again = first.membership.issue_for(member.node)
        assert isinstance(again, Certificate) and not record.covers(again), "it may let it in again"
        assert await second.membership.revocations.keep(record) is True
        refusal = second.membership.issue_for(member.node)
        assert isinstance(refusal, Forbidden) and "above this node" in refusal.sentence


async def test_an_open_network_is_entered_and_found_again_without_a_certificate(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "swarmd.db"
    async with open_member(1, world=world, folder=tmp_path, database=file) as a:
        refusal = await a.membership.adopt_open(ELSEWHERE.network, inviter=INVITER, endpoints=(ENDPOINT,))
        assert isinstance(refusal, Forbidden) and "network.admission" in refusal.sentence
        assert a.membership.network is None
    async with open_member(1, world=world, folder=tmp_path, database=file, is_open=True) as a:
        assert await a.membership.adopt_open(ELSEWHERE.network, inviter=INVITER, endpoints=(ENDPOINT,)) is None
    async with open_member(1, world=world, folder=tmp_path, database=file, is_open=True) as a:
        assert (a.membership.network, a.membership.certificate) == (ELSEWHERE.network, None)
        assert a.membership.is_valid and not a.membership.has_valid_certificate and not a.membership.founded
        assert a.book.endpoints(INVITER) == (ENDPOINT,)
        refusal = await a.membership.ensure_network()
        assert isinstance(refusal, Forbidden) and "no certificate" in refusal.sentence
        assert isinstance(await a.membership.adopt_open(NetworkId("00" * 32), inviter=INVITER, endpoints=()), OtherNetwork)
        await a.membership.revocations.keep(revocations.revoke(ELSEWHERE, a.key.node, now=world.clock.now()))
        assert not a.membership.is_valid
    with caplog.at_level(logging.WARNING):
        async with open_member(1, world=world, folder=tmp_path, database=file) as a:
            assert not a.membership.is_valid
    assert 'network.admission is "invite"' in caplog.text


async def test_a_certificate_is_not_given_up_for_an_open_entry(world: World, tmp_path: Path) -> None:
    async with open_member(1, world=world, folder=tmp_path, is_open=True) as a:
        certificate = elsewhere(a.key.node, world)
        assert await a.membership.adopt(certificate, inviter=INVITER, endpoints=()) is None
        assert await a.membership.adopt_open(ELSEWHERE.network, inviter=INVITER, endpoints=()) is None
        assert a.membership.certificate == certificate
