"""From a body of `/v1` to the one inner request. Pure.

What the contract has and this node has not is refused with a reason rather than ignored: a reply that silently is not what
was asked for is worse than none.
"""

from __future__ import annotations

from typing import Any, Final, cast

from swarmd.api.bounds import clamped, size_of, too_long
from swarmd.api.inner_requests import (
    CHAT_MAX_TOKENS,
    CHAT_TEMPERATURE,
    first_given,
    no_choice,
    sampling,
    schema_of,
    stop_texts,
    tool_use,
    tools_of,
    unsupported,
)
from swarmd.api.openai_shapes import ChatRequest, CompletionRequest, ContentPart, MessageIn, SamplingIn
from swarmd.domain.generation import ChatMessage, GenerationRequest
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.refusals import Invalid
from swarmd.domain.structure import Tool, ToolCall, ToolUse

COMPLETION_MAX_TOKENS: Final = 16  # the OpenAI contract's own default for /v1/completions
COMPLETION_TEMPERATURE: Final = 1.0  # the OpenAI contract's own default

PROMPT_TOKENS: Final = 1024 * 1024  # as many as inference.context_tokens may be


def chat_request(body: ChatRequest, *, request: RequestId, model: ModelId, fresh_seed: int) -> GenerationRequest | Invalid:
    """`fresh_seed`: used when the client gives none."""
    refusal = unsupported(body) or _unsupported_chat(body)
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
    tools = tools_of([(one.type, one.function) for one in body.tools or ()], name_path=".function.name")
    if isinstance(tools, Invalid):
        return tools
    use = _tool_use(body, tools)
    if isinstance(use, Invalid):
        return use
    form = body.response_format
    schema = None if form is None else schema_of(
        form.type, form.json_schema.schema if form.json_schema is not None else None, field="response_format",
        place="json_schema.schema",
    )  # fmt: skip
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
        stop=stop_texts(body),
        sampling=sampling(body, temperature=CHAT_TEMPERATURE, fresh_seed=fresh_seed, top_logprobs=logprobs),
    )


def completion_request(
    body: CompletionRequest, *, request: RequestId, model: ModelId, fresh_seed: int
) -> GenerationRequest | Invalid:
    """`fresh_seed`: used when the client gives none."""
    refusal = unsupported(body) or _unsupported_completion(body)
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
        stop=stop_texts(body),
        sampling=sampling(body, temperature=COMPLETION_TEMPERATURE, fresh_seed=fresh_seed, top_logprobs=body.logprobs),
    )


def choices(body: SamplingIn) -> int:
    """Replies that are wanted. The body has been accepted."""
    return body.n or 1


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
    return first_given(refused)


def _tool_use(body: ChatRequest, tools: tuple[Tool, ...]) -> tuple[ToolUse, str | None] | Invalid:
    choice = body.tool_choice
    if choice is None or isinstance(choice, str):
        return tool_use(choice, tools)
    if choice.type != "function" or choice.function is None:
        return no_choice(choice.type)
    return tool_use(None, tools, named=choice.function.name)


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


