"""Rows of providers: what costs the owner money is not opened with the reads."""

from __future__ import annotations

from swarmd.api.guard import Guard
from tests.fakes.rim import LAN_CLIENT, Rim, keyed


async def test_reads_are_free_here_and_what_costs_needs_the_key_elsewhere(rim: Rim) -> None:
    rim.set("api.open_reads", "everywhere")
    paths = ["providers", "provider-models", "provider-health", "claude-subscription/status"]
    async with rim.client() as client:
        for path in paths:
            assert (await client.get(f"/api/admin/{path}")).status == 200
        assert (await client.post("/api/admin/provider-model-status", json={"models": []})).status == 200
        assert (await client.put("/api/admin/providers", json={"groq_key": "x" * 20})).status == 401
        assert (await client.get("/v1/providers")).status == 401
        rim.address = LAN_CLIENT
        assert [(await client.get(f"/api/admin/{path}")).status for path in paths] == [200, 401, 401, 401]
        assert (await client.post("/api/admin/provider-model-status", json={"models": []})).status == 401
        answered = await client.post("/api/admin/provider-model-status", json={"models": []}, headers=keyed())
        assert answered.status == 200


def test_bodies_of_dialects_are_looked_at_before_they_are_parsed(rim: Rim) -> None:
    rows = {row.path: row for row in rim.rows if row.elsewhere is not None}
    assert {"/v1/chat/completions", "/v1/completions", "/v1/embeddings"} <= rows.keys()
    assert all(row.guard is Guard.WRITE and row.hang_up_cancels for row in rows.values())
