"""The Anthropic dialect, asked by the official client over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic

from swarmd.domain.generation import Finish, TokenChunk
from swarmd.domain.ids import ModelId
from swarmd.domain.refusals import Busy, Invalid, PromptTooLong, StageFailed
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
    running,
    script,
    until,
)  # fmt: skip

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
TOOLS: list[Any] = [{"name": "now", "input_schema": {"type": "object"}}]
CALLED = [
    TokenChunk(sequence=0, text="So: "),
    TokenChunk(sequence=1, text="", calls=(CallPiece(index=0, id="call_1", name="now", arguments='{"zone"'),)),
    TokenChunk(sequence=2, text="", calls=(CallPiece(index=0, arguments=': "UTC"}'),)),
    TokenChunk(sequence=3, text="", finish=Finish.TOOL_CALLS, usage=USAGE),
]


@pytest.fixture
async def client(rim: Rim) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=rim.url, api_key=KEY, max_retries=0) as made:
        yield made


async def test_a_whole_reply(rim: Rim, client: AsyncAnthropic) -> None:
    raw = await client.messages.with_raw_response.create(
        model=TINY, max_tokens=50, messages=HELLO, system="be kind", metadata={"user_id": "ann"},
        stop_sequences=["END"], extra_body={"temperature": 0.5, "top_k": 3},
    )  # fmt: skip
    reply = await raw.parse()
    assert reply.type == "message" and reply.role == "assistant" and reply.model == TINY
    assert reply.id == f"msg_{raw.headers['x-request-id']}" and reply._request_id == raw.headers["x-request-id"]
    (block,) = reply.content
    assert block.type == "text" and block.text == "Hello!"
    assert (reply.stop_reason, reply.stop_sequence) == ("end_turn", None)
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.cache_read_input_tokens) == (7, 3, 0)
    assert raw.headers["x-swarm-nodes"] == f"{OWN[:16]},{PEER[:16]}" and raw.headers["server-timing"]
    assert (reply.model_extra or {})["swarm"]["link_ms"] == 1.5
    (request,) = rim.pipeline.requests
    assert [one.role for one in request.messages] == ["system", "user"]
    assert request.client.endswith(" ann") and request.stop == ("END",) and request.sampling.temperature == 0.5


async def test_a_stream(client: AsyncAnthropic) -> None:
    async with client.messages.stream(model=TINY, max_tokens=50, messages=HELLO) as stream:
        text = [piece async for piece in stream.text_stream]
        final = await stream.get_final_message()
    assert text == ["Hel", "lo", "!"]
    assert final.stop_reason == "end_turn" and final.usage.input_tokens == 7 and final.usage.output_tokens == 3


async def test_the_stop_sequence_that_ended_it(rim: Rim, client: AsyncAnthropic) -> None:
    last = TokenChunk(sequence=1, text="", finish=Finish.STOP, stopped_by="END", usage=USAGE)
    rim.pipeline.script = [TokenChunk(sequence=0, text="so"), last]
    whole = await client.messages.create(model=TINY, max_tokens=50, messages=HELLO, stop_sequences=["END"])
    assert (whole.stop_reason, whole.stop_sequence) == ("stop_sequence", "END")
    async with client.messages.stream(model=TINY, max_tokens=50, messages=HELLO, stop_sequences=["END"]) as stream:
        final = await stream.get_final_message()
    assert (final.stop_reason, final.stop_sequence) == ("stop_sequence", "END")


async def test_calls_of_tools(rim: Rim, client: AsyncAnthropic) -> None:
    rim.pipeline.script = CALLED
    reply = await client.messages.create(model=TINY, max_tokens=50, messages=HELLO, tools=TOOLS)
    text, call = reply.content
    assert text.type == "text" and text.text == "So: " and reply.stop_reason == "tool_use"
    assert call.type == "tool_use" and (call.id, call.name, call.input) == ("call_1", "now", {"zone": "UTC"})
    async with client.messages.stream(model=TINY, max_tokens=50, messages=HELLO, tools=TOOLS) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_message()
    assert kinds.count("content_block_start") == 2 == kinds.count("content_block_stop")
    assert [block.model_dump(exclude_none=True) for block in final.content] == [
        block.model_dump(exclude_none=True) for block in reply.content
    ]
    answer: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "noon"}
    rim.pipeline.script = script("noon")
    await client.messages.create(
        model=TINY, max_tokens=50, tools=TOOLS,
        messages=[*HELLO, {"role": "assistant", "content": reply.content}, {"role": "user", "content": [answer]}],
    )  # fmt: skip
    assert [(one.role, one.call_id) for one in rim.pipeline.requests[-1].messages] == [
        ("user", None), ("assistant", None), ("tool", "call_1")
    ]  # fmt: skip


async def test_the_bytes_of_a_stream(rim: Rim) -> None:
    """Names before the data, and nothing of the OpenAI contract's."""
    rim.pipeline.script = CALLED
    body = {"model": TINY, "messages": HELLO, "stream": True, "max_tokens": 9, "tools": TOOLS}
    async with rim.client(**keyed()) as session, session.post("/v1/messages", json=body) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["request-id"] == reply.headers["x-request-id"] and reply.headers["x-swarm-nodes"]
        text = await reply.text()
    events = [event.split("\n") for event in text.removesuffix("\n\n").split("\n\n")]
    named = [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in events]
    assert all(name == data["type"] for name, data in named) and "[DONE]" not in text
    assert [name for name, _ in named] == [
        "message_start", "ping", "content_block_start", "content_block_delta", "content_block_stop", "content_block_start",
        "content_block_delta", "content_block_delta", "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    assert named[5][1] == {
        "type": "content_block_start", "index": 1,
        "content_block": {"type": "tool_use", "id": "call_1", "name": "now", "input": {}},
    }  # fmt: skip
    assert named[6][1]["delta"] == {"type": "input_json_delta", "partial_json": '{"zone"'}


