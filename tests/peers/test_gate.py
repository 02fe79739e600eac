"""Who is let in, who is told why not, who gets silence."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest

from swarmd.discovery.invites import FRESH_BYTES, make_invite
from swarmd.domain.ids import NetworkId, NodeId
from swarmd.domain.membership import InviteRecord
from swarmd.domain.peers import Endpoint, PeerIdentity, Purpose
from swarmd.domain.refusals import Expired, Forbidden, OpenNetwork, Refusal, Revoked, UsedUp
from swarmd.identity import certificates, revocations
from swarmd.identity.certificates import LIFE_S, Certificate
from swarmd.identity.revocations import Revocation
from swarmd.kit.world import SeededClock, World
from swarmd.peers import hello as hellos
from swarmd.peers.hello import Hello
from swarmd.transport.doors import Admitted, Authority, TurnedAway
from tests.fakes.members import Member, open_member


async def invite_of(a: Member, *, uses: int = 1, life_s: float = 3600) -> InviteRecord:
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


async def admitted(guest: Member, host: Member, invite: InviteRecord) -> Admitted | TurnedAway:
    hello = guest.gate.hello(purpose=Purpose.CONTROL, invited=True)
    return await host.gate.admit(hello, static_public=guest.key.static_public, invite_tag=invite.tag)


async def join(guest: Member, host: Member) -> None:
    answer = await admitted(guest, host, await invite_of(host))
    assert isinstance(answer, Admitted)
    checked = await guest.gate.check(answer.reply, static_public=host.key.static_public, invited=True)
    assert isinstance(checked, PeerIdentity)
    assert host.membership.network is not None
    certificate = guest.gate.admission(answer.reply, network=host.membership.network)
    assert isinstance(certificate, Certificate)
    assert await guest.membership.adopt(certificate, inviter=host.key.node, endpoints=()) is None


async def called(caller: Member, host: Member, *, hello: bytes | None = None) -> Admitted | TurnedAway:
    said = caller.gate.hello(purpose=Purpose.BULK, invited=False) if hello is None else hello
    return await host.gate.admit(said, static_public=caller.key.static_public, invite_tag=None)


def changed(hello: bytes, **fields: object) -> bytes:
    said = hellos.decode(hello)
    assert isinstance(said, Hello)
    return hellos.encode(msgspec.structs.replace(said, **fields))


def turned_away(outcome: Admitted | TurnedAway, word: str, *, silent: bool = True) -> None:
    assert isinstance(outcome, TurnedAway)
    assert word in outcome.why.sentence
    assert (outcome.reply is None) is silent


async def test_the_gate_is_what_the_doors_ask_for(world: World, tmp_path: Path) -> None:
    async with open_member(1, world=world, folder=tmp_path) as a:
        authority: Authority = a.gate
        assert authority.static_private() == a.key.static_private


async def test_an_invited_node_becomes_a_member_and_members_know_each_other(world: World, tmp_path: Path) -> None:
    async with (
        open_member(1, world=world, folder=tmp_path) as a,
        open_member(2, world=world, folder=tmp_path) as b,
        open_member(3, world=world, folder=tmp_path) as c,
    ):
        await join(b, a)
        await join(c, a)
        for caller, host in ((b, a), (a, b), (c, b), (b, c)):
            answer = await called(caller, host)
            assert isinstance(answer, Admitted)
            assert answer.peer == PeerIdentity(
                node=caller.key.node,
                purpose=Purpose.BULK,
                software="swarmd/test",
                endpoints=tuple(caller.listening),
            )
            checked = await caller.gate.check(answer.reply, static_public=host.key.static_public, invited=False)
            assert isinstance(checked, PeerIdentity)
            assert checked.node == host.key.node


async def test_a_stranger_gets_silence(world: World, tmp_path: Path) -> None:
    async with (
        open_member(1, world=world, folder=tmp_path) as a,
        open_member(2, world=world, folder=tmp_path) as b,
        open_member(3, world=world, folder=tmp_path) as stranger,
        open_member(4, world=world, folder=tmp_path) as foreign,
    ):
        turned_away(await called(stranger, a), "no network yet")
        await join(b, a)
        turned_away(await called(stranger, a), "no certificate")
        await foreign.membership.ensure_network()
        turned_away(await called(foreign, a), "belongs to network")
        turned_away(await called(a, foreign), "belongs to network")
        hello = b.gate.hello(purpose=Purpose.CONTROL, invited=False)
        turned_away(await called(b, a, hello=b"nonsense"), "cannot be read")
        # A member's Hello over somebody else's link.
        turned_away(await called(stranger, a, hello=hello), "does not belong to node")
        # Somebody else's certificate in one's own Hello.
        own = stranger.gate.hello(purpose=Purpose.CONTROL, invited=False)
        said = hellos.decode(hello)
        assert said is not None
        turned_away(await called(stranger, a, hello=changed(own, certificate=said.certificate)), "shows the certificate of")
        turned_away(await called(stranger, a, hello=changed(own, certificate=bytes(178))), "version 0")
        turned_away(await called(b, b), "reached itself")


async def test_an_ended_membership_is_no_membership(world: World, tmp_path: Path) -> None:
    assert isinstance(world.clock, SeededClock)
    async with (
        open_member(1, world=world, folder=tmp_path) as a,
        open_member(2, world=world, folder=tmp_path) as b,
    ):
        await join(b, a)
        world.clock.shift(LIFE_S + 1)
        turned_away(await called(b, a), "ended")
        await join(b, a)  # a new code renews it
        assert isinstance(await called(b, a), Admitted)


async def test_whoever_has_the_code_is_told_why_it_is_not_let_in(world: World, tmp_path: Path) -> None:
    assert isinstance(world.clock, SeededClock)
    async with (
        open_member(1, world=world, folder=tmp_path) as a,
        open_member(2, world=world, folder=tmp_path) as b,
        open_member(3, world=world, folder=tmp_path) as c,
    ):
        used = await invite_of(a)
        assert isinstance(await admitted(b, a, used), Admitted)
        old = await invite_of(a, life_s=60)
        withdrawn = await invite_of(a)
        await a.invitations.withdraw(withdrawn.tag)
        world.clock.shift(61)
        expected: tuple[tuple[InviteRecord, Refusal], ...] = (
            (used, UsedUp()),
            (old, Expired(expired_at=old.expires_at)),
            (withdrawn, Forbidden(what="the inviter takes nobody in with this code any more: ask for a new one")),
        )
        for invite, refusal in expected:
            outcome = await admitted(c, a, invite)
            assert isinstance(outcome, TurnedAway)
            assert outcome.reply is not None
            assert await c.gate.check(outcome.reply, static_public=a.key.static_public, invited=True) == refusal


async def test_hostile_times_in_a_refusal_do_no_harm(world: World, tmp_path: Path) -> None:
    async with (
        open_member(1, world=world, folder=tmp_path) as a,
        open_member(2, world=world, folder=tmp_path) as b,
    ):
        invite = await invite_of(a, life_s=0)
        outcome = await admitted(b, a, invite)
        assert isinstance(outcome, TurnedAway)
        assert outcome.reply is not None
        for since in (float("nan"), float("inf"), float("-inf"), -1e300, 1e300):
            reply = changed(outcome.reply, declined_since=since)
            told = await b.gate.check(reply, static_public=a.key.static_public, invited=True)
            assert isinstance(told, Expired)
            assert told.sentence


async def test_a_false_inviter_cannot_admit_us(world: World, tmp_path: Path) -> None:
    async with (
        open_member(1, world=world, folder=tmp_path) as a,
        open_member(2, world=world, folder=tmp_path) as b,
        open_member(3, world=world, folder=tmp_path) as c,
    ):
        await join(c, a)
        answer = await admitted(b, a, await invite_of(a))
        assert isinstance(answer, Admitted)
        assert a.membership.network is not None
        good = answer.reply

        async def refused(reply: bytes, word: str) -> None:
            told = await b.gate.check(reply, static_public=a.key.static_public, invited=True)
            assert isinstance(told, Refusal), word
            assert word in told.sentence

        await refused(changed(good, admission=None), "without a certificate")
        await refused(changed(good, admission=bytes(178)), "version 0")
        await refused(changed(good, certificate=None), "shows no certificate")
        for_c = certificates.encode(
            certificates.issue(_network_key(a), node=c.key.node, role=certificates.Role.MEMBER, now=0)
        )
        await refused(changed(good, admission=for_c), "not for this one")
        ended = certificates.encode(
            certificates.issue(_network_key(a), node=b.key.node, role=certificates.Role.MEMBER, now=0)
        )
        await refused(changed(good, admission=ended), "does not hold")
        # The inviter of the code and the network of the code are checked by whoever has the code.
        wrong = b.gate.admission(good, network=NetworkId("00" * 32))
        assert isinstance(wrong, Forbidden)
        assert "another network" in wrong.sentence
        assert isinstance(b.gate.admission(b"nonsense", network=a.membership.network), Forbidden)


def _network_key(member: Member):
    key = member.membership._network_key
    assert key is not None
    return key


async def test_a_revoked_node_is_refused_by_whoever_knows_until_a_newer_code_admits_it(world: World, tmp_path: Path) -> None:
    assert isinstance(world.clock, SeededClock)
    async with (
        open_member(1, world=world, folder=tmp_path) as a,
        open_member(2, world=world, folder=tmp_path) as b,
        open_member(3, world=world, folder=tmp_path) as c,
    ):
        await join(b, a)
        await join(c, a)
        old_code = await invite_of(a, uses=5)
        record = await a.membership.revoke(c.key.node)
        assert isinstance(record, Revocation)
        turned_away(await called(c, a), "was revoked")
        assert isinstance(await called(c, b), Admitted), "B has not heard of it"
        assert await b.membership.revocations.hear([revocations.encode(record)], teller=a.key.node)
        turned_away(await called(c, b), "was revoked")
        reply = c.gate.hello(purpose=Purpose.CONTROL, invited=False)
        told = await b.gate.check(reply, static_public=c.key.static_public, invited=False)
        assert told == Revoked(node=c.key.node), "nor is it dialled with success"

        turned_away(await admitted(c, a, old_code), "only a newer code", silent=False)
        assert isinstance(await admitted(b, a, old_code), Admitted), "the code is good for others"
        world.clock.shift(2)
        await join(c, a)
        assert isinstance(await called(c, a), Admitted)
        assert isinstance(await called(c, b), Admitted)


async def test_who_looks_for_somebody_else_is_told_who_lives_here_and_not_let_in(world: World, tmp_path: Path) -> None:
    async with open_member(1, world=world, folder=tmp_path) as a, open_member(2, world=world, folder=tmp_path) as b:
        await join(b, a)
        elsewhere = b.gate.hello(purpose=Purpose.CONTROL, invited=False, expect=NodeId("ee" * 32))
        answer = await called(b, a, hello=elsewhere)
        assert isinstance(answer, TurnedAway) and answer.reply is not None
        told = await b.gate.check(answer.reply, static_public=a.key.static_public, invited=False)
        assert isinstance(told, PeerIdentity) and told.node == a.key.node
        right = b.gate.hello(purpose=Purpose.CONTROL, invited=False, expect=a.key.node)
        assert isinstance(await called(b, a, hello=right), Admitted)


async def test_a_code_is_not_spent_at_a_node_that_was_not_meant(world: World, tmp_path: Path) -> None:
    async with open_member(1, world=world, folder=tmp_path) as a, open_member(2, world=world, folder=tmp_path) as b:
        invite = await invite_of(a)
        hello = b.gate.hello(purpose=Purpose.CONTROL, invited=True, expect=NodeId("ee" * 32))
        answer = await a.gate.admit(hello, static_public=b.key.static_public, invite_tag=invite.tag)
        assert isinstance(answer, TurnedAway) and answer.reply is None
        assert isinstance(await admitted(b, a, invite), Admitted)


async def test_an_invited_node_that_shows_more_is_let_in_as_nothing(world: World, tmp_path: Path) -> None:
    """`links` takes whoever shows a certificate for a member, and this one was not judged."""
    async with (
        open_member(1, world=world, folder=tmp_path) as a,
        open_member(2, world=world, folder=tmp_path) as b,
    ):
        invite = await invite_of(a)
        guest = b.gate.hello(purpose=Purpose.CONTROL, invited=True)
        assert a.membership.network is not None
        own = a.membership.certificate
        assert own is not None
        for shown in ({"certificate": certificates.encode(own)}, {"network": bytes.fromhex(a.membership.network)}):
            hello = changed(guest, **shown)
            answer = await a.gate.admit(hello, static_public=b.key.static_public, invite_tag=invite.tag)
            turned_away(answer, "joins and shows")
        assert isinstance(await admitted(b, a, invite), Admitted), "no use was spent"


async def test_an_open_network_lets_in_who_states_it(world: World, tmp_path: Path) -> None:
    async with (
        open_member(1, world=world, folder=tmp_path, is_open=True) as a,
        open_member(2, world=world, folder=tmp_path, is_open=True) as b,
        open_member(3, world=world, folder=tmp_path, is_open=True) as stranger,
        open_member(4, world=world, folder=tmp_path) as closed,
    ):
        asked = await called(b, a)
        turned_away(asked, "asks for our network", silent=False)
        assert isinstance(asked, TurnedAway) and asked.reply is not None
        told = await b.gate.check(asked.reply, static_public=a.key.static_public, invited=False)
        assert isinstance(told, Forbidden) and "found one there" in told.sentence
        network = await a.membership.ensure_network()
        assert not isinstance(network, Forbidden)
        asked = await called(b, a)
        assert isinstance(asked, TurnedAway) and asked.reply is not None
        told = await b.gate.check(asked.reply, static_public=a.key.static_public, invited=False)
        assert told == OpenNetwork(node=a.key.node, network=network)
        assert await b.membership.adopt_open(network, inviter=a.key.node, endpoints=()) is None
        for caller, host in ((b, a), (a, b)):
            answer = await called(caller, host)
            assert isinstance(answer, Admitted) and answer.peer.node == caller.key.node
            found = await caller.gate.check(answer.reply, static_public=host.key.static_public, invited=False)
            assert isinstance(found, PeerIdentity) and found.node == host.key.node
        await stranger.membership.adopt_open(NetworkId("77" * 32), inviter=a.key.node, endpoints=())
        turned_away(await called(stranger, a), "belongs to network")
        turned_away(await called(closed, a), "states no network")
        # A lie about the network is cut short by nothing: that is what open means. One about the certificate is.
        turned_away(await called(b, a, hello=changed(_hello(b), certificate=bytes(178))), "version 0")
        record = await a.membership.revoke(b.key.node)
        assert isinstance(record, Revocation)
        turned_away(await called(b, a), "was revoked")
        answer = b.gate.hello(purpose=Purpose.CONTROL, invited=False)
        assert await a.gate.check(answer, static_public=b.key.static_public, invited=False) == Revoked(node=b.key.node)


async def test_an_invite_makes_a_member_of_an_open_network_too(world: World, tmp_path: Path) -> None:
    assert isinstance(world.clock, SeededClock)
    async with (
        open_member(1, world=world, folder=tmp_path, is_open=True) as a,
        open_member(2, world=world, folder=tmp_path, is_open=True) as b,
        open_member(3, world=world, folder=tmp_path) as careful,
    ):
        await join(b, a)
        await join(careful, a)
        for caller, host in ((b, a), (careful, a), (careful, b), (b, careful)):
            assert isinstance(await called(caller, host), Admitted)
        world.clock.shift(LIFE_S + 1)
        assert isinstance(await called(b, a), Admitted), "it leaves its ended certificate at home"
        turned_away(await called(b, careful), "no certificate", silent=False)


async def test_a_network_that_was_closed_tells_its_former_members_what_to_do(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "a.db"
    async with open_member(2, world=world, folder=tmp_path, is_open=True) as b:
        async with open_member(1, world=world, folder=tmp_path, database=file, is_open=True) as a:
            network = await a.membership.ensure_network()
            assert not isinstance(network, Forbidden)
            await b.membership.adopt_open(network, inviter=a.key.node, endpoints=())
            assert isinstance(await called(b, a), Admitted)
        async with open_member(1, world=world, folder=tmp_path, database=file) as a:
            answer = await called(b, a)
            turned_away(answer, "no certificate", silent=False)
            assert isinstance(answer, TurnedAway) and answer.reply is not None
            said = hellos.decode(answer.reply)
            assert said is not None and (said.certificate, said.network, said.endpoints) == (None, None, ()), "and no more"
            with caplog.at_level(logging.WARNING):
                for _ in range(20):
                    told = await b.gate.check(answer.reply, static_public=a.key.static_public, invited=False)
                    assert isinstance(told, Forbidden) and "ask for an invite code" in told.sentence
            assert caplog.text.count("invited nodes alone") == 1
            turned_away(await called(b, a, hello=changed(_hello(b), network=bytes(32))), "no certificate")
            silent = await a.gate.check(_hello(b), static_public=b.key.static_public, invited=False)
            assert isinstance(silent, Forbidden) and 'admission is "invite"' in silent.sentence
            await join(b, a)
            assert isinstance(await called(b, a), Admitted)


async def test_an_open_answer_with_a_false_certificate_is_no_offer(world: World, tmp_path: Path) -> None:
    async with (
        open_member(1, world=world, folder=tmp_path, is_open=True) as a,
        open_member(2, world=world, folder=tmp_path, is_open=True) as b,
        open_member(3, world=world, folder=tmp_path) as closed,
    ):
        await a.membership.ensure_network()
        for shown, word in (
            ({"network": bytes(32)}, "belongs to network"),
            ({"certificate": bytes(178)}, "version 0"),
            ({"is_open": False}, "no open network"),
            ({"network": None}, "no open network"),
        ):
            told = await b.gate.check(changed(_hello(a), **shown), static_public=a.key.static_public, invited=False)
            assert isinstance(told, Refusal) and word in told.sentence
        told = await closed.gate.check(_hello(a), static_public=a.key.static_public, invited=False)
        assert isinstance(told, Forbidden) and "no network yet" in told.sentence


def _hello(member: Member) -> bytes:
    return member.gate.hello(purpose=Purpose.CONTROL, invited=False)
