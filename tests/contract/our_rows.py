"""What this node answers beyond the seed: our documented extensions (`doc` of their rows, and docs/)."""

from __future__ import annotations

from swarmd.domain.refusals import BadFile, Busy, Forbidden, NoSpace, NotFound
from tests.contract.hub_rows import a_download
from tests.contract.model_rows import NOT_HERE, desk
from tests.contract.row import KEY, LOCAL_KEY, OPEN, PAGE, READ, Refused, Row
from tests.fakes.rim import PEER, SPREAD, TINY, Rim, no_coverage

LINK = {
    "node_id": "node", "nickname": "str|null", "purpose": "=control|=bulk", "path": "=direct|=relay", "via": "node|null",
    "address": "str|null", "dialled": "bool", "up_seconds": "int", "rtt_ms": "num|null", "min_rtt_ms": "num|null",
    "bytes_in": "int", "bytes_out": "int", "queued_bytes": "int", "streams": "int",
}  # fmt: skip
MEMBER = {
    "node_id": "node64", "role": "=member|=inviter|null", "issued_at": "time|null", "expires_at": "time|null",
    "admitted_by": "str|null", "members_below": "int", "revoked_at": "time|null", "connected": "bool",
    "last_seen": "time|null", "is_self": "bool",
}  # fmt: skip
INVITE = {
    "id": "str", "created_at": "time", "expires_at": "time", "uses_left": "int",
    "state": "=live|=used|=expired|=cancelled|=burnt", "short": "bool", "role": "=member|=inviter",
}  # fmt: skip
MOVE = {"model_id": "str", "shard_index": "int", "size_bytes": "int", "score": "num", "reason": "str"}
STAYS = {"model_id": "str", "shard_index": "int|null", "code": "str", "reason": "str"}
USAGE = {
    "prompt_tokens": "int", "completion_tokens": "int", "total_tokens": "int",
    "prompt_tokens_details": {"cached_tokens": "int"},
}  # fmt: skip
SWARM = {
    "stages": [{"node": "node", "layers": ["int"], "compute_ms": "num", "node_ms": "num"}], "link_ms": "num",
    "tokens_per_second": "num", "prefill_ms": "num", "proposed_tokens": "int", "accepted_tokens": "int", "resumes": "int",
}  # fmt: skip
SERVED = {
    "source": "=local|=hybrid|=network", "shards": "int", "copies": "int", "holders": "int", "whole": "int",
    "loaded": "bool", "nodes": [{"node": "node", "shards": "int"}],
}  # fmt: skip
CARD = {
    "id": "str", "object": "=model", "created": "int", "owned_by": "str", "max_model_len?": "int", "context_length?": "int",
    "swarm?": SERVED,
}  # fmt: skip
CHAT = {"model": TINY, "messages": [{"role": "user", "content": "Hello"}]}
LIVE_CHAT = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}


def pipeline(says: object) -> object:
    def arrange(rim: Rim) -> None:
        rim.pipeline.says = says

    return arrange


def codes(says: object) -> object:
    def arrange(rim: Rim) -> None:
        rim.codes.says = says

    return arrange


def members(says: object) -> object:
    def arrange(rim: Rim) -> None:
        rim.members.says = says

    return arrange


async def _an_invite(rim: Rim) -> None:
    await rim.codes.new_code(life_s=60.0, uses=1)


PAGES = (
    Row(method="GET", path="/", access=OPEN, reply=None, media="text/html", live=True),
    Row(
        method="GET", path="/static/{name}", access=OPEN, filled="/static/main.js", reply=None, media="text/javascript",
        refused=[Refused(status=404, when="there is no such file", path="/static/nothing.js")],
    ),
    Row(method="GET", path="/api/openapi.json", access=OPEN, reply={"*": "any"}, live=True),
    Row(method="GET", path="/api/docs", access=OPEN, reply=None, media="text/html", live=True),
    Row(method="GET", path="/health", access=OPEN, reply={"status": "=ok"}, live=True),
    Row(method="GET", path="/health/ready", access=OPEN, reply={"ready": "bool", "subsystems": {"*": "bool"}}, live=True),
    Row(method="GET", path="/metrics", access=READ, reply=None, media="text/plain", live=True),
    Row(method="POST", path="/api/admin/session", access=PAGE, reply={"api_key": "str"}, body={"nonce": "x"}),
    Row(
        method="POST", path="/api/admin/ws-ticket", access=KEY, live=True,
        reply={"ticket": "str", "expires_in_seconds": "int"},
    ),
)  # fmt: skip

