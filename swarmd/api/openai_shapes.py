"""Bodies of `/v1`, as the official clients send and expect them. Unknown fields are ignored: clients send many. Fields of
type Any are here to be refused by name, or looked at by `openai_requests`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from swarmd.api.bounds import STOP_LENGTH, STOPS_LIMIT, TOOLS_LIMIT

ModelName = Annotated[str, Meta(min_length=1, max_length=256)]  # contract: swarmllm.md 3.2
Temperature = Annotated[float, Meta(ge=0, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
StopText = Annotated[str, Meta(min_length=1, max_length=STOP_LENGTH)]
ToolName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]  # the OpenAI contract's own rule
Stop = StopText | Annotated[list[StopText], Meta(max_length=STOPS_LIMIT)]


class ContentPart(Struct, frozen=True, kw_only=True):
    type: str
    text: str | None = None


class FunctionCallIn(Struct, frozen=True, kw_only=True):
    name: ToolName
    arguments: str = ""


class ToolCallIn(Struct, frozen=True, kw_only=True):
    id: Annotated[str, Meta(max_length=256)]
    type: Literal["function"] = "function"
    function: FunctionCallIn


class MessageIn(Struct, frozen=True, kw_only=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: Annotated[str, Meta(max_length=256)] | None = None
    tool_calls: Annotated[list[ToolCallIn], Meta(max_length=TOOLS_LIMIT)] | None = None
    tool_call_id: Annotated[str, Meta(max_length=256)] | None = None
    function_call: Any = None


class FunctionIn(Struct, frozen=True, kw_only=True):
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolIn(Struct, frozen=True, kw_only=True):
    type: str = "function"
    function: FunctionIn | None = None


class NamedFunction(Struct, frozen=True, kw_only=True):
    name: str


class ToolChoiceIn(Struct, frozen=True, kw_only=True):
    type: str
    function: NamedFunction | None = None


class SchemaIn(Struct, frozen=True, kw_only=True):
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    """The reply satisfies the schema in any case."""


class ResponseFormat(Struct, frozen=True, kw_only=True):
    type: str
    json_schema: SchemaIn | None = None


class StreamOptions(Struct, frozen=True, kw_only=True):
    include_usage: bool | None = False


class SamplingIn(Struct, frozen=True, kw_only=True):
    """What chat and completions have in common. `top_k`, `min_p` and `repeat_penalty` are extensions that other local
    servers have too."""

    model: ModelName
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    n: int | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, float] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    min_p: Share | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    user: str | None = None
    """Whom the client asks for: where requests wait, users take turns."""
    grammar: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    lora_adapter: Annotated[str, Meta(max_length=256)] | None = None
    """Id of an adapter of the model; `model: "model:adapter"` says the same."""


class ChatRequest(SamplingIn, frozen=True, kw_only=True):
    messages: Annotated[list[MessageIn], Meta(min_length=1)]
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[ToolIn], Meta(max_length=TOOLS_LIMIT)] | None = None
    tool_choice: str | ToolChoiceIn | None = None
    parallel_tool_calls: bool | None = True
    response_format: ResponseFormat | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    audio: Any = None
    modalities: list[str] | None = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: str | None = None
    service_tier: str | None = None
    store: bool | None = False
    web_search_options: Any = None


class CompletionRequest(SamplingIn, frozen=True, kw_only=True):
    prompt: str | list[Any]
    suffix: str | None = None
    echo: bool | None = False
    best_of: int | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None


class SwarmStage(Struct, frozen=True, kw_only=True):
    node: str
    layers: tuple[int, int]
    """From, to; the end is not included."""
    compute_ms: float
    """Per decode step, mean: inside the engine."""
    node_ms: float
    """Per decode step, mean: from arrival at the node to departure."""


class Swarm(Struct, frozen=True, kw_only=True):
    """Our extension: where the time went. Clients of the contract ignore it."""

    stages: list[SwarmStage]
    link_ms: float
    tokens_per_second: float
    prefill_ms: float
    proposed_tokens: int = 0
    """Guessed from the text and computed along with others."""
    accepted_tokens: int = 0
    """Those of them that were right: each saved a way through the nodes."""
    resumes: int = 0
    """Times that lost nodes were replaced within the reply."""


class PromptDetails(Struct, frozen=True, kw_only=True):
    cached_tokens: int
    """Of the prompt, that were computed for an earlier one."""


class UsageOut(Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class TopLogprob(Struct, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(Struct, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Struct, frozen=True, kw_only=True):
    content: list[TokenLogprob] | None
    refusal: None = None


class FunctionCallOut(Struct, frozen=True, kw_only=True):
    name: str | UnsetType = UNSET
    arguments: str


class ToolCallOut(Struct, frozen=True, kw_only=True):
    """Of a whole reply; in a stream with `index`, and id, type and name with the first piece only."""

    index: int | UnsetType = UNSET
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    function: FunctionCallOut


class MessageOut(Struct, frozen=True, kw_only=True):
    role: str
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCallOut] | UnsetType = UNSET


class ChatChoice(Struct, frozen=True, kw_only=True):
    index: int
    message: MessageOut
    finish_reason: str
    logprobs: ChoiceLogprobs | None


class ChatCompletion(Struct, frozen=True, kw_only=True):
    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageOut
    swarm: Swarm


class Delta(Struct, frozen=True, kw_only=True):
    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: list[ToolCallOut] | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True, kw_only=True):
    index: int
    delta: Delta
    finish_reason: str | None
    logprobs: ChoiceLogprobs | None


class ChatChunk(Struct, frozen=True, kw_only=True):
    id: str
    object: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: UsageOut | UnsetType | None = UNSET
    """Left out unless asked for; then null on all chunks but the last."""
    swarm: Swarm | UnsetType = UNSET


class LegacyLogprobs(Struct, frozen=True, kw_only=True):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class TextChoice(Struct, frozen=True, kw_only=True):
    index: int
    text: str
    finish_reason: str | None
    logprobs: LegacyLogprobs | None


class Completion(Struct, frozen=True, kw_only=True):
    """Whole replies and chunks alike."""

    id: str
    object: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: UsageOut | UnsetType | None = UNSET
    swarm: Swarm | UnsetType = UNSET


class CardNode(Struct, frozen=True, kw_only=True):
    node: str
    shards: int
    """That it holds."""


class CardSwarm(Struct, frozen=True, kw_only=True):
    """Our extension: who can serve a model, and how."""

    source: Literal["local", "hybrid", "network"]
    """All of it is here, some, or nothing."""
    shards: int
    copies: int
    """Of the shard that the fewest connected nodes hold."""
    holders: int
    """Connected nodes with any shard of it, this one included."""
    whole: int
    """Those of them that hold all of it."""
    loaded: bool
    """Some of it is in this node's memory."""
    nodes: list[CardNode]
    """Holders, those with most shards first; at most 16."""


class ModelCard(Struct, frozen=True, kw_only=True):
    id: str
    object: str
    created: int
    owned_by: str
    """`local`, `hybrid` or `network`; of a provider's model the provider."""
    max_model_len: int | UnsetType = UNSET
    """Left out with the next where a provider does not say."""
    context_length: int | UnsetType = UNSET
    swarm: CardSwarm | UnsetType = UNSET
    """Of the swarm's own models."""


class ModelList(Struct, frozen=True, kw_only=True):
    object: str
    data: list[ModelCard]
