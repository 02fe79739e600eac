"""Whose turn it is to fetch: an order of models, so many at a time. No I/O."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from swarmd.domain.ids import ModelId


class Queue:
    """The first ones run, the others wait. Who comes is the last, unless somebody moves it."""

    def __init__(self, at_once: Callable[[], int]) -> None:
        """`at_once`: how many run at a time."""
        self._at_once = at_once
        self._order: list[ModelId] = []  # everybody that is not over; bounded by the desk's jobs
        self._running: set[ModelId] = set()
        self._waiting: dict[ModelId, asyncio.Event] = {}

    def enter(self, model: ModelId) -> None:
        """Nothing happens to one that is in it."""
        if model not in self._order:
            self._order.append(model)

    def leave(self, model: ModelId) -> None:
        if model in self._order:
            self._order.remove(model)
            self._call()

    def place(self, model: ModelId) -> int:
        """0 is the first; behind everybody when it is not in the queue."""
        return self._order.index(model) if model in self._order else len(self._order)

    @property
    def is_full(self) -> bool:
        """Who asks for a turn now has to wait."""
        return len(self._running) >= self._at_once()

    def order(self) -> tuple[ModelId, ...]:
        return tuple(self._order)

    def move(self, model: ModelId, place: int) -> None:
        """What runs goes on; the order counts when a turn is free."""
        assert model in self._order, f"{model} is not in the queue"
        self._order.remove(model)
        self._order.insert(max(0, min(place, len(self._order))), model)
        self._call()

    @asynccontextmanager
    async def turn(self, model: ModelId) -> AsyncGenerator[None]:
        """Waits until it is this one's turn; for the block it is."""
        self.enter(model)
        mine = self._waiting[model] = asyncio.Event()
        try:
            self._call()
            await mine.wait()
        except BaseException:
            self._running.discard(model)  # called and cancelled at the same moment
            self._call()
            raise
        finally:
            self._waiting.pop(model, None)
        try:
            yield
        finally:
            self._running.discard(model)
            self._call()

    def _call(self) -> None:
        for model in self._order:
            if len(self._running) >= self._at_once():
                return
            waiting = self._waiting.get(model)
            if waiting is not None and model not in self._running:
                self._running.add(model)
                waiting.set()
