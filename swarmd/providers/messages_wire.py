"""The inner request as a body of Anthropic's `/v1/messages`, and its events as pieces. Pure.

A temperature that is the node's own default is left out, as in `chat_wire`.
"""

from __future__ import annotations

import json
from typing import Any, Final, cast

from swarmd.domain.generation import ChatMessage, Finish, GenerationRequest, Sampling
from swarmd.domain.refusals import Invalid
from swarmd.domain.structure import CallPiece, ToolUse
from swarmd.providers.chat_wire import ANY_OBJECT, CALLS_LIMIT, WireError, WireFault
from swarmd.providers.loose import as_count, as_dict, as_text, parsed
from swarmd.providers.reply import Piece

VERSION: Final = "2023-06-01"  # of Anthropic's API; the only one there is

FINISHES: Final = {
    "max_tokens": Finish.LENGTH,
    "model_context_window_exceeded": Finish.LENGTH,
    "tool_use": Finish.TOOL_CALLS,
}
"""Others, `end_turn` and `stop_sequence` above all, are ends by itself."""


def messages_body(request: GenerationRequest) -> dict[str, Any] | Invalid:
    """Streamed, always. What cannot be said over this wire is refused by name."""
    if (refusal := _unsupported(request)) is not None:
        return refusal
    turns = _turns(request.messages)
    if isinstance(turns, Invalid):
        return turns
    sampling, off = request.sampling, Sampling()
    body: dict[str, Any] = {
        "model": request.model, "max_tokens": request.max_tokens, "messages": turns, "stream": True,
    }  # fmt: skip
    system = "\n\n".join(message.content for message in request.messages if message.role == "system" and message.content)
    if system:
        body["system"] = system
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if sampling.temperature != off.temperature:
        body["temperature"] = min(sampling.temperature, 1.0)  # as far as it goes there
    if sampling.top_p != off.top_p:
        body["top_p"] = sampling.top_p
    if sampling.top_k != off.top_k:
        body["top_k"] = sampling.top_k
    if request.tools:
        body["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": json.loads(tool.parameters)}
            for tool in request.tools
        ]
        body["tool_choice"] = _choice(request)
    if request.schema is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": json.loads(request.schema)}}
    return body


class MessagesReader:
    """Blocks have indices of their own, in which text and calls are counted together; calls are counted apart here."""

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}
        self.spoke = False
        """There was text, or a call."""

    def piece_of(self, data: bytes) -> Piece:
        """Of the data of one event. Raises WireFault, WireError."""
        event = parsed(data)
        if not isinstance(event, dict):
            raise WireFault("sends events that are no JSON objects")
        return self.piece(as_dict(cast("Any", event)))

    def piece(self, event: dict[str, Any]) -> Piece:
        """Raises WireFault, WireError."""
        match event.get("type"):
            case "message_start":
                usage = as_dict(as_dict(event.get("message")).get("usage"))
                cached = as_count(usage.get("cache_read_input_tokens"))
                made = as_count(usage.get("cache_creation_input_tokens"))
                fresh = as_count(usage.get("input_tokens"))
                prompt = None if fresh is None else fresh + (cached or 0) + (made or 0)
                return Piece(prompt_tokens=prompt, cached_tokens=cached)
            case "content_block_start":
                return self._started(event.get("index"), as_dict(event.get("content_block")))
            case "content_block_delta":
                return self._more(event.get("index"), as_dict(event.get("delta")))
            case "message_delta":
                reason = as_dict(event.get("delta")).get("stop_reason")
                return Piece(
                    finish=FINISHES.get(reason, Finish.STOP) if isinstance(reason, str) else None,
                    completion_tokens=as_count(as_dict(event.get("usage")).get("output_tokens")),
                )
            case "message_stop":
                return Piece(ended=True)
            case "error":
                raise WireError(json.dumps(event).encode())
            case _:
                return Piece()  # ping, the end of a block, and what comes later

    def _started(self, index: Any, block: dict[str, Any]) -> Piece:
        if block.get("type") == "text" and (text := as_text(block.get("text"))):
            self.spoke = True
            return Piece(text=text)
        if block.get("type") != "tool_use" or type(index) is not int:
            return Piece()
        if len(self._calls) >= CALLS_LIMIT:
            raise WireFault("sends calls of tools without end")
        self.spoke = True
        number = self._calls[index] = len(self._calls)
        given = block.get("input")
        return Piece(
            calls=(
                CallPiece(
                    index=number, id=str(block.get("id")), name=str(block.get("name")),
                    arguments=json.dumps(given) if given else "",
                ),
            )
        )  # fmt: skip

    def _more(self, index: Any, delta: dict[str, Any]) -> Piece:
        text, arguments = delta.get("text"), delta.get("partial_json")
        if delta.get("type") == "text_delta" and isinstance(text, str):
            self.spoke = self.spoke or bool(text)
            return Piece(text=text)
        number = self._calls.get(index) if type(index) is int else None
        if delta.get("type") == "input_json_delta" and isinstance(arguments, str) and number is not None:
            return Piece(calls=(CallPiece(index=number, arguments=arguments),)) if arguments else Piece()
        return Piece()


