"""Bodies of the Anthropic dialect become the inner request, or a refusal that names what was wrong. No socket."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.api.bounds import MAX_TOKENS_LIMIT, PROMPT_LIMIT_BYTES
from swarmd.api.messages_requests import messages_request, prompt_request
from swarmd.api.messages_shapes import CountRequest, MessagesRequest
from swarmd.api.replies import unreadable
from swarmd.domain.generation import ChatMessage, GenerationRequest, Sampling
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.refusals import Invalid
from swarmd.domain.structure import Tool, ToolCall, ToolUse

HELLO = [{"role": "user", "content": "hello"}]
CALL = {"type": "tool_use", "id": "toolu_1", "name": "now", "input": {"zone": "UTC"}}
TOOL = {"name": "now", "description": "the time", "input_schema": {"type": "object"}}


def parsed(**fields: Any) -> GenerationRequest | Invalid:
    body = msgspec.json.encode({"model": "m", "max_tokens": 10, "messages": HELLO, **fields})
    return messages_request(
        msgspec.json.decode(body, type=MessagesRequest), request=RequestId("r"), model=ModelId("m"), fresh_seed=7
    )


def accepted(**fields: Any) -> GenerationRequest:
    found = parsed(**fields)
    assert isinstance(found, GenerationRequest), found
    return found


def test_defaults_are_those_of_the_contract() -> None:
    request = accepted()
    assert request.messages == (ChatMessage(role="user", content="hello"),)
    assert request.sampling == Sampling(temperature=1.0, seed=7)
    assert (request.max_tokens, request.stop, request.tools, request.schema) == (10, (), (), None)


def test_every_field_of_sampling_arrives() -> None:
    request = accepted(temperature=0.25, top_p=0.5, top_k=9, stop_sequences=["a", "b"], max_tokens=10**9)
    assert request.sampling == Sampling(temperature=0.25, top_p=0.5, top_k=9, seed=7)
    assert request.stop == ("a", "b") and request.max_tokens == MAX_TOKENS_LIMIT


@pytest.mark.parametrize(
    "system", ["be short", [{"type": "text", "text": "be short", "cache_control": {"type": "ephemeral"}}]]
)
def test_a_system_prompt_is_a_text_or_blocks(system: Any) -> None:
    assert accepted(system=system).messages[0] == ChatMessage(role="system", content="be short")


def test_a_conversation_with_calls_and_results() -> None:
    request = accepted(
        tools=[TOOL],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "what"}, {"type": "text", "text": "time?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "text", "text": "I look."},
                    CALL,
                    {**CALL, "id": "toolu_2"},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "noon"},
                    {
                        "type": "tool_result", "tool_use_id": "toolu_2", "is_error": True,
                        "content": [{"type": "text", "text": "no"}, {"type": "text", "text": "clock"}],
                    },
                    {"type": "text", "text": "well?"},
                ],
            },
        ],
    )  # fmt: skip
    calls = tuple(ToolCall(id=id, name="now", arguments='{"zone": "UTC"}') for id in ("toolu_1", "toolu_2"))
    assert request.messages == (
        ChatMessage(role="user", content="what\ntime?"),
        ChatMessage(role="assistant", content="I look.", calls=calls),
        ChatMessage(role="tool", content="noon", call_id="toolu_1"),
        ChatMessage(role="tool", content="Error: no\nclock", call_id="toolu_2"),
        ChatMessage(role="user", content="well?"),
    )
    assert request.tools == (Tool(name="now", description="the time", parameters='{"type": "object"}'),)


def test_turns_of_one_side_in_a_row_are_one() -> None:
    request = accepted(
        messages=[*HELLO, {"role": "user", "content": "again"}, {"role": "assistant", "content": "yes"},
                  {"role": "assistant", "content": [CALL]}, {"role": "user", "content": "so"}]
    )  # fmt: skip
    assert [one.role for one in request.messages] == ["user", "assistant", "user"]
    assert request.messages[0].content == "hello\nagain" and request.messages[1].calls[0].id == "toolu_1"


def test_a_turn_of_thoughts_alone_leaves_nothing() -> None:
    thoughts = {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]}
    assert accepted(messages=[*HELLO, thoughts, *HELLO]).messages == (ChatMessage(role="user", content="hello\nhello"),)


@pytest.mark.parametrize(
    ("choice", "use", "named", "several"),
    [
        ({"type": "auto"}, ToolUse.AUTO, None, True),
        ({"type": "none"}, ToolUse.NONE, None, True),
        ({"type": "any"}, ToolUse.REQUIRED, None, True),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolUse.REQUIRED, None, False),
        ({"type": "tool", "name": "now"}, ToolUse.REQUIRED, "now", True),
        (None, ToolUse.AUTO, None, True),
    ],
)
def test_choice_of_tools(choice: Any, use: ToolUse, named: str | None, several: bool) -> None:
    request = accepted(tools=[{**TOOL, "strict": True}], tool_choice=choice)
    assert (request.tool_use, request.tool_named, request.several_calls) == (use, named, several)
    assert request.tools[0].strict


@pytest.mark.parametrize("field", ["output_config", "output_format"])
def test_a_schema_of_the_reply(field: str) -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    assert accepted(**{field: {"format": form} if field == "output_config" else form}).schema == '{"type": "object"}'


@pytest.mark.parametrize("kind", ["disabled", "adaptive"])
def test_thinking_that_asks_for_nothing_is_taken(kind: str) -> None:
    assert accepted(thinking={"type": kind}) == accepted()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
        ({"thinking": {"type": "between_tools"}}, "thinking"),
        ({"output_config": {"effort": "low"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "grammar"}}}, "output_config.format"),
        ({"output_format": {"type": "json_schema"}}, "output_format"),
        ({"container": "c"}, "container"),
        ({"inference_geo": "eu"}, "inference_geo"),
        ({"speed": "fast"}, "speed"),
        ({"mcp_servers": [{"name": "x"}]}, "mcp_servers"),
        ({"context_management": {"edits": []}}, "context_management"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "The answer is ("}]}, "messages[1]"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [CALL]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "thinking"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "x"}]}, *HELLO]},
         "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "gone"}]}]},
         "messages[0].content[0].tool_use_id"),
        ({"messages": [{"role": "assistant", "content": [CALL]}, {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": 5}]}]}, "messages[1].content[0].content"),
        ({"messages": [{"role": "assistant", "content": [CALL]}, {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "image"}]}]}]},
         "messages[1].content[0].content[0]"),
        ({"system": [{"type": "image"}]}, "system[0]"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "now"}]}, "tools[0].input_schema"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "x"}, "tools": [TOOL]}, "tool_choice.name"),
        ({"messages": [{"role": "user", "content": "é" * PROMPT_LIMIT_BYTES}]}, "messages"),
        ({"tools": [{**TOOL, "description": "x" * (PROMPT_LIMIT_BYTES + 1)}]}, "tools"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    found = parsed(**fields)
    assert isinstance(found, Invalid) and found.param == param, found


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 0}, {"max_tokens": None}, {"temperature": 1.5}, {"temperature": -0.1}, {"top_k": -1},
        {"messages": []},
        {"messages": [{"role": "wizard", "content": "x"}]}, {"messages": [{"role": "user"}]}, {"stop_sequences": [""]},
        {"stop_sequences": ["x"] * 17}, {"tools": [TOOL] * 129}, {"tools": [{**TOOL, "name": "a b"}]},
        {"tool_choice": {"type": "perhaps"}}, {"metadata": {"user_id": 5}}, {"model": ""},
    ],
)  # fmt: skip
def test_what_does_not_fit_the_contract(fields: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        parsed(**fields)
    assert unreadable(caught.value).param


def test_a_count_takes_what_a_request_takes_but_for_sampling() -> None:
    body = msgspec.convert({"model": "m", "messages": HELLO, "system": "s", "tools": [TOOL]}, CountRequest)
    found = prompt_request(body, request=RequestId("r"), model=ModelId("m"))
    assert isinstance(found, GenerationRequest)
    assert (found.messages, found.tools) == ((accepted(system="s", tools=[TOOL])).messages, accepted(tools=[TOOL]).tools)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
KINDS = st.sampled_from(["text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking", "x", ""])
BLOCK = st.fixed_dictionaries(
    {"type": KINDS | JSON},
    optional={
        "text": st.text(max_size=8) | JSON, "id": st.sampled_from(["a", "b"]) | JSON, "name": st.just("now") | JSON,
        "input": st.dictionaries(st.text(max_size=4), JSON, max_size=2) | JSON,
        "tool_use_id": st.sampled_from(["a", "b"]) | JSON, "content": JSON, "is_error": st.booleans() | JSON,
    },
)  # fmt: skip
TURN = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "tool"]),
        "content": st.text(max_size=8) | st.lists(BLOCK, max_size=4) | JSON,
    }
)
TOOLS = st.fixed_dictionaries(
    {"name": st.just("now")}, optional={"input_schema": JSON, "type": JSON, "description": JSON}
)
FIELDS = st.fixed_dictionaries(
    {"messages": st.lists(TURN, max_size=5) | JSON},
    optional={
        name: JSON | values
        for name, values in {
            "system": st.lists(BLOCK, max_size=2), "tools": st.lists(TOOLS, max_size=3),
            "tool_choice": st.fixed_dictionaries({"type": st.sampled_from(["auto", "any", "tool", "none"])}),
            "thinking": st.fixed_dictionaries({"type": st.text(max_size=8)}), "output_config": JSON, "max_tokens": JSON,
            "stop_sequences": JSON, "metadata": JSON,
        }.items()
    },
)  # fmt: skip


@given(FIELDS)
def test_whatever_is_sent_is_a_request_or_a_refusal(fields: dict[str, Any]) -> None:
    try:
        found = parsed(**fields)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        assert isinstance(error, msgspec.ValidationError), error
        return
    if isinstance(found, Invalid):
        assert found.what and found.param
        return
    assert found.messages or not fields["messages"][0]["content"] or found.messages == ()
    for message in found.messages:
        assert message.role in ("user", "assistant", "system", "tool")
        assert all(isinstance(json.loads(call.arguments), dict) for call in message.calls)
        assert (message.call_id is not None) == (message.role == "tool")
