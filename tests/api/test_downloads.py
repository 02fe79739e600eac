"""Endpoints of downloads and of the hub, over a real socket."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from swarmd.domain.hub import ModelOrigin
from swarmd.domain.ids import ModelId
from swarmd.domain.refusals import (
    BadFile,
    Busy,
    HubFailed,
    HubForbidden,
    IdTaken,
    NoSpace,
    NotFound,
    Refusal,
    UnsupportedModel,
)
from tests.fakes.rim import LAN_CLIENT, PEER, REPO, SPREAD, TINY, Rim, acquisition, keyed, ranked

FETCH = "/api/admin/hf/download-shards"
FILE = "tiny.Q4_K_M.gguf"
BODY: dict[str, Any] = {"repo_id": REPO, "filename": FILE, "all_shards": True}

BAD_REPOS = [
    "", "name", "/", "owner/", "/name", "a/b/c", "../name", "owner/..", "owner/../../etc", "owner/na..me", "./name",
    "o wner/name", "owner/näme", "owner/name\n", "owner/name?x=1", "owner/name#f", "owner\\name", "owner/%2e%2e",
    "https://a/b", "a:b@c/d", "-a/b", "_a/b", "owner/" + "n" * 96, "x" * 100_000, "owner/\u202ename", "owner/na\0me",
]  # fmt: skip
BAD_FILES = [
    "", ".gguf/..", "../x.gguf", "a/../x.gguf", "/etc/x.gguf", "a//x.gguf", "./x.gguf", "a/./x.gguf", "x", "x.bin",
    "x.gguf/", "x.gguf.exe", "x.GGUF\n", "x y.gguf", "x\\y.gguf", "x%2f.gguf", "x?.gguf", "x#.gguf", "ü.gguf", "x\0.gguf",
    "x..gguf", "a" * 300 + ".gguf", "\u202ex.gguf", "C:x.gguf",
]  # fmt: skip
BAD_MODELS = ["..", "../x", "a/b", "UPPER", "", "x" * 300, "a..b", "-a", "a b", "a\0", "ä"]
BAD_SHARDS: list[Any] = [
    [-1], [0, -1], [1.5], ["0"], [None], [True], [[0]], [0xFFFF_FFFF], [2**64], [10**30], [0, 0], [3, 1, 3], "0-3", 0,
    {"0": 1}, list(range(257)), [],
]  # fmt: skip


async def fetch(rim: Rim, method: str, path: str, **more: Any) -> tuple[int, Any]:
    async with rim.client(**keyed()) as client, client.request(method, path, **more) as reply:
        return reply.status, await reply.json()


async def fault(rim: Rim, method: str, path: str, **more: Any) -> tuple[int, str]:
    """Status and the parameter that is named."""
    status, found = await fetch(rim, method, path, **more)
    assert found["error"]["message"]
    assert len(found["error"]["message"]) < 400, "what somebody sent is not sent back whole"
    return status, found["error"]["param"]


def asked(rim: Rim) -> list[Any]:
    """Requests that reached the hub's desk."""
    return [one for one in rim.hub.asked if one[0] != "origin"]


# -- what comes from outside


@pytest.mark.parametrize("repo_id", BAD_REPOS, ids=lambda text: text[:12])
async def test_bad_repositories_never_reach_the_hub(rim: Rim, repo_id: str) -> None:
    assert await fault(rim, "POST", FETCH, json=BODY | {"repo_id": repo_id}) == (400, "repo_id")
    if len(repo_id) < 1000:  # an address of more than 8 KB is refused before
        path = f"/api/admin/hf/probe?repo_id={quote(repo_id, safe='')}&filename={FILE}"
        assert await fault(rim, "GET", path) == (400, "repo_id")
    assert not asked(rim)


@pytest.mark.parametrize("filename", BAD_FILES, ids=lambda text: text[:12])
async def test_bad_file_names_never_reach_the_hub(rim: Rim, filename: str) -> None:
    assert await fault(rim, "POST", FETCH, json=BODY | {"filename": filename}) == (400, "filename")
    path = f"/api/admin/hf/probe?repo_id={quote(REPO, safe='')}&filename={quote(filename, safe='')}"
    assert await fault(rim, "GET", path) == (400, "filename")
    assert not asked(rim)


