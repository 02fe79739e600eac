"""Bounds that all dialects share."""

from __future__ import annotations

import pytest

from swarmd.api.bounds import MAX_TOKENS_LIMIT, PROMPT_LIMIT_BYTES, clamped, size_of, too_long, tools_too_long
from swarmd.domain.generation import ChatMessage
from swarmd.domain.structure import Tool, ToolCall


def test_sizes_are_bytes_of_texts_and_arguments() -> None:
    call = ToolCall(id="i", name="n", arguments="{}")
    said = [ChatMessage(role="user", content="é"), ChatMessage(role="assistant", content="", calls=(call, call))]
    assert size_of(said) == 6


def test_more_than_the_limit_is_refused_under_the_name_of_the_field() -> None:
    assert too_long(PROMPT_LIMIT_BYTES, "messages") is None
    refusal = too_long(PROMPT_LIMIT_BYTES + 1, "messages")
    assert refusal is not None and refusal.param == "messages"
    tools = [Tool(name="a", description="é" * (PROMPT_LIMIT_BYTES // 2)), Tool(name="b")]
    refusal = tools_too_long(tools, "tools")
    assert refusal is not None and refusal.param == "tools"


@pytest.mark.parametrize(("wanted", "given"), [(None, 16), (-5, 1), (0, 1), (9, 9), (10**9, MAX_TOKENS_LIMIT)])
def test_tokens_of_a_reply_are_clamped(wanted: int | None, given: int) -> None:
    assert clamped(wanted, 16) == given
