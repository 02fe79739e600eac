"""The book: what is kept, in which order, and over restarts."""

from __future__ import annotations

import pytest

from swarmd.domain.ids import NodeId
from swarmd.domain.peers import Endpoint, PeerRecord
from swarmd.kit.world import SeededClock
from swarmd.peers import book as module
from swarmd.peers.addresses import MAX_ENDPOINTS
from swarmd.peers.book import HEARSAY_LIFE_S, MAX_FAILURES, MAX_HEARSAY, PeerBook
from swarmd.store.database import Database
from swarmd.store.peers import Source
from tests.fakes.inline_sqlite import inline_database

OWN, A, B = NodeId("00" * 32), NodeId("aa" * 32), NodeId("bb" * 32)


def at(n: int) -> Endpoint:
    return Endpoint(f"10.0.0.{n}", 8810)


async def test_an_offer_is_news_once_and_survives_a_restart() -> None:
    async with await Database.open(None) as db:
        book = PeerBook(own=OWN, db=db, clock=SeededClock())
        assert await book.offer(A, (at(1),), source=Source.INVITE)
        assert not await book.offer(A, (at(1),), source=Source.INTRODUCED)
        assert await book.offer(A, (at(2), at(1)), source=Source.INTRODUCED)
        assert await book.offer(B, (), source=Source.OBSERVED)
        assert not await book.offer(B, (), source=Source.OBSERVED)
        again = PeerBook(own=OWN, db=db, clock=SeededClock())
        await again.load()
        for one in (book, again):
            assert one.nodes() == (A, B)
            assert A in one
            assert one.record(A) == PeerRecord(node=A, endpoints=(at(1), at(2)), last_seen=None)
            assert one.endpoints(B) == ()
            assert one.record(OWN) is None


async def test_we_are_not_in_our_own_book() -> None:
    async with await Database.open(None) as db:
        book = PeerBook(own=OWN, db=db, clock=SeededClock())
        assert not await book.offer(OWN, (at(1),), source=Source.INTRODUCED)
        assert book.nodes() == ()


async def test_endpoints_nobody_may_dial_are_left_out() -> None:
    async with await Database.open(None) as db:
        book = PeerBook(own=OWN, db=db, clock=SeededClock())
        bad = (Endpoint("0.0.0.0", 1), Endpoint("224.0.0.1", 1), Endpoint("192.0.2.1", 1), Endpoint("10.0.0.1", 0))
        await book.offer(A, (*bad, at(1)), source=Source.INTRODUCED)
        assert book.endpoints(A) == (at(1),)


async def test_the_newest_evidence_comes_first_then_the_better_source() -> None:
    async with await Database.open(None) as db:
        clock = SeededClock()
        book = PeerBook(own=OWN, db=db, clock=clock)
        await book.offer(A, (at(1),), source=Source.INTRODUCED)
        await book.offer(A, (at(2),), source=Source.INVITE)
        await book.offer(A, (at(3),), source=Source.MANUAL)
        assert book.endpoints(A) == (at(3), at(2), at(1))
        assert book.proven_endpoints(A) == ()
        clock.shift(10)
        await book.record_seen(A, endpoint=at(1))
        assert book.endpoints(A) == (at(1), at(3), at(2))
        clock.shift(10)
        await book.offer(A, (at(4),), source=Source.OBSERVED)  # it travelled and came from there a moment ago
        assert book.endpoints(A) == (at(4), at(1), at(3), at(2))
        assert book.proven_endpoints(A) == (at(1),), "nobody reached it at the address it came from"
        assert book.unproven_endpoints(A) == (at(4),)
        again = PeerBook(own=OWN, db=db, clock=clock)
        await again.load()
        assert again.endpoints(A) == book.endpoints(A)
        record = again.record(A)
        assert record is not None
        assert record.last_seen == pytest.approx(clock.now() - 10, abs=5)


async def test_the_worst_endpoints_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async with await Database.open(None) as db:
        clock = SeededClock()
        book = PeerBook(own=OWN, db=db, clock=clock)
        await book.offer(A, tuple(at(n) for n in range(1, 30)), source=Source.INTRODUCED)
        assert len(book.endpoints(A)) == MAX_ENDPOINTS
        await book.offer(A, (at(99),), source=Source.MANUAL)
        assert len(book.endpoints(A)) == MAX_ENDPOINTS
        assert book.endpoints(A)[0] == at(99)
        assert not await book.offer(A, (at(50),), source=Source.INTRODUCED)
        assert (await db.fetch_all("SELECT COUNT(*) FROM peer_endpoints"))[0][0] == MAX_ENDPOINTS
        monkeypatch.setattr(module, "MAX_PEERS", 1)
        assert not await book.offer(B, (at(1),), source=Source.INTRODUCED)
        assert book.nodes() == (A,)


async def test_hearsay_that_never_came_true_is_forgotten_at_the_next_start() -> None:
    async with await Database.open(None) as db:
        clock = SeededClock()
        book = PeerBook(own=OWN, db=db, clock=clock)
        await book.offer(A, (at(1),), source=Source.INTRODUCED)
        await book.offer(B, (at(2),), source=Source.INTRODUCED)
        await book.record_seen(B, endpoint=None)
        clock.shift(HEARSAY_LIFE_S + 1)
        await book.load()
        assert book.nodes() == (B,)


async def test_a_removed_peer_is_gone() -> None:
    async with await Database.open(None) as db:
        book = PeerBook(own=OWN, db=db, clock=SeededClock())
        await book.offer(A, (at(1),), source=Source.MANUAL)
        await book.remove(A)
        await book.record_seen(A, endpoint=at(1))
        assert book.nodes() == ()
        await book.load()
        assert book.nodes() == ()


