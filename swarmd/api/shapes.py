"""Bodies of the admin API, field by field as the contract has them (swarmllm.md 2.1 to 2.10).

Only shapes: `views` fills them. A field whose value nobody has measured is null; a count of something that cannot happen
yet is 0. Fields typed `| UnsetType` are left out of the JSON when they do not apply.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType, field

from swarmd.api.credit_shapes import CreditBalance

Path4096 = Annotated[str, Meta(min_length=1, max_length=4096)]  # PATH_MAX of Linux; also the contract's limit of a code
ShardSizeMb = Annotated[int, Meta(ge=64, le=2048)]  # contract: the range of the setting (swarmllm.md 2.1)


class AddFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    path: Path4096
    """Absolute, on the node's own machine; of a split GGUF that of any part, with the others beside it."""
    shard_size_mb: ShardSizeMb | None = None
    """For this file; null: the setting `model.shard_size_mb`."""


class JoinRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    code: str
    """`swarm://...`, a short code such as `7-crossover-clockwork` (with `@host` or `@host:port` to say where), or a
    multiaddr."""


class SessionRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    nonce: str


class Done(Struct, frozen=True, kw_only=True):
    status: str


class Health(Struct, frozen=True, kw_only=True):
    status: str


class Readiness(Struct, frozen=True, kw_only=True):
    ready: bool
    subsystems: dict[str, bool]


class ApiKey(Struct, frozen=True, kw_only=True):
    api_key: str


class Ticket(Struct, frozen=True, kw_only=True):
    ticket: str
    expires_in_seconds: int


class HardwareRow(Struct, frozen=True, kw_only=True):
    gpu_name: str | None
    gpu_vram_mb: int | None
    gpu_vram_used_mb: int | None
    gpu_inference: bool
    inference_backend: str | None
    models_on_cpu_fallback: list[str]
    memory_bandwidth_gbps: float | None
    est_tokens_per_sec_7b: float | None
    total_ram_mb: int
    used_ram_mb: int
    process_rss_mb: int
    available_disk_mb: int
    total_disk_mb: int
    used_disk_mb: int
    cpu_name: str
    cpu_cores: int


class InferenceRow(Struct, frozen=True, kw_only=True):
    total_requests: int
    samples: int
    avg_latency_ms: float | None
    min_latency_ms: float | UnsetType = UNSET
    max_latency_ms: float | UnsetType = UNSET
    p50_latency_ms: float | UnsetType = UNSET
    p95_latency_ms: float | UnsetType = UNSET
    p99_latency_ms: float | UnsetType = UNSET


class Guessing(Struct, frozen=True, kw_only=True):
    """Tokens guessed from the text so far, in replies that have ended."""

    hits: int
    misses: int
    total: int
    hit_rate: float | None
    """Null before the first guess."""


class SwarmSpec(Struct, frozen=True, kw_only=True):
    """Speculation. This node neither hedges requests nor prefetches, so there is nothing to say of that."""

    hedge: None
    prefetch: None
    ngram: Guessing


class Stats(Struct, frozen=True, kw_only=True):
    node_id: str
    """All 64 hex digits; everywhere else the first 16."""
    version: str
    uptime_seconds: int
    tier: str
    peers: int
    requests_served: int
    forwards_served: int
    requests_made: int
    active_requests: int
    tokens_per_second: float | None
    """Of the last reply this node was the head of; null before the first."""
    hosted_shards: int
    credits: CreditBalance
    hardware: HardwareRow
    inference: InferenceRow
    swarm_spec: SwarmSpec


class Reloaded(Struct, frozen=True, kw_only=True):
    status: str
    changed: bool
    applied: dict[str, bool | int | str]
    """New values of what changed and is in force, by dotted name."""
    restart_required: dict[str, bool | int | str]


class PeerRow(Struct, frozen=True, kw_only=True):
    node_id: str
    nickname: str | None
    latency_ms: int | None
    trust_score: float
    """0 to 1; 0.5 of a node about which nothing is known."""
    healthy: bool
    gpu: str | None
    hosted_models: list[str]
    is_lan_peer: bool
    version: str | None
    uptime_seconds: int | None
    hosted_shards: int
    connected: bool
    region: str
    is_pool_member: bool
    """Of the same owner's pool of devices. There are no pools here, so nobody is."""
    is_anchor: bool
    """A public node that newcomers start from. There are none, so nobody is."""
    predicted_rtt_ms: float | None
    """Nothing is estimated: what was measured on the link, smoothed; null where no link is up or nothing came back yet."""
    measured_min_rtt_ms: float | None
    rtt_samples: int
    via: str | None
    """The member that relays the link (ours; not in the contract); null: direct, or no link."""
    total_ram_mb: int | None
    """Ours, as the peer says; null before it said so. The same holds for the next."""
    free_ram_mb: int | None
    addresses: list[str] | UnsetType = UNSET
    last_seen: str | UnsetType | None = UNSET


