"""Stages: our layers of a generation, whoever is its head.

A step arrives (from the head, from the stage before, or from a stage on this very node), goes to the worker, and what
comes out is pushed to the next stage or, behind the last layer, answered to the head. On this path everything is a callback
within the event that brought the bytes: no task is switched between the socket and the worker.

Publishes `StageServed` and `ServeFailed` for other nodes' generations.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from swarmd.domain.adapters import AdapterRef
from swarmd.domain.events import ServeFailed, StageServed
from swarmd.domain.generation import Sampling
from swarmd.domain.ids import ModelId, NodeId, SessionId, short
from swarmd.domain.refusals import Busy, Invalid, NoCapacity, NotFound, Refusal, StageFailed, WorkerFailed
from swarmd.inference import batching, grammars
from swarmd.inference import worker_frames as frames
from swarmd.inference.batching import SHARED_ROWS
from swarmd.inference.effort import decode_effort
from swarmd.inference.prefixes import KEY_BYTES
from swarmd.inference.signs import Listener, Teller
from swarmd.inference.turns import StageTurns
from swarmd.inference.worker_process import CommandFailed, WorkerGone
from swarmd.inference.workers import BYTES_PER_NUMBER, LOAD_DEADLINE_S, Seat, Workers, prefill_rows
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Spawn
from swarmd.kit.world import World
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.shards.adapters import AdapterSlices
from swarmd.shards.registry import Registry
from swarmd.transport.rpc import Dispatcher, Link
from swarmd.transport.stream import LinkLost, ResetCode, Stream, StreamReset
from swarmd.wire.events import TooManyStreams
from swarmd.wire.generation import Lane, OpenStage, StageAlive, StageBroken, StageReady, StepDone, StepOn
from swarmd.wire.messages import Refused

START_DEADLINE_S = 10.0
PRODUCED_BYTES = 4 * 1024 * 1024  # of a reply that goes on here: as many tokens as inference.context_tokens may be
SESSIONS_LIMIT = 256  # stages of generations on this node at once; the workers' seats are the tighter bound
LANE_QUEUE = 64  # steps waiting for a successor's credit; of one session, which has no more than `steps_in_flight`
SPEED_WEIGHT = 0.1  # of a new sample in the smoothed time per layer: some ten tokens of history
SAMPLING_RANGES = (  # wider than any API's, and far from where float32 ends
    ("temperature", 0.0, 100.0), ("top_p", 0.0, 1.0), ("min_p", 0.0, 1.0), ("frequency_penalty", -100.0, 100.0),
    ("presence_penalty", -100.0, 100.0), ("repeat_penalty", 1e-6, 100.0),
)  # fmt: skip
BIAS_ENTRIES, BIAS_LIMIT = 300, 100.0  # the OpenAI contract's own limits
LOGPROBS_LIMIT = 1024  # APIs ask for 20 at most; 15 bytes each in an answer whose typed part may have 256 KiB
UNANSWERED_STEPS = 16  # one at every stage and one on its way; with more stages than fifteen, some of them wait in a prefill
IN_FLIGHT_BYTES = 12 * 1024 * 1024  # of prefill on one lane: below the 20 MiB credit of a stream
SWEEP_S = 10.0  # between looks for silent sessions; the shortest timeout that can be set

logger = logging.getLogger(__name__)

NOTHING = memoryview(b"")

Outlet = Callable[["StepOn | StepDone", memoryview], None]
"""Where a step goes next. Must not raise."""
ToHead = Callable[[StepDone, memoryview], None]
"""Hears the tail's answers; the payload is valid until it returns."""


class Failed(Protocol):
    """Told when a session cannot go on; `culprit`: the neighbour to blame, when it is not this node."""

    def __call__(self, reason: str, *, culprit: NodeId | None = None) -> None: ...


class Linking(Protocol):
    """What stages need of `peers.links.Links`."""

    def link(self, node: NodeId) -> Link | None: ...


class Adapting(Protocol):
    """What stages need of `shards.adapters.Adapters`."""

    async def prepare(
        self, ref: AdapterRef, known: KnownModel, first: int, last: int, *, source: NodeId | None
    ) -> AdapterSlices | Refusal: ...


