"""Trust from facts, and across restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from swarmd.domain.events import GenerationStarted, ModelDiscovered, ModelRemoved
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.models import TrustLevel
from swarmd.economy import trust_records
from swarmd.economy.trust import DECAY_S
from swarmd.economy.trust_records import CHECK_S, ModelTrust
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World
from swarmd.store.database import Database
from swarmd.store.steward import read_model_trust
from tests.fakes.inline_sqlite import inline_database

A, B = ModelId("a"), ModelId("b")
pytestmark = pytest.mark.looptime


@dataclass
class Swarm:
    pinned: set[ModelId] = field(default_factory=set)
    hosted: set[ModelId] = field(default_factory=set)
    holders: dict[ModelId, int] = field(default_factory=dict)
    requests: dict[ModelId, int] = field(default_factory=dict)
    bus: EventBus = field(default_factory=EventBus)

    async def tell(self, *facts: object) -> None:
        for fact in facts:
            self.bus.publish(fact)
        await asyncio.sleep(0.001)


@asynccontextmanager
async def keeping(world: World, db: Database, swarm: Swarm) -> AsyncIterator[ModelTrust]:
    trust = ModelTrust(
        db=db, bus=swarm.bus, clock=world.clock, pinned=swarm.pinned.__contains__,
        known=lambda model: model in (A, B), hosted=swarm.hosted.__contains__,
        holders=lambda: swarm.holders, requests=lambda: swarm.requests,
    )  # fmt: skip
    await trust.load()
    async with Supervisor("test", world=world) as supervisor:
        await supervisor.start(trust)
        yield trust


def started(model: ModelId) -> GenerationStarted:
    return GenerationStarted(request=RequestId("r"), model=model, nodes=())


async def test_the_third_request_is_on_the_disk_at_once(world: World) -> None:
    swarm = Swarm()
    async with inline_database() as db:
        async with keeping(world, db, swarm) as trust:
            await swarm.tell(ModelDiscovered(model=A, name="A"), started(A), started(A))
            assert trust.level(A) is TrustLevel.DISCOVERED
            await swarm.tell(started(A))
            assert trust.level(A) is TrustLevel.DEMAND_VERIFIED
            (row,) = await read_model_trust(db)
            assert (row.level, row.total_requests) == (TrustLevel.DEMAND_VERIFIED, 3)
        async with keeping(world, db, swarm) as trust:
            assert trust.level(A) is TrustLevel.DEMAND_VERIFIED, "it survives a restart"
            record = trust.record(A)
            assert record is not None and record.last_request_at is not None and record.first_seen <= record.last_request_at


async def test_counters_are_written_within_a_minute(world: World) -> None:
    swarm = Swarm()
    async with inline_database() as db, keeping(world, db, swarm):
        await swarm.tell(ModelDiscovered(model=A, name="A"), started(A))
        assert [row.total_requests for row in await read_model_trust(db)] == [0]
        await asyncio.sleep(CHECK_S)
        assert [row.total_requests for row in await read_model_trust(db)] == [1]


async def test_holders_and_demand_of_others_and_decay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hour = 3600.0  # between two looks: weeks go by here
    monkeypatch.setattr(trust_records, "CHECK_S", hour)
    swarm = Swarm(holders={A: 3}, requests={B: 3})
    async with inline_database() as db, keeping(world, db, swarm) as trust:
        await swarm.tell(ModelDiscovered(model=A, name="A"), ModelDiscovered(model=B, name="B"))
        await asyncio.sleep(hour + 1)
        assert (trust.level(A), trust.level(B)) == (TrustLevel.NETWORK_POPULAR, TrustLevel.DEMAND_VERIFIED)
        await asyncio.sleep(DECAY_S + hour)
        assert trust.level(A) is TrustLevel.DEMAND_VERIFIED, "nobody asked for it"
        assert trust.level(B) is TrustLevel.DEMAND_VERIFIED, "others still do"
        swarm.pinned.add(A)
        await asyncio.sleep(DECAY_S + hour)
        assert trust.level(A) is TrustLevel.PINNED
        swarm.pinned.clear()
        assert trust.level(A) is TrustLevel.DISCOVERED


async def test_without_a_record_and_after_a_removal(world: World) -> None:
    swarm = Swarm(hosted={A})
    async with inline_database() as db, keeping(world, db, swarm) as trust:
        assert (trust.level(A), trust.level(B)) == (TrustLevel.PINNED, TrustLevel.DISCOVERED)
        await swarm.tell(*(started(B) for _ in range(3)))
        assert trust.level(B) is TrustLevel.DEMAND_VERIFIED
        await swarm.tell(ModelRemoved(model=B))
        assert trust.level(B) is TrustLevel.DISCOVERED and await read_model_trust(db) == ()


async def test_what_was_here_before_there_were_records_and_what_is_not(world: World) -> None:
    swarm = Swarm(hosted={A}, requests={A: 4, ModelId("invented"): 9})
    async with inline_database() as db, keeping(world, db, swarm) as trust:
        await asyncio.sleep(CHECK_S + 1)
        assert trust.level(A) is TrustLevel.DEMAND_VERIFIED
        assert [row.model for row in await read_model_trust(db)] == [A]


async def test_a_busy_node_is_still_looked_at(world: World) -> None:
    """Facts in a row do not put the periodic check off."""
    swarm = Swarm(holders={A: 3})
    async with inline_database() as db, keeping(world, db, swarm) as trust:
        for _ in range(int(CHECK_S) + 2):
            await swarm.tell(started(A))
            await asyncio.sleep(1)
        assert trust.level(A) is TrustLevel.NETWORK_POPULAR
