"""Embeddings: texts of a client become vectors, several at a time, each in its turn among all requests of this node.

Equal to llama.cpp's own: the model's pooling (`<architecture>.pooling_type`), else the last row, which in a causal model
is the one that has seen the whole text; then length 1. Publishes `GenerationStarted` and `GenerationFinished`, once for a
request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from swarmd.domain.events import GenerationFinished
from swarmd.domain.generation import Embedded, EmbeddingRequest, GenerationRequest
from swarmd.domain.ids import ModelId, NodeId, RequestId
from swarmd.domain.plans import PipelinePlan
from swarmd.domain.refusals import Invalid, NotFound, PromptTooLong, Refusal, WorkerFailed
from swarmd.inference import worker_frames as frames
from swarmd.inference.vector_head import VectorHead
from swarmd.inference.vectors import Pooling, normalised
from swarmd.inference.worker_process import CommandFailed
from swarmd.inference.workers import prefill_rows
from swarmd.kit.bus import EventBus
from swarmd.kit.world import Clock
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.models.gguf import BadGguf
from swarmd.models.gguf_values import ValueType

AT_ONCE: Final = 4
"""Texts of one request under way: enough for three nodes to have one each and one that travels, and less than half of the
places that a node has for all its clients, unless somebody chose so."""
TOKENS_LIMIT: Final = 300_000  # of all texts of one request, as at OpenAI
NUMBERS_LIMIT: Final = 4 << 20
"""Of all vectors of one request: 1,024 texts at a width of 4,096. Printed they have some 90 MB, in memory at once."""


class Reader(Protocol):
    """`inference.pipeline.Pipeline`."""

    def prefixes(self, known: KnownModel, tokens: Sequence[int]) -> tuple[bytes, ...]: ...
    def started(self, request: RequestId, plan: PipelinePlan, *, tokens: int) -> None: ...
    def ended(self, outcome: str) -> None: ...
    def read(
        self, known: KnownModel, client: str, head_on: Callable[[PipelinePlan], VectorHead]
    ) -> Awaitable[VectorHead | Refusal]: ...


class Tokenizer(Protocol):
    """`inference.workers.Workers`."""

    def tokenize(
        self, model: ModelId, command: frames.RenderChat | frames.Tokenize
    ) -> Awaitable[list[int] | Refusal | CommandFailed]: ...
    def cells_per_session(self, model: ModelId) -> int | None: ...


class Embeddings:
    """Of this node's clients."""

    def __init__(self, *, catalog: Catalog, tokenizer: Tokenizer, reader: Reader, clock: Clock, bus: EventBus) -> None:
        self._catalog, self._tokenizer, self._reader = catalog, tokenizer, reader
        self._clock, self._bus = clock, bus

    async def embed(self, request: EmbeddingRequest) -> Embedded | Refusal:
        work = await self._prepared(request)
        if isinstance(work, Refusal):
            self._reader.ended("refused")
            return work
        outcome = "cancelled"
        try:
            refusal = await work.run()
            outcome = "embedded" if refusal is None else "failed"
        finally:
            self._finished(work, outcome)
        return refusal if refusal is not None else work.done()

    async def _prepared(self, request: EmbeddingRequest) -> _Work | Refusal:
        known = self._catalog.get(request.model)
        if known is None:
            return NotFound(what=f"model {request.model} is not known on this node: GET /v1/models lists what is")
        pooling = pooling_of(known)
        if isinstance(pooling, Refusal):
            return pooling
        width = known.manifest.width
        if request.dimensions is not None and request.dimensions != width:
            return Invalid(
                what=f"model {request.model} makes vectors of {width} dimensions, and whether {request.dimensions} of them "
                "mean anything by themselves its file does not say: leave dimensions out, and shorten the vectors yourself",
                param="dimensions",
            )
        if len(request.inputs) * width > NUMBERS_LIMIT:
            return Invalid(
                what=f"{len(request.inputs)} texts are too many at once for vectors of {width} numbers: send at most "
                f"{max(1, NUMBERS_LIMIT // width)} in a request",
                param="input",
            )
        texts = await self._tokens(known, request)
        if isinstance(texts, Refusal):
            return texts
        return _Work(request, known, pooling, texts, self._reader, self._clock)

    def _finished(self, work: _Work, outcome: str) -> None:
        self._reader.ended(outcome if work.nodes or outcome == "cancelled" else "refused")
        if work.nodes:
            self._bus.publish(
                GenerationFinished(
                    request=work.request.request,
                    model=work.request.model,
                    completion_tokens=0,
                    duration_ms=(self._clock.ticks() - work.began) * 1e3,
                    outcome=outcome,
                )
            )

    async def _tokens(self, known: KnownModel, request: EmbeddingRequest) -> list[list[int]] | Refusal:
        model, vocabulary = known.manifest.model, known.manifest.vocab_size
        context = self._tokenizer.cells_per_session(model)
        assert context is not None, "the model is known"
        found: list[list[int]] = []
        total = 0
        for number, text in enumerate(request.inputs):
            where = f"input[{number}]"
            if isinstance(text, str):
                tokens = await self._tokenizer.tokenize(model, frames.Tokenize(text, whole=True))
                if isinstance(tokens, CommandFailed):
                    return WorkerFailed(model=model, how=f"refused: {tokens}")
                if isinstance(tokens, Refusal):
                    return tokens
            else:
                tokens = list(text)
                if any(not 0 <= token < vocabulary for token in tokens):
                    what = f"{where} has tokens that are none of the {vocabulary} of model {model}: send the text itself"
                    return Invalid(what=what, param=where)
            if not tokens:
                return Invalid(what=f"{where} is empty: give at least one token", param=where)
            if len(tokens) > context:
                return PromptTooLong(prompt_tokens=len(tokens), context_tokens=context, param=where)
            total += len(tokens)
            if total > TOKENS_LIMIT:
                what = f"the texts have more than {TOKENS_LIMIT} tokens together: send them in several requests"
                return Invalid(what=what, param="input")
            found.append(tokens)
        return found


