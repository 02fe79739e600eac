"""systemd hears from a loop that turns; a launcher that is gone takes the node with it."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from swarmd.kit.notify import ALIVE, Notifier
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World
from swarmd.updates.signs_of_life import SignsOfLife


class Heard(Notifier):
    """Remembers when what was told."""

    def __init__(self, watchdog_s: float | None) -> None:
        super().__init__(watchdog_s=watchdog_s)
        self.at: list[float] = []

    def tell(self, *lines: str) -> None:
        assert lines == (ALIVE,)
        self.at.append(asyncio.get_running_loop().time())


@pytest.mark.looptime
async def test_two_signs_fit_into_the_silence_that_is_allowed(world: World) -> None:
    heard = Heard(30.0)
    async with Supervisor("test", world=world) as supervisor:
        await supervisor.start(SignsOfLife(above=heard, stop=asyncio.Event()))
        await asyncio.sleep(61)
    assert [round(at - heard.at[0]) for at in heard.at] == [0, 12, 24, 36, 48, 60]


@pytest.mark.looptime
async def test_nobody_watches(world: World) -> None:
    heard = Heard(None)
    async with Supervisor("test", world=world) as supervisor:
        await supervisor.start(SignsOfLife(above=heard, stop=asyncio.Event()))
        await asyncio.sleep(61)
    assert heard.at == []


@pytest.mark.parametrize("watchdog_s", [None, 60.0])
async def test_a_launcher_that_was_killed_ends_the_node(world: World, watchdog_s: float | None) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    above, stop = Notifier(launcher=theirs, watchdog_s=watchdog_s), asyncio.Event()
    async with Supervisor("test", world=world) as supervisor:
        await supervisor.start(SignsOfLife(above=above, stop=stop))
        ours.send(b"words that mean nothing")
        await asyncio.sleep(0.02)
        assert not stop.is_set()
        with contextlib.closing(ours):
            pass
        async with asyncio.timeout(5):
            await stop.wait()
    above.close()
