"""Generations whose head is this node: tokenise, plan, open the stages, replace those that are lost, and count.

Publishes `GenerationStarted`, `GenerationResumed`, `StageUsed` and `GenerationFinished`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

import blake3

from swarmd.config.settings import Settings
from swarmd.domain.events import GenerationFinished, GenerationResumed, GenerationStarted, StageUsed
from swarmd.domain.generation import GenerationFailed, GenerationRequest
from swarmd.domain.ids import ModelId, NodeId, RequestId, SessionId, short
from swarmd.domain.peers import PeerView
from swarmd.domain.plans import PipelinePlan
from swarmd.domain.refusals import BadTemplate, Busy, Invalid, NotFound, PromptTooLong, Refusal, StageFailed, WorkerFailed
from swarmd.domain.structure import CallForm, CallRule, Grammar, ToolUse
from swarmd.inference import grammars
from swarmd.inference import plan as planning
from swarmd.inference import worker_frames as frames
from swarmd.inference.admission import Admission
from swarmd.inference.encrypted import EncryptedPipelines
from swarmd.inference.forwarding import Stages, samples_at_once
from swarmd.inference.generation import Generation
from swarmd.inference.head import REPLAY_ROWS, Head
from swarmd.inference.opening import Opening
from swarmd.inference.prefixes import SECRET_BYTES, prefix_keys
from swarmd.inference.tallies import Tallies
from swarmd.inference.tool_calls import ToolCallParser, form_of
from swarmd.inference.vector_head import VectorHead
from swarmd.inference.worker_process import CommandFailed
from swarmd.inference.workers import Texts, Workers, prefill_rows
from swarmd.kit.bus import EventBus
from swarmd.kit.flow import Backoff
from swarmd.kit.service import Spawn
from swarmd.kit.world import World
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.models.gguf import BadGguf
from swarmd.peers.links import Links
from swarmd.shards.registry import Registry

SAMPLES = 1000  # latencies kept for the percentiles (swarmllm.md 2.1.1)
SAMPLE_AGE_S = 600.0
NOT_QUANTISED = frozenset({"F32", "F16", "BF16", "unknown"})
"""A step of one row has other bits than one of several: what these models said is replayed a token at a time."""
RESUMES = 8  # of one generation; a swarm that loses more in one reply has other troubles
RESUME_S = 30.0  # without anybody who has what is missing: time for a node to start again
FIRST_RETRY_S, LIMIT_RETRY_S = 0.25, 2.0

T = TypeVar("T")
H = TypeVar("H", bound=Head)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _NotOpened:
    """Why stages were not opened, and because of whom."""

    node: NodeId
    refusal: Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A request with what no attempt to open it changes."""

    request: GenerationRequest
    """With the grammar that its tail needs, checked."""
    known: KnownModel
    texts: Texts
    tokens: list[int]
    context: int
    """Most tokens of prompt and reply together."""


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
        encrypted: EncryptedPipelines,
        spawn: Spawn,
        world: World,
        bus: EventBus,
        settings: Callable[[], Settings],
        tallies: Tallies | None = None,
    ) -> None:
        self._tallies = tallies or Tallies()
        self._node, self._catalog, self._registry = node, catalog, registry
        self._workers, self._stages, self._links, self._encrypted = workers, stages, links, encrypted
        self._spawn, self._world, self._bus, self._settings = spawn, world, bus, settings
        self._made = 0
        self._placed: Counter[NodeId] = Counter()
        """Stages of our generations, by node: others tell of theirs, with a delay."""
        self._secret = world.entropy.token(SECRET_BYTES)
        """Without it nobody can guess a prompt from the keys of its beginnings."""
        self._admission = Admission(
            places=lambda: settings().inference.max_concurrent_requests,
            queue=lambda: settings().inference.queue_requests,
            patience_s=lambda: settings().inference.queue_seconds,
            clock=world.clock,
        )
        self._last_tokens_per_second: float | None = None
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)

    # -- what people see

    @property
    def active(self) -> int:
        """Generations of this head that run now."""
        return self._admission.active

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return self._admission.waiting

    @property
    def stage_sessions(self) -> int:
        """Stages that run here now, of whoever's generations."""
        return self._stages.sessions

    def close_doors(self, why: str) -> None:
        """Nobody begins anything here any more; what runs goes on, also what it opens anew."""
        self._admission.close(why)
        self._stages.close_doors(why)

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
        demanded = self._encrypted.demanded(model)
        return demanded if isinstance(demanded, Refusal) else planning.plan(self._snapshot(known))

    def _snapshot(self, known: KnownModel, *, without: Collection[NodeId] = ()) -> planning.Snapshot:
        manifest = known.manifest
        model = manifest.model
        views = {view.record.node: view for view in self._links.views() if view.connected}
        offers = [
            planning.NodeOffer(
                node=self._node,
                shards=frozenset(self._registry.held(model)),
                loaded=self._registry.loaded(model) | self._workers.loading(model),
                free_bytes=self._workers.available_bytes(model),
                layer_ms=self._stages.layer_ms(model),
                sessions=self._stages.sessions,
            )
        ]
        offers += [
            planning.NodeOffer(
                node=node,
                shards=frozenset(holding.shards),
                loaded=frozenset(holding.loaded),
                free_bytes=None if (summary := views[node].summary) is None else summary.ram_free_bytes,
                layer_ms=holding.layer_ms,
                sessions=max(self._placed[node], 0 if summary is None else summary.sessions),
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
                    effort=self._stages.effort(known, spec.index, spec.index),
                )
                for spec in manifest.shards
            ),
            offers=tuple(offer for offer in offers if offer.node not in without),
            enclosed=self._encrypted.demanded(model) is not False,  # also where it cannot: then there is no plan
            rtt_ms=_round_trips(self._node, views, {offer.node for offer in offers}),
        )

    def _plan_without(self, known: KnownModel, nodes: Collection[NodeId]) -> PipelinePlan | None:
        if self._catalog.get(known.manifest.model) is None:  # deleted meanwhile
            return None
        plan = planning.plan(self._snapshot(known, without=nodes))
        return plan if isinstance(plan, PipelinePlan) else None

    # -- opening

    async def count_tokens(self, request: GenerationRequest) -> int | Refusal:
        """Of the prompt, as `open` would send it: with the model's own template and vocabulary. Runs nothing."""
        known = self._catalog.get(request.model)
        if known is None:
            return NotFound(what=f"model {request.model} is not known on this node: GET /v1/models lists what is")
        form = self._call_form(known, request)
        if isinstance(form, Refusal):
            return form
        tokens = await self._tokens(known, request)
        return tokens if isinstance(tokens, Refusal) else len(tokens)

    async def open(self, request: GenerationRequest) -> Generation | Refusal:
        """Tokenises, plans and opens every stage. The generation runs once its `async with` block is entered."""
        arrived = self._world.clock.ticks()
        opened = entered = False
        outcome = "cancelled"
        try:
            busy = await self._enter(request.client)
            if busy is not None:
                outcome = "refused"
                return busy
            entered = True
            result = await self._patiently(self._attempt(request, arrived))
            opened, outcome = isinstance(result, Generation), "refused"
            return result
        finally:
            if not opened:
                self._tallies.ended(outcome)
                if entered:
                    self._admission.leave()

    async def _enter(self, client: str) -> Busy | None:
        began = self._world.clock.ticks()
        busy = await self._admission.enter(client)
        self._tallies.queue_s.add(self._world.clock.ticks() - began)
        return busy

    async def _patiently(self, attempt: Callable[[], Awaitable[T | Refusal]]) -> T | Refusal:
        """Waits while the workers' seats are taken, here or elsewhere: only our own tell us when one is free again."""
        clock = self._world.clock
        until = clock.ticks() + self._settings().inference.queue_seconds
        backoff = Backoff(FIRST_RETRY_S, 2.0, LIMIT_RETRY_S, entropy=self._world.entropy)
        while True:
            result = await attempt()
            if not isinstance(result, Busy):
                return result
            delay_s = backoff.delay()
            if clock.ticks() + delay_s > until:
                return replace(result, retry_after_s=self._admission.retry_after_s())
            await self._admission.somebody_left(delay_s)

    def _attempt(self, request: GenerationRequest, arrived: float) -> Callable[[], Awaitable[Generation | Refusal]]:
        """To open it: again where somebody was busy, but then its prompt is not read and its grammar not checked again."""
        read: _Read | None = None

        async def attempt() -> Generation | Refusal:
            nonlocal read
            if read is None or self._catalog.get(request.model) is not read.known:  # else deleted, or added anew
                found = await self._prepare(request)
                if isinstance(found, Refusal):
                    return found
                read = found
            return await self._open(read, arrived)

        return attempt

    async def _prepare(self, request: GenerationRequest) -> _Read | Refusal:
        known = self._catalog.get(request.model)
        if known is None:
            return NotFound(what=f"model {request.model} is not known on this node: GET /v1/models lists what is")
        texts = await self._workers.texts(request.model)
        if isinstance(texts, Refusal):
            return texts
        form = self._call_form(known, request)
        if isinstance(form, Refusal):
            return form
        held = await self._held_to_grammar(known, request, form)
        if isinstance(held, Refusal):
            return held
        request = held
        tokens = await self._tokens(known, request)
        if isinstance(tokens, Refusal):
            return tokens
        context = self._workers.cells_per_session(request.model)
        assert context is not None, "the model is known"
        if not tokens:
            return Invalid(what="the prompt is empty: give at least one token to continue from", param="prompt")
        if len(tokens) >= context:
            return PromptTooLong(prompt_tokens=len(tokens), context_tokens=context)
        return _Read(request=request, known=known, texts=texts, tokens=tokens, context=context)

    async def _open(self, read: _Read, arrived: float) -> Generation | Refusal:
        request, known, texts, tokens, context = read.request, read.known, read.texts, read.tokens, read.context
        plan = self.plan(request.model)
        if isinstance(plan, Refusal):
            return plan

        rows = prefill_rows(known.manifest.width)
        prefixes = self.prefixes(known, tokens, b"" if request.adapter is None else request.adapter.digest)

        def head(plan: PipelinePlan) -> Head:
            return Head(
                request=request, plan=plan, tokens=tokens, texts=texts, rows=rows, prefixes=prefixes,
                replay_rows=1 if _depends_on_rows(known, request) else REPLAY_ROWS,
                limit=min(request.max_tokens, context - len(tokens)), proposals=self._proposals(known, request),
                ticks=self._world.clock.ticks, tallies=self._tallies,
            )  # fmt: skip

        opened = await self._open_somewhere(head, plan, known)
        return opened if isinstance(opened, Refusal) else self._generation(*opened, known, arrived)

    def prefixes(self, known: KnownModel, tokens: Sequence[int], adapter: bytes = b"") -> tuple[bytes, ...]:
        """Keys of the beginnings of a sequence. `adapter`: the digest of the one that is applied."""
        # Of fixed length behind the names, so that no other model and adapter have the same salt.
        applied = b"\n" + adapter if adapter else b""
        whose = f"{known.manifest.model}\n{known.manifest.layout}".encode() + applied
        return tuple(prefix_keys(self._secret, whose, tokens, prefill_rows(known.manifest.width)))

    async def _open_somewhere(
        self, head_on: Callable[[PipelinePlan], H], plan: PipelinePlan, known: KnownModel
    ) -> tuple[H, AsyncExitStack] | Refusal:
        """A head with its stages open."""
        barred: set[NodeId] = set()
        again = False
        while True:
            head = head_on(plan)
            outcome = await self._open_stages(head, known)
            if isinstance(outcome, AsyncExitStack):
                return head, outcome
            # What a node told of its memory and its shards is half a minute old at worst, and one that hangs tells nothing:
            # others may have what is missing. An Invalid, too, may be that node's alone: its context is small, or its
            # version old. Those who are busy are waited for. Each pass bars one node more.
            barred.add(outcome.node)
            other = None if isinstance(outcome.refusal, Busy) else self._plan_without(known, barred)
            if other is None and not again and isinstance(outcome.refusal, StageFailed | WorkerFailed):
                again = True  # a worker that was found to hang, or crashed, is back in a moment
                await asyncio.sleep(FIRST_RETRY_S)
                other = self._plan_without(known, ())
            if other is None:
                return outcome.refusal
            plan = other

    def _proposals(self, known: KnownModel, request: GenerationRequest) -> int:
        """Most tokens to guess in one step; none where a step of several rows has other bits than one of one."""
        if not self._settings().inference.speculation or _depends_on_rows(known, request):
            return 0
        return samples_at_once(request.sampling) - 1

    def _generation(self, head: Head, opened: AsyncExitStack, known: KnownModel, arrived: float) -> Generation:
        self.started(head.request.request, head.plan, tokens=head.prompt_tokens + head.limit)
        barred: set[NodeId] = set()

        async def resume(head: Head, failed: GenerationFailed) -> AsyncExitStack:
            return await self._resume(head, failed, known, barred)

        def finished(head: Head, outcome: str) -> None:
            self._tallies.generated(head.usage(head.generated), waited_s=head.began - arrived)
            self._finished(head, outcome)

        calls = self._call_parser(known, head.request)
        return Generation(head=head, stack=opened, resume=resume, finished=finished, calls=calls)

    def ended(self, outcome: str) -> None:
        """A request of a client that generates nothing."""
        self._tallies.ended(outcome)

    def started(self, request: RequestId, plan: PipelinePlan, *, tokens: int) -> None:
        """A request has its first stages. `tokens`: that they may have to compute."""
        self._made += 1
        nodes = tuple(stage.node for stage in plan.stages)
        self._bus.publish(GenerationStarted(request=request, model=plan.model, nodes=nodes, tokens=tokens))

    async def read(
        self, known: KnownModel, client: str, head_on: Callable[[PipelinePlan], VectorHead]
    ) -> VectorHead | Refusal:
        """Runs one sequence of which vectors are wanted through all stages when its turn has come. The head is done then."""
        busy = await self._enter(client)
        if busy is not None:
            return busy
        try:
            return await self._patiently(lambda: self._read(known, head_on))
        finally:
            self._admission.leave()

    async def _read(self, known: KnownModel, head_on: Callable[[PipelinePlan], VectorHead]) -> VectorHead | Refusal:
        plan = self.plan(known.manifest.model)
        opened = plan if isinstance(plan, Refusal) else await self._open_somewhere(head_on, plan, known)
        if isinstance(opened, Refusal):
            return opened
        head, stack = opened
        barred: set[NodeId] = set()
        head.start()
        try:
            while True:
                try:
                    await head.read()
                    self._tallies.embedded_tokens += head.prompt_tokens
                    self._tallies.cached_tokens += head.cached_tokens
                    return head
                except GenerationFailed as failed:
                    await stack.aclose()
                    stack = await self._resume(head, failed, known, barred)
                    head.go_on()
        except GenerationFailed as failed:
            return failed.refusal
        finally:
            head.stop()
            await stack.aclose()

    async def _open_stages(self, head: Head, known: KnownModel) -> AsyncExitStack | _NotOpened:
        opening = Opening(self._node, self._stages, self._links, self._spawn, head, width=known.manifest.width)
        async with AsyncExitStack() as stack:
            refusal = await opening.open(stack, SessionId(self._world.entropy.token(16).hex()))
            if refusal is not None:
                assert opening.refused_by is not None, "somebody said it"
                return _NotOpened(opening.refused_by, refusal)
            nodes = Counter(stage.node for stage in head.plan.stages)
            self._placed += nodes
            stack.callback(self._placed.subtract, nodes)
            stack.callback(self._used, head, head.plan, head.rows_sent)
            return stack.pop_all()
        raise AssertionError("the stack suppresses nothing")

    def _used(self, head: Head, plan: PipelinePlan, before: int) -> None:
        """These stages have ended. `before`: rows that earlier ones were sent."""
        rows = head.rows_sent - before
        for stage in plan.stages:
            if stage.node != self._node and rows:
                self._bus.publish(
                    StageUsed(request=head.request.request, model=plan.model, node=stage.node, tokens=rows)
                )

    async def _resume(
        self, head: Head, failed: GenerationFailed, known: KnownModel, barred: set[NodeId]
    ) -> AsyncExitStack:
        """Other stages for a generation that lost one, opened. Raises GenerationFailed.

        `barred`: who failed it before. They are asked again only where nobody else has what is missing: a worker that
        crashed is back in a moment, a cable too. Each pass plans without one node more, or waits, and waiting has an end.
        """
        if isinstance(failed.refusal, Invalid):
            raise failed  # nobody was lost: the reply cannot go on within its grammar, wherever it runs
        lost = _NotOpened(failed.refusal.node if isinstance(failed.refusal, StageFailed) else self._node, failed.refusal)
        full: set[NodeId] = set()  # busy a moment ago
        began = self._world.clock.ticks()
        backoff = Backoff(FIRST_RETRY_S, 2.0, LIMIT_RETRY_S, entropy=self._world.entropy)
        while head.resumes < RESUMES and self._catalog.get(head.request.model) is not None:
            avoided = full if isinstance(lost.refusal, Busy) else barred
            news = lost.node not in avoided
            avoided.add(lost.node)
            plan = self._plan_without(known, barred | full)
            if not news or plan is None:
                if self._world.clock.ticks() - began > RESUME_S:
                    break
                await asyncio.sleep(backoff.delay())
                full.clear()
                plan = self._plan_without(known, barred) or self._plan_without(known, ())
            if plan is None:
                continue
            head.reroute(plan)
            opened = await self._open_stages(head, known)
            if isinstance(opened, AsyncExitStack):
                self._resumed(head, failed)
                return opened
            lost = opened
            head.fail(StageFailed(node=lost.node, reason=lost.refusal.sentence))
        raise failed

    def _resumed(self, head: Head, failed: GenerationFailed) -> None:
        self._tallies.resumes += 1
        logger.warning("%s: %s; it goes on with others", head.request.model, failed.refusal.sentence)
        lost = failed.refusal.node if isinstance(failed.refusal, StageFailed) else self._node
        nodes = tuple(stage.node for stage in head.plan.stages)
        self._bus.publish(
            GenerationResumed(request=head.request.request, model=head.request.model, nodes=nodes, lost=lost)
        )

    def _call_form(self, known: KnownModel, request: GenerationRequest) -> CallForm | Invalid | None:
        """How this model writes calls; None where it is not asked to make any."""
        if not request.tools or request.tool_use is ToolUse.NONE:
            return None
        template = _chat_template(known)
        if isinstance(template, Refusal):
            return template
        form = form_of(template)
        if form is None:
            what = (
                f"the chat template of model {request.model} shows tools in no form that this node knows (Hermes and Qwen, "
                "Llama 3, Mistral): leave tools out, or ask another model"
            )
            return Invalid(what=what, param="tools")
        return form

    def _call_parser(self, known: KnownModel, request: GenerationRequest) -> ToolCallParser | None:
        form = self._call_form(known, request)
        return _parser(request, form) if isinstance(form, CallForm) else None

    async def _held_to_grammar(
        self, known: KnownModel, request: GenerationRequest, form: CallForm | None
    ) -> GenerationRequest | Refusal:
        """The request with what its tail needs: a checked grammar, and biases of tokens that there are."""
        size = known.manifest.vocab_size
        wrong = next((token for token, _ in request.sampling.logit_bias if not 0 <= token < size), None)
        if wrong is not None:
            return Invalid(what=f"logit_bias names token {wrong}: the model has 0 to {size - 1}", param="logit_bias")
        grammar = grammar_of(request, form)
        if grammar is None:
            return request
        found = grammars.fault(grammar)  # before megabytes go to the worker
        refusal = await self._workers.check_grammar(request.model, grammar) if found is None else Invalid(what=found)
        if isinstance(refusal, Invalid):
            param = "tools" if grammar.calls else "response_format"
            return Invalid(what=f"{param} cannot be honoured: {refusal.what}", param=param)
        if refusal is not None:
            return refusal
        return replace(request, sampling=replace(request.sampling, grammar=grammar))

    async def _tokens(self, known: KnownModel, request: GenerationRequest) -> list[int] | Refusal:
        if request.prompt_tokens is not None:
            size = known.manifest.vocab_size
            wrong = next((token for token in request.prompt_tokens if not 0 <= token < size), None)
            if wrong is not None:
                return Invalid(what=f"prompt has token {wrong}: the model has 0 to {size - 1}", param="prompt")
            return list(request.prompt_tokens)
        if request.prompt is not None:
            command: frames.RenderChat | frames.Tokenize = frames.Tokenize(request.prompt)
        else:
            template = _chat_template(known)
            if isinstance(template, Refusal):
                return template
            if "tool_calls" not in template and any(message.calls for message in request.messages):
                what = f"the chat template of model {request.model} cannot show tool_calls: leave them out"
                return Invalid(what=what, param="messages")
            tools = request.tools if request.tool_use is not ToolUse.NONE else ()
            command = frames.RenderChat(
                template,
                [
                    frames.Said(
                        message.role,
                        message.content,
                        tuple((call.id, call.name, call.arguments) for call in message.calls),
                        message.call_id,
                        message.name,
                    )
                    for message in request.messages
                ],
                tuple((tool.name, tool.description, tool.parameters) for tool in tools),
            )
        tokens = await self._workers.tokenize(request.model, command)
        if isinstance(tokens, CommandFailed):
            return BadTemplate(model=request.model, reason=str(tokens))
        return tokens

    def _finished(self, head: Head, outcome: str) -> None:
        self._admission.leave()
        self._tallies.ended(outcome)
        now = self._world.clock.ticks()
        duration_ms = (now - head.began) * 1e3
        if outcome in ("stop", "length"):
            self._samples.append((now, duration_ms))
            self._admission.taken(duration_ms / 1e3)
            # Also of a reply that a stop string ended: every token that was decoded counts here.
            self._last_tokens_per_second = head.usage(head.generated).tokens_per_second or self._last_tokens_per_second
        self._bus.publish(
            GenerationFinished(
                request=head.request.request,
                model=head.request.model,
                completion_tokens=head.generated,
                duration_ms=duration_ms,
                outcome=outcome,
            )
        )


