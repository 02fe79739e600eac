"""Statistics and settings of the node."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from swarmd.domain.events import SettingsChanged
from tests.fakes.rim import OWN, Rim, keyed


async def fetch(rim: Rim, method: str, path: str, **more: Any) -> tuple[int, Any]:
    async with rim.client(**keyed()) as client, client.request(method, path, **more) as reply:
        return reply.status, await reply.json()


async def test_stats_have_the_contract_s_fields(rim: Rim) -> None:
    _, found = await fetch(rim, "GET", "/api/admin/stats")
    assert set(found) == {
        "node_id", "version", "uptime_seconds", "tier", "peers", "requests_served", "forwards_served", "requests_made",
        "active_requests", "tokens_per_second", "hosted_shards", "credits", "hardware", "inference",
        "swarm_spec",
    }  # fmt: skip
    assert found["node_id"] == OWN
    assert (found["peers"], found["hosted_shards"], found["tier"]) == (1, 3, "silver")
    assert (found["requests_served"], found["requests_made"], found["forwards_served"]) == (1, 2, 3)
    assert found["credits"] == {
        "balance": 320, "lifetime_earned": 700, "lifetime_spent": 500, "lifetime_refunded": 120, "net_spent": 380,
    }  # fmt: skip
    nothing = {"hits": 0, "misses": 0, "total": 0, "hit_rate": None}
    assert found["swarm_spec"] == {"hedge": None, "prefetch": None, "ngram": nothing}
    assert found["hardware"]["gpu_name"] is None and found["hardware"]["total_ram_mb"] == 8000
    assert found["inference"] == {
        "total_requests": 2, "samples": 3, "avg_latency_ms": 20.0, "min_latency_ms": 10.0, "max_latency_ms": 30.0,
        "p50_latency_ms": 20.0, "p95_latency_ms": 30.0, "p99_latency_ms": 30.0,
    }  # fmt: skip


async def test_guesses_are_counted_as_they_came_true(rim: Rim) -> None:
    rim.tallies.proposed_tokens, rim.tallies.accepted_tokens = 30, 20
    _, found = await fetch(rim, "GET", "/api/admin/stats")
    assert found["swarm_spec"]["ngram"] == {"hits": 20, "misses": 10, "total": 30, "hit_rate": 0.6667}


async def test_config_round_trip(rim: Rim) -> None:
    _, before = await fetch(rim, "GET", "/api/admin/config")
    assert before["shard_size_mb"] == 512 and before["listen_port"] == 8800
    with rim.bus.spy() as spy:
        assert await fetch(rim, "PUT", "/api/admin/config", json={"shard_size_mb": 256}) == (200, {"status": "ok"})
        assert await spy.wait_for(SettingsChanged) == SettingsChanged(keys=("model.shard_size_mb",))
    _, after = await fetch(rim, "GET", "/api/admin/config")
    assert after == before | {"shard_size_mb": 256}
    path = rim.folder / "config.toml"
    assert "256" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_what_was_shown_can_be_sent_back(rim: Rim) -> None:
    _, shown = await fetch(rim, "GET", "/api/admin/config")
    assert await fetch(rim, "PUT", "/api/admin/config", json=shown) == (200, {"status": "ok"})
    assert not (rim.folder / "config.toml").exists()


async def test_config_refuses_with_the_name_and_keeps_all(rim: Rim) -> None:
    for body, param in (
        ({"shard_size_mb": 1}, "shard_size_mb"),
        ({"contribution": "heroic"}, "contribution"),
        ({"nonsense": 1}, "nonsense"),
        ({"listen_port": 9000}, "listen_port"),
        ({"max_batch_size": 4, "shard_size_mb": "big"}, "shard_size_mb"),
    ):
        status, found = await fetch(rim, "PUT", "/api/admin/config", json=body)
        assert (status, found["error"]["param"]) == (400, param)
    assert (await fetch(rim, "GET", "/api/admin/config"))[1]["max_batch_size"] == 8


async def test_config_that_cannot_be_written_is_503(rim: Rim, monkeypatch: Any) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("swarmd.kit.disk.Disk.write_atomic_now", full)
    status, found = await fetch(rim, "PUT", "/api/admin/config", json={"shard_size_mb": 256})
    assert (status, found["error"]["code"]) == (503, "not_stored")
    assert (await fetch(rim, "GET", "/api/admin/config"))[1]["shard_size_mb"] == 512


async def test_reload(rim: Rim) -> None:
    assert (await fetch(rim, "POST", "/api/admin/config/reload"))[0] == 404
    path: Path = rim.folder / "config.toml"
    path.write_text(
        '[model]\nshard_size_mb = 128\n[network]\nmax_peers = 7\n[api]\napi_key = "sixteen-or-more-characters"\n'
    )
    status, found = await fetch(rim, "POST", "/api/admin/config/reload")
    assert status == 200
    assert found["applied"] == {"model.shard_size_mb": 128}
    assert found["restart_required"]["network.max_peers"] == 7
    assert found["changed"] is True
    assert "sixteen" not in str(found)
    assert (await fetch(rim, "GET", "/api/admin/config"))[1]["shard_size_mb"] == 128
    path.write_text("nonsense [")
    status, found = await fetch(rim, "POST", "/api/admin/config/reload")
    assert (status, found["error"]["type"]) == (400, "invalid_request_error")
