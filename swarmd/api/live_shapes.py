"""Messages of the live socket, field by field as the contract has them (swarmllm.md 2.10)."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from swarmd.api.download_shapes import DownloadRow
from swarmd.api.shapes import Credits, HardwareRow, PeerRow


class LiveShard(Struct, frozen=True, kw_only=True):
    index: int
    local: bool
    holders: int
    in_vram: bool


class LiveProbe(Struct, frozen=True, kw_only=True):
    repo_id: str
    filename: str
    read_bytes: int


class LiveStats(Struct, frozen=True, kw_only=True):
    """`stats_update`. Left out until something measures them: capacity, wishlist, traffic."""

    peers: int
    lan_peers: int
    credits: Credits
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
    hub_probes: list[LiveProbe] | UnsetType = UNSET
    """Headers that are being read at the hub, when there are any. Ours; not in the contract."""
    shard_registry: dict[str, list[LiveShard]] | UnsetType = UNSET
    """Only when it changed since the last tick on this socket."""


class Activity(Struct, frozen=True, kw_only=True):
    """`activity_event`."""

    kind: str
    category: str
    message: str
    timestamp: str
    toast_level: str | None = None
    model_id: str | None = None
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


class Envelope(Struct, frozen=True, kw_only=True):
    """One message of the socket; `models_changed` has no data."""

    type: str
    data: LiveStats | Activity | PeerList | UpdateNews | UnsetType = UNSET


class UpdateNews(Struct, frozen=True, kw_only=True):
    """A newer version was found."""

    current_version: str
    latest_version: str
    changelog: str
    published_at: str
    downloaded: bool


class PeerList(Struct, frozen=True, kw_only=True):
    peers: list[PeerRow]
