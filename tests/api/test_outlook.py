"""What the swarm can serve and should hold, over HTTP; both are the objects of the live tick."""

from __future__ import annotations

from typing import Any

from swarmd.domain.autopilot import ModelPolicy
from tests.fakes.rim import SPREAD, TINY, Rim


async def fetch(rim: Rim, path: str) -> Any:
    async with rim.client() as client, client.get(path) as reply:
        assert reply.status == 200
        return await reply.json()


async def test_capacity(rim: Rim) -> None:
    found = await fetch(rim, "/api/admin/swarm/capacity")
    assert [row["model_id"] for row in found["serveable_models"]] == [SPREAD, TINY]
    assert found["headline_model"] == {"model_id": SPREAD, "display_name": SPREAD.upper(), "size_mb": 10}
    assert (found["online_nodes"], found["regions_represented"], found["gpu_nodes"]) == (2, 2, 0)
    assert (found["total_vram_mb"], found["total_disk_mb"]) == (0, None), "peers do not tell their disks"


async def test_wishlist(rim: Rim) -> None:
    rim.autopilot.policies[SPREAD] = ModelPolicy(enabled=False)
    found = await fetch(rim, "/api/admin/wishlist")
    assert [(row["model_id"], row["status"]) for row in found["entries"]] == [(TINY, "hosting"), (SPREAD, "blocked")]
    assert found["entries"][0]["why_tags"] == ["enough_copies", "in_demand", "hosted_here"]
