"""What a node keeps of who was put out, whom it believes, and what is left after a restart."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from swarmd.domain.events import MemberRevoked
from swarmd.domain.ids import NodeId
from swarmd.domain.refusals import Busy
from swarmd.identity import certificates, revocations
from swarmd.identity.certificates import Role
from swarmd.identity.keys import NetworkKey
from swarmd.identity.revocations import USEFUL_S, Revocation
from swarmd.kit.bus import EventBus
from swarmd.kit.world import SeededClock
from swarmd.peers import revocation_list as module
from swarmd.peers.revocation_list import RevocationList
from swarmd.store.database import Database
from tests.fakes.inline_sqlite import inline_database

KEY = NetworkKey(bytes([9]) * 32)
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
