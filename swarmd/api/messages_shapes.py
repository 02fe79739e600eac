"""Bodies of the Anthropic Messages API, as its official client sends and expects them. Unknown fields are ignored: clients
send many. Fields of type Any are here to be refused by name, or looked at by `messages_requests`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from swarmd.api.bounds import STOP_LENGTH, STOPS_LIMIT, TOOLS_LIMIT
from swarmd.api.openai_shapes import CardSwarm, ModelName, Share, Swarm

MESSAGES_LIMIT = 100_000  # the Anthropic contract's own limit
BLOCKS_LIMIT = 10_000  # of one message; ten times what the longest turns of agents have
ToolName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,128}$")]  # the Anthropic contract's own rule
CallId = Annotated[str, Meta(max_length=256)]
StopText = Annotated[str, Meta(min_length=1, max_length=STOP_LENGTH)]


class BlockIn(Struct, frozen=True, kw_only=True):
    """A part of a message of whatever kind. Which fields a kind needs, `messages_requests` knows."""

    type: Annotated[str, Meta(max_length=256)]
    text: str | None = None
    id: CallId | None = None
    """Of `tool_use`."""
    name: ToolName | None = None
    input: dict[str, Any] | None = None
    tool_use_id: CallId | None = None
    """Of `tool_result`."""
    content: Any = None
    """Of `tool_result`: a text or blocks. Other kinds, which are refused, have other things."""
    is_error: bool | None = None


Blocks = Annotated[list[BlockIn], Meta(max_length=BLOCKS_LIMIT)]


class TurnIn(Struct, frozen=True, kw_only=True):
    role: Literal["user", "assistant", "system"]
    content: str | Blocks


class ToolIn(Struct, frozen=True, kw_only=True):
    type: Annotated[str, Meta(max_length=256)] | None = None
    name: ToolName
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoiceIn(Struct, frozen=True, kw_only=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = False


class ThinkingIn(Struct, frozen=True, kw_only=True):
    type: Annotated[str, Meta(max_length=256)]


class MetadataIn(Struct, frozen=True, kw_only=True):
    user_id: Annotated[str, Meta(max_length=1024)] | None = None


class FormatIn(Struct, frozen=True, kw_only=True):
    type: Annotated[str, Meta(max_length=256)]
    schema: dict[str, Any] | None = None


class OutputIn(Struct, frozen=True, kw_only=True):
    effort: Annotated[str, Meta(max_length=256)] | None = None
    format: FormatIn | None = None


class PromptIn(Struct, frozen=True, kw_only=True):
    """What is sent to be counted, too."""

    model: ModelName
    messages: Annotated[list[TurnIn], Meta(min_length=1, max_length=MESSAGES_LIMIT)]
    system: str | Blocks | None = None
    tools: Annotated[list[ToolIn], Meta(max_length=TOOLS_LIMIT)] | None = None
    tool_choice: ToolChoiceIn | None = None
    thinking: ThinkingIn | None = None
    output_config: OutputIn | None = None
    output_format: FormatIn | None = None
    """As older clients say `output_config.format`."""
    mcp_servers: list[Any] | None = None
    context_management: Any = None


class MessagesRequest(PromptIn, frozen=True, kw_only=True):
    max_tokens: Annotated[int, Meta(ge=1)]
    stream: bool | None = False
    temperature: Share | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    stop_sequences: Annotated[list[StopText], Meta(max_length=STOPS_LIMIT)] | None = None
    metadata: MetadataIn | None = None
    container: Any = None
    inference_geo: str | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    speed: str | None = None


class CountRequest(PromptIn, frozen=True, kw_only=True):
    pass


class TokenCount(Struct, frozen=True, kw_only=True):
    input_tokens: int


class TextBlock(Struct, frozen=True, kw_only=True, tag="text"):
    text: str


class ToolUseBlock(Struct, frozen=True, kw_only=True, tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


class MessageUsage(Struct, frozen=True, kw_only=True):
    """All tokens of the prompt are the sum of the three input fields."""

    input_tokens: int
    """Computed for this reply."""
    cache_creation_input_tokens: int
    """0: what is kept for later costs nothing here."""
    cache_read_input_tokens: int
    """Computed for an earlier one."""
    output_tokens: int


class Message(Struct, frozen=True, kw_only=True, tag="message"):
    id: str
    role: Literal["assistant"]
    model: str
    content: list[TextBlock | ToolUseBlock]
    stop_reason: str | None
    stop_sequence: str | None
    usage: MessageUsage
    swarm: Swarm | UnsetType = UNSET


class MessageStart(Struct, frozen=True, kw_only=True, tag="message_start"):
    message: Message


class BlockStart(Struct, frozen=True, kw_only=True, tag="content_block_start"):
    index: int
    content_block: TextBlock | ToolUseBlock


class TextDelta(Struct, frozen=True, kw_only=True, tag="text_delta"):
    text: str


class InputDelta(Struct, frozen=True, kw_only=True, tag="input_json_delta"):
    partial_json: str


class BlockDelta(Struct, frozen=True, kw_only=True, tag="content_block_delta"):
    index: int
    delta: TextDelta | InputDelta


class BlockStop(Struct, frozen=True, kw_only=True, tag="content_block_stop"):
    index: int


class StopDelta(Struct, frozen=True, kw_only=True):
    stop_reason: str
    stop_sequence: str | None


class MessageDelta(Struct, frozen=True, kw_only=True, tag="message_delta"):
    delta: StopDelta
    usage: MessageUsage
    swarm: Swarm


class MessageStop(Struct, frozen=True, kw_only=True, tag="message_stop"):
    pass


class Ping(Struct, frozen=True, kw_only=True, tag="ping"):
    pass


Event = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | Ping


class ProblemBody(Struct, frozen=True, kw_only=True):
    type: str
    message: str


class Problem(Struct, frozen=True, kw_only=True, tag="error"):
    """Every error of this dialect, also as the last event of a stream."""

    error: ProblemBody
    request_id: str


class ModelInfo(Struct, frozen=True, kw_only=True, tag="model"):
    id: str
    display_name: str
    created_at: str
    """RFC 3339."""
    lifecycle: Literal["active"]
    max_input_tokens: int | None
    """Null, with the next, where a provider does not say."""
    max_tokens: int | None
    swarm: CardSwarm | UnsetType = UNSET


class ModelPage(Struct, frozen=True, kw_only=True):
    data: list[ModelInfo]
    has_more: bool
    first_id: str | None
    last_id: str | None
