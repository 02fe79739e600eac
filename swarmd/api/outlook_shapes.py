"""Bodies about what the swarm can serve and should hold, over HTTP and in `stats_update` (swarmllm.md 2.10)."""

from __future__ import annotations

from msgspec import Struct


class ModelCoverage(Struct, frozen=True, kw_only=True):
    model_id: str
    display_name: str
    size_mb: int
    holders: int
    total_shards: int
    shards_covered: int
    hosted_by_us: bool


class Headline(Struct, frozen=True, kw_only=True):
    model_id: str
    display_name: str
    size_mb: int


class SwarmCapacity(Struct, frozen=True, kw_only=True):
    online_nodes: int
    total_vram_mb: int | None
    """Null: a node with a GPU does not tell."""
    total_disk_mb: int | None
    """Null: a node does not tell; peers do not, so it is a figure on a node alone."""
    gpu_nodes: int
    regions_represented: int
    serveable_models: list[ModelCoverage]
    aspirational_models: list[ModelCoverage]
    hosted_locally: list[ModelCoverage]
    min_redundancy: int
    median_redundancy: float
    headline_model: Headline | None
    computed_at: int


class Wish(Struct, frozen=True, kw_only=True):
    model_id: str
    display_name: str
    status: str
    """`hosting`, `serveable`, `aspirational`, `unreachable` or `blocked`; `candidate` stands for models of the hub, which
    this node does not look for by itself."""
    score: int
    why_tags: list[str]
    swarm_replicas: int
    target_replicas: int
    size_mb: int
    vram_required_mb: int
    shards_covered: int
    total_shards: int
    hosted_by_us: bool


class Wishlist(Struct, frozen=True, kw_only=True):
    computed_at: int
    entries: list[Wish]
