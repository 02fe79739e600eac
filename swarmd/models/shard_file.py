"""How a shard lies on disk so that stock llama.cpp runs it as a small model of its own.

A shard file is a GGUF made here: own header, the payload's tensors, and for all but the last shard two dummies. llama.cpp
demands that the tensors it is told of lie one after the other, refuses those it does not need, and ignores what follows
them. So the embedding table of the first shard, which llama.cpp must not see (it would take it for the output matrix and
compute a full row of useless logits per token), lies behind everything that the header describes.

The payload itself never changes: it is the original tensor bytes, and `runs` says where each stretch of it goes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from swarmd.domain.models import Manifest, ShardSpec
from swarmd.domain.refusals import UnsupportedModel
from swarmd.models.architectures import (
    EMBEDDING,
    OUTPUT,
    OUTPUT_NORM,
    Architecture,
    check_supported,
    layer_of,
    renumbered,
)
from swarmd.models.ggml import F32, tensor_size_bytes
from swarmd.models.gguf import GgufHeader, TensorInfo, encode_header, padded, place_tensors
from swarmd.models.gguf_values import Value, ValueType, number_value, text_value

DUMMY_ROWS: Final = 32
"""Rows of the embedding that llama.cpp demands of a shard without a vocabulary. It also multiplies every output row
with them, so few; a multiple of 32 keeps every data type's blocks and kernels content."""
_F32_BYTES: Final = 4
_TOKENIZER: Final = "tokenizer."


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A stretch of the payload and where it lies in a file."""

    payload_offset: int
    size: int
    file_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingTable:
    """The first shard's real embedding, row after row."""

    file_offset: int
    type: int
    """ggml's number."""
    rows: int
    columns: int
    size_bytes: int

    @property
    def row_bytes(self) -> int:
        return self.size_bytes // self.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """Everything needed to turn a payload into a file and back."""

    header: bytes
    """Goes to offset 0; its length is where the tensor data starts."""
    runs: tuple[Run, ...]
    """In payload order, covering it without gaps."""
    tail: tuple[tuple[int, bytes], ...]
    """(file offset, bytes) of what is not payload."""
    size_bytes: int
    """Of the file. Bytes between runs are padding and zero."""
    embedding: EmbeddingTable | None
    """Only of the first shard."""


def shard_file(header: GgufHeader, manifest: Manifest, index: int) -> ShardFile:
    """The file of shard `index`. The manifest has passed `manifest.check_against_header` with this header."""
    architecture = check_supported(header)
    assert not isinstance(architecture, UnsupportedModel), f"{manifest.model}: {architecture}"
    spec = manifest.shards[index]
    last = spec.layer_end == architecture.layer_count
    by_name = {tensor.name: tensor for tensor in header.tensors}
    payload = [by_name[span.name] for span in spec.tensors]
    output = (EMBEDDING if architecture.tied else OUTPUT) if last else None
    described = [tensor for tensor in payload if tensor.name != EMBEDDING or output == EMBEDDING]
    rows = [(_name_in_shard(tensor.name, spec, output), tensor.dims, tensor.type) for tensor in described]
    dummies = () if last else _dummies(architecture)
    placed = place_tensors(
        (*rows, *((name, dims, F32) for name, dims, _ in dummies)),
        alignment=header.alignment,
    )
    encoded = encode_header(
        metadata=_metadata(header, architecture, spec, last=last), tensors=placed, version=header.version
    )
    start = len(encoded)
    offsets = {tensor.name: start + at.offset_bytes for tensor, at in zip(described, placed, strict=False)}
    end = start + padded(placed[-1].offset_bytes + placed[-1].size_bytes, header.alignment)
    if index == 0 and EMBEDDING not in offsets:
        offsets[EMBEDDING] = end
        end += padded(by_name[EMBEDDING].size_bytes, header.alignment)
    tail = tuple((start + at.offset_bytes, data) for at, (_, _, data) in zip(placed[len(described) :], dummies, strict=True))
    return ShardFile(
        header=encoded,
        runs=_runs(payload, offsets),
        tail=tail,
        size_bytes=end,
        embedding=_embedding(by_name[EMBEDDING], offsets[EMBEDDING]) if index == 0 else None,
    )


def source_runs(shard: ShardSpec) -> tuple[Run, ...]:
    """Where the payload of a shard lies in the original file: what to read when a local file is cut."""
    runs: list[Run] = []
    position = 0
    for span in shard.tensors:
        _append(runs, Run(payload_offset=position, size=span.size_bytes, file_offset=span.offset_bytes))
        position += span.size_bytes
    return tuple(runs)


def vocabulary_file(header: GgufHeader) -> bytes:
    """A GGUF with all metadata and no tensor, which llama.cpp loads with `vocab_only` for tokenizing."""
    return encode_header(metadata=header.metadata, tensors=(), version=header.version)


def _name_in_shard(name: str, spec: ShardSpec, output: str | None) -> str:
    """Layers count from 0. llama.cpp takes the embedding for the output matrix when there is no `output.weight`, so the
    last shard holds its output matrix under that name and no embedding at all."""
    if name == output:
        return EMBEDDING
    return name if layer_of(name) is None else renumbered(name, spec.layer_start)


def _dummies(architecture: Architecture) -> tuple[tuple[str, tuple[int, ...], bytes], ...]:
    """Tensors that every model must have and this shard has no use for."""
    width = architecture.hidden_width
    return (
        (EMBEDDING, (width, DUMMY_ROWS), bytes(width * DUMMY_ROWS * _F32_BYTES)),
        (OUTPUT_NORM, (width,), struct.pack("<f", 1.0) * width),
    )


def _metadata(header: GgufHeader, architecture: Architecture, spec: ShardSpec, *, last: bool) -> dict[str, Value]:
    name = architecture.name
    changed = {f"{name}.block_count": number_value(header.metadata[f"{name}.block_count"].type, spec.layers)}
    for key in architecture.per_layer_keys:
        changed[key] = header.metadata[key].slice(spec.layer_start, spec.layer_end)
    metadata = {key: changed.get(key, value) for key, value in header.metadata.items()}
    if last:
        return metadata
    metadata = {key: value for key, value in metadata.items() if not key.startswith(_TOKENIZER)}
    metadata["tokenizer.ggml.model"] = text_value("no_vocab")
    metadata[f"{name}.vocab_size"] = number_value(ValueType.UINT32, DUMMY_ROWS)
    return metadata


def _runs(payload: list[TensorInfo], offsets: dict[str, int]) -> tuple[Run, ...]:
    runs: list[Run] = []
    position = 0
    for tensor in payload:
        _append(runs, Run(payload_offset=position, size=tensor.size_bytes, file_offset=offsets[tensor.name]))
        position += tensor.size_bytes
    return tuple(runs)


def _append(runs: list[Run], run: Run) -> None:
    """Joins it to the one before it where the file goes on without a gap: fewer, longer reads and writes."""
    before = runs[-1] if runs else None
    if before is not None and before.file_offset + before.size == run.file_offset:
        runs[-1] = Run(payload_offset=before.payload_offset, size=before.size + run.size, file_offset=before.file_offset)
    else:
        runs.append(run)


def _embedding(table: TensorInfo, file_offset: int) -> EmbeddingTable:
    columns, rows = table.dims
    size = tensor_size_bytes(table.type, table.dims)
    return EmbeddingTable(file_offset=file_offset, type=table.type, rows=rows, columns=columns, size_bytes=size)
