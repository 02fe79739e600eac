"""What travels between the node and its worker process: framed messages over a socket pair.

A frame is an 8-byte header (`<II`: length of the message, length of the payload), the message in msgpack, and the
payload as raw bytes: tensors and token ids never ride inside msgpack. Both ends are ours, yet sizes are checked before
memory is taken, because a worker that went mad must not take the node with it.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

import msgspec

from swarmd.domain.structure import Grammar

HEADER = struct.Struct("<II")
MESSAGE_LIMIT = 16 * 1024 * 1024  # a prompt of 4 MB in a chat template is the largest real message
PAYLOAD_LIMIT = 64 * 1024 * 1024  # 128 rows of width 32,768 in float32 are 16 MB; a vocabulary's texts stay below 16 MB

NO_TOKEN = -1

TEMPLATE_LIMIT = 1024 * 1024  # characters of a chat template; the longest published ones are below 20,000


class BadFrame(Exception):
    """The other end sent something that is not a frame; it is treated as crashed."""


class _Message(msgspec.Struct, array_like=True, tag=True, frozen=True):
    pass


class EmbeddingsAt(msgspec.Struct, array_like=True, frozen=True):
    offset_bytes: int
    kind: int
    rows: int
    width: int
    row_bytes: int
    scale: float


class Load(_Message, frozen=True):
    """Load one shard file. Answer: `Loaded`."""

    shard: int
    path: str
    last: bool
    embeddings: EmbeddingsAt | None
    cells: int
    sequences: int
    rows: int
    threads: int


class Unload(_Message, frozen=True):
    """Free one shard. Answer: `Done`."""

    shard: int


class LoadAdapter(_Message, frozen=True):
    """Load a LoRA adapter's slice into one shard. Answer: `Done`."""

    shard: int
    number: int
    """By which steps ask for it; from 1 on."""
    path: str | None
    """None: it changes nothing in this shard."""


class UnloadAdapter(_Message, frozen=True):
    """Free an adapter in all shards. Answer: `Done`."""

    number: int


class OpenVocabulary(_Message, frozen=True):
    """Answer: `VocabularyOpen`, its payload the token texts one after the other."""

    path: str


class Said(msgspec.Struct, array_like=True, frozen=True):
    """A message of a conversation."""

    role: str
    content: str
    calls: tuple[tuple[str, str, str], ...] = ()
    """Id, name and arguments as JSON text."""
    call_id: str | None = None
    name: str | None = None


class RenderChat(_Message, frozen=True):
    """Render the chat template over messages and tokenise. Answer: `Tokenized`, payload int32 ids."""

    template: str
    messages: list[Said]
    tools: tuple[tuple[str, str, str], ...] = ()
    """Name, description and parameters as JSON text."""


class CheckGrammar(_Message, frozen=True):
    """Whether this vocabulary's replies can be held to it. Answer: `Done`, or `Failed` of kind `grammar`."""

    grammar: Grammar


class Tokenize(_Message, frozen=True):
    """Answer: `Tokenized`, payload int32 ids."""

    text: str
    whole: bool = False
    """A text by itself, nothing to continue: control tokens in it count, and what the model wants at the end comes too."""


class StartSequence(_Message, frozen=True):
    """Begin a sequence; `sampling` only where this worker is the tail. Answer: `Started`.

    Payload: int32 tokens that the sampler is to count, of a reply that began elsewhere.
    """

    sequence: int
    sampling: SamplingAs | None
    prefix: Prefix | None = None


class Prefix(msgspec.Struct, array_like=True, frozen=True):
    """What a sequence has in common with earlier ones, and later ones with it (`prefixes`)."""

    first: int
    last: int
    """Shards that it runs through."""
    rows: int
    """Positions between two keys."""
    keys: list[bytes]
    budget_bytes: int
    """For all that this worker keeps."""
    keep: bool = True
    """For later ones; else it only uses what is there."""


class SamplingAs(msgspec.Struct, array_like=True, frozen=True):
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    frequency_penalty: float
    presence_penalty: float
    repeat_penalty: float
    seed: int
    top_logprobs: int | None
    logit_bias: tuple[tuple[int, float], ...] = ()
    grammar: Grammar | None = None


class EndSequence(_Message, frozen=True):
    """Drop a sequence's caches in every shard, and its sampler. Answer: `Done`."""

    sequence: int


