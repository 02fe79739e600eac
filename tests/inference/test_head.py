"""The head's half of a generation, step by step: what is sent when, and what becomes of answers that do not fit."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from swarmd.domain.generation import Finish, GenerationFailed, Sampling
from swarmd.domain.refusals import Invalid, StageFailed
from swarmd.domain.structure import Grammar
from swarmd.inference.head import TEXT_QUEUE, Head
from swarmd.inference.signs import LOOK_S, SILENCE_S
from swarmd.inference.worker_frames import NO_TOKEN
from swarmd.inference.workers import PREFILL_ROWS
from swarmd.wire.generation import StepDone
from tests.fakes.heads import END, NODES, PIECES, TRACE, Tail, Ticks, generation_of, plan, started


async def test_a_long_prompt_goes_out_in_chunks_within_the_window() -> None:
    head, tail = started(4 * PREFILL_ROWS + 5, window=3)
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
    assert [row for _, rows in tail.steps[:5] for row in rows] == head.history[: head.prompt_tokens]
    step, rows = tail.steps[5]
    assert (step.number, step.position, step.count, step.sample, rows) == (5, 517, 1, True, [1])
    assert len(tail.steps) == 6  # a token at a time from here on, whatever the window


@pytest.mark.parametrize("prompt", [1, PREFILL_ROWS - 1, PREFILL_ROWS, PREFILL_ROWS + 1, 3 * PREFILL_ROWS])
async def test_only_the_last_step_of_a_prompt_samples(prompt: int) -> None:
    _, tail = started(prompt, window=9)
    assert [step.sample for step, _ in tail.steps] == [False] * (len(tail.steps) - 1) + [True]
    assert sum(step.count for step, _ in tail.steps) == prompt


@pytest.mark.parametrize(
    ("done", "words"),
    [
        (StepDone(1, [1], [[]], TRACE), "answered step 1 out of turn"),
        (StepDone(-1, [1], [[]], TRACE), "answered step -1 out of turn"),
        (StepDone(0, [1], [[]], TRACE[:1]), "out of turn"),
        (StepDone(0, [], [], TRACE), "picked 0 tokens where 1 were asked for"),
        (StepDone(0, [len(PIECES)], [[]], TRACE), r"picked tokens \[10\] of 10"),
        (StepDone(0, [-1], [[]], TRACE), r"picked tokens \[-1\] of 10"),
        (StepDone(0, [1 << 40], [[]], TRACE), "picked tokens"),
    ],
)
async def test_an_answer_that_does_not_fit_ends_it_and_names_the_tail(done: StepDone, words: str) -> None:
    head, tail = started(3)
    head.answered(done)
    with pytest.raises(GenerationFailed, match=words) as failed:
        await head.next()
    assert failed.value.refusal.node == NODES[1]
    assert tail.waiting == 1  # nothing went out after it
    assert head.generated == 0


async def test_a_token_in_the_middle_of_the_prompt_and_an_answer_too_many_are_faults() -> None:
    head, _ = started(PREFILL_ROWS + 1)
    head.answered(StepDone(0, [1], [[]], TRACE))
    with pytest.raises(GenerationFailed, match="picked 1 tokens where 0"):
        await head.next()
    head, tail = started(1, limit=1)
    tail.answer(1)
    head.answered(StepDone(1, [1], [[]], TRACE))  # after the end: of no interest to anybody
    assert (await head.next()).finish is Finish.LENGTH


async def test_tokens_that_came_before_a_failure_are_still_handed_out() -> None:
    head, tail = started(1)
    tail.answer(1)
    head.answered(StepDone(7, [1], [[]], TRACE))
    head.answered(StepDone(1, [1], [[]], TRACE))  # what comes after a failure does not heal it
    assert (await head.next()).token == 1
    with pytest.raises(GenerationFailed):
        await head.next()


async def test_a_slow_client_holds_the_stages_and_reading_lets_them_go_on() -> None:
    head, tail = started(1)
    while tail.waiting:
        tail.answer(1)
    unread = tail.answered
    assert TEXT_QUEUE <= unread <= TEXT_QUEUE + 1
    while not tail.waiting:
        await head.next()
        unread -= 1
    assert unread == TEXT_QUEUE - 1
    step, rows = tail.steps[-1]
    assert (step.position, rows) == (head.prompt_tokens + head.generated - 1, [1])
    tail.answer(2)
    assert [(await head.next()).token for _ in range(TEXT_QUEUE)][-1] == 2


async def test_whoever_waits_is_woken_by_a_token_and_by_a_failure() -> None:
    head, tail = started(1)
    waiting = asyncio.create_task(head.next())
    await asyncio.sleep(0)
    tail.answer(4)
    assert (await waiting).token == 4
    waiting = asyncio.create_task(head.next())
    await asyncio.sleep(0)
    head.answered(StepDone(99, [4], [[]], TRACE))
    with pytest.raises(GenerationFailed):
        await waiting


@pytest.mark.looptime
async def test_silence_is_a_failure_with_its_seconds() -> None:
    loop = asyncio.get_running_loop()
    head, _ = started(1, ticks=loop.time)
    with pytest.raises(GenerationFailed, match="no answer came within 180 s"):
        await head.next()
    assert loop.time() >= 180, "although they all are alive"


@pytest.mark.looptime
async def test_a_prompt_that_takes_longer_than_the_silence_deadline_is_no_failure_as_long_as_chunks_are_answered() -> None:
    loop = asyncio.get_running_loop()
    head, tail = started(4 * PREFILL_ROWS, ticks=loop.time)
    waiting = asyncio.create_task(head.next())
    for _ in range(4):
        await asyncio.sleep(100)
        assert head.failure is None, head.failure
        tail.answer(1)
    assert (await waiting).token == 1
    head.stop()


@pytest.mark.looptime
async def test_a_step_sent_after_a_slow_client_has_paused_has_all_of_its_time() -> None:
    loop = asyncio.get_running_loop()
    head, tail = started(1, ticks=loop.time)
    for _ in range(TEXT_QUEUE):
        tail.answer(1)
    await asyncio.sleep(1000)  # nothing is under way
    assert (await head.next()).token == 1
    await asyncio.sleep(100)
    assert head.failure is None, head.failure
    tail.answer(1)
    head.stop()


REPLY = 70


async def lost(prompt: int = 2 * PREFILL_ROWS + 5) -> tuple[Head, Tail]:
    """A head with `REPLY` tokens, all of them read, and one step under way, whose stage is lost."""
    head, tail = started(prompt)
    while head.generated < REPLY:
        expected = head.generated
        tail.answer(expected % 9)
        if head.generated > expected:
            assert (await head.next()).token == expected % 9
    head.fail(StageFailed(node=NODES[1], reason="its cable is cut"))
    with pytest.raises(GenerationFailed):
        await head.next()
    return head, tail


async def test_who_takes_over_is_fed_the_same_chunks_and_the_reply_goes_on() -> None:
    head, _ = await lost()
    other = Tail()
    other.head = head
    head.reroute(plan())
    head.connect(other.feed, window=3)
    head.go_on()
    while not other.steps[-1][0].sample:
        other.answer()
    counts = [(step.position, step.count) for step, _ in other.steps]
    assert counts == [(0, 128), (128, 128), (256, 5), (261, 32), (293, 32), (325, 6)]
    assert [step.number for step, _ in other.steps] == list(range(6)), "its numbers are its own"
    assert [row for _, rows in other.steps for row in rows] == head.history
    while other.waiting > 1:
        other.answer()
    other.answer(7)
    assert (await head.next()).token == 7, "the next one, and none twice"
    assert (head.generated, head.resumes) == (REPLY + 1, 1)
    assert other.steps[-1][0].position == 261 + REPLY


async def test_what_is_not_quantised_is_replayed_token_by_token() -> None:
    head, _ = await lost(prompt=3)
    head._replay_rows = 1
    other = Tail()
    other.head = head
    head.reroute(plan())
    head.connect(other.feed, window=3)
    head.go_on()
    while not other.steps[-1][0].sample:
        other.answer()
    assert {step.count for step, _ in other.steps[1:]} == {1}


@pytest.mark.looptime
async def test_a_stage_without_a_sign_of_life_is_lost_and_one_with_them_is_not() -> None:
    loop = asyncio.get_running_loop()
    head, _ = started(1, ticks=loop.time)
    head.await_signs(1)
    waiting = asyncio.create_task(head.next())
    for _ in range(20):
        await asyncio.sleep(0.5)
        head.heard(1)
    assert not waiting.done()
    began = loop.time()
    with pytest.raises(GenerationFailed, match=r"no sign of life for 2\.") as failed:
        await waiting
    assert failed.value.refusal.node == NODES[1]
    assert SILENCE_S < loop.time() - began <= SILENCE_S + LOOK_S


@pytest.mark.looptime
async def test_who_was_held_up_itself_accuses_nobody() -> None:
    held = 0.0
    loop = asyncio.get_running_loop()
    head, _ = started(1, ticks=lambda: loop.time() + held)
    head.await_signs(0)
    waiting = asyncio.create_task(head.next())
    await asyncio.sleep(1.9)
    held = 60.0  # the machine slept
    await asyncio.sleep(1.9)
    assert not waiting.done() and head.failure is None
    head.heard(0)
    waiting.cancel()


class Always:
    """A drafter that proposes the same."""

    def __init__(self, *proposal: int) -> None:
        self.proposal, self.heard = list(proposal), list[tuple[list[int], int]]()
        self.proposed = self.accepted = 0

    def begin(self, tokens: list[int]) -> None:
        pass

    def draft(self, most: int) -> list[int]:
        return self.proposal[: max(0, most)]

    def came(self, tokens: list[int], *, sent: int, seconds: float) -> None:
        self.heard.append((tokens, sent))


async def drafting(*proposal: int, limit: int = 100) -> tuple[Head, Tail, Always]:
    head, tail = started(3, limit=limit, proposals=31)
    drafter = head._drafter = Always(*proposal)  # type: ignore[assignment]
    tail.answer(1)
    return head, tail, drafter


async def test_a_proposal_rides_behind_the_last_token_and_what_is_right_of_it_is_taken_at_once() -> None:
    head, tail, drafter = await drafting(2, 3, 4)
    step, rows = tail.steps[-1]
    assert (step.position, step.count, step.sample, rows) == (3, 4, 4, [1, 2, 3, 4])
    tail.answer_several(2, 3, 7, 8)  # the 8 followed a 4 that never came
    assert head.history[3:] == [1, 2, 3, 7]
    assert [(await head.next()).token for _ in range(4)] == [1, 2, 3, 7]
    step, rows = tail.steps[-1]
    assert (step.position, rows[0]) == (6, 7), "from where it went wrong"
    tail.answer_several(2, 3, 4, 5)
    assert head.history[7:] == [2, 3, 4, 5] and tail.steps[-1][0].position == 10
    tail.answer_several(9, 2, 3, 4)
    assert drafter.heard == [([2, 3, 7], 3), ([2, 3, 4, 5], 3), ([9], 3)]


async def test_a_reply_ends_within_a_proposal() -> None:
    head, tail, _ = await drafting(2, END, 4)
    tail.answer_several(2, END, 4, 4)
    picked = [await head.next() for _ in range(3)]
    assert [(one.token, one.finish) for one in picked] == [(1, None), (2, None), (END, Finish.STOP)]
    assert head.generated == 2 and not tail.waiting


async def test_no_more_is_proposed_than_the_reply_may_have() -> None:
    head, tail, _ = await drafting(2, 3, 4, limit=3)
    assert tail.steps[-1][0].count == 2
    tail.answer_several(2, 3)
    assert [(await head.next()).finish for _ in range(3)] == [None, None, Finish.LENGTH]
    head, tail, _ = await drafting(2, 3, 4, limit=2)
    assert tail.steps[-1][0].count == 1


@pytest.mark.parametrize("tokens", [(2,), (2, 3, 4, 5, 6), ()])
async def test_a_tail_that_answers_a_proposal_with_another_number_of_tokens_is_at_fault(tokens: tuple[int, ...]) -> None:
    head, _, _ = await drafting(2, 3, 4)
    assert (await head.next()).token == 1
    head.answered(StepDone(1, list(tokens), [[] for _ in tokens], TRACE))
    with pytest.raises(GenerationFailed, match="where 4 were asked for"):
        await head.next()


async def test_after_leaving_nothing_is_sent_and_nothing_taken() -> None:
    head, tail = started(1)
    async with generation_of(head):  # starts it: nothing new, one step is under way
        assert len(tail.steps) == 1
    tail.answer(1)
    assert (len(tail.steps), head.generated) == (1, 0)


async def test_times_are_means_over_decode_steps() -> None:
    ticks = Ticks()
    head, tail = started(1, limit=3, ticks=ticks)
    ticks.now = 1.0
    tail.answer(0)
    for at in (1.010, 1.030):
        ticks.now = at
        tail.answer(0)
    usage = head.usage(3)
    assert usage.prefill_ms == pytest.approx(1000)
    assert usage.decode_ms == pytest.approx(30)
    assert usage.tokens_per_second == pytest.approx(2 / 0.030)
    assert [(stage.compute_ms, stage.node_ms) for stage in usage.stages] == [(1, 2), (3, 5)]
    assert usage.link_ms == pytest.approx(15 - 7)


async def test_a_reply_that_cannot_go_on_within_its_grammar_is_over_and_nobody_is_to_blame() -> None:
    head, _ = started(5)
    head.request = replace(head.request, sampling=Sampling(grammar=Grammar(schema="{}")))
    head.answered(StepDone(0, [NO_TOKEN], [[]], [(1, 1)] * len(head.plan.stages)))
    with pytest.raises(GenerationFailed, match="no token fits") as failed:
        await head.next()
    assert isinstance(failed.value.refusal, Invalid) and failed.value.refusal.param == "response_format"
