"""From token chunks to events and bodies of `/v1/responses`. Pure: one printer per response, which numbers its events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

import msgspec
from msgspec.structs import replace

from swarmd.api.inner_requests import CHAT_TEMPERATURE
from swarmd.api.openai_prints import swarm, token_logprobs
from swarmd.api.openai_shapes import TokenLogprob
from swarmd.api.responses_requests import Asked, item_id
from swarmd.api.responses_shapes import (
    ArgumentsDeltaEvent,
    ArgumentsDoneEvent,
    CallItem,
    CallOutputItem,
    Event,
    IncompleteDetails,
    InputDetails,
    InputFile,
    Item,
    ItemEvent,
    ItemStatus,
    MessageItem,
    OutputDetails,
    OutputRefusal,
    OutputText,
    PartEvent,
    ReasoningOut,
    ResponseErrorOut,
    ResponseEvent,
    ResponseOut,
    ResponseUsage,
    TextDeltaEvent,
    TextDoneEvent,
    TextFormatOut,
    TextIn,
    TextOut,
    ToolOut,
)
from swarmd.domain.generation import Finish, TokenChunk, Usage
from swarmd.domain.responses import ResponseStatus
from swarmd.domain.structure import CallPiece

PREVIEW_LENGTH: Final = 120  # contract: swarmllm.md 2.9


@dataclass(slots=True, kw_only=True)
class _Message:
    index: int
    id: str
    text: list[str] = field(default_factory=list[str])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])


@dataclass(slots=True, kw_only=True)
class _Call:
    index: int
    """Of the item."""
    id: str
    call_id: str
    name: str
    arguments: list[str] = field(default_factory=list[str])


def opened(asked: Asked, *, id: str, created_at: int, model: str) -> ResponseOut:
    """The response before anything has happened; `created_at` in Unix seconds."""
    body = asked.body
    background = bool(body.background)
    return ResponseOut(
        id=id,
        created_at=created_at,
        status=(ResponseStatus.QUEUED if background else ResponseStatus.IN_PROGRESS).value,
        background=background,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        max_tool_calls=body.max_tool_calls,
        model=model,
        output=[],
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        prompt_cache_key=body.prompt_cache_key,
        reasoning=ReasoningOut(),
        safety_identifier=body.safety_identifier,
        service_tier="default",
        store=body.store is not False,
        temperature=CHAT_TEMPERATURE if body.temperature is None else body.temperature,
        text=_text_out(body.text),
        tool_choice="auto" if body.tool_choice is None else body.tool_choice,
        tools=[
            ToolOut(
                type=one.type, name=one.name or "", description=one.description, parameters=one.parameters,
                strict=bool(one.strict),
            )
            for one in body.tools or ()
        ],
        top_logprobs=body.top_logprobs or 0,
        top_p=1.0 if body.top_p is None else body.top_p,
        truncation=body.truncation or "disabled",
        user=body.user,
        metadata=body.metadata or {},
    )  # fmt: skip


class ResponsePrinter:
    """Chunks in, events out; `body` is the response as it stands at any moment."""

    def __init__(self, out: ResponseOut, extras: Mapping[str, Any]) -> None:
        """`extras`: fields of the request that no contract names; they stand beside those of the response."""
        self._out, self._extras = out, extras
        self._number = 0
        self._items: list[Item] = []
        """As far as they are complete or were when last looked at; by output index."""
        self._message: _Message | None = None
        self._call: _Call | None = None
        self._blank = ""
        """Behind a call: content only if something else follows."""
        self._unwritten: list[TokenLogprob] = []
        """Of tokens whose text is not certain yet."""
        self._finish: Finish | None = None
        self.usage: Usage | None = None

    @property
    def status(self) -> ResponseStatus:
        return ResponseStatus(self._out.status)

    @property
    def truncates(self) -> bool:
        """A conversation that does not fit is to lose its beginning."""
        return self._out.truncation == "auto"

    @property
    def items(self) -> list[Item]:
        """Of the output, those that are being made included."""
        items = list(self._items)
        if self._message is not None:
            items[self._message.index] = _message_item(self._message, "in_progress" if self.status.is_open else "incomplete")
        if self._call is not None:
            items[self._call.index] = _call_item(self._call, "in_progress" if self.status.is_open else "incomplete")
        return items

    def body(self) -> dict[str, Any]:
        return {**msgspec.to_builtins(replace(self._out, output=self.items)), **self._extras}

    def created(self) -> list[Event]:
        """The first two: they need no model."""
        events = [self._event("created")]
        if self.status is ResponseStatus.QUEUED:
            return [*events, self._event("queued")]
        return [*events, self._event("in_progress")]

    def begun(self) -> list[Event]:
        """What was queued is being worked on."""
        self._out = replace(self._out, status=ResponseStatus.IN_PROGRESS.value)
        return [self._event("in_progress")]

    def chunk(self, chunk: TokenChunk) -> list[Event]:
        events: list[Event] = []
        self._unwritten += token_logprobs(chunk.logprobs)
        if chunk.text:
            self._write(events, chunk.text)
        for piece in chunk.calls:
            self._piece(events, piece)
        if chunk.finish is not None:
            self._finish, self.usage = chunk.finish, chunk.usage
            self._complete(events, cut=chunk.finish is Finish.LENGTH)
        return events

    def ended(self, now: float) -> list[Event]:
        """The last event, behind a chunk with `finish`."""
        assert self._finish is not None and self.usage is not None, "a generation ends with its finish and usage"
        cut = self._finish is Finish.LENGTH
        self._out = replace(
            self._out,
            status=(ResponseStatus.INCOMPLETE if cut else ResponseStatus.COMPLETED).value,
            completed_at=None if cut else int(now),
            incomplete_details=IncompleteDetails(reason="max_output_tokens") if cut else None,
            usage=_usage(self.usage),
            swarm=swarm(self.usage),
        )
        return [self._event("incomplete" if cut else "completed")]

    def failed(self, error: ResponseErrorOut) -> list[Event]:
        self._out = replace(self._out, status=ResponseStatus.FAILED.value, error=error)
        return [self._event("failed")]

    def cancelled(self) -> list[Event]:
        self._out = replace(self._out, status=ResponseStatus.CANCELLED.value)
        return [self._event("cancelled")]

    # -- numbering

    def _next(self) -> int:
        self._number += 1
        return self._number - 1

    def _event(self, what: str) -> Event:
        return ResponseEvent(type=f"response.{what}", sequence_number=self._next(), response=self.body())

    # -- text

    def _write(self, events: list[Event], text: str) -> None:
        if self._message is None and self._items:
            text = self._blank + text
            if not text.strip():
                self._blank = text
                return
            self._blank = ""
        message = self._message or self._open_message(events)
        logprobs, self._unwritten = self._unwritten, []
        message.text.append(text)
        message.logprobs.extend(logprobs)
        events.append(
            TextDeltaEvent(
                type="response.output_text.delta", sequence_number=self._next(), item_id=message.id,
                output_index=message.index, content_index=0, delta=text, logprobs=logprobs,
            )
        )  # fmt: skip

    def _open_message(self, events: list[Event]) -> _Message:
        message = _Message(index=len(self._items), id=item_id("msg", self._out.id, "o", len(self._items)))
        item = MessageItem(id=message.id, status="in_progress", role="assistant", content=[])
        self._items.append(item)
        self._message = message
        events.append(
            ItemEvent(
                type="response.output_item.added", sequence_number=self._next(), output_index=message.index, item=item
            )
        )
        events.append(
            PartEvent(
                type="response.content_part.added", sequence_number=self._next(), item_id=message.id,
                output_index=message.index, content_index=0, part=OutputText(text=""),
            )
        )  # fmt: skip
        return message

    def _close_message(self, events: list[Event], status: ItemStatus) -> None:
        message, self._message = self._message, None
        if message is None:
            return
        item = _message_item(message, status)
        (part,) = item.content
        assert isinstance(part, OutputText), "a message that is made has one part of text"
        self._items[message.index] = item
        events.append(
            TextDoneEvent(
                type="response.output_text.done", sequence_number=self._next(), item_id=message.id,
                output_index=message.index, content_index=0, text=part.text, logprobs=part.logprobs,
            )
        )  # fmt: skip
        events.append(
            PartEvent(
                type="response.content_part.done", sequence_number=self._next(), item_id=message.id,
                output_index=message.index, content_index=0, part=part,
            )
        )  # fmt: skip
        self._item_done(events, message.index)

    # -- calls

    def _piece(self, events: list[Event], piece: CallPiece) -> None:
        if piece.id is not None and piece.name is not None:
            self._close_message(events, "completed")
            self._close_call(events)
            self._open_call(events, piece.id, piece.name)
        call = self._call
        self._unwritten = []  # what became a call is no text
        assert call is not None, "a call begins with its id and name"
        if piece.arguments:
            call.arguments.append(piece.arguments)
            events.append(
                ArgumentsDeltaEvent(
                    type="response.function_call_arguments.delta", sequence_number=self._next(), item_id=call.id,
                    output_index=call.index, delta=piece.arguments,
                )
            )  # fmt: skip

    def _open_call(self, events: list[Event], call_id: str, name: str) -> None:
        index = len(self._items)
        self._call = _Call(index=index, id=item_id("fc", self._out.id, "o", index), call_id=call_id, name=name)
        item = _call_item(self._call, "in_progress")
        self._items.append(item)
        events.append(
            ItemEvent(type="response.output_item.added", sequence_number=self._next(), output_index=index, item=item)
        )

    def _close_call(self, events: list[Event]) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        item = _call_item(call, "completed")
        self._items[call.index] = item
        events.append(
            ArgumentsDoneEvent(
                type="response.function_call_arguments.done", sequence_number=self._next(), item_id=call.id,
                output_index=call.index, name=call.name, arguments=item.arguments,
            )
        )  # fmt: skip
        self._item_done(events, call.index)

    # -- both

    def _item_done(self, events: list[Event], index: int) -> None:
        events.append(
            ItemEvent(
                type="response.output_item.done", sequence_number=self._next(), output_index=index, item=self._items[index]
            )
        )

    def _complete(self, events: list[Event], *, cut: bool) -> None:
        if not self._items:
            self._open_message(events)  # an empty reply is a message all the same
        self._close_call(events)
        self._close_message(events, "incomplete" if cut else "completed")


def text_of(items: Sequence[Item]) -> str:
    """What a person would read of them, for a preview."""
    texts: list[str] = []
    for item in items:
        match item:
            case MessageItem():
                for part in item.content:
                    match part:
                        case InputFile():
                            texts.append(part.filename or "(file)")
                        case OutputRefusal():
                            texts.append(part.refusal)
                        case _:
                            texts.append(part.text)
            case CallItem():
                texts.append(f"{item.name}({item.arguments})")
            case CallOutputItem():
                texts.append(item.output if isinstance(item.output, str) else "(parts)")
            case _:
                assert_never(item)
    return " ".join(texts)


def preview(text: str) -> str:
    text = " ".join(text[: PREVIEW_LENGTH * 8].split())
    return text if len(text) <= PREVIEW_LENGTH else text[:PREVIEW_LENGTH] + "…"


def _message_item(message: _Message, status: ItemStatus) -> MessageItem:
    part = OutputText(text="".join(message.text), logprobs=list(message.logprobs))
    return MessageItem(id=message.id, status=status, role="assistant", content=[part])


def _call_item(call: _Call, status: ItemStatus) -> CallItem:
    """Arguments that broke off make it incomplete, whoever says what."""
    arguments = "".join(call.arguments)
    if status == "completed" and not _is_object(arguments):
        status = "incomplete"
    return CallItem(id=call.id, status=status, call_id=call.call_id, name=call.name, arguments=arguments)


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputDetails(cached_tokens=usage.cached_tokens),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputDetails(),
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


def _text_out(text: TextIn | None) -> TextOut:
    form = text.format if text is not None else None
    if form is None or form.type != "json_schema":
        return TextOut(format=TextFormatOut(type="text" if form is None else form.type), verbosity="medium")
    return TextOut(
        format=TextFormatOut(
            type=form.type, name=form.name or "", schema=form.schema or {}, description=form.description,
            strict=form.strict is not False,
        ),
        verbosity="medium",
    )  # fmt: skip
