"""Turns of other nodes' stages here, by what each of them did for this node, where `inference.priority_by_tier` is on.

Without it a stage that finds all sequences of its model taken is refused at once, and its head comes again. With it, it
waits a moment in a line in which members of a higher tier have more turns. Tiers are this node's own: what a member says
of itself counts for nothing (`economy.ledger`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from swarmd.config.settings import Settings
from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.refusals import Busy
from swarmd.inference.admission import Admission
from swarmd.kit.world import Clock

PATIENCE_S: Final = 5.0
"""Two generations that each hold what the other waits for are both let go after so long, and come again."""
LINE: Final = 64  # stages that wait for one model; further ones are refused at once


class StageTurns:
    def __init__(self, *, settings: Callable[[], Settings], weight: Callable[[NodeId], int], clock: Clock) -> None:
        """`weight`: of a member, 1 to 8."""
        self._settings, self._weight, self._clock = settings, weight, clock
        self._lines: dict[ModelId, Admission] = {}
        """One for each model that was asked for here, which the catalogue bounds."""

    @asynccontextmanager
    async def turn(self, model: ModelId, node: NodeId) -> AsyncGenerator[Busy | None]:
        """None: within the block it has its turn."""
        if not self._settings().inference.priority_by_tier:
            yield None
            return
        line = self._lines.get(model)
        if line is None:
            line = self._lines[model] = Admission(
                places=lambda: self._settings().inference.max_batch_size, queue=lambda: LINE,
                patience_s=lambda: PATIENCE_S, clock=self._clock, weight=lambda node: self._weight(NodeId(node)),
            )  # fmt: skip
        busy = await line.enter(node)
        if busy is not None:
            yield busy
            return
        began = self._clock.ticks()
        try:
            yield None
        finally:
            line.leave()
            line.taken(self._clock.ticks() - began)
