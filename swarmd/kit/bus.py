"""Facts from whoever owns a state to whoever wants to know, without either knowing the other.

`publish` is synchronous and never waits: a slow listener cannot hold up a publisher. An inbox loses nothing and fails
loudly when its owner does not keep up; a tap drops the oldest and counts. Listeners subscribe by class (a base class
hears its subclasses). Belongs to one event loop; publish from that loop's thread only.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

RECENT = 256  # facts kept for a dashboard that connects later; facts are rare, this is minutes to hours
INBOX_SIZE = 1024  # far more than a healthy subscriber ever has waiting; each fact is some hundred bytes
TAP_SIZE = 256
SPY_TIMEOUT_S = 5.0  # a test that waits longer than this hangs


class InboxOverflow(Exception):
    """The owner of a lossless inbox did not read it; facts would have been lost."""


class _Listener(Generic[T]):
    """Shared by inbox and tap: a queue and at most a few coroutines that wait on it."""

    def __init__(self, classes: tuple[type[T], ...], size: int) -> None:
        if size < 1:
            raise ValueError(f"an inbox holds at least one fact, not {size}")
        self._classes = classes
        self._size = size
        self._facts: deque[T] = deque()  # bounded in _take
        self._closed = False
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._facts)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        """The next fact; iteration ends when the subscription has ended and everything was read."""
        while not self._facts:
            self._check()
            if self._closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        self._check()
        return self._facts.popleft()

    def drain(self) -> list[T]:
        """Everything that waits, without waiting."""
        self._check()
        facts = list(self._facts)
        self._facts.clear()
        return facts

    def _check(self) -> None:
        """Raises where facts were lost that must not be."""

    def offer(self, fact: Any) -> None:
        """For the bus only."""
        if isinstance(fact, self._classes):
            self._take(fact)
            self._news.set()

    def _take(self, fact: T) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """For the bus only."""
        self._closed = True
        self._news.set()


class Inbox(_Listener[T]):
    """Lossless: after an overflow every read raises InboxOverflow, and the supervisor restarts the owner."""

    _overflowed = False

    def _take(self, fact: T) -> None:
        if self._overflowed:
            return
        if len(self._facts) >= self._size:
            self._overflowed = True
            logger.error("an inbox of %s is full with %d facts", [one.__name__ for one in self._classes], self._size)
            return
        self._facts.append(fact)

    def _check(self) -> None:
        if self._overflowed:
            names = ", ".join(one.__name__ for one in self._classes)
            raise InboxOverflow(f"more than {self._size} facts ({names}) arrived and were not read")


class Tap(_Listener[T]):
    """Lossy: when it is full the oldest fact goes and is counted in `dropped`."""

    dropped = 0

    def _take(self, fact: T) -> None:
        if len(self._facts) >= self._size:
            self._facts.popleft()
            self.dropped += 1
        self._facts.append(fact)


class Spy:
    """For tests: everything published since it began, and a way to wait for more."""

    def __init__(self) -> None:
        self.facts: list[Any] = []
        self._news = asyncio.Event()

    async def wait_for(
        self, fact_class: type[T], predicate: Callable[[T], bool] | None = None, *, timeout_s: float = SPY_TIMEOUT_S
    ) -> T:
        """The first such fact since the spy began, already heard or still to come.

        Raises TimeoutError that lists what was heard.
        """
        seen = 0
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    for fact in self.facts[seen:]:
                        if isinstance(fact, fact_class) and (predicate is None or predicate(fact)):
                            return fact
                    seen = len(self.facts)
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            heard = ", ".join(repr(fact) for fact in self.facts) or "nothing"
            raise TimeoutError(f"no {fact_class.__name__} that fits within {timeout_s:g} s; heard: {heard}") from None

    def of(self, fact_class: type[T]) -> list[T]:
        return [fact for fact in self.facts if isinstance(fact, fact_class)]

    def clear(self) -> None:
        self.facts.clear()

    def offer(self, fact: Any) -> None:
        """For the bus only."""
        self.facts.append(fact)
        self._news.set()


L = TypeVar("L", bound=_Listener[Any])


class EventBus:
    """See the module. One per node."""

    def __init__(self, recent: int = RECENT) -> None:
        self._recent: deque[Any] = deque(maxlen=recent)
        self.published = 0
        """Facts so far: whoever keeps something made of facts sees whether there are new ones."""
        self._listeners: list[_Listener[Any] | Spy] = []

    def publish(self, fact: object) -> None:
        """Hand `fact` to everybody who asked for its class. Never waits, never fails because of a listener."""
        self._recent.append(fact)
        self.published += 1
        for listener in self._listeners:
            listener.offer(fact)

    @contextmanager
    def subscribe(self, *classes: type[T], size: int = INBOX_SIZE) -> Generator[Inbox[T]]:
        """`with bus.subscribe(PeerConnected, PeerDisconnected) as inbox: async for fact in inbox: ...`"""
        with self._attached(Inbox(classes, size)) as inbox:
            yield inbox

    @contextmanager
    def tap(self, *classes: type[T], size: int = TAP_SIZE) -> Generator[Tap[T]]:
        with self._attached(Tap(classes, size)) as tap:
            yield tap

    @contextmanager
    def spy(self) -> Generator[Spy]:
        spy = Spy()
        self._listeners.append(spy)
        try:
            yield spy
        finally:
            self._listeners.remove(spy)

    def recent(self) -> list[Any]:
        """The newest facts, oldest first."""
        return list(self._recent)

    @contextmanager
    def _attached(self, listener: L) -> Generator[L]:
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)
            listener.close()
