"""Generations that a provider makes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from swarmd.domain.generation import ChatMessage, Finish, GenerationFailed, GenerationRequest, TokenChunk
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.refusals import Invalid, ProviderFailed, Refusal
from swarmd.kit.world import real_world
from swarmd.providers.conversation import open_conversation, status_in
from tests.fakes.provider import FakeProvider, call_events, line, openai_events, ready, until

REQUEST = GenerationRequest(
    request=RequestId("r"), model=ModelId("m"), messages=(ChatMessage(role="user", content="hi"),), max_tokens=9
)


async def asked(fake: FakeProvider, model: str = "m", name: str = "openai") -> list[TokenChunk] | Refusal:
    async with line() as door:
        request = replace(REQUEST, model=ModelId(model))
        opened = await open_conversation(door, ready(fake, name), request, clock=real_world().clock)
        if isinstance(opened, Refusal):
            return opened
        async with opened:
            return [chunk async for chunk in opened]


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_a_reply_looks_like_one_of_the_swarm(fake: FakeProvider, name: str) -> None:
    chunks = await asked(fake, name=name)
    assert not isinstance(chunks, Refusal)
    assert [chunk.text for chunk in chunks] == ["Hel", "lo", ""]
    assert [chunk.sequence for chunk in chunks] == [0, 1, 2]
    usage = chunks[-1].usage
    assert chunks[-1].finish is Finish.STOP and usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (9, 2, 4)
    path, headers, body = fake.requests[0]
    assert (path, body["stream"]) == ("/v1/messages" if name == "anthropic" else "/v1/chat/completions", True)
    assert headers.get("anthropic-version") == ("2023-06-01" if name == "anthropic" else None)


async def test_calls(fake: FakeProvider) -> None:
    fake.events = call_events()
    chunks = await asked(fake)
    assert not isinstance(chunks, Refusal)
    assert "".join(call.arguments for chunk in chunks for call in chunk.calls) == '{"city":"Ulm"}'
    assert chunks[-1].finish is Finish.TOOL_CALLS


@pytest.mark.parametrize("name", ["openai", "anthropic"])
@pytest.mark.parametrize(("model", "status"), [("denied", 401), ("absent", 404), ("limited", 429), ("overloaded", 529)])
async def test_a_provider_that_says_no_is_a_refusal(fake: FakeProvider, name: str, model: str, status: int) -> None:
    refusal = await asked(fake, model, name)
    assert isinstance(refusal, ProviderFailed) and refusal.status == status and refusal.provider == name


@pytest.mark.parametrize("name", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("model", "said"),
    [("cut", "broke the connection off"), ("short", "in the middle"), ("failing", "answered 529: Overloaded")],
)
async def test_a_reply_that_does_not_come_to_its_end(fake: FakeProvider, name: str, model: str, said: str) -> None:
    with pytest.raises(GenerationFailed) as raised:
        await asked(fake, model, name)
    assert said in raised.value.refusal.sentence


async def test_nonsense_in_place_of_events(fake: FakeProvider) -> None:
    fake.events = ["no object"]  # type: ignore[list-item]
    with pytest.raises(GenerationFailed, match="no JSON objects"):
        await asked(fake)


async def test_no_usage_is_no_figure(fake: FakeProvider) -> None:
    fake.events = openai_events("a", usage=False)
    chunks = await asked(fake)
    assert not isinstance(chunks, Refusal) and chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (0, 0)


async def test_what_the_wire_cannot_say_is_not_sent(fake: FakeProvider) -> None:
    async with line() as door:
        request = replace(REQUEST, messages=(), prompt="x")
        assert isinstance(await open_conversation(door, ready(fake), request, clock=real_world().clock), Invalid)
    assert fake.requests == []


async def test_leaving_early_hangs_up(fake: FakeProvider) -> None:
    async with line() as door:
        request = replace(REQUEST, model=ModelId("slow"))
        opened = await open_conversation(door, ready(fake), request, clock=real_world().clock)
        assert not isinstance(opened, Refusal)
        async with opened:
            assert (await anext(opened)).text == "Hel"
        await until(fake.left.is_set)


async def test_a_cancelled_reader_hangs_up(fake: FakeProvider) -> None:
    task = asyncio.create_task(asked(fake, "slow"))
    await until(lambda: bool(fake.requests))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(fake.left.is_set)


def test_statuses_of_errors_within_a_stream() -> None:
    assert status_in(b'{"error": {"type": "overloaded_error"}}') == 529
    assert status_in(b'{"error": {"code": 418}}') == 418
    assert status_in(b'{"error": "x"}') == status_in(b"no json") == 502