async def test_a_long_prefill_is_no_silence(rim: Rim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmd.api.sse.SILENT_S", 0.02)
    go = asyncio.Event()
    rim.pipeline.script = [go, *script("late")]
    body = {"model": TINY, "messages": HELLO, "stream": True, "max_tokens": 9}
    async with rim.client(**keyed()) as session, session.post("/v1/messages", json=body) as reply:
        pings = 0
        while pings < 3:
            pings += (await reply.content.readline()).startswith(b"event: ping")
        go.set()
        assert b"message_stop" in await reply.read()


async def test_a_failure_in_the_middle_is_the_one_last_event(rim: Rim, client: AsyncAnthropic) -> None:
    rim.pipeline.script = [script("Hel")[0], failed(StageFailed(node=PEER, reason="it went away"))]
    seen = []
    with pytest.raises(anthropic.APIStatusError, match="it went away") as caught:
        async with client.messages.stream(model=TINY, max_tokens=50, messages=HELLO) as stream:
            async for event in stream:
                seen.append(event.type)
    assert caught.value.type == "api_error" and "message_delta" not in seen and "message_stop" not in seen
    body = {"model": TINY, "messages": HELLO, "stream": True, "max_tokens": 9}
    rim.pipeline.script = [script("Hel")[0], failed(Busy(what="no place"))]
    async with rim.client(**keyed()) as session, session.post("/v1/messages", json=body) as reply:
        *_, last = (await reply.text()).removesuffix("\n\n").split("\n\n")
    name, data = last.split("\n")
    assert name == "event: error"
    problem = json.loads(data.removeprefix("data: "))
    assert problem == {
        "type": "error", "error": {"type": "overloaded_error", "message": "no place"},
        "request_id": reply.headers["request-id"],
    }  # fmt: skip
    with pytest.raises(anthropic.InternalServerError, match="it went away"):
        rim.pipeline.script = [failed(StageFailed(node=PEER, reason="it went away"))]
        await client.messages.create(model=TINY, max_tokens=50, messages=HELLO)


async def test_a_bug_in_the_middle(rim: Rim, client: AsyncAnthropic, caplog: pytest.LogCaptureFixture) -> None:
    rim.pipeline.script = [script("Hel")[0], RuntimeError("secret detail")]
    with pytest.raises(anthropic.APIStatusError) as caught:
        async with client.messages.stream(model=TINY, max_tokens=50, messages=HELLO) as stream:
            await stream.get_final_message()
    assert caught.value.type == "api_error" and "secret" not in str(caught.value)
    assert "secret detail" in caplog.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("refusal", "status", "kind"),
    [
        (Busy(what="ten replies are running", retry_after_s=3.2), 529, "overloaded_error"),
        (no_coverage(), 503, "api_error"),
        (PromptTooLong(prompt_tokens=9000, context_tokens=8192), 400, "invalid_request_error"),
        (Invalid(what="cannot be honoured", param="tools"), 400, "invalid_request_error"),
    ],
)
async def test_refusals_before_the_reply(rim: Rim, client: AsyncAnthropic, refusal, status, kind, stream) -> None:
    rim.pipeline.says = refusal
    with pytest.raises(anthropic.APIStatusError) as caught:
        await client.messages.create(model=SPREAD, max_tokens=5, messages=HELLO, stream=stream)
    assert (caught.value.status_code, caught.value.type) == (status, kind)
    assert refusal.sentence in str(caught.value.api_message) and caught.value.request_id
    if status == 529:
        assert caught.value.response.headers["retry-after"] == "4"


