"""The Responses dialect, asked by the official client over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseOutputMessage
from pydantic import BaseModel

from swarmd.api.responses_runs import BACKGROUND_LIMIT
from swarmd.domain.generation import Finish, Logprob, TokenChunk
from swarmd.domain.ids import ModelId
from swarmd.domain.refusals import Busy, StageFailed
from swarmd.domain.structure import CallPiece, ToolCall, ToolUse
from tests.fakes.rim import (
    KEY,
    LAN_CLIENT,
    OWN,
    PEER,
    TINY,
    USAGE,
    Rim,
    failed,
    keyed,
    no_coverage,
    script,
    until,
)  # fmt: skip

NOW: Any = {"type": "function", "name": "now", "description": "the time", "parameters": {"type": "object"}, "strict": True}


@pytest.fixture
async def client(rim: Rim) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{rim.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


def called(*, cut: bool = False) -> list[TokenChunk]:
    pieces = (CallPiece(index=0, id="call_1", name="now", arguments='{"zo'), CallPiece(index=0, arguments='ne":"utc"}'))
    chunks = [TokenChunk(sequence=0, text="Let me see."), TokenChunk(sequence=1, text="", calls=pieces[:1])]
    if not cut:
        chunks.append(TokenChunk(sequence=2, text="\n", calls=pieces[1:]))
    finish = Finish.LENGTH if cut else Finish.TOOL_CALLS
    return [*chunks, TokenChunk(sequence=3, text="", finish=finish, usage=USAGE)]


async def types_of(events: Any) -> list[Any]:
    return [event async for event in events]


async def test_a_whole_reply(rim: Rim, client: AsyncOpenAI) -> None:
    raw = await client.responses.with_raw_response.create(
        model=TINY, input="hello", instructions="Be short.", metadata={"a": "b"}, max_output_tokens=50, top_p=0.5
    )
    reply = raw.parse()
    Response.model_validate(reply.to_dict())  # every field of the contract, with its type
    assert reply.id.startswith("resp_") and len(reply.id) == 37 and reply.object == "response" and reply.model == TINY
    assert (reply.status, reply.output_text, reply.error, reply.background) == ("completed", "Hello!", None, False)
    (item,) = reply.output
    assert isinstance(item, ResponseOutputMessage) and (item.role, item.status) == ("assistant", "completed")
    assert reply.usage is not None
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.total_tokens) == (7, 3, 10)
    assert (reply.metadata, reply.instructions, reply.max_output_tokens) == ({"a": "b"}, "Be short.", 50)
    assert (reply.temperature, reply.top_p, reply.tool_choice, reply.truncation) == (0.7, 0.5, "auto", "disabled")
    assert reply.completed_at is not None and reply.completed_at >= reply.created_at
    assert raw.headers["x-swarm-nodes"] == f"{OWN[:16]},{PEER[:16]}" and "prefill" in raw.headers["server-timing"]
    assert (reply.model_extra or {})["swarm"]["tokens_per_second"] == 50.0
    (request,) = rim.pipeline.requests
    assert [(one.role, one.content) for one in request.messages] == [("system", "Be short."), ("user", "hello")]
    assert (request.max_tokens, request.sampling.temperature, request.sampling.top_p) == (50, 0.7, 0.5)


async def test_a_stream_has_all_events_in_order(rim: Rim, client: AsyncOpenAI) -> None:
    events = await types_of(await client.responses.create(model=TINY, input="hello", stream=True))
    assert [event.type for event in events] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.delta", "response.output_text.delta", "response.output_text.delta",
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].response.status == "in_progress" and events[0].response.output == []
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Hello!"
    assert events[-1].response.output_text == "Hello!" and events[-1].response.usage.total_tokens == 10
    stored = await client.responses.retrieve(events[0].response.id)
    assert stored.to_dict() == events[-1].response.to_dict()


async def test_the_first_two_events_come_before_the_model_is_touched(rim: Rim, client: AsyncOpenAI) -> None:
    rim.pipeline.says = no_coverage()
    events = await types_of(await client.responses.create(model=TINY, input="hello", stream=True))
    assert [event.type for event in events] == ["response.created", "response.in_progress", "response.failed"]
    error = events[-1].response.error
    assert (error.code, "no connected node holds shard" in error.message) == ("no_coverage", True)
    assert (await client.responses.retrieve(events[0].response.id)).status == "failed"


async def test_the_bytes_of_a_stream(rim: Rim) -> None:
    body = {"model": TINY, "input": "hello", "stream": True}
    async with rim.client(**keyed()) as session, session.post("/v1/responses", json=body) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        text = await reply.text()
    first, *_, last, rest = text.split("\n\n")
    assert rest == "" and first.startswith("event: response.created\ndata: {")
    assert last.startswith("event: response.completed\ndata: {") and "[DONE]" not in text


async def test_a_failure_in_the_middle_is_an_event_and_no_text(rim: Rim, client: AsyncOpenAI) -> None:
    rim.pipeline.script = [TokenChunk(sequence=0, text="Hel"), failed(StageFailed(node=PEER, reason="it went away"))]
    events = await types_of(await client.responses.create(model=TINY, input="hello", stream=True))
    assert events[-1].type == "response.failed" and events[-1].response.status == "failed"
    assert events[-1].response.error.code == "stage_failed" and "it went away" in events[-1].response.error.message
    stored = await client.responses.retrieve(events[0].response.id)
    assert stored.status == "failed" and stored.error is not None and stored.output_text == "Hel"
    with pytest.raises(openai.InternalServerError) as error:
        await client.responses.create(model=TINY, input="hello")
    assert error.value.code == "stage_failed" and error.value.status_code == 503


async def test_what_is_refused_before_it_began_leaves_nothing(rim: Rim, client: AsyncOpenAI) -> None:
    rim.pipeline.says = Busy(what="too many", retry_after_s=3)
    with pytest.raises(openai.InternalServerError) as error:
        await client.responses.create(model=TINY, input="hello")
    assert error.value.response.headers["retry-after"] == "3" and error.value.code == "busy"
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.responses.create(model="nobody", input="hello")
    assert unknown.value.code == "model_not_found"
    assert await rim.archive.summaries(statuses=(), limit=5) == ((), 0)


async def test_the_stream_helper(client: AsyncOpenAI) -> None:
    async with client.responses.stream(model=TINY, input="hello") as stream:
        deltas = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert deltas == ["Hel", "Hello", "Hello!"] and final.output_text == "Hello!"


async def test_a_call_and_its_answer(rim: Rim, client: AsyncOpenAI) -> None:
    rim.pipeline.script = called()
    async with client.responses.stream(model=TINY, input="what time is it?", tools=[NOW]) as stream:
        events = [event async for event in stream]
        first = await stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 2
    assert [event.delta for event in events if event.type == "response.function_call_arguments.delta"] == [
        '{"zo', 'ne":"utc"}',
    ]  # fmt: skip
    message, call = first.output
    assert message.type == "message" and call.type == "function_call" and first.output_text == "Let me see."
    assert (call.name, call.call_id, call.arguments, call.status) == ("now", "call_1", '{"zone":"utc"}', "completed")
    assert call.parsed_arguments == {"zone": "utc"}  # type: ignore[union-attr]
    assert rim.pipeline.requests[0].tools[0].strict and rim.pipeline.requests[0].tool_use is ToolUse.AUTO

    rim.pipeline.script = script("Noon.")
    second = await client.responses.create(
        model=TINY, previous_response_id=first.id, tools=[NOW], tool_choice={"type": "function", "name": "now"},
        input=[{"type": "function_call_output", "call_id": "call_1", "output": "12:00"}], parallel_tool_calls=False,
    )  # fmt: skip
    assert second.output_text == "Noon." and second.previous_response_id == first.id
    request = rim.pipeline.requests[1]
    assert [(one.role, one.content) for one in request.messages] == [
        ("user", "what time is it?"), ("assistant", "Let me see."), ("tool", "12:00"),
    ]  # fmt: skip
    assert request.messages[1].calls == (ToolCall(id="call_1", name="now", arguments='{"zone":"utc"}'),)
    assert (request.messages[2].call_id, request.messages[2].name) == ("call_1", "now")
    assert (request.tool_use, request.tool_named, request.several_calls) == (ToolUse.REQUIRED, "now", False)

    # The same without anything stored: the output is sent back as input.
    again: Any = [{"role": "user", "content": "what time is it?"}, *[item.to_dict() for item in first.output],
                  {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "12:00"}]}]
    await client.responses.create(model=TINY, input=again, tools=[NOW], store=False)
    assert rim.pipeline.requests[2].messages == request.messages


async def test_a_call_that_is_cut_is_no_call(rim: Rim, client: AsyncOpenAI) -> None:
    rim.pipeline.script = called(cut=True)
    first = await client.responses.create(model=TINY, input="now?", tools=[NOW])
    assert first.status == "incomplete" and first.incomplete_details is not None
    assert first.incomplete_details.reason == "max_output_tokens" and first.completed_at is None
    call = first.output[1]
    assert isinstance(call, ResponseFunctionToolCall) and (call.status, call.arguments) == ("incomplete", '{"zo')
    rim.pipeline.script = script("Well.")
    await client.responses.create(model=TINY, input="go on", previous_response_id=first.id)
    assert [one.calls for one in rim.pipeline.requests[1].messages] == [(), (), ()]


async def test_structured_output(rim: Rim, client: AsyncOpenAI) -> None:
    class Day(BaseModel):
        day: int

    rim.pipeline.script = script('{"day"', ": 5}")
    reply = await client.responses.parse(model=TINY, input="which day?", text_format=Day)
    assert reply.output_parsed == Day(day=5)
    assert json.loads(rim.pipeline.requests[0].schema or "")["properties"] == {"day": {"title": "Day", "type": "integer"}}
    assert reply.text is not None and reply.text.format is not None and reply.text.format.type == "json_schema"
    await client.responses.create(model=TINY, input="json", text={"format": {"type": "json_object"}})
    assert rim.pipeline.requests[1].schema == '{"type": "object"}'


async def test_logprobs(rim: Rim, client: AsyncOpenAI) -> None:
    picked, other = Logprob(token=5, text="é", logprob=-0.5), Logprob(token=6, text="e", logprob=-1.5)
    rim.pipeline.script = [
        TokenChunk(sequence=0, text="", logprobs=((picked, (picked, other)),)),
        TokenChunk(sequence=1, text="é", logprobs=((picked, (picked, other)),)),
        TokenChunk(sequence=2, text="", finish=Finish.STOP, usage=USAGE),
    ]
    reply = await client.responses.create(
        model=TINY, input="x", include=["message.output_text.logprobs"], top_logprobs=2
    )
    assert rim.pipeline.requests[0].sampling.top_logprobs == 2
    part: Any = reply.output[0].content[0]  # type: ignore[union-attr]
    assert [(one.token, one.logprob, one.bytes) for one in part.logprobs] == [("é", -0.5, [0xC3, 0xA9])] * 2


async def test_in_the_background(rim: Rim, client: AsyncOpenAI) -> None:
    go = asyncio.Event()
    rim.pipeline.script = [TokenChunk(sequence=0, text="Hel"), go, *script("lo")]
    raw = await client.responses.with_raw_response.create(model=TINY, input="hello", background=True)
    reply = raw.parse()
    assert raw.status_code == 202 and raw.headers["location"] == f"/v1/responses/{reply.id}"
    assert reply.status == "queued" and reply.background
    await until(lambda: rim.pipeline.active == 1)
    while (seen := await client.responses.retrieve(reply.id)).output_text != "Hel":
        await asyncio.sleep(0.005)
    assert seen.status == "in_progress"
    row = await rim.archive.get(reply.id)
    assert row is not None and row.summary.status.value == "in_progress"
    go.set()
    while (seen := await client.responses.retrieve(reply.id)).status == "in_progress":
        await asyncio.sleep(0.005)
    assert (seen.status, seen.output_text) == ("completed", "Hello")


async def test_a_background_stream_survives_its_client(rim: Rim, client: AsyncOpenAI) -> None:
    go = asyncio.Event()
    rim.pipeline.script = [TokenChunk(sequence=0, text="Hel"), go, *script("lo")]
    stream = await client.responses.create(model=TINY, input="hello", background=True, stream=True)
    seen: list[Any] = []
    async for event in stream:
        seen.append(event)
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    id = seen[0].response.id
    assert [event.type for event in seen[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert seen[0].response.status == "queued"
    live = asyncio.create_task(types_of(await client.responses.retrieve(id, stream=True, starting_after=2)))
    await asyncio.sleep(0.02)
    go.set()
    rest = await live
    assert rest[0].sequence_number == 3 and rest[-1].type == "response.completed"
    assert rest[-1].response.output_text == "Hello"
    # Replayed, whole and in part; the helper follows as well.
    whole = await types_of(await client.responses.retrieve(id, stream=True))
    assert [event.sequence_number for event in whole] == list(range(len(whole))) and whole[3:] == rest
    async with client.responses.stream(response_id=id, starting_after=4) as helper:
        assert (await helper.get_final_response()).output_text == "Hello"
    for wrong in (len(whole), 10**8):
        with pytest.raises(openai.BadRequestError) as error:
            await client.responses.retrieve(id, stream=True, starting_after=wrong)
        assert error.value.param == "starting_after"


@pytest.mark.parametrize("background", [False, True])
async def test_a_silent_stream_was_closed_by_proxies(rim: Rim, background: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queued or slow reply says nothing for minutes."""
    monkeypatch.setattr("swarmd.api.sse.SILENT_S", 0.02)
    go = asyncio.Event()
    rim.pipeline.script = [go, *script("lo")]
    asked = {"model": TINY, "input": "x", "stream": True, "background": background}
    async with rim.client(**keyed()) as session:
        answered = await session.post("/v1/responses", json=asked)
        text = b""
        while text.count(b"\n\n: \n\n: \n\n") == 0:
            text += await answered.content.readany()
        id = json.loads(text.split(b"data: ")[1].split(b"\n")[0])["response"]["id"]
        follower = await session.get(f"/v1/responses/{id}", params={"stream": "true"}) if background else None
        while follower is not None and await follower.content.readline() != b": \n":
            pass
        go.set()
        assert b"event: response.completed" in await answered.read()


