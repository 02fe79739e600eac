"""What the autopilot may do, would do, and did: policies, proposals with their reasons, and the record of its drops."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, get_args

from swarmd.domain.ids import ModelId, ShardRef

Contribution = Literal["minimal", "moderate", "maximum"]
Aggressiveness = Literal["normal", "aggressive", "conservative"]
CONTRIBUTIONS: tuple[Contribution, ...] = get_args(Contribution)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPolicy:
    """What a person allows the autopilot with one model. The defaults are those of a request that leaves fields out."""

    enabled: bool = True
    max_shards: int = 0
    """Of this model on this node; 0: no limit."""
    prune_enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Hours in which the machine gives less. Hours are those of the machine's own clock, 0 to 23."""

    enabled: bool = False
    reduced_hours_start: int = 22
    reduced_hours_end: int = 8
    """The first full hour again. Equal to the start: no hour is reduced."""
    reduced_contribution: Contribution = "minimal"
    prune_aggressiveness: Aggressiveness = "normal"


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneRecord:
    """One shard that the autopilot dropped here."""

    model: ModelId
    name: str
    shard: int
    reason: str
    freed_bytes: int
    remaining_local_shards: int
    holder_count_before: int
    holder_count_after: int
    at: float
    """Unix seconds."""


class Gate(Enum):
    """Why a shard is not fetched now. The first that applies is named."""

    POLICY = "policy"
    UNKNOWN = "unknown"
    TRUST = "trust"
    PAUSED = "paused"
    ON_ITS_WAY = "on_its_way"
    CANCELLED = "cancelled"
    FAILED_LATELY = "failed_lately"
    DROPPED_LATELY = "dropped_lately"
    ENOUGH = "enough"
    NO_SOURCE = "no_source"
    OTHERS_FIRST = "others_first"
    SHARD_CAP = "shard_cap"
    STORAGE = "storage"
    PRESSURE = "pressure"
    LATER = "later"


class Guard(Enum):
    """Why a shard that is here is not dropped now. The first that applies is named."""

    OFF = "off"
    POLICY = "policy"
    ON_ITS_WAY = "on_its_way"
    LOCKED = "locked"
    PINNED = "pinned"
    PRIVACY = "privacy"
    FAIR_SHARE = "fair_share"
    RUNNING = "running"
    USED_LATELY = "used_lately"
    FETCHED_LATELY = "fetched_lately"
    NO_WAY_BACK = "no_way_back"
    NEEDED = "needed"
    REGION = "region"
    BUSY_HOLDERS = "busy_holders"
    COOLDOWN = "cooldown"
    OTHERS_FIRST = "others_first"
    LATER = "later"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """A shard that this node should bring here."""

    shard: ShardRef
    size_bytes: int
    score: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotFetched:
    """A shard that is not here and stays away for now; `index` None: every shard of the model."""

    model: ModelId
    index: int | None
    gate: Gate
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """A shard that this node should delete."""

    shard: ShardRef
    size_bytes: int
    score: float
    why: str
    holders: int
    """Now, this node included, as far as it is linked to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A shard that is here and stays for now."""

    shard: ShardRef
    guard: Guard
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCount:
    """How many copies of one shard there are, and should be."""

    shard: ShardRef
    holders: int
    """Nodes that are there, this one included."""
    coming: int
    """Further nodes that are fetching it."""
    target: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AutopilotPlan:
    """What the autopilot would do now, and of everything that it would not do, why."""

    enabled: bool
    reduced: bool
    """It is an hour of reduced contribution."""
    contribution: Contribution
    """In force now."""
    pool: int
    """Nodes that are there, this one included."""
    budget_bytes: int
    used_bytes: int
    """Of the budget: shards that the autopilot fetched or is fetching."""
    pressure: float
    """How full the disk is, 0 to 1, with what the schedule adds."""
    moves_left: int
    """Of this hour."""
    fetches: tuple[Fetch, ...]
    drops: tuple[Drop, ...]
    not_fetched: tuple[NotFetched, ...]
    kept: tuple[Kept, ...]
    counts: tuple[ShardCount, ...]
