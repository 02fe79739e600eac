"""Tells who started this process that its event loop turns, and notices when the launcher above is gone."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from swarmd.kit.notify import ALIVE, Notifier
from swarmd.kit.service import Ready

MARGIN: Final = 0.4  # of the silence that is allowed: two signs in it, and some air (sd_watchdog_enabled(3) says half)

logger = logging.getLogger(__name__)


class SignsOfLife:
    """Service. A loop that hangs sends none, and systemd ends the process; that is the point, so no thread may do this."""

    name = "signs of life"

    def __init__(self, *, above: Notifier, stop: asyncio.Event) -> None:
        """`stop`: ends the node."""
        self._above, self._stop = above, stop

    async def run(self, ready: Ready) -> None:
        ready()
        loop, launcher, watchdog_s = asyncio.get_running_loop(), self._above.launcher, self._above.watchdog_s
        if launcher is not None:
            loop.add_reader(launcher.fileno(), self._hear)
        try:
            while watchdog_s is not None:
                self._above.tell(ALIVE)
                await asyncio.sleep(watchdog_s * MARGIN)
            if launcher is not None:
                await loop.create_future()
        finally:
            if launcher is not None:
                loop.remove_reader(launcher.fileno())

    def _hear(self) -> None:
        """The launcher says nothing; its end closes when it ends, and a node that nobody can stop is none."""
        launcher = self._above.launcher
        assert launcher is not None, "we listen to it"
        try:
            if launcher.recv(4096):
                return
        except BlockingIOError:
            return
        except OSError as error:
            logger.debug("the launcher's line broke: %s", error)
        logger.warning("the launcher is gone: stopping")
        asyncio.get_running_loop().remove_reader(launcher.fileno())
        self._stop.set()