async def test_who_may_not_and_what_is_not_there(rim: Rim) -> None:
    """Said in this contract's envelope, although no handler was reached."""
    async with AsyncAnthropic(base_url=rim.url, api_key="wrong", max_retries=0) as wrong:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            await wrong.messages.create(model=TINY, max_tokens=5, messages=HELLO)
        assert caught.value.type == "authentication_error" and caught.value.request_id
    cases: list[tuple[str, str, bytes, int, str]] = [
        ("POST", "/v1/messages", b"{", 400, "invalid_request_error"),
        ("POST", "/v1/messages", b'{"model": "tiny-q8", "messages": []}', 400, "invalid_request_error"),
        ("POST", "/v1/messages/batches", b"{}", 404, "not_found_error"),
        ("GET", "/v1/messages", b"", 405, "invalid_request_error"),
        ("POST", "/v1/messages/count_tokens", b"[]", 400, "invalid_request_error"),
    ]
    async with rim.client(**keyed()) as session:
        for method, path, body, status, kind in cases:
            async with session.request(method, path, data=body) as reply:
                found = await reply.json()
                assert (reply.status, found["error"]["type"]) == (status, kind), path
                assert found["type"] == "error" and found["request_id"] == reply.headers["x-request-id"]
        async with session.post("/v1/messages", json={}, headers={"origin": "https://elsewhere.example"}) as reply:
            assert (reply.status, (await reply.json())["error"]["type"]) == (403, "permission_error")


async def test_too_much_and_too_often(tmp_path: Path) -> None:
    rim = Rim(tmp_path)
    rim.server._body_limit_bytes = 1000
    rim.set("api.rate_limit_rpm", 1)
    async with running(rim), rim.client(**keyed()) as session:
        async with session.post("/v1/messages", data=b"x" * 2000) as reply:
            assert (reply.status, (await reply.json())["error"]["type"]) == (413, "request_too_large")
        rim.address = "192.168.7.9"
        await session.get("/v1/models")
        async with session.post("/v1/messages", json={}) as reply:
            assert (reply.status, (await reply.json())["error"]["type"]) == (429, "rate_limit_error")
            assert reply.headers["retry-after"]


async def test_unknown_models(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="claude-x"):
        await client.messages.create(model="claude-x", max_tokens=5, messages=HELLO)
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.count_tokens(model="claude-x", messages=HELLO)


async def test_tokens_are_counted_before_anything_runs(rim: Rim, client: AsyncAnthropic) -> None:
    count = await client.messages.count_tokens(model=TINY, messages=HELLO, system="12345", tools=TOOLS)
    assert count.input_tokens == 10  # the fake counts letters
    assert rim.pipeline.requests[0].tools[0].name == "now" and rim.pipeline.active == 0
    with pytest.raises(anthropic.BadRequestError, match="image"):
        picture: Any = {"type": "image", "source": {"type": "url", "url": "http://localhost/x.png"}}
        await client.messages.count_tokens(model=TINY, messages=[{"role": "user", "content": [picture]}])
    rim.pipeline.says = no_coverage()
    with pytest.raises(anthropic.InternalServerError):
        await client.messages.count_tokens(model=TINY, messages=HELLO)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_ends_the_generation(rim: Rim, client: AsyncAnthropic, stream: bool) -> None:
    rim.pipeline.script = [script("a")[0], asyncio.Event()]
    asked = asyncio.ensure_future(client.messages.create(model=TINY, max_tokens=5, messages=HELLO, stream=stream))
    await until(lambda: rim.pipeline.active == 1)
    if stream:
        await (await asked).close()  # type: ignore[union-attr]
    else:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    async with asyncio.timeout(2):
        await rim.pipeline.left.wait()


async def test_models_in_this_contract(rim: Rim, client: AsyncAnthropic) -> None:
    rim.models.known[ModelId("third")] = model_view(ModelId("third"), (OWN,), (OWN,))
    page = await client.models.list(limit=2)
    assert [model.id for model in page.data] == [TINY, SPREAD] and page.has_more
    listed = [model async for model in client.models.list(limit=2)]
    assert [model.id for model in listed] == [TINY, SPREAD, "third"]
    assert listed[0].created_at.timestamp() == 1_700_000_000 and listed[0].max_input_tokens == 4096
    before = await client.models.list(before_id="third", limit=1)
    assert [model.id for model in before.data] == [SPREAD] and before.has_more
    one = await client.models.retrieve(SPREAD)
    assert one.type == "model" and (one.model_extra or {})["swarm"]["source"] == "hybrid"
    with pytest.raises(anthropic.NotFoundError) as caught:
        await client.models.retrieve("nothing")
    assert caught.value.type == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match="limit"):
        await client.models.list(limit=0)
