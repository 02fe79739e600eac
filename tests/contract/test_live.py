"""The contract against a real node: its own process, real floors, the built-in model; and random requests to all of it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.contract.row import Access, Row
from tests.contract.shape import faults
from tests.contract.table import THERE
from tools.schemathesis import LiveNode, command_line, live_node, run

MODEL = "swarmd-builtin"
LIVE = [row for row in THERE if row.live]


def ask(node: LiveNode, row: Row, *, key: bool) -> tuple[int, str, bytes]:
    path = row.live_filled or (row.filled or row.at(model=MODEL)).replace("tiny-q8", MODEL)
    body = row.live_body or row.body
    headers = {"content-type": "application/json"} | ({"x-api-key": node.key} if key else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(node.url + path, data=data, headers=headers, method=row.method)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.headers.get_content_type(), reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get_content_type(), error.read()


@pytest.mark.parametrize("row", LIVE, ids=lambda row: row.place)
def test_a_live_node_answers_as_the_contract_says(row: Row, node: LiveNode) -> None:
    status, media, text = ask(node, row, key=True)
    assert status == row.status, text[:500]
    if row.reply is None:
        assert media == row.media
    else:
        assert (media, faults(row.reply, json.loads(text))) == ("application/json", [])
    status, _, _ = ask(node, row, key=False)
    assert status == (401 if row.access in (Access.KEY, Access.LOCAL_KEY) else row.status)


def test_refusals_of_a_live_node_have_the_envelope(node: LiveNode) -> None:
    """What no fake decides: the floors below are asked."""
    shard = f"/api/admin/models/{MODEL}/shards"
    asked: list[tuple[str, str, Any, int, str | None]] = [
        ("POST", f"{shard}/4711/load", None, 400, "index"),
        ("DELETE", f"{shard}/4711", None, 400, "index"),
        ("PUT", f"{shard}/4711/lock", {"locked": True}, 400, "index"),
        ("POST", "/api/admin/models/nobody/shards/0/load", None, 404, None),
        ("DELETE", "/api/admin/models/nobody", None, 404, None),
        ("POST", "/api/admin/models/nobody/unload", None, 404, None),
        ("POST", "/api/admin/models/nobody/add", None, 404, None),
        ("GET", "/api/admin/models/nobody/metadata", None, 400, "model"),
        ("GET", "/api/admin/models/nobody/pipeline-plan", None, 404, None),
        ("GET", "/api/admin/models/nobody/encrypted-pipeline", None, 404, None),
        ("PUT", "/api/admin/models/nobody/encrypted-pipeline", {"enabled": True}, 404, None),
        ("POST", "/api/admin/models", {"path": "/nothing/here.gguf"}, 400, "path"),
        ("DELETE", "/api/admin/adapters/nobody", None, 400, "id"),
        ("POST", "/api/admin/downloads/nobody/cancel", None, 400, "model"),
        ("GET", "/api/admin/hf/search?query=tiny", None, 502, None),
        ("POST", "/api/admin/join-network", {"code": "swarm://nonsense"}, 400, None),
        ("POST", "/v1/chat/completions", {"model": "nobody", "messages": [{"role": "user", "content": "x"}]}, 404, None),
    ]  # fmt: skip
    envelope = {"error": {"message": "str", "type": "str", "param": "str|null", "code": "str"}}
    found: list[str] = []
    for method, path, body, status, param in asked:
        answered, said = node.ask(method, path, body)
        if answered != status or faults(envelope, said) or (param and said["error"]["param"] != param):
            found.append(f"{method} {path}: {answered} {said}, not {status} {param}")
    assert found == []


def test_random_requests_find_nothing(node: LiveNode) -> None:
    """Some of each kind, the same in every run: six seconds, on a busy machine minutes. `python -m tools.schemathesis`
    sends 2,000 to each operation."""
    more = ("--phases", "fuzzing", "--no-shrink", "--workers", "1")
    code, text = run(command_line(node, examples=3, seed=20260, more=more), timeout_s=600)
    node.restored()
    assert code == 0, text[-6000:]


def test_shutdown_ends_the_node(tmp_path: Path) -> None:
    """By hand, since random requests must not: without the key it goes on, with it the process ends in order."""
    with live_node(tmp_path) as own:
        stranger = LiveNode(url=own.url, key="0" * 64)
        assert stranger.ask("POST", "/api/admin/shutdown")[0] == 401
        assert own.ask("GET", "/health")[0] == 200
        assert own.ask("POST", "/api/admin/shutdown") == (200, {"status": "shutting_down"})
        assert own.ended(within_s=20) == 0
