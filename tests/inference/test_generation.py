"""What a client sees of a reply."""

from __future__ import annotations

import pytest

from swarmd.domain.generation import Finish
from swarmd.domain.structure import CallForm, CallPiece
from swarmd.inference.tool_calls import ToolCallParser
from swarmd.inference.workers import Texts
from tests.fakes.heads import END, generation_of, started


@pytest.mark.parametrize(("picks", "limit", "finish", "text"), [
    ([0, 1, END], 100, Finish.STOP, "ab"), ([0, 1, 2], 3, Finish.LENGTH, "abc"), ([END], 100, Finish.STOP, ""),
    ([3, 4, 3], 3, Finish.LENGTH, "ä�"),
])  # fmt: skip
async def test_text_and_the_reason_of_the_end(picks: list[int], limit: int, finish: Finish, text: str) -> None:
    head, tail = started(2, limit=limit)
    for token in picks:
        tail.answer(token)
    chunks = [chunk async for chunk in generation_of(head)]
    assert "".join(chunk.text for chunk in chunks) == text
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.finish for chunk in chunks] == [None] * (len(chunks) - 1) + [finish]
    assert chunks[-1].usage.completion_tokens == sum(token != END for token in picks)
    assert not tail.waiting


async def test_a_stop_string_over_two_tokens_ends_the_sending_too() -> None:
    head, tail = started(2, stop=("<>",))
    for token in (0, 5, 6):
        tail.answer(token)
    async with generation_of(head) as reply:
        chunks = [chunk async for chunk in reply]
    assert "".join(chunk.text for chunk in chunks) == "a"
    assert chunks[-1].finish is Finish.STOP
    tail.answer(0)
    assert not tail.waiting


@pytest.mark.parametrize(
    ("stop", "last", "finish"),
    [
        ("5,", 3, Finish.STOP),  # within the arguments
        ("6}", 4, Finish.STOP),  # at the end of them
        ("}]", 4, Finish.TOOL_CALLS),  # behind whole ones: as with "</tool_call>" for a stop text, which clients do send
        ("] and", 5, Finish.TOOL_CALLS),  # behind a whole call
        ("", 6, Finish.STOP),  # the model ends within the arguments
    ],
)
async def test_a_reply_that_a_stop_text_cut_within_a_call_says_stop(stop: str, last: int, finish: Finish) -> None:
    head, tail = started(2, stop=(stop,) if stop else ())
    pieces = (b"so ", b"", b'[{"name": "now", "arguments": {"a": ', b"5, ", b'"b": 6}}]', b" and", b"")
    head.texts = Texts(pieces=pieces, ends=frozenset({6}), controls={1: "[TOOL_CALLS]", 6: "</s>"})
    parser = ToolCallParser(form=CallForm.MISTRAL, names=["now"], make_id=str)
    for token in [1, 2, 6] if last == 6 else range(1, last + 1):
        tail.answer(token)
    async with generation_of(head, parser) as reply:
        chunks = [chunk async for chunk in reply]
    arguments = "".join(piece.arguments for chunk in chunks for piece in chunk.calls)
    assert chunks[-1].finish is finish
    assert arguments.endswith("}") == (finish is Finish.TOOL_CALLS), arguments


async def test_logprobs_come_with_their_text_and_ids_beyond_the_vocabulary_without() -> None:
    head, tail = started(1, limit=1)
    tail.answer(0, [(0, -0.5), (1, -0.7), (1 << 50, -9.0)])
    (chunk,) = [chunk async for chunk in generation_of(head)]
    ((own, others),) = chunk.logprobs
    assert (own.token, own.text, own.logprob) == (0, "a", -0.5)
    assert [other.text for other in others] == ["b", ""]


PIECES = (b"so ", b"", b'[{"name": "now", ', b'"arguments": {', b"}}]", b" and", b"")


@pytest.mark.parametrize(
    ("several", "picks", "finish", "text", "count"),
    [
        (True, [0, 1, 2, 3, 4, 6], Finish.TOOL_CALLS, "so", 5),
        (True, [0, 5, 6], Finish.STOP, "so  and", 2),
        (True, [1, 2, 3], Finish.LENGTH, "", 3),
        (False, [1, 2, 3, 4], Finish.TOOL_CALLS, "", 4),
    ],
)
async def test_calls_come_as_pieces_and_end_the_reply(
    several: bool, picks: list[int], finish: Finish, text: str, count: int
) -> None:
    """Token 1 is a control token, which has no text."""
    limit = count if finish is Finish.LENGTH else 100
    head, tail = started(2, limit=limit)
    head.texts = Texts(pieces=PIECES, ends=frozenset({6}), controls={1: "[TOOL_CALLS]", 6: "</s>"})
    parser = ToolCallParser(form=CallForm.MISTRAL, names=["now"], make_id=lambda index: f"id{index}", several=several)
    for token in picks:
        tail.answer(token)
    async with generation_of(head, parser) as reply:
        chunks = [chunk async for chunk in reply]
    assert "".join(chunk.text for chunk in chunks) == text
    assert chunks[-1].finish is finish
    assert chunks[-1].usage.completion_tokens == count
    calls = [piece for chunk in chunks for piece in chunk.calls]
    if 3 in picks:
        assert calls[0] == CallPiece(index=0, id="id0", name="now", arguments="{")
        assert "".join(piece.arguments for piece in calls) == ("{}" if 4 in picks else "{")
    if not several:
        tail.answer(0)  # to a step that had left before its text was read
    assert not tail.waiting