async def test_events_that_fell_out_are_not_replayed(rim: Rim, client: AsyncOpenAI) -> None:
    rim.pipeline.script = script(*("x" * 2100))
    id = (await types_of(await client.responses.create(model=TINY, input="hello", stream=True)))[0].response.id
    with pytest.raises(openai.BadRequestError) as error:
        await client.responses.retrieve(id, stream=True, starting_after=5)
    assert error.value.param == "starting_after" and "the last 2000 at most are kept" in str(error.value)
    late = await types_of(await client.responses.retrieve(id, stream=True, starting_after=2100))
    assert late[0].sequence_number == 2101 and late[-1].type == "response.completed"


async def test_what_was_never_streamed_cannot_be_followed(client: AsyncOpenAI) -> None:
    reply = await client.responses.create(model=TINY, input="hello")
    with pytest.raises(openai.BadRequestError) as error:
        await client.responses.retrieve(reply.id, stream=True)
    assert error.value.param == "stream" and "without stream" in str(error.value)


async def test_cancel(rim: Rim, client: AsyncOpenAI) -> None:
    rim.pipeline.script = [TokenChunk(sequence=0, text="Hel"), asyncio.Event()]
    started = await client.responses.create(model=TINY, input="hello", background=True)
    await until(lambda: rim.pipeline.active == 1)
    follower = asyncio.create_task(types_of(await client.responses.retrieve(started.id, stream=True)))
    cancelled = await client.responses.cancel(started.id)
    assert cancelled.status == "cancelled" and rim.pipeline.active == 0
    assert (await follower)[-1].type == "response.cancelled"
    assert (await client.responses.cancel(started.id)).status == "cancelled"
    assert (await client.responses.retrieve(started.id)).status == "cancelled"
    done = await client.responses.create(model=TINY, input="hello", store=True, stream=True)
    await done.close()