SETTING = {
    "key": "str", "section": "str", "name": "str", "type": "=switch|=number|=text", "range": "str", "low": "int|null",
    "high": "int|null", "choices": ["str"], "default": "bool|int|str", "value": "bool|int|str|null",
    "waiting": "bool|int|str|null", "source": "=default|=file|=environment|=flag", "live": "bool", "writable": "bool",
    "why_not": "str|null", "secret": "bool", "doc": "str", "environment": "str",
}  # fmt: skip
HISTORY = {
    "interval_seconds": "num", "at": ["num"], "tokens_per_second": ["num"], "rtt_ms": ["num|null"],
    "slowest_rtt_ms": ["num|null"], "used_ram_mb": ["num"], "process_rss_mb": ["num"], "peers": ["int"],
    "active_requests": ["int"],
}  # fmt: skip

NODE = (
    Row(
        method="GET", path="/api/admin/config/schema", access=READ, reply={"settings": [SETTING], "file": "str"}, live=True
    ),
    Row(method="GET", path="/api/admin/history", access=READ, reply=HISTORY, live=True),
)

NETWORK = (
    Row(method="GET", path="/api/admin/links", access=READ, reply=[LINK], live=True),
    Row(method="GET", path="/api/admin/members", access=READ, reply=[MEMBER], live=True),
    Row(
        method="POST", path="/api/admin/members/{node}/revoke", access=KEY, filled=f"/api/admin/members/{PEER}/revoke",
        reply=MEMBER,
        refused=[
            Refused(status=400, when="a short id", path=f"/api/admin/members/{PEER[:16]}/revoke", param="node"),
            Refused(status=403, when="somebody else's member", arrange=members(Forbidden(what="not yours"))),
            Refused(status=404, when="nobody knows it", path=f"/api/admin/members/{'0' * 64}/revoke"),
            Refused(status=503, when="the list is full", arrange=members(Busy(what="full"))),
        ],
    ),
    Row(
        method="POST", path="/api/admin/invites", access=KEY, body={},
        reply={
            "code": "str", "id": "str", "created_at": "time", "expires_at": "time", "uses": "int",
            "role": "=member|=inviter", "qr_svg": "str|null", "short": "bool",
        },
        refused=[
            Refused(status=400, when="a short one with terms", body={"short": True, "uses": 3}, param="short"),
            Refused(status=400, when="a role that is none", body={"role": "king"}, param="role"),
            Refused(status=400, when="a text for the uses", body={"uses": "many"}, param="uses"),
            Refused(status=403, when="this node may not invite", arrange=codes(Forbidden(what="ask the founder"))),
            Refused(status=503, when="too many are open", arrange=codes(Busy(what="too many"))),
        ],
    ),
    Row(method="GET", path="/api/admin/invites", access=KEY, reply=[INVITE], live=True),
    Row(
        method="DELETE", path="/api/admin/invites/{id}", access=KEY, filled="/api/admin/invites/1111111111111111",
        arrange=_an_invite, reply=INVITE,
        refused=[Refused(status=404, when="nobody remembers it", path="/api/admin/invites/9")],
    ),
)  # fmt: skip

