"""Peers, codes and joining, over a real socket."""

from __future__ import annotations

from typing import Any

import pytest

from swarmd.domain.refusals import BadCode, Expired, Forbidden, NoAnswer, OtherNetwork, Refusal, UsedUp
from tests.fakes.rim import OWN, PEER, Rim, keyed


async def fetch(rim: Rim, method: str, path: str, **more: Any) -> tuple[int, Any]:
    async with rim.client(**keyed()) as client, client.request(method, path, **more) as reply:
        return reply.status, await reply.json()


async def test_peers(rim: Rim) -> None:
    status, rows = await fetch(rim, "GET", "/api/admin/peers")
    assert status == 200
    (row,) = rows
    assert set(row) >= {
        "node_id", "nickname", "latency_ms", "trust_score", "healthy", "gpu", "hosted_models", "is_lan_peer", "addresses",
        "last_seen",
    }  # fmt: skip
    assert (row["node_id"], row["latency_ms"], row["healthy"], row["is_lan_peer"]) == (PEER[:16], 2, True, True)
    assert row["addresses"] == ["/ip4/192.168.1.5/tcp/8810"]
    assert row["last_seen"] == "2023-11-14T22:13:20.000Z"
    assert row["trust_score"] is None, "nobody measures it yet, and a number would say somebody does"


async def test_network_code(rim: Rim) -> None:
    status, found = await fetch(rim, "GET", "/api/admin/network-code")
    assert status == 200
    assert (found["code"], found["node_id"], found["phase"], found["peer_count"]) == (
        "swarm://abc", OWN[:16], "established", 1
    )  # fmt: skip


async def test_join(rim: Rim) -> None:
    status, found = await fetch(rim, "POST", "/api/admin/join-network", json={"code": "swarm://x"})
    assert status == 200
    assert found == {
        "status": "ok", "address": "/ip4/10.0.0.5/tcp/8810", "message": f"connected to node {PEER[:16]}"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (BadCode(reason="short"), 400), (Expired(expired_at=0.0), 400), (UsedUp(), 400), (Forbidden(what="no"), 403),
        (OtherNetwork(network="c" * 64), 409), (NoAnswer(tried=(), reason="late"), 502),
    ],
)  # fmt: skip
async def test_join_refusals(rim: Rim, refusal: Refusal, status: int) -> None:
    rim.joiner.says = refusal
    found = await fetch(rim, "POST", "/api/admin/join-network", json={"code": "x"})
    assert (found[0], found[1]["error"]["message"]) == (status, refusal.sentence)