async def test_only_the_background_is_cancelled(rim: Rim, client: AsyncOpenAI) -> None:
    reply = await client.responses.create(model=TINY, input="hello")
    with pytest.raises(openai.BadRequestError) as error:
        await client.responses.cancel(reply.id)
    assert "background" in str(error.value)
    with pytest.raises(openai.NotFoundError):
        await client.responses.cancel("resp_" + "0" * 32)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_ends_the_reply(rim: Rim, client: AsyncOpenAI, stream: bool) -> None:
    rim.pipeline.script = [TokenChunk(sequence=0, text="Hel"), asyncio.Event()]
    asked = asyncio.create_task(types_of(await client.responses.create(model=TINY, input="x", stream=True))
                                if stream else client.responses.create(model=TINY, input="x"))  # type: ignore[arg-type]
    await until(lambda: rim.pipeline.active == 1)
    asked.cancel()
    await asyncio.wait([asked])
    await asyncio.wait_for(rim.pipeline.left.wait(), 5)
    async with asyncio.timeout(5):
        while (await rim.archive.summaries(statuses=(), limit=1))[0][0].status.value != "cancelled":
            await asyncio.sleep(0.005)


async def test_the_background_is_bounded(rim: Rim, client: AsyncOpenAI) -> None:
    rim.pipeline.script = [asyncio.Event()]
    for _ in range(BACKGROUND_LIMIT):
        await client.responses.create(model=TINY, input="hello", background=True)
    with pytest.raises(openai.InternalServerError) as error:
        await client.responses.create(model=TINY, input="hello", background=True)
    assert error.value.code == "busy" and error.value.status_code == 503
    assert rim.pipeline.active <= 4


