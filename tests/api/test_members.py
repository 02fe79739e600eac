"""Members and putting one out, over a real socket."""

from __future__ import annotations

from typing import Any

import pytest

from swarmd.domain.refusals import Busy, Forbidden, Refusal
from tests.fakes.rim import OWN, PEER, Rim, keyed


async def fetch(rim: Rim, method: str, path: str, **headers: str) -> tuple[int, Any]:
    async with rim.client(**headers) as client, client.request(method, path) as reply:
        return reply.status, await reply.json()


async def test_members(rim: Rim) -> None:
    status, (own, peer) = await fetch(rim, "GET", "/api/admin/members")
    assert status == 200
    assert (own["node_id"], own["is_self"], own["last_seen"]) == (OWN, True, None)
    assert peer == {
        "node_id": PEER, "role": "member", "issued_at": "2023-11-14T22:13:20.000Z",
        "expires_at": "2024-02-12T22:13:20.000Z", "revoked_at": None, "connected": True,
        "admitted_by": "founder", "members_below": 0,
        "last_seen": "2023-11-14T22:14:10.000Z", "is_self": False,
    }  # fmt: skip


async def test_revoke(rim: Rim) -> None:
    status, row = await fetch(rim, "POST", f"/api/admin/members/{PEER}/revoke", **keyed())
    assert (status, row["revoked_at"], row["connected"]) == (200, "2023-11-14T22:15:00.000Z", False)
    assert (await fetch(rim, "POST", f"/api/admin/members/{'0' * 64}/revoke", **keyed()))[0] == 404
    assert (await fetch(rim, "POST", f"/api/admin/members/{PEER[:16]}/revoke", **keyed()))[0] == 400


async def test_revoke_needs_the_key(rim: Rim) -> None:
    assert (await fetch(rim, "POST", f"/api/admin/members/{PEER}/revoke"))[0] == 401
    assert all(row.revoked_at is None for row in rim.members.rows)


@pytest.mark.parametrize(("refusal", "status"), [(Forbidden(what="not here"), 403), (Busy(what="full"), 503)])
async def test_revoke_refusals(rim: Rim, refusal: Refusal, status: int) -> None:
    rim.members.says = refusal
    found = await fetch(rim, "POST", f"/api/admin/members/{PEER}/revoke", **keyed())
    assert (found[0], found[1]["error"]["message"]) == (status, refusal.sentence)
