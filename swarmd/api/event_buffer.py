"""The last events of one reply, for clients that follow it live or come back for the rest.

Whoever makes the events may wait for one follower (`paced`), whose socket then sets the pace; others take what is still
there, and are told when they are too slow.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Final

EVENTS_LIMIT: Final = 2000  # contract: swarmllm.md 3.3
BYTES_LIMIT: Final = 8 * 1024 * 1024  # of one reply; the last events have its whole text several times
LAG: Final = 32  # events that may wait for a paced follower; then the stages wait


class FellBehind(Exception):
    """The next event is no longer there."""


class EventBuffer:
    """Events are numbered from 0 without gaps."""

    def __init__(self, *, paced: bool = False) -> None:
        self._events: deque[bytes] = deque(maxlen=EVENTS_LIMIT)
        self._bytes = 0
        self._count = 0
        self._paced, self._taken = paced, 0
        self._over = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def first(self) -> int:
        """Number of the oldest event that is kept."""
        return self._count - len(self._events)

    @property
    def count(self) -> int:
        """Events so far, whether they are still kept or not."""
        return self._count

    @property
    def over(self) -> bool:
        return self._over

    def append(self, event: bytes) -> None:
        assert not self._over, "an event behind the last one"
        if len(self._events) == EVENTS_LIMIT:
            self._bytes -= len(self._events[0])
        self._events.append(event)
        self._bytes += len(event)
        self._count += 1
        while self._bytes > BYTES_LIMIT and len(self._events) > 1:
            self._bytes -= len(self._events.popleft())
        self._wake()

    def end(self) -> None:
        """Nothing more will come."""
        self._over = True
        self._wake()

    async def room(self, lag: int = LAG) -> None:
        """Until the follower that sets the pace is at most `lag` events behind."""
        while self._paced and self._count - self._taken > lag:
            self._room.clear()
            await self._room.wait()

    async def follow(self, after: int, *, paces: bool = False) -> AsyncGenerator[bytes]:
        """Events behind number `after` (-1: all), those to come included. Raises FellBehind."""
        number = after + 1
        while True:
            while number < self._count:
                if number < self.first:
                    raise FellBehind
                yield self._events[number - self.first]
                number += 1
                if paces:
                    self._taken = number
                    self._room.set()
            if self._over:
                return
            await self._news.wait()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
