"""The one home of time and chance. Everything else receives a `World` and asks it.

`Clock.monotonic` is the running loop's time, so that virtual time in a test moves services, timeouts and measurements
together. Use it for deadlines; use `ticks` for measuring short durations (uvloop's loop time has a grain of 1 ms), and
`now` only for what people or other machines will read.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from dataclasses import dataclass, field
from typing import Protocol

DEFAULT_START = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC: any fixed moment would do, this one is easy to recognise


class Clock(Protocol):
    def now(self) -> float:
        """Unix seconds. May jump; never subtract two of them to measure something."""
        ...

    def monotonic(self) -> float:
        """Seconds of the running loop: never goes back, meaning only as a difference."""
        ...

    def ticks(self) -> float:
        """Seconds of the finest counter there is, for measuring durations; do not compare it with `monotonic`."""
        ...


class Entropy(Protocol):
    def token(self, n: int) -> bytes:
        """`n` bytes fit for keys and nonces."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """Evenly spread over [low, high]; for jitter, not for secrets."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Time and chance, handed down from `app` to whoever needs them."""

    clock: Clock
    entropy: Entropy


class RealClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def ticks(self) -> float:
        return time.perf_counter()


class RealEntropy:
    """The operating system's generator for both uses."""

    def __init__(self) -> None:
        self._jitter = random.SystemRandom()

    def token(self, n: int) -> bytes:
        return secrets.token_bytes(n)

    def uniform(self, low: float, high: float) -> float:
        return self._jitter.uniform(low, high)


@dataclass(slots=True, kw_only=True)
class SeededClock:
    """For tests: `now` starts at `start` with the first question asked inside a loop and follows that loop's time.

    Outside a loop `now` stands still. `shift` moves the wall clock alone, as an administrator would.
    """

    start: float = DEFAULT_START
    _shift: float = 0.0
    _first: float | None = field(default=None, init=False)

    def now(self) -> float:
        try:
            loop_time = asyncio.get_running_loop().time()
        except RuntimeError:
            return self.start + self._shift
        if self._first is None:
            self._first = loop_time
        return self.start + self._shift + (loop_time - self._first)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def ticks(self) -> float:
        return asyncio.get_running_loop().time()

    def shift(self, seconds: float) -> None:
        self._shift += seconds


class SeededEntropy:
    """For tests: the same bytes and jitter in every run. Not secret in any way."""

    def __init__(self, seed: int) -> None:
        self._tokens = random.Random(seed)
        self._jitter = random.Random(seed + 1)  # apart, so that a new jitter call does not change every key in a test

    def token(self, n: int) -> bytes:
        return self._tokens.randbytes(n)

    def uniform(self, low: float, high: float) -> float:
        return self._jitter.uniform(low, high)


def real_world() -> World:
    return World(clock=RealClock(), entropy=RealEntropy())


def seeded_world(seed: int, *, start: float = DEFAULT_START) -> World:
    """A world that is the same in every run; `monotonic` is the running loop's time, so `looptime` moves it."""
    return World(clock=SeededClock(start=start), entropy=SeededEntropy(seed))
