"""The one inner shape of a generation, behind every API dialect, and what comes back from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from swarmd.domain.adapters import AdapterRef
from swarmd.domain.ids import ModelId, NodeId, RequestId
from swarmd.domain.refusals import Refusal
from swarmd.domain.structure import CallPiece, Grammar, Tool, ToolCall, ToolUse


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str
    calls: tuple[ToolCall, ...] = ()
    """Of an assistant."""
    call_id: str | None = None
    """Of a `tool` message: which call it answers."""
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the tail picks a token. Defaults are those of the OpenAI contract where it has one, else "off"."""

    temperature: float = 0.7
    """0 picks the likeliest token (greedy)."""
    top_p: float = 1.0
    top_k: int = 0
    """0 = all tokens."""
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_penalty: float = 1.0
    seed: int = 0
    """Randomness is keyed by (seed, position), so any replacement tail continues identically (design, section 7)."""
    top_logprobs: int | None = None
    """None: no logprobs. 0: of the picked token only. n: of the n likeliest as well. Always of what the model said, before
    bias, penalties and grammar."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Token id and what is added to its logit."""
    grammar: Grammar | None = None
    """What the reply is held to; made by the head of `GenerationRequest.schema` and `tools`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What a client asked for. Exactly one of `messages`, `prompt` and `prompt_tokens` is given."""

    request: RequestId
    model: ModelId
    client: str = ""
    """Who asks, as far as is known: clients take turns where requests wait."""
    messages: tuple[ChatMessage, ...] = ()
    prompt: str | None = None
    prompt_tokens: tuple[int, ...] | None = None
    tools: tuple[Tool, ...] = ()
    tool_use: ToolUse = ToolUse.AUTO
    tool_named: str | None = None
    """The one tool to call, with REQUIRED."""
    several_calls: bool = True
    """More than one call in one reply."""
    schema: str | None = None
    """JSON schema, as JSON text, that the reply must satisfy unless it calls a tool."""
    max_tokens: int = 2048
    stop: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    adapter: AdapterRef | None = None
    """Applied on every stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """Texts of which a client wants vectors."""

    request: RequestId
    model: ModelId
    client: str = ""
    inputs: tuple[str | tuple[int, ...], ...]
    """Each a text, or the token ids of one as they are."""
    dimensions: int | None = None
    """That a vector must have; None: as many as the model gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """One vector for each input, in their order."""

    vectors: tuple[bytes, ...]
    """float32, little endian, of length 1."""
    tokens: int
    """Of all inputs."""
    nodes: tuple[NodeId, ...]
    """That ran the first of them, in layer order."""


class Finish(Enum):
    """Why a generation ended; values as in the OpenAI contract."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    """It ended by itself, and has calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logprob:
    token: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTiming:
    """Time one node spent on its layers, summed over the decode steps of one generation."""

    node: NodeId
    layer_start: int
    layer_end: int
    compute_ms: float
    """Inside llama.cpp and its callbacks, per step, mean."""
    node_ms: float
    """From a step's arrival at the node to its departure, per step, mean; includes compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a generation cost. Times in milliseconds."""

    prompt_tokens: int
    completion_tokens: int
    prefill_ms: float
    decode_ms: float
    stages: tuple[StageTiming, ...]
    link_ms: float
    """Mean time per step outside all nodes: the wire, once around the ring."""
    proposed_tokens: int = 0
    """Guessed and sent along with a step."""
    accepted_tokens: int = 0
    """Those of them that were right."""
    resumes: int = 0
    """Times that lost stages were replaced within the reply."""

    cached_tokens: int = 0
    """Of the prompt, taken from what was computed for an earlier one."""

    @property
    def tokens_per_second(self) -> float:
        """Of decoding, the first token (which ends the prefill) not counted; 0 when there was no further one."""
        return (
            (self.completion_tokens - 1) / self.decode_ms * 1e3 if self.completion_tokens > 1 and self.decode_ms > 0 else 0.0
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenChunk:
    """A piece of the reply. The last one carries `finish` and `usage`; its text may be empty."""

    sequence: int
    """0, 1, 2 ... without gaps."""
    text: str
    logprobs: tuple[tuple[Logprob, tuple[Logprob, ...]], ...] = ()
    """One entry per token that this chunk's text came from: the picked one and the likeliest."""
    calls: tuple[CallPiece, ...] = ()
    """Parts of calls that came with it, behind its text."""
    finish: Finish | None = None
    stopped_by: str | None = None
    """Which text of `stop` ended it; with `finish`."""
    usage: Usage | None = None


class GenerationFailed(Exception):
    """A generation that had begun cannot go on; raised where its chunks are awaited. `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal
