"""The head's half of a generation, step by step: what is sent when, and what becomes of answers that do not fit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import numpy as np
import pytest

from swarmd.domain.generation import Finish, GenerationFailed, GenerationRequest
from swarmd.domain.ids import ModelId, NodeId, RequestId
from swarmd.domain.plans import PipelinePlan, Stage
from swarmd.inference import pipeline as pipeline_module
from swarmd.inference.pipeline import SAMPLE_AGE_S, TEXT_QUEUE, Generation, Pipeline, _Run
from swarmd.inference.workers import PREFILL_ROWS, Texts
from swarmd.kit.bus import EventBus
from swarmd.kit.world import World
from swarmd.wire.generation import StepDone, StepOn

MODEL = ModelId("tiny")
NODES = (NodeId("a" * 64), NodeId("b" * 64))
END = 9
PIECES = (b"a", b"b", b"c", b"\xc3", b"\xa4", b"<", b">", b"x", b"y", b"")
TRACE = [(1000, 2000), (3000, 5000)]


class Tail:
    """Where the head's steps go: keeps them, and answers when told to."""

    def __init__(self) -> None:
        self.steps: list[tuple[StepOn, list[int]]] = []
        self.answered = 0
        self.run: _Run | None = None

    def feed(self, step: StepOn, payload: memoryview) -> None:
        self.steps.append((step, np.frombuffer(payload, np.int32).tolist()))

    @property
    def waiting(self) -> int:
        return len(self.steps) - self.answered

    def answer(self, token: int | None = None, logprobs: list[tuple[int, float]] | None = None) -> None:
        """To the oldest step; prefill steps are answered without a token until one samples."""
        step, _ = self.steps[self.answered]
        self.answered += 1
        self.run.answered(StepDone(step.number, token if step.sample else None, logprobs or [], TRACE))


class Ticks:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def plan() -> PipelinePlan:
    stages = tuple(
        Stage(node=node, first_shard=i, last_shard=i, layer_start=2 * i, layer_end=2 * i + 2) for i, node in enumerate(NODES)
    )
    return PipelinePlan(model=MODEL, layout="0" * 32, stages=stages, predicted_token_ms=None)


def started(
    prompt: int, *, limit: int = 1000, window: int = 3, stop: tuple[str, ...] = (), ticks: Callable[[], float] = float
) -> tuple[_Run, Tail]:
    request = GenerationRequest(request=RequestId("r"), model=MODEL, prompt="p", max_tokens=limit, stop=stop)
    texts = Texts(pieces=PIECES, ends=frozenset({END}))
    run = _Run(
        request=request, plan=plan(), tokens=[i % 9 for i in range(prompt)], texts=texts, rows=PREFILL_ROWS, limit=limit,
        ticks=ticks,
    )  # fmt: skip
    tail = Tail()
    tail.run = run
    run.connect(tail.feed, window=window)
    run.start()
    return run, tail


def generation(run: _Run) -> Generation:
    return Generation(run=run, stack=AsyncExitStack(), finished=lambda _run, _outcome: None)


def test_a_long_prompt_goes_out_in_chunks_within_the_window() -> None:
    run, tail = started(4 * PREFILL_ROWS + 5, window=3)
    assert [(s.number, s.position, s.count, s.sample) for s, _ in tail.steps] == [
        (0, 0, 128, False), (1, 128, 128, False), (2, 256, 128, False),
    ]  # fmt: skip
    assert all(step.trace == [] and len(rows) == step.count for step, rows in tail.steps)
    tail.answer()
    assert len(tail.steps) == 4
    tail.answer()
    assert (tail.steps[4][0].position, tail.steps[4][0].count, tail.steps[4][0].sample) == (512, 5, True)
    for _ in range(3):
        tail.answer(1)
    assert [row for _, rows in tail.steps[:5] for row in rows] == run.history[: run.prompt_tokens]
    step, rows = tail.steps[5]
    assert (step.number, step.position, step.count, step.sample, rows) == (5, 517, 1, True, [1])
    assert len(tail.steps) == 6  # a token at a time from here on, whatever the window


