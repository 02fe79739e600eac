"""Who may begin a generation now, and who waits: a bounded queue in front of a bounded number of places.

Clients take turns: of those who wait, the one whose client was served longest ago is next, so that a script with a hundred
requests delays a person's one by one turn and not by a hundred. Within a client it is first come, first served. Where
clients have weights, one of weight 4 has four turns for each turn of one of weight 1, and nobody is left out for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from swarmd.domain.refusals import Busy
from swarmd.kit.world import Clock

TIME_WEIGHT: Final = 0.2  # of a new generation in the mean time of one: the last five or so tell how it is now
ASSUMED_S: Final = 5.0  # a generation takes, before the first one ended: some hundred tokens
RETRY_LIMIT_S: Final = 60.0  # longest wait that is told to a client; by then the queue looks different in any case


class Admission:
    """Belongs to one event loop. `enter`, and if it was let in, `leave`, exactly once."""

    def __init__(
        self,
        *,
        places: Callable[[], int],
        queue: Callable[[], int],
        patience_s: Callable[[], float],
        clock: Clock,
        weight: Callable[[str], int] = lambda _client: 1,
    ) -> None:
        """`places`: generations at the same time; `queue`: requests that may wait; `patience_s`: how long one may;
        `weight`: of a client, at least 1."""
        self._weight = weight
        self._served = 0.0
        """Where the client that was served last stood in its own count of turns, each as long as 1 / weight."""
        self._due: dict[str, float] = {}
        """Where those who wait will stand with their next turn; the least one is next. As many as `_lines`."""
        self._places, self._queue, self._patience_s, self._clock = places, queue, patience_s, clock
        self._active = self._waiting = 0
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}  # at most `queue` futures together
        self._mean_s: float | None = None
        self._left: set[asyncio.Future[None]] = set()
        self._closed: str | None = None

    @property
    def active(self) -> int:
        return self._active

    @property
    def waiting(self) -> int:
        return self._waiting

    def retry_after_s(self) -> float:
        """When a place may be free for somebody who comes now and finds the queue full, seconds."""
        mean_s = ASSUMED_S if self._mean_s is None else self._mean_s
        rounds = (self._waiting + 1) / max(1, self._places())
        return min(RETRY_LIMIT_S, max(1.0, mean_s * rounds))

    def taken(self, seconds: float) -> None:
        """A generation has ended that took so long."""
        mean_s = seconds if self._mean_s is None else self._mean_s
        self._mean_s = mean_s + TIME_WEIGHT * (seconds - mean_s)

    def close(self, why: str) -> None:
        """Nobody is let in any more. Those who wait keep their places, and those who are in stay."""
        self._closed = why

    async def enter(self, client: str) -> Busy | None:
        """None: it has a place, and must `leave`. Cancelling gives up the place in the queue."""
        if self._closed is not None:
            return Busy(what=self._closed, retry_after_s=RETRY_LIMIT_S / 2)
        if self._active < self._places() and not self._waiting:
            self._active += 1
            return None
        limit = self._queue()
        if self._waiting >= limit:
            what = f"this node runs {self._active} requests and {self._waiting} wait: try again later"
            return Busy(what=what, retry_after_s=self.retry_after_s())
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if client not in self._lines:
            self._await_turn(client, deque())  # bounded by `queue`, together
        self._lines[client].append(turn)
        self._waiting += 1
        self._call()  # the setting may have been raised
        patience_s = self._patience_s()
        try:
            await asyncio.wait((turn,), timeout=patience_s)
        except asyncio.CancelledError:
            if turn.done():
                self.leave()
            raise
        finally:
            self._forget(client, turn)
        if turn.done():
            return None
        what = f"no place became free within {patience_s:.0f} s; this node runs {self._active} requests: try again later"
        return Busy(what=what, retry_after_s=self.retry_after_s())

    def leave(self) -> None:
        self._active -= 1
        self._call()
        left, self._left = self._left, set()
        for one in left:
            one.set_result(None)

    async def somebody_left(self, timeout_s: float) -> None:
        """Returns when a generation of this node has ended, or so many seconds have passed."""
        with self._watcher() as left:
            await asyncio.wait((left,), timeout=timeout_s)

    @contextmanager
    def _watcher(self) -> Generator[asyncio.Future[None]]:
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left.add(left)
        try:
            yield left
        finally:
            self._left.discard(left)

    def _call(self) -> None:
        """Gives free places to those whose turn it is."""
        while self._waiting and self._active < self._places():
            # Dicts keep their order: among those that are due, the one that waits longest for a turn.
            client = min(self._lines, key=self._due.__getitem__)
            line = self._lines.pop(client)
            self._served = max(self._served, self._due.pop(client))
            turn = line.popleft()
            if line:
                self._await_turn(client, line)
            self._waiting -= 1
            self._active += 1
            turn.set_result(None)

    def _await_turn(self, client: str, line: deque[asyncio.Future[None]]) -> None:
        self._due[client] = self._served + 1 / max(1, self._weight(client))
        self._lines[client] = line

    def _forget(self, client: str, turn: asyncio.Future[None]) -> None:
        if turn.done():
            return
        line = self._lines[client]
        line.remove(turn)
        if not line:
            del self._lines[client], self._due[client]
        self._waiting -= 1
