"""What a node keeps of who was put out, whom it believes, and what is left after a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from swarmd.domain.events import MemberRevoked
from swarmd.domain.ids import NodeId
from swarmd.domain.refusals import Busy
from swarmd.identity import certificates, revocations
from swarmd.identity.certificates import Certificate, Role
from swarmd.identity.keys import NetworkKey, NodeKey
from swarmd.identity.revocations import USEFUL_S, Revocation
from swarmd.kit.bus import EventBus
from swarmd.kit.world import SeededClock
from swarmd.peers import revocation_list as module
from swarmd.peers.revocation_list import RevocationList
from swarmd.store.database import Database
from tests.fakes.inline_sqlite import inline_database

KEY = NetworkKey(bytes([9]) * 32)
FIRST, SECOND, BELOW = (NodeKey(bytes([n]) * 32) for n in (31, 32, 33))
"""Inviters: two of the founder, and one of the first."""
OWN, NODE, OTHER, TELLER = (NodeId(digit * 64) for digit in "0abc")


@asynccontextmanager
async def opened(
    db: Database | None = None, *, clock: SeededClock | None = None
) -> AsyncIterator[tuple[RevocationList, Database, EventBus, SeededClock]]:
    clock, bus = clock or SeededClock(), EventBus()
    async with inline_database() as fresh:
        found = RevocationList(own=OWN, network=lambda: KEY.network, db=db or fresh, clock=clock, bus=bus)
        await found.load()
        yield found, db or fresh, bus, clock


def out(node: NodeId, clock: SeededClock, *, later_s: float = 0.0) -> Revocation:
    return revocations.revoke(KEY, node, now=clock.now() + later_s)


async def test_what_is_kept_is_news_once_and_there_after_a_restart() -> None:
    async with opened() as (found, db, bus, clock):
        record = out(NODE, clock)
        assert await found.keep(record) is True
        assert await found.keep(record) is False
        assert [fact for fact in bus.recent() if isinstance(fact, MemberRevoked)] == [MemberRevoked(node=NODE)]
        async with opened(db, clock=clock) as (again, *_):
            assert again.records() == (record,)
            assert again.revoked_at(NODE) == record.revoked_at
            assert again.covers(certificates.issue(KEY, node=NODE, role=Role.MEMBER, now=clock.now()))
            assert not again.covers(certificates.issue(KEY, node=NODE, role=Role.MEMBER, now=record.revoked_at + 1))
            assert not again.covers(certificates.issue(KEY, node=OTHER, role=Role.MEMBER, now=clock.now()))


async def test_a_newer_one_takes_the_place_of_an_older_one_and_not_the_other_way() -> None:
    async with opened() as (found, _, _, clock):
        old, new = out(NODE, clock), out(NODE, clock, later_s=60)
        told = [revocations.encode(one) for one in (old, new, old)]
        assert await found.hear(told, teller=TELLER) == (old, new)
        assert found.records() == (new,)


async def test_a_known_one_is_not_told_on_again() -> None:
    async with opened() as (found, _, _, clock):
        told = [revocations.encode(out(NODE, clock))]
        assert len(await found.hear(told, teller=TELLER)) == 1
        assert await found.hear(told, teller=OTHER) == ()


async def test_whoever_tells_a_forged_one_is_not_listened_to_any_more(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as (found, _, _, clock):
        good = revocations.encode(out(NODE, clock))
        forged = revocations.encode(replace(out(OTHER, clock), signature=bytes(64)))
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert await found.hear([forged, good], teller=TELLER) == ()
        assert caplog.text.count("nobody signed") == 1
        assert len(await found.hear([good], teller=OTHER)) == 1


async def test_other_clocks_and_versions_make_nobody_a_liar() -> None:
    async with opened() as (found, _, _, clock):
        good = out(NODE, clock)
        odd = (b"", b"\x02" + revocations.encode(good)[1:], revocations.encode(out(OTHER, clock, later_s=3 * 86400)))
        assert await found.hear([*odd, revocations.encode(good)], teller=TELLER) == (good,)


async def test_a_full_list_says_so_until_old_ones_are_useless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REVOCATIONS", 1)
    async with opened() as (found, db, _, clock):
        assert await found.keep(out(NODE, clock)) is True
        assert isinstance(await found.keep(out(OTHER, clock)), Busy)
        assert await found.hear([revocations.encode(out(OTHER, clock))], teller=TELLER) == ()
        assert await found.keep(out(NODE, clock, later_s=5)) is True, "it takes its own place"
        clock.shift(USEFUL_S + 10)
        assert await found.keep(out(OTHER, clock)) is True
        assert [one.node for one in found.records()] == [OTHER]
        clock.shift(USEFUL_S + 10)
        async with opened(db, clock=clock) as (again, *_):
            assert [one.node for one in again.records()] == [OTHER], "a clock may be wrong when the machine starts"


async def test_a_node_that_hears_of_itself_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as (found, _, _, clock):
        with caplog.at_level(logging.WARNING):
            await found.hear([revocations.encode(out(OWN, clock))], teller=TELLER)
        assert "join again with a new code" in caplog.text


async def test_another_network_begins_with_an_empty_list() -> None:
    async with opened() as (found, _, _, clock):
        await found.keep(out(NODE, clock))
        found.clear()
        assert found.records() == ()


def inviter(key: NodeKey, clock: SeededClock, *, later_s: float = 0.0) -> Certificate:
    """Made an hour ago, so that there is time to act in."""
    made_at = clock.now() - 3600 + later_s
    if key is not BELOW:
        return certificates.issue(KEY, node=key.node, role=Role.INVITER, now=made_at)
    parent = certificates.issue(KEY, node=FIRST.node, role=Role.INVITER, now=made_at)
    return certificates.issue(FIRST, node=key.node, role=Role.INVITER, now=made_at, parent=parent)


def out_by(key: NodeKey, node: NodeId, clock: SeededClock, *, later_s: float = 0.0, proof: Certificate | None = None):
    return revocations.revoke(key, node, now=clock.now() + later_s, proof=proof or inviter(key, clock))


def node_number(n: int) -> NodeId:
    return NodeId(f"{0xF00 + n:064x}")


async def test_an_inviters_stands_beside_the_founders_and_survives_a_restart() -> None:
    async with opened() as (found, db, _, clock):
        theirs, ours = out_by(FIRST, NODE, clock), out(NODE, clock)
        member = certificates.issue(FIRST, node=NODE, role=Role.MEMBER, now=clock.now(), parent=inviter(FIRST, clock))
        direct = certificates.issue(KEY, node=NODE, role=Role.MEMBER, now=clock.now())
        assert await found.hear([revocations.encode(theirs)], teller=TELLER) == (theirs,)
        assert found.covers(member) and not found.covers(direct)
        assert found.of_founder(NODE) is None and found.revoked_at(NODE) is None
        assert await found.hear([revocations.encode(ours), revocations.encode(theirs)], teller=TELLER) == (ours,)
        assert found.covers(member) and found.covers(direct)
        async with opened(db, clock=clock) as (again, *_):
            assert again.records() == (ours, theirs), "the founder's first"
            assert again.covering(member) == ours, "who stands highest is asked first"


async def test_who_falls_with_an_inviter_is_covered_by_the_inviters_record() -> None:
    async with opened() as (found, _, _, clock):
        below = certificates.issue(BELOW, node=NODE, role=Role.MEMBER, now=clock.now(), parent=inviter(BELOW, clock))
        beside = certificates.issue(SECOND, node=NODE, role=Role.MEMBER, now=clock.now(), parent=inviter(SECOND, clock))
        record = out(FIRST.node, clock)
        await found.keep(record)
        assert found.covering(below) == record
        assert found.covering(beside) is None


async def test_what_an_inviter_said_before_it_was_put_out_stays_and_what_it_says_after_is_nothing() -> None:
    async with opened() as (found, db, _, clock):
        before, late = out_by(FIRST, NODE, clock), out_by(FIRST, OTHER, clock, later_s=60)
        below_late = out_by(BELOW, OTHER, clock, later_s=60)
        for record in (before, late, below_late):
            assert await found.keep(record) is True
        founders = out(FIRST.node, clock, later_s=30)
        assert await found.keep(founders) is True
        assert found.records() == (founders, before)
        for record in (late, below_late, out_by(FIRST, OTHER, clock, later_s=90)):
            assert await found.hear([revocations.encode(record)], teller=TELLER) == ()
        async with opened(db, clock=clock) as (again, *_):
            assert again.records() == (founders, before)
        # The founder let it in again, and it may speak again: by its new certificate.
        clock.shift(100)
        renewed = certificates.issue(KEY, node=FIRST.node, role=Role.INVITER, now=clock.now())
        assert await found.keep(out_by(FIRST, OTHER, clock, later_s=5, proof=renewed)) is True


async def test_an_inviters_end_takes_nothing_back() -> None:
    async with opened() as (found, _, _, clock):
        record = out_by(FIRST, NODE, clock)
        clock.shift(certificates.LIFE_S)
        assert await found.hear([revocations.encode(record)], teller=TELLER) == (record,)
        ended = inviter(FIRST, clock, later_s=-certificates.LIFE_S)
        assert await found.hear([revocations.encode(out_by(FIRST, OTHER, clock, proof=ended))], teller=TELLER) == ()


async def test_records_of_another_network_are_no_news() -> None:
    other = NetworkKey(bytes([8]) * 32)
    async with opened() as (found, _, _, clock):
        proof = certificates.issue(other, node=FIRST.node, role=Role.INVITER, now=clock.now() - 10)
        foreign = (revocations.revoke(other, NODE, now=clock.now()), out_by(FIRST, NODE, clock, proof=proof))
        assert await found.hear([revocations.encode(one) for one in foreign], teller=TELLER) == ()
        good = revocations.encode(out(NODE, clock))
        assert len(await found.hear([good], teller=TELLER)) == 1, "nobody is a liar for that"


async def test_a_forged_proof_makes_its_teller_a_liar() -> None:
    async with opened() as (found, _, _, clock):
        forged = replace(inviter(FIRST, clock), signature=bytes(64))
        told = [revocations.encode(out_by(FIRST, NODE, clock, proof=forged)), revocations.encode(out(NODE, clock))]
        assert await found.hear(told, teller=TELLER) == ()
        assert await found.hear(told[1:], teller=TELLER) == ()
        assert len(await found.hear(told[1:], teller=OTHER)) == 1


@pytest.mark.looptime
async def test_a_branch_has_its_share_of_the_list_whoever_in_it_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OF_BRANCH", 4)
    async with opened() as (found, _, _, clock):
        keys = (FIRST, BELOW, FIRST, BELOW)
        for number, key in enumerate(keys):
            assert await found.keep(out_by(key, node_number(number), clock)) is True
        await asyncio.sleep(3600)  # its pace is not what is in the way
        more = out_by(BELOW, node_number(9), clock)
        assert isinstance(await found.keep(more), Busy)
        assert await found.hear([revocations.encode(more)], teller=TELLER) == ()
        for number in (7, 8):
            assert await found.keep(out_by(FIRST, node_number(number), clock)) is True, "in the place of one below it"
        more = out_by(FIRST, node_number(9), clock)
        assert isinstance(await found.keep(more), Busy)
        assert await found.hear([revocations.encode(more)], teller=TELLER) == ()
        assert {one.issuer for one in found.records()} == {FIRST.node} and len(found.records()) == 4
        assert await found.keep(out_by(SECOND, node_number(9), clock)) is True, "the others have theirs"
        assert await found.keep(out(node_number(10), clock)) is True
        clock.shift(USEFUL_S + 60)
        assert await found.keep(out_by(FIRST, node_number(11), clock)) is True, "what is of no use makes room"


async def test_an_inviter_puts_out_one_below_it_that_has_filled_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OF_BRANCH", 4)
    async with opened() as (found, db, _, clock):
        for number in range(4):
            assert await found.keep(out_by(BELOW, node_number(number), clock)) is True
        assert isinstance(await found.keep(out_by(BELOW, node_number(4), clock)), Busy)
        end = out_by(FIRST, BELOW.node, clock, later_s=-10)
        assert await found.hear([revocations.encode(end)], teller=TELLER) == (end,)
        assert found.records() == (end,), "what it said after its end went with it"
        for number in range(3):
            assert await found.keep(out_by(FIRST, node_number(number), clock)) is True
        assert isinstance(await found.keep(out_by(FIRST, node_number(9), clock)), Busy)
        async with opened(db, clock=clock) as (again, *_):
            assert isinstance(await again.keep(out_by(FIRST, node_number(9), clock)), Busy), "after a restart as well"


@pytest.mark.looptime
async def test_an_inviter_that_dates_one_forward_again_and_again_is_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OF_BRANCH", 5)
    async with opened() as (found, _, _, clock):
        told = [revocations.encode(out_by(FIRST, NODE, clock, later_s=second)) for second in range(40)]
        assert len(await found.hear(told, teller=TELLER)) == 5
        assert len(found.records()) == 1
        await asyncio.sleep(61)
        assert len(await found.hear(told[10:], teller=TELLER)) == 1
        assert await found.keep(out(NODE, clock)) is True, "the founder waits for nobody"


async def test_a_full_list_gives_the_founder_an_inviters_place_and_not_the_other_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_REVOCATIONS", 5)
    async with opened() as (found, db, _, clock):
        await found.keep(out_by(SECOND, node_number(0), clock))
        for number in range(1, 4):
            await found.keep(out_by(FIRST, node_number(number), clock))
        await found.keep(out(node_number(4), clock))
        assert isinstance(await found.keep(out_by(SECOND, node_number(5), clock)), Busy)
        assert await found.keep(out(node_number(5), clock)) is True
        left = {(one.node, one.issuer) for one in found.records()}
        assert (node_number(1), FIRST.node) not in left, "the oldest of who has most"
        assert len(left) == 5
        for number in range(6, 9):
            assert await found.keep(out(node_number(number), clock)) is True
        assert {one.proof for one in found.records()} == {None}
        assert isinstance(await found.keep(out(node_number(9), clock)), Busy)
        async with opened(db, clock=clock) as (again, *_):
            assert set(again.records()) == set(found.records())


async def test_a_node_that_falls_with_its_inviter_says_so(caplog: pytest.LogCaptureFixture) -> None:
    clock = SeededClock()
    ours = certificates.issue(FIRST, node=OWN, role=Role.MEMBER, now=clock.now(), parent=inviter(FIRST, clock))
    async with inline_database() as db:
        found = RevocationList(
            own=OWN, network=lambda: KEY.network, db=db, clock=clock, bus=EventBus(), certificate=lambda: ours
        )
        with caplog.at_level(logging.WARNING):
            await found.hear([revocations.encode(out_by(SECOND, OWN, clock))], teller=TELLER)
        assert caplog.text == "", "who did not admit it puts it out in vain"
        with caplog.at_level(logging.WARNING):
            await found.hear([revocations.encode(out(FIRST.node, clock))], teller=TELLER)
        assert "a code of the founder" in caplog.text
