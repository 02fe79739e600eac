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
    memory_bytes: int = 0
    """Forecast of what its shards take when loaded."""

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
    standbys: tuple[tuple[NodeId, ...], ...] = ()
    """For each stage, who else holds all of it and has the room, the best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedPipeline:
    """Whether generations of a model begin and end on this node, so that no other one sees a token."""

    chosen: bool | None
    """For this model; None: nobody chose."""
    by_default: bool
    """For models for which nobody chose."""
    has_first: bool
    """Its first shard is here."""
    has_last: bool
    shard_count: int

    @property
    def ready(self) -> bool:
        return self.has_first and self.has_last

    @property
    def enabled(self) -> bool:
        """In effect."""
        return self.ready and (self.by_default if self.chosen is None else self.chosen)

    @property
    def lacking(self) -> str:
        """Which shards are missing, for people, who count from 1: `shard 1`, `shards 1 and 8`."""
        ends = {1: self.has_first, self.shard_count: self.has_last}
        missing = [number for number, here in ends.items() if not here]
        return f"shard{'s' if len(missing) > 1 else ''} {' and '.join(map(str, missing))}"
