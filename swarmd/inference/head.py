"""The head's half of one generation: its history, the steps in flight, and the tokens on their way to the client.

The decode loop lives in callbacks: when the tail's answer arrives, the next step leaves for the first stage before anything
else happens; text, stop strings and the client are served beside it from a bounded queue. The head keeps every token of the
history, which is what the replacement of a lost stage is fed: `reroute` begins anew on other stages, with the same chunks
and the same bits, and what the client has is not sent again.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from swarmd.domain.generation import Finish, GenerationFailed, GenerationRequest, StageTiming, Usage
from swarmd.domain.plans import PipelinePlan
from swarmd.domain.refusals import Invalid, StageFailed
from swarmd.inference.batching import SHARED_ROWS
from swarmd.inference.drafting import Drafter
from swarmd.inference.signs import LATE_S, LOOK_S, SILENCE_S
from swarmd.inference.tallies import Tallies
from swarmd.inference.worker_frames import NO_TOKEN
from swarmd.inference.workers import Texts
from swarmd.wire.generation import StepDone, StepOn

SILENCE_DEADLINE_S = 180.0
"""Without an answer to any step in flight; above the 120 s after which a stage calls its worker hung. A long prompt may
take longer: each of its chunks is answered."""
REPLAY_ROWS = 32
"""Of a step through tokens of the reply: within so many, quantised weights give a row the bits that it had alone (design,
section 4, point 11). Others need a step for each."""
TEXT_QUEUE = 64  # tokens the head runs ahead of a slow client, then the stages wait

NOTHING = memoryview(b"")

Feed = Callable[[StepOn, memoryview], None]


@dataclass(frozen=True, slots=True)
class Picked:
    """A token on its way to the client; `finish` with the last one, whose text does not count when the model ended."""

    token: int
    logprobs: list[tuple[int, float]]
    finish: Finish | None


class Head:
    """The state of one generation: history, steps in flight, tokens on their way to the client."""

    vectors: ClassVar[bool] = False
    """No tokens are picked: the tail answers with vectors."""

    def __init__(
        self,
        *,
        request: GenerationRequest,
        plan: PipelinePlan,
        tokens: list[int],
        texts: Texts,
        rows: int,
        replay_rows: int,
        limit: int,
        proposals: int,
        ticks: Callable[[], float],
        prefixes: Sequence[bytes] = (),
        tallies: Tallies | None = None,
    ) -> None:
        """`rows`: of one prefill step; `replay_rows`: of one through the reply, after a loss; `proposals`: most tokens to
        guess in one step; `prefixes`: keys of the prompt's whole chunks of `rows` (`inference.prefixes`)."""
        self.request, self.plan, self.texts, self.limit = request, plan, texts, limit
        self.rows, self._replay_rows = rows, replay_rows
        self._proposals = proposals
        self.prefixes = prefixes
        self._tallies = tallies
        self.cached_tokens = 0
        """Of the prompt, that no stage had to compute."""
        self._drafter = Drafter(tokens) if proposals else None
        self._draft: list[int] = []
        """Behind the last token of the history in the step under way."""
        self.resumes = 0
        """Times the stages were replaced."""
        self._rerouted = False
        self.history = tokens
        """Every token of the sequence, prompt and reply: what a replacement stage is fed."""
        self.prompt_tokens = len(tokens)
        self.failure: StageFailed | Invalid | None = None
        self.began = self.first_at = self.last_at = ticks()
        self._ticks = ticks
        self._feed: Feed | None = None
        self._window = 1
        self._sent = 0
        """Positions sent into the pipeline."""
        self.rows_sent = 0
        """Into the first stage, of all stages this head ever had; wrong guesses too."""
        self._step = 0
        self._done = 0
        """Steps answered; they come back in order."""
        self._under_way: deque[tuple[float, int]] = deque()  # bounded by the window: when it was sent, how many it samples
        self._queue: deque[Picked] = deque()  # bounded by TEXT_QUEUE: `_advance` stops there
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._heard: list[float] = []
        """When each stage gave its last sign of life; infinity: one of this node, whose worker is watched here."""
        self._answered_at = 0.0
        """When a step was last answered, or the stages were connected."""
        self._looked = 0.0
        self._look: asyncio.TimerHandle | None = None
        self._compute_us = [0] * len(plan.stages)
        self._node_us = [0] * len(plan.stages)
        self._link_us = 0.0
        self._timed = 0

    @property
    def generated(self) -> int:
        return len(self.history) - self.prompt_tokens

    # -- steps out

    def connect(self, feed: Feed, *, window: int, positions: int = 0) -> None:
        """`positions`: that all stages have in their caches already."""
        self._feed, self._window = feed, window
        self._sent = positions
        if self._rerouted:
            self.resumes += 1
        else:
            self.cached_tokens = positions

    def start(self) -> None:
        self.began = self._ticks()
        self.go_on()

    def go_on(self) -> None:
        """On stages that are open."""
        self._answered_at = self._ticks()
        self._watch()
        self._advance()

    def stop(self) -> None:
        """Nothing is sent or taken any more."""
        self._ended = True
        self._stop_watching()

    def reroute(self, plan: PipelinePlan) -> None:
        """Other stages take over: everything is sent again, as soon as they are connected and `go_on` is called."""
        assert self.failure is not None, "the old stages are still at work"
        self._stop_watching()
        self.plan, self.failure, self._feed = plan, None, None
        self._rerouted = True
        self._sent = self._step = self._done = 0
        self._draft = []
        self._under_way.clear()
        self._heard = []
        self._compute_us, self._node_us = [0] * len(plan.stages), [0] * len(plan.stages)
        self._link_us, self._timed = 0.0, 0

    # -- signs of life

    def await_signs(self, stage: int) -> None:
        """From now on this stage, elsewhere, has to give signs of life."""
        missing = stage + 1 - len(self._heard)
        self._heard += [math.inf] * missing
        self._heard[stage] = self._ticks()

    def heard(self, stage: int) -> None:
        if stage < len(self._heard):
            self._heard[stage] = self._ticks()

    def _watch(self) -> None:
        self._looked = self._ticks()
        self._look = asyncio.get_running_loop().call_later(LOOK_S, self._look_for_signs)

    def _stop_watching(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _look_for_signs(self) -> None:
        now = self._ticks()
        if now - self._looked > LOOK_S + LATE_S:
            self._heard = [max(at, now) for at in self._heard]
            self._answered_at = now
        for stage, at in zip(self.plan.stages, self._heard, strict=False):
            if now - at > SILENCE_S:
                self.fail(StageFailed(node=stage.node, reason=f"it gave no sign of life for {now - at:.1f} s"))
        if self._under_way and now - max(self._answered_at, self._under_way[0][0]) >= SILENCE_DEADLINE_S:
            tail = self.plan.stages[-1].node
            self.fail(StageFailed(node=tail, reason=f"no answer came within {SILENCE_DEADLINE_S:.0f} s"))
        if self.failure is None and not self._ended:
            self._watch()

    def _advance(self) -> None:
        """Sends what may be sent: prefill chunks within the window, or the newest token."""
        assert self._feed is not None, "connected before it starts"
        while not self._ended and self._step - self._done < self._window:
            left = len(self.history) - self._sent
            if left == 0 or (self._sent >= self.prompt_tokens and len(self._queue) >= TEXT_QUEUE):
                return
            prefill = self.prompt_tokens - self._sent
            count = min(self.rows, prefill) if prefill > 0 else min(self._replay_rows, left)
            position = self._sent
            sample = int(position + count == len(self.history))
            tokens = self.history[position : position + count]
            if sample and self.generated and self._drafter is not None:
                # One further token comes behind the proposal, and all of them have to fit.
                room = min(self._proposals, self.limit - self.generated - 1, SHARED_ROWS - count)
                self._draft = self._drafter.draft(room)
                tokens += self._draft
                sample += len(self._draft)
            rows = memoryview(array("i", tokens))
            step = StepOn(self._step, position, len(tokens), sample, [])
            self._sent += count
            self._step += 1
            self.rows_sent += step.count
            self._under_way.append((self._ticks(), sample))
            self._feed(step, rows.cast("B"))

    # -- answers in

    def answered(self, done: StepDone, _payload: memoryview = NOTHING) -> None:
        """From the tail, here or elsewhere."""
        step = self._in_turn(done)
        if step is None:
            return
        tail = self.plan.stages[-1].node
        now = self._ticks()
        sent_at, sample = step
        if sample != len(done.tokens) or sample != len(done.logprobs):
            self.fail(StageFailed(node=tail, reason=f"it picked {len(done.tokens)} tokens where {sample} were asked for"))
            return
        if NO_TOKEN in done.tokens and self.request.sampling.grammar is not None:
            what = "the reply cannot go on as its schema demands: no token fits, or the schema is too large to find one"
            self.fail(Invalid(what=what, param="tools" if self.request.sampling.grammar.calls else "response_format"))
            return
        if not all(0 <= token < len(self.texts.pieces) for token in done.tokens):
            self.fail(StageFailed(node=tail, reason=f"it picked tokens {done.tokens} of {len(self.texts.pieces)}"))
            return
        before = self.generated
        if sample:
            if before:
                self._time(done, (now - sent_at) * 1e6)
            self._pick(done, now, now - sent_at)
        self._advance()  # the next step leaves before the client hears of this one
        if sample:
            self._wake()
            if before and self._tallies is not None:
                nodes = [stage.node for stage in self.plan.stages]
                self._tallies.decoded(nodes, done.trace, now - sent_at, self.generated - before)

    def _in_turn(self, done: StepDone) -> tuple[float, int] | None:
        """When the step was sent that is answered, and how many rows it samples. None: this answer does not count."""
        if self._ended or self.failure is not None:
            return None
        if done.number != self._done or len(done.trace) != len(self.plan.stages) or not self._under_way:
            tail = self.plan.stages[-1].node
            self.fail(StageFailed(node=tail, reason=f"it answered step {done.number} out of turn"))
            return None
        self._answered_at = self._ticks()
        self._done += 1
        return self._under_way.popleft()

    def _pick(self, done: StepDone, now: float, seconds: float) -> None:
        """The tokens of one step: the first is right in any case, each further one if the proposal before it was."""
        drafting = bool(self.generated)
        if not drafting:
            self.first_at = now
        self.last_at = now
        taken: list[int] = []
        for at, (token, logprobs) in enumerate(zip(done.tokens, done.logprobs, strict=True)):
            finish = self._take(token)
            taken.append(token)
            self._queue.append(Picked(token, logprobs, finish))
            if finish is not None:
                self._ended = True
                break
            if at < len(self._draft) and token != self._draft[at]:
                break
        self._sent = len(self.history) - 1
        if self._drafter is not None:
            if drafting:
                self._drafter.came(taken, sent=len(self._draft), seconds=seconds)
            else:
                self._drafter.begin(taken)
            self._draft = []

    def _take(self, token: int) -> Finish | None:
        if token in self.texts.ends:
            return Finish.STOP
        self.history.append(token)
        return Finish.LENGTH if self.generated >= self.limit else None

    def _time(self, done: StepDone, round_trip_us: float) -> None:
        """Decode steps only: prefill steps overlap, and their times say nothing about a token's."""
        for index, (compute_us, node_us) in enumerate(done.trace):
            self._compute_us[index] += compute_us
            self._node_us[index] += node_us
        self._link_us += max(0.0, round_trip_us - sum(node_us for _, node_us in done.trace))
        self._timed += 1

    def fail(self, failure: StageFailed | Invalid) -> None:
        if self.failure is None and not self._ended:
            self.failure = failure
            self._wake()

    # -- the client's side

    async def next(self) -> Picked:
        """The next token. Raises GenerationFailed."""
        while not self._queue:
            assert self.failure is not None or not self._ended, "asked for a token after the last one"
            await self._news()
        picked = self._queue.popleft()
        if self.failure is None:
            self._advance()  # there is room in the queue again
        return picked

    async def _news(self) -> None:
        """Returns when something has changed. Raises GenerationFailed."""
        if self.failure is not None:
            raise GenerationFailed(self.failure)
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def usage(self, completion_tokens: int) -> Usage:
        steps = max(1, self._timed)
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=completion_tokens,
            prefill_ms=(self.first_at - self.began) * 1e3,
            decode_ms=(self.last_at - self.first_at) * 1e3,
            stages=tuple(
                StageTiming(
                    node=stage.node,
                    layer_start=stage.layer_start,
                    layer_end=stage.layer_end,
                    compute_ms=compute / steps / 1e3,
                    node_ms=node / steps / 1e3,
                )
                for stage, compute, node in zip(self.plan.stages, self._compute_us, self._node_us, strict=True)
            ),
            link_ms=self._link_us / steps / 1e3,
            proposed_tokens=self._drafter.proposed if self._drafter is not None else 0,
            accepted_tokens=self._drafter.accepted if self._drafter is not None else 0,
            resumes=self.resumes,
            cached_tokens=self.cached_tokens,
        )
