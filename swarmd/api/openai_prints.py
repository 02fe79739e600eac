"""From token chunks to bodies of `/v1`. Pure: one printer per reply, which knows its id, time and model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from msgspec import UNSET, UnsetType

from swarmd.api.openai_shapes import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChoiceLogprobs,
    ChunkChoice,
    Completion,
    Delta,
    FunctionCallOut,
    LegacyLogprobs,
    MessageOut,
    PromptDetails,
    Swarm,
    SwarmStage,
    TextChoice,
    TokenLogprob,
    ToolCallOut,
    TopLogprob,
    UsageOut,
)
from swarmd.domain.generation import Finish, Logprob, TokenChunk, Usage
from swarmd.domain.ids import short
from swarmd.domain.structure import CallPiece, ToolCall

Logprobs = Sequence[tuple[Logprob, tuple[Logprob, ...]]]


@dataclass(slots=True)
class Gathered:
    """A reply that is wanted whole."""

    text: list[str] = field(default_factory=list[str])
    logprobs: list[tuple[Logprob, tuple[Logprob, ...]]] = field(default_factory=list[tuple[Logprob, tuple[Logprob, ...]]])
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    finish: Finish | None = None
    stopped_by: str | None = None
    usage: Usage | None = None

    def add(self, chunk: TokenChunk) -> None:
        self.text.append(chunk.text)
        for piece in chunk.calls:
            if piece.id is not None and piece.name is not None:
                self.calls.append(ToolCall(id=piece.id, name=piece.name, arguments=""))
            call = self.calls[piece.index]
            self.calls[piece.index] = replace(call, arguments=call.arguments + piece.arguments)
        self.logprobs.extend(chunk.logprobs)
        self.finish = chunk.finish or self.finish
        self.stopped_by = chunk.stopped_by or self.stopped_by
        self.usage = chunk.usage or self.usage


@dataclass(slots=True, kw_only=True)
class ChatPrinter:
    id: str
    created: int
    """Unix seconds."""
    model: str
    include_usage: bool = False

    def whole(self, *replies: Gathered) -> ChatCompletion:
        usage = _together(replies)
        return ChatCompletion(
            id=self.id,
            object="chat.completion",
            created=self.created,
            model=self.model,
            choices=[self._choice(index, reply) for index, reply in enumerate(replies)],
            usage=usage_out(usage),
            swarm=swarm(usage),
        )

    def _choice(self, index: int, reply: Gathered) -> ChatChoice:
        text = "".join(reply.text)
        calls = [
            ToolCallOut(
                id=call.id, type="function", function=FunctionCallOut(name=call.name, arguments=call.arguments)
            )
            for call in reply.calls
        ]
        content = None if calls and not text else text
        return ChatChoice(
            index=index,
            message=MessageOut(role="assistant", content=content, tool_calls=calls or UNSET),
            finish_reason=_finish(reply).value,
            logprobs=_logprobs(reply.logprobs),
        )

    def opening(self, index: int = 0) -> list[ChatChunk]:
        return [self._chunk(index, Delta(role="assistant", content=""))]

    def chunks(self, chunk: TokenChunk, index: int = 0) -> list[ChatChunk]:
        """None for a token whose text is still incomplete; for text, for pieces of calls, and at the end one each."""
        printed: list[ChatChunk] = []
        if chunk.text or chunk.logprobs:
            printed.append(self._chunk(index, Delta(content=chunk.text), logprobs=_logprobs(chunk.logprobs)))
        if chunk.calls:
            printed.append(self._chunk(index, Delta(tool_calls=[_piece(piece) for piece in chunk.calls])))
        if chunk.finish is not None:
            assert chunk.usage is not None, "finish and usage come together"
            printed.append(self._chunk(index, Delta(), finish=chunk.finish, swarm_out=swarm(chunk.usage)))
        return printed

    def closing(self, usages: Sequence[Usage]) -> list[ChatChunk]:
        """Behind the last chunk of all choices."""
        return [self._last(summed(usages))] if self.include_usage else []

    def _chunk(
        self,
        index: int,
        delta: Delta,
        *,
        logprobs: ChoiceLogprobs | None = None,
        finish: Finish | None = None,
        swarm_out: Swarm | UnsetType = UNSET,
    ) -> ChatChunk:
        choice = ChunkChoice(index=index, delta=delta, finish_reason=finish.value if finish else None, logprobs=logprobs)
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
    _printed: dict[int, int] = field(default_factory=dict[int, int], init=False)
    """Characters of each choice so far, for `text_offset`."""

    def whole(self, *replies: Gathered) -> Completion:
        usage = _together(replies)
        printed = [
            TextChoice(
                index=index, text="".join(reply.text), finish_reason=_finish(reply).value,
                logprobs=self._logprobs(index, reply.logprobs),
            )
            for index, reply in enumerate(replies)
        ]  # fmt: skip
        return self._completion(printed, usage=usage_out(usage), swarm_out=swarm(usage))

    def opening(self, index: int = 0) -> list[Completion]:
        del index  # a chat says here who speaks
        return []

    def chunks(self, chunk: TokenChunk, index: int = 0) -> list[Completion]:
        printed: list[Completion] = []
        usage = None if self.include_usage else UNSET
        if chunk.text or chunk.logprobs:
            logprobs = self._logprobs(index, chunk.logprobs)
            choice = TextChoice(index=index, text=chunk.text, finish_reason=None, logprobs=logprobs)
            printed.append(self._completion([choice], usage=usage))
        if chunk.finish is not None:
            assert chunk.usage is not None, "finish and usage come together"
            end = TextChoice(index=index, text="", finish_reason=chunk.finish.value, logprobs=None)
            printed.append(self._completion([end], usage=usage, swarm_out=swarm(chunk.usage)))
        return printed

    def closing(self, usages: Sequence[Usage]) -> list[Completion]:
        """Behind the last chunk of all choices."""
        return [self._completion([], usage=usage_out(summed(usages)))] if self.include_usage else []

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

    def _logprobs(self, index: int, logprobs: Logprobs) -> LegacyLogprobs | None:
        if not logprobs:
            return None
        offsets: list[int] = []
        at = self._printed.get(index, 0)
        for picked, _ in logprobs:
            offsets.append(at)
            at += len(picked.text)
        self._printed[index] = at
        return LegacyLogprobs(
            tokens=[picked.text for picked, _ in logprobs],
            token_logprobs=[picked.logprob for picked, _ in logprobs],
            top_logprobs=[{one.text: one.logprob for one in likeliest} for _, likeliest in logprobs],
            text_offset=offsets,
        )


def summed(usages: Sequence[Usage]) -> Usage:
    """Of all choices: the prompt once, as the contract counts, tokens of all, time of the slowest, stages of the first."""
    first = usages[0]
    return first if len(usages) == 1 else replace(
        first,
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        decode_ms=max(usage.decode_ms for usage in usages),
        proposed_tokens=sum(usage.proposed_tokens for usage in usages),
        accepted_tokens=sum(usage.accepted_tokens for usage in usages),
        resumes=sum(usage.resumes for usage in usages),
    )  # fmt: skip


def _together(replies: Sequence[Gathered]) -> Usage:
    usages = [reply.usage for reply in replies if reply.usage is not None]
    assert len(usages) == len(replies), "a generation ends with its finish and usage"
    return summed(usages)


def _finish(reply: Gathered) -> Finish:
    assert reply.finish is not None, "a generation ends with its finish and usage"
    return reply.finish


def _piece(piece: CallPiece) -> ToolCallOut:
    first = piece.id is not None and piece.name is not None
    return ToolCallOut(
        index=piece.index,
        id=piece.id if piece.id is not None else UNSET,
        type="function" if first else UNSET,
        function=FunctionCallOut(name=piece.name if piece.name is not None else UNSET, arguments=piece.arguments),
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
    return ChoiceLogprobs(content=token_logprobs(logprobs)) if logprobs else None


def token_logprobs(logprobs: Logprobs) -> list[TokenLogprob]:
    return [
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
