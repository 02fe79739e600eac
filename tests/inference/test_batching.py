"""What goes into one batch, in which order, and whose failure it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.inference import worker_frames as frames
from swarmd.inference.batching import GATHER_S, SHARED_ROWS, TRAVEL_S, Batcher, Step, Stepped
from swarmd.inference.worker_process import CommandFailed, OnAnswer, Outcome, WorkerGone

ROW = 8  # bytes


class Worker:
    """Answers when told to; every row of the answer says whose it is."""

    def __init__(self) -> None:
        self.asked: deque[tuple[frames.Step, bytes, OnAnswer]] = deque()  # at most one, which is checked
        self.steps: list[frames.Step] = []
        self.gone: WorkerGone | None = None

    def ask(
        self, command: frames.Command, payload: bytes | memoryview, on_answer: OnAnswer, *, deadline_s: float
    ) -> None:
        assert isinstance(command, frames.Step) and not self.asked, "one at a time"
        if self.gone is not None:
            on_answer(Outcome(None, memoryview(b""), self.gone))
            return
        self.steps.append(command)
        self.asked.append((command, bytes(payload), on_answer))

    def answer(self, failure: CommandFailed | None = None) -> frames.Step:
        command, payload, on_answer = self.asked.popleft()
        assert len(payload) == ROW * sum(run.count for run in command.runs)
        rows = b"".join(
            bytes([run.sequence]) * ROW for run in command.runs for _ in range(run.count)
        )  # fmt: skip
        picked: list[tuple[int, list[tuple[int, float]]]] = [(position, []) for _, _, position in command.outputs]
        answer = None if failure else frames.Stepped(7, picked)
        on_answer(Outcome(answer, memoryview(b"" if failure else rows), failure))
        return command


class Timers:
    """Time that passes when the test says so."""

    @dataclass(eq=False)
    class Timer:
        at: float
        call: Callable[[], None]
        cancelled: bool = False

        def cancel(self) -> None:
            self.cancelled = True

    def __init__(self) -> None:
        self.now = 0.0
        self.pending: list[Timers.Timer] = []

    def later(self, seconds: float, call: Callable[[], None]) -> Timers.Timer:
        self.pending.append(Timers.Timer(self.now + seconds, call))
        return self.pending[-1]

    def pass_(self, seconds: float) -> None:
        until = self.now + seconds
        while due := [timer for timer in self.pending if timer.at <= until]:
            first = min(due, key=lambda timer: timer.at)
            self.pending.remove(first)
            self.now = first.at
            if not first.cancelled:
                first.call()
        self.now = until


class Users:
    def __init__(self, stages: int = 1) -> None:
        self.worker, self.stages, self.timers = Worker(), stages, Timers()
        self.batcher = Batcher(self.worker, later=self.timers.later)
        self.heard: list[tuple[int, object]] = []

    def enter(self, count: int, *, last: int = 3, adapter: int = 0) -> None:
        for _ in range(count):
            self.batcher.enter(0, last, self.stages, adapter)

    def submit(
        self, sequence: int, *, count: int = 1, position: int = 0, outputs: int = 0, first: int = 0, last: int = 3,
        together: int = 1, adapter: int = 0,
        then: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        def done(result: object) -> None:
            self.heard.append((sequence, result))
            if then:
                then()

        run = frames.Run(sequence, position, count)
        self.batcher.submit(Step(first, last, run, outputs, memoryview(bytes(ROW * count)), done, together, adapter))

    def batch(self) -> list[int]:
        """Answers what the worker computes, now or when nobody else has come in a moment, and tells whose it was."""
        if not self.worker.asked:
            self.timers.pass_(GATHER_S)
        return [run.sequence for run in self.worker.answer().runs]


@pytest.fixture
def users() -> Users:
    made = Users()
    made.enter(8)
    return made


def test_what_waits_goes_together_and_everybody_gets_their_own(users: Users) -> None:
    users.submit(0)
    users.submit(1, outputs=1, position=4)
    users.submit(2, count=3, outputs=2, position=10)
    users.submit(3)
    assert users.batch() == [0, 1, 2, 3]
    assert not users.worker.asked
    assert users.worker.steps[0].outputs == [(1, 1, 4), (3, 2, 11), (4, 2, 12)]
    results = {sequence: result for sequence, result in users.heard if isinstance(result, Stepped)}
    assert [bytes(results[n].payload) for n in range(4)] == [b"\0" * 8, b"\1" * 8, b"\2" * 24, b"\3" * 8]
    assert [results[n].picked for n in range(4)] == [[], [(4, [])], [(11, []), (12, [])], []]
    assert [(results[n].rows, results[n].steps) for n in range(4)] == [(6, 4)] * 4


def test_chunks_of_prompts_and_steps_of_replies_take_turns(users: Users) -> None:
    users.submit(9)
    for position in (0, 128, 256):
        users.submit(5, count=128, position=position)
    again = iter(range(2))

    def one_more() -> None:
        if next(again, None) is not None:
            users.submit(1, then=one_more)

    users.submit(1, then=one_more)
    order = [users.batch() for _ in range(6)]
    assert order == [[5], [9, 1], [5], [1], [5], [1]]
    assert [run.position for step in users.worker.steps for run in step.runs if run.sequence == 5] == [0, 128, 256]


def test_steps_of_one_sequence_stay_in_order(users: Users) -> None:
    users.submit(0)
    users.submit(1, position=0)
    users.submit(1, position=1)
    users.submit(2)
    assert [users.batch() for _ in range(2)] == [[0, 1, 2], [1]]
    assert [run.position for step in users.worker.steps for run in step.runs if run.sequence == 1] == [0, 1]


def test_the_end_of_a_prompt_does_not_overtake_its_middle(users: Users) -> None:
    users.submit(0)
    for position, count in ((0, 128), (128, 128), (256, 5)):
        users.submit(1, position=position, count=count)
    users.submit(2)
    assert [users.batch() for _ in range(4)] == [[1], [0, 2], [1], [1]]
    assert [run.position for step in users.worker.steps for run in step.runs if run.sequence == 1] == [0, 128, 256]


def test_other_shards_are_another_batch(users: Users) -> None:
    users.enter(2, last=1)
    users.submit(0)
    users.submit(1, first=0, last=1)
    users.submit(2, first=2, last=3)
    users.submit(3, first=0, last=1)
    assert [users.batch() for _ in range(3)] == [[0], [1, 3], [2]]


@pytest.mark.parametrize(("stages", "sizes"), [(1, [8]), (3, [4, 4]), (4, [2] * 4), (8, [1] * 8), (2, [4, 4])])
def test_the_first_stage_leaves_something_for_the_others_to_do(stages: int, sizes: list[int]) -> None:
    users = Users(stages)
    users.enter(8)
    for sequence in range(8):
        users.submit(sequence)
    assert [len(users.batch()) for _ in sizes] == sizes
    assert not users.worker.asked


def test_whoever_left_is_not_computed(users: Users) -> None:
    users.submit(0)
    users.submit(1)
    users.submit(1, count=128)
    users.submit(2)
    users.batcher.leave(0, 3, 1, 1)
    assert users.batch() == [0, 2]
    assert not users.worker.asked and [sequence for sequence, _ in users.heard] == [0, 2]


def test_one_users_bad_step_is_not_the_others_failure(users: Users) -> None:
    for sequence in (1, 2, 3):
        users.submit(sequence)
    users.timers.pass_(GATHER_S)
    users.worker.answer(CommandFailed("engine", "token 99 of 10"))
    users.batch()
    users.worker.answer(CommandFailed("engine", "token 99 of 10"))
    users.batch()
    assert [len(step.runs) for step in users.worker.steps] == [3, 1, 1, 1]
    assert [(sequence, type(result)) for sequence, result in users.heard] == [
        (1, Stepped), (2, CommandFailed), (3, Stepped),
    ]  # fmt: skip


def test_a_worker_that_ends_fails_everybody_once(users: Users) -> None:
    for sequence in range(4):
        users.submit(sequence)
    users.submit(4, count=128)
    users.worker.gone = WorkerGone("crashed")
    _, _, on_answer = users.worker.asked.popleft()
    on_answer(Outcome(None, memoryview(b""), users.worker.gone))
    assert sorted(sequence for sequence, _ in users.heard) == [0, 1, 2, 3, 4]
    assert all(isinstance(result, WorkerGone) for _, result in users.heard)
    users.submit(5)
    users.timers.pass_(GATHER_S)
    assert users.heard[-1] == (5, users.worker.gone)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 5), st.sampled_from([1, 1, 1, 2, 9, 32, 33, 128]), st.sampled_from([(0, 3), (2, 3)])),
            st.none(),
        ),
        max_size=60,
    ),
    st.integers(1, 4),
)
def test_nothing_is_lost_doubled_or_overtaken(
    asked: list[tuple[int, int, tuple[int, int]] | None], stages: int
) -> None:
    """None: the worker answers, or time passes."""
    users = Users(stages)
    users.enter(6)
    submitted: dict[int, list[int]] = {}
    for number, one in enumerate(asked):
        if one is None:
            if users.worker.asked:
                users.worker.answer()
            else:
                users.timers.pass_(GATHER_S)
            continue
        sequence, count, (first, last) = one
        submitted.setdefault(sequence, []).append(number)
        users.submit(sequence, count=count, position=number, first=first, last=last)
    while users.worker.asked or any(not timer.cancelled for timer in users.timers.pending):
        if users.worker.asked:
            users.worker.answer()
        else:
            users.timers.pass_(TRAVEL_S)
    done: dict[int, list[int]] = {}
    for step in users.worker.steps:
        assert len({run.sequence for run in step.runs}) == len(step.runs)
        assert len(step.runs) == 1 or sum(run.count for run in step.runs) <= SHARED_ROWS
        for run in step.runs:
            done.setdefault(run.sequence, []).append(run.position)
    assert done == submitted
    assert len(users.heard) == sum(map(len, submitted.values()))


def test_one_user_alone_waits_for_nobody() -> None:
    users = Users(stages=3)
    users.enter(1)
    users.submit(0)
    assert users.worker.asked and users.batch() == [0]
    users.submit(0, position=1)
    assert users.worker.asked


def test_users_stay_together_although_one_was_late_once() -> None:
    """Eight users over three stages went around as four, three and one, and then more and more of them alone."""
    users = Users(stages=3)
    users.enter(8)
    for sequence in range(5):
        users.submit(sequence)
    assert users.batch() == [0, 1, 2, 3]
    assert users.batch() == [4]
    for sequence in (5, 6, 7):
        users.submit(sequence)
    users.timers.pass_(GATHER_S)
    assert not users.worker.asked, "two batches are under way, and eight users fit into two"
    users.submit(4, position=1)
    assert users.batch() == [5, 6, 7, 4]
    for sequence in range(4):
        users.submit(sequence, position=1)
    assert users.batch() == [0, 1, 2, 3]
    assert not users.worker.asked


def test_who_comes_back_late_or_never_keeps_nobody_waiting() -> None:
    users = Users(stages=3)
    users.enter(2)
    users.submit(0)
    users.submit(1)
    assert [users.batch(), users.batch()] == [[0], [1]]
    users.submit(1, position=1)
    assert users.batch() == [1], "who reads slowly has a place of its own"
    users.enter(2)  # and two more come
    for sequence in (2, 3):
        users.submit(sequence)
    found = []
    for _ in range(3):
        users.timers.pass_(TRAVEL_S)
        while users.worker.asked:
            found += users.batch()
    assert sorted(found) == [2, 3]


def test_a_batch_that_comes_back_in_parts_is_one_again() -> None:
    users = Users(stages=2)
    users.enter(8)
    for sequence in range(8):
        users.submit(sequence)
    assert [users.batch(), users.batch()] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    users.submit(0, position=1)
    users.submit(1, position=1)
    assert not users.worker.asked, "two more of it are on their way"
    users.submit(2, position=1)
    users.submit(3, position=1)
    assert users.batch() == [0, 1, 2, 3]


def test_a_later_stage_waits_for_the_others_of_a_batch(users: Users) -> None:
    users.submit(0, first=2, last=3, together=3)
    users.submit(1, first=2, last=3, together=3)
    assert not users.worker.asked
    users.submit(2, first=2, last=3, together=3)
    assert users.batch() == [0, 1, 2]
    users.submit(0, first=2, last=3, together=3, position=1)
    assert users.batch() == [0], "but not for long"
    users.submit(1, first=2, last=3, position=1)
    assert users.worker.asked, "and not at all for one that came alone"


def test_a_batch_has_one_adapter() -> None:
    users = Users()
    users.enter(2)
    users.enter(2, adapter=5)
    for sequence, adapter in ((0, 0), (1, 5), (2, 0), (3, 5)):
        users.submit(sequence, adapter=adapter)
    assert [users.batch() for _ in range(2)] == [[0, 2], [1, 3]]
    assert [step.adapter for step in users.worker.steps] == [0, 5]


def test_users_of_another_adapter_do_not_wait_for_a_batch_that_travels() -> None:
    users = Users(stages=2)
    users.enter(2)
    users.enter(1, adapter=5)
    users.submit(0)
    assert users.batch() == [0]
    users.submit(1)
    assert users.batch() == [1]  # both batches that two stages can have are on their way
    users.submit(2, adapter=5)
    assert users.batch() == [2]


def test_who_left_leaves_no_trace_of_its_adapter() -> None:
    users = Users()
    users.enter(1, adapter=9)
    users.batcher.leave(0, 3, users.stages, 0, 9)
    assert not users.batcher._users


def test_who_may_go_first_does_not_overtake_a_step_of_its_own_that_waits() -> None:
    users = Users(stages=2)
    users.enter(2)
    users.enter(1, adapter=5)
    for sequence in (0, 1):
        users.submit(sequence)
        assert users.batch() == [sequence]
    users.submit(2)  # both batches of two stages travel: it waits
    users.submit(2, adapter=5)
    users.timers.pass_(GATHER_S)
    assert not users.worker.asked
    users.timers.pass_(TRAVEL_S)
    assert [users.batch(), users.batch()] == [[2], [2]]
    assert [step.adapter for step in users.worker.steps[-2:]] == [0, 5]
