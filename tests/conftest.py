"""What every test may ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from swarmd.kit.world import World, seeded_world


@pytest.fixture
def world() -> World:
    """The same time and chance in every run; virtual time under `@pytest.mark.looptime`."""
    return seeded_world(1)


@pytest.fixture(scope="session", autouse=True)
def _loop_around_plain_tests() -> Iterator[None]:
    """looptime asks for the current loop around tests that are not coroutines too; without one it would leak a new one."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
