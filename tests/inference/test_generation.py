"""What a client sees of a reply."""

from __future__ import annotations

import pytest

from swarmd.domain.generation import Finish
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


async def test_logprobs_come_with_their_text_and_ids_beyond_the_vocabulary_without() -> None:
    head, tail = started(1, limit=1)
    tail.answer(0, [(0, -0.5), (1, -0.7), (1 << 50, -9.0)])
    (chunk,) = [chunk async for chunk in generation_of(head)]
    ((own, others),) = chunk.logprobs
    assert (own.token, own.text, own.logprob) == (0, "a", -0.5)
    assert [other.text for other in others] == ["b", ""]
