"""The seed's "HuggingFace Integration" and "LoRA Adapters"; fields from swarmllm.md 2.4 and 2.5."""

from __future__ import annotations

from typing import Any

from swarmd.domain.hub import ModelOrigin
from swarmd.domain.refusals import BadFile, Busy, HubFailed, Invalid, NoSpace, Refusal, UnsupportedModel
from tests.contract.row import KEY, LOCAL_READ, READ, Arrange, Refused, Row
from tests.fakes.rim import REPO, TINY, Rim, acquisition, adapter

FILE = "tiny.Q4_K_M.gguf"
REPO_ROW = {
    "repo_id": "str", "downloads": "int", "likes": "int",
    "variants": [{"filename": "str", "size_bytes": "int", "quant": "str", "parts": "int"}],  # the last is ours
    "recommended_variant": "str", "fits_vram": "bool", "fits_boomerang": "bool", "fits_shard": "bool",
    "est_shard_size": "int", "est_boomerang_size": "int", "network_replicas": "int", "composite_score": "num",
    "score_breakdown": {"quality": "num", "fit": "num", "demand": "num", "size": "num"}, "task_tags": ["str"],
    "swarm_cta_status":
        "=be_first_host|=needs_more_hosts|=well_replicated|=swarm_serveable|=unreachable|=downloadable",
    "recommended_filename": "str", "fits_swarm": "bool", "gated": "bool",  # ours
}  # fmt: skip
DOWNLOAD = {
    "model_id": "str", "model_name": "str",
    "state": "=awaiting_manifest|=queued|=downloading|=paused|=complete|=failed|=cancelled",
    "source": "=huggingface|=network", "total_shards": "int", "downloaded_shards": "int", "verified_shards": "int",
    "failed_shards": "int", "total_bytes": "int", "downloaded_bytes": "int", "overall_pct": "num",
    "speed_bytes_per_sec": "int", "eta_secs": "int|null", "cancellable": "bool", "started_at": "time", "trigger": "str",
    "log": ["str"],
    "shard_details": [
        {
            "index": "int", "state": "=pending|=downloading|=verifying|=complete|=failed", "progress_pct": "num",
            "downloaded_bytes": "int", "total_bytes": "int",
            "source": "str|null", "speed_bytes_per_sec": "int", "log": ["str"],  # ours
        }
    ],
    "reason": "str|null", "place": "int|null", "paused": "bool",  # ours
}  # fmt: skip
ADAPTER = {"id": "str", "name": "str", "base_model": "str", "rank": "int", "alpha": "num", "path": "str"}
NEW_ADAPTER = {
    "id": "my-adapter", "name": "My Adapter", "base_model": TINY, "rank": 16, "alpha": 32.0, "path": "a.safetensors"
}  # fmt: skip
WISH = {"repo_id": REPO, "filename": FILE, "peer_fair_share": True}


def hub(says: Refusal) -> Arrange:
    def arrange(rim: Rim) -> None:
        rim.hub.says = says

    return arrange


def a_source(rim: Rim) -> None:
    rim.hub.origins[TINY] = ModelOrigin(model=TINY, repo_id=REPO, filename=FILE)


def a_found_source(rim: Rim) -> None:
    rim.hub.origins[TINY] = ModelOrigin(model=TINY, repo_id=REPO, filename=FILE, discovered=True)


def a_download(rim: Rim) -> None:
    rim.desk.running[TINY] = acquisition(TINY)


def an_adapter(rim: Rim) -> None:
    rim.adapters.rows["my-adapter"] = adapter("my-adapter", TINY)


def adapters(says: Refusal) -> Arrange:
    def arrange(rim: Rim) -> None:
        rim.adapters.says = says

    return arrange


def wish(**changed: Any) -> dict[str, Any]:
    return WISH | changed


OFFLINE = HubFailed(what="the hub does not answer")

