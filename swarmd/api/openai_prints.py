"""From token chunks to bodies of `/v1`. Pure: one printer per reply, which knows its id, time and model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec import UNSET, UnsetType

from swarmd.api.openai_shapes import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChoiceLogprobs,
    ChunkChoice,
    Completion,
    Delta,
    LegacyLogprobs,
    MessageOut,
    PromptDetails,
    Swarm,
    SwarmStage,
    TextChoice,
    TokenLogprob,
    TopLogprob,
    UsageOut,
)
from swarmd.domain.generation import Finish, Logprob, TokenChunk, Usage
from swarmd.domain.ids import short

Logprobs = Sequence[tuple[Logprob, tuple[Logprob, ...]]]


@dataclass(slots=True)
class Gathered:
    """A reply that is wanted whole."""

    text: list[str] = field(default_factory=list[str])
    logprobs: list[tuple[Logprob, tuple[Logprob, ...]]] = field(default_factory=list[tuple[Logprob, tuple[Logprob, ...]]])
    finish: Finish | None = None
    usage: Usage | None = None

    def add(self, chunk: TokenChunk) -> None:
        self.text.append(chunk.text)
        self.logprobs.extend(chunk.logprobs)
        self.finish = chunk.finish or self.finish
        self.usage = chunk.usage or self.usage


@dataclass(slots=True, kw_only=True)
class ChatPrinter:
    id: str
    created: int
    """Unix seconds."""
    model: str
    include_usage: bool = False

    def whole(self, reply: Gathered) -> ChatCompletion:
        assert reply.finish is not None and reply.usage is not None, "a generation ends with its finish and usage"
        choice = ChatChoice(
            index=0,
            message=MessageOut(role="assistant", content="".join(reply.text)),
            finish_reason=reply.finish.value,
            logprobs=_logprobs(reply.logprobs),
        )
        return ChatCompletion(
            id=self.id,
            object="chat.completion",
            created=self.created,
            model=self.model,
            choices=[choice],
            usage=usage_out(reply.usage),
            swarm=swarm(reply.usage),
        )

    def opening(self) -> list[ChatChunk]:
        return [self._chunk(Delta(role="assistant", content=""))]

    def chunks(self, chunk: TokenChunk) -> list[ChatChunk]:
        """None for a token whose text is still incomplete, one for text, up to two more at the end."""
        printed: list[ChatChunk] = []
        if chunk.text or chunk.logprobs:
            printed.append(self._chunk(Delta(content=chunk.text), logprobs=_logprobs(chunk.logprobs)))
        if chunk.finish is not None:
            assert chunk.usage is not None, "finish and usage come together"
            printed.append(self._chunk(Delta(), finish=chunk.finish, swarm_out=swarm(chunk.usage)))
            if self.include_usage:
                printed.append(self._last(chunk.usage))
        return printed

    def _chunk(
        self,
        delta: Delta,
        *,
        logprobs: ChoiceLogprobs | None = None,
        finish: Finish | None = None,
        swarm_out: Swarm | UnsetType = UNSET,
    ) -> ChatChunk:
        choice = ChunkChoice(index=0, delta=delta, finish_reason=finish.value if finish else None, logprobs=logprobs)
        return ChatChunk(
            id=self.id,
            object="chat.completion.chunk",
            created=self.created,
            model=self.model,
            choices=[choice],
            usage=None if self.include_usage else UNSET,
            swarm=swarm_out,
        )

    def _last(self, usage: Usage) -> ChatChunk:
        return ChatChunk(
            id=self.id,
            object="chat.completion.chunk",
            created=self.created,
            model=self.model,
            choices=[],
            usage=usage_out(usage),
        )


@dataclass(slots=True, kw_only=True)
class CompletionPrinter:
    id: str
    created: int
    """Unix seconds."""
    model: str
    include_usage: bool = False
    _printed: int = field(default=0, init=False)
    """Characters of the reply so far, for `text_offset`."""

    def whole(self, reply: Gathered) -> Completion:
        assert reply.finish is not None and reply.usage is not None, "a generation ends with its finish and usage"
        choice = TextChoice(
            index=0, text="".join(reply.text), finish_reason=reply.finish.value, logprobs=self._logprobs(reply.logprobs)
        )
        return self._completion([choice], usage=usage_out(reply.usage), swarm_out=swarm(reply.usage))

    def opening(self) -> list[Completion]:
        return []

    def chunks(self, chunk: TokenChunk) -> list[Completion]:
        printed: list[Completion] = []
        usage = None if self.include_usage else UNSET
        if chunk.text or chunk.logprobs:
            logprobs = self._logprobs(chunk.logprobs)
            choice = TextChoice(index=0, text=chunk.text, finish_reason=None, logprobs=logprobs)
            printed.append(self._completion([choice], usage=usage))
        if chunk.finish is not None:
            assert chunk.usage is not None, "finish and usage come together"
            end = TextChoice(index=0, text="", finish_reason=chunk.finish.value, logprobs=None)
            printed.append(self._completion([end], usage=usage, swarm_out=swarm(chunk.usage)))
            if self.include_usage:
                printed.append(self._completion([], usage=usage_out(chunk.usage)))
        return printed

    def _completion(
        self, choices: list[TextChoice], *, usage: UsageOut | UnsetType | None, swarm_out: Swarm | UnsetType = UNSET
    ) -> Completion:
        return Completion(
            id=self.id,
            object="text_completion",
            created=self.created,
            model=self.model,
            choices=choices,
            usage=usage,
            swarm=swarm_out,
        )

    def _logprobs(self, logprobs: Logprobs) -> LegacyLogprobs | None:
        if not logprobs:
            return None
        offsets: list[int] = []
        for picked, _ in logprobs:
            offsets.append(self._printed)
            self._printed += len(picked.text)
        return LegacyLogprobs(
            tokens=[picked.text for picked, _ in logprobs],
            token_logprobs=[picked.logprob for picked, _ in logprobs],
            top_logprobs=[{one.text: one.logprob for one in likeliest} for _, likeliest in logprobs],
            text_offset=offsets,
        )


def usage_out(usage: Usage) -> UsageOut:
    return UsageOut(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptDetails(cached_tokens=usage.cached_tokens),
    )


def swarm(usage: Usage) -> Swarm:
    return Swarm(
        stages=[
            SwarmStage(
                node=short(stage.node),
                layers=(stage.layer_start, stage.layer_end),
                compute_ms=round(stage.compute_ms, 3),
                node_ms=round(stage.node_ms, 3),
            )
            for stage in usage.stages
        ],
        link_ms=round(usage.link_ms, 3),
        tokens_per_second=round(usage.tokens_per_second, 2),
        prefill_ms=round(usage.prefill_ms, 1),
        proposed_tokens=usage.proposed_tokens,
        accepted_tokens=usage.accepted_tokens,
        resumes=usage.resumes,
    )


def _logprobs(logprobs: Logprobs) -> ChoiceLogprobs | None:
    if not logprobs:
        return None
    return ChoiceLogprobs(
        content=[
            TokenLogprob(
                token=picked.text,
                logprob=picked.logprob,
                bytes=list(picked.text.encode()),
                top_logprobs=[
                    TopLogprob(token=one.text, logprob=one.logprob, bytes=list(one.text.encode())) for one in likeliest
                ],
            )
            for picked, likeliest in logprobs
        ]
    )
