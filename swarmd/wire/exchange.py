"""Messages by which models travel: what a node must know of one, then the bytes of its shards, a chunk at a time.

Manifest and header may be larger than one payload, so they come in parts; whoever asks puts them together up to a cap of
its own. Each is answered with the message named, with `Refused`, or the stream breaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from swarmd.domain.ids import ModelId
from swarmd.domain.models import CHUNK_BYTES
from swarmd.wire.frames import MAX_PAYLOAD
from swarmd.wire.messages import message

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