def invented(n: int) -> NodeId:
    return NodeId(f"{n:064x}")


async def test_a_member_that_invents_nodes_fills_its_own_share_only() -> None:
    async with inline_database() as db:
        book = PeerBook(own=OWN, db=db, clock=SeededClock())
        for n in range(1, MAX_HEARSAY + 20):
            await book.offer(invented(n), (at(1),), source=Source.INTRODUCED, teller=A)
        assert len(book.nodes()) == MAX_HEARSAY
        assert await book.offer(invented(5000), (at(1),), source=Source.INTRODUCED, teller=B)
        await book.record_seen(invented(1), endpoint=None)  # one that is no invention frees its place
        assert await book.offer(invented(5001), (at(1),), source=Source.INTRODUCED, teller=A)


async def test_who_proved_to_be_there_evicts_hearsay_and_is_never_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PEERS", 3)
    async with inline_database() as db:
        clock = SeededClock()
        book = PeerBook(own=OWN, db=db, clock=clock)
        for n in (1, 2, 3):
            await book.offer(invented(n), (at(n),), source=Source.INTRODUCED, teller=A)
            clock.shift(1)
        await book.record_seen(invented(1), endpoint=at(1))
        assert await book.offer(A, (), source=Source.OBSERVED)
        assert book.nodes() == (invented(1), invented(3), A)
        assert not await book.offer(invented(4), (at(4),), source=Source.INTRODUCED, teller=B)
        assert await book.offer(B, (at(5),), source=Source.MANUAL)
        assert not await book.offer(invented(6), (), source=Source.OBSERVED)  # nobody left to make room
        assert book.nodes() == (invented(1), A, B)
        await book.load()
        assert set(book.nodes()) == {invented(1), A, B}


async def test_an_address_from_hearsay_is_dialled_in_vain_only_so_often() -> None:
    async with inline_database() as db:
        clock = SeededClock()
        book = PeerBook(own=OWN, db=db, clock=clock)
        await book.offer(A, (at(1), at(2)), source=Source.INTRODUCED)
        await book.offer(B, (at(3),), source=Source.OBSERVED)
        await book.record_seen(B, endpoint=None)
        await book.offer(B, (at(4),), source=Source.INTRODUCED)
        assert (book.is_hearsay(A), book.is_hearsay(B), book.is_hearsay(OWN)) == (True, False, False)
        for _ in range(MAX_FAILURES - 1):
            for node, endpoint in ((A, at(1)), (B, at(3)), (B, at(4)), (OWN, at(1))):
                await book.record_failure(node, endpoint)
        assert book.endpoints(A) == (at(2), at(1))  # what failed comes later
        for node, endpoint in ((A, at(1)), (B, at(3)), (B, at(4))):
            await book.record_failure(node, endpoint)
        assert book.endpoints(A) == (at(2),)
        assert book.endpoints(B) == (at(3),)  # the node itself said so: dialled for ever
        for _ in range(MAX_FAILURES):
            await book.record_failure(A, at(2))
        await book.load()
        assert book.nodes() == (B,)
        assert book.endpoints(B) == (at(3),)


async def test_what_was_heard_first_and_then_stated_by_the_node_itself_is_no_hearsay() -> None:
    async with inline_database() as db:
        book = PeerBook(own=OWN, db=db, clock=SeededClock())
        await book.offer(A, (at(1),), source=Source.INTRODUCED, teller=B)
        assert not await book.offer(A, (at(1),), source=Source.OBSERVED)  # no new address, but a better source
        for _ in range(2):
            assert book.unproven_endpoints(A) == (at(1),)
            assert not book.is_hearsay(A)
            for _ in range(MAX_FAILURES):
                await book.record_failure(A, at(1))
            await book.load()


async def test_lies_do_not_push_out_what_others_said_about_a_node() -> None:
    async with inline_database() as db:
        clock = SeededClock()
        book = PeerBook(own=OWN, db=db, clock=clock)
        await book.offer(A, (at(200),), source=Source.INTRODUCED)
        clock.shift(1)
        await book.offer(A, tuple(at(n) for n in range(1, 9)), source=Source.INTRODUCED, teller=B)
        assert book.endpoints(A)[0] == at(200)
        assert len(book.endpoints(A)) == MAX_ENDPOINTS


async def test_the_local_network_is_one_teller_and_its_claims_are_hearsay() -> None:
    async with inline_database() as db:
        book = PeerBook(own=OWN, db=db, clock=SeededClock())
        for n in range(1, MAX_HEARSAY + 20):
            await book.offer(invented(n), (at(1),), source=Source.LAN)
        assert len(book.nodes()) == MAX_HEARSAY
        assert book.is_hearsay(invented(1))
        assert await book.offer(invented(5000), (at(1),), source=Source.INTRODUCED, teller=A)
        for _ in range(MAX_FAILURES):
            await book.record_failure(invented(1), at(1))
        assert invented(1) not in book
        await book.load()
        assert book.is_hearsay(invented(2))


async def test_one_place_among_old_addresses_is_for_the_local_network() -> None:
    async with inline_database() as db:
        clock = SeededClock()
        book = PeerBook(own=OWN, db=db, clock=clock)
        for n in range(1, MAX_ENDPOINTS + 1):
            clock.shift(1)
            await book.offer(A, (at(n),), source=Source.OBSERVED)
        best = book.endpoints(A)[:-1]
        assert await book.offer(A, (at(100), at(101)), source=Source.LAN)
        assert book.endpoints(A) == (*best, at(100))
        assert not await book.offer(A, (at(102),), source=Source.LAN), "who was there first stays"
        await book.load()
        assert book.endpoints(A) == (*best, at(100))
