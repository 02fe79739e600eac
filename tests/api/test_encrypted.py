"""The switch of a model's encrypted pipeline, as the contract has it."""

from __future__ import annotations

from typing import Any

from swarmd.domain.refusals import Invalid
from tests.fakes.rim import TINY, Rim, keyed

PATH = f"/api/admin/models/{TINY}/encrypted-pipeline"


async def fetch(rim: Rim, method: str, path: str, *, status: int = 200, **more: Any) -> Any:
    async with rim.client(**keyed()) as client, client.request(method, path, **more) as reply:
        assert reply.status == status
        return await reply.json()


async def test_it_is_shown_switched_and_shown_again(rim: Rim) -> None:
    assert await fetch(rim, "GET", PATH) == {
        "model_id": TINY, "encrypted_pipeline": False, "per_model_override": None, "global_default": False, "ready": True,
        "has_first_shard": True, "has_last_shard": True, "shard_count": 5,
        "overhead_note": (await fetch(rim, "GET", PATH))["overhead_note"],
    }  # fmt: skip
    reply = await fetch(rim, "PUT", PATH, json={"enabled": True})
    assert (reply["status"], reply["model_id"], reply["encrypted_pipeline"]) == ("ok", TINY, True)
    assert "no tokens" in reply["note"] and set(reply) == {"status", "model_id", "encrypted_pipeline", "note"}
    shown = await fetch(rim, "GET", PATH)
    assert (shown["encrypted_pipeline"], shown["per_model_override"]) == (True, True)
    assert [row["encrypted_pipeline"] for row in await fetch(rim, "GET", "/api/admin/models") if row["id"] == TINY] == [True]
    assert (await fetch(rim, "PUT", PATH, json={"enabled": False}))["encrypted_pipeline"] is False


async def test_with_two_shards_it_warns(rim: Rim) -> None:
    rim.encrypted.shards = 2
    assert (await fetch(rim, "PUT", PATH, json={"enabled": True}))["note"].startswith("Warning: this model has 2 shards")


async def test_what_is_missing_is_named(rim: Rim) -> None:
    rim.encrypted.refusal = Invalid(what="it needs shard 0 on this node", param="enabled")
    reply = await fetch(rim, "PUT", PATH, json={"enabled": True}, status=400)
    assert (reply["error"]["message"], reply["error"]["param"]) == ("it needs shard 0 on this node", "enabled")
    assert (await fetch(rim, "PUT", PATH, json={"enabled": "yes"}, status=400))["error"]["param"] == "enabled"
    assert (await fetch(rim, "PUT", PATH, json={}, status=400))["error"]["param"] == "enabled"
