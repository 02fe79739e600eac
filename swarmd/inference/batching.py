"""Steps of all users of one worker, put into batches: whatever waits when the worker is free goes into the next one.

Steps of a few rows, those of decoding, share a batch; a chunk of a prompt has one of its own. Where both wait they take
turns, so that a long prompt never holds a running reply for longer than one chunk, nor replies a prompt. A batch has at most
`SHARED_ROWS` rows, within which a row has the bits that it has alone (design, section 4, point 11).

The first stage of a pipeline sets the pace for all of them: it puts at most its share, users over stages, into one batch, so
that each stage has one to compute while another travels, and begins no further one before the first step of an earlier one
is back. So users stay together in batches as large as can be, and none goes around alone because it was late once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from swarmd.inference import worker_frames as frames
from swarmd.inference.tallies import Tallies
from swarmd.inference.worker_process import CommandFailed, OnAnswer, Outcome, WorkerGone

SHARED_ROWS: Final = 32
TRAVEL_S: Final = 0.5  # after so long a batch is waited for no more: its users may read slowly, or their way may be long
GATHER_S: Final = 0.002  # longest wait for the others of a batch; on a busy machine they come one by one
TILE: Final = 4
"""Rows that ggml multiplies at once where weights are packed for vector instructions: one of them costs 26 ms of a 1.1B
model on a core, three 79, four 81. So a share that lacks one row for a tile gets it."""
ALONE: Final = (1, 0)
"""The pace of a way that nobody entered."""
STEP_DEADLINE_S: Final = 120.0  # 128 rows through 40 GB of layers on a slow disk; beyond that the worker hangs


class Stepped(msgspec.Struct, frozen=True):
    """What became of one step. A Struct for the same reason as `worker_process.Outcome`."""

    compute_us: int
    """Of the batch, whose every user waited for all of it."""
    rows: int
    """Of the batch."""
    steps: int
    """In the batch."""
    picked: Sequence[tuple[int, list[tuple[int, float]]]]
    payload: memoryview
    """Its rows, or behind the last layer its vector."""


Done = Callable[["Stepped | WorkerGone | CommandFailed"], None]


class Step(msgspec.Struct, frozen=True):
    """Rows of one sequence through shards [first, last]."""

    first: int
    last: int
    run: frames.Run
    outputs: int
    """From so many of the last rows a token is picked."""
    payload: memoryview
    done: Done
    together: int = 1
    """Steps of the batch in which it was computed before."""
    adapter: int = 0
    """The worker's number of it. A batch has one: llama.cpp applies it to all rows."""
    vectors: int = 0
    """So many of the last rows are added up behind the final norm."""

    @property
    def way(self) -> tuple[int, int, int]:
        """What all steps of a batch have in common."""
        return self.first, self.last, self.adapter


@dataclass(slots=True, eq=False)
class _Batch:
    """On its way through the stages."""

    way: tuple[int, int, int]
    over: bool = False
    """One of its steps is back, or nobody knows."""

    def end(self) -> None:
        self.over = True


class Timer(Protocol):
    def cancel(self) -> None: ...


class Process(Protocol):
    """What is needed of `worker_process.WorkerProcess`."""

    def ask(
        self, command: frames.Command, payload: bytes | memoryview, on_answer: OnAnswer, *, deadline_s: float
    ) -> None: ...


