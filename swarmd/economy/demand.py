"""How often each model was asked for here: generations that this node was the head of in the last ten minutes.

The window is the smoothing: a request counts fully for WINDOW_S (to a step) and then not at all, so a burst of a second
is a figure that stays for ten minutes, and after ten minutes of silence it is surely zero. An average that forgets
exponentially would need one more constant, would differ with how often it is looked at, and would never be zero. And
counts can be summed: the demand of a region is the sum over its nodes, each request being counted by its head alone.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from swarmd.domain.events import GenerationStarted
from swarmd.domain.ids import ModelId
from swarmd.domain.peers import MAX_DEMANDS, MAX_REQUESTS, ModelDemand
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Ready
from swarmd.kit.world import Clock

WINDOW_S: Final = 600.0  # contract: swarmllm.md 4.9
STEP_S: Final = 30.0  # as often as a summary is renewed (`inference.herald.EVERY_S`); finer steps nobody would see


class Demand:
    """A service. Bounded: a counter for each of MAX_DEMANDS models and each step of the window."""

    name = "demand"

    def __init__(self, *, bus: EventBus, clock: Clock) -> None:
        self._bus, self._clock = bus, clock
        self._counts: OrderedDict[ModelId, dict[int, int]] = OrderedDict()
        """By model, the one asked for last at the end; then by step, oldest first."""

    async def run(self, ready: Ready) -> None:
        with self._bus.subscribe(GenerationStarted) as inbox:
            ready()
            async for fact in inbox:
                self.count(fact.model)

    def count(self, model: ModelId) -> None:
        """Somebody asked for it now."""
        self._forget()
        step = self._step()
        counts = self._counts.setdefault(model, {})
        counts[step] = counts.get(step, 0) + 1
        self._counts.move_to_end(model)
        if len(self._counts) > MAX_DEMANDS:
            self._counts.popitem(last=False)

    def told(self) -> tuple[ModelDemand, ...]:
        """What neighbours are told: requests of the last WINDOW_S, in the order of the models' names."""
        self._forget()
        return tuple(
            ModelDemand(model=model, requests=min(MAX_REQUESTS, sum(counts.values())))
            for model, counts in sorted(self._counts.items())
        )

    def _step(self) -> int:
        return int(self._clock.monotonic() // STEP_S)

    def _forget(self) -> None:
        """Steps of which a part lies outside the window, and models of which nothing is left."""
        oldest = self._step() - int(WINDOW_S // STEP_S)
        for model, counts in tuple(self._counts.items()):
            for step in [step for step in counts if step <= oldest]:
                del counts[step]
            if not counts:
                del self._counts[model]