def _unsupported(request: GenerationRequest) -> Invalid | None:
    sampling, off = request.sampling, Sampling()
    refused = (
        ("prompt", not request.messages, "it takes conversations, not a prompt as it is"),
        ("logprobs", sampling.top_logprobs is not None, "it tells no logprobs"),
        ("logit_bias", bool(sampling.logit_bias), "tokens cannot be favoured there"),
        ("frequency_penalty", sampling.frequency_penalty != off.frequency_penalty, "it has no penalties"),
        ("presence_penalty", sampling.presence_penalty != off.presence_penalty, "it has no penalties"),
        ("repeat_penalty", sampling.repeat_penalty != off.repeat_penalty, "it has no penalties"),
        ("min_p", sampling.min_p != off.min_p, "it has no min_p"),
        (
            "response_format", request.schema is not None and json.loads(request.schema) == ANY_OBJECT,
            "it needs the schema of the JSON that is wanted",
        ),
    )  # fmt: skip
    for param, given, why in refused:
        if given:
            return Invalid(what=f"{param} cannot be honoured by provider anthropic, {why}: leave it out", param=param)
    return None


def _turns(messages: tuple[ChatMessage, ...]) -> list[dict[str, Any]] | Invalid:
    """User and assistant by turns, as that API wants it; results of tools are the user's."""
    turns: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        if message.role == "system":
            continue
        blocks = _blocks(message)
        if blocks is None:
            what = f"messages[{number}] has a call whose arguments are no JSON object"
            return Invalid(what=what, param=f"messages[{number}].tool_calls")
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns:
        return Invalid(what="provider anthropic answers users: messages has no message of one", param="messages")
    return turns


def _blocks(message: ChatMessage) -> list[dict[str, Any]] | None:
    if message.call_id is not None:
        return [{"type": "tool_result", "tool_use_id": message.call_id, "content": message.content}]
    blocks: list[dict[str, Any]] = [{"type": "text", "text": message.content}] if message.content.strip() else []
    for call in message.calls:
        given = parsed((call.arguments or "{}").encode())
        if not isinstance(given, dict):
            return None
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": given})
    return blocks


def _choice(request: GenerationRequest) -> dict[str, Any]:
    choice: dict[str, Any]
    match request.tool_use:
        case ToolUse.NONE:
            return {"type": "none"}
        case ToolUse.AUTO:
            choice = {"type": "auto"}
        case ToolUse.REQUIRED if request.tool_named is not None:
            choice = {"type": "tool", "name": request.tool_named}
        case ToolUse.REQUIRED:
            choice = {"type": "any"}
    return choice if request.several_calls else {**choice, "disable_parallel_tool_use": True}
