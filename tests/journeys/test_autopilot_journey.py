"""Real nodes: what is asked for at one comes to it by itself, what is cancelled does not; reasons are told over the API."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from swarmd.app import Node
from swarmd.domain.events import ShardStored, ShardsWanted
from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.models import TrustLevel
from swarmd.domain.refusals import Refusal
from swarmd.economy import steward
from swarmd.shards import hub_desk as hub_desks
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.nodes import chat, generated, running, swarm, text_of
from tests.hub.faults import Slow
from tests.hub.hub import LocalHub


async def ask(node: Node, method: str, path: str, **more: Any) -> Any:
    headers = {"authorization": f"Bearer {node.api_key_path.read_text().strip()}"}
    async with aiohttp.ClientSession(node.url, headers=headers) as client, client.request(method, path, **more) as reply:
        assert reply.status == 200, await reply.text()
        return await reply.json()


async def known(node: Node, model: ModelId) -> int:
    """How many shards it has, once the manifest is here."""
    with node.bus.spy() as spy:
        while not ((view := node.registry.view(model)) and view.manifest and view.covered):
            await spy.wait_for(object, timeout_s=20)
            spy.clear()
    return len(view.shards)


async def test_what_is_asked_for_comes_by_itself_and_a_lock_survives(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf", TinyModel(layers=2, tokenizer=True))
    async with swarm(tmp_path, 2) as (one, two):
        model = await one.desk.add_file(path, 1)
        assert not isinstance(model, Refusal)
        count = await known(two, model)
        plan = await ask(two, "GET", "/api/admin/auto-manage/plan")
        assert [(row["code"], row["shard_index"]) for row in plan["not_fetched"]] == [("trust", None)]
        for _ in range(3):
            assert text_of(await generated(two, chat(model, "hello", max_tokens=2))) is not None
        view = two.registry.view(model)
        assert view is not None and view.trust is TrustLevel.DEMAND_VERIFIED
        plan = await ask(two, "GET", "/api/admin/auto-manage/plan")
        assert plan["pool"] == 2 and plan["fetch"] and "1 of 2 copies are there" in plan["fetch"][0]["reason"]

        while len(two.registry.held(model)) < count:  # one shard in one look: it gives the least
            with two.bus.spy() as spy:
                await two.steward.look()
                (index,) = (await spy.wait_for(ShardsWanted)).shards
                ref = ShardRef(model, index)
                await spy.wait_for(ShardStored, lambda fact, ref=ref: fact.shard == ref, timeout_s=20)
        acquisition = two.desk.acquisition(model)
        assert acquisition is not None and acquisition.trigger == "auto_manage"

        kept = (await ask(two, "GET", "/api/admin/auto-manage/plan"))["kept"]
        assert {row["code"] for row in kept} == {"fetched_lately"}
        await ask(two, "PUT", f"/api/admin/models/{model}/shards/0/lock", json={"locked": True})
        (row,) = await ask(two, "GET", "/api/admin/models")
        assert [shard["locked"] for shard in row["shards"]] == [True] + [False] * (count - 1)
        kept = (await ask(two, "GET", "/api/admin/auto-manage/plan"))["kept"]
        assert next(row["code"] for row in kept if row["shard_index"] == 0) == "locked"
        assert await ask(two, "GET", "/api/admin/prune-history") == {"events": [], "total": 0}


async def test_a_cancelled_download_does_not_start_again_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_desks, "MEGABYTE", 200)  # times the 512 of the settings: shards of about 100 kB
    monkeypatch.setattr(steward, "START_S", 0.5)
    monkeypatch.setattr(steward, "FLOOR_S", 0.5)
    data = write_model(tmp_path / "tiny.Q8_0.gguf", TinyModel()).read_bytes()
    async with LocalHub() as hub:
        hub.repo("maker/tiny").file("tiny.Q8_0.gguf", data)
        hub.faults.add(Slow(20_000), path="tiny", origin="cdn", skip=1)
        given = {"downloads__hub_endpoint": hub.endpoint, "node__contribution": "maximum"}
        async with running(tmp_path / "node", **given) as node:
            body = {"repo_id": "maker/tiny", "filename": "tiny.Q8_0.gguf", "all_shards": True}
            model = ModelId((await ask(node, "POST", "/api/admin/hf/download-shards", json=body))["model_id"])
            await ask(node, "POST", f"/api/admin/downloads/{model}/cancel")
            assert await gates(node) == {"cancelled"}
        hub.faults.clear()
        async with running(tmp_path / "node", **given) as node:
            for _ in range(4):
                await asyncio.sleep(0.5)
                assert await gates(node) == {"cancelled"} and node.registry.held(model) == ()
            async with asyncio.timeout(30):
                with node.bus.spy() as spy:
                    await ask(node, "POST", "/api/admin/hf/download-shards", json=body)
                    await spy.wait_for(ShardStored, timeout_s=20)
            assert "cancelled" not in await gates(node)


async def gates(node: Node) -> set[str]:
    return {row["code"] for row in (await ask(node, "GET", "/api/admin/auto-manage/plan"))["not_fetched"]}
