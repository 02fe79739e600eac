"""Messages by which models travel: what a node must know of one, then the bytes of its shards, a chunk at a time.

Manifest and header may be larger than one payload, so they come in parts; whoever asks puts them together up to a cap of
its own. Each is answered with the message named, with `Refused`, or the stream breaks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from swarmd.domain.ids import ModelId
from swarmd.domain.models import CHUNK_BYTES
from swarmd.wire.frames import MAX_PAYLOAD
from swarmd.wire.messages import message
from swarmd.wire.noise import Buffer

PART_BYTES: Final = 4 * 1024 * 1024  # a part is held whole at both ends; half a chunk is long enough to fill a link

assert CHUNK_BYTES <= MAX_PAYLOAD, "a chunk travels in one message"


@message(100)
@dataclass(frozen=True, slots=True, kw_only=True)
class AskManifest:
    """For the manifest file from `offset` on. Answered with `ManifestPart`."""

    model: ModelId
    layout: str
    offset: int


@message(101)
@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestPart:
    """The payload is up to PART_BYTES of the file, none at its end."""

    total_bytes: int


@message(102)
@dataclass(frozen=True, slots=True, kw_only=True)
class AskHeader:
    """For the model's original GGUF header from `offset` on. Answered with `HeaderPart`."""

    model: ModelId
    layout: str
    offset: int


@message(103)
@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderPart:
    """The payload is up to PART_BYTES of the header, none at its end."""

    total_bytes: int


@message(104)
@dataclass(frozen=True, slots=True, kw_only=True)
class AskChunk:
    """For chunk number `chunk` of a shard's payload. Answered with `ShardChunk`."""

    model: ModelId
    layout: str
    shard: int
    chunk: int


@message(105)
@dataclass(frozen=True, slots=True, kw_only=True)
class ShardChunk:
    """The payload is CHUNK_BYTES of the shard's payload, fewer in its last chunk. Whoever asked checks the hash."""


@message(106)
@dataclass(frozen=True, slots=True, kw_only=True)
class AskChunkMap:
    """For the chunks of a shard that its holder can give now. Answered with `ChunkMap`."""

    model: ModelId
    layout: str
    shard: int


@message(107)
@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkMap:
    """The payload is `pack_chunks` of what can be given. A shard has as many chunks as its manifest says."""


@message(110)
@dataclass(frozen=True, slots=True, kw_only=True)
class AskSeal:
    """For the hashes of a shard that its manifest has none of. Answered with `SealPart`."""

    model: ModelId
    layout: str
    shard: int


@message(111)
@dataclass(frozen=True, slots=True, kw_only=True)
class SealPart:
    """The payload is the seal as `models.seals` encodes it."""


@message(112)
@dataclass(frozen=True, slots=True, kw_only=True)
class AskAdapter:
    """For a LoRA adapter by its digest: from `offset` on its index, or what it does to one layer. Answered with
    `AdapterPart`."""

    digest: bytes
    layer: int | None
    """None: the index."""
    offset: int


@message(113)
@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterPart:
    """The payload is up to PART_BYTES of it. Whoever asked checks the hash of the whole."""

    total_bytes: int


def pack_chunks(numbers: Iterable[int], count: int) -> bytes:
    """One bit for each of `count` chunks, the first in the lowest bit of the first byte."""
    bits = 0
    for number in numbers:
        bits |= 1 << number
    return bits.to_bytes(-(-count // 8), "little")


def unpack_chunks(payload: Buffer, count: int) -> frozenset[int]:
    """The reverse. Raises ValueError for another length, and for bits beyond `count`."""
    if len(payload) != -(-count // 8):
        raise ValueError(f"{len(payload)} bytes for {count} chunks")
    bits = int.from_bytes(payload, "little")
    if bits >> count:
        raise ValueError(f"chunks beyond {count}")
    return frozenset(number for number in range(count) if bits >> number & 1)
