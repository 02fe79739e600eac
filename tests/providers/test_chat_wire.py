"""The inner request over OpenAI's wire, and what comes back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from swarmd.domain.generation import ChatMessage, Finish, GenerationRequest, Sampling
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.refusals import Invalid
from swarmd.domain.structure import CallPiece, Tool, ToolCall, ToolUse
from swarmd.providers.chat_wire import ChatReader, WireError, WireFault, chat_body
from tests.fakes.provider import FakeProvider, call_events, ready

USER = ChatMessage(role="user", content="hi")
REQUEST = GenerationRequest(
    request=RequestId("r"), model=ModelId("gpt-4o"), messages=(USER,), max_tokens=50, sampling=Sampling(seed=2**40 + 5)
)
FAKE = FakeProvider()
TOOL = Tool(name="weather", description="of a city", parameters='{"type": "object", "properties": {}}', strict=True)


def body(request: GenerationRequest = REQUEST, name: str = "openai", **more: Any) -> dict[str, Any]:
    made = chat_body(ready(FAKE, name, **more), request)
    assert not isinstance(made, Invalid)
    return made


def test_a_plain_request_has_nothing_that_strict_servers_refuse() -> None:
    assert body() == {
        "model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_completion_tokens": 50,
        "stream_options": {"include_usage": True}, "seed": 5,
    }  # fmt: skip
    mistral = body(name="mistral")
    assert "stream_options" not in mistral and "seed" not in mistral
    assert (mistral["random_seed"], mistral["max_tokens"]) == (5, 50)


def test_models_that_think_get_no_sampling() -> None:
    warm = replace(REQUEST, sampling=Sampling(temperature=0.2, top_p=0.5), stop=("x",))
    assert {"temperature", "top_p", "stop", "seed"} <= body(warm).keys()
    for model in ("o3-mini", "gpt-5.1"):
        made = body(replace(warm, model=ModelId(model)))
        assert not {"temperature", "top_p", "stop", "seed"} & made.keys()


def test_everything_that_was_asked_for_is_sent() -> None:
    sampling = Sampling(
        temperature=0.0, top_p=0.9, top_k=40, min_p=0.1, frequency_penalty=0.5, presence_penalty=-0.5, repeat_penalty=1.1,
        top_logprobs=3, logit_bias=((5, -100.0),),
    )  # fmt: skip
    request = replace(
        REQUEST, sampling=sampling, stop=("END",), tools=(TOOL,), tool_use=ToolUse.REQUIRED, tool_named="weather",
        several_calls=False, schema='{"type": "object", "title": "T"}',
    )  # fmt: skip
    made = body(request, custom=True)
    for name, value in {
        "temperature": 0.0, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "frequency_penalty": 0.5, "presence_penalty": -0.5,
        "repetition_penalty": 1.1, "repeat_penalty": 1.1, "logprobs": True, "top_logprobs": 3, "logit_bias": {"5": -100.0},
        "stop": ["END"], "parallel_tool_calls": False,
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
    }.items():  # fmt: skip
        assert made[name] == value, name
    assert made["tools"][0]["function"]["strict"] is True
    assert made["response_format"]["json_schema"] == {
        "name": "reply", "schema": {"type": "object", "title": "T"}, "strict": True,
    }  # fmt: skip
    assert body(replace(REQUEST, schema='{"type": "object"}'))["response_format"] == {"type": "json_object"}


def test_a_conversation_with_calls() -> None:
    messages = (
        ChatMessage(role="system", content="be brief"), USER,
        ChatMessage(role="assistant", content="", calls=(ToolCall(id="c1", name="weather", arguments='{"city":"Ulm"}'),)),
        ChatMessage(role="tool", content="rain", call_id="c1"),
    )  # fmt: skip
    sent = body(replace(REQUEST, messages=messages))["messages"]
    assert sent[2] == {
        "role": "assistant", "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}],
    }  # fmt: skip
    assert sent[3] == {"role": "tool", "content": "rain", "tool_call_id": "c1"}


def test_a_prompt_as_it_is_has_no_road_here() -> None:
    refusal = chat_body(ready(FAKE), replace(REQUEST, messages=(), prompt="x"))
    assert isinstance(refusal, Invalid) and refusal.param == "prompt"


def pieces(*events: Any) -> list[Any]:
    reader = ChatReader()
    return [reader.piece_of(json.dumps(event).encode()) for event in events]


def test_calls_are_numbered_from_0_whatever_the_server_counts() -> None:
    calls = [call for piece in pieces(*call_events()) for call in piece.calls]
    assert calls == [
        CallPiece(index=0, id="call_a", name="weather", arguments=""), CallPiece(index=0, arguments='{"city":'),
        CallPiece(index=0, arguments='"Ulm"}'),
    ]  # fmt: skip


def test_whole_calls_without_an_index_or_all_at_0() -> None:
    def delta(*calls: dict[str, Any]) -> dict[str, Any]:
        return {"choices": [{"delta": {"tool_calls": list(calls)}}]}

    one = {"id": "a", "function": {"name": "f", "arguments": "{}"}}
    two = {"id": "b", "function": {"name": "g", "arguments": {"x": 1}}}
    (piece,) = pieces(delta(one, two))
    assert [(call.index, call.id, call.arguments) for call in piece.calls] == [(0, "a", "{}"), (1, "b", '{"x": 1}')]
    first, second = pieces(delta({"index": 0, **one}), delta({"index": 0, **two}))
    assert [call.index for piece in (first, second) for call in piece.calls] == [0, 1]
    (nameless,) = pieces(delta({"function": {"name": "f", "arguments": ""}}))
    assert nameless.calls[0].id == "call_0"
    with pytest.raises(WireFault, match="without a name"):
        pieces(delta({"index": 3, "function": {"arguments": "x"}}))


def test_usage_wherever_it_is() -> None:
    counts = {"prompt_tokens": 3, "completion_tokens": 2}
    for event in (
        {"choices": [], "usage": counts}, {"choices": [], "x_groq": {"usage": counts}},
        {"choices": [{"delta": {}, "usage": counts}]},
    ):  # fmt: skip
        (piece,) = pieces(event)
        assert (piece.prompt_tokens, piece.completion_tokens) == (3, 2)


def test_ends() -> None:
    for said, finish in (("stop", Finish.STOP), ("length", Finish.LENGTH), ("eos", Finish.STOP), (None, None)):
        (piece,) = pieces({"choices": [{"delta": {"content": None}, "finish_reason": said}]})
        assert piece.finish is finish and piece.text == ""
    assert ChatReader().piece_of(b" [DONE]").ended


def test_logprobs_and_lists_of_parts() -> None:
    content = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "so"}]
    told = {"content": [{"token": "so", "logprob": -0.5, "top_logprobs": [{"token": "no", "logprob": -1}]}]}
    (piece,) = pieces({"choices": [{"delta": {"content": content}, "logprobs": told}]})
    assert piece.text == "so"
    ((picked, others),) = piece.logprobs
    assert (picked.text, picked.logprob, others[0].logprob) == ("so", -0.5, -1.0)


def test_what_is_no_event_of_this_dialect() -> None:
    for data in (b"{", b"[1]", b"7"):
        with pytest.raises(WireFault):
            ChatReader().piece_of(data)
    with pytest.raises(WireError):
        ChatReader().piece_of(b'{"error": {"message": "x"}}')
    assert ChatReader().piece_of(b'{"choices": "x", "usage": [1], "error": null}').text == ""


def test_numbers_and_depths_that_no_server_means() -> None:
    """An exception nobody expects would end the reply as a fault of this node."""
    told = {"content": [{"token": "so", "logprob": 10**400}]}
    (piece,) = pieces({"choices": [{"delta": {"content": "so"}, "logprobs": told}], "usage": {"prompt_tokens": 10**30}})
    assert piece.logprobs[0][0].logprob == 0.0 and piece.prompt_tokens is None, "the database would not take such a count"
    deep: object = "x"
    for _ in range(400):
        deep = [{"type": "text", "text": deep}]
    body = "{" + f'"choices": [{{"delta": {{"content": {json.dumps(deep)}}}}}]' + "}"
    assert ChatReader().piece_of(body.encode()).text == ""
