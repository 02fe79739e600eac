"""The seed's "Node Management", "Updates", "Discovery", "Authentication" and "WebSocket"; fields from swarmllm.md 2.1 and
2.7 to 2.9."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from swarmd.domain.refusals import (
    BadCode,
    Expired,
    Forbidden,
    Invalid,
    NoAnswer,
    NoSpace,
    OtherNetwork,
    Refusal,
    UpdateFailed,
    UpdatesOff,
    UsedUp,
)
from tests.contract.row import KEY, LOCAL_KEY, LOCAL_READ, READ, Refused, Row
from tests.fakes.rim import Rim

CREDITS = {
    "balance": "int", "lifetime_earned": "int", "lifetime_spent": "int",
    "lifetime_refunded?": "int", "net_spent?": "int", "books_balance?": "bool", "escrow_held?": "int",
    "escrow_pending_count?": "int",
}  # fmt: skip
HARDWARE = {
    "gpu_name": "str|null", "gpu_vram_mb": "int|null", "gpu_vram_used_mb": "int|null", "gpu_inference": "bool",
    "inference_backend": "str|null", "models_on_cpu_fallback?": ["str"], "memory_bandwidth_gbps": "num|null",
    "est_tokens_per_sec_7b": "num|null", "total_ram_mb": "int", "used_ram_mb": "int", "process_rss_mb": "int",
    "available_disk_mb": "int", "total_disk_mb": "int", "used_disk_mb": "int", "cpu_name": "str", "cpu_cores": "int",
}  # fmt: skip
TIER = "=bronze|=silver|=gold|=platinum"
STATS = {
    "node_id": "node64", "version": "str", "uptime_seconds": "int", "tier": TIER, "peers": "int", "requests_served": "int",
    "forwards_served": "int", "requests_made": "int", "active_requests": "int", "hosted_shards": "int", "credits": CREDITS,
    "hardware": HARDWARE,
    "inference": {
        "total_requests": "int", "samples": "int", "avg_latency_ms": "num|null", "min_latency_ms?": "num",
        "max_latency_ms?": "num", "p50_latency_ms?": "num", "p95_latency_ms?": "num", "p99_latency_ms?": "num",
    },
    "swarm_spec": {
        "hedge": "null", "prefetch": "null",
        "ngram": {"hits": "int", "misses": "int", "total": "int", "hit_rate": "num|null"},
    },
    "tokens_per_second": "num|null",  # ours
}  # fmt: skip
PEER = {
    "node_id": "node", "nickname": "str|null", "latency_ms": "int|null", "trust_score": "num", "healthy": "bool",
    "gpu": "str|null", "hosted_models": ["str"], "is_lan_peer": "bool", "addresses": ["str"], "last_seen": "time|null",
    "version": "str|null", "uptime_seconds": "int|null", "hosted_shards": "int", "is_pool_member": "bool",
    "is_anchor": "bool", "predicted_rtt_ms": "num|null", "measured_min_rtt_ms": "num|null", "rtt_samples": "int",
    # ours
    "connected": "bool", "region": "str", "via": "node|null", "total_ram_mb": "int|null", "free_ram_mb": "int|null",
}  # fmt: skip
REGION = {
    "total": "int", "models": {"*": "int"}, "demand": {"*": "num"}, "coverage_gaps": ["str"],
    "replication_target": {"*": "int"}
}  # fmt: skip
CONFIG = {
    "contribution": "=minimal|=moderate|=maximum", "max_concurrent_requests": "int", "max_bandwidth_mbps": "int",
    "max_disk_mb": "int", "listen_port": "int", "session_timeout_seconds": "int", "auto_manage_shards": "bool",
    "auto_manage_max_storage_mb": "int", "shard_size_mb": "int", "max_batch_size": "int", "batch_timeout_ms": "int",
    "update_mode": "=off|=notify|=download|=install",
}  # fmt: skip
OK = {"status": "=ok"}
VERSION = {
    "current_version": "str", "latest_version": "str|null", "update_available": "bool", "channel": "=disabled|=stable|=all",
    "last_checked": "time|null", "last_error": "str|null", "restart_required": "bool|null", "changelog": "str|null",
}  # fmt: skip
UPDATE_INFO = {
    "current_version": "str", "latest_version": "str", "changelog": "str|null", "published_at": "time|null",
    "checksum_sha256": "str|null", "downloaded": "bool",
    "size_bytes": "int",  # ours
}  # fmt: skip


def updates_refuse(refusal: Refusal) -> Callable[[Rim], None]:
    def arrange(rim: Rim) -> None:
        rim.updates.refusal = refusal

    return arrange


def no_place_for_the_file(rim: Rim) -> None:
    """A folder that cannot be made, since a file has its name."""
    (rim.folder / "taken").write_text("")
    _settings_file(rim, rim.folder / "taken" / "config.toml")


def a_settings_file(text: str) -> Any:
    def write(rim: Rim) -> None:
        (rim.folder / "config.toml").write_text(text)

    return write


def _settings_file(rim: Rim, path: Path) -> None:
    settings = cast("Any", rim.settings)
    settings._loaded = replace(settings._loaded, path=path)


def joining(says: Any) -> Any:
    def arrange(rim: Rim) -> None:
        rim.joiner.says = says

    return arrange


def no_codes(says: Any) -> Any:
    def arrange(rim: Rim) -> None:
        async def refuse() -> Any:
            return says

        cast("Any", rim.codes).network_code = refuse

    return arrange


ROWS = (
    Row(method="GET", path="/api/admin/stats", access=READ, reply=STATS, live=True),
    Row(method="GET", path="/api/admin/peers", access=READ, reply=[PEER], live=True),
    Row(method="GET", path="/api/admin/credits", access=READ, live=True,
        reply=CREDITS | {"tier": TIER, "last_updated": "time|null"}),
    Row(method="GET", path="/api/admin/network-map", access=READ, reply={"regions": {"*": REGION}}, live=True),
    Row(method="GET", path="/api/admin/config", access=READ, reply=CONFIG, live=True),
    Row(
        method="PUT", path="/api/admin/config", access=KEY, body={"contribution": "moderate"}, reply=OK, live=True,
        refused=[
            Refused(status=400, when="a contribution that is none", body={"contribution": "all"}, param="contribution"),
            Refused(status=400, when="shards below 64 MB", body={"shard_size_mb": 63}, param="shard_size_mb"),
            Refused(status=400, when="shards above 2048 MB", body={"shard_size_mb": 2049}, param="shard_size_mb"),
            Refused(status=400, when="a text for a number", body={"max_disk_mb": "many"}, param="max_disk_mb"),
            Refused(status=400, when="a number for a switch", body={"auto_manage_shards": 1}, param="auto_manage_shards"),
            Refused(status=400, when="a batch of none", body={"max_batch_size": True}, param="max_batch_size"),
            Refused(status=400, when="a key that nobody knows", body={"colour": "red"}, param="colour"),
            Refused(status=400, when="a key that is only shown", body={"listen_port": 1}, param="listen_port"),
            Refused(status=503, when="the file cannot be written", code="not_stored", arrange=no_place_for_the_file),
        ],
    ),
    Row(
        method="POST", path="/api/admin/config/reload", access=KEY, arrange=a_settings_file(""),
        reply={
            "status": "=ok", "changed": "bool", "applied": {"*": "str|int|bool"}, "restart_required": {"*": "str|int|bool"}
        },
        refused=[
            Refused(status=400, when="the file does not parse", arrange=a_settings_file("garbage = [")),
            Refused(status=404, when="there is no file", arrange=lambda rim: (rim.folder / "config.toml").unlink()),
        ],
    ),
    Row(method="POST", path="/api/admin/shutdown", access=LOCAL_KEY, reply={"status": "=shutting_down"}),
    Row(method="GET", path="/api/admin/version", access=READ, reply=VERSION, live=True),
    Row(
        method="POST", path="/api/admin/update/check", access=LOCAL_KEY,  # design, ruling 12
        reply=(
            {"status": "=up_to_date", "current_version": "str"}, {"status": "=update_available", "info": UPDATE_INFO}
        ),
        refused=[
            Refused(status=503, when="nobody said where it is", code="updates_off", arrange=updates_refuse(UpdatesOff())),
            Refused(
                status=502, when="the feed does not answer", code="update_failed",
                arrange=updates_refuse(UpdateFailed(reason="it answered 404")),
            ),
        ],
    ),
    Row(
        method="POST", path="/api/admin/update/apply", access=LOCAL_KEY,
        reply={"status": "=applied", "version": "str", "message": "str"},
        refused=[
            Refused(
                status=400, when="there is none", code="invalid_value",
                arrange=updates_refuse(Invalid(what="there is no newer version")),
            ),
            Refused(status=400, when="retry is neither", path="/api/admin/update/apply?retry=2", param="retry"),
            Refused(status=503, when="nobody said where it is", code="updates_off", arrange=updates_refuse(UpdatesOff())),
            Refused(
                status=502, when="its wheel does not come", code="update_failed",
                arrange=updates_refuse(UpdateFailed(reason="it answered 404")),
            ),
            Refused(status=507, when="the disk is full", arrange=updates_refuse(NoSpace(needed_bytes=2, free_bytes=1))),
        ],
    ),
    Row(
        method="GET", path="/api/admin/network-code", access=LOCAL_READ, live=True,
        reply={
            "code": "str", "node_id": "node", "phase": "=seedling|=established", "peer_count": "int",
            "network_id": "str", "expires_at": "time",  # ours
        },
        refused=[
            Refused(status=403, when="this node may not invite", arrange=no_codes(Forbidden(what="ask the founder"))),
        ],
    ),
    Row(
        method="POST", path="/api/admin/join-network", access=KEY, body={"code": "swarm://abc"},
        reply={"status": "=ok", "address": "str|null", "message": "str"},
        refused=[
            Refused(status=400, when="an unreadable code", arrange=joining(BadCode(reason="short")), code="bad_code"),
            Refused(status=400, when="an expired code", arrange=joining(Expired(expired_at=0.0)), code="code_expired"),
            Refused(status=400, when="a used code", arrange=joining(UsedUp()), code="code_used"),
            Refused(status=400, when="no code", body={}, param="code"),
            Refused(status=400, when="a number for a code", body={"code": 7}, param="code"),
            Refused(status=400, when="a field too many", body={"code": "swarm://abc", "more": 1}, param="more"),
            Refused(status=403, when="the network does not want it", arrange=joining(Forbidden(what="no"))),
            Refused(status=409, when="a node of another network", arrange=joining(OtherNetwork(network="c" * 64))),
            Refused(status=502, when="nobody answers", arrange=joining(NoAnswer(tried=("10.0.0.5:8810",), reason="no"))),
        ],
    ),
    Row(method="GET", path="/api/admin/api-key", access=KEY, reply={"api_key": "str"}, live=True),
    Row(  # its messages: tests/api/test_ws.py; without an upgrade it is a bad request
        method="GET", path="/api/admin/ws", access=READ, reply=None, status=400,
    ),
)  # fmt: skip
