"""Peers, codes and joining, over a real socket."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from swarmd.domain.peers import PeerRecord, PeerView, Purpose
from swarmd.domain.refusals import BadCode, Busy, Expired, Forbidden, NoAnswer, OtherNetwork, Refusal, UsedUp
from tests.fakes.rim import OWN, PEER, SPREAD, TINY, Rim, keyed


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
    assert row["trust_score"] == 0.612
    assert (row["measured_min_rtt_ms"], row["predicted_rtt_ms"], row["rtt_samples"], row["via"]) == (1.2, 1.6, 5, None)
    assert (row["is_pool_member"], row["is_anchor"], row["nickname"]) == (False, False, None)
    assert (row["total_ram_mb"], row["free_ram_mb"], row["region"], row["version"]) == (8000, 3000, "DE", "0.1.0")


async def test_what_is_not_known_of_a_peer_is_null(rim: Rim) -> None:
    rim.peers.rows = [PeerView(record=PeerRecord(node=PEER, endpoints=(), last_seen=None), connected=False)]
    (row,) = (await fetch(rim, "GET", "/api/admin/peers"))[1]
    unknown = {
        "nickname", "latency_ms", "gpu", "version", "uptime_seconds", "predicted_rtt_ms", "measured_min_rtt_ms", "via",
        "total_ram_mb", "free_ram_mb", "last_seen",
    }  # fmt: skip
    assert {name for name, value in row.items() if value is None} == unknown
    assert (row["region"], row["healthy"], row["connected"]) == ("??", False, False)


async def test_a_relayed_peer_says_through_whom_and_is_not_on_the_lan(rim: Rim) -> None:
    rim.peers.rows = [replace(rim.peers.rows[0], via=OWN)]
    (row,) = (await fetch(rim, "GET", "/api/admin/peers"))[1]
    assert (row["via"], row["is_lan_peer"]) == (OWN[:16], False)


async def test_links(rim: Rim) -> None:
    line = rim.peers.links[0]
    rim.peers.links.append(
        replace(line, purpose=Purpose.BULK, via=OWN, remote=None, rtt_ms=None, min_rtt_ms=None, dialled=False)
    )
    status, (direct, relayed) = await fetch(rim, "GET", "/api/admin/links")
    assert (status, direct) == (200, {
        "node_id": PEER[:16], "nickname": None, "purpose": "control", "path": "direct", "via": None,
        "address": "/ip4/192.168.1.5/tcp/8810", "dialled": True, "up_seconds": 61, "rtt_ms": 1.6, "min_rtt_ms": 1.2,
        "bytes_in": 5_000, "bytes_out": 2_600_000, "queued_bytes": 0, "streams": 1,
    })  # fmt: skip
    changed = {"purpose": "bulk", "path": "relay", "via": OWN[:16], "address": None, "dialled": False}
    assert relayed == {**direct, **changed, "rtt_ms": None, "min_rtt_ms": None}


async def test_network_map(rim: Rim) -> None:
    assert await fetch(rim, "GET", "/api/admin/network-map") == (200, {
        "regions": {
            "DE": {"total": 1, "models": {}, "demand": {}, "coverage_gaps": [SPREAD, TINY], "replication_target": {}},
            "US": {
                "total": 3, "models": {TINY: 2}, "demand": {TINY: 5}, "coverage_gaps": [], "replication_target": {TINY: 2},
            },
        }
    })  # fmt: skip


async def test_network_code(rim: Rim) -> None:
    status, found = await fetch(rim, "GET", "/api/admin/network-code")
    assert status == 200
    assert (found["code"], found["node_id"], found["phase"], found["peer_count"]) == (
        "swarm://abc", OWN[:16], "established", 1
    )  # fmt: skip


async def test_an_invite_is_made_listed_and_cancelled(rim: Rim) -> None:
    status, made = await fetch(rim, "POST", "/api/admin/invites", json={"uses": 3, "life_seconds": 3600})
    assert status == 200
    assert made.pop("qr_svg").startswith("<svg ")
    assert made == {
        "code": "swarm://new1", "id": "1" * 16, "created_at": "2023-11-14T22:13:20.000Z",
        "expires_at": "2023-11-14T23:13:20.000Z", "uses": 3, "short": False, "role": "member",
    }  # fmt: skip
    row = {"id": "1" * 16, "created_at": made["created_at"], "expires_at": made["expires_at"], "uses_left": 3}
    row |= {"short": False, "role": "member"}
    assert await fetch(rim, "GET", "/api/admin/invites") == (200, [{**row, "state": "live"}])
    assert await fetch(rim, "DELETE", f"/api/admin/invites/{'1' * 16}") == (200, {**row, "state": "cancelled"})
    assert (await fetch(rim, "DELETE", "/api/admin/invites/0"))[0] == 404


async def test_a_short_code_is_made_and_listed_as_such(rim: Rim) -> None:
    status, made = await fetch(rim, "POST", "/api/admin/invites", json={"short": True})
    assert (status, made) == (201, {
        "code": "7-crossover-clockwork", "id": "1" * 16, "created_at": "2023-11-14T22:13:20.000Z",
        "expires_at": "2023-11-14T22:23:20.000Z", "uses": 1, "role": "member", "short": True, "qr_svg": None,
    })  # fmt: skip
    ((_, (row,)), wrong) = (
        await fetch(rim, "GET", "/api/admin/invites"),
        await fetch(rim, "POST", "/api/admin/invites", json={"short": True, "uses": 2}),
    )
    assert (row["short"], row["state"]) == (True, "live")
    assert wrong[0] == 400 and "one member within ten minutes" in wrong[1]["error"]["message"]
    assert len(rim.codes.rows) == 1
    rim.codes.says = Busy(what="all numbers are taken")
    assert (await fetch(rim, "POST", "/api/admin/invites", json={"short": True}))[0] == 503


async def test_an_invite_without_terms_is_for_one_node_and_a_day(rim: Rim) -> None:
    assert (await fetch(rim, "POST", "/api/admin/invites", json={}))[0] == 200
    (row,) = rim.codes.rows
    assert (row.uses_left, row.expires_at - row.created_at) == (1, 86_400)
    for wrong in ({"uses": 1.5}, {"uses": True}, {"life_seconds": "1d"}, {"life": 60}, {"role": "founder"}):
        assert (await fetch(rim, "POST", "/api/admin/invites", json=wrong))[0] == 400


async def test_an_invite_may_admit_an_inviter(rim: Rim) -> None:
    status, made = await fetch(rim, "POST", "/api/admin/invites", json={"role": "inviter"})
    assert (status, made["role"]) == (200, "inviter")
    _, rows = await fetch(rim, "GET", "/api/admin/invites")
    assert [row["role"] for row in rows] == ["inviter"]


async def test_invites_need_the_key_even_on_loopback(rim: Rim) -> None:
    async with rim.client() as client:
        for method, path in (("POST", ""), ("GET", ""), ("DELETE", "/" + "1" * 16)):
            async with client.request(method, f"/api/admin/invites{path}", json={}) as reply:
                assert reply.status == 401, method


async def test_a_refused_invite_says_what_to_do(rim: Rim) -> None:
    rim.codes.says = Busy(what="64 invite codes are out: cancel one first")
    status, found = await fetch(rim, "POST", "/api/admin/invites", json={})
    assert (status, found["error"]["message"]) == (503, rim.codes.says.sentence)


async def test_the_code_of_an_invite_is_kept_out_of_caches_and_logs(rim: Rim, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with rim.client(**keyed()) as client, client.post("/api/admin/invites", json={}) as reply:
        assert reply.headers["cache-control"] == "no-store"
        made = await reply.json()
    assert made["code"] not in caplog.text and "<svg" not in caplog.text


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
