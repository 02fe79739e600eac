"""From chunks to messages and events, without a socket; what the official client sees of it is in test_messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.api.messages_prints import MessagePrinter
from swarmd.api.openai_prints import Gathered
from swarmd.domain.generation import Finish, TokenChunk
from swarmd.domain.structure import CallPiece
from tests.fakes.rim import USAGE, script


def printer() -> MessagePrinter:
    return MessagePrinter(id="msg_1", model="m", max_tokens=3)


def whole(chunks: Sequence[TokenChunk]) -> Any:
    reply = Gathered()
    for chunk in chunks:
        reply.add(chunk)
    return msgspec.to_builtins(msgspec.json.decode(msgspec.json.encode(printer().whole(reply))))


def streamed(chunks: Sequence[TokenChunk]) -> list[Any]:
    made = printer()
    events = [made.opening(prompt_tokens=7, cached_tokens=2), *(event for chunk in chunks for event in made.chunks(chunk))]
    return [json.loads(msgspec.json.encode(event)) for event in events]


def ended(finish: Finish, **more: Any) -> list[TokenChunk]:
    return [TokenChunk(sequence=0, text="x", finish=finish, usage=replace(USAGE, **more.pop("usage", {})), **more)]


@pytest.mark.parametrize(
    ("chunks", "reason", "sequence"),
    [
        (ended(Finish.STOP), "end_turn", None),
        (ended(Finish.STOP, stopped_by="END"), "stop_sequence", "END"),
        (ended(Finish.LENGTH), "max_tokens", None),
        (ended(Finish.LENGTH, usage={"completion_tokens": 2}), "model_context_window_exceeded", None),
        (ended(Finish.TOOL_CALLS), "tool_use", None),
        (ended(Finish.TOOL_CALLS, stopped_by="END"), "tool_use", None),
    ],
)
def test_why_it_ended(chunks: list[TokenChunk], reason: str, sequence: str | None) -> None:
    message = whole(chunks)
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)
    delta = streamed(chunks)[-2]["delta"]
    assert (delta["stop_reason"], delta["stop_sequence"]) == (reason, sequence)


def test_the_events_of_text() -> None:
    events = streamed(script("Hel", "", "lo"))
    assert [event["type"] for event in events] == [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert events[0]["message"]["usage"] == {
        "input_tokens": 5, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 2, "output_tokens": 0
    }  # fmt: skip
    assert events[0]["message"]["stop_reason"] is None and events[0]["message"]["content"] == []


def test_an_empty_reply_has_no_block() -> None:
    assert [event["type"] for event in streamed(script())] == ["message_start", "message_delta", "message_stop"]
    assert whole(script())["content"] == []


def test_usage_counts_the_cached_part_of_the_prompt_apart() -> None:
    usage = whole(ended(Finish.STOP, usage={"cached_tokens": 5}))["usage"]
    assert usage == {
        "input_tokens": 2, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 5, "output_tokens": 3
    }  # fmt: skip


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", "", '{"a": 1}}', '{"a": NaN}'])
def test_a_call_that_was_cut_is_text_and_no_call(arguments: str) -> None:
    piece = CallPiece(index=0, id="i", name="n", arguments=arguments)
    chunks = [TokenChunk(sequence=0, text="", calls=(piece,)), *ended(Finish.LENGTH)]
    assert whole(chunks)["content"] == [{"type": "text", "text": "x"}, {"type": "text", "text": arguments}]


def test_arguments_stay_as_the_model_wrote_them() -> None:
    """Read and written again, half of a pair of surrogates or a large number would not be the same."""
    arguments = '{"a": "\\ud800", "b": 123456789012345678901234567890, "c": 1e999}'
    reply = Gathered()
    reply.add(TokenChunk(sequence=0, text="", calls=(CallPiece(index=0, id="i", name="n", arguments=arguments),)))
    reply.add(ended(Finish.TOOL_CALLS)[0])
    assert arguments in msgspec.json.encode(printer().whole(reply)).decode()


PIECES = st.lists(st.tuples(st.text(max_size=4), st.lists(st.text('{}":,a1', max_size=6), max_size=3)), max_size=6)


@given(PIECES)
def test_a_stream_adds_up_to_what_the_whole_reply_says(parts: list[tuple[str, list[str]]]) -> None:
    """However text and calls follow each other: blocks open and close one at a time, numbered without gaps."""
    chunks: list[TokenChunk] = []
    for index, (text, pieces) in enumerate(parts):
        first = CallPiece(index=index, id=f"call{index}", name="now", arguments='{"k": "')
        rest = tuple(CallPiece(index=index, arguments=json.dumps(piece)[1:-1]) for piece in pieces)
        last = CallPiece(index=index, arguments='"}')
        chunks += [TokenChunk(sequence=0, text=text, calls=(first,)), TokenChunk(sequence=0, text="", calls=(*rest, last))]
    chunks += script("end", finish=Finish.TOOL_CALLS if parts else Finish.STOP)
    blocks: list[dict[str, Any]] = []
    is_open = False
    for event in streamed(chunks):
        match event["type"]:
            case "content_block_start":
                assert not is_open and event["index"] == len(blocks)
                blocks.append({**event["content_block"], "json": ""})
                is_open = True
            case "content_block_delta":
                assert is_open and event["index"] == len(blocks) - 1
                delta = event["delta"]
                if blocks[-1]["type"] == "text":
                    blocks[-1]["text"] += delta["text"]
                else:
                    blocks[-1]["json"] += delta["partial_json"]
            case "content_block_stop":
                assert is_open
                is_open = False
            case _:
                assert not is_open
    content = whole(chunks)["content"]
    assert "".join(one["text"] for one in blocks if one["type"] == "text") == content[0]["text"]
    calls = [(one["id"], json.loads(one["json"])) for one in blocks if one["type"] == "tool_use"]
    assert calls == [(one["id"], one["input"]) for one in content[1:]]
