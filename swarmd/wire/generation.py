"""Messages of a generation: the head opens every stage, steps run from stage to stage, the tail answers the head.

Hidden states and token ids are the payload of a `StepOn`: float32 (count, width) between stages, int32 (count,) into the
first.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from swarmd.domain.generation import Sampling
from swarmd.domain.ids import ModelId, NodeId, SessionId
from swarmd.wire.messages import message


@message(120)
@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStage:
    """Head to a stage: load these shards, keep caches for one sequence.

    Payload for the tail: the tokens of the reply so far, int32, when the generation goes on after a loss. Answered with
    `StageAlive` until it is known, then `StageReady`, `Refused` or `StageBroken`.

    The stream stays open as long as the generation; when it ends or breaks, the stage drops its caches. The head sends
    `StepOn` on it to the first stage, the tail sends `StepDone` on it.
    """

    session: SessionId
    model: ModelId
    layout: str
    stage: int
    """Position in the pipeline, from 0."""
    stages: int
    """Of the pipeline."""
    first_shard: int
    last_shard: int
    cells: int
    """Most positions the sequence will have."""
    predecessor: NodeId | None
    """Who will open a `Lane` to this stage; None for the first, which the head feeds."""
    successor: NodeId | None
    """Whom to push to; None for the tail, which answers the head."""
    sampling: Sampling | None
    """For the tail alone."""
    prefixes: tuple[bytes, ...] = ()
    """Keys of the prompt's beginnings (`inference.prefixes`), one for each whole prefill chunk."""
    vectors: bool = False
    """No token is picked: the tail answers with the sum of the sampled rows behind the final norm (`StepDone`)."""
    adapter: bytes | None = None
    """Digest of a LoRA adapter (`models.lora`) to apply; a stage that lacks its part asks the head for it."""
    adapter_bytes: int = 0
    """Of the whole adapter."""


@message(121)
@dataclass(frozen=True, slots=True, kw_only=True)
class StageReady:
    """The shards are loaded and a sequence is reserved."""

    positions: int = 0
    """In its caches already: a prefix that it had kept. Steps may begin there or before."""
    adapter: bytes | None = None
    """As in `OpenStage`: it is applied. A node that knows no adapters says nothing, and must not run the stage."""


@message(122)
@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A stage to its successor: `StepOn`s of this session follow on this stream."""

    session: SessionId
    stage: int
    """Of the receiver."""


@message(123)
class StepOn(msgspec.Struct, frozen=True, array_like=True):
    """Rows to run through the receiver's layers."""

    number: int
    """0, 1, 2 ... over the whole generation."""
    position: int
    """Of the first row in the sequence. Below where the last step ended: what was computed from there on is dropped."""
    count: int
    sample: int
    """From so many of the last rows the tail picks a token: none in a prompt, one, or one behind each row of a proposal.
    Or it makes a vector of them: see `OpenStage`."""
    trace: list[tuple[int, int]]
    """(compute, node) in microseconds of every stage behind it."""
    together: int = 1
    """Steps of other sequences, this one included, that come at the same moment: the sender computed them in one batch."""


@message(124)
class StepDone(msgspec.Struct, frozen=True, array_like=True):
    """Tail to head: the step is through, with the tokens that were to be picked.

    Payload where vectors were asked for and rows sampled: float32 (width,), else none.
    """

    number: int
    tokens: list[int]
    logprobs: list[list[tuple[int, float]]]
    """Of each picked token first, then of the likeliest; empty lists unless asked for."""
    trace: list[tuple[int, int]]


@message(126)
@dataclass(frozen=True, slots=True, kw_only=True)
class StageAlive:
    """A stage to the head, twice a second from the opening on: it is there, however long it computes or loads."""


@message(125)
@dataclass(frozen=True, slots=True, kw_only=True)
class StageBroken:
    """A stage to the head: it cannot go on. The last message of its stream.

    In place of `StageReady` or `Refused` it says that the node has not the memory, with the numbers in `lacking`.
    """

    reason: str
    culprit: NodeId | None = None
    """Who is to blame when it is not the sender: the neighbour whose link or lane broke."""
    lacking: tuple[int, int] | None = None
    """Bytes that are needed and that are free; the head plans again without this node."""
