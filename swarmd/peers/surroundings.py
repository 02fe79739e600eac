"""Notices that the machine has slept or has other addresses than before, and has the links look at themselves.

Without it a link on an address that is gone lives until its silence is noticed, and whoever was unreachable meanwhile waits
for the end of a pause between two dials.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from swarmd.kit.service import Ready
from swarmd.kit.world import World

LOOK_S: Final = 2.0  # of the 10 s in which a machine is to be back after a change, the rest is for dialling
SLEPT_S: Final = 5.0  # a wall clock this far ahead of the monotonic one stood still with the machine, or was set

logger = logging.getLogger(__name__)


class Looking(Protocol):
    """What is needed of `peers.links.Links`."""

    def look_around(self, present: frozenset[str]) -> None: ...


class Surroundings:
    """A service. `addresses`: all of this machine's, loopback too."""

    name = "surroundings"

    def __init__(self, *, addresses: Callable[[], frozenset[str]], links: Looking, world: World) -> None:
        self._addresses, self._links, self._clock = addresses, links, world.clock

    async def run(self, ready: Ready) -> None:
        ready()
        known = self._addresses()
        wall, monotonic = self._clock.now(), self._clock.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            present = self._addresses()
            ahead = (self._clock.now() - wall) - (self._clock.monotonic() - monotonic)
            wall, monotonic = self._clock.now(), self._clock.monotonic()
            if present == known and ahead < SLEPT_S:
                continue
            if present != known:
                logger.info("this machine's addresses have changed: links are looked at, and absent peers dialled")
            else:
                logger.info("this machine slept for %.0f s: links are looked at, and absent peers dialled", ahead)
            known = present
            self._links.look_around(present)
