"""Who holds which shard, and what is on its way."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.models import Manifest, TrustLevel


class TransferState(Enum):
    """States of one shard on its way; values as in the admin API (swarmllm.md 2.2.3)."""

    PENDING = "pending"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One shard being fetched, or just fetched."""

    index: int
    state: TransferState
    done_bytes: int
    total_bytes: int
    source: NodeId | None
    """The peer that sends it, or sent the latest bytes; None: nobody yet, the hub, or a local file."""
    hub: bool = False
    """The latest bytes came from the hub."""
    bytes_per_second: float = 0.0
    log: tuple[str, ...] = ()
    """The latest lines about this shard alone, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """A model being fetched, or just fetched: what the person who asked for it wants to see."""

    model: ModelId
    state: str
    """`awaiting_manifest`, `queued`, `downloading`, `paused`, `complete`, `failed` or `cancelled`."""
    reason: str | None
    """Why it failed, or what hinders it at the moment; None otherwise."""
    transfers: tuple[Transfer, ...]
    bytes_per_second: float
    started_at: float
    """Unix seconds."""
    log: tuple[str, ...]
    trigger: str
    """`user` or `auto_manage`."""
    name: str = ""
    """Of the model, for people; empty as long as its manifest is not known."""
    place: int = 0
    """Among those that are not over, in the order in which they run; 0 is the first."""

    @property
    def from_hub(self) -> bool:
        """The latest bytes of some shard came from the hub."""
        return any(transfer.hub for transfer in self.transfers)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A whole GGUF, in one file or split, that lies in the folder of models and is no part of a cut one: it can be cut."""

    path: str
    """Of a split one, that of its first part, or of the first that is there."""
    size_bytes: int
    """Of all its files."""
    model: ModelId | None
    """The id it would have; None where none can be made of its name."""
    problem: str | None
    """Why it cannot be cut, in the sentence that `POST /api/admin/models` would answer, or why it need not be; None: that
    call with its path cuts it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescan:
    """What a look at the disk has found."""

    models: tuple[ModelId, ...]
    """Those of which shards came or went, sorted."""
    files: tuple[FoundFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardView:
    """One shard of a known model, as seen from this node."""

    index: int
    size_bytes: int
    layer_start: int
    layer_end: int
    held: bool
    """Verified on this node's disk."""
    loaded: bool
    """In a worker of this node."""
    holders: tuple[NodeId, ...]
    """Distinct connected nodes, this one included, sorted."""
    transfer: Transfer | None = None
    locked: bool = False
    """The autopilot must not drop it here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """One known model, as seen from this node. `manifest` is None for a name heard from a peer and nothing more."""

    model: ModelId
    name: str
    manifest: Manifest | None
    trust: TrustLevel
    shards: tuple[ShardView, ...]
    holders: tuple[NodeId, ...]
    """Distinct connected nodes that hold any shard of it."""
    architecture_supported: bool
    acquisition: Acquisition | None = None
    vision_here: bool = False
    """The vision encoder is on this node's disk."""
    vision_holders: tuple[NodeId, ...] = ()
    """Distinct connected nodes that have it, this one included, sorted."""

    @property
    def held(self) -> tuple[int, ...]:
        return tuple(shard.index for shard in self.shards if shard.held)

    @property
    def covered(self) -> bool:
        """Every shard has at least one connected holder."""
        return bool(self.shards) and all(shard.holders for shard in self.shards)
