"""Files on Hugging Face, or on a hub that speaks its protocol: what a repository offers, and where a model comes from."""

from __future__ import annotations

from dataclasses import dataclass

from swarmd.domain.ids import ModelId


@dataclass(frozen=True, slots=True, kw_only=True)
class HubPart:
    """One file of a source. Bytes [data_offset, size_bytes) of it are the bytes of the whole GGUF from `virtual_offset` on.

    A GGUF in one file has one part with both offsets equal to the size of its header. One that is split into
    `-00001-of-0000N` files is used as the one file it was split from: one header, all tensors behind it.
    """

    filename: str
    """Within the repository; may have folders."""
    size_bytes: int
    sha256: str | None
    """64 hex digits of the whole file, as the hub states them (LFS); None for a file that the hub keeps in git itself."""
    data_offset: int
    """Where the tensor data starts in this file."""
    virtual_offset: int
    """Where that is in the whole GGUF."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubCompanion:
    """A file beside the model: the encoder with which it sees pictures."""

    filename: str
    size_bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """Where the bytes of a model can be fetched, pinned to one commit."""

    repo_id: str
    """`owner/name`."""
    commit: str
    """40 hex digits."""
    parts: tuple[HubPart, ...]
    """In order, at least one."""
    vision: HubCompanion | None = None
    """The `mmproj` file of the same repository; None: the model does not see."""

    @property
    def filename(self) -> str:
        """Of the first part: the name by which people ask for the model."""
        return self.parts[0].filename


@dataclass(frozen=True, slots=True, kw_only=True)
class HubVariant:
    """One GGUF model in a repository; a split one is one variant under the name of its first part."""

    filename: str
    size_bytes: int
    """Of all its parts."""
    quant: str
    """`Q4_K_M` and kin, from the file name; empty when that does not say."""
    parts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRepo:
    """A search hit: a repository with GGUF models."""

    repo_id: str
    downloads: int
    likes: int
    variants: tuple[HubVariant, ...]
    """Sorted by size; vision encoders (`mmproj`) are not among them."""
    tags: tuple[str, ...] = ()
    gated: bool = False
    """Somebody has to accept its terms at the hub first; then a token opens it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedRepo:
    """A search hit with what this node and the swarm make of it (swarmllm.md 2.4.1)."""

    repo: HubRepo
    recommended: str
    """Quantisation of the variant to take: Q4_K_M, else the smallest Q4, else the first; its file name where that says
    none."""
    recommended_filename: str
    fits_vram: bool
    """The contract's name; on machines without a GPU the memory in question is what workers may take of the RAM."""
    fits_boomerang: bool
    """First and last shard fit here, so that prompt and reply are seen by this node alone."""
    fits_shard: bool
    """One shard fits here."""
    fits_swarm: bool
    """All of it fits into the memory of all connected nodes together. Ours; not in the contract."""
    est_shard_bytes: int
    est_boomerang_bytes: int
    replicas: int
    """Distinct nodes that hold any shard of the recommended variant."""
    score: float
    quality: float
    fit: float
    demand: float
    size: float
    cta: str
    """`be_first_host`, `needs_more_hosts`, `well_replicated`, `swarm_serveable`, `unreachable` or `downloadable`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeView:
    """What the header of a file on the hub says."""

    model: ModelId
    source: HubSource
    total_bytes: int
    """Of the GGUF, all parts together."""
    header_bytes: int
    shard_count: int
    """As this node would cut it; 0 when the architecture is not supported."""
    architecture: str
    architecture_supported: bool
    reason: str | None
    """Why it is not supported."""
    replicas: int
    """Distinct nodes, this one included, that hold any shard of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeProgress:
    """A header that is being read just now."""

    repo_id: str
    filename: str
    read_bytes: int
    """How much of it has come; nobody knows how long it is before its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOrigin:
    """The hub source of a known model."""

    model: ModelId
    repo_id: str
    filename: str
    discovered: bool = False
    """It was found by searching the hub, not told by whoever added the model."""
