"""The last hour of this node in figures: `GET /api/admin/history`, so that charts begin before the page is opened."""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Final

from msgspec import Struct

from swarmd.api.calls import Call
from swarmd.api.ports import Counters, Machine, Peers
from swarmd.domain.peers import Purpose
from swarmd.kit.service import Ready
from swarmd.kit.world import Clock, World

SAMPLE_S: Final = 5.0  # a chart of an hour on a wide screen has a pixel for each
SAMPLES: Final = 720  # one hour; seven numbers each, 40 kB
MEGABYTE: Final = 1_000_000


class Pace:
    """How fast a count grows, from look to look."""

    def __init__(self, total: Callable[[], int], clock: Clock) -> None:
        self._total, self._clock = total, clock
        self._before, self._at = total(), clock.monotonic()
        self.rate: float = 0.0
        """Per second, between the last two looks."""

    def look(self) -> float:
        now, at = self._total(), self._clock.monotonic()
        if at > self._at:
            self.rate = max(0, now - self._before) / (at - self._at)
            self._before, self._at = now, at
        return self.rate


class HistoryView(Struct, frozen=True, kw_only=True):
    """Columns of one length, oldest first. Not in the contract."""

    interval_seconds: float
    at: list[float]
    """Unix seconds."""
    tokens_per_second: list[float]
    """Of all replies of this head together, on the mean of the interval."""
    rtt_ms: list[float | None]
    """Median over the control links; null without one that was measured."""
    slowest_rtt_ms: list[float | None]
    used_ram_mb: list[float]
    """Of the machine."""
    process_rss_mb: list[float]
    """Of this node and its workers."""
    peers: list[int]
    """Connected ones."""
    active_requests: list[int]


class History:
    """Service, and the handler that shows what it kept."""

    name = "history"

    def __init__(
        self, *, world: World, tokens: Callable[[], int], machine: Machine, peers: Peers, counters: Counters
    ) -> None:
        """`tokens`: that the replies of this head have, since the start."""
        self._world, self._machine, self._peers, self._counters = world, machine, peers, counters
        self._tokens = tokens
        self._rows: deque[array[float]] = deque(maxlen=SAMPLES)

    async def run(self, ready: Ready) -> None:
        pace = Pace(self._tokens, self._world.clock)
        ready()
        while True:
            await asyncio.sleep(SAMPLE_S)
            self._rows.append(self._reading(pace.look()))

    def _reading(self, tokens_per_second: float) -> array[float]:
        trips = [
            line.rtt_ms for line in self._peers.lines() if line.purpose is Purpose.CONTROL and line.rtt_ms is not None
        ]
        hardware = self._machine.snapshot()
        return array(
            "d",
            (
                self._world.clock.now(),
                tokens_per_second,
                median(trips) if trips else -1.0,  # an array has no null
                max(trips, default=-1.0),
                hardware.used_ram_bytes / MEGABYTE,
                hardware.process_rss_bytes / MEGABYTE,
                sum(peer.connected for peer in self._peers.views()),
                self._counters.active,
            ),
        )

    async def show(self, _call: Call) -> HistoryView:
        columns = [[*column] for column in zip(*self._rows, strict=True)] or [[] for _ in range(8)]
        at, tokens, rtt, slowest, used, rss, peers, active = columns
        return HistoryView(
            interval_seconds=SAMPLE_S,
            at=[round(one, 1) for one in at],
            tokens_per_second=[round(one, 2) for one in tokens],
            rtt_ms=[_trip(one) for one in rtt],
            slowest_rtt_ms=[_trip(one) for one in slowest],
            used_ram_mb=[round(one, 1) for one in used],
            process_rss_mb=[round(one, 1) for one in rss],
            peers=[int(one) for one in peers],
            active_requests=[int(one) for one in active],
        )


def _trip(value: float) -> float | None:
    return None if value < 0 else round(value, 2)
