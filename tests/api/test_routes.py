"""The table: complete, without doubles, documented."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swarmd.api.guard import Guard
from tests.fakes.rim import Rim

ADMIN = """
GET /api/admin/stats
GET /api/admin/peers
GET /api/admin/config
PUT /api/admin/config
POST /api/admin/config/reload
POST /api/admin/shutdown
GET /api/admin/models
POST /api/admin/models/{model}/add
GET /api/admin/models/{model}/status
DELETE /api/admin/models/{model}
DELETE /api/admin/models/{model}/shards/{index}
POST /api/admin/rescan-shards
GET /api/admin/models/{model}/metadata
POST /api/admin/models/{model}/shards/{index}/download
POST /api/admin/models/{model}/shards/{index}/unload
POST /api/admin/models/{model}/shards/{index}/load
POST /api/admin/models/{model}/unload
GET /api/admin/shard-storage
GET /api/admin/prune-history
GET /api/admin/schedule
PUT /api/admin/schedule
GET /api/admin/models/{model}/auto-manage
PUT /api/admin/models/{model}/auto-manage
GET /api/admin/models/{model}/encrypted-pipeline
PUT /api/admin/models/{model}/encrypted-pipeline
GET /api/admin/adapters
POST /api/admin/adapters
DELETE /api/admin/adapters/{id}
PUT /api/admin/models/{model}/shards/{index}/lock
GET /api/admin/hf/search
GET /api/admin/hf/probe
POST /api/admin/hf/download-shards
GET /api/admin/hf/source/{model}
GET /api/admin/downloads
POST /api/admin/downloads/{model}/cancel
GET /api/admin/providers
PUT /api/admin/providers
GET /api/admin/provider-models
GET /api/admin/provider-health
POST /api/admin/provider-model-status
GET /api/admin/claude-subscription/status
GET /api/admin/version
GET /api/admin/network-code
GET /api/admin/network-map
POST /api/admin/join-network
GET /api/admin/api-key
GET /api/admin/ws
"""
"""The seed's endpoints of this milestone, in its order."""
OURS = """
GET /api/admin/auto-manage/plan
GET /api/admin/links
GET /api/admin/members
POST /api/admin/members/{node}/revoke
POST /api/admin/models
POST /api/admin/downloads/{model}/pause
POST /api/admin/downloads/{model}/resume
PUT /api/admin/downloads/{model}/place
GET /api/admin/models/{model}/pipeline-plan
POST /api/admin/invites
GET /api/admin/invites
DELETE /api/admin/invites/{id}
POST /api/admin/session
POST /api/admin/ws-ticket
GET /api/openapi.json
GET /api/docs
GET /health
GET /health/ready
GET /
GET /static/{name}
POST /v1/chat/completions
POST /v1/completions
POST /v1/embeddings
GET /metrics
GET /v1/models
GET /v1/models/{id}
GET /v1/providers
"""
KEYLESS_IN_THE_SEED = ("stats", "peers", "config", "models", "shard-storage", "version", "network-code", "network-map", "ws",
                        "hf/search", "hf/probe", "hf/source/{model}", "downloads", "providers", "provider-models",
                        "provider-health", "claude-subscription/status")  # fmt: skip


def listed(text: str) -> set[str]:
    return set(text.split("\n")) - {""}


def test_every_endpoint_of_the_milestone_is_there_and_nothing_else(rim: Rim) -> None:
    assert {f"{row.method} {row.plain_path}" for row in rim.rows} == listed(ADMIN) | listed(OURS)


def test_every_row_is_documented(rim: Rim) -> None:
    for row in rim.rows:
        assert row.doc.endswith("."), row.path
        assert row.reply is not None or row.media != "application/json", row.path


def test_everything_but_get_needs_the_key(rim: Rim) -> None:
    """One exception hands the key to the dashboard's page, against its nonce; the other the seed makes."""
    open_writes = [row.path for row in rim.rows if row.method != "GET" and row.guard not in (Guard.WRITE, Guard.LOCAL_WRITE)]
    assert sorted(open_writes) == ["/api/admin/provider-model-status", "/api/admin/session"]


def test_reads_of_the_seed_are_reads(rim: Rim) -> None:
    for row in rim.rows:
        name = row.path.removeprefix("/api/admin/")
        if row.method == "GET" and name in KEYLESS_IN_THE_SEED:
            assert row.guard in (Guard.READ, Guard.LOCAL_READ, Guard.SOCKET), row.path


def test_rows_know_their_handlers(rim: Rim) -> None:
    handlers: list[Callable[..., Any]] = [row.handler for row in rim.rows]
    assert len({f"{row.handler.__qualname__}" for row in rim.rows}) == len(handlers)
