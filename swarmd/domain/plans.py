"""Which nodes run which layers of a request."""

from __future__ import annotations

from dataclasses import dataclass

from swarmd.domain.ids import ModelId, NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Contiguous shards on one node."""

    node: NodeId
    first_shard: int
    last_shard: int
    """Inclusive."""
    layer_start: int
    layer_end: int

    @property
    def shards(self) -> tuple[int, ...]:
        return tuple(range(self.first_shard, self.last_shard + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelinePlan:
    """Stages in layer order; together they cover every layer once."""

    model: ModelId
    layout: str
    stages: tuple[Stage, ...]
    predicted_token_ms: float | None
    """Predicted time of one decode step; None while a stage's speed has not been measured."""
