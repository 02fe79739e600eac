"""What is heard of other nodes becomes a number, and outlives the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from swarmd.domain.events import AdapterRejected, Fact, GenerationFinished, GenerationStarted, ShardRejected, SummaryRejected
from swarmd.domain.ids import ModelId, NodeId, RequestId, ShardRef
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World
from swarmd.peers.reputation import MAX_KEPT, MAX_RUNNING, WRITE_S, Reputation
from swarmd.peers.trust import DEFAULT, drifted
from swarmd.store.database import Database
from swarmd.store.trust import TrustRow, read_trust, write_trust
from tests.fakes.inline_sqlite import inline_database

OWN, A, B = (NodeId(digit * 64) for digit in "0ab")
MODEL = ModelId("tiny")
pytestmark = pytest.mark.looptime


@asynccontextmanager
async def hearing(world: World, db: Database) -> AsyncIterator[tuple[Reputation, EventBus]]:
    bus = EventBus()
    reputation = Reputation(own=OWN, db=db, clock=world.clock, bus=bus)
    await reputation.load()
    async with Supervisor("test", world=world) as supervisor:
        await supervisor.start(reputation)
        yield reputation, bus


async def told(bus: EventBus, *facts: Fact) -> None:
    for fact in facts:
        bus.publish(fact)
    await asyncio.sleep(0.001)


def started(request: str, *nodes: NodeId) -> GenerationStarted:
    return GenerationStarted(request=RequestId(request), model=MODEL, nodes=nodes)


def finished(request: str, outcome: str) -> GenerationFinished:
    return GenerationFinished(
        request=RequestId(request), model=MODEL, completion_tokens=1, duration_ms=1.0, outcome=outcome
    )


def rejected(source: NodeId | None) -> ShardRejected:
    return ShardRejected(shard=ShardRef(MODEL, 0), source=source, reason="wrong")


async def test_deeds_are_judged_and_time_forgives(world: World) -> None:
    async with inline_database() as db, hearing(world, db) as (reputation, bus):
        assert reputation.score(A) == DEFAULT
        await told(bus, rejected(A), rejected(None), SummaryRejected(node=B, reason="x"))
        assert reputation.score(A) == pytest.approx(0.4, abs=1e-5)
        assert reputation.score(B) == pytest.approx(0.45, abs=1e-5)
        await asyncio.sleep(300)
        assert reputation.score(A) == pytest.approx(drifted(0.4, 300), abs=1e-5)


async def test_wrong_bytes_of_an_adapter_count_like_those_of_a_shard(world: World) -> None:
    async with inline_database() as db, hearing(world, db) as (reputation, bus):
        await told(bus, AdapterRejected(source=A, reason="hash"), rejected(B))
        assert reputation.score(A) == pytest.approx(reputation.score(B), abs=1e-9)


async def test_every_node_that_served_a_whole_reply_gains_once_for_it(world: World) -> None:
    async with inline_database() as db, hearing(world, db) as (reputation, bus):
        await told(bus, started("r", OWN, A, B, A), finished("r", "stop"), finished("r", "stop"))
        assert reputation.score(A) == reputation.score(B) == pytest.approx(0.51, abs=1e-5)
        assert reputation.score(OWN) == DEFAULT, "nobody judges himself"


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
async def test_a_reply_that_did_not_end_well_says_nothing_about_anybody(world: World, outcome: str) -> None:
    async with inline_database() as db, hearing(world, db) as (reputation, bus):
        await told(bus, started("r", A), finished("r", outcome))
        assert reputation.score(A) == DEFAULT


async def test_it_is_stored_now_and_then_and_a_restart_counts_the_time_between(world: World) -> None:
    async with inline_database() as db:
        async with hearing(world, db) as (reputation, bus):
            await told(bus, rejected(A), rejected(A))
            assert await read_trust(db) == (), "not at every deed"
            await asyncio.sleep(WRITE_S)
            (row,) = await read_trust(db)
            assert row.node == A and row.score == pytest.approx(drifted(0.3, WRITE_S), abs=1e-4)
            await asyncio.sleep(5 * 3600)
        await asyncio.sleep(60)
        async with hearing(world, db) as (reputation, bus):
            assert reputation.score(A) == pytest.approx(drifted(0.3, WRITE_S + 5 * 3600 + 60), abs=1e-4)


async def test_whoever_is_back_in_the_middle_is_forgotten_at_the_next_write(world: World) -> None:
    async with inline_database() as db, hearing(world, db) as (_, bus):
        await told(bus, rejected(A))
        await asyncio.sleep(6 * 3600)
        await told(bus, rejected(B))
        await asyncio.sleep(WRITE_S)
        assert [row.node for row in await read_trust(db)] == [B]


async def test_of_too_many_the_one_that_says_least_is_forgotten(world: World) -> None:
    many = [TrustRow(node=NodeId(f"{n:064x}"), score=0.1, judged_at=world.clock.now()) for n in range(1, MAX_KEPT + 1)]
    async with inline_database() as db:
        async with db.transaction() as tx:
            await write_trust(tx, many)
        async with hearing(world, db) as (reputation, bus):
            await told(bus, rejected(A))
            assert reputation.score(A) == DEFAULT and reputation.score(many[0].node) < 0.2
            await told(bus, *(started(f"r{n}", B) for n in range(MAX_RUNNING)))
            await told(bus, started("last", B), finished("r0", "stop"))
            assert reputation.score(B) == DEFAULT, "too old to be remembered"
