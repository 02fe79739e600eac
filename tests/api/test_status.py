from __future__ import annotations

from swarmd.domain.ids import ModelId
from tests.fakes.rim import OWN, PEER, SPREAD, TINY, Rim, keyed, model_view


async def test_status_says_what_is_served_and_what_runs(rim: Rim) -> None:
    rim.models.known[ModelId("holey")] = model_view(ModelId("holey"), (OWN,), ())
    rim.pipeline.active, rim.pipeline.waiting, rim.pipeline.stage_sessions = 2, 3, 4
    async with rim.client(**keyed()) as client, client.get("/v1/status") as reply:
        assert reply.status == 200
        found = await reply.json()
    assert {name: found[name] for name in ("node", "peers", "active", "queued", "stages", "tokens_per_second")} == {
        "node": OWN[:16], "peers": 1, "active": 2, "queued": 3, "stages": 4, "tokens_per_second": 12.5
    }  # fmt: skip
    assert [model["id"] for model in found["models"]] == [TINY, SPREAD], "what has a hole is not served"
    assert found["models"][1]["swarm"]["nodes"] == [{"node": OWN[:16], "shards": 1}, {"node": PEER[:16], "shards": 1}]
    assert found["models"][0]["context_length"] == 4096 and found["version"] and found["uptime_seconds"] >= 0


async def test_it_needs_the_key(rim: Rim) -> None:
    async with rim.client() as client, client.get("/v1/status") as reply:
        assert reply.status == 401
