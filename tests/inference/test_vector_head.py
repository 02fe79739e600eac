"""The head of an embedding: what is sent, what comes of the answers, and what of those that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from swarmd.domain.generation import GenerationFailed, GenerationRequest
from swarmd.domain.ids import RequestId
from swarmd.inference.vector_head import VectorHead
from swarmd.inference.vectors import Pooling
from swarmd.inference.workers import PREFILL_ROWS
from swarmd.wire.generation import StepDone
from tests.fakes.heads import MODEL, NODES, TRACE, Tail, Ticks, plan

WIDTH = 3


def started(prompt: int, *, window: int = 1, pooling: Pooling = Pooling.LAST) -> tuple[VectorHead, Tail]:
    head = VectorHead(
        request=GenerationRequest(request=RequestId("r"), model=MODEL), plan=plan(), tokens=list(range(prompt)),
        rows=PREFILL_ROWS, width=WIDTH, pooling=pooling, ticks=Ticks(),
    )  # fmt: skip
    tail = Tail()
    tail.head = head
    head.connect(tail.feed, window=window)
    head.start()
    return head, tail


def answer(head: VectorHead, tail: Tail, *numbers: float) -> None:
    step, _ = tail.steps[tail.answered]
    tail.answered += 1
    payload = memoryview(np.array(numbers, np.float32).tobytes())
    head.answered(StepDone(step.number, [], [], TRACE), payload)


async def test_of_a_long_text_the_last_row_alone_is_asked_for() -> None:
    head, tail = started(2 * PREFILL_ROWS + 5, window=2)
    assert [(step.position, step.count, step.sample) for step, _ in tail.steps] == [(0, 128, 0), (128, 128, 0)]
    answer(head, tail)
    answer(head, tail)
    assert [(step.position, step.count, step.sample) for step, _ in tail.steps[2:]] == [(256, 5, 1)]
    answer(head, tail, 1, 2, 3)
    await head.read()
    assert head.vector.tolist() == [1, 2, 3]
    head.stop()


async def test_of_a_mean_every_row_is_and_what_was_added_up_is_forgotten_with_the_stages() -> None:
    head, tail = started(PREFILL_ROWS + 2, window=2, pooling=Pooling.MEAN)
    assert [step.sample for step, _ in tail.steps] == [128, 2]
    answer(head, tail, 130, 260, 390)
    head.answered(StepDone(9, [], [], TRACE))
    with pytest.raises(GenerationFailed, match="out of turn"):
        await head.read()
    tail = Tail()
    head.reroute(plan())
    head.connect(tail.feed, window=2)
    head.go_on()
    answer(head, tail, 130, 0, 0)
    answer(head, tail, 0, 260, -130)
    await head.read()
    assert head.vector.tolist() == [1, 2, -1] and head.resumes == 1
    head.stop()


@pytest.mark.parametrize(
    ("tokens", "numbers", "words"),
    [
        ([1], [], "answered with 0 bytes"),
        ([], [], "answered with 0 bytes where 12"),
        ([], [1.0] * 4, "answered with 16 bytes where 12"),
        ([], [1.0, float("nan"), 0.0], "numbers that are none"),
        ([], [1.0, float("inf"), 0.0], "numbers that are none"),
    ],
)
async def test_an_answer_that_does_not_fit_names_the_tail(tokens: list[int], numbers: list[float], words: str) -> None:
    head, _ = started(3)
    head.answered(StepDone(0, tokens, [[] for _ in tokens], TRACE), memoryview(np.array(numbers, np.float32).tobytes()))
    with pytest.raises(GenerationFailed, match=words) as failed:
        await head.read()
    assert failed.value.refusal.node == NODES[1]
    head.stop()


async def test_bytes_with_an_answer_that_has_no_vector_are_refused() -> None:
    head, tail = started(PREFILL_ROWS + 1)
    answer(head, tail, 1, 2, 3)
    with pytest.raises(GenerationFailed, match="12 bytes where 0"):
        await head.read()
    head.stop()
