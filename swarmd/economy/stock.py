"""What the autopilot looks at before it proposes anything: one frozen snapshot of the swarm as this node sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from swarmd.domain.autopilot import Contribution, ModelPolicy
from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.models import TrustLevel
from swarmd.domain.regions import UNKNOWN

Shards = frozenset[int]
NONE: Shards = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStock:
    """Another node. Holdings in a layout that is not ours are left out."""

    node: NodeId
    region: str = UNKNOWN
    connected: bool = True
    """Linked to us: what it holds can be fetched and run."""
    gone_s: float | None = None
    """Since when nothing is heard of it, seconds; None: it is there."""
    held: Mapping[ModelId, Shards] = field(default_factory=dict[ModelId, Shards])
    coming: Mapping[ModelId, Shards] = field(default_factory=dict[ModelId, Shards])
    memory_bytes: int = 0
    """All that the machine has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStock:
    """One model, and what this node has of it."""

    model: ModelId
    name: str
    sizes: tuple[int, ...] = ()
    """Bytes of each shard; empty: its manifest is not known here."""
    trust: TrustLevel = TrustLevel.DISCOVERED
    pinned: bool = False
    """By the user of this node."""
    has_source: bool = False
    """It can be fetched from a hub."""
    shared: bool = False
    """Somebody wants every node to hold its fair share."""
    owed_s: Mapping[NodeId, float] = field(default_factory=dict[NodeId, float])
    """Seconds since another node that owes shards of its fair share got one of them, or set out to."""
    policy: ModelPolicy = field(default_factory=ModelPolicy)
    requests: int = 0
    """Of the last ten minutes, in the whole swarm."""
    peak_requests: int = 0
    """The highest such number of the last hour, at least `requests`."""
    held: Shards = NONE
    coming: Shards = NONE
    """On their way here."""
    paused: bool = False
    """By a person, while something of it was on its way here."""
    loaded: Shards = NONE
    locked: Shards = NONE
    running: Shards = NONE
    """In a generation now."""
    private: Shards = NONE
    """Needed here so that prompts and replies are seen by this node alone. Nothing asks for that yet."""
    used_s: float | None = None
    """Since a generation used any of them here, seconds; None: not since the start."""
    pruned_s: float | None = None
    """Since the autopilot dropped a shard of it here, seconds; None: not since the start."""
    waited_s: float = 0.0
    """Seconds for which copies have been missing and none was added."""
    stored_s: Mapping[int, float] = field(default_factory=dict[int, float])
    """Seconds since a shard arrived here; what was there at the start is left out."""
    dropped_s: Mapping[int, float] = field(default_factory=dict[int, float])
    """Seconds since somebody dropped it here."""
    unwanted: Shards = NONE
    """Those of them that a person dropped."""
    retry_s: Mapping[int, float] = field(default_factory=dict[int, float])
    """Seconds until a fetch that failed is tried again."""
    cancelled_s: Mapping[int, float] = field(default_factory=dict[int, float])
    """Seconds since a person cancelled the fetch of it here, as long as that counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What this node gives and may do now."""

    contribution: Contribution = "minimal"
    min_replicas: int = 2
    budget_bytes: int = 0
    used_bytes: int = 0
    """Of the budget: what the autopilot fetched or is fetching."""
    room_bytes: int = 0
    """On the disk, within what swarmd may take of it."""
    pressure: float = 0.0
    """How full that is, 0 to 1, with what the schedule adds."""
    taken_bytes: int = 0
    """Of the disk, with what is on its way."""
    most_added: float = 0.0
    """What the schedule adds to the pressure in the hours in which it adds most."""
    free_slots: int = 0
    """Downloads that may be begun."""
    moves_left: int = 0
    """Fetches and drops of this hour."""
    default_cap: int = 0
    """Shards of one model on this node where its policy has no number; 0: no limit."""
    interval_s: float = 300.0
    prune_enabled: bool = True
    prune_cooldown_s: float = 300.0
    max_load: int = 3
    """Requests a minute for each remaining holder above which nothing is dropped."""

    def pressure_with(self, more_bytes: int) -> float:
        """The highest of a day, were so much more here."""
        whole = self.taken_bytes + self.room_bytes
        filled = (self.taken_bytes + more_bytes) / whole if whole else 1.0
        return max(self.pressure, filled + self.most_added)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that the proposals look at. Equal snapshots give equal proposals."""

    own: NodeId
    region: str = UNKNOWN
    now: float = 0.0
    """Unix seconds."""
    nodes: tuple[NodeStock, ...] = ()
    """Others: those that are there, and those that were lately."""
    models: tuple[ModelStock, ...] = ()
    limits: Limits = field(default_factory=Limits)
