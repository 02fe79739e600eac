"""What a reply may be made to look like: tools a model may call, calls it made, and the grammar that holds it to either."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function of the client's that a model may call."""

    name: str
    description: str = ""
    parameters: str = '{"type": "object"}'
    """JSON schema of the arguments, as JSON text."""
    strict: bool = False
    """Arguments must satisfy the schema, also where the model decides by itself whether to call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that an assistant message of the conversation has."""

    id: str
    name: str
    arguments: str
    """JSON text of an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPiece:
    """A part of a call that the model is making: `id` and `name` with the first one, then more of the arguments."""

    index: int
    """Of the call within the reply, from 0."""
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    """JSON text that continues what came before."""


class ToolUse(Enum):
    """Whether the model calls a tool."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


class CallForm(Enum):
    """How models write their calls: each was trained on one of these."""

    HERMES = "hermes"
    """`<tool_call>{"name": .., "arguments": ..}</tool_call>`, Qwen as well."""
    LLAMA = "llama"
    """`{"name": .., "parameters": ..}` as the whole reply, or behind `<|python_tag|>`."""
    MISTRAL = "mistral"
    """`[TOOL_CALLS][{"name": .., "arguments": ..}]`."""
    MISTRAL_ARGS = "mistral_args"
    """`[TOOL_CALLS]name[ARGS]{..}`, newer models of that family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRule:
    name: str
    schema: str
    """JSON text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """What the whole reply must be: JSON of a schema, calls, or with `free` any text in which calls are well formed."""

    schema: str | None = None
    """JSON text."""
    calls: tuple[CallRule, ...] = ()
    form: CallForm = CallForm.HERMES
    many: bool = True
    """More than one call."""
    free: bool = False
