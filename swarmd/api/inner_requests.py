"""What the dialects of OpenAI have in common on the way to the one inner request: sampling, tools, schemas. Pure.

What changes a reply and cannot be honoured is refused by its name in the dialect that was spoken: names come as arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from swarmd.api.bounds import ANY_OBJECT, tools_too_long
from swarmd.api.choices import CHOICES_LIMIT
from swarmd.api.openai_shapes import FunctionIn, SamplingIn
from swarmd.domain.generation import Sampling
from swarmd.domain.refusals import Invalid
from swarmd.domain.structure import Tool, ToolUse

CHAT_MAX_TOKENS: Final = 2048  # contract: swarmllm.md 3.2
CHAT_TEMPERATURE: Final = 0.7  # contract: swarmllm.md 3.2

BIAS_ENTRIES: Final = 300  # the OpenAI contract's own limits
BIAS_LIMIT: Final = 100
TOKEN_DIGITS: Final = 9  # the largest vocabularies have some 260,000 tokens


def unsupported(body: SamplingIn, *, schema_field: str = "response_format") -> Invalid | None:
    if body.n is not None and not 1 <= body.n <= CHOICES_LIMIT:
        return Invalid(what=f"n is {body.n}: 1 to {CHOICES_LIMIT} replies can be asked for", param="n")
    for name in ("grammar", "guided_json", "guided_regex", "guided_choice", "guided_grammar"):
        if getattr(body, name) is not None:
            what = f"{name} is not supported: give a JSON schema as {schema_field}"
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


def first_given(refused: Iterable[tuple[str, bool, str]]) -> Invalid | None:
    """Of fields (name, whether it asks for something, why not) the first that does."""
    for name, given, why in refused:
        if given:
            return Invalid(what=f"{name} cannot be honoured, {why}: leave it out", param=name)
    return None


def tools_of(given: Iterable[tuple[str, FunctionIn | None]], *, name_path: str) -> tuple[Tool, ...] | Invalid:
    """Of tools as (type, function). `name_path`: where in a tool its name stands, as `.function.name`."""
    tools: list[Tool] = []
    for number, (kind, function) in enumerate(given):
        if kind != "function" or function is None:
            what = f"a tool of type {kind[:40]!r} cannot be called here: tools are of type function"
            return Invalid(what=what, param=f"tools[{number}]")
        if any(tool.name == function.name for tool in tools):
            return Invalid(what=f"two tools are named {function.name}", param=f"tools[{number}]{name_path}")
        tools.append(
            Tool(
                name=function.name,
                description=function.description or "",
                parameters=ANY_OBJECT if function.parameters is None else json.dumps(function.parameters),
                strict=bool(function.strict),
            )
        )
    return tools_too_long(tools, "tools") or tuple(tools)


def tool_use(
    choice: str | None, tools: Sequence[Tool], *, named: str | None = None
) -> tuple[ToolUse, str | None] | Invalid:
    """And the one tool that must be called. `named`: the function that a choice of type function names."""
    if named is not None:
        if all(tool.name != named for tool in tools):
            return Invalid(what=f"tool_choice names {named[:64]!r}, which is none of the tools", param="tool_choice")
        return ToolUse.REQUIRED, named
    if choice is None or choice in ("auto", "none"):
        return (ToolUse.NONE if choice == "none" else ToolUse.AUTO), None
    if choice == "required":
        if not tools:
            return Invalid(what="tool_choice is required and there are no tools", param="tool_choice")
        return ToolUse.REQUIRED, None
    return no_choice(choice)


def no_choice(shown: str) -> Invalid:
    what = f"tool_choice can be none, auto, required or one function, not {shown[:40]!r}"
    return Invalid(what=what, param="tool_choice")


def schema_of(kind: str, schema: dict[str, Any] | None, *, field: str, place: str) -> str | Invalid | None:
    """JSON text of the schema that a format of type `kind` asks for. `field`: the format's name; `place`: of its schema."""
    if kind == "text":
        return None
    if kind == "json_object":
        return ANY_OBJECT
    if kind != "json_schema":
        return Invalid(what=f"{field} can be text, json_object or json_schema, not {kind[:40]!r}", param=field)
    if schema is None:
        return Invalid(what=f"{field} of type json_schema needs {place}", param=field)
    return json.dumps(schema)


def stop_texts(body: SamplingIn) -> tuple[str, ...]:
    if body.stop is None:
        return ()
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)


def sampling(body: SamplingIn, *, temperature: float, fresh_seed: int, top_logprobs: int | None) -> Sampling:
    """`temperature` and `fresh_seed`: used when the client gives none."""
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