async def test_delete(rim: Rim, client: AsyncOpenAI) -> None:
    reply = await client.responses.create(model=TINY, input="hello")
    async with rim.client(**keyed()) as session, session.delete(f"/v1/responses/{reply.id}") as gone:
        assert await gone.json() == {"id": reply.id, "object": "response", "deleted": True}
    for ask in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError) as error:
            await ask(reply.id)
        assert error.value.code == "response_not_found"
    rim.pipeline.script = [asyncio.Event()]
    running = await client.responses.create(model=TINY, input="hello", background=True)
    await until(lambda: rim.pipeline.active == 1)
    await client.responses.delete(running.id)
    assert rim.pipeline.active == 0
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(running.id, stream=True)


async def test_what_is_not_stored_is_not_there(client: AsyncOpenAI) -> None:
    reply = await client.responses.create(model=TINY, input="hello", store=False)
    assert reply.output_text == "Hello!"
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(reply.id)
    with pytest.raises(openai.BadRequestError) as error:
        await client.responses.create(model=TINY, input="more", previous_response_id=reply.id)
    assert (error.value.code, error.value.param) == ("previous_response_not_found", "previous_response_id")


async def test_input_items(client: AsyncOpenAI) -> None:
    items: Any = [{"role": "user", "content": f"{number}"} for number in range(25)]
    reply = await client.responses.create(model=TINY, input=items)
    page = await client.responses.input_items.list(reply.id)
    assert len(page.data) == 20 and page.has_more and page.data[0].content[0].text == "24"  # type: ignore[union-attr]
    found = [item.content[0].text async for item in client.responses.input_items.list(reply.id, order="asc", limit=10)]  # type: ignore[union-attr]
    assert found == [str(number) for number in range(25)]
    wrong: list[dict[str, Any]] = [{"limit": 101}, {"limit": 0}, {"after": "msg_x"}, {"order": "up"}]
    for query in wrong:
        with pytest.raises(openai.BadRequestError) as error:
            await client.responses.input_items.list(reply.id, **query)
        assert error.value.param == next(iter(query))


