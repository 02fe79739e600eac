"""The inner request over Anthropic's wire, and what comes back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from swarmd.domain.generation import ChatMessage, Finish, GenerationRequest, Sampling
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.refusals import Invalid
from swarmd.domain.structure import Tool, ToolCall, ToolUse
from swarmd.providers.chat_wire import WireError, WireFault
from swarmd.providers.messages_wire import MessagesReader, messages_body
from tests.fakes.provider import anthropic_events

USER = ChatMessage(role="user", content="hi")
REQUEST = GenerationRequest(request=RequestId("r"), model=ModelId("claude-x"), messages=(USER,), max_tokens=50)
TOOL = Tool(name="weather", parameters='{"type": "object"}')


def body(request: GenerationRequest) -> dict[str, Any]:
    made = messages_body(request)
    assert not isinstance(made, Invalid)
    return made


def test_a_plain_request() -> None:
    assert body(REQUEST) == {
        "model": "claude-x", "max_tokens": 50, "stream": True,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    }  # fmt: skip


def test_system_messages_and_turns() -> None:
    call = ToolCall(id="t1", name="weather", arguments='{"city": "Ulm"}')
    messages = (
        ChatMessage(role="system", content="be brief"), ChatMessage(role="system", content="be kind"), USER,
        ChatMessage(role="user", content="there"), ChatMessage(role="assistant", content="well", calls=(call,)),
        ChatMessage(role="tool", content="rain", call_id="t1"), ChatMessage(role="user", content="and?"),
    )  # fmt: skip
    made = body(replace(REQUEST, messages=messages))
    assert made["system"] == "be brief\n\nbe kind"
    assert [turn["role"] for turn in made["messages"]] == ["user", "assistant", "user"]
    assert made["messages"][1]["content"][1] == {
        "type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Ulm"},
    }  # fmt: skip
    assert made["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "t1", "content": "rain"}, {"type": "text", "text": "and?"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("use", "named", "several", "choice"),
    [
        (ToolUse.AUTO, None, True, {"type": "auto"}),
        (ToolUse.NONE, None, True, {"type": "none"}),
        (ToolUse.REQUIRED, None, False, {"type": "any", "disable_parallel_tool_use": True}),
        (ToolUse.REQUIRED, "weather", True, {"type": "tool", "name": "weather"}),
    ],
)
def test_tools(use: ToolUse, named: str | None, several: bool, choice: dict[str, Any]) -> None:
    made = body(replace(REQUEST, tools=(TOOL,), tool_use=use, tool_named=named, several_calls=several))
    assert made["tools"] == [{"name": "weather", "description": "", "input_schema": {"type": "object"}}]
    assert made["tool_choice"] == choice


def test_what_it_has_is_sent_and_what_it_has_not_is_refused() -> None:
    sampling = Sampling(temperature=1.5, top_p=0.9, top_k=5)
    made = body(replace(REQUEST, sampling=sampling, stop=("x",), schema='{"title":"T"}'))
    assert (made["temperature"], made["top_p"], made["top_k"], made["stop_sequences"]) == (1.0, 0.9, 5, ["x"])
    assert made["output_config"] == {"format": {"type": "json_schema", "schema": {"title": "T"}}}
    for change, param in (
        ({"messages": (), "prompt": "x"}, "prompt"),
        ({"sampling": Sampling(top_logprobs=0)}, "logprobs"),
        ({"sampling": Sampling(logit_bias=((1, 1.0),))}, "logit_bias"),
        ({"sampling": Sampling(presence_penalty=1.0)}, "presence_penalty"),
        ({"schema": '{"type": "object"}'}, "response_format"),
        ({"messages": (ChatMessage(role="system", content="x"),)}, "messages"),
        (
            {"messages": (ChatMessage(role="assistant", content="", calls=(ToolCall(id="a", name="b", arguments="["),)),)},
            "messages[0].tool_calls",
        ),
    ):  # fmt: skip
        refusal = messages_body(replace(REQUEST, **change))
        assert isinstance(refusal, Invalid) and refusal.param == param


def test_a_reply() -> None:
    reader = MessagesReader()
    pieces = [reader.piece_of(json.dumps(event).encode()) for event in anthropic_events("Hel", "lo")]
    assert "".join(piece.text for piece in pieces) == "Hello" and reader.spoke
    assert (pieces[0].prompt_tokens, pieces[0].cached_tokens) == (9, 4)
    assert (pieces[-2].finish, pieces[-2].completion_tokens, pieces[-1].ended) == (Finish.STOP, 2, True)


def test_calls_behind_text_are_numbered_from_0() -> None:
    reader = MessagesReader()
    pieces = [
        reader.piece({"type": "content_block_start", "index": 1,
                      "content_block": {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}}),
        reader.piece({"type": "content_block_delta", "index": 1,
                      "delta": {"type": "input_json_delta", "partial_json": '{"a": 1}'}}),
        reader.piece({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
        reader.piece({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}}),
    ]  # fmt: skip
    calls = [call for piece in pieces for call in piece.calls]
    assert [(call.index, call.id, call.arguments) for call in calls] == [(0, "t1", ""), (0, None, '{"a": 1}')]
    assert pieces[-1].finish is Finish.TOOL_CALLS


def test_faults() -> None:
    reader = MessagesReader()
    for data in (b"{", b"[]"):
        with pytest.raises(WireFault):
            reader.piece_of(data)
    with pytest.raises(WireError):
        reader.piece_of(b'{"type": "error", "error": {"type": "overloaded_error"}}')
    assert reader.piece_of(b'{"type": "content_block_delta", "index": [1], "delta": {"type": "text_delta"}}').text == ""


@pytest.mark.parametrize("index", [[], {}, None, "0"])
def test_an_index_that_is_no_number_belongs_to_no_call(index: object) -> None:
    delta = {"type": "input_json_delta", "partial_json": "{}"}
    assert MessagesReader().piece({"type": "content_block_delta", "index": index, "delta": delta}).calls == ()
