"""Generations whose head is this node: plan, open the stages, prefill in chunks, decode, and hand out text.

The decode loop lives in callbacks: when the tail's answer arrives, the next step leaves for the first stage before anything
else happens; text, stop strings and the client are served beside it from a bounded queue. The head keeps every token of the
history, which is what a replacement of a dead stage will need. Today a dead stage ends the request with a clear error.

Publishes `GenerationStarted` and `GenerationFinished`.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from swarmd.config.settings import Settings
from swarmd.domain.events import GenerationFinished, GenerationStarted
from swarmd.domain.generation import (
    Finish,
    GenerationFailed,
    GenerationRequest,
    Logprob,
    StageTiming,
    TokenChunk,
    Usage,
)
from swarmd.domain.ids import ModelId, NodeId, SessionId, short
from swarmd.domain.plans import PipelinePlan, Stage
from swarmd.domain.refusals import (
    BadTemplate,
    Busy,
    Invalid,
    NoCapacity,
    NotFound,
    PromptTooLong,
    Refusal,
    StageFailed,
)
from swarmd.inference import plan as planning
from swarmd.inference import worker_frames as frames
from swarmd.inference.forwarding import Stages, StageSession, StepSender, steps_in_flight
from swarmd.inference.prompting import TextStream
from swarmd.inference.worker_process import CommandFailed
from swarmd.inference.workers import Texts, Workers, prefill_rows
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Spawn
from swarmd.kit.world import World
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.models.gguf import BadGguf
from swarmd.peers.links import Links
from swarmd.shards.registry import Registry
from swarmd.transport.stream import LinkLost, Stream, StreamReset
from swarmd.wire.events import TooManyStreams
from swarmd.wire.generation import OpenStage, StageBroken, StageReady, StepDone, StepOn
from swarmd.wire.messages import Refused

OPEN_DEADLINE_S = 600.0  # a stage may have to load its shards first: see workers.LOAD_DEADLINE_S
SILENCE_DEADLINE_S = (
    180.0  # without an answer to any step in flight; above the 120 s after which a stage calls its worker hung
)
TEXT_QUEUE = 64  # tokens the head runs ahead of a slow client, then the stages wait
SAMPLES = 1000  # latencies kept for the percentiles (swarmllm.md 2.1.1)
SAMPLE_AGE_S = 600.0

Feed = Callable[[StepOn, memoryview], None]


@dataclass(frozen=True, slots=True)
class _Picked:
    """A token on its way to the client; `finish` with the last one, whose text does not count when the model ended."""

    token: int
    logprobs: list[tuple[int, float]]
    finish: Finish | None


class Pipeline:
    """Opens generations and counts them."""

    def __init__(
        self,
        *,
        node: NodeId,
        catalog: Catalog,
        registry: Registry,
        workers: Workers,
        stages: Stages,
        links: Links,
        spawn: Spawn,
        world: World,
        bus: EventBus,
        settings: Callable[[], Settings],
    ) -> None:
        self._node, self._catalog, self._registry = node, catalog, registry
        self._workers, self._stages, self._links = workers, stages, links
        self._spawn, self._world, self._bus, self._settings = spawn, world, bus, settings
        self._active = 0
        self._made = 0
        self._last_tokens_per_second: float | None = None
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)

    # -- what people see

    @property
    def active(self) -> int:
        """Generations of this head that run now."""
        return self._active

    @property
    def requests_made(self) -> int:
        return self._made

    @property
    def requests_served(self) -> int:
        """Whole generations run for others: none, they come as stages."""
        return 0

    @property
    def forwards_served(self) -> int:
        return self._stages.served

    @property
    def last_tokens_per_second(self) -> float | None:
        """Of the last finished reply of more than one token; None before the first."""
        return self._last_tokens_per_second

    def latencies_ms(self) -> Sequence[float]:
        oldest = self._world.clock.ticks() - SAMPLE_AGE_S
        return [ms for at, ms in self._samples if at >= oldest]

    # -- planning

    def plan(self, model: ModelId) -> PipelinePlan | Refusal:
        """What a request for this model would run on right now. Runs nothing."""
        known = self._catalog.get(model)
        if known is None:
            return NotFound(what=f"model {model} is not known on this node: GET /v1/models lists what is")
        return planning.plan(self._snapshot(known))

    def _snapshot(self, known: KnownModel, *, without: NodeId | None = None) -> planning.Snapshot:
        manifest = known.manifest
        model = manifest.model
        views = {view.record.node: view for view in self._links.views() if view.connected}
        offers = [
            planning.NodeOffer(
                node=self._node,
                shards=frozenset(self._registry.held(model)),
                loaded=self._registry.loaded(model) | self._workers.loading(model),
                free_bytes=self._workers.free_bytes(),
                layer_ms=self._stages.layer_ms(model),
            )
        ]
        offers += [
            planning.NodeOffer(
                node=node,
                shards=frozenset(holding.shards),
                loaded=frozenset(holding.loaded),
                free_bytes=None if (summary := views[node].summary) is None else summary.ram_free_bytes,
                layer_ms=holding.layer_ms,
            )
            for node, holding in sorted(self._registry.remote(model, manifest.layout).items())
            if node in views
        ]
        return planning.Snapshot(
            model=model,
            layout=manifest.layout,
            head=self._node,
            shards=tuple(
                planning.ShardSize(
                    layer_start=spec.layer_start,
                    layer_end=spec.layer_end,
                    memory_bytes=self._workers.memory_needed(model, spec.index),
                )
                for spec in manifest.shards
            ),
            offers=tuple(offer for offer in offers if offer.node != without),
            rtt_ms={(self._node, node): view.rtt_ms for node, view in views.items() if view.rtt_ms is not None},
        )

    # -- opening

    async def open(self, request: GenerationRequest) -> Generation | Refusal:
        """Tokenises, plans and opens every stage. The generation runs once its `async with` block is entered."""
        limit = self._settings().inference.max_concurrent_requests
        if self._active >= limit:
            return Busy(what=f"this node already runs {limit} requests: try again soon, or raise max_concurrent_requests")
        self._active += 1  # no await since the check
        opened = False
        try:
            result = await self._open(request)
            opened = isinstance(result, Generation)
            return result
        finally:
            if not opened:
                self._active -= 1

    async def _open(self, request: GenerationRequest) -> Generation | Refusal:
        known = self._catalog.get(request.model)
        if known is None:
            return NotFound(what=f"model {request.model} is not known on this node: GET /v1/models lists what is")
        texts = await self._workers.texts(request.model)
        if isinstance(texts, Refusal):
            return texts
        tokens = await self._tokens(known, request)
        if isinstance(tokens, Refusal):
            return tokens
        context = self._workers.cells_per_session(request.model)
        assert context is not None, "the model is known"
        if not tokens:
            return Invalid(what="the prompt is empty: give at least one token to continue from", param="prompt")
        if len(tokens) >= context:
            return PromptTooLong(prompt_tokens=len(tokens), context_tokens=context)
        plan = self.plan(request.model)
        if isinstance(plan, Refusal):
            return plan

        def run(plan: PipelinePlan) -> _Run:
            return _Run(
                request=request, plan=plan, tokens=tokens, texts=texts, rows=prefill_rows(known.manifest.width),
                limit=min(request.max_tokens, context - len(tokens)), ticks=self._world.clock.ticks,
            )  # fmt: skip

        outcome = await self._open_run(run(plan), known)
        if isinstance(outcome, NoCapacity):
            # What that node told of its memory is half a minute old at worst; it knows better, and others may have room.
            other = planning.plan(self._snapshot(known, without=outcome.node))
            if isinstance(other, PipelinePlan):
                return await self._open_run(run(other), known)
        return outcome

    async def _open_run(self, run: _Run, known: KnownModel) -> Generation | Refusal:
        request, plan = run.request, run.plan
        opening = _Opening(self._node, self._stages, self._links, self._spawn, run, width=known.manifest.width)
        async with AsyncExitStack() as stack:
            session = SessionId(self._world.entropy.token(16).hex())
            refusal = await opening.open(stack, session)
            if refusal is not None:
                return refusal
            self._made += 1
            self._bus.publish(
                GenerationStarted(request=request.request, model=request.model, nodes=tuple(s.node for s in plan.stages))
            )
            return Generation(run=run, stack=stack.pop_all(), finished=self._finished)
        raise AssertionError("the stack suppresses nothing")

    async def _tokens(self, known: KnownModel, request: GenerationRequest) -> list[int] | Refusal:
        if request.prompt is not None:
            command: frames.RenderChat | frames.Tokenize = frames.Tokenize(request.prompt)
        else:
            template = _chat_template(known)
            if isinstance(template, Refusal):
                return template
            command = frames.RenderChat(template, [(message.role, message.content) for message in request.messages])
        tokens = await self._workers.tokenize(request.model, command)
        if isinstance(tokens, CommandFailed):
            return BadTemplate(model=request.model, reason=str(tokens))
        return tokens

    def _finished(self, run: _Run, outcome: str) -> None:
        self._active -= 1
        now = self._world.clock.ticks()
        duration_ms = (now - run.began) * 1e3
        if outcome in ("stop", "length"):
            self._samples.append((now, duration_ms))
            # Also of a reply that a stop string ended: every token that was decoded counts here.
            self._last_tokens_per_second = run.usage(run.generated).tokens_per_second or self._last_tokens_per_second
        self._bus.publish(
            GenerationFinished(
                request=run.request.request,
                model=run.request.model,
                completion_tokens=run.generated,
                duration_ms=duration_ms,
                outcome=outcome,
            )
        )


class _Opening:
    """Opens the stages of one run, all at once, and connects their ends to it."""

    def __init__(self, node: NodeId, stages: Stages, links: Links, spawn: Spawn, run: _Run, *, width: int) -> None:
        self._node, self._stages, self._links, self._spawn, self._run = node, stages, links, spawn, run
        self._window = min(len(run.plan.stages) + 1, steps_in_flight(width))

    async def open(self, stack: AsyncExitStack, session: SessionId) -> Refusal | None:
        plan, run = self._run.plan, self._run
        requests = [self._request(session, number) for number in range(len(plan.stages))]
        # Each stage has a stack of its own: they open side by side, and a stack is for one at a time.
        stacks = [await stack.enter_async_context(AsyncExitStack()) for _ in requests]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._open_stage(own, stage, request))
                for own, stage, request in zip(stacks, plan.stages, requests, strict=True)
            ]
            for next_one in asyncio.as_completed(tasks):
                refusal = await next_one
                if isinstance(refusal, Refusal):
                    for task in tasks:
                        task.cancel()  # nobody waits for a slow load when the answer is known
                    return refusal
        entry = tasks[0].result()
        assert not isinstance(entry, Refusal), "the first refusal was returned"
        run.connect(entry, window=self._window)
        return None

    def _request(self, session: SessionId, number: int) -> OpenStage:
        stages = self._run.plan.stages
        stage = stages[number]
        tail = number == len(stages) - 1
        return OpenStage(
            session=session,
            model=self._run.plan.model,
            layout=self._run.plan.layout,
            stage=number,
            first_shard=stage.first_shard,
            last_shard=stage.last_shard,
            cells=len(self._run.history) + self._run.limit,
            predecessor=stages[number - 1].node if number else None,
            successor=None if tail else stages[number + 1].node,
            sampling=self._run.request.sampling if tail else None,
        )

    async def _open_stage(self, stack: AsyncExitStack, stage: Stage, request: OpenStage) -> Feed | Refusal:
        run = self._run

        def failed(reason: str) -> None:
            run.fail(StageFailed(node=stage.node, reason=reason))

        if stage.node == self._node:
            session = await stack.enter_async_context(self._stages.session(request, head=run.answered, failed=failed))
            return session.feed if isinstance(session, StageSession) else session
        link = self._links.link(stage.node)
        if link is None:
            return StageFailed(node=stage.node, reason="the link to it is gone: try again")
        try:
            stream = await stack.enter_async_context(link.open(request))
            return await self._greet(stream, stage, failed)
        except (LinkLost, StreamReset, TooManyStreams) as error:
            return StageFailed(node=stage.node, reason=str(error))
        except TimeoutError:
            return StageFailed(node=stage.node, reason=f"it was not ready within {OPEN_DEADLINE_S:.0f} s")

    async def _greet(self, stream: Stream, stage: Stage, failed: Callable[[str], None]) -> Feed | Refusal:
        async with asyncio.timeout(OPEN_DEADLINE_S):
            first = await stream.receive()
        match first.message if first else None:
            case StageReady():
                pass
            case Refused(kind=kind, sentence=sentence):
                known = _kind_of(kind)
                return known(what=f"node {short(stage.node)}: {sentence}") if known else StageFailed(
                    node=stage.node, reason=sentence
                )  # fmt: skip
            case StageBroken(lacking=(needed, free)):
                return NoCapacity(node=stage.node, needed_bytes=needed, free_bytes=free)
            case StageBroken(reason=reason):
                return StageFailed(node=stage.node, reason=reason)
            case other:
                return StageFailed(node=stage.node, reason=f"it answered {type(other).__name__}")
        run = self._run

        def arrived(message: object, _payload: memoryview) -> None:
            match message:
                case StepDone():
                    run.answered(message)
                case StageBroken(reason=reason):
                    failed(reason)
                case _:
                    failed(f"it sent {type(message).__name__}")

        stream.on_message(arrived, lambda failure: failed(str(failure or "it ended its stage")))
        return StepSender(stream, spawn=self._spawn, failed=failed).push


def _kind_of(name: str) -> type[Busy] | type[Invalid] | type[NotFound] | None:
    """Refusals of a stage that mean the same at the head, and so the same status to the client."""
    return {"Busy": Busy, "Invalid": Invalid, "NotFound": NotFound}.get(name)


def _chat_template(known: KnownModel) -> str | Invalid:
    model = known.manifest.model
    try:
        template = known.header.text("tokenizer.chat_template")
    except BadGguf as error:
        return Invalid(what=f"the chat template of model {model} is none ({error}): use /v1/completions", param="model")
    if template is None:
        return Invalid(what=f"model {model} has no chat template: use /v1/completions", param="model")
    if len(template) > frames.TEMPLATE_LIMIT:  # the worker looks too, if it fits a command
        return Invalid(
            what=f"the chat template of model {model} has {len(template)} characters, above {frames.TEMPLATE_LIMIT}: "
            "use /v1/completions",
            param="model",
        )
    return template


class _Run:
    """The state of one generation: history, steps in flight, tokens on their way to the client."""

    def __init__(
        self,
        *,
        request: GenerationRequest,
        plan: PipelinePlan,
        tokens: list[int],
        texts: Texts,
        rows: int,
        limit: int,
        ticks: Callable[[], float],
    ) -> None:
        """`rows`: of one prefill step."""
        self.request, self.plan, self.texts, self.rows, self.limit = request, plan, texts, rows, limit
        self.history = tokens
        """Every token of the sequence, prompt and reply: what a replacement stage will be fed."""
        self.prompt_tokens = len(tokens)
        self.failure: StageFailed | None = None
        self.began = self.first_at = self.last_at = ticks()
        self._ticks = ticks
        self._feed: Feed | None = None
        self._window = 1
        self._sent = 0
        """Positions sent into the pipeline."""
        self._step = 0
        self._done = 0
        """Steps answered; they come back in order."""
        self._under_way: deque[tuple[float, bool]] = deque()  # bounded by the window: when it was sent, whether it samples
        self._queue: deque[_Picked] = deque()  # bounded by TEXT_QUEUE: `_advance` stops there
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._compute_us = [0] * len(plan.stages)
        self._node_us = [0] * len(plan.stages)
        self._link_us = 0.0
        self._timed = 0

    @property
    def generated(self) -> int:
        return len(self.history) - self.prompt_tokens

    # -- steps out

    def connect(self, feed: Feed, *, window: int) -> None:
        self._feed, self._window = feed, window

    def start(self) -> None:
        self.began = self._ticks()
        self._advance()

    def stop(self) -> None:
        """Nothing is sent or taken any more."""
        self._ended = True

    def _advance(self) -> None:
        """Sends what may be sent: prefill chunks within the window, or the newest token."""
        assert self._feed is not None, "connected before it starts"
        while not self._ended and self._step - self._done < self._window:
            left = len(self.history) - self._sent
            if left == 0 or (self._sent >= self.prompt_tokens and len(self._queue) >= TEXT_QUEUE):
                return
            prefill = self.prompt_tokens - self._sent
            count = min(self.rows, prefill) if prefill > 0 else 1
            position = self._sent
            sample = position + count == len(self.history)
            rows = memoryview(array("i", self.history[position : position + count]))
            step = StepOn(self._step, position, count, sample, [])
            self._sent += count
            self._step += 1
            self._under_way.append((self._ticks(), sample))
            self._feed(step, rows.cast("B"))

    # -- answers in

    def answered(self, done: StepDone) -> None:
        """From the tail, here or elsewhere."""
        if self._ended or self.failure is not None:
            return
        tail = self.plan.stages[-1].node
        if done.number != self._done or len(done.trace) != len(self.plan.stages) or not self._under_way:
            self.fail(StageFailed(node=tail, reason=f"it answered step {done.number} out of turn"))
            return
        now = self._ticks()
        self._done += 1
        sent_at, sample = self._under_way.popleft()
        if sample != (done.token is not None):
            how = "did not pick a token" if sample else "picked a token that nobody asked for"
            self.fail(StageFailed(node=tail, reason=f"it {how}"))
            return
        if self.generated:
            self._time(done, (now - sent_at) * 1e6)
        if done.token is None:
            self._advance()
            return
        if not 0 <= done.token < len(self.texts.pieces):
            self.fail(StageFailed(node=tail, reason=f"it picked token {done.token} of {len(self.texts.pieces)}"))
            return
        if not self.generated:
            self.first_at = now
        self.last_at = now
        finish = self._take(done.token)
        if finish is None:
            self._advance()  # the next step leaves before the client hears of this one
        else:
            self._ended = True
        self._queue.append(_Picked(done.token, done.logprobs, finish))
        self._wake()

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

    def fail(self, failure: StageFailed) -> None:
        if self.failure is None and not self._ended:
            self.failure = failure
            self._wake()

    # -- the client's side

    async def next(self) -> _Picked:
        """The next token. Raises GenerationFailed."""
        while not self._queue:
            if self.failure is not None:
                raise GenerationFailed(self.failure)
            assert not self._ended, "asked for a token after the last one"
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(SILENCE_DEADLINE_S):
                    await self._waiter
            except TimeoutError:
                stage = self.plan.stages[-1]
                self.fail(StageFailed(node=stage.node, reason=f"no answer came within {SILENCE_DEADLINE_S:.0f} s"))
            finally:
                self._waiter = None
        picked = self._queue.popleft()
        if self.failure is None:
            self._advance()  # there is room in the queue again
        return picked

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
        )


class Generation:
    """One reply: `async with generation:`, then `async for chunk in generation:`. Leaving the block cancels every stage."""

    def __init__(self, *, run: _Run, stack: AsyncExitStack, finished: Callable[[_Run, str], None]) -> None:
        self._run, self._stack, self._finished = run, stack, finished
        self._text = TextStream(pieces=run.texts.pieces, stops=run.request.stop)
        self._sequence = 0
        self._consumed = 0
        self._outcome: str | None = None
        self._exhausted = False

    @property
    def plan(self) -> PipelinePlan:
        return self._run.plan

    @property
    def history(self) -> Sequence[int]:
        """Token ids of prompt and reply so far."""
        return tuple(self._run.history)

    async def __aenter__(self) -> Self:
        self._run.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run.stop()
        try:
            await self._stack.aclose()
        finally:
            self._finished(self._run, self._outcome or ("failed" if isinstance(error, GenerationFailed) else "cancelled"))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenChunk:
        """The next piece of text with the logprobs of its tokens. Raises GenerationFailed when a stage is lost."""
        if self._exhausted:
            raise StopAsyncIteration
        logprobs: list[tuple[Logprob, tuple[Logprob, ...]]] = []
        while True:
            picked = await self._run.next()
            text = ""
            if picked.finish is not Finish.STOP:
                self._consumed += 1
                text = self._text.feed(picked.token)
                if picked.logprobs:
                    logprobs.append(self._logprobs(picked.logprobs))
            finish = picked.finish
            if self._text.stopped:
                finish = Finish.STOP
                self._run.stop()
            elif finish is not None:
                text += self._text.finish()
                finish = Finish.STOP if self._text.stopped else finish
            if finish is None and not text:
                continue  # half a character, or what may become a stop string
            chunk = TokenChunk(sequence=self._sequence, text=text, logprobs=tuple(logprobs), finish=finish)
            self._sequence += 1
            if finish is not None:
                self._exhausted, self._outcome = True, finish.value
                chunk = replace(chunk, usage=self._run.usage(self._consumed))
            return chunk

    def _logprobs(self, pairs: list[tuple[int, float]]) -> tuple[Logprob, tuple[Logprob, ...]]:
        pieces = self._run.texts.pieces
        named = [
            Logprob(
                token=token,
                text=pieces[token].decode(errors="replace") if 0 <= token < len(pieces) else "",
                logprob=logprob,
            )
            for token, logprob in pairs
        ]
        return named[0], tuple(named[1:])
