"""Virtual time moves the seeded clock; the seeded entropy repeats itself; the real one does not."""

from __future__ import annotations

import asyncio

import pytest

from swarmd.kit.world import DEFAULT_START, SeededClock, World, real_world, seeded_world


@pytest.mark.looptime
async def test_the_seeded_clock_follows_the_loop(world: World) -> None:
    assert world.clock.now() == DEFAULT_START
    before = world.clock.monotonic()
    await asyncio.sleep(90)
    assert world.clock.now() == DEFAULT_START + 90
    assert world.clock.monotonic() - before == 90
    assert world.clock.ticks() - before == 90


@pytest.mark.looptime
async def test_shift_moves_the_wall_clock_alone() -> None:
    clock = SeededClock(start=1000.0)
    before = clock.monotonic()
    clock.shift(-100)
    assert clock.now() == 900
    assert clock.monotonic() == before


def test_outside_a_loop_the_seeded_wall_clock_stands() -> None:
    assert seeded_world(1, start=5.0).clock.now() == 5.0


def test_seeded_entropy_repeats() -> None:
    one, two = seeded_world(7).entropy, seeded_world(7).entropy
    assert one.token(32) == two.token(32)
    assert one.uniform(0, 1) == two.uniform(0, 1)
    assert seeded_world(8).entropy.token(32) != seeded_world(7).entropy.token(32)


def test_jitter_does_not_change_tokens() -> None:
    one, two = seeded_world(7).entropy, seeded_world(7).entropy
    one.uniform(0, 1)
    assert one.token(8) == two.token(8)


async def test_the_real_world() -> None:
    world = real_world()
    assert len(world.entropy.token(16)) == 16
    assert world.entropy.token(16) != world.entropy.token(16)
    assert 2 <= world.entropy.uniform(2, 3) <= 3
    assert world.clock.now() > DEFAULT_START
    assert world.clock.monotonic() == pytest.approx(asyncio.get_running_loop().time(), abs=1)
    assert world.clock.ticks() <= world.clock.ticks()
