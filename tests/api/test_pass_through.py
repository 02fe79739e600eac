"""Requests for a provider's models through the node's own API, with a provider on a local port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from swarmd.api.pass_through import renamed
from swarmd.domain.providers import CustomProvider, ProviderChange
from tests.fakes.provider import KEY, FakeProvider, Office, call_events, opened, serving, until
from tests.fakes.rim import TINY, Rim, adapter, keyed, running

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]


@dataclass
class House:
    fake: FakeProvider
    office: Office
    rim: Rim


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with serving(FakeProvider()) as fake, opened(Office(tmp_path)) as office:
        office.point(fake, "openai", "anthropic", "groq")
        await office.give_key("openai", "anthropic")
        async with running(Rim(tmp_path, providers=office.desk)) as rim:
            yield House(fake, office, rim)


async def test_the_client_s_json_goes_as_it_came(house: House) -> None:
    body = (
        b'{"model":"openai:gpt-4o","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:x"}}]}],'
        b'"temperature":9.50,"odd":{"a":[1,2.0]}}'
    )
    async with house.rim.client(**keyed()) as client:
        answered = await client.post(CHAT, data=body, headers={"content-type": "application/json"})
        assert answered.status == 200 and answered.headers["x-swarm-provider"] == "openai"
        assert (await answered.json())["system_fingerprint"] == "fp"
    assert house.fake.bodies == [body.replace(b"openai:gpt-4o", b"gpt-4o")]
    _, headers, _ = house.fake.requests[-1]
    assert headers["authorization"] == f"Bearer {KEY}", "and not this node's own"


async def test_a_stream_comes_byte_for_byte(house: House) -> None:
    async with house.rim.client(**keyed()) as client:
        answered = await client.post(CHAT, json={"model": "gpt-4o", "messages": HI, "stream": True})
        assert answered.content_type == "text/event-stream"
        text = await answered.read()
    sent = b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in house.fake.events) + b"data: [DONE]\n\n"
    assert text == sent


async def test_the_first_event_does_not_wait_for_the_second(house: House) -> None:
    async with house.rim.client(**keyed()) as client:
        answered = await client.post(CHAT, json={"model": "openai:slow", "messages": HI, "stream": True})
        async with asyncio.timeout(5):
            assert b"Hel" in await answered.content.readany()
        house.fake.go_on.set()
        assert b"[DONE]" in await answered.read()


async def test_a_client_that_hangs_up_takes_the_provider_s_connection_with_it(house: House) -> None:
    async with house.rim.client(**keyed()) as client:
        answered = await client.post(CHAT, json={"model": "openai:slow", "messages": HI, "stream": True})
        await answered.content.readany()
        answered.close()
        await until(house.fake.left.is_set)
        house.fake.left.clear()
        task = asyncio.create_task(client.post(CHAT, json={"model": "openai:silent", "messages": HI}))
        await until(lambda: house.fake.asked("/v1/chat/completions") == 2)
        task.cancel()
        await until(house.fake.left.is_set)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "status", "code"),
    [("denied", 401, "provider_key_refused"), ("absent", 404, "model_not_found"), ("limited", 429, "rate_limit_error"),
     ("overloaded", 529, "overloaded_error"), ("moved", 502, "provider_failed")],
)  # fmt: skip
async def test_what_the_provider_says_no_with(house: House, model: str, status: int, code: str, stream: bool) -> None:
    async with house.rim.client(**keyed()) as client:
        answered = await client.post(CHAT, json={"model": f"openai:{model}", "messages": HI, "stream": stream})
        error = (await answered.json())["error"]
    assert (answered.status, error["code"], error["type"]) == (status, code, "provider_error")
    assert error["message"].startswith("provider openai ") and KEY not in json.dumps(error)
    assert answered.headers["x-swarm-provider"] == "openai" and "www-authenticate" not in answered.headers
    assert answered.headers.get("retry-after") == ("17" if model == "limited" else None)


async def test_a_cut_stream_ends_with_an_error_event(house: House) -> None:
    async with house.rim.client(**keyed()) as client:
        answered = await client.post(CHAT, json={"model": "openai:cut", "messages": HI, "stream": True})
        text = (await answered.read()).decode()
    *_, last, empty = text.split("\n\n")
    assert empty == "" and json.loads(last.removeprefix("data: "))["error"]["code"] == "provider_unreachable"
    assert "[DONE]" not in text


async def test_the_swarm_s_own_models_come_first_and_nothing_leaves(house: House) -> None:
    async with house.rim.client(**keyed()) as client:
        for model in (TINY, "auto"):
            answered = await client.post(CHAT, json={"model": model, "messages": HI})
            assert "x-swarm-provider" not in answered.headers and (await answered.json())["model"] == TINY
        house.rim.models.known.clear()
        assert (await client.post(CHAT, json={"model": "auto", "messages": HI})).status == 404
        assert (await client.post(CHAT, json={"model": "nobodys", "messages": HI})).status == 404
        assert (await client.post(CHAT, json={"model": "llama-3.1-8b", "messages": HI})).status == 404  # groq has no key
    assert house.fake.bodies == []


async def test_adapters_are_the_swarm_s(house: House) -> None:
    house.rim.adapters.rows["poet"] = adapter("poet", TINY)
    async with house.rim.client(**keyed()) as client:
        answered = await client.post(CHAT, json={"model": "openai:gpt-4o", "messages": HI, "lora_adapter": "poet"})
        assert (answered.status, (await answered.json())["error"]["param"]) == (400, "lora_adapter")


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_s_dialect_to_anthropic_s_wire(house: House, stream: bool) -> None:
    async with house.rim.client(**keyed()) as client:
        answered = await client.post(CHAT, json={"model": "claude-sonnet-4-6", "messages": HI, "stream": stream})
        assert answered.status == 200 and answered.headers["x-swarm-provider"] == "anthropic"
        text = await answered.text()
    if stream:
        events = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
        assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "Hello"
        assert text.endswith("data: [DONE]\n\n")
    else:
        body = json.loads(text)
        assert body["choices"][0]["message"]["content"] == "Hello" and body["model"] == "anthropic:claude-sonnet-4-6"
        assert body["usage"]["total_tokens"] == 11
    assert house.fake.requests[-1][0] == "/v1/messages"


async def test_several_choices_over_the_inner_road(house: House) -> None:
    async with house.rim.client(**keyed()) as client:
        answered = await client.post(CHAT, json={"model": "claude-x", "messages": HI, "n": 3})
        choices = (await answered.json())["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["Hello"] * 3
    assert house.fake.asked("/v1/messages") == 3


@pytest.mark.parametrize(("model", "status"), [("denied", 401), ("overloaded", 529), ("limited", 429)])
async def test_refusals_over_the_inner_road(house: House, model: str, status: int) -> None:
    async with house.rim.client(**keyed()) as client:
        answered = await client.post(CHAT, json={"model": f"anthropic:{model}", "messages": HI})
        assert answered.status == status
        assert (await answered.json())["error"]["message"].startswith("provider anthropic ")


async def test_completions_and_embeddings_where_the_provider_has_them(house: House) -> None:
    async with house.rim.client(**keyed()) as client:
        answered = await client.post("/v1/completions", json={"model": "openai:x", "prompt": ["a", "b"], "best_of": 2})
        assert answered.status == 200 and house.fake.requests[-1][0] == "/v1/completions"
        answered = await client.post("/v1/embeddings", json={"model": "openai:e", "input": "a", "dimensions": 2})
        assert (await answered.json())["extra"] == 1
        for path, what in (("/v1/completions", "prompt"), ("/v1/embeddings", "input")):
            answered = await client.post(path, json={"model": "claude-x", what: "a"})
            error = (await answered.json())["error"]
            assert answered.status == 400 and error["param"] == "model" and "provider anthropic has no" in error["message"]


async def test_tools_in_a_stream_of_a_custom_provider(house: House) -> None:
    house.fake.events = call_events()
    change = ProviderChange(custom=(CustomProvider(name="mine", base_url=house.fake.base_url),))
    assert await house.office.desk.change(change) is None
    async with house.rim.client(**keyed()) as client:
        answered = await client.post(CHAT, json={"model": "mine:q", "messages": HI, "stream": True})
        assert b"call_a" in await answered.read()
    assert "authorization" not in house.fake.requests[-1][1]


async def test_models_are_listed_under_a_name_that_gets_them(house: House) -> None:
    change = ProviderChange(custom=(CustomProvider(name="mine", base_url=house.fake.base_url),))
    assert await house.office.desk.change(change) is None
    async with house.rim.client(**keyed()) as client:
        listed = {row["id"]: row for row in (await (await client.get("/v1/models")).json())["data"]}
        assert listed["small"]["owned_by"] == "mine" and listed["openai:small"]["owned_by"] == "openai"
        assert listed["small"]["context_length"] == 4096 and "context_length" not in listed["org/large"]
        assert listed[TINY]["owned_by"] == "local" and listed["claude-haiku-4-5"]["owned_by"] == "anthropic"
        for id in ("org/large", "openai:org/large", "openai:small"):
            assert (await (await client.get(f"/v1/models/{id}")).json())["id"] == id
        assert (await client.get("/v1/models/openai:nothing")).status == 404
        house.rim.set("providers.list_models", False)
        listed = [row["id"] for row in (await (await client.get("/v1/models")).json())["data"]]
        assert "small" not in listed and TINY in listed


@pytest.mark.parametrize("model", ["openai:gpt-4o", "claude-sonnet-4-6"])
async def test_other_dialects_take_the_inner_road(house: House, model: str) -> None:
    async with house.rim.client(**keyed()) as client:
        answered = await client.post("/v1/responses", json={"model": model, "input": "hi", "store": False})
        body = await answered.json()
        assert answered.status == 200, body
        assert body["output"][0]["content"][0]["text"] == "Hello"
        refused = await client.post("/v1/responses", json={"model": "openai:limited", "input": "hi", "store": False})
        assert refused.status == 429


async def test_bodies_that_cannot_be_read_are_the_row_s_to_refuse(house: House) -> None:
    async with house.rim.client(**keyed()) as client:
        for body in (b"{", b"[]", b'{"model": 5}', b'{"messages": []}', b"\xff", b"[" * 100_000):
            answered = await client.post(CHAT, data=body, headers={"content-type": "application/json"})
            assert answered.status == 400 and (await answered.json())["error"]["type"] == "invalid_request_error"


async def test_no_key_no_provider(house: House) -> None:
    async with house.rim.client() as client:
        assert (await client.post(CHAT, json={"model": "openai:x", "messages": HI})).status == 401
    assert house.fake.bodies == []


def test_only_the_model_changes() -> None:
    assert renamed(b'{"a": 1.50, "model" : "x:y", "z":[ 1 ]}', "y") == b'{"a":1.50,"model":"y","z":[ 1 ]}'


MESSAGES = "/v1/messages"


@pytest.mark.parametrize("model", ["openai:gpt-4o", "claude-sonnet-4-6"])
@pytest.mark.parametrize("stream", [False, True])
async def test_whole_responses_and_messages_of_a_provider_did_not_say_whose_they_are(
    house: House, model: str, stream: bool
) -> None:
    provider = "openai" if ":" in model else "anthropic"
    asked = {"model": model, "max_tokens": 9, "messages": HI, "stream": stream}
    async with house.rim.client(**keyed()) as client:
        for path, body in (("/v1/responses", {"model": model, "input": "hi", "stream": stream}), (MESSAGES, asked)):
            answered = await client.post(path, json=body)
            assert answered.status == 200 and answered.headers["x-swarm-provider"] == provider, path
            assert "x-swarm-nodes" not in answered.headers
            await answered.read()
        assert answered.headers["request-id"] == answered.headers["x-request-id"]


@pytest.mark.parametrize("model", ["openai:cut", "anthropic:cut"])
async def test_a_cut_stream_of_messages_had_an_error_without_the_request_s_id(house: House, model: str) -> None:
    async with house.rim.client(**keyed()) as client:
        answered = await client.post(MESSAGES, json={"model": model, "max_tokens": 9, "messages": HI, "stream": True})
        text = (await answered.read()).decode()
    *_, last, empty = text.split("\n\n")
    name, data = last.split("\n")
    error = json.loads(data.removeprefix("data: "))
    assert empty == "" and name == "event: error" and error["request_id"] == answered.headers["request-id"]
    assert (error["type"], error["error"]["type"]) == ("error", "api_error") and "broke" in error["error"]["message"]
    assert "message_stop" not in text


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_bug_in_the_middle_of_a_passed_stream_ends_it_in_its_dialect(
    house: House, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def torn(_answer: object) -> AsyncIterator[bytes]:
        yield b'data: {"half'
        raise RuntimeError("secret")

    monkeypatch.setattr("swarmd.providers.desk.PassedOn.pieces", torn)
    model = "openai:x" if path == CHAT else "anthropic:x"
    async with house.rim.client(**keyed()) as client:
        answered = await client.post(path, json={"model": model, "max_tokens": 9, "messages": HI, "stream": True})
        half, last, empty = (await answered.read()).decode().split("\n\n")
    assert half == 'data: {"half' and empty == "" and "secret" not in last
    error = json.loads(last.rpartition("data: ")[2])
    if path == CHAT:
        assert last.startswith("data: ") and error["error"]["code"] == "internal_error"
    else:
        assert last.startswith("event: error\n") and error["error"]["type"] == "api_error"
        assert error["request_id"] == answered.headers["request-id"]
