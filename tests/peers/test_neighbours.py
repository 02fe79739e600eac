"""What neighbours say to each other, and what they do with lies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.peers import (
    MAX_DEMANDS,
    MAX_NAMEPLATE,
    MAX_NAMEPLATES,
    MAX_NEAR,
    MAX_REQUESTS,
    MAX_RTT_TENTHS,
    MAX_SESSIONS,
    Endpoint,
    Holding,
    ModelDemand,
    NodeSummary,
    RoundTrip,
)
from swarmd.identity import certificates, revocations
from swarmd.identity.certificates import Role
from swarmd.identity.keys import NetworkKey, NodeKey
from swarmd.identity.revocations import Revocation
from swarmd.kit.world import SeededClock
from swarmd.peers.book import PeerBook
from swarmd.peers.neighbours import INTRODUCTIONS_BURST, MAX_INTRODUCED, NEWS_BURST, Neighbours, unsound
from swarmd.store.peers import Source
from swarmd.wire.messages import MAX_RECORDS, Introduced, Introduction, Revocations, encode
from tests.fakes.inline_sqlite import inline_database

pytestmark = pytest.mark.looptime

OWN, A, B, C = (NodeId(digit * 64) for digit in "0abc")
LAN = "10.0.0.5"


@dataclass(slots=True, kw_only=True)
class Scene:
    neighbours: Neighbours
    book: PeerBook
    heard: list[tuple[NodeId, tuple[Endpoint, ...], NodeId]]
    revoked: list[Revocation]
    relayed: set[NodeId]
    woken: list[NodeId]
    talks: list[asyncio.Task[None]] = field(default_factory=list)

    def talk(self, node: NodeId, *, observed_host: str = LAN) -> list[Introduction | Revocations]:
        """A control link to `node` is up; what it is told appears in the list."""
        told: list[Introduction | Revocations] = []

        async def send(message: Introduction | Revocations) -> None:
            encode(message)
            told.append(message)

        self.talks.append(asyncio.ensure_future(self.neighbours.converse(node, observed_host=observed_host, send=send)))
        return told


@asynccontextmanager
async def open_scene() -> AsyncIterator[Scene]:
    heard: list[tuple[NodeId, tuple[Endpoint, ...], NodeId]] = []
    revoked: list[Revocation] = []
    relayed: set[NodeId] = set()
    woken: list[NodeId] = []

    async def hear(node: NodeId, endpoints: tuple[Endpoint, ...], teller: NodeId) -> bool:
        news = (node, endpoints, teller) not in heard
        heard.append((node, endpoints, teller))
        return news

    async with inline_database() as db:
        book = PeerBook(own=OWN, db=db, clock=SeededClock())
        neighbours = Neighbours(
            own=OWN,
            book=book,
            clock=SeededClock(),
            hear=hear,
            direct=lambda node: node not in relayed,
            wake=woken.append,
            revoked=lambda: tuple(revoked),
        )
        scene = Scene(neighbours=neighbours, book=book, heard=heard, revoked=revoked, relayed=relayed, woken=woken)
        yield scene
        for task in scene.talks:
            task.cancel()
        await asyncio.gather(*scene.talks, return_exceptions=True)


def summary(node: NodeId, version: int) -> NodeSummary:
    return NodeSummary(node=node, version=version, software="t/1", started_at=0.0, ram_free_bytes=1, ram_total_bytes=1)


async def settle() -> None:
    await asyncio.sleep(0.01)


async def test_neighbours_are_introduced_to_each_other_with_proven_addresses() -> None:
    async with open_scene() as scene:
        at_a, at_b, rumour = Endpoint("10.0.0.1", 1), Endpoint("10.0.0.2", 2), Endpoint("10.0.0.3", 3)
        for node, endpoint in ((A, at_a), (B, at_b)):
            await scene.book.offer(node, (endpoint, Endpoint("172.17.0.1", 9)), source=Source.OBSERVED)
            await scene.book.record_seen(node, endpoint=endpoint)
        await scene.book.offer(C, (rumour,), source=Source.INTRODUCED)
        to_a, to_b, to_c = scene.talk(A), scene.talk(B), scene.talk(C)
        await settle()
        about_a, about_b = Introduced(node=A, endpoints=(at_a,)), Introduced(node=B, endpoints=(at_b,))
        not_reached = Introduced(node=C, endpoints=())
        assert to_a == [Introduction(members=(about_b, not_reached))]
        assert to_b == [Introduction(members=(about_a,)), Introduction(members=(not_reached,))], "c came up after it began"
        assert to_c == [Introduction(members=(about_a, about_b))]
        await scene.book.record_seen(C, endpoint=rumour)
        scene.neighbours.refresh()
        scene.neighbours.refresh()
        await settle()
        assert to_a[1:] == to_b[2:] == [Introduction(members=(Introduced(node=C, endpoints=(rumour,)),))]
        assert len(to_c) == 1


async def test_a_loopback_address_is_told_only_on_the_same_machine() -> None:
    async with open_scene() as scene:
        here = Endpoint("127.0.0.1", 7)
        await scene.book.offer(A, (here,), source=Source.OBSERVED)
        await scene.book.record_seen(A, endpoint=here)
        scene.relayed |= {B, C}
        scene.talk(A, observed_host="127.0.0.1")
        far, near = scene.talk(B), scene.talk(C, observed_host="127.0.0.1")
        await settle()
        assert far == [Introduction(members=(Introduced(node=A, endpoints=()),))]
        assert near == [Introduction(members=(Introduced(node=A, endpoints=(here,)),))]


async def test_a_message_holds_a_bounded_number_and_the_rest_follows() -> None:
    async with open_scene() as scene:
        many = [NodeId(f"{n:064x}") for n in range(1, MAX_INTRODUCED + 11)]
        for number, node in enumerate(many):
            await scene.book.offer(node, (Endpoint("10.0.1.1", 1000 + number),), source=Source.OBSERVED)
            scene.talk(node)
        await settle()
        told = scene.talk(A)
        await settle()
        sizes = [len(one.members) for one in told if isinstance(one, Introduction)]
        assert sizes == [MAX_INTRODUCED, 10]


async def test_who_left_is_introduced_no_more() -> None:
    async with open_scene() as scene:
        await scene.book.offer(A, (Endpoint("10.0.0.1", 1),), source=Source.OBSERVED)
        scene.talk(A)
        await settle()
        scene.talks[0].cancel()
        await settle()
        to_b = scene.talk(B)
        await settle()
        assert to_b == []


async def test_introduced_nodes_are_heard_of_unless_the_address_is_worthless(caplog: pytest.LogCaptureFixture) -> None:
    async with open_scene() as scene:
        good, local = Endpoint("10.0.0.2", 2), Endpoint("127.0.0.1", 2)

        async def told(*members: Introduced, by: str = LAN) -> list[tuple[NodeId, tuple[Endpoint, ...], NodeId]]:
            scene.heard.clear()
            await scene.neighbours.heard_introduction(A, Introduction(members=members), observed_host=by)
            return list(scene.heard)

        assert await told(Introduced(node=B, endpoints=(good, local))) == [(B, (good,), A)]
        assert await told(Introduced(node=B, endpoints=(local,)), by="127.0.0.1") == [(B, (local,), A)]
        worthless = (local, Endpoint("0.0.0.0", 1), Endpoint("192.0.2.1", 1), Endpoint("224.0.0.1", 1), Endpoint("x y", 1))
        assert await told(Introduced(node=B, endpoints=worthless)) == [(B, (), A)]
        assert await told(Introduced(node=B, endpoints=(Endpoint("0.0.0.0", 1),)), by="127.0.0.1") == [(B, (), A)]
        assert await told(Introduced(node=OWN, endpoints=(good,)), Introduced(node=A, endpoints=(good,))) == []
        many = tuple(Introduced(node=NodeId(f"{n:064x}"), endpoints=(good,)) for n in range(1, 200))
        assert len(await told(*many)) == MAX_INTRODUCED
        with caplog.at_level(logging.WARNING):
            assert await told(Introduced(node=NodeId("../etc"), endpoints=(good,))) == []
        assert "without a proper id" in caplog.text


async def test_a_neighbour_that_introduces_without_end_is_ignored_for_a_while() -> None:
    async with open_scene() as scene:
        at_b = Introduction(members=(Introduced(node=B, endpoints=(Endpoint("10.0.0.2", 2),)),))
        for _ in range(INTRODUCTIONS_BURST + 50):
            await scene.neighbours.heard_introduction(A, at_b, observed_host=LAN)
        assert len(scene.heard) == INTRODUCTIONS_BURST
        await scene.neighbours.heard_introduction(C, at_b, observed_host=LAN)  # others are listened to
        await asyncio.sleep(10)
        for _ in range(50):
            await scene.neighbours.heard_introduction(A, at_b, observed_host=LAN)
        assert len(scene.heard) == INTRODUCTIONS_BURST + 1 + 10


async def test_a_neighbour_that_invents_nodes_is_believed_slowly() -> None:
    async with open_scene() as scene:

        async def invent(first: int, count: int) -> None:
            for n in range(first, first + count, MAX_INTRODUCED):
                nodes = (NodeId(f"{m:064x}") for m in range(n, min(n + MAX_INTRODUCED, first + count)))
                members = tuple(Introduced(node=one, endpoints=(Endpoint("10.0.0.2", 2),)) for one in nodes)
                await scene.neighbours.heard_introduction(A, Introduction(members=members), observed_host=LAN)

        await invent(1, NEWS_BURST + 100)
        assert len(scene.heard) == NEWS_BURST
        await asyncio.sleep(181)
        await invent(10_000, 100)
        assert len(scene.heard) == NEWS_BURST + 3
        assert {teller for _, _, teller in scene.heard} == {A}


GOOD = Holding(model=ModelId("tiny-q8-0"), layout="ab" * 16, shards=(0, 1, 5), layer_ms=0.5)
WANTED = ModelDemand(model=ModelId("tiny-q8-0"), requests=3)


def test_a_sound_summary_is_sound() -> None:
    holdings = (GOOD, replace(GOOD, layer_ms=None, shards=()))
    assert unsound(replace(summary(A, 1), holdings=holdings, demand=(WANTED,), nameplates=(7, MAX_NAMEPLATE))) is None


@pytest.mark.parametrize(
    "bad",
    [
        {"software": "x" * 200},
        {"region": "a\nb"},
        {"gpu": "\x1b[31m"},
        {"started_at": float("nan")},
        {"ram_free_bytes": -1},
        {"ram_free_bytes": 2},
        {"endpoints": (Endpoint("10.0.0.1", 1),) * 9},
        {"holdings": (GOOD,) * 1001},
        {"holdings": (replace(GOOD, model=ModelId("../../etc")),)},
        {"holdings": (replace(GOOD, layout="x"),)},
        {"holdings": (replace(GOOD, layer_ms=float("inf")),)},
        {"holdings": (replace(GOOD, layer_ms=-1.0),)},
        {"holdings": (replace(GOOD, shards=(1, 0)),)},
        {"holdings": (replace(GOOD, shards=(1, 1)),)},
        {"holdings": (replace(GOOD, shards=(-1,)),)},
        {"holdings": (replace(GOOD, shards=(2**40,)),)},
        {"holdings": (replace(GOOD, loaded=(-1,)),)},
        {"holdings": (replace(GOOD, loaded=(1, 1)),)},
        {"demand": (WANTED,) * 2},
        {"demand": tuple(ModelDemand(model=ModelId(f"m{n}"), requests=1) for n in range(MAX_DEMANDS + 1))},
        {"demand": (replace(WANTED, model=ModelId("../../etc")),)},
        {"demand": (replace(WANTED, requests=-1),)},
        {"demand": (replace(WANTED, requests=MAX_REQUESTS + 1),)},
        {"sessions": -1},
        {"sessions": MAX_SESSIONS + 1},
        {"near": (RoundTrip(node="a" * 16, tenths_ms=1),) * (MAX_NEAR + 1)},
        {"near": (RoundTrip(node="x", tenths_ms=1),)},
        {"near": (RoundTrip(node="a" * 16, tenths_ms=-1),)},
        {"near": (RoundTrip(node="a" * 16, tenths_ms=MAX_RTT_TENTHS + 1),)},
        {"nameplates": tuple(range(1, MAX_NAMEPLATES + 2))},
        {"nameplates": (7, 7)},
        {"nameplates": (0,)},
        {"nameplates": (MAX_NAMEPLATE + 1,)},
        {"nickname": " anna"},
        {"nickname": "a\u202eb"},
        {"nickname": "x" * 33},
        {"nickname": "<b>"},
    ],
    ids=str,
)
def test_an_unsound_summary_is_seen(bad: dict[str, object]) -> None:
    assert unsound(replace(summary(A, 1), **bad)) is not None


async def test_everybody_hears_who_was_put_out_all_at_first_then_each_once() -> None:
    key = NetworkKey(bytes([9]) * 32)
    async with open_scene() as scene:
        scene.revoked += [revocations.revoke(key, NodeId(f"{n:064x}"), now=5.0) for n in range(MAX_RECORDS + 1)]
        told = scene.talk(A)
        await settle()
        assert [len(one.records) for one in told if isinstance(one, Revocations)] == [MAX_RECORDS, 1]
        scene.revoked[0] = again = revocations.revoke(key, scene.revoked[0].node, now=9.0)
        scene.neighbours.refresh()
        scene.neighbours.refresh()
        await settle()
        assert told[2:] == [Revocations(records=(revocations.encode(again),))]


async def test_who_has_no_address_is_introduced_as_well_and_who_is_relayed_is_not() -> None:
    async with open_scene() as scene:
        scene.relayed.add(C)
        to_a = scene.talk(A)
        scene.talk(B)
        scene.talk(C)
        await settle()
        assert to_a == [Introduction(members=(Introduced(node=B, endpoints=()),))]
        scene.relayed.remove(C)
        scene.neighbours.refresh()
        await settle()
        assert to_a[1:] == [Introduction(members=(Introduced(node=C, endpoints=()),))]


async def test_who_was_away_is_introduced_again() -> None:
    async with open_scene() as scene:
        to_a = scene.talk(A)
        scene.talk(B)
        await settle()
        scene.talks.pop().cancel()
        await settle()
        scene.neighbours.refresh()
        await settle()
        scene.talk(B)
        await settle()
        assert to_a == [Introduction(members=(Introduced(node=B, endpoints=()),))] * 2


async def test_a_neighbour_with_a_link_to_somebody_is_a_way_to_it_until_either_is_gone() -> None:
    async with open_scene() as scene:
        scene.talk(A)
        scene.talk(B)
        await settle()
        message = Introduction(members=(Introduced(node=C, endpoints=()),))
        for teller in (A, B, A):
            await scene.neighbours.heard_introduction(teller, message, observed_host=LAN)
        assert scene.neighbours.linked_with(C) == (A, B)
        assert scene.woken == [C, C], "once for each way"
        scene.neighbours.not_linked_with(A, C)
        assert scene.neighbours.linked_with(C) == (B,)
        scene.neighbours.gone(B)
        assert scene.neighbours.linked_with(C) == ()
        await scene.neighbours.heard_introduction(NodeId("d" * 64), message, observed_host=LAN)
        assert scene.neighbours.linked_with(C) == (), "who has no link to us cannot relay"


async def test_an_inviters_records_go_in_messages_of_their_own_after_the_founders() -> None:
    key, inviter = NetworkKey(bytes([9]) * 32), NodeKey(bytes([31]) * 32)
    proof = certificates.issue(key, node=inviter.node, role=Role.INVITER, now=1.0)
    async with open_scene() as scene:
        founders = [revocations.revoke(key, NodeId(f"{n:064x}"), now=5.0) for n in range(2)]
        theirs = [revocations.revoke(inviter, NodeId(f"{n:064x}"), now=5.0, proof=proof) for n in range(2)]
        scene.revoked += [*founders, *theirs]  # the same nodes, by two issuers
        told = scene.talk(A)
        await settle()
        assert told == [Revocations(records=tuple(map(revocations.encode, ones))) for ones in (founders, theirs)]


async def test_a_relay_that_comes_and_goes_is_known_as_a_way_each_time() -> None:
    async with open_scene() as scene:
        members = [NodeId(f"{n:064x}") for n in range(1, 41)]
        message = Introduction(members=tuple(Introduced(node=one, endpoints=()) for one in members))
        for _ in range(12):
            scene.talk(A)
            await settle()
            await scene.neighbours.heard_introduction(A, message, observed_host=LAN)
            assert all(scene.neighbours.linked_with(one) == (A,) for one in members)
            scene.talks.pop().cancel()
            await settle()
            scene.neighbours.gone(A)
            await asyncio.sleep(10)
        assert len(scene.woken) < 12 * len(members), "but not everybody is dialled at once for that"
