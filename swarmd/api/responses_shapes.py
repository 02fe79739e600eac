"""Bodies of `/v1/responses`, as the official clients send and expect them, and the items that are kept.

Fields of type Any are here to be refused by name, or looked at by `responses_requests`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from msgspec import UNSET, Meta, Struct, UnsetType, field

from swarmd.api.openai_shapes import TOOLS_LIMIT, SamplingIn, Swarm, TokenLogprob, ToolName

ITEMS_LIMIT = 1024  # contract: swarmllm.md 3.3
INSTRUCTIONS_LIMIT = 2 * 1024 * 1024  # contract: swarmllm.md 3.3

# -- what a client sends


class ItemIn(Struct, frozen=True, kw_only=True):
    """Any kind of item; which fields it needs depends on its type."""

    type: str | None = None
    """A message, where it is left out."""
    role: str | None = None
    content: Any = None
    id: Any = None
    call_id: Any = None
    name: Any = None
    arguments: Any = None
    output: Any = None


class PartIn(Struct, frozen=True, kw_only=True):
    type: str
    text: str | None = None
    refusal: str | None = None
    filename: Annotated[str, Meta(max_length=1024)] | None = None
    file_data: str | None = None


class FunctionToolIn(Struct, frozen=True, kw_only=True):
    type: str = "function"
    name: ToolName | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class AllowedToolIn(Struct, frozen=True, kw_only=True):
    type: str = "function"
    name: str | None = None


class ResponseToolChoiceIn(Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: str
    name: str | None = None
    mode: str | None = None
    """Of type `allowed_tools`, as the next."""
    tools: Annotated[list[AllowedToolIn], Meta(max_length=TOOLS_LIMIT)] | None = None


class TextFormatIn(Struct, frozen=True, kw_only=True):
    type: str = "text"
    name: Annotated[str, Meta(max_length=64)] | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None
    """The reply satisfies the schema in any case."""


class TextIn(Struct, frozen=True, kw_only=True):
    format: TextFormatIn | None = None
    verbosity: str | None = None


class ReasoningIn(Struct, frozen=True, kw_only=True):
    effort: Any = None
    summary: Any = None
    generate_summary: Any = None


class ResponsesRequest(SamplingIn, frozen=True, kw_only=True):
    """Of the fields that chat has too, `n` and `max_tokens` are refused: one reply, `max_output_tokens`."""

    input: str | Annotated[list[ItemIn], Meta(max_length=ITEMS_LIMIT)] | None = None
    instructions: Annotated[str, Meta(max_length=INSTRUCTIONS_LIMIT)] | None = None
    previous_response_id: Annotated[str, Meta(max_length=64)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    tools: Annotated[list[FunctionToolIn], Meta(max_length=TOOLS_LIMIT)] | None = None
    tool_choice: str | ResponseToolChoiceIn | None = None
    parallel_tool_calls: bool | None = None
    text: TextIn | None = None
    reasoning: ReasoningIn | None = None
    include: Annotated[list[str], Meta(max_length=32)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    background: bool | None = None
    truncation: str | None = None
    service_tier: str | None = None
    max_tool_calls: int | None = None
    """Of tools that a server runs by itself; there are none here."""
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Any = None
    conversation: Any = None
    prompt: Any = None
    context_management: Any = None
    moderation: Any = None
    background_options: Any = None
    access_programs: Any = None
    image: Any = None


# -- items, as they are kept and answered


class InputText(Struct, frozen=True, kw_only=True, tag="input_text"):
    text: str


class InputFile(Struct, frozen=True, kw_only=True, tag="input_file"):
    file_data: str
    filename: str | None = None


class OutputText(Struct, frozen=True, kw_only=True, tag="output_text"):
    text: str
    annotations: list[Any] = field(default_factory=list[Any])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])


class OutputRefusal(Struct, frozen=True, kw_only=True, tag="refusal"):
    refusal: str


Part = InputText | InputFile | OutputText | OutputRefusal
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class MessageItem(Struct, frozen=True, kw_only=True, tag="message"):
    id: str
    status: ItemStatus
    role: Literal["user", "assistant", "system", "developer"]
    content: list[Part]


class CallItem(Struct, frozen=True, kw_only=True, tag="function_call"):
    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


class CallOutputItem(Struct, frozen=True, kw_only=True, tag="function_call_output"):
    id: str
    status: ItemStatus
    call_id: str
    output: str | list[InputText | InputFile]


Item = MessageItem | CallItem | CallOutputItem


# -- what is answered


class ToolOut(Struct, frozen=True, kw_only=True):
    type: str
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool


class TextFormatOut(Struct, frozen=True, kw_only=True):
    type: str
    name: str | UnsetType = UNSET
    schema: dict[str, Any] | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    strict: bool | UnsetType = UNSET


class TextOut(Struct, frozen=True, kw_only=True):
    format: TextFormatOut
    verbosity: str


class ReasoningOut(Struct, frozen=True, kw_only=True):
    effort: None = None
    summary: None = None


class InputDetails(Struct, frozen=True, kw_only=True):
    cached_tokens: int
    cache_write_tokens: int = 0
    """Nobody can ask here for something to be kept (`prompt_cache_options` is refused)."""


class OutputDetails(Struct, frozen=True, kw_only=True):
    reasoning_tokens: int = 0
    """What a model thinks is text of its reply here."""


class ResponseUsage(Struct, frozen=True, kw_only=True):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ResponseErrorOut(Struct, frozen=True, kw_only=True):
    code: str
    """As in the error that the same fault is over HTTP."""
    message: str
    type: str
    param: str | None = None


class IncompleteDetails(Struct, frozen=True, kw_only=True):
    reason: str


class ResponseOut(Struct, frozen=True, kw_only=True):
    """Fields of the request that no contract names stand beside these."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: str
    background: bool
    completed_at: int | None = None
    error: ResponseErrorOut | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    output: list[Item]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: ReasoningOut
    safety_identifier: str | None
    service_tier: str
    store: bool
    temperature: float
    text: TextOut
    tool_choice: str | ResponseToolChoiceIn
    tools: list[ToolOut]
    top_logprobs: int
    top_p: float
    truncation: str
    usage: ResponseUsage | None = None
    user: str | None
    metadata: dict[str, str]
    swarm: Swarm | UnsetType = UNSET


