"""The parser of the Responses dialect: pure, so that it can be given anything."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.api.bounds import PROMPT_LIMIT_BYTES
from swarmd.api.responses_requests import (
    EXTRAS_LIMIT,
    FILE_LIMIT_BYTES,
    ITEM_ID,
    Asked,
    Reference,
    asked_of,
    inner_request,
    item_id,
    shortened,
)
from swarmd.api.responses_shapes import ITEMS_LIMIT, Item, ResponsesRequest
from swarmd.domain.generation import ChatMessage, GenerationRequest
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.refusals import Invalid, PromptTooLong
from swarmd.domain.structure import ToolCall, ToolUse

ID = "resp_" + "a" * 32
ADD = {"type": "function", "name": "add"}
SUB = {"type": "function", "name": "sub"}
KNOWN = frozenset(ResponsesRequest.__struct_fields__)


def asked(body: dict[str, Any]) -> Asked | Invalid:
    """As the handler does it. Raises msgspec.ValidationError where the server refuses before."""
    data = msgspec.json.encode({"model": "m", "input": "hello"} | body)
    fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    extras = {name: value for name, value in fields.items() if name not in KNOWN}
    return asked_of(msgspec.json.decode(data, type=ResponsesRequest), extras, response=ID)


def inner(body: dict[str, Any]) -> GenerationRequest | Invalid:
    found = asked(body)
    if isinstance(found, Invalid):
        return found
    items: list[Item] = [one for one in found.items if not isinstance(one, Reference)]
    return inner_request(found, items, request=RequestId("r"), model=ModelId("m"), client="c", fresh_seed=5)


def accepted(**body: Any) -> GenerationRequest:
    found = inner(body)
    assert isinstance(found, GenerationRequest), found
    return found


def refused(**body: Any) -> Invalid:
    found = inner(body)
    assert isinstance(found, Invalid), found
    return found


def file(data: bytes, **more: str) -> dict[str, str]:
    return {"type": "input_file", "file_data": base64.b64encode(data).decode(), **more}


def test_a_text() -> None:
    request = accepted(instructions="Be short.", user="u")
    assert request.messages == (
        ChatMessage(role="system", content="Be short."), ChatMessage(role="user", content="hello"),
    )  # fmt: skip
    assert (request.max_tokens, request.sampling.temperature, request.sampling.seed, request.client) == (2048, 0.7, 5, "c")
    assert request.several_calls and request.schema is None and request.sampling.top_logprobs is None


def test_items_become_messages() -> None:
    request = accepted(
        input=[
            {"role": "developer", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"type": "message", "role": "user", "content": "c"},
            {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
             "content": [{"type": "output_text", "text": "d", "annotations": []}, {"type": "refusal", "refusal": "e"}]},
            {"type": "function_call", "call_id": "1", "name": "add", "arguments": "{}", "id": "fc_1"},
            {"type": "function_call", "call_id": "2", "name": "sub", "arguments": '{"a":1}'},
            {"type": "function_call_output", "call_id": "2", "output": "f"},
            {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "g"}]},
            {"type": "function_call", "call_id": "3", "name": "add", "arguments": ""},
        ]
    )  # fmt: skip
    calls = (ToolCall(id="1", name="add", arguments="{}"), ToolCall(id="2", name="sub", arguments='{"a":1}'))
    assert request.messages == (
        ChatMessage(role="system", content="a\nb"),
        ChatMessage(role="user", content="c"),
        ChatMessage(role="assistant", content="d\ne", calls=calls),
        ChatMessage(role="tool", content="f", call_id="2", name="sub"),
        ChatMessage(role="tool", content="g", call_id="1", name="add"),
        ChatMessage(role="assistant", content="", calls=(ToolCall(id="3", name="add", arguments="{}"),)),
    )


def test_a_file_of_text() -> None:
    parts = [file("é".encode(), filename="a.txt"), {"type": "input_text", "text": "what is it?"}]
    assert accepted(input=[{"role": "user", "content": parts}]).messages[0].content == "a.txt:\né\nwhat is it?"
    uri = {"type": "input_file", "file_data": "data:text/plain;base64,aGk="}
    assert accepted(input=[{"role": "user", "content": [uri]}]).messages[0].content == "hi"


@pytest.mark.parametrize(
    "part",
    [
        file(b"%PDF-1.7\xff"), file(b"a\0b"), {"type": "input_file", "file_data": "not base64!"},
        {"type": "input_file", "file_data": "http://x,aGk="}, {"type": "input_file", "file_id": "file-1"},
        {"type": "input_file", "file_url": "http://x/a.txt"},
        {"type": "input_image", "image_url": "data:image/png;base64,aGk="},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, {"type": "input_text"},
    ],
)  # fmt: skip
def test_parts_that_cannot_be_read(part: dict[str, Any]) -> None:
    refusal = refused(input=[{"role": "user", "content": "a"}, {"role": "user", "content": [part]}])
    assert refusal.param == "input[1].content[0]"


def test_a_large_file_is_refused_before_it_is_decoded() -> None:
    part = {"type": "input_file", "file_data": "A" * (FILE_LIMIT_BYTES * 4 // 3 + 8)}
    assert "more than" in refused(input=[{"role": "user", "content": [part]}]).what


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "computer_call_output", "call_id": "1", "output": {"type": "computer_screenshot"}}, "input[0]"),
        ({"type": "reasoning", "id": "rs_1", "summary": []}, "input[0]"),
        ({"role": "robot", "content": "x"}, "input[0].role"),
        ({"role": "user", "content": 5}, "input[0].content"),
        ({"role": "user"}, "input[0].content"),
        ({"type": "function_call", "call_id": "1", "name": "a b", "arguments": "{}"}, "input[0].name"),
        ({"type": "function_call", "call_id": "1", "name": "add", "arguments": {}}, "input[0].arguments"),
        ({"type": "function_call", "call_id": "", "name": "add", "arguments": "{}"}, "input[0].call_id"),
        ({"type": "function_call_output", "call_id": "1", "output": [{"type": "input_image"}]}, "input[0].output[0]"),
        ({"type": "function_call_output", "call_id": "1", "output": "alone"}, "input"),
    ],
)  # fmt: skip
def test_items_that_cannot_be_read(item: dict[str, Any], param: str) -> None:
    assert refused(input=[item]).param == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_tokens": 5}, "max_tokens"), ({"n": 2}, "n"),
        ({"truncation": "some"}, "truncation"), ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"background_options": {"completion_window": "2h"}}, "background_options"), ({"image": {}}, "image"),
        ({"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options"),
        ({"access_programs": {}}, "access_programs"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"), ({"service_tier": "flex"}, "service_tier"),
        ({"reasoning": {"effort": "low"}}, "reasoning"), ({"reasoning": {"summary": "auto"}}, "reasoning"),
        ({"include": ["nothing.known"]}, "include"), ({"metadata": {"a": "x" * 65_600}}, "metadata"),
        ({"background": True, "store": False}, "background"), ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"), ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"), ({"tools": [ADD, ADD]}, "tools[1].name"),
        ({"tools": [ADD], "tool_choice": {"type": "function", "name": "sub"}}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [SUB]}}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": {"type": "allowed_tools", "mode": "all", "tools": [ADD]}}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"), ({"tool_choice": "maybe"}, "tool_choice"),
        ({"input": None}, "input"), ({"input": []}, "input"), ({"input": "x" * (PROMPT_LIMIT_BYTES + 1)}, "input"),
        ({"logit_bias": {"x": 1}}, "logit_bias"), ({"guided_json": {}}, "guided_json"),
        ({"messages": []}, "messages"), ({"response_format": {"type": "text"}}, "response_format"),
        ({"modalities": ["audio"]}, "modalities"), ({"status": "completed"}, "status"), ({"trace": "x" * 5000}, "trace"),
    ],
)  # fmt: skip
def test_what_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    assert refused(**body).param == param


@pytest.mark.parametrize(
    "body",
    [
        {"reasoning": {}}, {"reasoning": None}, {"reasoning": {"effort": None}},
        {"include": ["reasoning.encrypted_content"]},
        {"service_tier": "auto"}, {"truncation": "disabled"}, {"text": {"verbosity": "medium", "format": {"type": "text"}}},
        {"stream_options": {"include_obfuscation": False}}, {"max_tool_calls": 3}, {"prompt_cache_key": "x"},
        {"safety_identifier": "x"}, {"prompt_cache_retention": "24h"}, {"n": 1}, {"tools": []}, {"store": None},
        {"trace": {"a": [1]}, "client": None},
    ],
)  # fmt: skip
def test_what_changes_nothing_is_taken(body: dict[str, Any]) -> None:
    assert accepted(**body).messages == (ChatMessage(role="user", content="hello"),)


def test_fields_that_no_contract_names() -> None:
    found = asked({"trace": {"a": [1, None]}, "seed": 7, "stop": ["x"], "top_k": 5})
    assert isinstance(found, Asked) and found.extras == {"trace": {"a": [1, None]}}
    request = accepted(seed=7, stop=["x"], top_k=5)
    assert (request.sampling.seed, request.stop, request.sampling.top_k) == (7, ("x",), 5)
    assert "at most" in refused(**{f"x{number}": 1 for number in range(EXTRAS_LIMIT + 1)}).what
    for odd in (b"[" * 2000 + b"]" * 2000, b"1e999"):
        body = msgspec.convert({"model": "m", "input": "x"}, ResponsesRequest)
        refusal = asked_of(body, {"odd": msgspec.Raw(odd)}, response=ID)
        assert isinstance(refusal, Invalid) and refusal.param == "odd"


def test_tools_that_are_allowed() -> None:
    choice = {"type": "allowed_tools", "mode": "required", "tools": [SUB]}
    request = accepted(tools=[ADD, SUB | {"parameters": {"type": "object", "properties": {}}}], tool_choice=choice)
    assert [tool.name for tool in request.tools] == ["sub"] and request.tool_use is ToolUse.REQUIRED
    assert json.loads(request.tools[0].parameters) == {"type": "object", "properties": {}}
    named = accepted(tools=[ADD, SUB], tool_choice={"type": "function", "name": "add"}, parallel_tool_calls=False)
    assert (named.tool_named, len(named.tools), named.several_calls) == ("add", 2, False)


def test_too_many_items() -> None:
    with pytest.raises(msgspec.ValidationError):
        asked({"input": [{"role": "user", "content": "x"}] * (ITEMS_LIMIT + 1)})


def test_an_id_tells_its_response() -> None:
    for kind in ("msg", "fc", "fco"):
        id = item_id(kind, ID, "o", 12)
        assert ITEM_ID.fullmatch(id) and Reference(id=id).response == ID and len(id) <= 64
    assert Reference(id="rs_5").response is None and Reference(id=f"{ID}").response is None
    found = asked({"input": [{"id": "msg_x"}, {"type": "item_reference", "id": "fc_y"}]})
    assert isinstance(found, Asked) and found.items == (Reference(id="msg_x"), Reference(id="fc_y"))


def test_a_conversation_that_does_not_fit_loses_its_oldest_turns() -> None:
    turns = [{"role": role, "content": f"{number}" * 50} for number in range(4) for role in ("user", "assistant")]
    request = accepted(instructions="rule", input=[*turns, {"role": "user", "content": "last"}])

    def left(prompt_tokens: int) -> list[str]:
        shorter = shortened(request, PromptTooLong(prompt_tokens=prompt_tokens, context_tokens=100))
        assert shorter is not None
        assert [one.role for one in shorter.messages[:2]] == ["system", "user"] and shorter.messages[-1].content == "last"
        return [one.content[0] for one in shorter.messages if one.role == "assistant"]

    assert (left(101), left(150), left(10_000)) == (["1", "2", "3"], ["2", "3"], [])
    one_turn = accepted(instructions="rule", input="x" * 1000)
    assert shortened(one_turn, PromptTooLong(prompt_tokens=200, context_tokens=100)) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=8,
)
WORDS = st.sampled_from(
    ["message", "function_call", "function_call_output", "item_reference", "reasoning", "user", "assistant", "developer",
     "function", "allowed_tools", "input_text", "output_text", "refusal", "input_file", "input_image", "json_schema", "auto",
     "required", "add", "c1", "e30=", "{}"]
)  # fmt: skip
PART_FIELDS = st.sampled_from(["type", "text", "refusal", "file_data", "filename"])
PARTS = st.lists(st.dictionaries(PART_FIELDS, WORDS | JSON), max_size=3)
ITEM_FIELDS = st.sampled_from(["type", "role", "content", "id", "call_id", "name", "arguments", "output"])
ITEM = st.dictionaries(ITEM_FIELDS, WORDS | PARTS | JSON, max_size=8)
INPUT = st.fixed_dictionaries({"input": st.text(max_size=5) | st.lists(ITEM, max_size=4)})
FIELDS = st.sampled_from([*sorted(KNOWN - {"model"}), "messages", "x"])


@given(INPUT, st.dictionaries(FIELDS, WORDS | JSON, max_size=3))
def test_whatever_comes_is_taken_or_refused(body: dict[str, Any], more: dict[str, Any]) -> None:
    try:
        found = inner(more | body)
    except msgspec.ValidationError:
        return  # the server answers 400
    if isinstance(found, Invalid):
        assert found.sentence
        return
    assert found.messages and all(one.role in ("system", "user", "assistant", "tool") for one in found.messages)
    answered = [one.call_id for one in found.messages if one.role == "tool"]
    made = {call.id for one in found.messages for call in one.calls}
    assert set(answered) <= made
