"""Signs of life between the nodes of a generation.

Each stage gives them to the head, and to the stage before it along their lane: two stages can lose each other while the head
still reaches both, and a step that went into such a line is answered by nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

ALIVE_S = 0.5  # between two signs; four of them are missing before somebody is given up
SILENCE_S = 2.0  # without any: it is lost. Its event loop answers also while its worker computes
LOOK_S = 0.5  # between two looks for signs
LATE_S = 0.5
"""By so much our own look may be late; above it, it was us who were held up, and everybody has a new term."""


class Teller:
    """Gives signs, the first one at once."""

    def __init__(self, tell: Callable[[], bool]) -> None:
        """`tell`: gives one; False when there is nobody any more to give it to, and it was the last."""
        self._tell = tell
        self._timer: asyncio.TimerHandle | None = None
        self._go_on()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_on(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(ALIVE_S, self._go_on) if self._tell() else None


class Listener:
    """Listens for somebody's signs, from the start on."""

    def __init__(self, ticks: Callable[[], float], silent: Callable[[float], None]) -> None:
        """`silent`: called once, with the seconds, when nothing has been `heard` for longer than `SILENCE_S`."""
        self._ticks, self._silent = ticks, silent
        self._heard_at = self._looked_at = ticks()
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def heard(self) -> None:
        self._heard_at = self._ticks()

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._ticks()
        if now - self._looked_at > LOOK_S + LATE_S:
            self._heard_at = now
        self._looked_at = now
        if now - self._heard_at > SILENCE_S:
            self._silent(now - self._heard_at)
        else:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
