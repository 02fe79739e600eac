"""Shard endpoints, over a real socket."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from swarmd.domain.hub import ModelOrigin
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
    assert (await fetch(rim, "POST", f"/api/admin/models/{SPREAD}/shards/2/download"))[0] == 404
    assert (await fetch(rim, "POST", "/api/admin/models/unknown/shards/0/download"))[0] == 404
    rim.desk.says = no_coverage()
    status, found = await fetch(rim, "POST", f"/api/admin/models/{SPREAD}/shards/1/download")
    assert status == 400, "the seed: no peers and no source"
    assert "Hugging Face" in found["error"]["message"]


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
    whole, spread = found["models"]
    assert (whole["ready"], whole["local_shards"], whole["local_bytes"]) == ("ready", 2, 10_000_000)
    assert (spread["ready"], spread["all_shards_available"]) == ("downloading", True)
    assert all("in_vram" not in shard for shard in whole["shards"])


async def test_rescan(rim: Rim) -> None:
    assert await fetch(rim, "POST", "/api/admin/rescan-shards") == (
        200, {"status": "ok", "models_updated": [TINY], "count": 1}
    )  # fmt: skip
