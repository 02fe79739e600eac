"""Models and the shards they are cut into.

A *payload* is the original tensor bytes of a shard in file order, nothing else: it is what is hashed, sent and resumed.
The small GGUF header in front of it on disk is written locally and never hashed (design, section 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from swarmd.domain.hub import HubSource
from swarmd.domain.ids import ModelId, NodeId

CHUNK_BYTES = 8 * 1024 * 1024  # the unit of verification and of exchange (design, section 5)
BLOCKS_PER_CHUNK = 8
"""What is written down of a chunk on its way: a kill costs at most a block of 1 MiB for each connection."""


class TrustLevel(Enum):
    """Why this node would fetch a model by itself. Values as in the admin API seed (design, ruling 1)."""

    DISCOVERED = "Discovered"
    PINNED = "Pinned"
    DEMAND_VERIFIED = "DemandVerified"
    NETWORK_POPULAR = "NetworkPopular"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpan:
    """Where one tensor lies in the original GGUF file."""

    name: str
    offset_bytes: int
    """Absolute, from the start of the original file."""
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSpec:
    """One shard: layers `[layer_start, layer_end)` and what belongs to them, in file order."""

    index: int
    layer_start: int
    layer_end: int
    tensors: tuple[TensorSpan, ...]
    size_bytes: int
    """Of the payload: the sum of the tensors' sizes."""
    blake3: str
    """64 hex digits over the whole payload; empty as long as nobody has read it (`sealed`)."""
    chunk_blake3: tuple[str, ...]
    """64 hex digits for every CHUNK_BYTES of the payload, the last one shorter; empty as long as it is not sealed."""

    @property
    def layers(self) -> int:
        return self.layer_end - self.layer_start

    @property
    def sealed(self) -> bool:
        """Its hashes are known. A manifest made of a header on the hub has shards without: their bytes are still there, and
        no hash is not a mismatch."""
        return bool(self.blake3)

    @property
    def chunk_count(self) -> int:
        return -(-self.size_bytes // CHUNK_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything a node must know of a model before it holds a byte of it. Signed by its publisher."""

    model: ModelId
    name: str
    architecture: str
    """`general.architecture` of the GGUF."""
    layer_count: int
    width: int
    """Length of a hidden state: `<arch>.embedding_length`."""
    context_length: int
    vocab_size: int
    quantization: str
    file_size_bytes: int
    header_size_bytes: int
    """Of `gguf_header.bin`: the original file up to its tensor data."""
    header_blake3: str
    shard_size_bytes: int
    """The target the layout was made with."""
    layout: str
    """32 hex digits: BLAKE3 over the tensor table and the cuts. Two nodes work together only on the same layout."""
    shards: tuple[ShardSpec, ...]
    publisher: NodeId | None
    created_at: int
    """Unix seconds."""
    signature: str
    """128 hex digits: the publisher's Ed25519 over the canonical form without this field; empty when unsigned."""
    source: HubSource | None = None
    """Where its publisher found it on the hub; None: it was cut from a local file."""

    @property
    def total_size_bytes(self) -> int:
        return sum(shard.size_bytes for shard in self.shards)


class ShardState(Enum):
    """What this node knows about a shard on its own disk."""

    ABSENT = "absent"
    PARTIAL = "partial"
    HELD = "held"
    QUARANTINED = "quarantined"