def _round_trips(
    head: NodeId, views: Mapping[NodeId, PeerView], offering: Collection[NodeId]
) -> dict[tuple[NodeId, NodeId], float]:
    """Milliseconds: from here as measured, between others as they tell."""
    found = {(head, node): view.rtt_ms for node, view in views.items() if view.rtt_ms is not None}
    by_short = {short(node): node for node in offering}
    for one, view in views.items():
        for trip in view.summary.near if view.summary is not None else ():
            other = by_short.get(trip.node)
            if other is not None and other != head:
                found[one, other] = max(trip.tenths_ms / 10, found.get((other, one), 0.0))  # the worse word of the two
    return found


def grammar_of(request: GenerationRequest, form: CallForm | None) -> Grammar | None:
    """What the reply must be held to; None: nothing but what the model likes to say."""
    tools = request.tools if form is not None else ()
    if request.tool_named is not None:
        tools = tuple(tool for tool in tools if tool.name == request.tool_named)
    if tools and form is not None:
        forced = request.tool_use is ToolUse.REQUIRED
        if forced or request.schema is not None or any(tool.strict for tool in tools):
            return Grammar(
                schema=None if forced else request.schema,
                calls=tuple(CallRule(name=tool.name, schema=tool.parameters) for tool in tools),
                form=form,
                many=request.several_calls and request.tool_named is None,
                free=not forced and request.schema is None,
            )
        return None
    return None if request.schema is None else Grammar(schema=request.schema)


def _parser(request: GenerationRequest, form: CallForm) -> ToolCallParser:
    def make_id(index: int) -> str:
        digits = blake3.blake3(f"{request.request}/{index}".encode()).hexdigest()
        # Templates of Mistral's models insist on nine letters and digits.
        return digits[:9] if form in (CallForm.MISTRAL, CallForm.MISTRAL_ARGS) else f"call_{digits[:24]}"

    return ToolCallParser(
        form=form, names=[tool.name for tool in request.tools], make_id=make_id,
        several=request.several_calls and request.tool_named is None,
    )  # fmt: skip


def _depends_on_rows(known: KnownModel, request: GenerationRequest) -> bool:
    """A step of one row has other bits than one of several: so it is with weights that are not quantised, and an adapter's
    are float32."""
    return known.manifest.quantization in NOT_QUANTISED or request.adapter is not None


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
