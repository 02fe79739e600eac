"""The OpenAI dialect, asked by the official client over a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from swarmd.domain.generation import Finish, Logprob, TokenChunk
from swarmd.domain.ids import ModelId
from swarmd.domain.refusals import Busy, PromptTooLong, StageFailed
from swarmd.domain.structure import CallPiece
from tests.fakes.rim import (
    KEY,
    OWN,
    PEER,
    SPREAD,
    TINY,
    USAGE,
    Rim,
    failed,
    keyed,
    model_view,
    no_coverage,
    script,
)  # fmt: skip

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def client(rim: Rim) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{rim.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


async def test_a_whole_reply(rim: Rim, client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(model=TINY, messages=HELLO)
    reply = raw.parse()
    assert reply.id.startswith("chatcmpl-") and reply.object == "chat.completion" and reply.model == TINY
    assert raw.headers["x-request-id"] in reply.id
    (choice,) = reply.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Hello!", "stop")
    assert choice.logprobs is None
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (7, 3, 10)
    assert raw.headers["x-swarm-nodes"] == f"{OWN[:16]},{PEER[:16]}"
    assert raw.headers["server-timing"] == (
        f'prefill;dur=12.3, stage0;desc="{OWN[:16]} layers 0-2";dur=5.000, '
        f'stage1;desc="{PEER[:16]} layers 2-4";dur=7.000, link;dur=1.500'
    )
    swarm: Any = (reply.model_extra or {})["swarm"]
    assert swarm == {
        "stages": [
            {"node": OWN[:16], "layers": [0, 2], "compute_ms": 4.0, "node_ms": 5.0},
            {"node": PEER[:16], "layers": [2, 4], "compute_ms": 6.0, "node_ms": 7.0},
        ],
        "link_ms": 1.5, "tokens_per_second": 50.0, "prefill_ms": 12.3, "proposed_tokens": 0,
        "accepted_tokens": 0, "resumes": 0,
    }  # fmt: skip
    assert rim.pipeline.requests[0].sampling.temperature == 0.7
    assert rim.pipeline.requests[0].max_tokens == 2048


async def test_a_stream(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=TINY, messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello!"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)
    assert (chunks[-1].model_extra or {})["swarm"]["tokens_per_second"] == 50.0


async def test_usage_in_a_stream(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=TINY, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == [] and chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 10
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == "stop"


async def test_the_bytes_of_a_stream(rim: Rim) -> None:
    """What other clients look at: one `data:` line an event, `[DONE]`, `usage` only when it was asked for."""
    body = {"model": TINY, "messages": HELLO, "stream": True}
    async with rim.client(**keyed()) as session, session.post("/v1/chat/completions", json=body) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-swarm-nodes"]
        events = (await reply.text()).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    first = json.loads(events[0].removeprefix("data: "))
    assert list(first) == ["id", "object", "created", "model", "choices"]
    assert first["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None, "logprobs": None}
    ]


async def test_logprobs(rim: Rim, client: AsyncOpenAI) -> None:
    picked, other = Logprob(token=5, text="é", logprob=-0.5), Logprob(token=6, text="e", logprob=-1.5)
    rim.pipeline.script = [
        TokenChunk(sequence=0, text="é", logprobs=((picked, (picked, other)),)),
        TokenChunk(sequence=1, text="", finish=Finish.LENGTH, usage=USAGE),
    ]
    reply = await client.chat.completions.create(model=TINY, messages=HELLO, logprobs=True, top_logprobs=2)
    assert rim.pipeline.requests[0].sampling.top_logprobs == 2
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    (token,) = logprobs.content
    assert (token.token, token.logprob, token.bytes) == ("é", -0.5, [0xC3, 0xA9])
    assert [(one.token, one.logprob) for one in token.top_logprobs] == [("é", -0.5), ("e", -1.5)]
    assert reply.choices[0].finish_reason == "length"
    stream = await client.chat.completions.create(model=TINY, messages=HELLO, logprobs=True, stream=True)
    streamed = [chunk async for chunk in stream]
    assert streamed[1].choices[0].logprobs is not None
    assert rim.pipeline.requests[1].sampling.top_logprobs == 0


async def test_completions(rim: Rim, client: AsyncOpenAI) -> None:
    reply = await client.completions.create(model=TINY, prompt="once", max_tokens=5, stop=["\n"])
    assert (reply.object, reply.choices[0].text, reply.choices[0].finish_reason) == ("text_completion", "Hello!", "stop")
    assert reply.usage is not None and reply.usage.completion_tokens == 3
    request = rim.pipeline.requests[0]
    assert (request.prompt, request.messages, request.max_tokens, request.stop) == ("once", (), 5, ("\n",))
    stream = await client.completions.create(model=TINY, prompt="once", stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == "Hello!"
    assert chunks[-1].choices == [] and chunks[-1].usage is not None


async def test_legacy_logprobs(rim: Rim, client: AsyncOpenAI) -> None:
    one, two = Logprob(token=5, text="ab", logprob=-0.5), Logprob(token=6, text="c", logprob=-1.0)
    rim.pipeline.script = [
        TokenChunk(sequence=0, text="ab", logprobs=((one, (one,)),)),
        TokenChunk(sequence=1, text="c", logprobs=((two, (two,)),)),
        TokenChunk(sequence=2, text="", finish=Finish.STOP, usage=USAGE),
    ]
    reply = await client.completions.create(model=TINY, prompt="x", logprobs=1)
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert (logprobs.tokens, logprobs.token_logprobs, logprobs.text_offset) == (["ab", "c"], [-0.5, -1.0], [0, 2])
    assert logprobs.top_logprobs == [{"ab": -0.5}, {"c": -1.0}]


async def test_models(rim: Rim, client: AsyncOpenAI) -> None:
    rim.models.known[ModelId("holey")] = model_view(ModelId("holey"), (OWN,), ())
    listed = [model async for model in client.models.list()]
    assert [(model.id, model.owned_by) for model in listed] == [(TINY, "local"), (SPREAD, "hybrid")]
    assert (listed[0].model_extra or {})["context_length"] == 4096
    rim.set("inference.context_tokens", 1024)
    assert ((await client.models.retrieve(TINY)).model_extra or {})["max_model_len"] == 1024
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("nothing")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("name", ["nothing", "tiny", "tiny-q8-and-more", "???", "a/../b"])
async def test_unknown_models_and_never_a_similar_one(client: AsyncOpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model=name, messages=HELLO)
    assert caught.value.code == "model_not_found"


async def test_a_model_may_be_named_as_its_file(rim: Rim, client: AsyncOpenAI) -> None:
    assert (await client.chat.completions.create(model="Tiny-Q8.gguf", messages=HELLO)).model == TINY


async def test_auto(rim: Rim, client: AsyncOpenAI) -> None:
    async def chosen() -> str:
        return (await client.chat.completions.create(model="auto", messages=HELLO)).model

    assert await chosen() == TINY, "loaded"
    rim.models.known[TINY] = model_view(TINY, (OWN,), (OWN,))
    assert await chosen() == TINY, "held whole"
    rim.models.known = {SPREAD: rim.models.known[SPREAD]}
    assert await chosen() == SPREAD, "over the swarm"
    rim.set("inference.default_model", SPREAD)
    rim.models.known[TINY] = model_view(TINY, (OWN,), loaded=(0,))
    assert await chosen() == SPREAD, "configured"
    rim.set("inference.default_model", "")
    rim.models.known = {}
    with pytest.raises(openai.NotFoundError):
        await chosen()


async def test_refusals_before_the_stream(rim: Rim, client: AsyncOpenAI) -> None:
    for stream in (False, True):
        rim.pipeline.says = no_coverage()
        with pytest.raises(openai.InternalServerError) as lacking:
            await client.chat.completions.create(model=SPREAD, messages=HELLO, stream=stream)
        assert (lacking.value.status_code, lacking.value.code) == (503, "no_coverage")
        rim.pipeline.says = PromptTooLong(prompt_tokens=9000, context_tokens=8192)
        with pytest.raises(openai.BadRequestError) as long:
            await client.chat.completions.create(model=SPREAD, messages=HELLO, stream=stream)
        assert long.value.code == "context_length_exceeded"


async def test_busy_says_when_to_come_back(rim: Rim, client: AsyncOpenAI) -> None:
    rim.pipeline.says = Busy(what="ten replies are running")
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model=TINY, messages=HELLO)
    assert caught.value.response.headers["retry-after"] == "1"


async def test_an_error_in_the_middle(rim: Rim, client: AsyncOpenAI) -> None:
    rim.pipeline.script = [script("Hel")[0], failed(StageFailed(node=PEER, reason="it went away"))]
    stream = await client.chat.completions.create(model=TINY, messages=HELLO, stream=True)
    seen = []
    with pytest.raises(openai.APIError, match="it went away") as caught:
        async for chunk in stream:
            seen.append(chunk.choices[0].delta.content)
    assert seen == ["", "Hel"]
    assert caught.value.code == "stage_failed"
    with pytest.raises(openai.InternalServerError, match="it went away"):
        await client.chat.completions.create(model=TINY, messages=HELLO)


async def test_a_bug_in_the_middle(rim: Rim, client: AsyncOpenAI, caplog: pytest.LogCaptureFixture) -> None:
    rim.pipeline.script = [script("Hel")[0], RuntimeError("secret detail")]
    stream = await client.chat.completions.create(model=TINY, messages=HELLO, stream=True)
    with pytest.raises(openai.APIError) as caught:
        async for _ in stream:
            pass
    assert caught.value.code == "internal_error" and "secret" not in str(caught.value)
    assert "secret detail" in caplog.text


async def test_a_wrong_key(rim: Rim) -> None:
    async with AsyncOpenAI(base_url=f"{rim.url}/v1", api_key="wrong", max_retries=0) as wrong:
        with pytest.raises(openai.AuthenticationError):
            await wrong.models.list()


async def test_bad_requests_name_the_field(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"\$\.messages\[0\]\.role") as caught:
        await client.chat.completions.create(model=TINY, messages=[{"role": "wizard", "content": "x"}])  # type: ignore
    assert caught.value.param == "messages[0].role"
    with pytest.raises(openai.BadRequestError) as tools:
        await client.chat.completions.create(
            model=TINY, messages=HELLO, tools=[{"type": "function", "function": {"name": "f"}}], tool_choice="always"  # type: ignore
        )
    assert tools.value.param == "tool_choice"


async def test_several_replies(rim: Rim, client: AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model=TINY, messages=HELLO, n=3, seed=7)
    assert [(one.index, one.message.content) for one in reply.choices] == [(0, "Hello!"), (1, "Hello!"), (2, "Hello!")]
    assert reply.usage is not None and (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7, 9)
    asked = rim.pipeline.requests
    assert asked[0].sampling.seed == 7 and len({one.sampling.seed for one in asked}) == 3
    assert len({one.request for one in asked}) == 3
    stream = await client.chat.completions.create(
        model=TINY, messages=HELLO, n=2, stream=True, stream_options={"include_usage": True}
    )
    texts, ends, usage = {0: "", 1: ""}, [], None
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends += [choice.index] if choice.finish_reason else []
        usage = chunk.usage or usage
    assert texts == {0: "Hello!", 1: "Hello!"} and sorted(ends) == [0, 1]
    assert usage is not None and usage.completion_tokens == 6
    several = await client.completions.create(model=TINY, prompt="x", n=2, best_of=2)
    assert [one.index for one in several.choices] == [0, 1]


async def test_calls_of_tools(rim: Rim, client: AsyncOpenAI) -> None:
    rim.pipeline.script = [
        TokenChunk(sequence=0, text="So: "),
        TokenChunk(sequence=1, text="", calls=(CallPiece(index=0, id="call_1", name="now", arguments="{"),)),
        TokenChunk(sequence=2, text="", calls=(CallPiece(index=0, arguments="}"),)),
        TokenChunk(sequence=3, text="", finish=Finish.TOOL_CALLS, usage=USAGE),
    ]
    tools: Any = [{"type": "function", "function": {"name": "now"}}]
    reply = await client.chat.completions.create(model=TINY, messages=HELLO, tools=tools)
    (choice,) = reply.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "So: ")
    (call,) = choice.message.tool_calls or ()
    assert call.type == "function" and (call.id, call.function.name, call.function.arguments) == ("call_1", "now", "{}")
    stream = await client.chat.completions.create(model=TINY, messages=HELLO, tools=tools, stream=True)
    deltas = [one.choices[0].delta for one in [chunk async for chunk in stream]]
    pieces = [piece for delta in deltas for piece in delta.tool_calls or ()]
    assert [(piece.index, piece.id, piece.type) for piece in pieces] == [(0, "call_1", "function"), (0, None, None)]
    assert pieces[0].function is not None and pieces[0].function.name == "now"
    assert "".join(piece.function.arguments or "" for piece in pieces if piece.function) == "{}"


async def test_unknown_fields_are_ignored(rim: Rim, client: AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(
        model=TINY, messages=HELLO, user="somebody", extra_body={"session_id": "x", "cache_prompt": True}
    )
    assert reply.choices[0].message.content == "Hello!"


async def test_seeds_differ_unless_given(rim: Rim, client: AsyncOpenAI) -> None:
    for _ in range(2):
        await client.chat.completions.create(model=TINY, messages=HELLO)
    await client.chat.completions.create(model=TINY, messages=HELLO, seed=-5)
    seeds = [request.sampling.seed for request in rim.pipeline.requests]
    assert seeds[0] != seeds[1] and seeds[2] == -5


async def test_a_model_known_by_name_only_is_no_card(rim: Rim, client: AsyncOpenAI) -> None:
    rim.models.known[TINY] = replace(rim.models.known[TINY], manifest=None, shards=())
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve(TINY)
