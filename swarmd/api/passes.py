"""One-time passes with a short life: the nonce in a dashboard page, the ticket of a browser's socket.

A pass stands for something its owner already proved (that it reads our page on this machine, that it has the key), where
the browser cannot show the proof itself.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from swarmd.kit.world import World

PASS_BYTES: Final = 32  # as strong as the key it may be changed into
LIMIT: Final = 256  # unused at the same time; the oldest goes first, so reloading a page in a loop costs nothing


class OneTimePasses:
    """Give one out, take it back once. Memory only: a restart ends them all."""

    def __init__(self, *, world: World, life_s: float) -> None:
        self._world, self._life_s = world, life_s
        self._until: OrderedDict[str, float] = OrderedDict()

    def issue(self) -> str:
        """64 hex digits, good for one use within the life."""
        text = self._world.entropy.token(PASS_BYTES).hex()
        self._until[text] = self._world.clock.monotonic() + self._life_s
        while len(self._until) > LIMIT:
            self._until.popitem(last=False)
        return text

    def redeem(self, text: str) -> bool:
        """Whether it was given out, is not too old and was not used. It is used up either way."""
        until = self._until.pop(text, None)
        return until is not None and self._world.clock.monotonic() <= until
