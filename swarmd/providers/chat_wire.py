"""The inner request as a body of `/chat/completions`, and its events as pieces. Pure.

A temperature that is the node's own default is left out: most clients give none, and then the provider's default is what its
users expect; the newest models refuse any other.
"""

from __future__ import annotations

import json
from typing import Any, Final, cast

from swarmd.domain.generation import ChatMessage, Finish, GenerationRequest, Logprob, Sampling
from swarmd.domain.refusals import Invalid
from swarmd.domain.structure import CallPiece, ToolUse
from swarmd.providers.known import NEWER_OPENAI
from swarmd.providers.loose import as_count, as_dict, as_list, as_text, parsed
from swarmd.providers.reply import Piece
from swarmd.providers.roster import Ready

ANY_OBJECT: Final = {"type": "object"}
SEED_BITS: Final = 31  # as many as every provider takes
CALLS_LIMIT: Final = 128  # of one reply, as many as there may be tools
NO_ID: Final = -1
"""Token ids are not told over this wire."""

FINISHES: Final = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "tool_calls": Finish.TOOL_CALLS,
    "function_call": Finish.TOOL_CALLS,
    "content_filter": Finish.STOP,
}
"""Others, such as `eos`, are names for a reply that ended by itself."""


class WireFault(Exception):
    """An event that is none of this dialect. The message is a clause for people."""


class WireError(Exception):
    """The provider says in its stream that it cannot go on. `body`: as that of an error reply."""

    def __init__(self, body: bytes) -> None:
        super().__init__("an error in the stream")
        self.body = body


def chat_body(provider: Ready, request: GenerationRequest) -> dict[str, Any] | Invalid:
    """Streamed, always. What cannot be said over this wire is refused by name."""
    if not request.messages:
        return Invalid(what=f"provider {provider.name} takes conversations here, not a prompt as it is", param="prompt")
    sampling, known = request.sampling, provider.known
    thinks = provider.name == "openai" and request.model.startswith(NEWER_OPENAI)
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        known.limit_field: request.max_tokens,
    }
    if known.usage_option:
        body["stream_options"] = {"include_usage": True}
    if request.stop and not thinks:
        body["stop"] = list(request.stop)
    if not thinks:
        body |= _sampling(sampling, custom=provider.custom)
        body[known.seed_field] = sampling.seed & ((1 << SEED_BITS) - 1)
    if request.tools:
        body["tools"] = [_tool(tool.name, tool.description, tool.parameters, tool.strict) for tool in request.tools]
        body["tool_choice"] = _choice(request)
        if not request.several_calls:
            body["parallel_tool_calls"] = False
    if request.schema is not None:
        schema = json.loads(request.schema)
        body["response_format"] = (
            {"type": "json_object"}
            if schema == ANY_OBJECT
            else {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}}
        )
    return body


class ChatReader:
    """Of one reply. Calls are numbered anew: servers count them in ways of their own, from 1, all as 0, or not at all."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._ids: list[str] = []

    def piece_of(self, data: bytes) -> Piece:
        """Of the data of one event. Raises WireFault, WireError."""
        if data.strip() == b"[DONE]":
            return Piece(ended=True)
        event = parsed(data)
        if not isinstance(event, dict):
            raise WireFault("sends events that are no JSON objects")
        fields = as_dict(cast("Any", event))
        if fields.get("error"):
            raise WireError(data)
        choice = as_dict(next(iter(as_list(fields.get("choices"))), None))
        delta = as_dict(choice.get("delta")) or as_dict(choice.get("message"))
        reason = as_text(choice.get("finish_reason"))
        usage = (
            as_dict(fields.get("usage"))
            or as_dict(as_dict(fields.get("x_groq")).get("usage"))
            or as_dict(choice.get("usage"))  # Moonshot's place for it
        )
        calls = [self._call(number, as_dict(one)) for number, one in enumerate(as_list(delta.get("tool_calls")))]
        return Piece(
            text=_text(delta.get("content")),
            calls=tuple(calls),
            logprobs=_logprobs(choice.get("logprobs")),
            finish=FINISHES.get(reason, Finish.STOP) if reason else None,
            prompt_tokens=as_count(usage.get("prompt_tokens")),
            completion_tokens=as_count(usage.get("completion_tokens")),
            cached_tokens=as_count(as_dict(usage.get("prompt_tokens_details")).get("cached_tokens")),
        )

    def _call(self, place: int, call: dict[str, Any]) -> CallPiece:
        function = as_dict(call.get("function"))
        given, name, id = call.get("index"), as_text(function.get("name")), as_text(call.get("id"))
        index = given if type(given) is int else place
        number = self._numbers.get(index)
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments) if arguments else ""
        if number is not None and (not id or id == self._ids[number]):
            return CallPiece(index=number, arguments=text)
        if not name:
            raise WireFault("sends a call of a tool without a name")
        if len(self._ids) >= CALLS_LIMIT:
            raise WireFault("sends calls of tools without end")
        number = self._numbers[index] = len(self._ids)
        self._ids.append(id or f"call_{number}")
        return CallPiece(index=number, id=self._ids[number], name=name, arguments=text)


def _message(message: ChatMessage) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        shown["name"] = message.name
    if message.calls:
        shown["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.calls
        ]
        if not message.content:
            shown["content"] = None
    if message.call_id is not None:
        shown["tool_call_id"] = message.call_id
    return shown


def _tool(name: str, description: str, parameters: str, strict: bool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name, "description": description, "parameters": json.loads(parameters)}
    if strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _choice(request: GenerationRequest) -> str | dict[str, Any]:
    if request.tool_use is ToolUse.REQUIRED and request.tool_named is not None:
        return {"type": "function", "function": {"name": request.tool_named}}
    return request.tool_use.value


def _sampling(sampling: Sampling, *, custom: bool) -> dict[str, Any]:
    """What differs from "off": strict providers refuse fields that they do not know, so none goes without need."""
    off = Sampling()
    shown: dict[str, Any] = {
        name: value
        for name in ("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty")
        if (value := getattr(sampling, name)) != getattr(off, name)
    }
    if sampling.repeat_penalty != off.repeat_penalty:
        shown["repetition_penalty"] = sampling.repeat_penalty
        if custom:
            shown["repeat_penalty"] = sampling.repeat_penalty  # llama.cpp's server has it under this name
    if sampling.logit_bias:
        shown["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    if sampling.top_logprobs is not None:
        shown["logprobs"] = True
        if sampling.top_logprobs:
            shown["top_logprobs"] = sampling.top_logprobs
    return shown


def _logprobs(given: Any) -> tuple[tuple[Logprob, tuple[Logprob, ...]], ...]:
    return tuple(
        (_logprob(one), tuple(_logprob(other) for other in as_list(as_dict(one).get("top_logprobs"))))
        for one in as_list(as_dict(given).get("content"))
    )


def _logprob(given: Any) -> Logprob:
    one = as_dict(given)
    value = one.get("logprob")
    # JSON knows integers that no float holds.
    logprob = float(value) if isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**53) else 0.0
    return Logprob(token=NO_ID, text=as_text(one.get("token")), logprob=logprob)


def _text(given: Any) -> str:
    """Mistral's models that think send lists of parts; what they think is none of the reply."""
    if isinstance(given, str):
        return given
    return "".join(as_text(as_dict(part).get("text")) for part in as_list(given) if as_dict(part).get("type") == "text")