class Batcher:
    """Of one worker process. The worker has one step at a time; what comes meanwhile waits here."""

    def __init__(
        self, process: Process, *, later: Callable[[float, Callable[[], None]], Timer], tallies: Tallies | None = None
    ) -> None:
        """`later`: calls something after so many seconds."""
        self._process, self._later, self._tallies = process, later, tallies
        self._timer: Timer | None = None
        self._blocked = False
        """The timer only makes sure of an end; whoever comes back starts a shorter one."""
        self._travelling: dict[int, _Batch] = {}
        """From the first stage, by sequence: at most one for each user."""
        self._replies: deque[Step] = deque()  # bounded by seats and the steps that a session may have unanswered
        self._prompts: deque[Step] = deque()  # bounded likewise
        self._alone: deque[Step] = deque()  # bounded by SHARED_ROWS: a batch that failed, one by one
        self._users: Counter[tuple[tuple[int, int, int], int]] = Counter()
        """By way, and stages of the pipeline."""
        self._paces: dict[tuple[int, int, int], tuple[int, int]] = {}
        """By way of somebody: users that travel together, and batches that may be under way from the first stage; 0: any."""
        self._busy = False
        self._prompt_was_last = False

    def enter(self, first: int, last: int, stages: int, adapter: int = 0) -> None:
        """A session over these shards, of a pipeline with so many stages."""
        self._users[(first, last, adapter), stages] += 1
        self._set_pace((first, last, adapter))

    def leave(self, first: int, last: int, stages: int, sequence: int, adapter: int = 0) -> None:
        """What it had waiting is not computed any more."""
        key = (first, last, adapter), stages
        self._users[key] -= 1
        if self._users[key] <= 0:
            del self._users[key]  # numbers of adapters are never used again
        self._set_pace(key[0])
        if first == 0:
            self._travelling.pop(sequence, None)
        for queue in (self._replies, self._prompts, self._alone):
            if any(step.run.sequence == sequence for step in queue):
                kept = [step for step in queue if step.run.sequence != sequence]
                queue.clear()
                queue.extend(kept)

    def submit(self, step: Step) -> None:
        """`step.done` is called once, now or later, unless its session leaves first."""
        if step.first == 0 and (back := self._travelling.pop(step.run.sequence, None)) is not None:
            back.over = True
        self._queue(step).append(step)
        if self._busy:
            return
        if self._prompts or self._are_together(step):
            self._next()
        elif self._timer is None or self._blocked:
            # The steps of a batch that another stage has computed come one behind the other: the first must not leave alone.
            self._wait(GATHER_S)

    def _queue(self, step: Step) -> deque[Step]:
        """Where the sequence already waits: the last rows of a prompt, often few, must not overtake its other chunks."""
        for queue in (self._prompts, self._replies):
            for waiting in queue:
                if waiting.run.sequence == step.run.sequence:
                    return queue
        return self._replies if step.run.count <= SHARED_ROWS else self._prompts

    def _next(self) -> None:
        self._busy = True  # also while callbacks run: they submit
        self._stop_waiting()
        while batch := self._take():
            if self._start(batch):
                return
        self._busy = False

    def _take(self) -> list[Step]:
        if self._alone:
            return [self._alone.popleft()]
        if self._prompts and not (self._replies and self._prompt_was_last):
            self._prompt_was_last = True
            return [self._prompts.popleft()]
        self._prompt_was_last = False
        if not self._replies:
            return []
        oldest = self._replies[0]
        if self._has_to_wait(oldest):
            free = self._first_free()
            if free is None:
                self._wait(TRAVEL_S)
                self._blocked = True
                return []
            oldest = free
        batch = self._take_shared(oldest) if len(self._replies) > 1 else [self._replies.popleft()]
        if batch[0].first == 0:
            travelling = _Batch(batch[0].way)
            self._later(TRAVEL_S, travelling.end)
            for step in batch:
                self._travelling[step.run.sequence] = travelling
        return batch

    def _first_free(self) -> Step | None:
        """That need not wait, nor overtakes a step of its own sequence."""
        waiting: set[int] = set()
        for step in self._replies:
            if step.run.sequence not in waiting and not self._has_to_wait(step):
                return step
            waiting.add(step.run.sequence)
        return None

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self._later(seconds, self._next)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._blocked = None, False

    def _has_to_wait(self, step: Step) -> bool:
        """On the first stage: as many batches as can be full are on their way."""
        if step.first != 0:
            return False
        way = step.way
        _, most = self._paces.get(way, ALONE)
        if not most:
            return False
        under_way = {id(batch) for batch in self._travelling.values() if batch.way == way and not batch.over}
        return len(under_way) >= most

    def _take_shared(self, oldest: Step) -> list[Step]:
        """This one, and of those that go the same way as many as there is room for, one of each sequence."""
        way = oldest.way
        users, _ = self._paces.get(way, ALONE)
        batch: list[Step] = []
        kept: list[Step] = []
        seen: set[int] = set()
        rows = 0
        for step in self._replies:
            fits = (len(batch) < users or oldest.first != 0) and rows + step.run.count <= SHARED_ROWS
            if (fits or not batch) and step.way == way and step.run.sequence not in seen:
                batch.append(step)
                rows += step.run.count
            else:
                kept.append(step)
            seen.add(step.run.sequence)  # a later step of this sequence must not overtake an earlier one
        self._replies.clear()
        self._replies.extend(kept)
        return batch

    def _are_together(self, step: Step) -> bool:
        """All that will be here in a moment and go the same way are here."""
        way = step.way
        if step.first == 0:
            expected, _ = self._paces.get(way, ALONE)
            return expected <= len(self._replies) and expected <= sum(one.way == way for one in self._replies)
        waiting = [one.together for one in self._replies if one.way == way]
        return len(waiting) >= max(waiting, default=1)

    def _set_pace(self, way: tuple[int, int, int]) -> None:
        """Of the users that go this way, those travel together with whom all stages have something to do."""
        counts = [(stages, users) for (one, stages), users in self._users.items() if one == way]
        if not counts:
            self._paces.pop(way, None)
            return
        share = sum(-(-users // stages) for stages, users in counts)
        share += share % TILE == TILE - 1
        elsewhere = sum(users for stages, users in counts if stages > 1)
        # Where there are no other stages, nothing is gained by staying together.
        self._paces[way] = share, -(-elsewhere // share) if elsewhere > 1 else 0

    def _start(self, batch: list[Step]) -> bool:
        """False: it was answered at once, by a worker that is gone."""
        outputs: list[tuple[int, int, int]] = []
        rows = 0
        for step in batch:
            run = step.run
            rows += run.count
            outputs += [
                (rows - back, run.sequence, run.position + run.count - back) for back in range(step.outputs, 0, -1)
            ]
        vectors = tuple(step.vectors for step in batch)
        command = frames.Step(
            batch[0].first, batch[0].last, [step.run for step in batch], outputs,
            vectors=vectors if any(vectors) else (), adapter=batch[0].adapter,
        )  # fmt: skip
        payload = batch[0].payload if len(batch) == 1 else b"".join(step.payload for step in batch)
        at_once: bool | None = None

        def answered(outcome: Outcome) -> None:
            nonlocal at_once
            self._answered(batch, rows, outcome)
            if at_once is None:
                at_once = True
            else:
                self._next()
            if self._tallies is not None and isinstance(outcome.answer, frames.Stepped):
                self._tallies.computed(len(batch), rows, outcome.answer.compute_us, shared=rows <= SHARED_ROWS)

        self._process.ask(command, payload, answered, deadline_s=STEP_DEADLINE_S)
        if at_once is None:
            at_once = False
        return not at_once

    def _answered(self, batch: list[Step], rows: int, outcome: Outcome) -> None:
        answer = outcome.answer
        if not isinstance(answer, frames.Stepped):
            if len(batch) > 1 and isinstance(outcome.error, CommandFailed):
                self._alone.extend(batch)  # one user's bad step is not the others' failure
                return
            error = outcome.error or CommandFailed("engine", f"the worker answered {type(answer).__name__}")
            for step in batch:
                step.done(error)
            return
        if len(batch) == 1:
            batch[0].done(Stepped(answer.compute_us, rows, 1, answer.picked, outcome.payload))
            return
        vectors = sum(step.vectors > 0 for step in batch)
        row_bytes = len(outcome.payload) // (vectors or rows)
        at = picked = 0
        for step in batch:
            share = (step.vectors > 0) if vectors else step.run.count
            end, until = at + share * row_bytes, picked + step.outputs
            step.done(Stepped(answer.compute_us, rows, len(batch), answer.picked[picked:until], outcome.payload[at:end]))
            at, picked = end, until