async def test_an_item_that_is_stored_is_referred_to(rim: Rim, client: AsyncOpenAI) -> None:
    first = await client.responses.create(model=TINY, input="hello")
    items: Any = [{"type": "item_reference", "id": first.output[0].id}, {"role": "user", "content": "more"}]
    await client.responses.create(model=TINY, input=items)
    assert [(one.role, one.content) for one in rim.pipeline.requests[1].messages] == [
        ("assistant", "Hello!"), ("user", "more"),
    ]  # fmt: skip
    for id in ("msg_" + "0" * 32 + "_o0", "msg_nobody", f"msg_{first.id[5:]}_o7"):
        with pytest.raises(openai.BadRequestError) as error:
            await client.responses.create(model=TINY, input=[{"type": "item_reference", "id": id}])
        assert error.value.param == "input[0]"


async def test_a_conversation_of_several_turns(rim: Rim, client: AsyncOpenAI) -> None:
    previous: str | None = None
    for number in range(4):
        rim.pipeline.script = script(f"answer {number}")
        reply = await client.responses.create(
            model=TINY, input=f"question {number}", previous_response_id=previous, instructions=f"rule {number}"
        )
        previous = reply.id
    said = [one.content for one in rim.pipeline.requests[-1].messages]
    assert said == ["rule 3", "question 0", "answer 0", "question 1", "answer 1", "question 2", "answer 2", "question 3"]


async def test_a_conversation_whose_beginning_was_deleted(client: AsyncOpenAI) -> None:
    first = await client.responses.create(model=TINY, input="one")
    second = await client.responses.create(model=TINY, input="two", previous_response_id=first.id)
    await client.responses.delete(first.id)
    with pytest.raises(openai.BadRequestError) as error:
        await client.responses.create(model=TINY, input="three", previous_response_id=second.id)
    assert error.value.code == "previous_response_not_found" and first.id in str(error.value)


async def test_nobody_continues_what_still_runs(rim: Rim, client: AsyncOpenAI) -> None:
    rim.pipeline.script = [asyncio.Event()]
    running = await client.responses.create(model=TINY, input="one", background=True)
    with pytest.raises(openai.BadRequestError) as error:
        await client.responses.create(model=TINY, input="two", previous_response_id=running.id)
    assert "wait for it" in str(error.value)