class LinkRow(Struct, frozen=True, kw_only=True):
    """One standing connection. Not in the contract."""

    node_id: str
    nickname: str | None
    purpose: str
    """`control` (messages and activations) or `bulk` (shard bytes)."""
    path: str
    """`direct` or `relay`."""
    via: str | None
    """The member that relays it; null: direct."""
    address: str | None
    """Where this node sees the peer, as a multiaddr; null when it is relayed."""
    dialled: bool
    """This node opened it."""
    up_seconds: int
    rtt_ms: float | None
    """Smoothed; null before the first ping came back."""
    min_rtt_ms: float | None
    bytes_in: int
    bytes_out: int
    queued_bytes: int
    """Sent here and not yet taken by the system."""
    streams: int
    """Calls and streams in progress, both sides'."""


class MemberRow(Struct, frozen=True, kw_only=True):
    node_id: str
    """All 64 digits: short ones are for looking at, not for putting somebody out."""
    role: str | None
    """`member` or `inviter`; null with the next three where this node has not seen the certificate, or there is none: in
    an open network."""
    issued_at: str | None
    expires_at: str | None
    admitted_by: str | None
    """The inviter's id, or `founder`."""
    members_below: int
    """Whom it invited, and whom they did, as far as this node knows: they go when it is put out. In the answer to that: they
    went."""
    revoked_at: str | None
    connected: bool
    last_seen: str | None
    is_self: bool


class Download(Struct, frozen=True, kw_only=True):
    state: str
    """`Queued`, `Downloading` or `Verifying`."""
    progress_pct: float
    downloaded_bytes: int
    total_bytes: int


class ShardRow(Struct, frozen=True, kw_only=True):
    index: int
    size_bytes: int
    layer_start: int
    layer_end: int
    local: bool
    holders: int
    holder_ids: list[str]
    locked: bool
    in_vram: bool | UnsetType = UNSET
    """Loaded by a worker of this node, wherever its memory is."""
    download: Download | UnsetType = UNSET


class VisionEncoder(Struct, frozen=True, kw_only=True):
    available: bool = False
    local: bool = False
    holders: int = 0
    holder_ids: list[str] = field(default_factory=list[str])


class HfSource(Struct, frozen=True, kw_only=True):
    repo_id: str
    filename: str


class AcquisitionProgress(Struct, frozen=True, kw_only=True):
    downloaded_bytes: int
    total_bytes: int
    downloaded_shards: int
    total_shards: int
    speed_bytes_per_sec: int
    source: str
    trigger: str


