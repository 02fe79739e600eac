"""From a body of `/v1` to the one inner request. Pure.

What the contract has and this node has not is refused with a reason rather than ignored: a reply that silently is not what
was asked for is worse than none.
"""

from __future__ import annotations

from typing import Any, Final, cast

from swarmd.api.openai_shapes import ChatRequest, CompletionRequest, ContentPart, MessageIn, SamplingIn
from swarmd.domain.generation import ChatMessage, GenerationRequest, Sampling
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.refusals import Invalid

PROMPT_LIMIT_BYTES: Final = 4 * 1024 * 1024  # contract: swarmllm.md 3.2
MAX_TOKENS_LIMIT: Final = 32_768  # contract: swarmllm.md 3.2; more is clamped, not refused
CHAT_MAX_TOKENS: Final = 2048  # contract: swarmllm.md 3.2
COMPLETION_MAX_TOKENS: Final = 16  # the OpenAI contract's own default for /v1/completions
CHAT_TEMPERATURE: Final = 0.7  # contract: swarmllm.md 3.2
COMPLETION_TEMPERATURE: Final = 1.0  # the OpenAI contract's own default


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
    if (refusal := _too_long(sum(len(one.content.encode()) for one in messages), "messages")) is not None:
        return refusal
    wanted = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return GenerationRequest(
        request=request,
        model=model,
        messages=tuple(messages),
        max_tokens=_clamped(wanted, CHAT_MAX_TOKENS),
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
    if (refusal := _too_long(len(prompt.encode()), "prompt")) is not None:
        return refusal
    return GenerationRequest(
        request=request,
        model=model,
        prompt=prompt,
        max_tokens=_clamped(body.max_tokens, COMPLETION_MAX_TOKENS),
        stop=_stop(body),
        sampling=_sampling(body, temperature=COMPLETION_TEMPERATURE, fresh_seed=fresh_seed, top_logprobs=body.logprobs),
    )


def _unsupported(body: SamplingIn) -> Invalid | None:
    if body.n is not None and body.n != 1:
        return Invalid(what=f"n must be 1, not {body.n}: ask several times for several replies", param="n")
    if body.logit_bias:
        return Invalid(what="logit_bias is not supported: leave it out", param="logit_bias")
    return None


def _unsupported_chat(body: ChatRequest) -> Invalid | None:
    if body.functions or (body.tools and body.tool_choice != "none"):
        param = "tools" if body.tools else "functions"
        return Invalid(what="this node cannot call tools yet: leave tools out, or send tool_choice none", param=param)
    if body.top_logprobs is not None and not body.logprobs:
        return Invalid(what="top_logprobs needs logprobs: true", param="top_logprobs")
    kind: Any = body.response_format
    if isinstance(kind, dict):
        kind = cast("dict[str, Any]", kind).get("type")
    if kind not in (None, "text"):
        what = "response_format can only be text: this node cannot hold a reply to a grammar yet"
        return Invalid(what=what, param="response_format")
    return None


def _unsupported_completion(body: CompletionRequest) -> Invalid | None:
    if body.suffix:
        return Invalid(what="suffix is not supported: leave it out", param="suffix")
    if body.echo:
        return Invalid(what="echo is not supported: the prompt is yours already", param="echo")
    if body.best_of is not None and body.best_of != 1:
        return Invalid(what=f"best_of must be 1, not {body.best_of}", param="best_of")
    return None


def _message(message: MessageIn, where: str) -> ChatMessage | Invalid:
    if message.tool_calls:
        return Invalid(what="this node cannot show tool calls to a model yet", param=f"{where}.tool_calls")
    role = "system" if message.role == "developer" else message.role
    content = message.content
    if isinstance(content, list):
        content = _joined(content, where)
        if isinstance(content, Invalid):
            return content
    return ChatMessage(role=role, content=content or "")


def _joined(parts: list[ContentPart], where: str) -> str | Invalid:
    for number, part in enumerate(parts):
        if part.type != "text" or part.text is None:
            what = f"a content part of type {part.type[:40]!r} cannot be read: this node takes text parts only"
            return Invalid(what=what, param=f"{where}.content[{number}]")
    return "\n".join(part.text or "" for part in parts)


def _prompt(prompt: str | list[Any]) -> str | Invalid:
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and isinstance(prompt[0], str):
        return prompt[0]
    return Invalid(what="prompt must be one text: neither several nor token numbers are supported", param="prompt")


def _too_long(size_bytes: int, param: str) -> Invalid | None:
    if size_bytes <= PROMPT_LIMIT_BYTES:
        return None
    return Invalid(what=f"the prompt has {size_bytes} bytes, at most {PROMPT_LIMIT_BYTES} are taken", param=param)


def _clamped(wanted: int | None, default: int) -> int:
    return default if wanted is None else min(max(wanted, 1), MAX_TOKENS_LIMIT)


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
    )
