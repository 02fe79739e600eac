"""The seed's WebSocket: five kinds of envelopes, each field of their data, the order on a new socket (swarmllm.md 2.10)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp

from swarmd.domain.events import ModelRemoved, PeerDisconnected, ShardDropped, WorkerStopped
from swarmd.domain.ids import ShardRef
from tests.contract.hub_rows import DOWNLOAD
from tests.contract.node_rows import CREDITS, HARDWARE, PEER
from tests.contract.shape import faults
from tests.fakes.rim import PEER as PEER_NODE
from tests.fakes.rim import TINY, Rim, acquisition, running

LIVE_PEER = {name: shape for name, shape in PEER.items() if name not in ("addresses", "last_seen")}
COVERED = {
    "model_id": "str", "display_name": "str", "size_mb": "int", "holders": "int", "total_shards": "int",
    "shards_covered": "int", "hosted_by_us": "bool",
}  # fmt: skip
CAPACITY = {
    "online_nodes": "int", "total_vram_mb": "int|null", "total_disk_mb": "int|null", "gpu_nodes": "int",
    "regions_represented": "int", "serveable_models": [COVERED], "aspirational_models": [COVERED],
    "hosted_locally": [COVERED], "min_redundancy": "int", "median_redundancy": "num",
    "headline_model": ("null", {"model_id": "str", "display_name": "str", "size_mb": "int"}), "computed_at": "int",
}  # fmt: skip
WISHLIST = {
    "computed_at": "int",
    "entries": [
        {
            "model_id": "str", "display_name": "str",
            "status": "=hosting|=serveable|=aspirational|=candidate|=unreachable|=blocked", "score": "num",
            "why_tags": ["str"], "swarm_replicas": "int", "target_replicas": "int", "size_mb": "int",
            "vram_required_mb": "int", "shards_covered": "int", "total_shards": "int", "hosted_by_us": "bool",
            "hf_repo_id?": "str", "task_tags?": ["str"],
        }
    ],
}  # fmt: skip
STATS = {
    "peers": "int", "lan_peers": "int", "credits": CREDITS, "active_requests": "int", "requests_served": "int",
    "requests_made": "int", "forwards_served": "int", "uptime_seconds": "int", "acquisitions": [DOWNLOAD],
    "shard_registry?": {"*": [{"index": "int", "local": "bool", "holders": "int", "in_vram": "bool"}]},
    "peer_downloads?": [{"model_id": "str", "shard_index": "int", "node_id": "node", "progress_pct": "num"}],
    "region_summary": {"*": "int"}, "region_demand": {"*": {"*": "num"}}, "region_coverage_gaps": {"*": ["str"]},
    "swarm_capacity?": CAPACITY, "wishlist?": WISHLIST, "hardware": HARDWARE,
    "network_traffic?": ("null", {"*": "any"}),
    # ours
    "tokens_per_second": "num|null", "region": "str",
    "flows?": [{"model": "str", "nodes": ["node"], "seconds": "num"}], "tokens_now?": "num",
    "hub_probes?": [{"repo_id": "str", "filename": "str", "read_bytes": "int"}],
}  # fmt: skip
ACTIVITY = {
    "kind": "str", "model_id": "str|null", "message": "str", "timestamp": "time",
    "toast_level": "=info|=success|=warning|=error|null",
    "category": "=network|=model|=download|=inference|=auto_manage|=pool|=system|=provider|=security",
    "model_name?": "str", "node_id?": "node|null", "detail_num?": "num", "detail_str?": "str", "toast_duration_ms?": "int",
    "shard_index?": "int", "freed_bytes?": "int", "holder_count_before?": "int", "holder_count_after?": "int",
    "remaining_local_shards?": "int",
}  # fmt: skip
UPDATE = {
    "current_version": "str", "latest_version": "str", "changelog": "str|null", "published_at": "time|null",
    "downloaded": "bool",
}  # fmt: skip
EVENTS = {
    "peer_list": {"type": "=peer_list", "data": {"peers": [LIVE_PEER]}},
    "activity_event": {"type": "=activity_event", "data": ACTIVITY},
    "stats_update": {"type": "=stats_update", "data": STATS},
    "models_changed": {"type": "=models_changed"},
    "update_available": {"type": "=update_available", "data": UPDATE},
}


async def hear(socket: aiohttp.ClientWebSocketResponse) -> Any:
    async with asyncio.timeout(5):
        return json.loads(await socket.receive_str())


async def test_every_envelope_has_its_shape_and_a_fresh_socket_its_order(tmp_path: Path) -> None:
    async with running(Rim(tmp_path)) as rim:
        rim.desk.running[TINY] = acquisition(TINY)
        rim.bus.publish(WorkerStopped(model=TINY))
        rim.bus.publish(PeerDisconnected(node=PEER_NODE, reason="gone"))
        rim.bus.publish(ShardDropped(shard=ShardRef(TINY, 0)))
        while len(rim.feed._recent) < 2:
            await asyncio.sleep(0.001)
        async with rim.client() as client, client.ws_connect("/api/admin/ws") as socket:
            first = [await hear(socket)]
            while first[-1]["type"] != "stats_update":
                first.append(await hear(socket))
            rim.bus.publish(ModelRemoved(model=TINY))
            rim.bus.publish(PeerDisconnected(node=PEER_NODE, reason="gone"))
            later: list[Any] = []
            while not {"activity_event", "models_changed", "peer_list"} <= {one["type"] for one in later}:
                later.append(await hear(socket))
    assert first[0]["type"] == "peer_list" and {one["type"] for one in first[1:-1]} == {"activity_event"}
    assert "shard_registry" in first[-1]["data"]
    found = [fault for one in first + later for fault in faults(EVENTS[one["type"]], one, one["type"])]
    assert found == []
