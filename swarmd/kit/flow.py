"""Pace and order between coroutines: delays between tries, rate limits, one flight per key, bounded channels.

Nothing here creates a task, so nothing here can lose one. Everything belongs to one event loop and is not thread-safe.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from swarmd.kit.world import Clock, Entropy

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Backoff:
    """Growing delays with jitter: the first lies in [first_s, first_s * factor], none is longer than `limit_s`.

    Jitter is there because many nodes lose the same peer at the same moment.
    """

    def __init__(self, first_s: float, factor: float, limit_s: float, *, entropy: Entropy) -> None:
        if not (0 < first_s <= limit_s and factor > 1):
            raise ValueError(f"a backoff needs 0 < first <= limit and factor > 1, not {first_s}, {limit_s}, {factor}")
        self._first_s = first_s
        self._factor = factor
        self._limit_s = limit_s
        self._entropy = entropy
        self._floor_s = first_s

    def delay(self, *, limit_s: float = math.inf) -> float:
        """Seconds to wait before the next try, this time none above a lower limit. Each call counts as one failure."""
        ceiling = min(self._limit_s, limit_s, self._floor_s * self._factor)
        floor = max(self._first_s, ceiling / self._factor)
        self._floor_s = ceiling
        return self._entropy.uniform(floor, ceiling)

    def reset(self) -> None:
        """After a success."""
        self._floor_s = self._first_s


class TokenBucket:
    """`rate` tokens a second, at most `burst` saved up. Tokens are requests or bytes, whatever the caller counts."""

    def __init__(self, rate: float, burst: float, *, clock: Clock) -> None:
        self._clock = clock
        self._at: float | None = None
        self._balance = burst
        self.set_rate(rate, burst)

    def set_rate(self, rate: float, burst: float) -> None:
        """New limits from now on; waits that already began keep their old length."""
        if not (rate > 0 and burst > 0):
            raise ValueError(f"rate and burst must be over 0, not {rate} and {burst}")
        if self._at is not None:
            self._refill()
        self._rate, self._burst = rate, burst
        self._balance = min(self._balance, burst)

    def try_take(self, n: float = 1.0) -> bool:
        """Take `n` now or nothing. More than `burst` never fits."""
        self._refill()
        if self._balance < n:
            return False
        self._balance -= n
        return True

    def retry_after_s(self, n: float = 1.0) -> float:
        """Seconds until `try_take(n)` could succeed, if nobody else takes."""
        self._refill()
        return max(0.0, (n - self._balance) / self._rate)

    async def take(self, n: float = 1.0) -> None:
        """Wait until `n` are earned, in order of arrival. More than `burst` is allowed: it waits its debt off."""
        self._refill()
        self._balance -= n  # reserved before the wait, no await between: who comes first is served first
        if self._balance >= 0:
            return
        try:
            await asyncio.sleep(-self._balance / self._rate)
        except asyncio.CancelledError:
            self._balance += n
            raise

    def _refill(self) -> None:
        at = self._clock.monotonic()
        if self._at is not None:
            self._balance = min(self._burst, self._balance + (at - self._at) * self._rate)
        self._at = at


class SingleFlight(Generic[K, T]):
    """Concurrent callers with one key share one run of the work.

    The first caller runs it inside its own task. When that caller is cancelled the others do not fail: one of them runs
    the work anew. An exception reaches every caller that waited for that run.
    """

    def __init__(self) -> None:
        self._flights: dict[K, asyncio.Future[tuple[T] | None]] = {}

    async def do(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        while (flight := self._flights.get(key)) is not None:
            landed = await asyncio.shield(flight)
            if landed is not None:
                return landed[0]
        # No await between the look-up and the registration: exactly one caller gets here per flight.
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        outcome: tuple[T] | None = None
        failure: BaseException | None = None
        try:
            outcome = (await work(),)
            return outcome[0]
        except BaseException as error:
            failure = error
            raise
        finally:
            del self._flights[key]
            if isinstance(failure, Exception):
                flight.set_exception(failure)
                flight.exception()  # read once, so that no followers means no complaint about an unread exception
            else:
                flight.set_result(outcome)  # None (the leader was cancelled) tells the others to run it themselves

    def __len__(self) -> int:
        return len(self._flights)


class ChannelClosed(Exception):
    """The channel is closed: nothing more goes in, and on the receiving side nothing is left."""


class Channel(Generic[T]):
    """A bounded first-in-first-out pipe between coroutines that can be closed, for streams with backpressure.

    `send` waits while `size` items are inside. After `close` what is inside can still be received; then `receive`
    raises `ChannelClosed` (or the error given to `close`) and iteration ends (or raises that error).
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a channel holds at least one item, not {size}")
        self._size = size
        self._items: deque[T] = deque()  # bounded by the checks in send and try_send
        self._senders: deque[asyncio.Future[None]] = deque()  # bounded by the number of waiting coroutines
        self._receivers: deque[asyncio.Future[None]] = deque()  # bounded by the number of waiting coroutines
        self._closed = False
        self._error: Exception | None = None

    @property
    def closed(self) -> bool:
        return self._closed

    def __len__(self) -> int:
        return len(self._items)

    async def send(self, item: T) -> None:
        """Raises ChannelClosed when the channel is closed before the item is inside."""
        while not self._closed and len(self._items) >= self._size:
            await self._park(self._senders)
        if not self.try_send(item):
            raise ChannelClosed("the receiving side closed the channel")

    def try_send(self, item: T) -> bool:
        """Without waiting. False: full or closed, the item was not taken."""
        if self._closed or len(self._items) >= self._size:
            return False
        self._items.append(item)
        self._wake(self._receivers)
        return True

    async def receive(self) -> T:
        while not self._items:
            if self._closed:
                raise self._error or ChannelClosed("the sending side closed the channel")
            await self._park(self._receivers)
        item = self._items.popleft()
        self._wake(self._senders)
        return item

    def close(self, error: Exception | None = None) -> None:
        """No more items. Closing twice is allowed; the first error stays."""
        if self._closed:
            return
        self._closed = True
        self._error = error
        for waiters in (self._senders, self._receivers):
            while waiters:
                self._wake(waiters)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except ChannelClosed:
            raise StopAsyncIteration from None

    async def _park(self, waiters: deque[asyncio.Future[None]]) -> None:
        waiter = asyncio.get_running_loop().create_future()
        waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self._wake(waiters)  # we were woken and cancelled in the same turn: the turn goes to the next one
            elif waiter in waiters:
                waiters.remove(waiter)
            raise

    @staticmethod
    def _wake(waiters: deque[asyncio.Future[None]]) -> None:
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