@pytest.mark.parametrize("model", BAD_MODELS)
async def test_bad_model_ids_are_named(rim: Rim, model: str) -> None:
    assert await fault(rim, "POST", FETCH, json=BODY | {"model_id": model}) == (400, "model_id")
    if not model:
        return
    part = quote(model, safe="").replace("..", "%2e%2e")
    for method, path in (
        ("GET", f"/api/admin/hf/source/{part}"),
        ("POST", f"/api/admin/downloads/{part}/cancel"),
        ("POST", f"/api/admin/downloads/{part}/pause"),
        ("POST", f"/api/admin/downloads/{part}/resume"),
        ("PUT", f"/api/admin/downloads/{part}/place"),
    ):
        more = {"json": {"place": 0}} if method == "PUT" else {}
        status, found = await fetch(rim, method, path, **more)
        # A path with `..` is no path of ours; none of them reaches a handler.
        assert (status, found["error"]["param"]) in ((400, "model"), (404, None)), path
    assert not rim.hub.asked


@pytest.mark.parametrize("shards", BAD_SHARDS, ids=lambda value: str(value)[:16])
async def test_bad_indices_are_named(rim: Rim, shards: Any) -> None:
    status, param = await fault(rim, "POST", FETCH, json={"repo_id": REPO, "filename": FILE, "shards": shards})
    assert (status, param.partition("[")[0]) == (400, "shards")
    assert not asked(rim)


@pytest.mark.parametrize(
    "modes",
    [
        {}, {"shards": [0], "peer_fair_share": True}, {"shards": [0], "all_shards": True}, {"shards": None},
        {"peer_fair_share": True, "all_shards": True}, {"peer_fair_share": False}, {"shards": [], "all_shards": False},
    ],
)  # fmt: skip
async def test_exactly_one_mode(rim: Rim, modes: dict[str, Any]) -> None:
    assert await fault(rim, "POST", FETCH, json={"repo_id": REPO, "filename": FILE} | modes) == (400, "shards")
    assert not asked(rim)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"repo_id": 7}, "repo_id"), ({"filename": None}, "filename"), ({"peer_fair_share": "yes"}, "peer_fair_share"),
        ({"all_shards": 1}, "all_shards"), ({"model_id": 5}, "model_id"), ({"path": "/etc"}, "path"),
    ],
)  # fmt: skip
async def test_fields_of_a_wrong_kind_are_named(rim: Rim, change: dict[str, Any], param: str) -> None:
    assert await fault(rim, "POST", FETCH, json=BODY | change) == (400, param)


async def test_fields_that_are_missing_are_named(rim: Rim) -> None:
    assert await fault(rim, "POST", FETCH, json={"filename": FILE, "all_shards": True}) == (400, "repo_id")
    assert await fault(rim, "PUT", f"/api/admin/downloads/{SPREAD}/place", json={}) == (400, "place")


@pytest.mark.parametrize("place", [-1, 256, 2**63, 1.5, "0", None, [0]])
async def test_bad_places(rim: Rim, place: Any) -> None:
    rim.desk.running[SPREAD] = acquisition(SPREAD)
    assert await fault(rim, "PUT", f"/api/admin/downloads/{SPREAD}/place", json={"place": place}) == (400, "place")


@pytest.mark.parametrize("query", ["x" * 257, "a\nb", "a\0", "\u202ea", "a\x1b[2J"])
async def test_bad_searches(rim: Rim, query: str) -> None:
    for name in ("query", "q"):
        assert await fault(rim, "GET", f"/api/admin/hf/search?{name}={quote(query)}") == (400, name)
    assert not asked(rim)


# -- the hub