class _Work:
    """One request's texts, on their way and done."""

    def __init__(
        self,
        request: EmbeddingRequest,
        known: KnownModel,
        pooling: Pooling,
        texts: list[list[int]],
        reader: Reader,
        clock: Clock,
    ) -> None:
        self.request, self.began = request, clock.ticks()
        self.nodes: tuple[NodeId, ...] = ()
        """Of the first text that was sent."""
        self._known, self._pooling, self._texts = known, pooling, texts
        self._reader, self._clock = reader, clock
        self._waiting = iter(range(len(texts)))
        self._vectors: list[bytes | None] = [None] * len(texts)

    async def run(self) -> Refusal | None:
        """The first refusal ends all of it."""
        count = min(AT_ONCE, len(self._texts))
        refusal: Refusal | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(count):
                    group.create_task(self._take_turns())
        except* _Refused as refused:
            refusal = _first(refused)
        return refusal

    def done(self) -> Embedded:
        vectors = tuple(vector for vector in self._vectors if vector is not None)
        return Embedded(vectors=vectors, tokens=sum(map(len, self._texts)), nodes=self.nodes)

    async def _take_turns(self) -> None:
        for number in self._waiting:
            self._vectors[number] = await self._one(self._texts[number])

    async def _one(self, tokens: list[int]) -> bytes:
        known = self._known
        request = GenerationRequest(request=self.request.request, model=self.request.model, max_tokens=0)
        prefixes = self._reader.prefixes(known, tokens) if self._pooling is Pooling.LAST else ()

        def head_on(plan: PipelinePlan) -> VectorHead:
            if not self.nodes:
                self.nodes = tuple(stage.node for stage in plan.stages)
                self._reader.started(self.request.request, plan, tokens=sum(map(len, self._texts)))
            return VectorHead(
                request=request, plan=plan, tokens=tokens, rows=prefill_rows(known.manifest.width),
                width=known.manifest.width, pooling=self._pooling, ticks=self._clock.ticks, prefixes=prefixes,
            )  # fmt: skip

        head = await self._reader.read(known, self.request.client, head_on)
        if isinstance(head, Refusal):
            raise _Refused(head)
        return normalised(head.vector).astype("<f4", copy=False).tobytes()


class _Refused(Exception):
    """Ends the others of a group."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal


def _first(group: ExceptionGroup[_Refused]) -> Refusal:
    one = group.exceptions[0]
    return _first(one) if isinstance(one, ExceptionGroup) else one.refusal


def pooling_of(known: KnownModel) -> Pooling | Refusal:
    """How a model wants its rows pooled."""
    model, name = known.manifest.model, known.manifest.architecture
    try:
        kind = known.header.integer(f"{name}.pooling_type")
        causal = known.header.metadata.get(f"{name}.attention.causal")
    except BadGguf as error:
        return Invalid(what=f"model {model} does not say how its rows become a vector: {error}", param="model")
    if causal is not None and not (causal.type is ValueType.BOOL and all(causal.numbers())):
        return Invalid(what=f"model {model} reads texts from both ends at once, which shards cannot do", param="model")
    if kind in (None, 0):  # llama.cpp's server wants to be told then; others that serve such models take the last row, too
        return Pooling.LAST
    if kind in (Pooling.MEAN, Pooling.LAST):
        return Pooling(kind)
    what = f"model {model} makes a vector in a way (pooling type {kind}) that this node does not know: 1 (mean) and 3 (last)"
    return Invalid(what=what, param="model")