class ModelRow(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    total_size_bytes: int
    shard_count: int
    hosted_shards: int
    global_available: int
    healthy: bool
    status: str
    mode: str
    source: str
    local: bool
    peers_hosting: int
    shards: list[ShardRow]
    trust_level: str
    mmproj: VisionEncoder
    encrypted_pipeline: bool
    has_first_shard: bool
    has_last_shard: bool
    hf_source: HfSource | None
    has_manifest: bool
    has_header: bool
    probed: bool
    estimated_vram_mb: int
    architecture: str | None
    architecture_supported: bool
    quantization: str | None
    layer_count: int | None
    context_length: int | None
    acquisition: str | None
    acquisition_progress: AcquisitionProgress | None
    cpu_placement_reason: str | None


class ModelAdded(Struct, frozen=True, kw_only=True):
    status: str
    model_id: str
    shard_count: int


class ModelDeleted(Struct, frozen=True, kw_only=True):
    status: str
    model_id: str
    files_removed: int


class Acquiring(Struct, frozen=True, kw_only=True):
    status: str
    model_id: str


class NoAcquisition(Struct, frozen=True, kw_only=True):
    model_id: str
    state: str
    message: str


class Failed(Struct, frozen=True, kw_only=True):
    reason: str


class FailedState(Struct, frozen=True, kw_only=True):
    failed: Failed


class ShardProgress(Struct, frozen=True, kw_only=True):
    state: str
    downloaded_bytes: int
    total_bytes: int


class AcquisitionStatus(Struct, frozen=True, kw_only=True):
    model_id: str
    state: str | FailedState
    """`awaiting_manifest`, `downloading`, `complete`, `cancelled` or `{"failed": {"reason"}}`; ours: `queued`, `paused`."""
    total_shards: int
    downloaded_shards: int
    verified_shards: int
    failed_shards: int
    total_bytes: int
    downloaded_bytes: int
    speed_bytes_per_sec: int
    started_at: str
    log: list[str]
    shard_progress: dict[str, ShardProgress]
    source: str
    trigger: str


class GeneralMetadata(Struct, frozen=True, kw_only=True):
    name: str | None
    architecture: str | None
    architecture_supported: bool
    file_type: int | None
    quantization: str | None


class ModelMetadata(Struct, frozen=True, kw_only=True):
    context_length: int | None
    block_count: int | None
    embedding_length: int | None
    head_count: int | None
    head_count_kv: int | None
    rope_dimension_count: int | None
    rope_freq_base: float | None
    layer_norm_rms_epsilon: float | None
    vocab_size: int | None


class TokenizerMetadata(Struct, frozen=True, kw_only=True):
    model: str | None
    pre: str | None
    eos_token_id: int | None
    bos_token_id: int | None
    padding_token_id: int | None


class TensorMetadata(Struct, frozen=True, kw_only=True):
    count: int
    data_offset: int


class RawValue(Struct, frozen=True, kw_only=True):
    key: str
    value: str


class Metadata(Struct, frozen=True, kw_only=True):
    model_id: str
    general: GeneralMetadata
    model: ModelMetadata
    tokenizer: TokenizerMetadata
    tensors: TensorMetadata
    raw: list[RawValue]


class StageRow(Struct, frozen=True, kw_only=True):
    node: str
    first_shard: int
    last_shard: int
    layers: tuple[int, int]
    """From, to; the end is not included."""
    standbys: list[str]
    """Who could take over, the best first."""
    memory_mb: int
    """Forecast of what its shards take when loaded."""


class PlanView(Struct, frozen=True, kw_only=True):
    model_id: str
    stages: list[StageRow]
    predicted_token_ms: float | None
    predicted_tokens_per_second: float | None


class ModelUnloaded(Struct, frozen=True, kw_only=True):
    status: str
    model_id: str
    model_name: str
    segments_removed: int
    estimated_freed_mb: int


class ShardDeleted(Struct, frozen=True, kw_only=True):
    status: str
    model_id: str
    shard_index: int


class ShardLoaded(Struct, frozen=True, kw_only=True):
    status: str
    model_id: str
    shard_index: int
    loaded_shards: list[int]


class ShardUnloaded(Struct, frozen=True, kw_only=True):
    status: str
    model_id: str
    shard_index: int
    remaining_loaded: list[int]


class ShardDownload(Struct, frozen=True, kw_only=True):
    status: str
    """`already_local`, `downloading`, or `use_hf`: no peer has it, `POST /api/admin/hf/download-shards` fetches it."""
    model_id: str
    shard_index: int
    source: str | UnsetType = UNSET
    """`p2p` or `huggingface`."""
    peer: str | UnsetType = UNSET
    repo_id: str | UnsetType = UNSET
    """With `use_hf`, as the next."""
    filename: str | UnsetType = UNSET


class StoredModel(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    total_size_bytes: int
    shard_count: int
    local_shards: int
    local_bytes: int
    estimated_vram_mb: int
    shards: list[ShardRow]
    ready: str
    all_shards_available: bool


class ShardStorageView(Struct, frozen=True, kw_only=True):
    models: list[StoredModel]
    total_local_bytes: int
    disk_usage_bytes: int
    auto_manage_enabled: bool
    auto_manage_max_storage_mb: int
    max_disk_mb: int
    pool_vram_mb: int | None
    """Of the same owner's devices: there are no pools here, so it is this node alone."""
    local_vram_mb: int | None
    """0: there is no GPU, and models are in the RAM; null: there is one whose memory nobody has measured."""
    peer_count: int


class FoundFileRow(Struct, frozen=True, kw_only=True):
    path: str
    """Of a split GGUF, that of its first part: one row for all of them."""
    size_bytes: int
    model_id: str | None
    problem: str | None
    """Why it cannot be cut, in the sentence that `POST /api/admin/models` would answer, or need not be; null: it can."""


class Rescanned(Struct, frozen=True, kw_only=True):
    status: str
    models_updated: list[str]
    count: int
    found_files: list[FoundFileRow]
    """Whole GGUF files in the folder of models (ours; not in the contract)."""


class RegionRow(Struct, frozen=True, kw_only=True):
    total: int
    """Nodes, this one included."""
    models: dict[str, int]
    """How many of them hold at least one shard."""
    demand: dict[str, int]
    """Requests within the last ten minutes at the nodes of the region."""
    coverage_gaps: list[str]
    replication_target: dict[str, int]


class NetworkMap(Struct, frozen=True, kw_only=True):
    regions: dict[str, RegionRow]


class NetworkCodeView(Struct, frozen=True, kw_only=True):
    code: str
    node_id: str
    phase: str
    peer_count: int
    network_id: str
    expires_at: str


class Joined(Struct, frozen=True, kw_only=True):
    status: str
    address: str | None
    message: str