@pytest.mark.parametrize("prompt", [1, PREFILL_ROWS - 1, PREFILL_ROWS, PREFILL_ROWS + 1, 3 * PREFILL_ROWS])
def test_only_the_last_step_of_a_prompt_samples(prompt: int) -> None:
    _, tail = started(prompt, window=9)
    assert [step.sample for step, _ in tail.steps] == [False] * (len(tail.steps) - 1) + [True]
    assert sum(step.count for step, _ in tail.steps) == prompt


@pytest.mark.parametrize(
    ("done", "words"),
    [
        (StepDone(1, 1, [], TRACE), "answered step 1 out of turn"),
        (StepDone(-1, 1, [], TRACE), "answered step -1 out of turn"),
        (StepDone(0, 1, [], TRACE[:1]), "out of turn"),
        (StepDone(0, None, [], TRACE), "did not pick a token"),
        (StepDone(0, len(PIECES), [], TRACE), "picked token 10 of 10"),
        (StepDone(0, -1, [], TRACE), "picked token -1 of 10"),
        (StepDone(0, 1 << 40, [], TRACE), "picked token"),
    ],
)
async def test_an_answer_that_does_not_fit_ends_it_and_names_the_tail(done: StepDone, words: str) -> None:
    run, tail = started(3)
    run.answered(done)
    with pytest.raises(GenerationFailed, match=words) as failed:
        await run.next()
    assert failed.value.refusal.node == NODES[1]
    assert tail.waiting == 1  # nothing went out after it
    assert run.generated == 0


async def test_a_token_in_the_middle_of_the_prompt_and_an_answer_too_many_are_faults() -> None:
    run, _ = started(PREFILL_ROWS + 1)
    run.answered(StepDone(0, 1, [], TRACE))
    with pytest.raises(GenerationFailed, match="nobody asked for"):
        await run.next()
    run, tail = started(1, limit=1)
    tail.answer(1)
    run.answered(StepDone(1, 1, [], TRACE))  # after the end: of no interest to anybody
    assert (await run.next()).finish is Finish.LENGTH


async def test_tokens_that_came_before_a_failure_are_still_handed_out() -> None:
    run, tail = started(1)
    tail.answer(1)
    run.answered(StepDone(7, 1, [], TRACE))
    run.answered(StepDone(1, 1, [], TRACE))  # what comes after a failure does not heal it
    assert (await run.next()).token == 1
    with pytest.raises(GenerationFailed):
        await run.next()


async def test_a_slow_client_holds_the_stages_and_reading_lets_them_go_on() -> None:
    run, tail = started(1)
    while tail.waiting:
        tail.answer(1)
    unread = tail.answered
    assert TEXT_QUEUE <= unread <= TEXT_QUEUE + 1
    while not tail.waiting:
        await run.next()
        unread -= 1
    assert unread == TEXT_QUEUE - 1
    step, rows = tail.steps[-1]
    assert (step.position, rows) == (run.prompt_tokens + run.generated - 1, [1])
    tail.answer(2)
    assert [(await run.next()).token for _ in range(TEXT_QUEUE)][-1] == 2


async def test_whoever_waits_is_woken_by_a_token_and_by_a_failure() -> None:
    run, tail = started(1)
    waiting = asyncio.create_task(run.next())
    await asyncio.sleep(0)
    tail.answer(4)
    assert (await waiting).token == 4
    waiting = asyncio.create_task(run.next())
    await asyncio.sleep(0)
    run.answered(StepDone(99, 4, [], TRACE))
    with pytest.raises(GenerationFailed):
        await waiting


@pytest.mark.looptime
async def test_silence_is_a_failure_with_its_seconds() -> None:
    run, _ = started(1)
    with pytest.raises(GenerationFailed, match="no answer came within 180 s"):
        await run.next()
    assert asyncio.get_running_loop().time() >= 180


async def test_after_leaving_nothing_is_sent_and_nothing_taken() -> None:
    run, tail = started(1)
    async with generation(run):  # starts it: nothing new, one step is under way
        assert len(tail.steps) == 1
    tail.answer(1)
    assert (len(tail.steps), run.generated) == (1, 0)


