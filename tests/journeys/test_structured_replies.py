"""Structured replies over three nodes, asked by the official client: JSON of a schema, tools, several choices at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anthropic
import jsonschema
import openai
import pydantic
import pytest

from swarmd.app import BUILTIN_SHARD_BYTES
from swarmd.domain.events import GenerationResumed
from swarmd.domain.generation import Finish, Sampling
from swarmd.domain.ids import ModelId
from swarmd.domain.refusals import Invalid
from swarmd.domain.structure import Tool, ToolUse
from swarmd.inference.generation import Generation
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.nodes import Node, chat, generated, running, spread, swarm, text_of

BUILTIN = Path(__file__).parents[2] / "swarmd" / "builtin" / "swarmd-builtin.gguf"
MODEL = TinyModel(layers=6, tokenizer=True)
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    "<tool_call>\n{\"name\": .., \"arguments\": ..}\n</tool_call><|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% if message.tool_calls %}{% for call in message.tool_calls %}<tool_call>\n"
    "{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}\n</tool_call>{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LIST = {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{10,14}$"}, "minItems": 12, "maxItems": 14}
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "additionalProperties": False}}},
]
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
Three = tuple[list[Node], ModelId]


@pytest.fixture
async def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Three]:
    monkeypatch.setattr("tests.fakes.gguf.CHAT_TEMPLATE", TEMPLATE)
    path = write_model(tmp_path / "tiny.gguf", MODEL)
    async with swarm(tmp_path, 3, inference__context_tokens=2048) as nodes:
        model = ModelId(await nodes[0].desk.add_file(path, 1))
        await spread(nodes, model)
        yield nodes, model


async def asked(node: Node, question: Callable[[openai.OpenAI], Any]) -> Any:
    key = node.api_key_path.read_text().strip()

    def ask() -> Any:
        with openai.OpenAI(base_url=f"{node.url}v1", api_key=key, max_retries=0) as client:
            return question(client)

    return await asyncio.to_thread(ask)


class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    alive: bool
    kind: str = pydantic.Field(pattern="^[a-z]{2,5}$")
    age: int = pydantic.Field(ge=0, le=99)


async def test_json_tools_and_choices_by_the_official_client(three):
    nodes, model = three

    def parsed(client: openai.OpenAI) -> None:
        reply = client.chat.completions.parse(
            model=model, messages=HELLO, response_format=Person, temperature=1, seed=3, max_tokens=300
        )
        assert isinstance(reply.choices[0].message.parsed, Person) and reply.choices[0].finish_reason == "stop"
        stream = client.chat.completions.create(
            model=model, messages=HELLO, seed=3, max_tokens=300, stream=True, temperature=1, n=3, logit_bias={"5": -100},
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["red", "green", 7]}}},
            stream_options={"include_usage": True},
        )  # fmt: skip
        texts, ends, usage = ["", "", ""], [], None
        for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                ends += [choice.index] if choice.finish_reason else []
            usage = chunk.usage or usage
        assert all(json.loads(text) in ("red", "green", 7) for text in texts), texts
        assert sorted(ends) == [0, 1, 2] and usage is not None and usage.completion_tokens >= 3
        with pytest.raises(openai.BadRequestError, match="uniqueItems") as refused:
            client.chat.completions.create(
                model=model, messages=HELLO, response_format={
                    "type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "uniqueItems": True}},
                },
            )  # fmt: skip
        assert refused.value.param == "response_format"
        with pytest.raises(openai.BadRequestError) as unknown:
            client.chat.completions.create(model=model, messages=HELLO, logit_bias={"999999": 1})
        assert unknown.value.param == "logit_bias"

    def called(client: openai.OpenAI) -> None:
        more: Any = {"model": model, "messages": HELLO, "tools": TOOLS, "max_tokens": 300, "seed": 5, "temperature": 0.8}
        whole = client.chat.completions.create(tool_choice="required", parallel_tool_calls=False, **more)
        (call,) = whole.choices[0].message.tool_calls
        assert whole.choices[0].finish_reason == "tool_calls" and whole.choices[0].message.content is None
        named = {"weather": WEATHER, "now": {"type": "object", "maxProperties": 0}}
        jsonschema.validate(json.loads(call.function.arguments), named[call.function.name])
        stream = client.chat.completions.create(tool_choice="required", parallel_tool_calls=False, stream=True, **more)
        pieces = [piece for chunk in stream for piece in chunk.choices[0].delta.tool_calls or ()]
        assert (pieces[0].id, pieces[0].function.name) != (None, None) and pieces[0].function.name == call.function.name
        assert "".join(piece.function.arguments for piece in pieces) == call.function.arguments
        chosen = client.chat.completions.create(
            tool_choice={"type": "function", "function": {"name": "weather"}}, **more
        )
        (only,) = chosen.choices[0].message.tool_calls
        jsonschema.validate(json.loads(only.function.arguments), WEATHER)
        answered = [*HELLO, chosen.choices[0].message.model_dump(exclude_none=True)]
        answered.append({"role": "tool", "tool_call_id": only.id, "content": "sunny"})
        free = client.chat.completions.create(**{**more, "messages": answered, "max_tokens": 8})
        assert free.choices[0].finish_reason in ("stop", "length") and free.usage.prompt_tokens > whole.usage.prompt_tokens

    await asked(nodes[0], parsed)
    await asked(nodes[0], called)
    assert nodes[0].pipeline.active == 0


async def test_a_grammar_over_three_nodes_says_what_the_whole_model_says(three, tmp_path):
    nodes, model = three
    requests = [chat(model, "hello", max_tokens=400, schema=json.dumps(LIST), sampling=Sampling(temperature=0.0))]
    tools = (Tool(name="weather", parameters=json.dumps(WEATHER)),)
    requests.append(chat(model, "hello", max_tokens=100, tools=tools, tool_use=ToolUse.REQUIRED))
    found = [await generated(nodes[0], request) for request in requests]
    jsonschema.validate(json.loads(text_of(found[0])), LIST)
    assert found[1][-1].finish is Finish.TOOL_CALLS
    async with running(tmp_path / "alone") as node:
        alone = await node.desk.add_file(tmp_path / "tiny.gguf", 1 << 30)
        assert alone == model and len(node.registry.view(model).shards) == 1
        for request, chunks in zip(requests, found, strict=True):
            same = await generated(node, request)
            assert text_of(same) == text_of(chunks)
            assert [one.calls for one in same if one.calls] == [one.calls for one in chunks if one.calls]


async def test_a_tail_that_is_killed_goes_on_within_the_grammar(three):
    nodes, model = three
    sampling = Sampling(temperature=0.8, seed=4, frequency_penalty=0.01)
    request = chat(model, "hello", max_tokens=400, schema=json.dumps(LIST), sampling=sampling)
    undisturbed = text_of(await generated(nodes[0], request))
    jsonschema.validate(json.loads(undisturbed), LIST)
    (status,) = nodes[2].workers.statuses()
    generation = await nodes[0].pipeline.open(request)
    assert isinstance(generation, Generation)
    chunks = []
    with nodes[0].bus.spy() as head:
        async with generation:
            async for chunk in generation:
                chunks.append(chunk)
                if chunk.sequence == 3:
                    os.kill(status.pid, signal.SIGKILL)
        await head.wait_for(GenerationResumed)
    assert text_of(chunks) == undisturbed
    assert chunks[-1].usage.resumes == 1


async def test_tools_by_the_clients_of_anthropic_and_of_responses(three):
    nodes, model = three
    key = nodes[0].api_key_path.read_text().strip()
    weather = {"name": "weather", "description": "of a city", "input_schema": WEATHER}
    async with anthropic.AsyncAnthropic(base_url=nodes[0].url, api_key=key, max_retries=0) as client:
        more: Any = {"model": model, "tools": [weather], "max_tokens": 300}
        chosen: Any = {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
        async with client.messages.stream(messages=HELLO, tool_choice=chosen, **more) as stream:
            pieces = [event.partial_json async for event in stream if event.type == "input_json"]
            first = await stream.get_final_message()
        (call,) = first.content
        assert first.stop_reason == "tool_use" and call.type == "tool_use" and call.name == "weather"
        jsonschema.validate(call.input, WEATHER)
        assert json.loads("".join(pieces)) == call.input
        result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
        answered: Any = [*HELLO, {"role": "assistant", "content": [call.to_dict()]}, {"role": "user", "content": [result]}]
        free = await client.messages.create(messages=answered, **{**more, "max_tokens": 8})
        assert free.usage.input_tokens + (free.usage.cache_read_input_tokens or 0) > first.usage.input_tokens
    async with openai.AsyncOpenAI(base_url=f"{nodes[0].url}v1", api_key=key, max_retries=0) as client:
        tools: Any = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}]
        async with client.responses.stream(
            model=model, input="hello", tools=tools, tool_choice="required", parallel_tool_calls=False, max_output_tokens=300
        ) as stream:
            deltas = [event.delta async for event in stream if event.type == "response.function_call_arguments.delta"]
            final = await stream.get_final_response()
        (item,) = final.output
        assert item.type == "function_call" and item.name == "weather" and "".join(deltas) == item.arguments
        jsonschema.validate(json.loads(item.arguments), WEATHER)
        output: Any = [{"type": "function_call_output", "call_id": item.call_id, "output": "sunny"}]
        after = await client.responses.create(
            model=model, input=output, previous_response_id=final.id, tools=tools, max_output_tokens=8
        )
        assert after.usage.input_tokens > final.usage.input_tokens and after.previous_response_id == final.id


async def test_a_tail_that_is_killed_goes_on_in_messages_and_in_responses(three):
    nodes, model = three
    key = nodes[0].api_key_path.read_text().strip()

    async def messages(strike: Callable[[], None]) -> str:
        async with (
            anthropic.AsyncAnthropic(base_url=nodes[0].url, api_key=key, max_retries=0) as client,
            client.messages.stream(model=model, messages=HELLO, max_tokens=80, extra_body={"temperature": 0}) as stream,
        ):
            async for _ in stream.text_stream:
                strike()
            return await stream.get_final_text()

    async def responses(strike: Callable[[], None]) -> str:
        async with (
            openai.AsyncOpenAI(base_url=f"{nodes[0].url}v1", api_key=key, max_retries=0) as client,
            client.responses.stream(model=model, input="hello", max_output_tokens=80, temperature=0) as stream,
        ):
            async for event in stream:
                if event.type == "response.output_text.delta":
                    strike()
            return (await stream.get_final_response()).output_text

    for ask in (messages, responses):
        undisturbed = await ask(lambda: None)
        struck: list[int] = []

        def strike(struck: list[int] = struck) -> None:
            if not struck:
                struck.extend(status.pid for status in nodes[2].workers.statuses())
                os.kill(struck[0], signal.SIGKILL)

        with nodes[0].bus.spy() as head:
            assert await ask(strike) == undisturbed and undisturbed, ask
            await head.wait_for(GenerationResumed)
    assert nodes[0].pipeline.active == 0


async def test_the_built_in_model_writes_json_and_says_that_it_knows_no_tools(tmp_path):
    async with running(tmp_path / "alone", inference__context_tokens=1024) as node:
        model = ModelId(await node.desk.add_file(BUILTIN, BUILTIN_SHARD_BYTES))
        chunks = await generated(node, chat(model, "What is a shard?", max_tokens=300, schema=json.dumps(WEATHER)))
        jsonschema.validate(json.loads(text_of(chunks)), WEATHER)
        refused = await node.pipeline.open(chat(model, "hello", tools=(Tool(name="now"),)))
        assert isinstance(refused, Invalid) and refused.param == "tools" and "leave tools out" in refused.what