MODELS = (
    Row(
        method="POST", path="/api/admin/models", access=LOCAL_KEY, body={"path": "/models/a.gguf"},
        reply={"status": "=added", "model_id": "str", "shard_count": "int"},
        refused=[
            Refused(status=400, when="no absolute path", body={"path": "a.gguf"}, param="path"),
            Refused(status=400, when="an empty path", body={"path": ""}, param="path"),
            Refused(status=400, when="shards below 64 MB", param="shard_size_mb",
                    body={"path": "/a.gguf", "shard_size_mb": 63}),
            Refused(status=400, when="there is no file", arrange=desk(NOT_HERE), param="path"),
            Refused(status=400, when="it is no GGUF", arrange=desk(BadFile(what="no magic")), param="path"),
            Refused(status=507, when="the disk is full", arrange=desk(NoSpace(needed_bytes=2, free_bytes=1))),
        ],
    ),
    Row(
        method="GET", path="/api/admin/models/{id}/pipeline-plan", access=READ, live=True,
        reply={
            "model_id": "str",
            "stages": [
                {
                    "node": "node", "first_shard": "int", "last_shard": "int", "layers": ["int"], "standbys": ["node"],
                    "memory_mb": "int",
                }
            ],
            "predicted_token_ms": "num|null", "predicted_tokens_per_second": "num|null",
        },
        refused=[
            Refused(status=404, when="nobody knows the model", arrange=pipeline(NotFound(what="unknown"))),
            Refused(status=503, when="nobody holds a shard of it", arrange=pipeline(no_coverage()), code="no_coverage"),
        ],
    ),
    *(
        Row(
            method="POST", path=f"/api/admin/downloads/{{id}}/{verb}", access=KEY, arrange=a_download,
            reply={"status": f"={said}", "model_id": "str"},
            refused=[
                Refused(status=404, when="nothing is being fetched", path=f"/api/admin/downloads/unknown/{verb}")
            ],
        )
        for verb, said in (("pause", "paused"), ("resume", "resumed"))
    ),
    Row(
        method="PUT", path="/api/admin/downloads/{id}/place", access=KEY, arrange=a_download, body={"place": 0},
        reply={"status": "=moved", "model_id": "str", "place": "int"},
        refused=[
            Refused(status=400, when="before the first", body={"place": -1}, param="place"),
            Refused(status=400, when="no place", body={}, param="place"),
            Refused(status=404, when="nothing is being fetched", path="/api/admin/downloads/unknown/place"),
        ],
    ),
    Row(
        method="GET", path="/api/admin/auto-manage/plan", access=READ, live=True,
        reply={
            "enabled": "bool", "reduced_hours": "bool", "contribution": "str", "pool": "int", "budget_bytes": "int",
            "used_bytes": "int", "pressure": "num", "moves_left": "int", "fetch": [MOVE], "drop": [MOVE],
            "not_fetched": [STAYS], "kept": [STAYS],
            "shards": [
                {"model_id": "str", "shard_index": "int", "holders": "int", "coming": "int", "target": "int"}
            ],
        },
    ),
)  # fmt: skip

NO_MODEL = Refused(status=404, when="nobody knows the model", body=CHAT | {"model": "unknown"}, code="model_not_found")

OPENAI = (
    Row(
        method="POST", path="/v1/chat/completions", access=KEY, body=CHAT, live=True, live_body=LIVE_CHAT,
        reply={
            "id": "str", "object": "=chat.completion", "created": "int", "model": "str",
            "choices": [
                {
                    "index": "int", "finish_reason": "=stop|=length|=tool_calls", "logprobs": "null",
                    "message": {"role": "=assistant", "content": "str|null", "refusal": "null"},
                }
            ],
            "usage": USAGE, "swarm": SWARM,
        },
        refused=[
            NO_MODEL,
            Refused(status=400, when="no messages", body=CHAT | {"messages": []}, param="messages"),
            Refused(status=400, when="too hot", body=CHAT | {"temperature": 3}, param="temperature"),
            Refused(status=400, when="a role that is none", param="messages[0].role",
                    body=CHAT | {"messages": [{"role": "king", "content": "x"}]}),
            Refused(status=503, when="nobody holds a shard of it", arrange=pipeline(no_coverage()), code="no_coverage"),
        ],
    ),
    Row(
        method="POST", path="/v1/completions", access=KEY, body={"model": TINY, "prompt": "Hello"}, live=True,
        live_body={"model": "auto", "prompt": "Hello", "max_tokens": 4},
        reply={
            "id": "str", "object": "=text_completion", "created": "int", "model": "str",
            "choices": [
                {"index": "int", "text": "str", "finish_reason": "=stop|=length", "logprobs": "null"}
            ],
            "usage": USAGE, "swarm": SWARM,
        },
        refused=[
            Refused(status=400, when="no prompt", body={"model": TINY}, param="prompt"),
            Refused(status=404, when="nobody knows the model", body={"model": "unknown", "prompt": "x"}),
        ],
    ),
    Row(
        method="POST", path="/v1/embeddings", access=KEY, body={"model": TINY, "input": "Hello"}, live=True,
        live_body={"model": "auto", "input": "Hello"},
        reply={
            "object": "=list", "data": [{"object": "=embedding", "index": "int", "embedding": ["num"]}], "model": "str",
            "usage": {"prompt_tokens": "int", "total_tokens": "int"},
        },
        refused=[
            Refused(status=400, when="nothing to embed", body={"model": TINY, "input": ""}, param="input[0]"),
            Refused(status=400, when="no input", body={"model": TINY}, param="input"),
            Refused(status=404, when="nobody knows the model", body={"model": "unknown", "input": "x"}),
        ],
    ),
    Row(
        method="GET", path="/v1/providers", access=KEY, reply=[{"name": "str", "models": ["str"]}], live=True,
        more=[("one with a key", lambda rim: rim.providers.keys.add("openai"), None)],
    ),
    Row(method="GET", path="/v1/models", access=KEY, reply={"object": "=list", "data": [CARD]}, live=True),
    Row(
        method="GET", path="/v1/models/{name}", access=KEY, filled=f"/v1/models/{SPREAD}", reply=CARD,
        refused=[Refused(status=404, when="nobody knows the model", path="/v1/models/unknown", code="model_not_found")],
    ),
)  # fmt: skip

