"""Turns by tier, where they are switched on."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from swarmd.config.settings import Settings, with_values
from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.refusals import Busy
from swarmd.inference.turns import LINE, PATIENCE_S, StageTurns
from swarmd.kit.world import World

M, OTHER = ModelId("m"), ModelId("other")
BEST, GOOD, NEW, HOLDER = (NodeId(digit * 64) for digit in "abcd")
WEIGHTS = {BEST: 8, GOOD: 2}
pytestmark = pytest.mark.looptime


def turns(world: World, **values: bool | int) -> StageTurns:
    chosen = {f"inference.{name}": value for name, value in values.items()}
    settings = with_values(Settings(), {"inference.max_batch_size": 1, "inference.priority_by_tier": True, **chosen})
    return StageTurns(settings=lambda: settings, weight=lambda node: WEIGHTS.get(node, 1), clock=world.clock)


async def test_members_of_a_higher_tier_have_more_turns_and_nobody_is_left_out(world: World) -> None:
    line, served = turns(world), list[NodeId]()

    async def stage(node: NodeId) -> None:
        async with line.turn(M, node) as busy:
            assert busy is None
            served.append(node)
            await asyncio.sleep(0.01)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(line.turn(M, HOLDER))
        waiting = [asyncio.create_task(stage(node)) for node in (NEW, GOOD, BEST) for _ in range(11)]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    first = served[:11]
    assert [first.count(node) for node in (BEST, GOOD, NEW)] == [8, 2, 1]


async def test_off_means_that_nobody_waits(world: World) -> None:
    line = turns(world, priority_by_tier=False)
    async with line.turn(M, NEW) as first, line.turn(M, NEW) as second:
        assert (first, second) == (None, None)


async def test_models_have_lines_of_their_own_and_a_line_has_an_end(world: World) -> None:
    line = turns(world)
    async with line.turn(M, NEW), line.turn(OTHER, NEW) as other:
        assert other is None
        began = world.clock.monotonic()
        async with line.turn(M, BEST) as busy:
            assert isinstance(busy, Busy) and world.clock.monotonic() - began == pytest.approx(PATIENCE_S)
        waiting = [asyncio.create_task(wait(line)) for _ in range(LINE)]
        await asyncio.sleep(0)
        async with line.turn(M, BEST) as busy:
            assert isinstance(busy, Busy), "the line is full"
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    async with line.turn(M, NEW) as busy:
        assert busy is None, "whoever gave up holds nothing"


async def wait(line: StageTurns) -> None:
    async with line.turn(M, GOOD):
        pass
