"""How a shard lies on disk so that stock llama.cpp runs it as a small model of its own.

A shard file is a GGUF made here: own header, the payload's tensors, and for all but the last shard two dummies. llama.cpp
demands that the tensors it is told of lie one after the other, refuses those it does not need, and ignores what follows
them. So the embedding table of the first shard, which llama.cpp must not see (it would take it for the output matrix and
compute a full row of useless logits per token), lies behind everything that the header describes.

The payload itself never changes: it is the original tensor bytes, and `runs` says where each stretch of it goes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from swarmd.domain.models import Manifest, ShardSpec
from swarmd.domain.refusals import UnsupportedModel
from swarmd.models.architectures import (
    EMBEDDING,
    OUTPUT,
    OUTPUT_BIAS,
    OUTPUT_NORM,
    OUTPUT_NORM_BIAS,
    Architecture,
    check_supported,
    layer_of,
    renumbered,
)
from swarmd.models.ggml import F16, F32, Q1_0, Q2_0, Q4_0, TENSOR_TYPES, tensor_size_bytes
from swarmd.models.gguf import ALIGNMENT_KEY, GgufHeader, TensorInfo, encode_header, padded, place_tensors
from swarmd.models.gguf_values import Value, ValueType, number_value, text_value

DUMMY_ROWS: Final = 32
"""Rows of the embedding that llama.cpp demands of a shard without a vocabulary. It also multiplies every output row
with them, so few; a multiple of 32 keeps every data type's blocks and kernels content."""
_INNER_KEYS: Final = frozenset({"general.architecture", ALIGNMENT_KEY, "general.file_type", "general.name"})
"""What a shard without a vocabulary keeps beside the keys of its architecture: llama.cpp reads no others of it."""
_INNER_VALUE_BYTES: Final = 64 << 10
"""Longest value such a shard keeps. The longest llama.cpp reads of an architecture is one number for each of 512 layers,
4 KiB; a header with 60 MB under such a key would otherwise be written in front of every shard."""
_PREAMBLE_BYTES: Final = 24  # magic, version, the two counts


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
    """Everything needed to turn a payload into a file and back.

    One is kept in memory for every shard of every known model, so what is not payload (a header of up to 64 MB, dummies
    of up to 16 MB) is made when a file is written and not kept.
    """

    source: GgufHeader = field(repr=False)
    """The whole model's own."""
    architecture: Architecture
    spec: ShardSpec = field(repr=False)
    data_offset: int
    """Size of this file's header: where its tensor data starts."""
    runs: tuple[Run, ...]
    """In payload order, covering it without gaps."""
    size_bytes: int
    """Of the file. Bytes between runs are padding and zero."""
    embedding: EmbeddingTable | None
    """Only of the first shard."""

    @property
    def header(self) -> bytes:
        """Goes to offset 0. Made anew each time it is asked for."""
        table = _table(self.source, self.architecture, self.spec)
        metadata = _metadata(self.source, self.architecture, self.spec)
        encoded = encode_header(metadata=metadata, tensors=table.placed, version=self.source.version)
        assert len(encoded) == self.data_offset, f"a header of {len(encoded)} bytes was expected to have {self.data_offset}"
        return encoded

    @property
    def tail(self) -> tuple[tuple[int, bytes], ...]:
        """(file offset, bytes) of what is not payload. Made anew each time it is asked for."""
        if _is_last(self.architecture, self.spec):
            return ()  # the one dummy that some have is zero, as are bytes that nobody writes
        placed = _table(self.source, self.architecture, self.spec).placed[-len(_dummies(self.architecture)) :]
        ones = struct.pack("<f", 1.0) * self.architecture.hidden_width
        contents = (ones if at.name == OUTPUT_NORM else bytes(at.size_bytes) for at in placed)
        return tuple((self.data_offset + at.offset_bytes, data) for at, data in zip(placed, contents, strict=True))


def unused_bytes(architecture: Architecture) -> int:
    """Of the last shard's dummy, which llama.cpp loads all the same."""
    return sum(tensor_size_bytes(kind, dims) for _, dims, kind in _last_dummies(architecture))


