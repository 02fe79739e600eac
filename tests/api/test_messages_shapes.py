"""What the contract's own client makes of our shapes."""

from __future__ import annotations

import msgspec
from anthropic.types import Message as TheirMessage
from anthropic.types import ModelInfo as TheirInfo

from swarmd.api.messages_shapes import Message, MessageUsage, ModelInfo, ToolUseBlock


def test_a_message_and_a_model_are_theirs() -> None:
    usage = MessageUsage(input_tokens=1, cache_creation_input_tokens=0, cache_read_input_tokens=2, output_tokens=3)
    block = ToolUseBlock(id="i", name="n", input={"a": 1})
    ours = Message(id="msg_1", role="assistant", model="m", content=[block], stop_reason="tool_use", stop_sequence=None,
                   usage=usage)  # fmt: skip
    theirs = TheirMessage.model_validate_json(msgspec.json.encode(ours))
    assert theirs.type == "message" and theirs.content[0].type == "tool_use" and theirs.usage.cache_read_input_tokens == 2
    info = ModelInfo(id="m", display_name="m", created_at="2023-11-14T22:13:20Z", lifecycle="active", max_input_tokens=5,
                     max_tokens=5)  # fmt: skip
    assert TheirInfo.model_validate_json(msgspec.json.encode(info)).created_at.year == 2023