class ResponseDeleted(Struct, frozen=True, kw_only=True):
    id: str
    object: str
    deleted: bool


class ItemList(Struct, frozen=True, kw_only=True):
    object: str
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


class StoredUsage(Struct, frozen=True, kw_only=True):
    input_tokens: int
    output_tokens: int


class StoredRow(Struct, frozen=True, kw_only=True):
    id: str
    created_at: int
    """Unix seconds, as the next."""
    expires_at: int
    model: str
    status: str
    background: bool
    live: bool
    """It runs on this node now."""
    input_preview: str | None
    """For callers on this machine only, as the next."""
    output_text_preview: str | None
    usage: StoredUsage | None


class StoredList(Struct, frozen=True, kw_only=True):
    object: str
    data: list[StoredRow]
    total: int
    """That fit the filter, whatever the limit."""


# -- events


class ResponseEvent(Struct, frozen=True, kw_only=True):
    type: str
    sequence_number: int
    response: Any
    """A ResponseOut with the fields beside it."""


class ItemEvent(Struct, frozen=True, kw_only=True):
    type: str
    sequence_number: int
    output_index: int
    item: Item


class PartEvent(Struct, frozen=True, kw_only=True):
    type: str
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    part: Part


class TextDeltaEvent(Struct, frozen=True, kw_only=True):
    type: str
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: list[TokenLogprob]


class TextDoneEvent(Struct, frozen=True, kw_only=True):
    type: str
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: list[TokenLogprob]


class ArgumentsDeltaEvent(Struct, frozen=True, kw_only=True):
    type: str
    sequence_number: int
    item_id: str
    output_index: int
    delta: str


class ArgumentsDoneEvent(Struct, frozen=True, kw_only=True):
    type: str
    sequence_number: int
    item_id: str
    output_index: int
    name: str
    arguments: str


class ErrorEvent(Struct, frozen=True, kw_only=True):
    """The stream ends here, and the response does not: who follows it has lost the thread."""

    type: str
    sequence_number: int
    code: str
    message: str
    param: str | None = None


Event = (
    ResponseEvent | ItemEvent | PartEvent | TextDeltaEvent | TextDoneEvent | ArgumentsDeltaEvent | ArgumentsDoneEvent
    | ErrorEvent
)  # fmt: skip
EVENTS = get_args(Event)
"""The same for the table of routes."""
