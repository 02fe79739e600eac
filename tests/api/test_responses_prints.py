"""The printer of the Responses dialect: whatever a model says, in whatever pieces, the events add up to the body."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from swarmd.api.responses_prints import PREVIEW_LENGTH, ResponsePrinter, opened, preview, text_of
from swarmd.api.responses_requests import Asked, asked_of
from swarmd.api.responses_shapes import (
    CallItem,
    CallOutputItem,
    InputFile,
    MessageItem,
    OutputRefusal,
    ResponseErrorOut,
    ResponsesRequest,
)
from swarmd.domain.generation import Finish, TokenChunk
from swarmd.domain.responses import ResponseStatus
from swarmd.domain.structure import CallPiece
from tests.fakes.rim import USAGE

ID = "resp_" + "b" * 32


def printer(**body: Any) -> ResponsePrinter:
    request = msgspec.convert({"model": "m", "input": "x"} | body, ResponsesRequest)
    asked = asked_of(request, {}, response=ID)
    assert isinstance(asked, Asked)
    return ResponsePrinter(opened(asked, id=ID, created_at=5, model="m"), {"extra": 1})


def told(events: list[Any]) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(event) for event in events]


def added_up(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The output as a client of the contract puts it together."""
    items: list[dict[str, Any]] = []
    open_items: set[int] = set()
    for event in events:
        match event["type"].removeprefix("response."):
            case "output_item.added":
                assert event["output_index"] == len(items)
                items.append(event["item"])
                open_items.add(event["output_index"])
            case "content_part.added":
                items[event["output_index"]]["content"].append(event["part"])
            case "output_text.delta":
                assert event["output_index"] in open_items and event["item_id"] == items[event["output_index"]]["id"]
                items[event["output_index"]]["content"][0]["text"] += event["delta"]
            case "output_text.done":
                assert items[event["output_index"]]["content"][0]["text"] == event["text"]
            case "function_call_arguments.delta":
                assert event["output_index"] in open_items and event["item_id"] == items[event["output_index"]]["id"]
                items[event["output_index"]]["arguments"] += event["delta"]
            case "function_call_arguments.done":
                assert items[event["output_index"]]["arguments"] == event["arguments"]
            case "output_item.done":
                open_items.remove(event["output_index"])
                found = items[event["output_index"]]
                assert found | {"status": event["item"]["status"]} == event["item"]
                items[event["output_index"]] = event["item"]
            case _:
                pass
    assert not open_items
    return items


TEXT = st.sampled_from(["", " ", "\n", "a", "bé "])
ARGUMENTS = st.lists(st.sampled_from(['{"a"', ": 1}", "", "{}", "x"]), min_size=1, max_size=3)
CHUNKS = st.lists(st.tuples(TEXT, st.none() | ARGUMENTS, TEXT), max_size=5)


@given(CHUNKS, st.sampled_from(Finish))
def test_events_add_up_to_the_body(steps: list[tuple[str, list[str] | None, str]], finish: Finish) -> None:
    made = printer()
    events = told(made.created())
    calls = 0
    said: list[str] = []
    for before, arguments, after in steps:
        pieces: list[CallPiece] = []
        for number, text in enumerate(arguments or ()):
            first = {"id": f"c{calls}", "name": "add"} if number == 0 else {}
            pieces.append(CallPiece(index=calls, arguments=text, **first))
        calls += arguments is not None
        events += told(made.chunk(TokenChunk(sequence=0, text=before, calls=tuple(pieces))))
        events += told(made.chunk(TokenChunk(sequence=0, text=after)))
        said += [before, after]
    events += told(made.chunk(TokenChunk(sequence=0, text="", finish=finish, usage=USAGE)))
    events += told(made.ended(9.5))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    body = made.body()
    assert added_up(events) == body["output"] == events[-1]["response"]["output"] and body["extra"] == 1
    assert sum(item["type"] == "function_call" for item in body["output"]) == calls
    assert len({item["id"] for item in body["output"]}) == len(body["output"]) > 0
    text = "".join(part["text"] for item in body["output"] for part in item.get("content", ()))
    assert "".join(text.split()) == "".join("".join(said).split())  # blanks behind a call may go
    cut = finish is Finish.LENGTH
    assert (body["status"], body["completed_at"]) == (("incomplete", None) if cut else ("completed", 9))
    assert body["usage"] == {
        "input_tokens": 7, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}, "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 10,
    }  # fmt: skip


def test_two_calls_are_items_one_after_the_other() -> None:
    made = printer()
    pieces = (CallPiece(index=0, id="a", name="add", arguments="{}"), CallPiece(index=1, id="b", name="sub", arguments="{"))
    events = told(made.chunk(TokenChunk(sequence=0, text="", calls=pieces)))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta",
    ]  # fmt: skip
    assert [item.status for item in made.items] == ["completed", "in_progress"]
    made.chunk(TokenChunk(sequence=1, text="", finish=Finish.STOP, usage=USAGE))
    assert [item.status for item in made.items] == ["completed", "incomplete"]


def test_in_the_background_it_is_queued_first() -> None:
    made = printer(background=True)
    events = told([*made.created(), *made.begun()])
    assert [event["type"] for event in events] == ["response.created", "response.queued", "response.in_progress"]
    assert [event["response"]["status"] for event in events] == ["queued", "queued", "in_progress"]


def test_what_ended_early_keeps_what_was_said() -> None:
    for end in ("failed", "cancelled"):
        made = printer()
        made.chunk(TokenChunk(sequence=0, text="Hel"))
        assert made.body()["output"][0]["status"] == "in_progress"
        error = ResponseErrorOut(code="busy", message="m", type="t")
        (event,) = told(made.failed(error) if end == "failed" else made.cancelled())
        assert event["type"] == f"response.{end}" and event["response"]["status"] == end
        (item,) = event["response"]["output"]
        assert (item["status"], item["content"][0]["text"]) == ("incomplete", "Hel")
        assert made.status is ResponseStatus(end) and (event["response"]["error"] is None) == (end == "cancelled")


def test_previews() -> None:
    assert preview("a\n\n  b") == "a b" and preview("") == ""
    assert preview("x" * PREVIEW_LENGTH) == "x" * PREVIEW_LENGTH
    assert preview("x" * (PREVIEW_LENGTH + 1)) == "x" * PREVIEW_LENGTH + "…"
    parts: list[Any] = [InputFile(file_data="", filename="a.txt"), OutputRefusal(refusal="no")]
    message = MessageItem(id="m", status="completed", role="user", content=parts)
    call = CallItem(id="f", status="completed", call_id="c", name="add", arguments="{}")
    output = CallOutputItem(id="o", status="completed", call_id="c", output="5")
    assert text_of([message, call, output]) == "a.txt no add({}) 5"
