"""Credits over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.rim import PEER, TINY, Rim


async def fetch(rim: Rim, path: str) -> tuple[int, Any]:
    async with rim.client() as client, client.get(path) as reply:
        return reply.status, await reply.json()


async def test_the_account_has_the_contract_s_fields(rim: Rim) -> None:
    assert await fetch(rim, "/api/admin/credits") == (200, {
        "balance": 320, "lifetime_earned": 700, "lifetime_spent": 500, "lifetime_refunded": 120, "net_spent": 380,
        "tier": "silver", "last_updated": "2023-11-14T22:13:20.000Z", "books_balance": True, "escrow_held": 80,
        "escrow_pending_count": 1,
    })  # fmt: skip


async def test_stats_show_the_same_numbers(rim: Rim) -> None:
    _, credits = await fetch(rim, "/api/admin/credits")
    _, stats = await fetch(rim, "/api/admin/stats")
    assert stats["tier"] == credits["tier"]
    assert stats["credits"] == {name: credits[name] for name in stats["credits"]}


async def test_pages_of_transactions(rim: Rim) -> None:
    _, first = await fetch(rim, "/api/admin/credits/transactions?limit=2")
    assert [row["kind"] for row in first["transactions"]] == ["refunded", "reserved"]
    assert (first["total"], first["next_before"]) == (3, 2)
    _, second = await fetch(rim, f"/api/admin/credits/transactions?limit=2&before={first['next_before']}")
    assert second["next_before"] is None
    assert second["transactions"] == [
        {
            "id": 1, "hour": "2023-11-14T22:00:00.000Z", "timestamp": "2023-11-14T22:13:20.000Z", "kind": "served",
            "amount": 700, "quantity": 70, "unit": "tokens", "events": 1, "node_id": PEER[:16], "model_id": TINY,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=501", "limit=x", "limit=-1", "before=0", "before=%C2%B2", "before=" + "9" * 400, "limit="]
)
async def test_numbers_that_are_none(rim: Rim, query: str) -> None:
    status, found = await fetch(rim, f"/api/admin/credits/transactions?{query}")
    assert (status, found["error"]["param"]) == (400, query.partition("=")[0])


async def test_books_on_peers(rim: Rim) -> None:
    assert await fetch(rim, "/api/admin/credits/peers") == (200, [
        {
            "node_id": PEER[:16], "given": 380, "taken": 700, "balance": -320, "tier": "gold", "weight": 4,
            "last_at": "2023-11-14T22:13:20.000Z",
        }
    ])  # fmt: skip