class StageSession:
    """One generation's caches on this node, and the way steps take through it."""

    def __init__(
        self,
        *,
        owner: Stages,
        known: KnownModel,
        seat: Seat,
        request: OpenStage,
        positions: int,
        outlet: Outlet,
        failed: Failed,
    ) -> None:
        """`positions`: in the caches already."""
        self._owner, self._seat, self._request = owner, seat, request
        self._outlet, self._failed = outlet, failed
        manifest = known.manifest
        self._tail = request.last_shard == len(manifest.shards) - 1
        self._row_bytes = BYTES_PER_NUMBER * (1 if request.first_shard == 0 else manifest.width)
        self._most_rows, self._most_steps = prefill_rows(manifest.width), steps_in_flight(manifest.width)
        self._most_samples = samples_at_once(request.sampling) if self._tail and request.sampling else SHARED_ROWS
        if request.vectors:
            self._most_samples = self._most_rows
        self._layers = owner.effort(known, request.first_shard, request.last_shard)
        self.positions = self._next = positions
        self._unanswered = 0
        self._touched = owner.ticks()
        self._over = self._left = False
        self.rows = 0
        self.broke = False
        """By our own fault: our worker is gone, or could not compute a step."""
        self._way = (request.first_shard, request.last_shard, request.stages)
        self._adapter = seat.adapter
        seat.batcher.enter(*self._way, self._adapter)

    def feed(self, step: StepOn, payload: memoryview) -> None:
        """A step arrived. What does not fit the session breaks it: a stage before us is confused."""
        if self._over:
            return
        arrived = self._owner.ticks()
        fault = self._fault(step, payload)
        if fault is not None:
            self.fail(fault)
            return
        self._touched = arrived
        self._unanswered += 1
        self._next = step.position + step.count
        self.rows += step.count
        sequence = self._seat.sequence
        sampled = step.sample if self._tail else 0
        outputs, vectors = (0, sampled) if self._request.vectors else (sampled, 0)
        run = frames.Run(sequence, step.position, step.count)

        def stepped(outcome: batching.Stepped | WorkerGone | CommandFailed) -> None:
            self._stepped(step, arrived, outcome)

        request = self._request
        together = max(1, min(step.together, SHARED_ROWS))
        self._seat.batcher.submit(
            batching.Step(
                request.first_shard, request.last_shard, run, outputs, payload, stepped, together, self._adapter, vectors
            )
        )

    def fail(self, reason: str, *, culprit: NodeId | None = None) -> None:
        if not self._over:
            self._over = True
            self._failed(reason, culprit=culprit)

    def end_if_silent(self, now: float, timeout_s: float) -> None:
        """Ends a session that nobody feeds, and frees its caches at once, whoever still holds it."""
        # Before the first step the other stages may still be loading.
        patience_s = timeout_s if self.rows else timeout_s + LOAD_DEADLINE_S
        if not self._over and not self._unanswered and now - self._touched >= patience_s:
            self.fail(f"no step came for {patience_s:.0f} s (inference.session_timeout_seconds)")
            self.close()

    def close(self) -> None:
        """Nothing comes out any more, what waits is not computed, and the caches are free."""
        self._over = True
        if not self._left:
            self._left = True
            self._seat.batcher.leave(*self._way, self._seat.sequence, self._adapter)
        self._seat.release()

    def _fault(self, step: StepOn, payload: memoryview) -> str | None:
        if not 0 < step.count <= self._most_rows:
            return f"a step of {step.count} rows; 1 to {self._most_rows} are allowed"
        if self._unanswered >= self._most_steps:
            return f"more than {self._most_steps} steps before the first of them was answered"
        if not 0 <= step.position <= self._next:
            return f"a step at position {step.position} where {self._next} is next"
        if not 0 <= step.sample <= min(step.count, self._most_samples):
            return f"{step.sample} tokens to pick from {step.count} rows; {self._most_samples} are the most"
        if step.position + step.count > self._request.cells:
            return f"a step beyond the {self._request.cells} positions that were asked for"
        if len(payload) != step.count * self._row_bytes:
            return f"a step of {step.count} rows with {len(payload)} bytes"
        if len(step.trace) != self._request.stage:
            return "a step that did not come through the stages before this one"
        return None

    def _stepped(self, step: StepOn, arrived: float, answer: batching.Stepped | WorkerGone | CommandFailed) -> None:
        self._unanswered -= 1
        if self._over:
            return
        now = self._touched = self._owner.ticks()
        if not isinstance(answer, batching.Stepped):
            self.broke = True
            self.fail(f"its worker {answer}" if isinstance(answer, WorkerGone) else str(answer))
            return
        node_us = int((now - arrived) * 1e6)
        trace = [*step.trace, (answer.compute_us, node_us)]
        if self._tail:
            tokens, logprobs = [token for token, _ in answer.picked], [several for _, several in answer.picked]
            self._outlet(StepDone(step.number, tokens, logprobs, trace), answer.payload)
        else:
            self._outlet(StepOn(step.number, step.position, step.count, step.sample, trace, answer.steps), answer.payload)
        if answer.rows == 1:  # books are kept when the step has left
            self._owner.measured(self._request.model, answer.compute_us / 1e3 / self._layers)