@pytest.mark.parametrize(("picks", "limit", "finish", "text"), [
    ([0, 1, END], 100, Finish.STOP, "ab"), ([0, 1, 2], 3, Finish.LENGTH, "abc"), ([END], 100, Finish.STOP, ""),
    ([3, 4, 3], 3, Finish.LENGTH, "ä�"),
])  # fmt: skip
async def test_text_and_the_reason_of_the_end(picks: list[int], limit: int, finish: Finish, text: str) -> None:
    run, tail = started(2, limit=limit)
    for token in picks:
        tail.answer(token)
    chunks = [chunk async for chunk in generation(run)]
    assert "".join(chunk.text for chunk in chunks) == text
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.finish for chunk in chunks] == [None] * (len(chunks) - 1) + [finish]
    assert chunks[-1].usage.completion_tokens == sum(token != END for token in picks)
    assert not tail.waiting


async def test_a_stop_string_over_two_tokens_ends_the_sending_too() -> None:
    run, tail = started(2, stop=("<>",))
    for token in (0, 5, 6):
        tail.answer(token)
    async with generation(run) as reply:
        chunks = [chunk async for chunk in reply]
    assert "".join(chunk.text for chunk in chunks) == "a"
    assert chunks[-1].finish is Finish.STOP
    tail.answer(0)
    assert not tail.waiting


async def test_logprobs_come_with_their_text_and_ids_beyond_the_vocabulary_without() -> None:
    run, tail = started(1, limit=1)
    tail.answer(0, [(0, -0.5), (1, -0.7), (1 << 50, -9.0)])
    (chunk,) = [chunk async for chunk in generation(run)]
    ((own, others),) = chunk.logprobs
    assert (own.token, own.text, own.logprob) == (0, "a", -0.5)
    assert [other.text for other in others] == ["b", ""]


async def test_times_are_means_over_decode_steps() -> None:
    ticks = Ticks()
    run, tail = started(1, limit=3, ticks=ticks)
    ticks.now = 1.0
    tail.answer(0)
    for at in (1.010, 1.030):
        ticks.now = at
        tail.answer(0)
    usage = run.usage(3)
    assert usage.prefill_ms == pytest.approx(1000)
    assert usage.decode_ms == pytest.approx(30)
    assert usage.tokens_per_second == pytest.approx(2 / 0.030)
    assert [(stage.compute_ms, stage.node_ms) for stage in usage.stages] == [(1, 2), (3, 5)]
    assert usage.link_ms == pytest.approx(15 - 7)


@pytest.mark.looptime
async def test_counters_latencies_and_the_last_speed(world: World) -> None:
    bus = EventBus()
    pipeline = Pipeline(
        node=NODES[0], catalog=None, registry=None, workers=None, stages=None, links=None, spawn=None, world=world, bus=bus,
        settings=None,
    )  # fmt: skip
    assert (pipeline.last_tokens_per_second, pipeline.latencies_ms(), pipeline.active) == (None, [], 0)

    async def one(tokens: int, outcome: str) -> None:
        run, tail = started(1, limit=tokens, ticks=world.clock.ticks)
        for _ in range(tokens):
            await asyncio.sleep(0.5)
            tail.answer(0)
        pipeline._active += 1
        pipeline._finished(run, outcome)

    with bus.spy() as spy:
        await one(5, "length")
        fact = await spy.wait_for(pipeline_module.GenerationFinished)
    assert (fact.completion_tokens, fact.outcome, fact.duration_ms) == (5, "length", pytest.approx(2500))
    assert pipeline.last_tokens_per_second == pytest.approx(2.0)
    await one(3, "cancelled")
    await one(1, "stop")  # a single token has no speed: the one before stays
    assert pipeline.last_tokens_per_second == pytest.approx(2.0)
    assert pipeline.latencies_ms() == [pytest.approx(2500), pytest.approx(500)]
    assert pipeline.active == 0
    await asyncio.sleep(SAMPLE_AGE_S + 1)
    assert pipeline.latencies_ms() == []
