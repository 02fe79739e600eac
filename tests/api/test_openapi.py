from __future__ import annotations

import html
import re
from typing import Any

from tests.fakes.rim import Rim


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*(references(one) for one in value.values()))
    if isinstance(value, list):
        return set().union(*(references(one) for one in value))
    return set()


async def described(rim: Rim) -> dict[str, Any]:
    async with rim.client() as client, client.get("/api/openapi.json") as reply:
        assert reply.status == 200
        found: dict[str, Any] = await reply.json()
        return found


async def test_it_lists_exactly_the_table(rim: Rim) -> None:
    document = await described(rim)
    listed = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    assert listed == {(row.method, row.plain_path) for row in rim.rows}
    assert document["openapi"].startswith("3.1")


async def test_every_reference_leads_somewhere(rim: Rim) -> None:
    document = await described(rim)
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= known


async def test_operations_say_what_they_take_and_need(rim: Rim) -> None:
    document = await described(rim)
    ids = set()
    for row in rim.rows:
        operation = document["paths"][row.plain_path][row.method.lower()]
        ids.add(operation["operationId"])
        names = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert names == set(re.findall(r"\{(\w+)\}", row.plain_path))
        assert ("requestBody" in operation) == (row.request is not None)
        assert operation["x-guard"] == row.guard.value
        others = {"default"} if row.elsewhere is not None else set()  # statuses of providers are theirs
        assert set(operation["responses"]) == {str(status) for status in row.statuses} | others
    assert len(ids) == len(rim.rows)
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert chat["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ChatRequest"}
    assert chat["security"] == [{"bearer": []}, {"apiKey": []}]
    assert {} in document["paths"]["/api/admin/stats"]["get"]["security"]


async def test_bodies_have_schemas_by_status_and_media(rim: Rim) -> None:
    paths = (await described(rim))["paths"]
    chat = paths["/v1/chat/completions"]["post"]["responses"]
    assert set(chat["200"]["content"]) == {"application/json", "text/event-stream"}
    assert chat["200"]["content"]["text/event-stream"]["x-events"]["anyOf"][0] == {"$ref": "#/components/schemas/ChatChunk"}
    assert chat["415"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorReply"}
    ready = paths["/health/ready"]["get"]["responses"]
    assert ready["503"]["content"]["application/json"]["schema"] == ready["200"]["content"]["application/json"]["schema"]
    assert set(paths["/metrics"]["get"]["responses"]["200"]["content"]) == {"text/plain"}
    assert "content" not in paths["/static/{name}"]["get"]["responses"]["304"]


async def test_parameters_have_their_limits(rim: Rim) -> None:
    paths = (await described(rim))["paths"]
    model, index = paths["/api/admin/models/{model}/shards/{index}/load"]["post"]["parameters"]
    assert model["schema"]["maxLength"] == 256 and model["schema"]["pattern"].startswith("^[a-z0-9]")
    assert index["schema"] == {"type": "integer", "minimum": 0, "maximum": 4294967294}
    query = paths["/api/admin/hf/search"]["get"]["parameters"][0]
    assert query["in"] == "query" and query["schema"]["maxLength"] == 256 and query["description"]
    body = paths["/api/admin/config"]["put"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["shard_size_mb"]["maximum"] == 2048


async def test_the_page_needs_no_script_and_no_internet(rim: Rim) -> None:
    async with rim.client() as client, client.get("/api/docs") as reply:
        text = await reply.text()
        policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "sha256-" in policy
    assert "<script" not in text and "http://" not in text and "https://" not in text
    for row in rim.rows:
        assert f"{row.method} {row.plain_path}" in text
        assert html.escape(row.doc) in text
