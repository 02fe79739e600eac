"""From chunks to messages of the Anthropic API, whole and as the events of a stream. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec

from swarmd.api.messages_shapes import (
    BlockDelta,
    BlockStart,
    BlockStop,
    Event,
    InputDelta,
    Message,
    MessageDelta,
    MessageStart,
    MessageStop,
    MessageUsage,
    StopDelta,
    TextBlock,
    TextDelta,
    ToolUseBlock,
)
from swarmd.api.openai_prints import Gathered, swarm
from swarmd.domain.generation import Finish, TokenChunk, Usage
from swarmd.domain.structure import ToolCall

END_TURN: Final = "end_turn"
MAX_TOKENS: Final = "max_tokens"
STOP_SEQUENCE: Final = "stop_sequence"
TOOL_USE: Final = "tool_use"
CONTEXT_FULL: Final = "model_context_window_exceeded"


@dataclass(slots=True, kw_only=True)
class MessagePrinter:
    id: str
    model: str
    max_tokens: int
    """That were asked for: a reply that is cut before them has filled the context."""
    _index: int = field(default=-1, init=False)
    """Of the block that is open, or was last."""
    _open: int | str | None = field(default=None, init=False)
    """The call that the open block is of, or "text"; None: none is open."""

    def whole(self, reply: Gathered) -> Message:
        assert reply.finish is not None and reply.usage is not None, "a generation ends with its finish and usage"
        content: list[TextBlock | ToolUseBlock] = []
        if text := "".join(reply.text):
            content.append(TextBlock(text=text))
        content += [_called(call) for call in reply.calls]
        return Message(
            id=self.id,
            role="assistant",
            model=self.model,
            content=content,
            stop_reason=self._reason(reply.finish, reply.stopped_by, reply.usage),
            stop_sequence=reply.stopped_by if reply.finish is Finish.STOP else None,
            usage=usage_out(reply.usage),
            swarm=swarm(reply.usage),
        )

    def opening(self, *, prompt_tokens: int, cached_tokens: int) -> MessageStart:
        usage = MessageUsage(
            input_tokens=prompt_tokens - cached_tokens, cache_creation_input_tokens=0,
            cache_read_input_tokens=cached_tokens, output_tokens=0,
        )  # fmt: skip
        return MessageStart(
            message=Message(
                id=self.id, role="assistant", model=self.model, content=[], stop_reason=None, stop_sequence=None, usage=usage
            )
        )

    def chunks(self, chunk: TokenChunk) -> list[Event]:
        events: list[Event] = []
        if chunk.text:
            if self._open != "text":
                events += self._begin("text", TextBlock(text=""))
            events.append(BlockDelta(index=self._index, delta=TextDelta(text=chunk.text)))
        for piece in chunk.calls:
            if self._open != piece.index:
                assert piece.id is not None and piece.name is not None, "a call begins with its id and its name"
                events += self._begin(piece.index, ToolUseBlock(id=piece.id, name=piece.name, input={}))
            if piece.arguments:
                events.append(BlockDelta(index=self._index, delta=InputDelta(partial_json=piece.arguments)))
        if chunk.finish is not None:
            assert chunk.usage is not None, "finish and usage come together"
            events += self._end()
            delta = StopDelta(
                stop_reason=self._reason(chunk.finish, chunk.stopped_by, chunk.usage),
                stop_sequence=chunk.stopped_by if chunk.finish is Finish.STOP else None,
            )
            events += [MessageDelta(delta=delta, usage=usage_out(chunk.usage), swarm=swarm(chunk.usage)), MessageStop()]
        return events

    def _begin(self, what: int | str, block: TextBlock | ToolUseBlock) -> list[Event]:
        ended = self._end()
        self._open = what
        self._index += 1
        return [*ended, BlockStart(index=self._index, content_block=block)]

    def _end(self) -> list[Event]:
        if self._open is None:
            return []
        self._open = None
        return [BlockStop(index=self._index)]

    def _reason(self, finish: Finish, stopped_by: str | None, usage: Usage) -> str:
        match finish:
            case Finish.TOOL_CALLS:
                return TOOL_USE
            case Finish.LENGTH:
                return MAX_TOKENS if usage.completion_tokens >= self.max_tokens else CONTEXT_FULL
            case Finish.STOP:
                return END_TURN if stopped_by is None else STOP_SEQUENCE


def usage_out(usage: Usage) -> MessageUsage:
    return MessageUsage(
        input_tokens=usage.prompt_tokens - usage.cached_tokens,
        cache_creation_input_tokens=0,
        cache_read_input_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
    )


def _called(call: ToolCall) -> TextBlock | ToolUseBlock:
    """A call that was cut, or whose arguments are no object, is nothing that a client could run: it stays text."""
    try:
        given: object = json.loads(call.arguments, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        return TextBlock(text=call.arguments)
    as_written = msgspec.Raw(call.arguments.encode())  # half a pair of surrogates could not be written again
    return ToolUseBlock(id=call.id, name=call.name, input=cast("dict[str, Any]", as_written))


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")
