"""From a body of `/v1` to the one inner request. Pure.

What the contract has and this node has not is refused with a reason rather than ignored: a reply that silently is not what
was asked for is worse than none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, cast

from swarmd.api.bounds import ANY_OBJECT, clamped, size_of, too_long, tools_too_long
from swarmd.api.choices import CHOICES_LIMIT
from swarmd.api.openai_shapes import (
    ChatRequest,
    CompletionRequest,
    ContentPart,
    MessageIn,
    ResponseFormat,
    SamplingIn,
)
from swarmd.domain.generation import ChatMessage, GenerationRequest, Sampling
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.refusals import Invalid
from swarmd.domain.structure import Tool, ToolCall, ToolUse

CHAT_MAX_TOKENS: Final = 2048  # contract: swarmllm.md 3.2
COMPLETION_MAX_TOKENS: Final = 16  # the OpenAI contract's own default for /v1/completions
CHAT_TEMPERATURE: Final = 0.7  # contract: swarmllm.md 3.2
COMPLETION_TEMPERATURE: Final = 1.0  # the OpenAI contract's own default

BIAS_ENTRIES: Final = 300  # the OpenAI contract's own limits
BIAS_LIMIT: Final = 100
TOKEN_DIGITS: Final = 9  # the largest vocabularies have some 260,000 tokens
PROMPT_TOKENS: Final = 1024 * 1024  # as many as inference.context_tokens may be


def chat_request(body: ChatRequest, *, request: RequestId, model: ModelId, fresh_seed: int) -> GenerationRequest | Invalid:
    """`fresh_seed`: used when the client gives none."""
    refusal = _unsupported(body) or _unsupported_chat(body)
    if refusal is not None:
        return refusal
    messages: list[ChatMessage] = []
    for number, one in enumerate(body.messages):
        message = _message(one, f"messages[{number}]")
        if isinstance(message, Invalid):
            return message
        messages.append(message)
    if (refusal := too_long(size_of(messages), "messages")) is not None:
        return refusal
    tools = _tools(body)
    if isinstance(tools, Invalid):
        return tools
    if (refusal := tools_too_long(tools, "tools")) is not None:
        return refusal
    use = _tool_use(body, tools)
    if isinstance(use, Invalid):
        return use
    schema = _schema(body.response_format)
    if isinstance(schema, Invalid):
        return schema
    wanted = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return GenerationRequest(
        request=request,
        model=model,
        messages=tuple(messages),
        tools=tools,
        tool_use=use[0],
        tool_named=use[1],
        several_calls=body.parallel_tool_calls is not False,
        schema=schema,
        max_tokens=clamped(wanted, CHAT_MAX_TOKENS),
        stop=_stop(body),
        sampling=_sampling(body, temperature=CHAT_TEMPERATURE, fresh_seed=fresh_seed, top_logprobs=logprobs),
    )


def completion_request(
    body: CompletionRequest, *, request: RequestId, model: ModelId, fresh_seed: int
) -> GenerationRequest | Invalid:
    """`fresh_seed`: used when the client gives none."""
    refusal = _unsupported(body) or _unsupported_completion(body)
    if refusal is not None:
        return refusal
    prompt = _prompt(body.prompt)
    if isinstance(prompt, Invalid):
        return prompt
    if isinstance(prompt, str) and (refusal := too_long(len(prompt.encode()), "prompt")) is not None:
        return refusal
    return GenerationRequest(
        request=request,
        model=model,
        prompt=prompt if isinstance(prompt, str) else None,
        prompt_tokens=None if isinstance(prompt, str) else prompt,
        max_tokens=clamped(body.max_tokens, COMPLETION_MAX_TOKENS),
        stop=_stop(body),
        sampling=_sampling(body, temperature=COMPLETION_TEMPERATURE, fresh_seed=fresh_seed, top_logprobs=body.logprobs),
    )


def choices(body: SamplingIn) -> int:
    """Replies that are wanted. The body has been accepted."""
    return body.n or 1


def _unsupported(body: SamplingIn) -> Invalid | None:
    if body.n is not None and not 1 <= body.n <= CHOICES_LIMIT:
        return Invalid(what=f"n is {body.n}: 1 to {CHOICES_LIMIT} replies can be asked for", param="n")
    for name in ("grammar", "guided_json", "guided_regex", "guided_choice", "guided_grammar"):
        if getattr(body, name) is not None:
            what = f"{name} is not supported: give a JSON schema as response_format"
            return Invalid(what=what, param=name)
    return _bias_fault(body.logit_bias or {})


def _bias_fault(bias: dict[str, float]) -> Invalid | None:
    if len(bias) > BIAS_ENTRIES:
        what = f"logit_bias has {len(bias)} entries, at most {BIAS_ENTRIES} are taken"
        return Invalid(what=what, param="logit_bias")
    for token, value in bias.items():
        if not (token.isascii() and token.isdigit() and len(token) <= TOKEN_DIGITS):
            return Invalid(what=f"logit_bias names {token[:40]!r}: its keys are token ids", param="logit_bias")
        if not -BIAS_LIMIT <= value <= BIAS_LIMIT:
            what = f"logit_bias of token {token} is {value}: {-BIAS_LIMIT} to {BIAS_LIMIT} are allowed"
            return Invalid(what=what, param="logit_bias")
    return None


def _unsupported_chat(body: ChatRequest) -> Invalid | None:
    if body.functions or body.function_call is not None:
        param = "functions" if body.functions else "function_call"
        return Invalid(what=f"{param} is what tools were before: send tools and tool_choice", param=param)
    if body.top_logprobs is not None and not body.logprobs:
        return Invalid(what="top_logprobs needs logprobs: true", param="top_logprobs")
    refused: tuple[tuple[str, bool, str], ...] = (
        ("audio", body.audio is not None, "replies are text"),
        ("modalities", body.modalities not in (None, [], ["text"]), "replies are text"),
        ("prediction", body.prediction is not None, "this node guesses by itself where text repeats"),
        ("reasoning_effort", body.reasoning_effort is not None, "how long a model thinks is up to the model here"),
        ("verbosity", body.verbosity not in (None, "medium"), "say in the prompt how long the reply should be"),
        ("service_tier", body.service_tier not in (None, "auto", "default"), "there is one tier here"),
        ("store", bool(body.store), "nothing is stored here"),
        ("web_search_options", body.web_search_options is not None, "this node does not search the web"),
    )
    for name, given, why in refused:
        if given:
            return Invalid(what=f"{name} cannot be honoured, {why}: leave it out", param=name)
    return None


def _schema(form: ResponseFormat | None) -> str | Invalid | None:
    """JSON schema, as JSON text."""
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return ANY_OBJECT
    if form.type != "json_schema":
        what = f"response_format can be text, json_object or json_schema, not {form.type[:40]!r}"
        return Invalid(what=what, param="response_format")
    if form.json_schema is None or form.json_schema.schema is None:
        return Invalid(what="response_format of type json_schema needs json_schema.schema", param="response_format")
    return json.dumps(form.json_schema.schema)


def _tools(body: ChatRequest) -> tuple[Tool, ...] | Invalid:
    tools: list[Tool] = []
    for number, one in enumerate(body.tools or ()):
        function = one.function
        if one.type != "function" or function is None:
            what = f"a tool of type {one.type[:40]!r} cannot be called here: tools are of type function"
            return Invalid(what=what, param=f"tools[{number}]")
        if any(tool.name == function.name for tool in tools):
            return Invalid(what=f"two tools are named {function.name}", param=f"tools[{number}].function.name")
        tools.append(
            Tool(
                name=function.name,
                description=function.description or "",
                parameters=ANY_OBJECT if function.parameters is None else json.dumps(function.parameters),
                strict=bool(function.strict),
            )
        )
    return tuple(tools)


def _tool_use(body: ChatRequest, tools: Sequence[Tool]) -> tuple[ToolUse, str | None] | Invalid:
    """And the one tool that must be called."""
    choice = body.tool_choice
    if choice is None or choice in ("auto", "none"):
        return (ToolUse.NONE if choice == "none" else ToolUse.AUTO), None
    if choice == "required":
        if not tools:
            return Invalid(what="tool_choice is required and there are no tools", param="tool_choice")
        return ToolUse.REQUIRED, None
    if isinstance(choice, str) or choice.type != "function" or choice.function is None:
        shown = choice if isinstance(choice, str) else choice.type
        what = f"tool_choice can be none, auto, required or one function, not {shown[:40]!r}"
        return Invalid(what=what, param="tool_choice")
    name = choice.function.name
    if all(tool.name != name for tool in tools):
        return Invalid(what=f"tool_choice names {name[:64]!r}, which is none of the tools", param="tool_choice")
    return ToolUse.REQUIRED, name


def _unsupported_completion(body: CompletionRequest) -> Invalid | None:
    if body.suffix:
        return Invalid(what="suffix is not supported: leave it out", param="suffix")
    if body.echo:
        return Invalid(what="echo is not supported: the prompt is yours already", param="echo")
    if body.best_of is not None and body.best_of != (body.n or 1):
        return Invalid(what=f"best_of is {body.best_of}: all replies are given, so it can only be n", param="best_of")
    return None


def _message(message: MessageIn, where: str) -> ChatMessage | Invalid:
    if message.function_call is not None:
        return Invalid(what="function_call is what tool_calls were before", param=f"{where}.function_call")
    if message.tool_calls and message.role != "assistant":
        return Invalid(what=f"a message of role {message.role} calls no tools", param=f"{where}.tool_calls")
    if message.role == "tool" and message.tool_call_id is None:
        return Invalid(what="a tool message says which call it answers", param=f"{where}.tool_call_id")
    role = "system" if message.role == "developer" else message.role
    content = message.content
    if isinstance(content, list):
        content = _joined(content, where)
        if isinstance(content, Invalid):
            return content
    calls = tuple(
        ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments or "{}")
        for call in message.tool_calls or ()
    )
    call_id = message.tool_call_id if message.role == "tool" else None
    return ChatMessage(role=role, content=content or "", calls=calls, call_id=call_id, name=message.name)


def _joined(parts: list[ContentPart], where: str) -> str | Invalid:
    for number, part in enumerate(parts):
        if part.type != "text" or part.text is None:
            what = f"a content part of type {part.type[:40]!r} cannot be read: this node takes text parts only"
            return Invalid(what=what, param=f"{where}.content[{number}]")
    return "\n".join(part.text or "" for part in parts)


def _prompt(prompt: str | list[Any]) -> str | tuple[int, ...] | Invalid:
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and isinstance(prompt[0], list):
        prompt = cast("list[Any]", prompt[0])
    if len(prompt) == 1 and isinstance(prompt[0], str):
        return prompt[0]
    if prompt and all(type(token) is int for token in prompt):
        if len(prompt) > PROMPT_TOKENS:
            return Invalid(what=f"prompt has {len(prompt)} tokens, at most {PROMPT_TOKENS} are taken", param="prompt")
        return tuple(prompt)
    return Invalid(what="prompt must be one text or the token ids of one: ask several times for several", param="prompt")


def _stop(body: SamplingIn) -> tuple[str, ...]:
    if body.stop is None:
        return ()
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)


def _sampling(body: SamplingIn, *, temperature: float, fresh_seed: int, top_logprobs: int | None) -> Sampling:
    off = Sampling()
    return Sampling(
        temperature=temperature if body.temperature is None else body.temperature,
        top_p=off.top_p if body.top_p is None else body.top_p,
        top_k=off.top_k if body.top_k is None else body.top_k,
        min_p=off.min_p if body.min_p is None else body.min_p,
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        repeat_penalty=off.repeat_penalty if body.repeat_penalty is None else body.repeat_penalty,
        seed=fresh_seed if body.seed is None else body.seed,
        top_logprobs=top_logprobs,
        logit_bias=tuple((int(token), bias) for token, bias in (body.logit_bias or {}).items()),
    )