async def test_search_rows_are_the_contract_s(rim: Rim) -> None:
    rim.hub.found = [ranked("a/low", score=1.0), ranked(score=90.1234)]
    status, rows = await fetch(rim, "GET", "/api/admin/hf/search?query=tiny%20llama")
    assert (status, rim.hub.asked) == (200, [("search", "tiny llama")])
    assert [row["repo_id"] for row in rows] == [REPO, "a/low"]
    assert set(rows[0]) >= {
        "repo_id", "downloads", "likes", "variants", "recommended_variant", "fits_vram", "fits_boomerang", "fits_shard",
        "est_shard_size", "est_boomerang_size", "network_replicas", "composite_score", "score_breakdown", "task_tags",
        "swarm_cta_status",
    }  # fmt: skip
    assert set(rows[0]["score_breakdown"]) == {"quality", "fit", "demand", "size"}
    assert rows[0]["variants"][1] == {"filename": FILE, "size_bytes": 668_000_000, "quant": "Q4_K_M", "parts": 1}
    assert (rows[0]["recommended_variant"], rows[0]["recommended_filename"]) == ("Q4_K_M", FILE)
    assert (rows[0]["composite_score"], rows[0]["fits_vram"], rows[0]["fits_swarm"]) == (90.123, True, True)


async def test_both_names_of_the_search_and_none(rim: Rim) -> None:
    assert (await fetch(rim, "GET", f"/api/admin/hf/search?q={'x' * 256}"))[0] == 200
    assert (await fetch(rim, "GET", "/api/admin/hf/search?q=other&query=this"))[0] == 200
    assert rim.hub.asked == [("search", "x" * 256), ("search", "this")]
    for nothing in ("", "?query=", "?q=%20%20"):
        assert await fetch(rim, "GET", f"/api/admin/hf/search{nothing}") == (200, [])
    assert len(rim.hub.asked) == 2


async def test_probe(rim: Rim) -> None:
    status, found = await fetch(rim, "GET", f"/api/admin/hf/probe?repo_id={REPO}&filename=Q8/{FILE}")
    assert (status, asked(rim)) == (200, [("probe", REPO, f"Q8/{FILE}")])
    assert {name: found[name] for name in list(found)[:7]} == {
        "status": "ok", "total_size": 668_000_000, "header_size": 1_700_000, "shard_count": 2, "architecture": "llama",
        "architecture_supported": True, "network_replicas": 1,
    }  # fmt: skip
    assert (found["model_id"], found["filename"], found["parts"]) == ("tiny.q4-k-m", f"Q8/{FILE}", 1)
    rim.hub.says = NotFound(what="there is no such file")
    assert await fault(rim, "GET", f"/api/admin/hf/probe?repo_id={REPO}&filename={FILE}") == (400, "filename")


@pytest.mark.parametrize(
    ("modes", "shards", "fair_share"),
    [
        ({"shards": [7, 0, 3]}, (0, 3, 7), False), ({"peer_fair_share": True}, None, True),
        ({"all_shards": True}, None, False), ({"peer_fair_share": True, "shards": []}, None, True),
        ({"shards": list(range(256))}, tuple(range(256)), False),
    ],
)  # fmt: skip
async def test_download_shards(rim: Rim, modes: dict[str, Any], shards: tuple[int, ...] | None, fair_share: bool) -> None:
    status, found = await fetch(rim, "POST", FETCH, json={"repo_id": REPO, "filename": FILE} | modes)
    assert (status, asked(rim)) == (200, [("fetch", REPO, FILE, shards, fair_share, None)])
    assert found == {
        "status": "started", "model_id": "tiny.q4-k-m", "shards": list(shards or ()), "peer_fair_share": fair_share,
        "all_shards": modes.get("all_shards", False),
    }  # fmt: skip


