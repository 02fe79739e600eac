"""What every test may ask for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from swarmd.kit.world import World, seeded_world

# How long one example takes says how busy the machine is: seen as failures where two runs shared two cores.
settings.register_profile("swarmd", deadline=None)
settings.load_profile("swarmd")


@pytest.fixture(scope="session", autouse=True)
def _debug_mode_without_stacks() -> Iterator[None]:
    """Debug mode notes at every future and callback where it was made, for messages that a failing test may print; in many
    tests that is half of the time. What it checks stays, since that goes by the loop's own flag: calls from other threads,
    callbacks that take long, sockets that block, coroutines that nobody awaits. PYTHONASYNCIODEBUG=1 brings the notes back.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not os.environ.get("PYTHONASYNCIODEBUG"):
            patch.setattr(asyncio.BaseEventLoop, "get_debug", lambda _: False)
        yield


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