class StepSender:
    """Pushes steps into a stream without waiting; what does not fit its credit waits in a bounded queue."""

    def __init__(self, stream: Stream, *, spawn: Spawn, failed: Failed) -> None:
        self._stream, self._spawn, self._failed = stream, spawn, failed
        self._queue: deque[tuple[object, memoryview]] = deque()  # bounded by LANE_QUEUE below
        self._flushing = False

    def push(self, message: object, payload: memoryview) -> None:
        try:
            if not self._queue and self._stream.send_now(message, payload):
                return
        except (LinkLost, StreamReset, ValueError) as error:  # ValueError: larger than a message may be
            self._failed(str(error))
            return
        if len(self._queue) >= LANE_QUEUE:
            self._failed("the next node does not take its steps")
            return
        self._queue.append((message, payload))
        if not self._flushing:
            self._flushing = True
            self._spawn(self._flush(), name=f"steps to {short(self._stream.peer.node)}")

    async def _flush(self) -> None:
        try:
            while self._queue:
                await self._stream.send(*self._queue[0])
                self._queue.popleft()
        except (LinkLost, StreamReset, ValueError) as error:  # ValueError: larger than a message may be
            self._queue.clear()
            self._failed(str(error))
        finally:
            self._flushing = False


class Stages:
    """All stage sessions of this node."""

    def __init__(
        self,
        *,
        node: NodeId,
        catalog: Catalog,
        registry: Registry,
        workers: Workers,
        links: Linking,
        spawn: Spawn,
        world: World,
        bus: EventBus,
        adapters: Adapting | None = None,
        turns: StageTurns | None = None,
    ) -> None:
        """`turns`: None where whoever comes first is first."""
        self._adapters, self._turns = adapters, turns
        self._node, self._catalog, self._registry, self._workers = node, catalog, registry, workers
        self._links, self._spawn, self._world, self._bus = links, spawn, world, bus
        self._sessions: dict[tuple[SessionId, int], tuple[OpenStage, StageSession]] = {}
        self._layer_ms: dict[ModelId, float] = {}
        self._efforts: dict[ModelId, tuple[str, tuple[float, ...]]] = {}
        """By layout; one for each model of the catalogue at most that ever ran here."""
        self._timer: asyncio.TimerHandle | None = None
        self._closed: str | None = None
        self.served = 0
        """Steps run for other nodes' generations since the start."""
        self.ticks = world.clock.ticks

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.serve(OpenStage, self._serve, payload_limit=PRODUCED_BYTES)
        dispatcher.accept(Lane, self._accept)

    def close_doors(self, why: str) -> None:
        """Other heads open no stages here any more, and plan around this node; those that run go on, and so do our own."""
        self._closed = why

    def measured(self, model: ModelId, layer_ms: float) -> None:
        """For sessions: one decode step's time per layer."""
        known = self._layer_ms.get(model, layer_ms)
        self._layer_ms[model] = known + SPEED_WEIGHT * (layer_ms - known)

    @property
    def sessions(self) -> int:
        """Stages that run here now, of whoever's generations."""
        return len(self._sessions)

    def effort(self, known: KnownModel, first: int, last: int) -> float:
        """Of a decode step through these shards, in layers."""
        model, layout = known.manifest.model, known.manifest.layout
        found = self._efforts.get(model)
        if found is None or found[0] != layout:
            found = self._efforts[model] = (layout, decode_effort(known))
        return sum(found[1][first : last + 1])

    def layer_ms(self, model: ModelId) -> float | None:
        """Smoothed decode time of one layer here, milliseconds; None before the first step."""
        return self._layer_ms.get(model)

    @asynccontextmanager
    async def session(
        self,
        request: OpenStage,
        produced: memoryview = NOTHING,
        *,
        head: ToHead,
        failed: Failed,
        asker: NodeId | None = None,
    ) -> AsyncGenerator[StageSession | Refusal]:
        """Opens our stage of a generation, and drops it when the block is left.

        `produced`: tokens of the reply so far, int32, for the tail. `head` hears the tail's answers when this stage is the
        tail; `failed` is told once when the stage cannot go on. `asker`: the node of the head; None: this one.
        """
        known = self._check(request, produced)
        if self._closed is not None and asker is not None:
            known = StageFailed(node=self._node, reason=self._closed)
        if isinstance(known, Refusal):
            yield known
            return
        shards = range(request.first_shard, request.last_shard + 1)
        adapter = await self._adapter(request, known, asker)
        if isinstance(adapter, Refusal):
            yield adapter
            return
        with self._registry.lease(request.model, shards):
            seat = await self._workers.take_seat(request.model, shards, cells=request.cells, adapter=adapter)
            if isinstance(seat, Refusal):
                yield seat
                return
            key = (request.session, request.stage)
            lane = _LaneOutlet(self, request, failed)
            outlet = lane.push if request.successor is not None else _answer(head)
            session: StageSession | None = None
            try:
                positions = await self._start(seat, request, produced, prefill_rows(known.manifest.width))
                if isinstance(positions, Refusal):
                    yield positions
                    return
                if key in self._sessions:
                    yield Invalid(what=f"stage {request.stage} of this session is already open")
                    return
                session = StageSession(
                    owner=self, known=known, seat=seat, request=request, positions=positions, outlet=outlet, failed=failed
                )
                self._sessions[key] = (request, session)
                self._watch()
                try:
                    yield session
                finally:
                    del self._sessions[key]
            finally:
                if session is not None:
                    session.close()
                seat.release()
                lane.close()

    def next_session(self, session: SessionId, stage: int) -> StageSession | None:
        """For lanes: a stage on this very node."""
        found = self._sessions.get((session, stage))
        return found[1] if found else None

    def open_lane(self, request: OpenStage) -> Stream:
        """For lanes: the stream to a successor elsewhere. Raises LinkLost, TooManyStreams."""
        assert request.successor is not None
        link = self._links.link(request.successor)
        if link is None:
            raise LinkLost(f"there is no link to node {short(request.successor)}")
        return link.open(Lane(session=request.session, stage=request.stage + 1))

    def _watch(self) -> None:
        """One timer for all sessions, while there are any."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now, timeout_s = self.ticks(), self._workers.session_timeout_s()
        for _, session in tuple(self._sessions.values()):
            session.end_if_silent(now, timeout_s)
        if self._sessions:
            self._watch()

    @property
    def spawn(self) -> Spawn:
        return self._spawn

    @property
    def node(self) -> NodeId:
        return self._node

    def _check(self, request: OpenStage, produced: memoryview) -> KnownModel | Refusal:
        known = self._catalog.get(request.model)
        if known is None or known.manifest.layout != request.layout:
            return NotFound(what=f"model {request.model} is not known here in layout {request.layout}")
        count = len(known.manifest.shards)
        if not 0 <= request.first_shard <= request.last_shard < count:
            return Invalid(what=f"shards {request.first_shard} to {request.last_shard} of {count} are no range")
        if (request.successor is None) != (request.last_shard == count - 1):
            return Invalid(what="only the stage with the last shard has no successor")
        if (request.stage == 0) != (request.first_shard == 0) or not 0 <= request.stage <= request.first_shard:
            return Invalid(what=f"stage {request.stage} cannot begin with shard {request.first_shard}")
        if (request.stage == 0) != (request.predecessor is None):
            return Invalid(what="every stage but the first has a predecessor")
        fault = None if request.sampling is None else _sampling_fault(request.sampling, known.manifest.vocab_size)
        if fault is not None:
            return Invalid(what=fault)
        if request.vectors and (request.sampling is not None or produced):
            return Invalid(what="where vectors are asked for no token is picked")
        if not request.stage < request.stages <= count:
            return Invalid(what=f"stage {request.stage} of {request.stages} in {count} shards is none")
        if not 0 < request.cells <= known.manifest.context_length:
            return Invalid(what=f"{request.cells} positions do not fit a context of {known.manifest.context_length}")
        if len(produced) % BYTES_PER_NUMBER or len(produced) > request.cells * BYTES_PER_NUMBER:
            return Invalid(what=f"{len(produced)} bytes are no reply of at most {request.cells} tokens")
        if any(not 0 <= token < known.manifest.vocab_size for token in produced.cast("i")):
            return Invalid(what=f"a token of the reply so far is none of the {known.manifest.vocab_size} there are")
        chunks = (request.cells - 1) // prefill_rows(known.manifest.width)
        if len(request.prefixes) > chunks or any(len(key) != KEY_BYTES for key in request.prefixes):
            return Invalid(what=f"{len(request.prefixes)} keys of {chunks} chunks at most, {KEY_BYTES} bytes each")
        if len(self._sessions) >= SESSIONS_LIMIT:
            return Busy(what=f"this node already serves {SESSIONS_LIMIT} stages: try again soon")
        return known

    async def _adapter(
        self, request: OpenStage, known: KnownModel, asker: NodeId | None
    ) -> AdapterSlices | Refusal | None:
        """What is applied to our layers; fetched from the head where it is not here."""
        if request.adapter is None:
            return None
        if self._adapters is None:
            return Invalid(what="this node applies no adapters")
        shards = range(request.first_shard, request.last_shard + 1)
        if not set(shards) <= set(self._registry.held(request.model)):  # before anything is fetched for it
            return NotFound(what=f"shards {shards.start + 1} to {shards.stop} of model {request.model} are not all here")
        ref = AdapterRef(digest=request.adapter, size_bytes=request.adapter_bytes)
        return await self._adapters.prepare(ref, known, request.first_shard, request.last_shard, source=asker)

    async def _start(self, seat: Seat, request: OpenStage, produced: memoryview, rows: int) -> int | Refusal:
        """Positions of the sequence that are in the caches already."""
        sampling = request.sampling
        shape = None if sampling is None or request.successor is not None else frames.SamplingAs(
            sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p, sampling.frequency_penalty,
            sampling.presence_penalty, sampling.repeat_penalty, sampling.seed, sampling.top_logprobs,
            sampling.logit_bias, sampling.grammar,
        )  # fmt: skip
        budget = self._workers.prefix_budget_bytes()
        prefix = (
            frames.Prefix(
                request.first_shard, request.last_shard, rows, list(request.prefixes), budget, keep=not request.vectors
            )
            if request.prefixes and budget
            else None
        )
        command = frames.StartSequence(seat.sequence, shape, prefix)
        try:
            answer, _ = await seat.process.call(command, NOTHING if shape is None else produced, deadline_s=START_DEADLINE_S)
        except WorkerGone as gone:
            return WorkerFailed(model=request.model, how=str(gone))
        except CommandFailed as failed:
            if failed.kind == "grammar":
                return Invalid(what=f"the reply cannot be held to its grammar: {failed}")
            return WorkerFailed(model=request.model, how=f"refused: {failed}")
        assert isinstance(answer, frames.Started)
        return answer.positions

    # -- stages for other heads

    async def _serve(self, request: OpenStage, produced: memoryview, stream: Stream) -> None:
        """One stage as long as the head wants it. Cancelled when the stream or its link breaks."""
        async with _signs_of_life(stream), self._turn(request, stream.peer.node) as busy:
            if busy is None:
                await self._serve_now(request, produced, stream)
            else:
                await stream.send(Refused(kind=type(busy).__name__, sentence=busy.sentence), last=True)

    @asynccontextmanager
    async def _turn(self, request: OpenStage, node: NodeId) -> AsyncGenerator[Busy | None]:
        """Whoever asks for a model that is not here has no line to wait in, and is refused at once."""
        if self._turns is None or self._catalog.get(request.model) is None:
            yield None
            return
        async with self._turns.turn(request.model, node) as busy:
            yield busy

    async def _serve_now(self, request: OpenStage, produced: memoryview, stream: Stream) -> None:
        over: asyncio.Future[StageBroken | None] = asyncio.get_running_loop().create_future()

        def finish(broken: StageBroken | None) -> None:
            if not over.done():
                over.set_result(broken)

        def failed(reason: str, *, culprit: NodeId | None = None) -> None:
            finish(StageBroken(reason=reason, culprit=culprit))

        sender = StepSender(stream, spawn=self._spawn, failed=failed)
        async with self.session(
            request, produced, head=sender.push, failed=failed, asker=stream.peer.node
        ) as session:
            if isinstance(session, NoCapacity):
                lacking = (session.needed_bytes, session.free_bytes)
                await stream.send(StageBroken(reason=session.sentence, lacking=lacking), last=True)
                return
            if isinstance(session, Refusal):
                await stream.send(Refused(kind=type(session).__name__, sentence=session.sentence), last=True)
                return

            def arrived(message: object, payload: memoryview) -> None:
                if isinstance(message, StepOn) and request.stage == 0:
                    session.feed(message, payload)
                else:
                    session.fail(f"the head sent {type(message).__name__}")

            await stream.send(StageReady(positions=session.positions, adapter=request.adapter))
            stream.on_message(arrived, lambda failure: finish(None))
            try:
                broken = await over
            finally:
                self.served += session.rows
                self._bus.publish(StageServed(model=request.model, head=stream.peer.node, tokens=session.rows))
            if broken is not None:
                if session.broke:
                    self._bus.publish(ServeFailed(model=request.model, head=stream.peer.node, reason=broken.reason))
                await stream.send(broken, last=True)

    def _accept(self, lane: Lane, _payload: memoryview, stream: Stream) -> None:
        """The stage before ours opened its lane."""
        found = self._sessions.get((lane.session, lane.stage))
        # A session id is 128 random bits known to its members only; the name of the predecessor is checked all the same.
        if found is None or found[0].predecessor != stream.peer.node:
            stream.reset(ResetCode.FAILED, "there is no such stage here")
            return
        session = found[1]

        def arrived(message: object, payload: memoryview) -> None:
            if isinstance(message, StepOn):
                session.feed(message, payload)
            else:
                session.fail(f"the stage before sent {type(message).__name__}")

        signs = Teller(lambda: _tell(stream))

        def ended(failure: LinkLost | StreamReset | None) -> None:
            signs.stop()
            # A predecessor that is done closes its lane just before the head closes us; only a broken one is news.
            if isinstance(failure, LinkLost):
                session.fail(f"the link to the stage before is lost: {failure}", culprit=stream.peer.node)
            stream.end()

        stream.on_message(arrived, ended)


class _LaneOutlet:
    """To the next stage: a session of this node, or a lane that is opened with the first step (all stages are open then)."""

    def __init__(self, stages: Stages, request: OpenStage, failed: Failed) -> None:
        self._stages, self._request, self._told = stages, request, failed
        self._stream: Stream | None = None
        self._push: Callable[[StepOn | StepDone, memoryview], None] | None = None
        self._signs: Listener | None = None

    def push(self, step: StepOn | StepDone, payload: memoryview) -> None:
        if self._push is None:
            self._push = self._connect()
        if self._push is not None:
            self._push(step, payload)

    def close(self) -> None:
        if self._signs is not None:
            self._signs.stop()
        if self._stream is not None:
            self._stream.reset(ResetCode.CANCELLED)

    def _failed(self, reason: str, *, culprit: NodeId | None = None) -> None:
        self._told(reason, culprit=culprit or self._request.successor)

    def _connect(self) -> Callable[[StepOn | StepDone, memoryview], None] | None:
        request = self._request
        if request.successor == self._stages.node:
            following = self._stages.next_session(request.session, request.stage + 1)
            if following is None:
                self._failed("the next stage on this node is gone")
                return None
            return lambda step, payload: following.feed(step, payload) if isinstance(step, StepOn) else None
        try:
            stream = self._stream = self._stages.open_lane(request)
        except (LinkLost, TooManyStreams) as error:
            self._failed(str(error))
            return None
        signs = self._signs = Listener(
            self._stages.ticks, lambda seconds: self._failed(f"the next stage gave no sign of life for {seconds:.1f} s")
        )

        def arrived(message: object, _payload: memoryview) -> None:
            signs.heard()
            if not isinstance(message, StageAlive):
                self._failed(f"the next stage sent {type(message).__name__}")

        stream.on_message(
            arrived, lambda failure: self._failed(f"the next stage is gone: {failure}") if failure else None
        )
        return StepSender(stream, spawn=self._stages.spawn, failed=self._failed).push


@asynccontextmanager
async def _signs_of_life(stream: Stream) -> AsyncGenerator[None]:
    """Within the block the head hears that we are there."""
    signs = Teller(lambda: _tell(stream))
    try:
        yield
    finally:
        signs.stop()


def _tell(stream: Stream) -> bool:
    try:
        stream.send_now(StageAlive())  # where something else is on its way, that is a sign too
    except (LinkLost, StreamReset):
        return False
    return True


def steps_in_flight(width: int) -> int:
    """Most unanswered steps of one session: the head sends no more, and a stage takes no more.

    They wait in the memory of every node whose worker is busy, so wide hidden states have fewer; two let one travel while
    the other is computed.
    """
    return max(2, min(UNANSWERED_STEPS, IN_FLIGHT_BYTES // (prefill_rows(width) * width * BYTES_PER_NUMBER)))


def samples_at_once(sampling: Sampling) -> int:
    """From so many rows of one step a token may be picked.

    One where a pick depends on the ones before it, beyond the rows themselves; else as many as have the bits they have
    alone, and whose logprobs fit an answer.
    """
    if sampling.frequency_penalty or sampling.presence_penalty or sampling.repeat_penalty != 1.0 or sampling.grammar:
        return 1
    return min(SHARED_ROWS, max(1, LOGPROBS_LIMIT // (1 + (sampling.top_logprobs or 0))))


def _sampling_fault(sampling: Sampling, vocab_size: int) -> str | None:
    """Heads are other people's programs; a penalty of 1e38, say, keeps llama.cpp's sampler busy for many seconds."""
    for name, low, high in SAMPLING_RANGES:
        value: float = getattr(sampling, name)
        if not low <= value <= high:  # nor is NaN
            return f"{name} is {value}: {low:g} to {high:g} are allowed"
    if not 0 <= sampling.top_k < 1 << 31:
        return f"top_k is {sampling.top_k}: 0 to {(1 << 31) - 1} are allowed"
    if len(sampling.logit_bias) > BIAS_ENTRIES:
        return f"logit_bias has {len(sampling.logit_bias)} entries, at most {BIAS_ENTRIES} are taken"
    for token, bias in sampling.logit_bias:
        if not 0 <= token < vocab_size:
            return f"logit_bias names token {token}: the model has 0 to {vocab_size - 1}"
        if not -BIAS_LIMIT <= bias <= BIAS_LIMIT:
            return f"logit_bias of token {token} is {bias}: {-BIAS_LIMIT:g} to {BIAS_LIMIT:g} are allowed"
    if sampling.grammar is not None and (fault := grammars.fault(sampling.grammar)) is not None:
        return f"the reply cannot be held to its grammar: {fault}"
    most = min(LOGPROBS_LIMIT, vocab_size)
    if sampling.top_logprobs is not None and not 0 <= sampling.top_logprobs <= most:
        return f"top_logprobs is {sampling.top_logprobs}: 0 to {most} are allowed"
    return None


def _answer(head: ToHead) -> Outlet:
    def answer(step: StepOn | StepDone, payload: memoryview) -> None:
        assert isinstance(step, StepDone), "only the tail answers the head"
        head(step, payload)

    return answer