async def test_download_under_another_name(rim: Rim) -> None:
    assert (await fetch(rim, "POST", FETCH, json=BODY | {"model_id": "my-tiny"}))[1]["model_id"] == "my-tiny"
    assert asked(rim)[0][-1] == "my-tiny"


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (HubFailed(what="the hub does not answer"), 502, "hub_failed"),
        (HubFailed(what="the hub has had enough", retry_after_s=20.0), 502, "hub_failed"),
        (HubForbidden(repo_id=REPO, has_token=False), 502, "hub_forbidden"),
        (UnsupportedModel(what="this node runs llama, not rwkv"), 400, "unsupported_model"),
        (NotFound(what="the model has no shard 9: it has 2, from 0 on"), 400, "invalid_value"),
        (NoSpace(needed_bytes=2, free_bytes=1), 507, "no_space"),
        (Busy(what="this node is starting"), 503, "busy"),
    ],
)  # fmt: skip
async def test_what_the_desk_refuses(rim: Rim, refusal: Refusal, status: int, code: str) -> None:
    rim.hub.says = refusal
    found = await fetch(rim, "POST", FETCH, json={"repo_id": REPO, "filename": FILE, "shards": [9]})
    assert (found[0], found[1]["error"]["code"]) == (status, code)
    assert found[1]["error"]["message"] == refusal.sentence
    documented = next(row for row in rim.rows if row.path == FETCH).status
    assert status in documented


@pytest.mark.parametrize(
    ("refusal", "param"),
    [
        (BadFile(what="tiny.Q4_K_M.gguf of owner/Tiny-GGUF is not a GGUF that can be used: magic"), "filename"),
        (UnsupportedModel(what="architecture 'rwkv' is not proven to run as shards"), "filename"),
        (NotFound(what="there is no file tiny.Q4_K_M.gguf in owner/Tiny-GGUF at the hub"), "filename"),
        (IdTaken(what="model swarmd-builtin is already here in another layout"), "model_id"),
    ],
)
async def test_a_file_that_is_no_model_is_a_bad_filename_and_not_null(rim: Rim, refusal: Refusal, param: str) -> None:
    rim.hub.says = refusal
    for wish in ({"shards": [0]}, {"all_shards": True}):
        body = {"repo_id": REPO, "filename": FILE, "model_id": "swarmd-builtin"} | wish
        assert await fault(rim, "POST", FETCH, json=body) == (400, param)
    if param == "filename":
        assert await fault(rim, "GET", f"/api/admin/hf/probe?repo_id={REPO}&filename={FILE}") == (400, "filename")


async def test_a_taken_id_that_was_made_of_the_file_name_is_a_bad_filename(rim: Rim) -> None:
    rim.hub.says = IdTaken(what="model tiny.q4-k-m is already here in another layout")
    assert await fault(rim, "POST", FETCH, json=BODY) == (400, "filename")


async def test_a_search_that_is_too_long_is_refused_whichever_name_wins(rim: Rim) -> None:
    assert await fault(rim, "GET", f"/api/admin/hf/search?query=&q={'x' * 257}") == (400, "q")
    assert await fault(rim, "GET", f"/api/admin/hf/search?q=tiny&query={'x' * 257}") == (400, "query")
    assert (await fetch(rim, "GET", "/api/admin/hf/search?query=&q=tiny"))[0] == 200
    assert asked(rim) == [("search", "tiny")]


async def test_source(rim: Rim) -> None:
    path = f"/api/admin/hf/source/{TINY}"
    assert (await fetch(rim, "GET", path))[0] == 404
    rim.hub.origins[TINY] = ModelOrigin(model=TINY, repo_id=REPO, filename=FILE)
    assert await fetch(rim, "GET", path) == (200, {"model_id": TINY, "repo_id": REPO, "filename": FILE})
    rim.hub.origins[TINY] = replace(rim.hub.origins[TINY], discovered=True)
    assert (await fetch(rim, "GET", path))[1]["auto_discovered"] is True
    rim.hub.says = HubFailed(what="the hub does not answer")
    assert (await fetch(rim, "GET", path))[0] == 502


async def test_opening_the_reads_opens_no_way_to_the_hub(rim: Rim) -> None:
    rim.set("api.open_reads", "everywhere")
    rim.address = LAN_CLIENT
    async with rim.client() as client:
        for path in ("hf/search?q=x", f"hf/probe?repo_id={REPO}&filename={FILE}", f"hf/source/{TINY}"):
            async with client.get(f"/api/admin/{path}") as reply:
                assert reply.status == 401
    assert not rim.hub.asked


# -- the queue