COVERAGE = {
    "model_id": "str", "display_name": "str", "size_mb": "int", "holders": "int", "total_shards": "int",
    "shards_covered": "int", "hosted_by_us": "bool",
}  # fmt: skip
CREDIT_ROW = {
    "id": "int", "hour": "time", "timestamp": "time",
    "kind": "=served|=hosted|=seeded|=relayed|=reserved|=spent|=penalty|=refunded", "amount": "int", "quantity": "int",
    "unit": "=tokens|=bytes|=byte_seconds|=milliseconds|=failures", "events": "int", "node_id": "node|null",
    "model_id": "str|null",
}  # fmt: skip

CREDITS = (
    Row(
        method="GET", path="/api/admin/credits/transactions", access=READ, live=True,
        reply={"transactions": [CREDIT_ROW], "total": "int", "next_before": "int|null"},
        refused=[
            Refused(status=400, when="no entries", path="/api/admin/credits/transactions?limit=0", param="limit"),
            Refused(status=400, when="too many", path="/api/admin/credits/transactions?limit=501", param="limit"),
            Refused(status=400, when="no number", path="/api/admin/credits/transactions?before=x", param="before"),
        ],
    ),
    Row(
        method="GET", path="/api/admin/credits/peers", access=READ, live=True,
        reply=[
            {
                "node_id": "node", "given": "int", "taken": "int", "balance": "int",
                "tier": "=bronze|=silver|=gold|=platinum", "weight": "int", "last_at": "time",
            }
        ],
    ),
    Row(
        method="GET", path="/api/admin/swarm/capacity", access=READ, live=True,
        reply={
            "online_nodes": "int", "total_vram_mb": "int|null", "total_disk_mb": "int|null", "gpu_nodes": "int",
            "regions_represented": "int", "serveable_models": [COVERAGE], "aspirational_models": [COVERAGE],
            "hosted_locally": [COVERAGE], "min_redundancy": "int", "median_redundancy": "num",
            "headline_model": ({"model_id": "str", "display_name": "str", "size_mb": "int"}, "null"), "computed_at": "int",
        },
    ),
    Row(
        method="GET", path="/api/admin/wishlist", access=READ, live=True,
        reply={
            "computed_at": "int",
            "entries": [
                {
                    "model_id": "str", "display_name": "str",
                    "status": "=hosting|=serveable|=aspirational|=candidate|=unreachable|=blocked", "score": "int",
                    "why_tags": ["str"], "swarm_replicas": "int", "target_replicas": "int", "size_mb": "int",
                    "vram_required_mb": "int", "shards_covered": "int", "total_shards": "int", "hosted_by_us": "bool",
                }
            ],
        },
    ),
)  # fmt: skip

ROWS = PAGES + NODE + NETWORK + MODELS + OPENAI + CREDITS
