"""Three real nodes and a hub: a model that one of them asks its fair share of is divided among all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from swarmd.domain.autopilot import Gate
from swarmd.domain.ids import ModelId
from swarmd.economy import steward
from swarmd.economy.sharing import parts_of
from swarmd.shards import hub_desk as hub_desks
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.nodes import swarm
from tests.hub.hub import LocalHub

REPO, FILE = "maker/tiny", "tiny.Q8_0.gguf"
SOON_S = 0.5


async def test_who_asks_for_its_fair_share_gets_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: within ten seconds it held the whole model."""
    monkeypatch.setattr(hub_desks, "MEGABYTE", 200)  # times the 512 of the settings: shards of about 100 kB
    monkeypatch.setattr(steward, "START_S", SOON_S)
    monkeypatch.setattr(steward, "FLOOR_S", SOON_S)
    data = write_model(tmp_path / FILE, TinyModel()).read_bytes()
    async with LocalHub() as hub:
        hub.repo(REPO).file(FILE, data)
        async with swarm(tmp_path, 3, downloads__hub_endpoint=hub.endpoint, node__contribution="maximum") as nodes:
            asker = nodes[1]
            body = {"repo_id": REPO, "filename": FILE, "peer_fair_share": True}
            headers = {"authorization": f"Bearer {asker.api_key_path.read_text().strip()}"}
            async with (
                aiohttp.ClientSession(asker.url, headers=headers) as client,
                client.post("/api/admin/hf/download-shards", json=body) as reply,
            ):
                assert reply.status == 200, await reply.text()
                model = ModelId((await reply.json())["model_id"])
            view = asker.registry.view(model)
            assert view is not None
            count = len(view.shards)
            assert count > 3
            parts = parts_of(model, count, [node.node for node in nodes])
            wanted = {node.node: parts[node.node].share | parts[node.node].gaps for node in nodes}
            async with asyncio.timeout(60):
                while any(not wanted[node.node] <= set(node.registry.held(model)) for node in nodes):
                    assert set(asker.registry.held(model)) <= wanted[asker.node]
                    await asyncio.sleep(0.1)
            for _ in range(8):
                await asyncio.sleep(SOON_S)
                assert {node.node: set(node.registry.held(model)) for node in nodes} == wanted
            gates = {row.gate for row in asker.steward.plan().not_fetched}
            assert gates == {Gate.ENOUGH}
