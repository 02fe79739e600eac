"""A node as the dashboard sees it: the static files, the admin API's shapes and a chat that streams, without a swarm.

Rows are plain dicts on purpose: they are the contract's JSON, written down, not our types.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from tests.dashboard.fake_services import FakeServices
from tests.dashboard.fake_stock import FakeStock, refused

STATIC = Path(__file__).resolve().parents[2] / "swarmd" / "api" / "static"
POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
KEY = "key-of-the-fake-node"
NONCE = "nonce-of-this-page"
SELF = "5e1f" * 16
ANNA = "a11a4c0ffee00001"
BERT = "b0b0cafe00000002"
NOW = 1_770_000_000.0  # any fixed moment; the page shows it as a date long gone


def shard(index: int, layers: tuple[int, int], holders: list[str], *, loaded: bool = False, **more: Any) -> dict[str, Any]:
    """One shard row; held here when SELF is among the holders."""
    return {
        "index": index,
        "size_bytes": 40_000_000,
        "layers": list(layers),
        "local": SELF[:16] in holders,
        "holders": len(holders),
        "holder_ids": holders,
        "locked": False,
        "in_vram": loaded,
        **more,
    }


def model(name: str, shards: list[dict[str, Any]], *, status: str, **more: Any) -> dict[str, Any]:
    """One model row."""
    held = sum(row["local"] for row in shards)
    covered = sum(row["holders"] > 0 for row in shards)
    others = {holder for row in shards for holder in row["holder_ids"]} - {SELF[:16]}
    return {
        "id": name.lower(),
        "name": name,
        "total_size_bytes": sum(row["size_bytes"] for row in shards),
        "shard_count": len(shards),
        "hosted_shards": held,
        "global_available": covered,
        "healthy": covered == len(shards),
        "status": status,
        "mode": "full" if held == len(shards) else "distributed",
        "source": "hybrid",
        "local": held > 0,
        "peers_hosting": len(others),
        "shards": shards,
        "trust_level": "Pinned",
        "mmproj": {"available": False, "local": False, "holders": 0},
        "acquisition": None,
        "acquisition_progress": None,
        **more,
    }


def peer(node: str, name: str | None, latency: float, models: list[str], **more: Any) -> dict[str, Any]:
    """One peer row."""
    return {
        "node_id": node,
        "nickname": name,
        "latency_ms": latency,
        "trust_score": 0.9,
        "healthy": True,
        "gpu": None,
        "hosted_models": models,
        "is_lan_peer": True,
        **more,
    }


def link(node: str, rtt: float | None, *, via: str | None = None, **more: Any) -> dict[str, Any]:
    """One row of a standing connection."""
    return {
        "node_id": node,
        "nickname": None,
        "purpose": "control",
        "path": "relay" if via else "direct",
        "via": via,
        "address": None if via else "/ip4/192.0.2.7/tcp/8810",
        "dialled": True,
        "up_seconds": 3_700,
        "rtt_ms": rtt,
        "min_rtt_ms": rtt,
        "bytes_in": 5_000_000,
        "bytes_out": 1_200_000,
        "queued_bytes": 0,
        "streams": 1,
        **more,
    }


def member(node: str, role: str | None = "member", **more: Any) -> dict[str, Any]:
    """One row of a member; `node` with 16 digits or all 64."""
    return {
        "node_id": node.ljust(64, "0"),
        "role": role,
        "issued_at": "2026-03-01T10:00:00.000Z",
        "expires_at": "2099-03-01T10:00:00.000Z",
        "admitted_by": None,
        "members_below": 0,
        "revoked_at": None,
        "connected": True,
        "last_seen": "2026-04-01T10:00:00.000Z",
        "is_self": False,
        **more,
    }


def invite(
    identity: str, *, uses_left: int = 1, state: str = "live", short: bool = False, role: str = "member"
) -> dict[str, Any]:
    """One row of the list of invites."""
    times = {"created_at": "2099-01-01T00:00:00.000Z", "expires_at": "2099-01-02T00:00:00.000Z"}
    return {"id": identity, **times, "uses_left": uses_left, "state": state, "short": short, "role": role}


class FakeNode:
    """State that a test sets before or while the page is open, and the application that shows it."""

    def __init__(self) -> None:
        me = SELF[:16]
        self.stock = FakeStock()
        self.services = FakeServices(flat=self.stock.change_config)
        self.answers: dict[str, web.Response] = {}
        """To writes, by their paths below `/api/admin/`; else they are answered with "ok"."""
        self.nonce = NONCE
        self.peers = [peer(ANNA, "anna", 1.8, ["mid-7b"]), peer(BERT, None, 23, ["mid-7b"], is_lan_peer=False)]
        self.models = [
            model(
                "Mid-7B",
                [
                    shard(0, (0, 4), [me], loaded=True),
                    shard(1, (4, 8), [me, ANNA], loaded=True),
                    shard(2, (8, 12), [ANNA]),
                    shard(3, (12, 16), [ANNA, BERT]),
                    shard(4, (16, 20), [BERT]),
                ],
                status="ready",
            ),
            model("Gap-3B", [shard(0, (0, 8), [BERT]), shard(1, (8, 16), [])], status="partial"),
        ]
        self.stats: dict[str, Any] = {
            "node_id": SELF,
            "version": "0.1.0",
            "uptime_seconds": 7_391,
            "tier": "silver",
            "peers": 2,
            "requests_served": 41,
            "forwards_served": 1_280,
            "requests_made": 12,
            "active_requests": 0,
            "hosted_shards": 2,
            "credits": {"balance": 1, "lifetime_earned": 2, "lifetime_spent": 1},
            "hardware": {
                "gpu_name": None,
                "total_ram_mb": 16_384,
                "used_ram_mb": 6_120,
                "process_rss_mb": 412,
                "available_disk_mb": 220_000,
                "total_disk_mb": 500_000,
                "used_disk_mb": 280_000,
                "cpu_name": "test",
                "cpu_cores": 8,
            },
            "inference": {"total_requests": 12, "avg_latency_ms": None, "samples": 0},
        }
        self.links = [link(ANNA, 1.8), link(BERT, 23.4)]
        self.members = [member(SELF, "inviter", is_self=True), member(ANNA), member(BERT)]
        self.regions: dict[str, Any] = {
            "DE": {
                "total": 3,
                "models": {"mid-7b": 3, "gap-3b": 1},
                "demand": {"mid-7b": 5},
                "coverage_gaps": [],
                "replication_target": {"mid-7b": 2, "gap-3b": 2},
            }
        }
        self.network_refusal: tuple[int, str] | None = None
        self.activity: list[dict[str, Any]] = [
            {"kind": "daemon_started", "message": "Node started", "timestamp": NOW, "toast_level": None},
            {"kind": "peer_connected", "message": "anna connected", "timestamp": NOW + 5, "toast_level": "success"},
        ]
        self.acquisitions: list[dict[str, Any]] = []
        self.pieces: list[str] = ["A shard ", "is a run ", "of layers ", "of one ", "model."]
        self.piece_seconds = 0.01
        self.chat_refusal: tuple[int, str] | tuple[int, str, str, str] | None = None
        self.broken_after: int | None = None
        """Pieces after which the stream ends without a finish."""
        self.asked: list[dict[str, Any]] = []
        self.writes: list[tuple[str, str]] = []
        self.chats_cut = 0
        self.sockets: set[web.WebSocketResponse] = set()
        self.socket_open = True
        self.expires_at: float | None = None
        self.qr_svg: str | None = (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 29 29"><path fill="#fff" d="M0 0h29v29h-29z"/>'
            '<path stroke="#000" d="M4 4.5h7m1 0h1m-9 1h1m5 0h1"/></svg>'
        )
        self.invites: list[dict[str, Any]] = []
        self.invite_refusal: tuple[int, str] | None = None

    def swarm_facts(self) -> dict[str, Any]:
        """How the reply was made: two stages here and at anna's, one at bert's."""
        return {
            "stages": [
                {"node": SELF[:16], "layers": [0, 8], "compute_ms": 5.1, "node_ms": 5.4},
                {"node": ANNA, "layers": [8, 16], "compute_ms": 6.0, "node_ms": 6.3},
                {"node": BERT, "layers": [16, 20], "compute_ms": 3.3, "node_ms": 3.5},
            ],
            "link_ms": 2.4,
            "tokens_per_second": 56.8,
            "prefill_ms": 118.0,
        }

    async def push(self, kind: str, data: dict[str, Any] | None = None) -> None:
        """Sends one envelope to every open page."""
        for socket in list(self.sockets):
            await socket.send_json({"type": kind} if data is None else {"type": kind, "data": data})

    async def tick(self) -> None:
        """One `stats_update`."""
        await self.push("stats_update", self._tick())

    async def drop_sockets(self) -> None:
        """Closes every socket; new ones are refused until `socket_open` is set again."""
        self.socket_open = False
        for socket in list(self.sockets):
            await socket.close()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/", self._index),
                web.post("/api/admin/session", self._session),
                web.get("/api/admin/{what:stats|peers|models}", self._read),
                web.get("/api/admin/{what:links|members}", self._network),
                web.get("/api/admin/network-map", self._map),
                web.post("/api/admin/members/{node}/revoke", self._revoke),
                web.get("/api/admin/models/{model}/pipeline-plan", self._plan),
                web.get("/api/admin/network-code", self._code),
                web.get("/api/admin/invites", self._invites),
                web.post("/api/admin/invites", self._make_invite),
                web.delete("/api/admin/invites/{id}", self._cancel_invite),
                web.post("/api/admin/join-network", self._join),
                web.get("/api/admin/ws", self._socket),
                web.post("/v1/chat/completions", self._chat),
                *self.services.routes(),
                *self.stock.routes(),
                web.route("*", "/api/admin/{tail:.*}", self._write),
                web.static("/static", STATIC),
            ]
        )
        return app

    # --- handlers ---

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        open_to_all = request.method == "GET" or request.path == "/api/admin/session"
        if not open_to_all and request.headers.get("authorization") != f"Bearer {KEY}":
            return refused(401, "the API key is missing or wrong")
        reply = await handler(request)
        if not reply.prepared:
            reply.headers["Content-Security-Policy"] = POLICY
            reply.headers["X-Content-Type-Options"] = "nosniff"
            reply.headers["Cache-Control"] = "no-store"
        return reply

    async def _index(self, _: web.Request) -> web.Response:
        page = (STATIC / "index.html").read_text().replace("{{nonce}}", self.nonce)
        return web.Response(text=page, content_type="text/html")

    async def _session(self, request: web.Request) -> web.Response:
        if (await request.json()).get("nonce") != NONCE:
            return refused(403, "this page's session has been used")
        return web.json_response({"api_key": KEY})

    async def _read(self, request: web.Request) -> web.Response:
        return web.json_response(getattr(self, request.match_info["what"]))

    async def _network(self, request: web.Request) -> web.Response:
        return refused(*self.network_refusal) if self.network_refusal else await self._read(request)

    async def _map(self, _: web.Request) -> web.Response:
        return web.json_response({"regions": self.regions})

    async def _revoke(self, request: web.Request) -> web.Response:
        self.writes.append((request.method, request.path))
        if self.network_refusal:
            return refused(*self.network_refusal)
        (row,) = (row for row in self.members if row["node_id"] == request.match_info["node"])
        row |= {"revoked_at": "2026-04-02T10:00:00.000Z", "connected": False}
        return web.json_response(row)

    async def _plan(self, request: web.Request) -> web.Response:
        stages = [{"node": stage["node"], "layers": stage["layers"]} for stage in self.swarm_facts()["stages"]]
        return web.json_response({"model_id": request.match_info["model"], "stages": stages, "predicted_token_ms": None})

    async def _code(self, _: web.Request) -> web.Response:
        code = "swarm://" + "AQz7Kp3mXw9sTf2vLb8nRc4dYh6gJe1uQo5i" * 4
        about = {"node_id": SELF[:16], "phase": "established", "peer_count": 2, "expires_at": self.expires_at}
        return web.json_response({"code": code, **about})

    async def _invites(self, _: web.Request) -> web.Response:
        return refused(*self.invite_refusal) if self.invite_refusal else web.json_response(self.invites)

    async def _make_invite(self, request: web.Request) -> web.Response:
        terms = await request.json()
        self.asked.append(terms)
        if self.invite_refusal:
            return refused(*self.invite_refusal)
        short = terms.get("short", False)
        row = invite(
            f"{len(self.invites) + 1:016x}", uses_left=terms.get("uses", 1), short=short, role=terms.get("role", "member")
        )
        self.invites.insert(0, row)
        if short:
            row["expires_at"] = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()
            row.update(code="701-grapefruit-greenhouse", uses=1, qr_svg=None)
            return web.json_response(row, status=201)
        code = "swarm://" + "AQz7Kp3mXw9sTf2vLb8nRc4dYh6gJe1uQo5i" * 6
        about = {"id": row["id"], "created_at": row["created_at"], "expires_at": row["expires_at"], "uses": terms["uses"]}
        about |= {"short": False, "role": terms["role"]}
        return web.json_response({"code": code, "qr_svg": self.qr_svg, **about})

    async def _cancel_invite(self, request: web.Request) -> web.Response:
        self.writes.append((request.method, request.path))
        for row in self.invites:
            if row["id"] == request.match_info["id"]:
                row["state"] = "cancelled"
                return web.json_response(row)
        return refused(404, "this node remembers no such invite")

    async def _join(self, request: web.Request) -> web.Response:
        code = (await request.json())["code"]
        if "good" not in code:
            return refused(400, "this invite code has already been used: ask for a new one")
        said = {"address": "/ip4/192.0.2.1/tcp/8810", "message": "Joined the network of anna."}
        return web.json_response({"status": "ok", **said})

    async def _write(self, request: web.Request) -> web.Response:
        self.writes.append((request.method, request.path))
        return self.answers.pop(request.path.removeprefix("/api/admin/"), None) or web.json_response({"status": "ok"})

    def _tick(self) -> dict[str, Any]:
        left_out = ("node_id", "version", "tier", "hosted_shards", "inference")
        kept = {key: self.stats[key] for key in self.stats if key not in left_out}
        regions = {
            "region": "DE",
            "region_demand": {name: row["demand"] for name, row in self.regions.items() if row["demand"]},
            "region_coverage_gaps": {name: row["coverage_gaps"] for name, row in self.regions.items()},
        }
        return {**kept, **regions, "swarm_capacity": self._capacity(), "acquisitions": self.acquisitions}

    def _capacity(self) -> dict[str, Any]:
        """`swarm_capacity`; the page draws it and reckons nothing."""
        rows = [
            {
                "model_id": model["id"], "display_name": model["name"], "size_mb": round(model["total_size_bytes"] / 1e6),
                "holders": len({holder for shard in shards for holder in shard["holder_ids"]}), "total_shards": len(shards),
                "shards_covered": sum(shard["holders"] > 0 for shard in shards), "hosted_by_us": True,
            }
            for model in self.models
            if (shards := model["shards"])
        ]  # fmt: skip
        able = [row for row in rows if row["shards_covered"] == row["total_shards"]]
        return {
            "online_nodes": 1 + len(self.peers), "total_vram_mb": None, "total_disk_mb": None, "gpu_nodes": 1,
            "regions_represented": 2, "serveable_models": able,
            "aspirational_models": [row for row in rows if row not in able],
            "hosted_locally": rows, "min_redundancy": min(1, len(able)), "median_redundancy": 1.0,
            "headline_model": able[0] if able else None, "computed_at": NOW,
        }  # fmt: skip

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if not self.socket_open:
            return refused(503, "closed by the test")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "peer_list", "data": {"peers": self.peers}})
        for entry in self.activity:
            await socket.send_json({"type": "activity_event", "data": entry})
        await socket.send_json({"type": "stats_update", "data": self._tick()})
        self.sockets.add(socket)
        try:
            async for message in socket:
                if message.type is WSMsgType.ERROR:
                    break
        finally:
            self.sockets.discard(socket)
        return socket

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        if self.chat_refusal:
            return refused(*self.chat_refusal)
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await reply.prepare(request)
        try:
            await _event(reply, _chunk({"role": "assistant", "content": ""}))
            for at, piece in enumerate(self.pieces):
                if at == self.broken_after:
                    return reply
                await asyncio.sleep(self.piece_seconds)
                await _event(reply, _chunk({"content": piece}))
            await _event(reply, {**_chunk({}, finish="stop"), "swarm": self.swarm_facts()})
            usage = {"prompt_tokens": 9, "completion_tokens": len(self.pieces), "total_tokens": 9 + len(self.pieces)}
            await _event(reply, {"choices": [], "usage": usage})
            await reply.write(b"data: [DONE]\n\n")
        except (ConnectionResetError, asyncio.CancelledError):
            self.chats_cut += 1
            raise asyncio.CancelledError from None  # the page stopped it: nobody is there to answer
        return reply


def _chunk(delta: dict[str, Any], *, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


async def _event(reply: web.StreamResponse, chunk: dict[str, Any]) -> None:
    await reply.write(f"data: {json.dumps(chunk)}\n\n".encode())