async def test_unknown_fields_are_kept(rim: Rim, client: AsyncOpenAI) -> None:
    reply = await client.responses.create(model=TINY, input="hello", extra_body={"trace": {"span": 5}, "seed": 9})
    assert (reply.model_extra or {})["trace"] == {"span": 5} and rim.pipeline.requests[0].sampling.seed == 9
    assert ((await client.responses.retrieve(reply.id)).model_extra or {})["trace"] == {"span": 5}


async def test_the_listing(rim: Rim, client: AsyncOpenAI) -> None:
    ids = [(await client.responses.create(model=TINY, input="word " * 50)).id for _ in range(3)]
    rim.pipeline.script = [asyncio.Event()]
    running = await client.responses.create(model=TINY, input="hello", background=True)
    await until(lambda: rim.pipeline.active == 1)
    async with rim.client() as session:
        listed = await (await session.get("/api/admin/responses")).json()
        assert listed["object"] == "list" and listed["total"] == 4
        assert [row["id"] for row in listed["data"]] == [running.id, *reversed(ids)]
        row = listed["data"][1]
        assert list(row) == ["id", "created_at", "expires_at", "model", "status", "background", "live", "input_preview",
                             "output_text_preview", "usage"]  # fmt: skip
        assert row["expires_at"] - row["created_at"] == 30 * 24 * 3600 and row["model"] == TINY
        assert row["usage"] == {"input_tokens": 7, "output_tokens": 3} and not row["live"]
        assert len(row["input_preview"]) == 121 and row["input_preview"].endswith("…")
        assert row["output_text_preview"] == "Hello!"
        live = listed["data"][0]
        assert (live["status"], live["live"], live["background"], live["usage"]) == ("in_progress", True, True, None)
        for query, found in (("limit=2", 2), ("status=completed", 3), ("status=completed,in_progress", 4), ("limit=500", 4),
                             ("status=failed", 0), ("status=incomplete,queued,cancelled", 0)):  # fmt: skip
            data = await (await session.get(f"/api/admin/responses?{query}")).json()
            assert len(data["data"]) == found, query
        for query in ("limit=0", "limit=501", "limit=x", "limit=-1", "status=done", f"status={'completed,' * 30}"):
            async with session.get(f"/api/admin/responses?{query}") as reply:
                assert reply.status == 400, query
                assert (await reply.json())["error"]["param"] == query.split("=")[0]


async def test_the_listing_shows_strangers_nothing_and_others_no_text(rim: Rim, client: AsyncOpenAI) -> None:
    await client.responses.create(model=TINY, input="secret")
    rim.set("api.open_reads", "everywhere")
    rim.address = LAN_CLIENT
    async with rim.client() as session:
        assert (await session.get("/api/admin/responses")).status == 401
        async with session.get("/api/admin/responses", headers=keyed()) as reply:
            (row,) = (await reply.json())["data"]
    assert row["input_preview"] is None and row["output_text_preview"] is None and row["model"] == TINY


async def test_a_bug_is_told_and_ends_the_reply(rim: Rim, client: AsyncOpenAI) -> None:
    rim.pipeline.script = [TokenChunk(sequence=0, text="Hel"), RuntimeError("secret")]
    events = await types_of(await client.responses.create(model=TINY, input="hello", stream=True))
    assert events[-1].type == "response.failed" and events[-1].response.error.code == "internal_error"
    assert "secret" not in str(events)
    with pytest.raises(openai.InternalServerError) as error:
        await client.responses.create(model=TINY, input="hello")
    assert error.value.status_code == 500 and "secret" not in str(error.value)


async def test_a_store_that_cannot_be_written_promises_nothing(rim: Rim, client: AsyncOpenAI) -> None:
    await rim.database.close()
    for background in (False, True):
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model=TINY, input="hello", background=background)
    assert rim.pipeline.requests == []


async def test_a_store_that_fails_at_the_end_is_told_apart_from_a_reply(rim: Rim, client: AsyncOpenAI) -> None:
    go = asyncio.Event()
    rim.pipeline.script = [TokenChunk(sequence=0, text="Hel"), go, *script("lo")]
    stream = await client.responses.create(model=TINY, input="hello", stream=True)
    await until(lambda: rim.pipeline.active == 1)
    await rim.database.close()
    go.set()
    events = await types_of(stream)
    assert (events[-1].type, events[-1].code) == ("error", "internal_error")
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_an_adapter(rim: Rim, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        await client.responses.create(model=f"{TINY}:nobody", input="hello")
    assert error.value.code == "adapter_not_found"
    assert ModelId(TINY)
