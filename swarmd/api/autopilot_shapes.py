"""Bodies of the autopilot's endpoints: policies, locks, prune history and schedule as the contract has them (swarmllm.md 2.2
and 2.3), and the plan, which is ours."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from swarmd.domain.autopilot import Aggressiveness, Contribution

ShardLimit = Annotated[int, Meta(ge=0, le=2**32 - 1)]  # contract: u32
Hour = Annotated[int, Meta(ge=0, le=23)]  # contract


class PolicyRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out is set to its default, as the contract has it."""

    enabled: bool = True
    max_shards: ShardLimit = 0
    prune_enabled: bool = True


class PolicyView(Struct, frozen=True, kw_only=True):
    model_id: str
    enabled: bool
    max_shards: int
    """Of the model on this node; 0: no limit."""
    prune_enabled: bool


class PolicySet(Struct, frozen=True, kw_only=True):
    status: str
    model_id: str
    enabled: bool
    max_shards: int
    prune_enabled: bool


class LockRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    locked: bool


class LockSet(Struct, frozen=True, kw_only=True):
    status: str
    model_id: str
    shard_index: int
    locked: bool


class PruneEvent(Struct, frozen=True, kw_only=True):
    model_id: str
    model_name: str
    shard_index: int
    reason: str
    freed_bytes: int
    remaining_local_shards: int
    holder_count_before: int
    holder_count_after: int
    timestamp: str


class PruneHistory(Struct, frozen=True, kw_only=True):
    events: list[PruneEvent]
    """The newest first, at most 100."""
    total: int


class ScheduleRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays."""

    enabled: bool | UnsetType = UNSET
    reduced_hours_start: Hour | UnsetType = UNSET
    reduced_hours_end: Hour | UnsetType = UNSET
    reduced_contribution: Contribution | UnsetType = UNSET
    prune_aggressiveness: Aggressiveness | UnsetType = UNSET


class ScheduleView(Struct, frozen=True, kw_only=True):
    enabled: bool
    reduced_hours_start: int
    """Hours of the machine's own clock."""
    reduced_hours_end: int
    reduced_contribution: str
    prune_aggressiveness: str


class ScheduleSet(Struct, frozen=True, kw_only=True):
    status: str
    enabled: bool
    reduced_hours_start: int
    reduced_hours_end: int
    reduced_contribution: str
    prune_aggressiveness: str


class PlannedMove(Struct, frozen=True, kw_only=True):
    model_id: str
    shard_index: int
    size_bytes: int
    score: float
    """The highest goes first."""
    reason: str


class NotPlanned(Struct, frozen=True, kw_only=True):
    """A shard that stays where it is: here, or away."""

    model_id: str
    shard_index: int | None
    """Null: every shard of the model."""
    code: str
    """The gate that is closed to it, or the guard that keeps it; `docs/autopilot.md` has all."""
    reason: str


class ShardCopies(Struct, frozen=True, kw_only=True):
    model_id: str
    shard_index: int
    holders: int
    """Distinct nodes that are there, this one included."""
    coming: int
    """Further nodes that are fetching it."""
    target: int


class AutopilotPlan(Struct, frozen=True, kw_only=True):
    """What the autopilot would do now; it does so only where it is enabled."""

    enabled: bool
    reduced_hours: bool
    contribution: str
    pool: int
    """Nodes that are there, this one included."""
    budget_bytes: int
    used_bytes: int
    pressure: float
    """How full the disk is, 0 to 1, with what the schedule adds."""
    moves_left: int
    """Of this hour."""
    fetch: list[PlannedMove]
    drop: list[PlannedMove]
    not_fetched: list[NotPlanned]
    kept: list[NotPlanned]
    shards: list[ShardCopies]
