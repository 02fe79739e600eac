"""Model endpoints, over a real socket."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swarmd.domain.ids import ModelId
from swarmd.domain.models import TrustLevel
from swarmd.domain.refusals import BadFile, Busy, NoSpace, Refusal, UnsupportedModel
from swarmd.domain.shards import ModelView
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.rim import OWN, PEER, SPREAD, TINY, Rim, acquisition, keyed, no_coverage


async def fetch(rim: Rim, method: str, path: str, **more: Any) -> tuple[int, Any]:
    async with rim.client(**keyed()) as client, client.request(method, path, **more) as reply:
        return reply.status, await reply.json()


ROW = {
    "id", "name", "total_size_bytes", "shard_count", "hosted_shards", "global_available", "healthy", "status", "mode",
    "source", "local", "peers_hosting", "shards", "trust_level", "mmproj", "encrypted_pipeline", "has_first_shard",
    "has_last_shard", "hf_source", "has_manifest", "has_header", "probed", "estimated_vram_mb", "acquisition",
    "acquisition_progress", "cpu_placement_reason",
}  # fmt: skip


async def test_rows_have_the_contract_s_fields(rim: Rim) -> None:
    rim.models.known[ModelId("heard")] = ModelView(
        model=ModelId("heard"), name="heard", manifest=None, trust=TrustLevel.DISCOVERED, shards=(), holders=(PEER,),
        architecture_supported=False,
    )  # fmt: skip
    rim.desk.running[SPREAD] = acquisition(SPREAD)
    status, rows = await fetch(rim, "GET", "/api/admin/models")
    assert status == 200
    assert all(set(row) >= ROW for row in rows)
    whole, spread, heard = rows
    assert (whole["status"], whole["mode"], whole["source"], whole["peers_hosting"]) == ("loaded", "full", "local", 0)
    assert (spread["status"], spread["mode"], spread["source"]) == ("ready", "distributed", "hybrid")
    assert (spread["has_first_shard"], spread["has_last_shard"], spread["peers_hosting"]) == (True, False, 1)
    assert (spread["acquisition"], spread["acquisition_progress"]["speed_bytes_per_sec"]) == ("downloading", 1_000_000)
    assert (heard["status"], heard["source"], heard["healthy"], heard["shards"]) == ("available", "network", False, [])
    assert whole["trust_level"] == "Pinned" and heard["trust_level"] == "Discovered"
    assert whole["mmproj"] == {"available": False, "local": False, "holders": 0, "holder_ids": []}
    assert whole["estimated_vram_mb"] == 12  # 1.15 times 10 MB
    shard = spread["shards"][1]
    assert (shard["local"], shard["holders"], shard["holder_ids"], shard["in_vram"]) == (False, 1, [PEER[:16]], False)


async def test_add_file(rim: Rim) -> None:
    status, found = await fetch(rim, "POST", "/api/admin/models", json={"path": "/somewhere/x.gguf"})
    assert (status, found) == (200, {"status": "added", "model_id": TINY, "shard_count": 2})
    assert rim.desk.added == [Path("/somewhere/x.gguf")]
    assert (await fetch(rim, "POST", "/api/admin/models", json={"path": "/x.gguf", "shard_size_mb": 64}))[0] == 200
    assert rim.desk.shard_sizes == [None, 64_000_000]
    for size in (63, 2049, "64"):
        assert (await fetch(rim, "POST", "/api/admin/models", json={"path": "/x.gguf", "shard_size_mb": size}))[0] == 400
    for path in ("x.gguf", "~/x.gguf", "/a\0b"):
        status, found = await fetch(rim, "POST", "/api/admin/models", json={"path": path})
        assert (status, found["error"]["param"]) == (400, "path")
    rim.desk.says = BadFile(what="not a GGUF file")
    assert (await fetch(rim, "POST", "/api/admin/models", json={"path": "/x"}))[0] == 400


async def test_acquire_and_its_status(rim: Rim) -> None:
    path = f"/api/admin/models/{SPREAD}"
    assert (await fetch(rim, "GET", f"{path}/status"))[1]["state"] == "unknown"
    assert await fetch(rim, "POST", f"{path}/add") == (200, {"status": "acquiring", "model_id": SPREAD})
    _, found = await fetch(rim, "GET", f"{path}/status")
    assert set(found) == {
        "model_id", "state", "total_shards", "downloaded_shards", "verified_shards", "failed_shards", "total_bytes",
        "downloaded_bytes", "speed_bytes_per_sec", "started_at", "log", "shard_progress", "source", "trigger",
    }  # fmt: skip
    assert found["shard_progress"] == {
        "0": {"state": "downloading", "downloaded_bytes": 2_000_000, "total_bytes": 5_000_000}
    }
    assert found["started_at"] == "2023-11-14T22:13:20.000Z"
    rim.desk.running[SPREAD] = acquisition(SPREAD, state="failed")
    assert (await fetch(rim, "GET", f"{path}/status"))[1]["state"] == {"failed": {"reason": "no peer"}}
    rim.desk.says = NoSpace(needed_bytes=2, free_bytes=1)
    assert (await fetch(rim, "POST", f"{path}/add"))[0] == 507


async def test_delete_and_unload(rim: Rim) -> None:
    assert await fetch(rim, "DELETE", f"/api/admin/models/{TINY}") == (
        200, {"status": "deleted", "model_id": TINY, "files_removed": 5}
    )  # fmt: skip
    assert await fetch(rim, "POST", f"/api/admin/models/{TINY}/unload") == (
        200,
        {
            "status": "unloaded", "model_id": TINY, "model_name": "TINY-Q8", "segments_removed": 1,
            "estimated_freed_mb": 4096,
        },
    )  # fmt: skip
    assert (await fetch(rim, "POST", "/api/admin/models/unknown/unload"))[0] == 404
    rim.memory.says = Busy(what="in use")
    assert (await fetch(rim, "POST", f"/api/admin/models/{TINY}/unload"))[0] == 503


async def test_pipeline_plan(rim: Rim) -> None:
    status, found = await fetch(rim, "GET", f"/api/admin/models/{SPREAD}/pipeline-plan")
    assert status == 200
    assert found["stages"] == [
        {"node": OWN[:16], "first_shard": 0, "last_shard": 0, "layers": [0, 2], "standbys": [], "memory_mb": 0},
        {"node": PEER[:16], "first_shard": 1, "last_shard": 1, "layers": [2, 4], "standbys": [], "memory_mb": 0},
    ]
    assert (found["predicted_token_ms"], found["predicted_tokens_per_second"]) == (20.0, 50.0)
    rim.pipeline.says = no_coverage()
    assert (await fetch(rim, "GET", f"/api/admin/models/{SPREAD}/pipeline-plan"))[0] == 503


async def test_metadata(rim: Rim, tmp_path: Path) -> None:
    from swarmd.models.gguf import parse_header

    path = tmp_path / "model.gguf"
    write_model(path, TinyModel(tokenizer=True))
    header = parse_header(path.read_bytes(), file_size_bytes=path.stat().st_size)
    rim.catalog.get = lambda model: SimpleNamespace(header=header) if model == TINY else None
    status, found = await fetch(rim, "GET", f"/api/admin/models/{TINY}/metadata")
    assert status == 200
    assert list(found) == ["model_id", "general", "model", "tokenizer", "tensors", "raw"]
    assert found["model"]["block_count"] == 6
    status, found = await fetch(rim, "GET", "/api/admin/models/unknown/metadata")
    assert (status, found["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("state", ["complete", "failed"])
async def test_acquisition_word(rim: Rim, state: str) -> None:
    rim.desk.running[SPREAD] = replace(acquisition(SPREAD), state=state)
    row = (await fetch(rim, "GET", "/api/admin/models"))[1][1]
    assert row["acquisition"] == (None if state == "complete" else "failed")
    assert (row["acquisition_progress"] is None) == (state == "complete")


@pytest.mark.parametrize("refusal", [BadFile(what="not a GGUF file"), UnsupportedModel(what="not proven: rwkv")])
async def test_a_file_that_cannot_be_cut_is_a_bad_path_and_not_null(rim: Rim, refusal: Refusal) -> None:
    rim.desk.says = refusal
    async with (
        rim.client(**keyed()) as client,
        client.post("/api/admin/models", json={"path": "/models/x.gguf"}) as reply,
    ):
        assert (reply.status, (await reply.json())["error"]["param"]) == (400, "path")
