from __future__ import annotations

import asyncio

import pytest

from swarmd.api.passes import LIMIT, OneTimePasses
from swarmd.kit.world import World


async def test_once(world: World) -> None:
    passes = OneTimePasses(world=world, life_s=60)
    text = passes.issue()
    assert len(text) == 64
    assert passes.redeem(text)
    assert not passes.redeem(text)
    assert not passes.redeem("")


@pytest.mark.looptime
async def test_they_expire(world: World) -> None:
    passes = OneTimePasses(world=world, life_s=60)
    early, late = passes.issue(), passes.issue()
    await asyncio.sleep(59)
    assert passes.redeem(early)
    await asyncio.sleep(2)
    assert not passes.redeem(late)


async def test_they_are_bounded(world: World) -> None:
    passes = OneTimePasses(world=world, life_s=60)
    first = passes.issue()
    rest = [passes.issue() for _ in range(LIMIT)]
    assert not passes.redeem(first)
    assert passes.redeem(rest[0])