HUB = (
    Row(
        method="GET", path="/api/admin/hf/search", access=LOCAL_READ, reply=[REPO_ROW],
        filled="/api/admin/hf/search?query=tiny",
        more=[("as other clients ask", lambda _rim: None, "/api/admin/hf/search?q=tiny"),
              ("for nothing", lambda _rim: None, "/api/admin/hf/search")],
        refused=[
            Refused(status=400, when="257 characters", path="/api/admin/hf/search?query=" + "x" * 257, param="query"),
            Refused(status=400, when="two lines", path="/api/admin/hf/search?q=a%0Ab", param="q"),
            Refused(status=502, when="the hub does not answer", arrange=hub(OFFLINE), code="hub_failed"),
        ],
    ),
    Row(
        method="GET", path="/api/admin/hf/probe", access=LOCAL_READ,
        filled=f"/api/admin/hf/probe?repo_id={REPO}&filename={FILE}",
        reply={
            "status": "=ok", "total_size": "int", "header_size": "int", "shard_count": "int", "architecture": "str",
            "architecture_supported": "bool", "network_replicas": "int",
            # ours
            "model_id": "str", "repo_id": "str", "filename": "str", "commit": "str", "parts": "int", "reason": "str|null",
        },
        refused=[
            Refused(status=400, when="no repository", path="/api/admin/hf/probe?filename=a.gguf", param="repo_id"),
            Refused(status=400, when="a repository with a way out", param="repo_id",
                    path="/api/admin/hf/probe?repo_id=../x&filename=a.gguf"),
            Refused(status=400, when="no file", path=f"/api/admin/hf/probe?repo_id={REPO}", param="filename"),
            Refused(status=400, when="a file with a way out", param="filename",
                    path=f"/api/admin/hf/probe?repo_id={REPO}&filename=../a.gguf"),
            Refused(status=400, when="a file that is no GGUF", param="filename", arrange=hub(BadFile(what="no magic"))),
            Refused(status=502, when="the hub does not answer", arrange=hub(OFFLINE)),
        ],
    ),
    Row(
        method="POST", path="/api/admin/hf/download-shards", access=KEY, body=WISH,
        reply={
            "status": "=started", "model_id": "str", "shards": ["int"], "peer_fair_share": "bool", "all_shards": "bool"
        },
        refused=[
            Refused(status=400, when="nothing is wanted", body=wish(peer_fair_share=False), param="shards"),
            Refused(status=400, when="two things are wanted", body=wish(shards=[0]), param="shards"),
            Refused(status=400, when="257 shards", param="shards",
                    body=wish(shards=list(range(257)), peer_fair_share=False)),
            Refused(status=400, when="a shard twice", body=wish(shards=[1, 1], peer_fair_share=False), param="shards"),
            Refused(status=400, when="the vision encoder's index", param="shards[0]",
                    body=wish(shards=[4294967295], peer_fair_share=False)),
            Refused(status=400, when="a repository without an owner", body=wish(repo_id="tiny"), param="repo_id"),
            Refused(status=400, when="a repository of 97 characters", body=wish(repo_id="a/" + "b" * 95), param="repo_id"),
            Refused(status=400, when="a file with a way out", body=wish(filename="../a.gguf"), param="filename"),
            Refused(status=400, when="a file that is no GGUF by name", body=wish(filename="a.bin"), param="filename"),
            Refused(status=400, when="a bad id", body=wish(model_id="A/B"), param="model_id"),
            Refused(status=400, when="no file is named", body={"repo_id": REPO}, param="filename"),
            Refused(status=400, when="an architecture that does not run here", param="filename",
                    arrange=hub(UnsupportedModel(what="this node runs llama, not rwkv")), code="unsupported_model"),
            Refused(status=502, when="the hub does not answer", arrange=hub(OFFLINE)),
            Refused(status=503, when="the node is starting", arrange=hub(Busy(what="starting"))),
            Refused(status=507, when="the disk is full", arrange=hub(NoSpace(needed_bytes=2, free_bytes=1))),
        ],
    ),
    Row(
        method="GET", path="/api/admin/hf/source/{id}", access=LOCAL_READ, arrange=a_source,
        reply={"model_id": "str", "repo_id": "str", "filename": "str", "auto_discovered?": "bool"},
        more=[("it was found by a search", a_found_source, None)],
        refused=[
            Refused(status=404, when="nobody knows where", path="/api/admin/hf/source/unknown"),
            Refused(status=502, when="the hub does not answer", arrange=hub(OFFLINE)),
        ],
    ),
    Row(
        method="GET", path="/api/admin/downloads", access=READ, reply={"downloads": [DOWNLOAD], "total": "int"}, live=True,
        more=[("one runs", a_download, None)],
    ),
    Row(
        method="POST", path="/api/admin/downloads/{id}/cancel", access=KEY, arrange=a_download,
        reply={"status": "=cancelled", "model_id": "str"},
        refused=[
            Refused(status=400, when="nothing is being fetched", path="/api/admin/downloads/unknown/cancel", param="model")
        ],
    ),
)  # fmt: skip

ADAPTERS = (
    Row(
        method="GET", path="/api/admin/adapters", access=READ, reply={"adapters": [ADAPTER]}, live=True,
        more=[("one is registered", an_adapter, None)],
    ),
    Row(
        method="POST", path="/api/admin/adapters", access=KEY, body=NEW_ADAPTER,
        reply={"status": "=ok", "adapter": ADAPTER},
        refused=[
            Refused(status=400, when="a path with a way out", param="path",
                    arrange=adapters(Invalid(what="..", param="path"))),
            Refused(status=400, when="a file that is not there", param="path",
                    arrange=adapters(Invalid(what="there is no such file", param="path"))),
            Refused(status=400, when="no name", body={**NEW_ADAPTER, "name": ""}, param="name"),
            Refused(status=400, when="a rank of 0", body={**NEW_ADAPTER, "rank": 0}, param="rank"),
            Refused(status=400, when="a text for alpha", body={**NEW_ADAPTER, "alpha": "much"}, param="alpha"),
            Refused(status=400, when="no path", body={"name": "x", "base_model": TINY}, param="path"),
            Refused(status=400, when="a field too many", body={**NEW_ADAPTER, "more": 1}, param="more"),
            Refused(status=507, when="the disk is full", arrange=adapters(NoSpace(needed_bytes=2, free_bytes=1))),
        ],
    ),
    Row(
        method="DELETE", path="/api/admin/adapters/{id}", access=KEY, filled="/api/admin/adapters/my-adapter",
        arrange=an_adapter, reply={"status": "=ok", "message": "=Adapter 'my-adapter' removed"},
        refused=[Refused(status=400, when="nobody knows the id", path="/api/admin/adapters/unknown", param="id")],
    ),
)  # fmt: skip

ROWS = HUB + ADAPTERS
