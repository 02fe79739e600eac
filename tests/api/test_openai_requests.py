"""From bodies to the inner request, without a socket."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from swarmd.api.bounds import PROMPT_LIMIT_BYTES
from swarmd.api.openai_requests import chat_request, completion_request
from swarmd.api.openai_shapes import ChatRequest, CompletionRequest
from swarmd.domain.generation import ChatMessage, GenerationRequest
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.refusals import Invalid
from swarmd.domain.structure import Tool, ToolCall, ToolUse

HELLO = [{"role": "user", "content": "hello"}]
NOW = {"type": "function", "function": {"name": "now", "description": "the time", "strict": True}}
CALL = {"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}"}}


def chat(**fields: Any) -> GenerationRequest | Invalid:
    body = msgspec.json.decode(msgspec.json.encode({"model": "m", "messages": HELLO} | fields), type=ChatRequest)
    return chat_request(body, request=RequestId("r"), model=ModelId("m"), fresh_seed=99)


def completion(**fields: Any) -> GenerationRequest | Invalid:
    body = msgspec.json.decode(msgspec.json.encode({"model": "m", "prompt": "x"} | fields), type=CompletionRequest)
    return completion_request(body, request=RequestId("r"), model=ModelId("m"), fresh_seed=99)


def good(found: GenerationRequest | Invalid) -> GenerationRequest:
    assert isinstance(found, GenerationRequest), found
    return found


def test_all_settings_arrive() -> None:
    request = good(
        chat(
            temperature=0, top_p=0.9, top_k=40, min_p=0.05, repeat_penalty=1.1, frequency_penalty=-2, presence_penalty=2,
            seed=7, stop=["a", "b"], max_tokens=10,
        )
    )  # fmt: skip
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.0, 0.9, 40, 0.05)
    assert (sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty) == (1.1, -2.0, 2.0)
    assert (sampling.seed, sampling.top_logprobs) == (7, None)
    assert (request.stop, request.max_tokens) == (("a", "b"), 10)


def test_nulls_are_defaults() -> None:
    nothing = good(
        chat(temperature=None, top_p=None, stop=None, seed=None, max_tokens=None, n=None, stream=None, tools=None)
    )
    assert nothing == good(chat())
    assert nothing.sampling.seed == 99


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 2048), ({"max_tokens": 5}, 5), ({"max_completion_tokens": 6, "max_tokens": 5}, 6), ({"max_tokens": 0}, 1),
        ({"max_tokens": -3}, 1), ({"max_tokens": 10**9}, 32_768),
    ],
)  # fmt: skip
def test_max_tokens(fields: dict[str, int], tokens: int) -> None:
    assert good(chat(**fields)).max_tokens == tokens


def test_completion_defaults_are_the_contract_s() -> None:
    request = good(completion())
    assert (request.max_tokens, request.sampling.temperature) == (16, 1.0)
    assert good(completion(prompt=["one"])).prompt == "one"
    assert good(completion(logprobs=3)).sampling.top_logprobs == 3


def test_messages() -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "name": "n"},
        {"role": "assistant", "content": None},
        {"role": "tool", "content": "42", "tool_call_id": "c"},
    ]
    assert good(chat(messages=messages)).messages == (
        ChatMessage(role="system", content="be brief"),
        ChatMessage(role="user", content="one\ntwo", name="n"),
        ChatMessage(role="assistant", content=""),
        ChatMessage(role="tool", content="42", call_id="c"),
    )


def test_calls_and_their_answers() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "now", "arguments": '{"zone": "UTC"}'}}
    messages = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}]
    (_, said) = good(chat(messages=messages)).messages
    assert said.calls == (ToolCall(id="c", name="now", arguments='{"zone": "UTC"}'),)


@pytest.mark.parametrize(
    ("choice", "use", "named"),
    [
        (None, ToolUse.AUTO, None), ("auto", ToolUse.AUTO, None), ("none", ToolUse.NONE, None),
        ("required", ToolUse.REQUIRED, None),
        ({"type": "function", "function": {"name": "now"}}, ToolUse.REQUIRED, "now"),
    ],
)  # fmt: skip
def test_tools(choice: Any, use: ToolUse, named: str | None) -> None:
    request = good(chat(tools=[NOW], tool_choice=choice, parallel_tool_calls=False))
    assert request.tools == (Tool(name="now", description="the time", parameters='{"type": "object"}', strict=True),)
    assert (request.tool_use, request.tool_named, request.several_calls) == (use, named, False)


def test_response_formats() -> None:
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    assert good(chat(response_format=form)).schema == '{"type": "object", "properties": {"b": {}, "a": {}}}'
    assert good(chat(response_format={"type": "json_object"})).schema == '{"type": "object"}'
    assert good(chat(response_format={"type": "text"})).schema is None


def test_biases_and_token_ids() -> None:
    assert good(chat(logit_bias={"5": -100, "17": 0.5})).sampling.logit_bias == ((5, -100.0), (17, 0.5))
    assert good(completion(prompt=[3, 1, 2])).prompt_tokens == (3, 1, 2)
    assert good(completion(prompt=[[3, 1, 2]])).prompt_tokens == (3, 1, 2)
    assert good(completion(n=3, best_of=3)).prompt == "x"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 9}, "n"),
        ({"n": 0}, "n"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"logit_bias": {"five": 1}}, "logit_bias"),
        ({"logit_bias": {str(token): 1 for token in range(301)}}, "logit_bias"),
        ({"tools": [{"type": "custom"}]}, "tools[0]"),
        ({"tools": [NOW, NOW]}, "tools[1].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [NOW], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [NOW], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"functions": [{}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"grammar": "root ::= [a-z]"}, "grammar"),
        ({"guided_json": {}}, "guided_json"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"verbosity": "low"}, "verbosity"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"store": True}, "store"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "function_call": {}}]}, "messages[0].function_call"),
        (
            {"messages": [*HELLO, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[1].content[0]",
        ),
        ({"messages": [{"role": "user", "content": "x" * (PROMPT_LIMIT_BYTES + 1)}]}, "messages"),
    ],
)
def test_what_is_not_there_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    found = chat(**fields)
    assert isinstance(found, Invalid)
    assert found.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1}, {"n": 8}, {"tools": []}, {"tools": [NOW], "tool_choice": "none"}, {"response_format": {"type": "text"}},
        {"store": False}, {"metadata": {"a": "b"}}, {"modalities": ["text"]}, {"service_tier": "auto"},
        {"logit_bias": {}}, {"logprobs": True, "top_logprobs": 20}, {"stop": []}, {"stop": "x" * 256},
    ],
)  # fmt: skip
def test_what_changes_nothing_is_accepted(fields: dict[str, Any]) -> None:
    good(chat(**fields))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"), ({"prompt": [1, "a"]}, "prompt"), ({"prompt": [True]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": "é" * PROMPT_LIMIT_BYTES}, "prompt"), ({"suffix": "x"}, "suffix"), ({"echo": True}, "echo"),
        ({"best_of": 2}, "best_of"),
    ],
)  # fmt: skip
def test_refused_completions(fields: dict[str, Any], param: str) -> None:
    found = completion(**fields)
    assert isinstance(found, Invalid)
    assert found.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 2.1}, {"temperature": -0.1}, {"top_p": 1.1}, {"frequency_penalty": 3}, {"presence_penalty": -2.1},
        {"stop": ["x"] * 17}, {"stop": ""}, {"stop": ["x" * 257]}, {"top_logprobs": 21, "logprobs": True}, {"seed": 2**63},
        {"messages": []}, {"model": ""}, {"model": "m" * 257}, {"max_tokens": "5"}, {"stream": "yes"}, {"seed": 1.5},
        {"response_format": 5}, {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        {"messages": [{"role": "user", "content": 5}]}, {"messages": [{"content": "x"}]},
    ],
)  # fmt: skip
def test_out_of_range_is_refused_while_decoding(fields: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        chat(**fields)
