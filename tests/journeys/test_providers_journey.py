"""A live node sends models to providers of both wires, and the official clients notice nothing but the name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from tests.fakes.nodes import running
from tests.fakes.provider import KEY, FakeProvider, call_events, serving

HELLO: Any = [{"role": "user", "content": "hello"}]
WEATHER: Any = {"type": "object", "properties": {"city": {"type": "string"}}}
MODELS = ("mine:m", "anthropic:m")


@dataclass
class House:
    fake: FakeProvider
    anthropic: anthropic.AsyncAnthropic
    openai: openai.AsyncOpenAI


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with serving(FakeProvider()) as fake:
        urls = {"providers__private_addresses": True, "providers__anthropic_url": fake.root_url}
        async with running(tmp_path / "node", **urls) as node:
            key = node.api_key_path.read_text().strip()
            async with aiohttp.ClientSession(node.url, headers={"x-api-key": key}) as session:
                change = {"anthropic_key": KEY, "custom": [{"name": "mine", "base_url": fake.base_url, "key": KEY}]}
                assert (await session.put("/api/admin/providers", json=change)).status == 200
            async with (
                anthropic.AsyncAnthropic(base_url=node.url, api_key=key, max_retries=0) as first,
                openai.AsyncOpenAI(base_url=f"{node.url}v1", api_key=key, max_retries=0) as second,
            ):
                yield House(fake, first, second)


async def test_streams_and_tools_of_both_wires_in_both_dialects(house: House) -> None:
    for model in MODELS:
        async with house.anthropic.messages.stream(model=model, max_tokens=9, messages=HELLO) as stream:
            assert await stream.get_final_text() == "Hello"
        async with house.openai.responses.stream(model=model, input="hello") as events:
            assert (await events.get_final_response()).output_text == "Hello"
    house.fake.events = call_events()
    async with house.anthropic.messages.stream(
        model="mine:m", max_tokens=9, messages=HELLO, tools=[{"name": "weather", "input_schema": WEATHER}]
    ) as stream:
        message = await stream.get_final_message()
    (call,) = message.content
    assert call.type == "tool_use" and (call.name, call.input) == ("weather", {"city": "Ulm"})
    assert message.stop_reason == "tool_use" and house.fake.requests[-1][2]["tools"][0]["function"]["name"] == "weather"
    tool: Any = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}
    reply = await house.openai.responses.create(model="mine:m", input="hello", tools=[tool])
    (item,) = reply.output
    assert item.type == "function_call" and json.loads(item.arguments) == {"city": "Ulm"}


@pytest.mark.parametrize("stream", [False, True])
async def test_errors_of_providers_keep_their_status_in_both_dialects(house: House, stream: bool) -> None:
    for provider in ("mine", "anthropic"):
        for model, status in (("denied", 401), ("limited", 429), ("overloaded", 529)):
            name: Any = f"{provider}:{model}"
            with pytest.raises(anthropic.APIStatusError) as said:
                await house.anthropic.messages.create(model=name, max_tokens=9, messages=HELLO, stream=stream)
            assert said.value.status_code == status and f"provider {provider} " in str(said.value)
            assert said.value.response.headers["x-swarm-provider"] == provider and KEY not in str(said.value)
            if not stream:
                with pytest.raises(openai.APIStatusError) as told:
                    await house.openai.responses.create(model=name, input="hello")
                assert told.value.status_code == status and told.value.response.headers["x-swarm-provider"] == provider


async def test_a_provider_that_breaks_off_is_an_error_in_both_dialects(house: House) -> None:
    for provider in ("mine", "anthropic"):
        with pytest.raises(anthropic.APIStatusError, match="broke the connection off"):
            async with house.anthropic.messages.stream(model=f"{provider}:cut", max_tokens=9, messages=HELLO) as stream:
                await stream.get_final_message()
        events: list[Any] = [
            event async for event in await house.openai.responses.create(model=f"{provider}:cut", input="x", stream=True)
        ]
        assert events[-1].type == "response.failed" and events[-1].response.error.code == "provider_unreachable"
