"""Messages of the live socket, field by field as the contract has them (swarmllm.md 2.10)."""

from __future__ import annotations

from msgspec import UNSET, Raw, Struct, UnsetType

from swarmd.api.credit_shapes import CreditBalance
from swarmd.api.download_shapes import DownloadRow
from swarmd.api.outlook_shapes import SwarmCapacity, Wishlist
from swarmd.api.shapes import HardwareRow, PeerRow


class LiveShard(Struct, frozen=True, kw_only=True):
    index: int
    local: bool
    holders: int
    in_vram: bool


class LiveProbe(Struct, frozen=True, kw_only=True):
    repo_id: str
    filename: str
    read_bytes: int


class PeerDownload(Struct, frozen=True, kw_only=True):
    """A shard that is arriving at another node."""

    model_id: str
    shard_index: int
    node_id: str
    progress_pct: float | None
    """Null: nodes tell that a shard arrives, and not how much of it is there."""


class NetworkTraffic(Struct, frozen=True, kw_only=True):
    """Over the links to all peers, since the start. Rates are of the time since the last tick; null in the first."""

    bytes_in: int
    bytes_out: int
    bytes_in_per_sec: int | None
    bytes_out_per_sec: int | None
class LiveFlow(Struct, frozen=True, kw_only=True):
    """One reply that this node is the head of and that is in the making."""

    model: str
    nodes: list[str]
    """Short ids in the order of the layers; a node may be there twice."""
    seconds: float
    """Since it started."""


class LiveStats(Struct, frozen=True, kw_only=True):
    """`stats_update`."""

    peers: int
    lan_peers: int
    credits: CreditBalance
    active_requests: int
    tokens_per_second: float | None
    """Of the last reply this node was the head of; null before the first."""
    requests_served: int
    requests_made: int
    forwards_served: int
    uptime_seconds: int
    acquisitions: list[DownloadRow]
    region: str
    """Of this node; `??` where it does not know. Ours; not in the contract."""
    region_summary: dict[str, int]
    region_demand: dict[str, dict[str, int]]
    """Requests of the last ten minutes by model, in each region that was asked for something."""
    region_coverage_gaps: dict[str, list[str]]
    """Models that nobody in the region holds a shard of: the first 100, sorted; `network-map` has them all."""
    hardware: HardwareRow
    swarm_capacity: SwarmCapacity
    wishlist: Wishlist
    network_traffic: NetworkTraffic | None
    peer_downloads: list[PeerDownload] | UnsetType = UNSET
    """When there are any; the first 100."""
    hub_probes: list[LiveProbe] | UnsetType = UNSET
    """Headers that are being read at the hub, when there are any. Ours; not in the contract."""
    flows: list[LiveFlow] | UnsetType = UNSET
    """The oldest FLOWS_SHOWN (`api.ws`) replies in the making, when there are any. Ours; not in the contract."""
    tokens_now: float | UnsetType = UNSET
    """Tokens per second of all replies of this head together, since the tick before. Ours; not in the contract."""
    shard_registry: Raw | UnsetType = UNSET
    """`dict[str, list[LiveShard]]`, encoded once for all sockets; only when it changed since the last tick on this one."""


class Activity(Struct, frozen=True, kw_only=True):
    """`activity_event`."""

    kind: str
    category: str
    message: str
    timestamp: str
    toast_level: str | None = None
    toast_duration_ms: int | UnsetType = UNSET
    """With a toast."""
    model_id: str | None = None
    model_name: str | UnsetType = UNSET
    """Where this node knows the model."""
    node_id: str | None = None
    shard_index: int | UnsetType = UNSET
    detail_num: float | UnsetType = UNSET
    detail_str: str | UnsetType = UNSET
    """Why, where there is a reason."""
    freed_bytes: int | UnsetType = UNSET
    """Of a shard that the autopilot dropped, as the next three."""
    holder_count_before: int | UnsetType = UNSET
    holder_count_after: int | UnsetType = UNSET
    remaining_local_shards: int | UnsetType = UNSET


class Update(Struct, frozen=True, kw_only=True):
    """`update_available`."""

    current_version: str
    latest_version: str
    changelog: str | None
    published_at: str | None
    downloaded: bool


class Envelope(Struct, frozen=True, kw_only=True):
    """One message of the socket; `models_changed` has no data."""

    type: str
    data: LiveStats | Activity | PeerList | Update | UnsetType = UNSET


class PeerList(Struct, frozen=True, kw_only=True):
    peers: list[PeerRow]
