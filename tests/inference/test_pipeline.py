"""What people see of the generations whose head this node is."""

from __future__ import annotations

import asyncio

import pytest

from swarmd.config.settings import Settings
from swarmd.domain.events import GenerationFinished
from swarmd.inference.pipeline import SAMPLE_AGE_S, Pipeline
from swarmd.kit.bus import EventBus
from swarmd.kit.world import World
from tests.fakes.heads import NODES, started


@pytest.mark.looptime
async def test_counters_latencies_and_the_last_speed(world: World) -> None:
    bus = EventBus()
    pipeline = Pipeline(
        node=NODES[0], catalog=None, registry=None, workers=None, stages=None, links=None, spawn=None, world=world, bus=bus,
        settings=Settings, encrypted=None,
    )  # fmt: skip
    assert (pipeline.last_tokens_per_second, pipeline.latencies_ms(), pipeline.active) == (None, [], 0)

    async def one(tokens: int, outcome: str) -> None:
        head, tail = started(1, limit=tokens, ticks=world.clock.ticks)
        for _ in range(tokens):
            await asyncio.sleep(0.5)
            tail.answer(0)
        assert await pipeline._admission.enter("") is None
        pipeline._finished(head, outcome)

    with bus.spy() as spy:
        await one(5, "length")
        fact = await spy.wait_for(GenerationFinished)
    assert (fact.completion_tokens, fact.outcome, fact.duration_ms) == (5, "length", pytest.approx(2500))
    assert pipeline.last_tokens_per_second == pytest.approx(2.0)
    await one(3, "cancelled")
    await one(1, "stop")  # a single token has no speed: the one before stays
    assert pipeline.last_tokens_per_second == pytest.approx(2.0)
    assert pipeline.latencies_ms() == [pytest.approx(2500), pytest.approx(500)]
    assert pipeline.active == 0
    await asyncio.sleep(SAMPLE_AGE_S + 1)
    assert pipeline.latencies_ms() == []