class Rollback(_Message, frozen=True):
    """Drop a sequence's cache from `position` on in every shard. Answer: `Done`."""

    sequence: int
    position: int


class CopySequence(_Message, frozen=True):
    """Give `target` the cache of positions [0, end) of `source`. Answer: `Done`."""

    source: int
    target: int
    end: int


class Run(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive positions of one sequence within a step."""

    sequence: int
    position: int
    count: int


class Step(_Message, frozen=True):
    """Run rows through shards [first, last]. Payload: int32 token ids if first is shard 0, else float32 (rows, width).

    `outputs`: (row, sequence, position) of each row to sample from, tail only; the
    sampled token follows that position. Answer: `Stepped`.
    """

    first: int
    last: int
    runs: list[Run]
    outputs: list[tuple[int, int, int]]
    logits: bool = False
    """Answer with the raw logits of the outputs as payload, float32 (outputs, vocabulary), and sample nothing: for
    tests and measurements of exactness."""
    vectors: tuple[int, ...] = ()
    """Tail only: of each run, so many of its last rows are added up behind the final norm; empty: of none. The sums of the
    runs that have any are the payload of the answer, float32 (sums, width)."""
    adapter: int = 0
    """Of all these runs; 0: none."""


class Loaded(_Message, frozen=True):
    shard: int
    layers: int
    width: int


class Done(_Message, frozen=True):
    pass


class Started(_Message, frozen=True):
    positions: int
    """In the cache already: a prefix that was kept."""


class VocabularyOpen(_Message, frozen=True):
    bos: int
    eos: int
    adds_bos: bool
    ends: list[int]
    """Tokens that end a generation."""
    lengths: list[int]
    """Byte length of every token's text; control tokens are empty."""
    controls: tuple[tuple[int, str], ...] = ()
    """Control tokens and how templates write them."""


class Tokenized(_Message, frozen=True):
    pass


class Stepped(_Message, frozen=True):
    """Payload: float32 (rows, width); behind the last shard the vectors that were asked for."""

    compute_us: int
    picked: list[tuple[int, list[tuple[int, float]]]]
    """Per output: the token, and its logprobs where asked for. `NO_TOKEN`: none goes on within the grammar's limits."""


class Failed(_Message, frozen=True):
    """The command was not carried out; the worker goes on."""

    kind: str
    """`engine`, `memory`, `template` or `grammar`."""
    text: str


class Ready(_Message, frozen=True):
    """First message of a worker: the engine is up and its layout check passed."""

    description: str
    wheel: str
    compared: int


class Unusable(_Message, frozen=True):
    """First and last message of a worker whose engine does not fit."""

    text: str


Command: TypeAlias = (
    Load | Unload | OpenVocabulary | RenderChat | Tokenize | CheckGrammar | StartSequence | EndSequence | Rollback
    | CopySequence | Step | LoadAdapter | UnloadAdapter
)
Answer: TypeAlias = Loaded | Done | Started | VocabularyOpen | Tokenized | Stepped | Failed | Ready | Unusable

_encoder = msgspec.msgpack.Encoder()
_commands: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises: wrong types, text that is no UTF-8, arrays nested without end."""


def encode(message: Command | Answer, payload_bytes: int) -> bytes:
    """Header and message; the caller sends the payload behind it."""
    body = _encoder.encode(message)
    return HEADER.pack(len(body), payload_bytes) + body


def sizes(data: bytes | memoryview | bytearray, at: int = 0) -> tuple[int, int]:
    """Message and payload length from the header at offset `at`. Raises BadFrame above a limit."""
    message, payload = HEADER.unpack_from(data, at)
    if message > MESSAGE_LIMIT or payload > PAYLOAD_LIMIT:
        raise BadFrame(f"a frame announces {message} + {payload} bytes, above {MESSAGE_LIMIT} + {PAYLOAD_LIMIT}")
    return message, payload


def decode_command(data: bytes | memoryview | bytearray) -> Command:
    try:
        return _commands.decode(data)
    except _UNREADABLE as error:
        raise BadFrame(f"a command cannot be read: {error}") from error


def decode_answer(data: bytes | memoryview | bytearray) -> Answer:
    try:
        return _answers.decode(data)
    except _UNREADABLE as error:
        raise BadFrame(f"an answer cannot be read: {error}") from error
