"""Bounds that every dialect has in common, on what becomes a generation. Pure.

Dialects name their fields differently, so each says which one a refusal is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from swarmd.domain.generation import ChatMessage
from swarmd.domain.refusals import Invalid
from swarmd.domain.structure import Tool

PROMPT_LIMIT_BYTES: Final = 4 * 1024 * 1024  # contract: swarmllm.md 3.2
MAX_TOKENS_LIMIT: Final = 32_768  # contract: swarmllm.md 3.2; more is clamped, not refused
STOPS_LIMIT: Final = 16  # contract: swarmllm.md 3.2
STOP_LENGTH: Final = 256  # contract: swarmllm.md 3.2
TOOLS_LIMIT: Final = 128  # the OpenAI contract's own limit
ANY_OBJECT: Final = '{"type": "object"}'


def size_of(messages: Sequence[ChatMessage]) -> int:
    """Bytes that the client has given."""
    return sum(
        len(one.content.encode()) + sum(len(call.arguments.encode()) for call in one.calls) for one in messages
    )


def too_long(size_bytes: int, param: str) -> Invalid | None:
    if size_bytes <= PROMPT_LIMIT_BYTES:
        return None
    return Invalid(what=f"the prompt has {size_bytes} bytes, at most {PROMPT_LIMIT_BYTES} are taken", param=param)


def tools_too_long(tools: Sequence[Tool], param: str) -> Invalid | None:
    return too_long(sum(len(tool.parameters) + len(tool.description.encode()) for tool in tools), param)


def clamped(wanted: int | None, default: int) -> int:
    """Tokens of a reply."""
    return default if wanted is None else min(max(wanted, 1), MAX_TOKENS_LIMIT)