async def test_downloads_and_their_order(rim: Rim) -> None:
    states = ["complete", "failed", "cancelled", "paused", "queued", "awaiting_manifest", "downloading"]
    for place, state in enumerate(states):
        model = ModelId(f"m-{state.replace('_', '-')}")
        rim.desk.running[model] = replace(acquisition(model, state=state), place=len(states) - place, name=state.upper())
    status, found = await fetch(rim, "GET", "/api/admin/downloads")
    assert (status, found["total"]) == (200, 7)
    assert [row["state"] for row in found["downloads"]] == [
        "downloading", "awaiting_manifest", "queued", "paused", "cancelled", "failed", "complete",
    ]  # fmt: skip
    first, paused, last = found["downloads"][0], found["downloads"][3], found["downloads"][-1]
    assert list(first)[:18] == [
        "model_id", "model_name", "state", "source", "total_shards", "downloaded_shards", "verified_shards", "failed_shards",
        "total_bytes", "downloaded_bytes", "overall_pct", "speed_bytes_per_sec", "eta_secs", "cancellable", "started_at",
        "trigger", "log", "shard_details",
    ]  # fmt: skip
    assert (first["model_name"], first["eta_secs"], first["overall_pct"]) == ("DOWNLOADING", 3, 40.0)
    assert (first["cancellable"], first["place"], first["paused"]) == (True, 1, False)
    assert (paused["cancellable"], paused["place"], paused["paused"], paused["eta_secs"]) == (True, 4, True, None)
    assert (last["cancellable"], last["place"], last["eta_secs"]) == (False, None, None)


async def test_the_live_socket_has_the_same_rows(rim: Rim) -> None:
    rim.desk.running[SPREAD] = acquisition(SPREAD)
    _, found = await fetch(rim, "GET", "/api/admin/downloads")
    async with rim.client() as client, client.ws_connect("/api/admin/ws") as socket:
        while (message := await socket.receive_json(timeout=5))["type"] != "stats_update":
            pass
    row, live = found["downloads"][0], message["data"]["acquisitions"][0]
    assert live["model_name"] == "SPREAD-Q8", "the registry knows the name where the acquisition does not"
    assert row == live
    assert live["shard_details"][0]["source"] == PEER[:16]


async def test_cancel_pause_resume(rim: Rim) -> None:
    rim.desk.running[SPREAD] = acquisition(SPREAD)
    path = f"/api/admin/downloads/{SPREAD}"
    for verb, status in (("pause", "paused"), ("resume", "resumed"), ("cancel", "cancelled")):
        assert await fetch(rim, "POST", f"{path}/{verb}") == (200, {"status": status, "model_id": SPREAD})
    assert rim.desk.running[SPREAD].state == "cancelled"
    assert await fault(rim, "POST", f"{path}/cancel") == (400, "model"), "the contract: 400 when nothing is in progress"
    assert (await fetch(rim, "POST", f"{path}/pause"))[0] == 404
    assert (await fetch(rim, "POST", "/api/admin/downloads/unknown/resume"))[0] == 404


async def test_places_end_where_the_queue_ends(rim: Rim) -> None:
    for model in (SPREAD, TINY):
        rim.desk.running[model] = acquisition(model)
    path = f"/api/admin/downloads/{SPREAD}/place"
    assert await fetch(rim, "PUT", path, json={"place": 0}) == (200, {"status": "moved", "model_id": SPREAD, "place": 0})
    assert (await fetch(rim, "PUT", path, json={"place": 255}))[1]["place"] == 1
    assert (await fetch(rim, "PUT", "/api/admin/downloads/unknown/place", json={"place": 0}))[0] == 404


async def test_the_reference_shows_them(rim: Rim) -> None:
    _, document = await fetch(rim, "GET", "/api/openapi.json")
    body = document["components"]["schemas"]["DownloadShards"]
    assert body["properties"]["shards"]["anyOf"][0]["maxItems"] == 256
    search = document["paths"]["/api/admin/hf/search"]["get"]
    assert [one["name"] for one in search["parameters"]] == ["query", "q"]
    assert search["x-guard"] == "local-read"
    assert msgspec.json.encode(document).count(b"/api/admin/downloads") == 5