def shard_file(header: GgufHeader, manifest: Manifest, index: int) -> ShardFile:
    """The file of shard `index`. The manifest has passed `manifest.check_against_header` with this header."""
    architecture = check_supported(header)
    assert not isinstance(architecture, UnsupportedModel), f"{manifest.model}: {architecture}"
    spec = manifest.shards[index]
    table = _table(header, architecture, spec)
    start = padded(_encoded_bytes(_metadata(header, architecture, spec), table.placed), header.alignment)
    offsets = {tensor.name: start + at.offset_bytes for tensor, at in zip(table.described, table.placed, strict=False)}
    end = start + padded(table.placed[-1].offset_bytes + table.placed[-1].size_bytes, header.alignment)
    embedding = next((tensor for tensor in table.payload if tensor.name == EMBEDDING), None) if index == 0 else None
    if embedding is not None and EMBEDDING not in offsets:
        offsets[EMBEDDING] = end
        end += padded(embedding.size_bytes, header.alignment)
    return ShardFile(
        source=header,
        architecture=architecture,
        spec=spec,
        data_offset=start,
        runs=_runs(table.payload, offsets),
        size_bytes=end,
        embedding=None if embedding is None else _embedding(embedding, offsets[EMBEDDING]),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The tensors of a shard file."""

    payload: tuple[TensorInfo, ...]
    """As the original header has them."""
    described: tuple[TensorInfo, ...]
    """Those of the payload that llama.cpp is told of, as the original header has them."""
    placed: tuple[TensorInfo, ...]
    """Names and places in this file: the described ones in the same order, then the dummies."""


def _table(header: GgufHeader, architecture: Architecture, spec: ShardSpec) -> _Table:
    last = _is_last(architecture, spec)
    by_name = {tensor.name: tensor for tensor in header.tensors}
    payload = tuple(by_name[span.name] for span in spec.tensors)
    output = (EMBEDDING if architecture.tied else OUTPUT) if last and OUTPUT not in architecture.demands else None
    described = tuple(tensor for tensor in payload if tensor.name != EMBEDDING or output == EMBEDDING)
    rows = [(_name_in_shard(tensor.name, spec, output), tensor.dims, tensor.type) for tensor in described]
    dummies = _last_dummies(architecture) if last else tuple((name, dims, F32) for name, dims in _dummies(architecture))
    return _Table(
        payload=payload, described=described, placed=place_tensors((*rows, *dummies), alignment=header.alignment)
    )


def _is_last(architecture: Architecture, spec: ShardSpec) -> bool:
    return spec.layer_end == architecture.layer_count


def _encoded_bytes(metadata: Mapping[str, Value], tensors: tuple[TensorInfo, ...]) -> int:
    """What `encode_header` makes of these, before its padding, without making it."""
    size = _PREAMBLE_BYTES
    for key, value in metadata.items():
        size += 8 + len(key) + (16 if value.is_array else 4) + len(value.data)
    return size + sum(24 + len(tensor.name) + 8 * len(tensor.dims) for tensor in tensors)


def _name_in_shard(name: str, spec: ShardSpec, output: str | None) -> str:
    """Layers count from 0. llama.cpp takes the embedding for the output matrix when there is no `output.weight`, so the
    last shard holds its output matrix under that name and no embedding at all."""
    if name == output:
        return EMBEDDING
    return name if layer_of(name) is None else renumbered(name, spec.layer_start)


def _dummies(architecture: Architecture) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Tensors that every model must have and a shard that is not the last has no use for; float32."""
    width = architecture.hidden_width
    demanded = {OUTPUT: (width, DUMMY_ROWS), OUTPUT_BIAS: (DUMMY_ROWS,), OUTPUT_NORM_BIAS: (width,)}
    more = tuple((name, dims) for name, dims in demanded.items() if name in architecture.demands)
    return ((EMBEDDING, (width, DUMMY_ROWS)), (OUTPUT_NORM, (width,)), *more)


def _last_dummies(architecture: Architecture) -> tuple[tuple[str, tuple[int, ...], int], ...]:
    """Where llama.cpp does not take the embedding for the output matrix it demands both, each with a row per token. Nobody
    looks anything up in this one: it is zero, and of the type with fewest bits."""
    if OUTPUT not in architecture.demands:
        return ()
    width = architecture.hidden_width
    kind = next(kind for kind in (Q1_0, Q2_0, Q4_0, F16) if width % TENSOR_TYPES[kind].block_elements == 0)
    return ((EMBEDDING, (width, architecture.vocab_size), kind),)


def _metadata(header: GgufHeader, architecture: Architecture, spec: ShardSpec) -> dict[str, Value]:
    """The last shard keeps everything; the others what llama.cpp runs layers with, and no vocabulary."""
    name = architecture.name
    changed: dict[str, Value] = {
        f"{name}.block_count": number_value(header.metadata[f"{name}.block_count"].type, spec.layers)
    }
    for key in architecture.per_layer_keys:
        changed[key] = header.metadata[key].slice(spec.layer_start, spec.layer_end)
    for key in architecture.counted_keys:
        (count,) = header.metadata[key].numbers()
        left = min(max(int(count) - spec.layer_start, 0), spec.layers)
        changed[key] = number_value(header.metadata[key].type, left)
    changed |= dict(architecture.fixed_keys)
    metadata = {**header.metadata, **changed}
    if _is_last(architecture, spec):
        return metadata
    metadata = {
        key: value
        for key, value in metadata.items()
        if (key in _INNER_KEYS or key.startswith(f"{name}.")) and len(value.data) <= _INNER_VALUE_BYTES
    }
    metadata["tokenizer.ggml.model"] = text_value("no_vocab")
    metadata[f"{name}.vocab_size"] = number_value(ValueType.UINT32, DUMMY_ROWS)
    return metadata


def _runs(payload: tuple[TensorInfo, ...], offsets: dict[str, int]) -> tuple[Run, ...]:
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
