"""The head's half of an embedding: one text through all stages, and what the tail makes of it. No token is picked.

A lost stage is replaced as in a generation, and the whole text is sent again: there is nothing to go on with.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

import numpy as np

from swarmd.domain.generation import GenerationRequest
from swarmd.domain.plans import PipelinePlan
from swarmd.domain.refusals import StageFailed
from swarmd.inference.head import NOTHING, Head
from swarmd.inference.vectors import Pooling, Vector
from swarmd.inference.workers import Texts
from swarmd.wire.generation import StepDone, StepOn

NO_TEXTS: Final = Texts(pieces=(), ends=frozenset())
NUMBER_BYTES: Final = 4  # float32


class VectorHead(Head):
    """Of one text. `read`, then `vector`."""

    vectors: ClassVar[bool] = True

    def __init__(
        self,
        *,
        request: GenerationRequest,
        plan: PipelinePlan,
        tokens: Sequence[int],
        rows: int,
        width: int,
        pooling: Pooling,
        ticks: Callable[[], float],
        prefixes: Sequence[bytes] = (),
    ) -> None:
        """`prefixes`: as for a generation. None where rows are averaged: of those in the caches the state is not known."""
        assert pooling is Pooling.LAST or not prefixes, "every row is needed"
        super().__init__(
            request=request, plan=plan, tokens=list(tokens), texts=NO_TEXTS, rows=rows, replay_rows=rows, limit=0,
            proposals=0, ticks=ticks, prefixes=prefixes,
        )  # fmt: skip
        self._width, self._pooling = width, pooling
        self._total = np.zeros(width, np.float64)

    @property
    def vector(self) -> Vector:
        """(width,) float32, pooled and not normalised."""
        assert self._ended and self.failure is None, "the text has not been read"
        count = self.prompt_tokens if self._pooling is Pooling.MEAN else 1
        return (self._total / count).astype(np.float32)

    async def read(self) -> None:
        """Returns when the whole text is through. Raises GenerationFailed."""
        while not self._ended:
            await self._news()

    def reroute(self, plan: PipelinePlan) -> None:
        super().reroute(plan)
        self._total[:] = 0.0

    def _advance(self) -> None:
        assert self._feed is not None, "connected before it starts"
        while not self._ended and self._step - self._done < self._window and self._sent < self.prompt_tokens:
            position = self._sent
            count = min(self.rows, self.prompt_tokens - position)
            last = position + count == self.prompt_tokens
            sample = count if self._pooling is Pooling.MEAN else int(last)
            self._sent += count
            step = StepOn(self._step, position, count, sample, [])
            self._step += 1
            self.rows_sent += count
            self._under_way.append((self._ticks(), sample))
            self._feed(step, memoryview(array("i", self.history[position : position + count])).cast("B"))

    def answered(self, done: StepDone, payload: memoryview = NOTHING) -> None:
        step = self._in_turn(done)
        if step is None:
            return
        expected = self._width * NUMBER_BYTES if step[1] else 0
        if done.tokens or len(payload) != expected:
            self._spoilt(f"it answered with {len(payload)} bytes where {expected} were asked for")
            return
        if expected:
            numbers = np.frombuffer(payload, np.float32)
            if not np.isfinite(numbers).all():
                self._spoilt("it answered with numbers that are none")
                return
            self._total += numbers
        if self._sent == self.prompt_tokens and not self._under_way:
            self.first_at = self.last_at = self._ticks()
            self._ended = True
            self._wake()
            return
        self._advance()

    def _spoilt(self, reason: str) -> None:
        self.fail(StageFailed(node=self.plan.stages[-1].node, reason=reason))
