"""The fake node's settings, history, adapters, providers, responses, credits and version, as the contract writes them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.dashboard.fake_stock import refused

NOW = 1_770_000_000


def setting(key: str, kind: str, default: Any, *, live: bool = True, **more: Any) -> dict[str, Any]:
    """One row of the schema."""
    section, name = key.split(".")
    return {
        "key": key, "section": section, "name": name, "type": kind, "range": "1 to 256", "low": None, "high": None,
        "choices": [], "default": default, "value": default, "waiting": None, "source": "default", "live": live,
        "writable": True, "why_not": None, "secret": False, "doc": f"What {name} is.",
        "environment": f"SWARMD_{section}_{name}".upper(), **more,
    }  # fmt: skip


class FakeServices:
    """State that a test sets."""

    def __init__(self, *, flat: Callable[[web.Request], Awaitable[web.Response]]) -> None:
        """`flat`: answers changes of the contract's flat keys."""
        self._flat = flat
        self.settings = [
            setting("identity.nickname", "text", "", value="anna", source="file", range="empty, or up to 32 letters"),
            setting("node.contribution", "text", "minimal", choices=["minimal", "moderate", "maximum"]),
            setting("resources.max_disk_mb", "number", 50_000, low=100, high=10_000_000),
            setting("inference.max_batch_size", "number", 8, low=1, high=256),
            setting("inference.context_tokens", "number", 8192, live=False, low=256, high=1_048_576),
            setting("inference.speculation", "switch", True),
            setting("node.data_dir", "text", "", writable=False, why_not="only in the file", value="/data", source="flag"),
            setting("api.api_key", "text", "", value=None, secret=True, writable=False, why_not="only in the settings file"),
        ]
        self.adapters: list[dict[str, Any]] = []
        self.adapter_refusal: tuple[int, str, str | None] | None = None
        self.providers: list[dict[str, Any]] = [
            provider("openai", "bearer", "https://api.openai.com/v1", configured=True, source="env"),
            provider("anthropic", "x-api-key", "https://api.anthropic.com"),
        ]
        self.health = [{"provider": "openai", "status": "rate_limited", "latency_ms": 320, "detail": "slow down"}]
        self.provider_models = [{"id": "gpt-4o", "name": "GPT-4o", "provider": "openai"}]
        self.provider_refusal: tuple[int, str, str | None] | None = None
        self.responses = [response("resp_1", "completed"), response("resp_2", "in_progress", live=True)]
        self.version: dict[str, Any] = {
            "current_version": "0.1.0", "latest_version": None, "update_available": False, "channel": "stable",
            "last_checked": None, "last_error": None, "restart_required": False, "changelog": None,
        }  # fmt: skip
        self.bodies: list[tuple[str, Any]] = []
        self.missing = False
        """An older node: 404 to everything here."""

    def routes(self) -> list[web.RouteDef]:
        admin = "/api/admin"
        return [
            web.get(f"{admin}/config/schema", self._schema),
            web.put(f"{admin}/config", self._put_config),
            web.get(f"{admin}/history", self._history),
            web.get(f"{admin}/adapters", self._list_adapters),
            web.post(f"{admin}/adapters", self._add_adapter),
            web.delete(f"{admin}/adapters/{{id}}", self._remove_adapter),
            web.get(f"{admin}/providers", self._list_providers),
            web.put(f"{admin}/providers", self._put_providers),
            web.get(f"{admin}/provider-health", self._health),
            web.get(f"{admin}/provider-models", self._models),
            web.get(f"{admin}/claude-subscription/status", self._subscription),
            web.post(f"{admin}/provider-model-status", self._model_status),
            web.get(f"{admin}/responses", self._list_responses),
            web.get("/v1/responses/{id}", self._response),
            web.post("/v1/responses/{id}/cancel", self._cancel),
            web.delete("/v1/responses/{id}", self._delete),
            web.get(f"{admin}/credits", self._credits),
            web.get(f"{admin}/credits/transactions", self._entries),
            web.get(f"{admin}/credits/peers", self._books),
            web.get(f"{admin}/version", self._version),
            web.post(f"{admin}/update/check", self._check),
            web.post(f"{admin}/update/apply", self._apply),
        ]

    def _reply(self, body: Any) -> web.Response:
        return refused(404, "no such path") if self.missing else web.json_response(body)

    async def _schema(self, _: web.Request) -> web.Response:
        return self._reply({"settings": self.settings, "file": "/data/config.toml"})

    async def _put_config(self, request: web.Request) -> web.Response:
        body = await request.json()
        if not all("." in key for key in body):
            return await self._flat(request)
        self.bodies.append(("config", body))
        by_key = {row["key"]: row for row in self.settings}
        for key, value in body.items():
            row = by_key[key]
            if row["type"] == "number" and not row["low"] <= value <= row["high"]:
                return wrong(400, f"{key} cannot be {value}: it must be {row['low']} to {row['high']}", key)
        for key, value in body.items():
            row = by_key[key]
            row.update({"value": value, "source": "file"} if row["live"] else {"waiting": value})
        return web.json_response({"status": "ok"})

    async def _history(self, _: web.Request) -> web.Response:
        return self._reply({
            "interval_seconds": 5, "at": [NOW, NOW + 5], "tokens_per_second": [10.0, 20.0], "rtt_ms": [1.5, None],
            "slowest_rtt_ms": [2.5, None], "used_ram_mb": [4000.0, 4100.0], "process_rss_mb": [400.0, 410.0],
            "peers": [2, 2], "active_requests": [0, 1],
        })  # fmt: skip

    async def _list_adapters(self, _: web.Request) -> web.Response:
        return self._reply({"adapters": self.adapters})

    async def _add_adapter(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(("adapters", body))
        if self.adapter_refusal:
            return wrong(*self.adapter_refusal)
        row = {"id": "made-up", "rank": 16, "alpha": 32.0, **body}
        self.adapters.append(row)
        return web.json_response({"status": "ok", "adapter": row})

    async def _remove_adapter(self, request: web.Request) -> web.Response:
        self.adapters = [row for row in self.adapters if row["id"] != request.match_info["id"]]
        return web.json_response({"status": "ok", "message": f"Adapter '{request.match_info['id']}' removed"})

    async def _list_providers(self, _: web.Request) -> web.Response:
        about = {"key_source": "auto", "claude_subscription_enabled": False}
        return self._reply({"providers": self.providers, **about})

    async def _put_providers(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(("providers", body))
        if self.provider_refusal:
            return wrong(*self.provider_refusal)
        for row in self.providers:
            if (key := body.get(f"{row['name']}_key")) is not None:
                row.update(configured=bool(key), source="config" if key else "none")
        for one in body.get("custom", ()):
            self.providers.append(provider(one["name"], "none", one["base_url"], configured=True, custom=True))
            self.provider_models.append({"id": "large", "name": "large", "provider": one["name"]})
        self.providers = [row for row in self.providers if row["name"] not in body.get("remove_custom", ())]
        return web.json_response({"status": "ok"})

    async def _subscription(self, _: web.Request) -> web.Response:
        return self._reply({"error": "claude-subscription feature not enabled"})

    async def _health(self, _: web.Request) -> web.Response:
        return self._reply({"providers": self.health})

    async def _models(self, _: web.Request) -> web.Response:
        return self._reply({"models": self.provider_models})

    async def _model_status(self, request: web.Request) -> web.Response:
        asked = (await request.json())["models"]
        return web.json_response({"models": [{"model": one, "status": "up", "latency_ms": 210} for one in asked]})

    async def _list_responses(self, request: web.Request) -> web.Response:
        status = request.query.get("status")
        rows = [row for row in self.responses if status in (None, row["status"])]
        return self._reply({"object": "list", "data": rows[: int(request.query["limit"])], "total": len(rows)})

    async def _response(self, request: web.Request) -> web.Response:
        text = [{"type": "output_text", "text": "A **shard** is a run of layers."}]
        output = [{"type": "message", "role": "assistant", "content": text}]
        return web.json_response({"id": request.match_info["id"], "output": output, "error": None})

    async def _cancel(self, request: web.Request) -> web.Response:
        (row,) = (row for row in self.responses if row["id"] == request.match_info["id"])
        row["status"] = "cancelled"
        return web.json_response(row)

    async def _delete(self, request: web.Request) -> web.Response:
        self.responses = [row for row in self.responses if row["id"] != request.match_info["id"]]
        return web.json_response({"id": request.match_info["id"], "deleted": True})

    async def _credits(self, _: web.Request) -> web.Response:
        return self._reply({
            "balance": 990, "lifetime_earned": 1200, "lifetime_spent": 220, "lifetime_refunded": 10, "tier": "gold",
            "last_updated": "2026-04-01T10:00:00.000Z", "net_spent": 210, "books_balance": True, "escrow_held": 5,
            "escrow_pending_count": 1,
        })  # fmt: skip

    async def _entries(self, request: web.Request) -> web.Response:
        older = "before" in request.query
        row = {
            "id": 1 if older else 2, "hour": "2026-04-01T10:00:00.000Z", "timestamp": "2026-04-01T10:00:00.000Z",
            "kind": "served", "amount": 7, "quantity": 700, "unit": "tokens", "events": 3, "node_id": "a11a4c0ffee00001",
            "model_id": "mid-7b",
        }  # fmt: skip
        return self._reply({"transactions": [row], "total": 2, "next_before": None if older else 2})

    async def _books(self, _: web.Request) -> web.Response:
        row = {"node_id": "a11a4c0ffee00001", "given": 30, "taken": 10, "balance": 20, "tier": "silver", "weight": 1.0}
        return self._reply([row | {"last_at": "2026-04-01T10:00:00.000Z"}])

    async def _version(self, _: web.Request) -> web.Response:
        return self._reply(self.version)

    async def _check(self, _: web.Request) -> web.Response:
        if self.version["latest_version"] is None:
            return web.json_response({"status": "up_to_date", "current_version": "0.1.0"})
        info = {
            "current_version": "0.1.0", "latest_version": self.version["latest_version"], "changelog": "- faster",
            "published_at": "2026-04-01T10:00:00.000Z", "checksum_sha256": "0" * 64, "size_bytes": 1_200_000,
            "downloaded": True,
        }  # fmt: skip
        return web.json_response({"status": "update_available", "info": info})

    async def _apply(self, _: web.Request) -> web.Response:
        self.bodies.append(("apply", None))
        return web.json_response({"status": "applied", "version": "0.2.0", "message": "The node restarts in 0.2.0."})


def provider(name: str, auth: str, url: str, **more: Any) -> dict[str, Any]:
    """One row of the listing of providers."""
    return {
        "name": name, "configured": False, "source": "none", "auth_type": auth, "custom": False, "base_url": url, **more,
    }  # fmt: skip


def response(identity: str, status: str, **more: Any) -> dict[str, Any]:
    """One row of the listing of responses."""
    return {
        "id": identity, "created_at": NOW, "expires_at": NOW + 30 * 86_400, "model": "mid-7b", "status": status,
        "background": False, "live": False, "input_preview": "What is a shard?", "output_text_preview": "A run of layers.",
        "usage": {"input_tokens": 9, "output_tokens": 5}, **more,
    }  # fmt: skip


def wrong(status: int, message: str, param: str | None) -> web.Response:
    """A refusal that names the field it is about."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": "invalid"}
    return web.Response(status=status, text=json.dumps({"error": error}), content_type="application/json")
