"""What was asked for in the last ten minutes, and no more."""

from __future__ import annotations

import asyncio

import pytest

from swarmd.domain.events import GenerationStarted
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.peers import MAX_DEMANDS, ModelDemand
from swarmd.economy.demand import STEP_S, WINDOW_S, Demand
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World

A, B = ModelId("a"), ModelId("b")
pytestmark = pytest.mark.looptime


async def test_a_generation_counts_for_ten_minutes(world: World) -> None:
    bus = EventBus()
    demand = Demand(bus=bus, clock=world.clock)
    async with Supervisor("test", world=world) as supervisor:
        await supervisor.start(demand)
        for model in (B, A, B):
            bus.publish(GenerationStarted(request=RequestId("r"), model=model, nodes=()))
        await asyncio.sleep(WINDOW_S / 2)
        assert demand.told() == (ModelDemand(model=A, requests=1), ModelDemand(model=B, requests=2))
        bus.publish(GenerationStarted(request=RequestId("r"), model=A, nodes=()))
        await asyncio.sleep(WINDOW_S / 2 + STEP_S)
        assert demand.told() == (ModelDemand(model=A, requests=1),)
        await asyncio.sleep(WINDOW_S)
        assert demand.told() == ()


async def test_the_clock_on_the_wall_changes_nothing(world: World) -> None:
    demand = Demand(bus=EventBus(), clock=world.clock)
    demand.count(A)
    world.clock.shift(10 * WINDOW_S)  # type: ignore[attr-defined]
    assert demand.told() == (ModelDemand(model=A, requests=1),)


async def test_of_too_many_models_the_one_asked_for_longest_ago_is_forgotten(world: World) -> None:
    demand = Demand(bus=EventBus(), clock=world.clock)
    names = [ModelId(f"m{number:03}") for number in range(MAX_DEMANDS)]
    for model in (*names, names[0], A):
        demand.count(model)
    told = {one.model: one.requests for one in demand.told()}
    assert len(told) == MAX_DEMANDS and told[names[0]] == 2 and told[A] == 1 and names[1] not in told
