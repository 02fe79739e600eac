"""Replies that many ask for and that seldom change, encoded once for all who ask.

One is made anew when a fact was published or somebody wrote through the API since it was made, so nobody who did something
reads what was before. What changes without a fact (how far a download is, what trust and speed have become) is at most
AGE_S old, which is less than it takes to look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from swarmd.api.calls import Encoded
from swarmd.kit.bus import EventBus
from swarmd.kit.world import Clock

AGE_S: Final = 0.25


class News:
    """Grows with everything that may change a reply."""

    def __init__(self, bus: EventBus) -> None:
        self._bus, self._writes = bus, 0

    def wrote(self) -> None:
        """A request that may change something has ended."""
        self._writes += 1

    @property
    def count(self) -> int:
        return self._bus.published + self._writes


class Fresh:
    """One reply."""

    def __init__(self, *, news: News, clock: Clock, age_s: float = AGE_S) -> None:
        self._news, self._clock, self._age_s = news, clock, age_s
        self._made: tuple[int, float, Encoded] | None = None

    def reply(self, make: Callable[[], Any]) -> Encoded:
        now, count = self._clock.monotonic(), self._news.count
        if self._made is not None and self._made[0] == count and 0 <= now - self._made[1] < self._age_s:
            return self._made[2]
        encoded = Encoded(msgspec.json.encode(make()))
        self._made = (count, now, encoded)
        return encoded
