"""Shard endpoints, over a real socket."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from swarmd.domain.hub import ModelOrigin
from swarmd.domain.ids import ModelId
from swarmd.domain.refusals import Busy, HubFailed, NotFound
from tests.fakes.rim import OWN, PEER, SPREAD, TINY, Rim, acquisition, hub_source, keyed, model_view, no_coverage


async def fetch(rim: Rim, method: str, path: str, **more: Any) -> tuple[int, Any]:
    async with rim.client(**keyed()) as client, client.request(method, path, **more) as reply:
        return reply.status, await reply.json()


async def test_load_unload_delete_as_in_the_seed(rim: Rim) -> None:
    path = f"/api/admin/models/{TINY}/shards/1"
    assert await fetch(rim, "POST", f"{path}/load") == (
        200, {"status": "loaded", "model_id": TINY, "shard_index": 1, "loaded_shards": [0, 1]}
    )  # fmt: skip
    assert await fetch(rim, "POST", f"{path}/unload") == (
        200, {"status": "unloaded", "model_id": TINY, "shard_index": 1, "remaining_loaded": [1, 2]}
    )  # fmt: skip
    assert await fetch(rim, "DELETE", path) == (200, {"status": "deleted", "model_id": TINY, "shard_index": 1})
    rim.memory.says, rim.desk.says = NotFound(what="not here"), Busy(what="in use")
    assert (await fetch(rim, "POST", f"{path}/load"))[0] == 404
    assert (await fetch(rim, "POST", f"{path}/unload"))[0] == 404
    assert (await fetch(rim, "DELETE", path))[0] == 503


async def test_download_variants(rim: Rim) -> None:
    assert await fetch(rim, "POST", f"/api/admin/models/{TINY}/shards/0/download") == (
        200, {"status": "already_local", "model_id": TINY, "shard_index": 0}
    )  # fmt: skip
    assert await fetch(rim, "POST", f"/api/admin/models/{SPREAD}/shards/1/download") == (
        200,
        {"status": "downloading", "model_id": SPREAD, "shard_index": 1, "source": "p2p", "peer": PEER[:16]},
    )  # fmt: skip
    rim.desk.says = no_coverage()
    status, found = await fetch(rim, "POST", f"/api/admin/models/{SPREAD}/shards/1/download")
    assert status == 400, "the seed: no peers and no source"
    assert "Hugging Face" in found["error"]["message"]


OF_A_SHARD = [("POST", "/download"), ("POST", "/load"), ("POST", "/unload"), ("DELETE", ""), ("PUT", "/lock")]


@pytest.mark.parametrize(("method", "verb"), [one for one in OF_A_SHARD if one[1] != "/lock"])
async def test_an_index_that_the_model_does_not_have_is_a_bad_index_everywhere(rim: Rim, method: str, verb: str) -> None:
    """As `/lock` has it, where the steward looks."""
    rim.memory.says = rim.desk.says = NotFound(what="the floors below were asked")
    status, found = await fetch(rim, method, f"/api/admin/models/{SPREAD}/shards/2{verb}")
    assert (status, found["error"]["param"], found["error"]["code"]) == (400, "index", "invalid_value")
    assert found["error"]["message"] == "model spread-q8 has no shard 2: it has 2, from 0 on"
    row = next(row for row in rim.rows if row.method == method and row.path.endswith("/shards/{index}" + verb))
    assert 400 in row.status


@pytest.mark.parametrize(("method", "verb"), OF_A_SHARD)
async def test_the_first_index_that_is_none_is_told_the_limit(rim: Rim, method: str, verb: str) -> None:
    more = {"json": {"locked": True}} if method == "PUT" else {}
    for index in ("4294967295", "9999999999", "-1", "x"):
        status, found = await fetch(rim, method, f"/api/admin/models/{SPREAD}/shards/{index}{verb}", **more)
        assert (status, found["error"]["param"]) == (400, "index")
        assert found["error"]["message"] == f"a shard index is a whole number from 0 to 4294967294, not '{index}'"


async def test_the_download_of_a_model_that_nobody_knows_is_400_as_in_the_seed(rim: Rim) -> None:
    path = "/api/admin/models/nope/shards/0/download"
    status, found = await fetch(rim, "POST", path)
    assert (status, found["error"]["param"]) == (400, "model")
    assert "Hugging Face" in found["error"]["message"]
    rim.hub.origins[ModelId("nope")] = ModelOrigin(model=ModelId("nope"), repo_id="owner/Nope-GGUF", filename="nope.gguf")
    status, found = await fetch(rim, "POST", path)
    assert (status, found["status"], found["repo_id"]) == (200, "use_hf", "owner/Nope-GGUF")


async def test_what_no_peer_has_may_be_on_the_hub(rim: Rim) -> None:
    path = f"/api/admin/models/{SPREAD}/shards/1/download"
    there = {
        "status": "use_hf", "model_id": SPREAD, "shard_index": 1, "source": "huggingface", "repo_id": "owner/Tiny-GGUF",
        "filename": "tiny.Q4_K_M.gguf",
    }  # fmt: skip
    view = rim.models.known[SPREAD] = model_view(SPREAD, (OWN,), ())
    assert (await fetch(rim, "POST", path))[0] == 400
    rim.hub.says = HubFailed(what="the hub does not answer")
    assert (await fetch(rim, "POST", path))[0] == 400, "no source is known, whatever the reason"
    rim.hub.says = None
    rim.hub.origins[SPREAD] = ModelOrigin(model=SPREAD, repo_id="owner/Tiny-GGUF", filename="tiny.Q4_K_M.gguf")
    assert await fetch(rim, "POST", path) == (200, there)
    assert SPREAD not in rim.desk.running, "nothing is begun"
    rim.hub.origins.clear()
    assert view.manifest is not None
    rim.models.known[SPREAD] = replace(view, manifest=replace(view.manifest, source=hub_source()))
    asked = len(rim.hub.asked)
    assert await fetch(rim, "POST", path) == (200, there)
    assert len(rim.hub.asked) == asked, "its manifest says it"
    # A holder that went away between the two looks.
    rim.models.known[SPREAD] = replace(model_view(SPREAD, (OWN,), (PEER,)), manifest=rim.models.known[SPREAD].manifest)
    rim.desk.says = no_coverage()
    assert await fetch(rim, "POST", path) == (200, there)


async def test_shard_storage(rim: Rim) -> None:
    (rim.folder / "some").mkdir()
    (rim.folder / "some" / "file").write_bytes(b"x" * 1234)
    (rim.folder / "link").symlink_to(rim.folder / "some" / "file")
    rim.desk.running[SPREAD] = acquisition(SPREAD)
    status, found = await fetch(rim, "GET", "/api/admin/shard-storage")
    assert status == 200
    assert set(found) == {
        "models", "total_local_bytes", "disk_usage_bytes", "auto_manage_enabled", "auto_manage_max_storage_mb",
        "max_disk_mb", "pool_vram_mb", "local_vram_mb", "peer_count",
    }  # fmt: skip
    assert (found["total_local_bytes"], found["disk_usage_bytes"], found["peer_count"]) == (15_000_000, 1234, 1)
    assert (found["pool_vram_mb"], found["local_vram_mb"]) == (0, 0), "a machine without a GPU has none, which is known"
    whole, spread = found["models"]
    assert (whole["ready"], whole["local_shards"], whole["local_bytes"]) == ("ready", 2, 10_000_000)
    assert (spread["ready"], spread["all_shards_available"]) == ("downloading", True)
    assert all("in_vram" not in shard for shard in whole["shards"])


async def test_rescan(rim: Rim) -> None:
    assert await fetch(rim, "POST", "/api/admin/rescan-shards") == (
        200,
        {
            "status": "ok", "models_updated": [TINY], "count": 1,
            "found_files": [{"path": "/models/other.gguf", "size_bytes": 7, "model_id": "other", "problem": None}],
        },
    )  # fmt: skip


async def test_the_vram_of_a_gpu_that_nobody_measured_is_not_zero(rim: Rim, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = rim.machine.snapshot()
    reading.gpu_name = "abacus 9000"
    monkeypatch.setattr(rim.machine, "snapshot", lambda: reading)
    _, found = await fetch(rim, "GET", "/api/admin/shard-storage")
    assert (found["pool_vram_mb"], found["local_vram_mb"]) == (None, None)
