"""Bodies of downloads and of the hub, field by field as the contract has them (swarmllm.md 2.4), ours behind them.

Only shapes: `download_views` fills them.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from swarmd.models.manifest import FILENAME, FILENAME_MAX, REPO_ID, REPO_ID_MAX

SHARDS_MAX = 256  # contract: swarmllm.md 2.4, of one request

ShardIndex = Annotated[int, Meta(ge=0, le=0xFFFF_FFFE)]  # contract: swarmllm.md 2.0; as `api.server` checks it in paths
PLACE_MAX = 255  # the desk remembers 256 downloads
SEARCH_MAX = 256  # characters; contract: swarmllm.md 2.4

# For the reader of the reference: `downloads` refuses what does not fit, with a sentence.
SearchText = Annotated[str, Meta(extra_json_schema={"maxLength": SEARCH_MAX})]
RepoId = Annotated[str, Meta(extra_json_schema={"maxLength": REPO_ID_MAX, "pattern": f"^{REPO_ID.pattern}$"})]
GgufName = Annotated[
    str, Meta(extra_json_schema={"maxLength": FILENAME_MAX, "pattern": f"^{FILENAME.pattern}$", "not": {"pattern": r"\.\."}})
]

Place = Annotated[int, Meta(ge=0, le=PLACE_MAX)]


class DownloadShards(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exactly one of `shards`, `peer_fair_share` and `all_shards` says what is wanted."""

    repo_id: RepoId
    """`owner/name`."""
    filename: GgufName
    """Within the repository; of a split model the first part."""
    shards: Annotated[list[ShardIndex], Meta(max_length=SHARDS_MAX)] | None = None
    """Distinct; empty is the same as not given."""
    peer_fair_share: bool = False
    """This node's share; those peers that manage their shards by themselves take the rest."""
    all_shards: bool = False
    model_id: str | None = None
    """Under which id the model is to be known; null: made of the file name."""


class DownloadPlace(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    place: Place
    """0 is the first; one behind the end is the end."""


class DownloadStarted(Struct, frozen=True, kw_only=True):
    status: str
    """`started`."""
    model_id: str
    shards: list[int]
    """As they were asked for; empty for a share, or for all."""
    peer_fair_share: bool
    all_shards: bool
    """Ours; not in the contract."""


class DownloadChanged(Struct, frozen=True, kw_only=True):
    status: str
    """`cancelled`, `paused` or `resumed`."""
    model_id: str


class DownloadMoved(Struct, frozen=True, kw_only=True):
    status: str
    """`moved`."""
    model_id: str
    place: int


class ShardDetail(Struct, frozen=True, kw_only=True):
    index: int
    state: str
    """`pending`, `downloading`, `verifying`, `complete` or `failed`."""
    progress_pct: float
    downloaded_bytes: int
    total_bytes: int
    source: str | None
    """`huggingface`, or the node that sends it; null: nobody yet. Ours, as the next two."""
    speed_bytes_per_sec: int
    log: list[str]
    """The last ten lines about this shard alone, newest first."""


class DownloadRow(Struct, frozen=True, kw_only=True):
    """A model on its way, or just fetched (swarmllm.md 2.4.3)."""

    model_id: str
    model_name: str
    state: str
    """`awaiting_manifest`, `queued`, `downloading`, `paused`, `complete`, `failed` or `cancelled`."""
    source: str
    """`huggingface` as soon as some of it came from there, or where it has to: no connected node holds any of it. Else
    `network`."""
    total_shards: int
    downloaded_shards: int
    verified_shards: int
    failed_shards: int
    total_bytes: int
    downloaded_bytes: int
    overall_pct: float
    speed_bytes_per_sec: int
    eta_secs: int | None
    cancellable: bool
    started_at: str
    trigger: str
    log: list[str]
    """The last ten lines, newest first."""
    shard_details: list[ShardDetail]
    reason: str | None
    """Why it failed. Ours, as the next two."""
    place: int | None
    """In the order in which downloads run, 0 first; null when it is over."""
    paused: bool


class DownloadList(Struct, frozen=True, kw_only=True):
    downloads: list[DownloadRow]
    """Downloading, awaiting their manifest, others, failed, complete."""
    total: int


class HubVariantRow(Struct, frozen=True, kw_only=True):
    filename: str
    size_bytes: int
    quant: str
    """Empty when the file name does not say."""
    parts: int
    """Files it is split into, which are used as one. Ours; not in the contract."""


class ScoreBreakdown(Struct, frozen=True, kw_only=True):
    quality: float
    fit: float
    demand: float
    size: float


class HubRepoRow(Struct, frozen=True, kw_only=True):
    """A search hit (swarmllm.md 2.4.1)."""

    repo_id: str
    downloads: int
    likes: int
    variants: list[HubVariantRow]
    """Smallest first."""
    recommended_variant: str
    """Its quantisation, or its file name where that says none."""
    fits_vram: bool
    """On machines without a GPU the memory meant is what workers may take of the RAM."""
    fits_boomerang: bool
    fits_shard: bool
    est_shard_size: int
    est_boomerang_size: int
    network_replicas: int
    composite_score: float
    score_breakdown: ScoreBreakdown
    task_tags: list[str]
    swarm_cta_status: str
    recommended_filename: str
    """Ours, as the next two."""
    fits_swarm: bool
    """All of it fits into the memory of all connected nodes together."""
    gated: bool
    """Its terms have to be accepted at the hub first."""


class HubProbe(Struct, frozen=True, kw_only=True):
    """What the header of a file on the hub says."""

    status: str
    """`ok`."""
    total_size: int
    header_size: int
    shard_count: int
    """As this node would cut it; 0 when the architecture is not supported."""
    architecture: str
    architecture_supported: bool
    network_replicas: int
    model_id: str
    """Under which it would be known. Ours, as the rest."""
    repo_id: str
    filename: str
    """Of the first part."""
    commit: str
    parts: int
    reason: str | None
    """Why it is not supported."""


class HubOrigin(Struct, frozen=True, kw_only=True):
    model_id: str
    repo_id: str
    filename: str
    auto_discovered: bool | UnsetType = UNSET
    """Only as true: it was found by searching the hub."""
