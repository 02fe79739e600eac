"""What a node holds and fetches, as the pages of models, downloads and search ask for it: canned replies of the contract."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

REPO = "quantizer/Mid-7B-Instruct-GGUF"


def detail(index: int, state: str, percent: float, source: str | None = None, *, size: int = 40_000_000) -> dict[str, Any]:
    """One shard of a download."""
    return {
        "index": index,
        "state": state,
        "progress_pct": percent,
        "downloaded_bytes": int(size * percent / 100),
        "total_bytes": size,
        "source": source,
        "speed_bytes_per_sec": 6_000_000 if state == "downloading" else 0,
        "log": [f"shard {index} is {state}"],
    }


def download(
    model: str, state: str, shards: list[dict[str, Any]], *, place: int | None = None, **more: Any
) -> dict[str, Any]:
    """One row of the downloads, summed from its shards."""
    total, done = (sum(one[name] for one in shards) for name in ("total_bytes", "downloaded_bytes"))
    speed = sum(one["speed_bytes_per_sec"] for one in shards) if state == "downloading" else 0
    complete = sum(one["state"] == "complete" for one in shards)
    return {
        "model_id": model.lower(),
        "model_name": model,
        "state": state,
        "source": "huggingface" if any(one["source"] == "huggingface" for one in shards) else "network",
        "total_shards": len(shards),
        "downloaded_shards": complete,
        "verified_shards": complete,
        "failed_shards": sum(one["state"] == "failed" for one in shards),
        "total_bytes": total,
        "downloaded_bytes": done,
        "overall_pct": 100 * done / total if total else 0.0,
        "speed_bytes_per_sec": speed,
        "eta_secs": (total - done) // speed if speed else None,
        "cancellable": state not in ("complete", "failed", "cancelled"),
        "started_at": "2026-04-01T10:00:00.000Z",
        "trigger": "user",
        "log": ["shard 0 is here, and right", f"fetching {len(shards)} shards"],
        "shard_details": shards,
        "reason": None,
        "place": place,
        "paused": state == "paused",
        **more,
    }


def repo(repo_id: str, sizes: dict[str, float], *, fit: float = 1.0, **more: Any) -> dict[str, Any]:
    """One search hit; `sizes` in GB by quantisation. Q4_K_M is recommended, or else the first."""
    best = "Q4_K_M" if "Q4_K_M" in sizes else next(iter(sizes))
    name = repo_id.split("/")[1].removesuffix("-GGUF")
    return {
        "repo_id": repo_id,
        "downloads": 123_456,
        "likes": 320,
        "variants": [
            {
                "filename": f"{name}.{quant}.gguf",
                "size_bytes": int(size * 1e9),
                "quant": quant,
                "parts": 2 if size > 40 else 1,
            }
            for quant, size in sizes.items()
        ],
        "recommended_variant": best,
        "recommended_filename": f"{name}.{best}.gguf",
        "fits_vram": fit > 0.5,
        "fits_boomerang": fit > 0.5,
        "fits_shard": fit > 0.5,
        "fits_swarm": fit > 0.5,
        "est_shard_size": 800_000_000,
        "est_boomerang_size": 1_920_000_000,
        "network_replicas": 0,
        "composite_score": 51.5,
        "score_breakdown": {"quality": 0.7, "fit": fit, "demand": 1.5, "size": 0.5},
        "task_tags": ["chat", "text-generation"],
        "swarm_cta_status": "be_first_host",
        "gated": False,
        **more,
    }


class FakeStock:
    """State that a test sets, and the routes that show it."""

    def __init__(self) -> None:
        self.downloads: list[dict[str, Any]] = []
        self.repos = [
            repo(
                REPO,
                {"Q2_K": 2.7, "Q3_K_M": 3.3, "Q4_K_M": 4.1, "Q5_K_M": 5.0, "Q6_K": 5.9, "Q8_0": 7.7, "F16": 14.5},
                network_replicas=2,
                swarm_cta_status="needs_more_hosts",
            ),
            repo(
                "lab/Big-70B-GGUF", {"IQ2_XS": 21.1, "Q4_K_M": 42.5, "Q8_0": 75.0}, fit=0.1, swarm_cta_status="unreachable"
            ),
            repo("lab/Guarded-3B-GGUF", {"Q4_K_M": 1.9, "Q8_0": 3.2}, gated=True, downloads=900, likes=1),
        ]
        self.probe: dict[str, Any] = {
            "status": "ok",
            "total_size": 4_100_000_000,
            "header_size": 1_700_000,
            "shard_count": 8,
            "architecture": "llama",
            "architecture_supported": True,
            "network_replicas": 2,
            "model_id": "mid-7b-instruct",
            "repo_id": REPO,
            "filename": "Mid-7B-Instruct.Q4_K_M.gguf",
            "commit": "c" * 40,
            "parts": 1,
            "reason": None,
        }
        self.refusal: tuple[int, str] | None = None
        """Of everything that asks the hub."""
        self.searched: list[str] = []
        self.bodies: list[tuple[str, Any]] = []
        """Of writes, with their paths below `/api/admin/`."""
        self.go = asyncio.Event()
        """Until it is set, the hub does not answer."""
        self.go.set()
        self.plan: dict[str, Any] | None = None
        """None: a node without an autopilot."""
        self.pruned: list[dict[str, Any]] = []
        self.schedule: dict[str, Any] = {
            "enabled": False,
            "reduced_hours_start": 22,
            "reduced_hours_end": 8,
            "reduced_contribution": "minimal",
            "prune_aggressiveness": "normal",
        }
        self.policies: dict[str, dict[str, Any]] = {}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/admin/hf/search", self._search),
            web.get("/api/admin/hf/probe", self._probe),
            web.post("/api/admin/hf/download-shards", self._fetch),
            web.get("/api/admin/hf/source/{model}", self._source),
            web.get("/api/admin/downloads", self._downloads),
            web.post("/api/admin/downloads/{model}/{what:cancel|pause|resume}", self._change),
            web.put("/api/admin/downloads/{model}/place", self._place),
            web.get("/api/admin/auto-manage/plan", self._plan),
            web.get("/api/admin/prune-history", self._history),
            web.get("/api/admin/schedule", self._schedule),
            web.put("/api/admin/schedule", self._schedule),
            web.get("/api/admin/models/{model}/auto-manage", self._policy),
            web.put("/api/admin/models/{model}/auto-manage", self._policy),
            web.put("/api/admin/models/{model}/shards/{index}/lock", self._lock),
        ]

    async def _hub(self) -> web.Response | None:
        await self.go.wait()
        return None if self.refusal is None else refused(*self.refusal)

    async def _search(self, request: web.Request) -> web.Response:
        self.searched.append(request.query["query"])
        return await self._hub() or web.json_response(self.repos)

    async def _probe(self, _: web.Request) -> web.Response:
        return await self._hub() or web.json_response(self.probe)

    async def _fetch(self, request: web.Request) -> web.Response:
        body = await self._said(request)
        if self.refusal:
            return refused(*self.refusal)
        self.downloads.append(download("Mid-7B-Instruct", "queued", [], place=len(self.downloads)))
        shares = {name: body.get(name, False) for name in ("peer_fair_share", "all_shards")}
        return web.json_response({"status": "started", "model_id": "m", "shards": body.get("shards", []), **shares})

    async def _source(self, request: web.Request) -> web.Response:
        return web.json_response({"model_id": request.match_info["model"], "repo_id": REPO, "filename": "mid.Q4_K_M.gguf"})

    async def _downloads(self, _: web.Request) -> web.Response:
        return web.json_response({"downloads": self.downloads, "total": len(self.downloads)})

    async def _change(self, request: web.Request) -> web.Response:
        self.bodies.append((request.path.removeprefix("/api/admin/"), None))
        what = {"cancel": "cancelled", "pause": "paused", "resume": "downloading"}[request.match_info["what"]]
        row = self._row(request)
        row |= {"state": what, "paused": what == "paused", "cancellable": what != "cancelled"}
        return web.json_response({"status": "ok", "model_id": row["model_id"]})

    async def _place(self, request: web.Request) -> web.Response:
        place = (await self._said(request))["place"]
        row = self._row(request)
        going = sorted((one for one in self.downloads if one["place"] is not None), key=lambda one: one["place"])
        going.remove(row)
        going.insert(place, row)
        for at, one in enumerate(going):
            one["place"] = at
        return web.json_response({"status": "moved", "model_id": row["model_id"], "place": place})

    async def _plan(self, _: web.Request) -> web.Response:
        return refused(404, "there is no /api/admin/auto-manage/plan") if self.plan is None else web.json_response(self.plan)

    async def _history(self, _: web.Request) -> web.Response:
        return web.json_response({"events": self.pruned, "total": len(self.pruned)})

    async def _schedule(self, request: web.Request) -> web.Response:
        if request.method == "PUT":
            self.schedule |= await self._said(request)
        return web.json_response(self.schedule)

    async def _policy(self, request: web.Request) -> web.Response:
        model = request.match_info["model"]
        unset: dict[str, Any] = {"model_id": model, "enabled": True, "max_shards": 0, "prune_enabled": True}
        if request.method == "PUT":
            self.policies[model] = unset | await self._said(request)
        return web.json_response(self.policies.get(model, unset))

    async def _lock(self, request: web.Request) -> web.Response:
        await self._said(request)
        return web.json_response({"status": "ok"})

    async def change_config(self, request: web.Request) -> web.Response:
        body = await self._said(request)
        if self.plan is not None:
            self.plan["enabled"] = body["auto_manage_shards"]
        return web.json_response({"status": "ok"})

    async def _said(self, request: web.Request) -> dict[str, Any]:
        body = await request.json()
        self.bodies.append((request.path.removeprefix("/api/admin/"), body))
        return body

    def _row(self, request: web.Request) -> dict[str, Any]:
        return next(row for row in self.downloads if row["model_id"] == request.match_info["model"])


def move(model: str, index: int, score: float, reason: str) -> dict[str, Any]:
    """One shard that an autopilot would fetch, or drop."""
    return {"model_id": model, "shard_index": index, "size_bytes": 40_000_000, "score": score, "reason": reason}


def stays(model: str, index: int, code: str, reason: str) -> dict[str, Any]:
    """One shard that stays where it is, here or away."""
    return {"model_id": model, "shard_index": index, "code": code, "reason": reason}


def plan(**more: Any) -> dict[str, Any]:
    """What an autopilot would do: one shard to fetch, one to drop."""
    return {
        "enabled": True,
        "reduced_hours": False,
        "contribution": "moderate",
        "pool": 3,
        "budget_bytes": 20_000_000_000,
        "used_bytes": 8_400_000_000,
        "pressure": 0.42,
        "moves_left": 57,
        "fetch": [move("gap-3b", 1, 2.5, "0 of 2 copies are there")],
        "drop": [move("mid-7b", 1, 0.7, "4 copies are there and 2 are needed")],
        "not_fetched": [stays("mid-7b", index, "enough", "2 of 2 copies are there") for index in (2, 3, 4)],
        "kept": [stays("mid-7b", 0, "pinned", "somebody pinned its model here")],
        "shards": [],
        **more,
    }


def pruned(index: int, model: str = "mid-7b") -> dict[str, Any]:
    """One shard that was dropped."""
    counts = {"remaining_local_shards": 2, "holder_count_before": 4, "holder_count_after": 3}
    about = {"model_id": model, "model_name": model.title(), "shard_index": index, "freed_bytes": 40_000_000, **counts}
    return {**about, "reason": "4 copies were there and 2 are needed", "timestamp": "2026-04-01T10:00:00.000Z"}


def refused(status: int, sentence: str, code: str | None = None, kind: str = "invalid_request_error") -> web.Response:
    body = {"error": {"message": sentence, "type": kind, "param": None, "code": code}}
    return web.json_response(body, status=status)
