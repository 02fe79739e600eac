"""From bodies to the inner request, without a socket."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from swarmd.api.openai_requests import PROMPT_LIMIT_BYTES, chat_request, completion_request
from swarmd.api.openai_shapes import ChatRequest, CompletionRequest
from swarmd.domain.generation import ChatMessage, GenerationRequest
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.refusals import Invalid

HELLO = [{"role": "user", "content": "hello"}]


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
        ChatMessage(role="user", content="one\ntwo"),
        ChatMessage(role="assistant", content=""),
        ChatMessage(role="tool", content="42"),
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"n": 0}, "n"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"tools": [{}]}, "tools"),
        ({"tools": [{}], "tool_choice": "auto"}, "tools"),
        ({"functions": [{}]}, "functions"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": 5}, "response_format"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "messages[0].tool_calls"),
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
        {"n": 1}, {"tools": []}, {"tools": [{}], "tool_choice": "none"}, {"response_format": {"type": "text"}},
        {"logit_bias": {}}, {"logprobs": True, "top_logprobs": 20}, {"stop": []}, {"stop": "x" * 256},
    ],
)  # fmt: skip
def test_what_changes_nothing_is_accepted(fields: dict[str, Any]) -> None:
    good(chat(**fields))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"), ({"prompt": [1, 2]}, "prompt"), ({"prompt": []}, "prompt"),
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
        {"messages": [{"role": "user", "content": 5}]}, {"messages": [{"content": "x"}]},
    ],
)  # fmt: skip
def test_out_of_range_is_refused_while_decoding(fields: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        chat(**fields)
