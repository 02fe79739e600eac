"""The manifest of a model: made from a header and its cuts, signed, written as JSON, and checked when it comes from outside.

Checking has two steps because the bytes arrive in two steps. `decode` knows the manifest alone: sizes, counts, order, sums,
signature. `check_against_header` compares it with the model's own header, tensor by tensor, so that a manifest cannot
name a tensor that is not there or give a layer to the wrong shard.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import msgspec
from blake3 import blake3

from swarmd.domain.hub import HubSource
from swarmd.domain.ids import ModelId, NodeId, parse_model_id, parse_node_id
from swarmd.domain.models import CHUNK_BYTES, Manifest, ShardSpec, TensorSpan
from swarmd.domain.refusals import BadFile, UnsupportedModel
from swarmd.models.architectures import MAX_LAYERS, check_supported
from swarmd.models.ggml import file_type_name
from swarmd.models.gguf import BadGguf, GgufHeader, GgufLimits
from swarmd.models.slicing import Cut, cuts_at, layout_id

MANIFEST_LIMIT: Final = 16 << 20
"""Bytes. A model of 1 TB has 120 k chunk hashes of 67 bytes each (8 MB), and 65,536 tensors take 100 bytes each (6.5 MB)."""

_MAX_FILE_BYTES: Final = 1 << 44  # 16 TiB, fifteen times the largest published model
_MAX_NUMBER: Final = 1 << 32  # of a width, a vocabulary, a context: the header's own limits are tighter
_MAX_SECONDS: Final = 1 << 40  # of `created_at`: year 36,000
_MAX_TEXT: Final = 256  # characters of a name, an architecture, a quantization
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_LAYOUT: Final = re.compile(r"[0-9a-f]{32}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
REPO_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
REPO_ID_MAX: Final = 96  # contract: swarmllm.md 2.4.2
FILENAME_MAX: Final = 256  # contract: the same
MAX_PARTS: Final = 999  # of a split GGUF; the largest published have some dozens
FILENAME: Final = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*\.gguf")
_TENSOR: Final = re.compile(r"[!-~]{1,63}")  # as the GGUF parser has it

Verify = Callable[[NodeId, bytes, bytes], bool]
"""(publisher, signed bytes, signature) -> whether the publisher made this signature. Must not raise."""

Sign = Callable[[bytes], bytes]
"""The node's signature over canonical bytes: 64 bytes of Ed25519."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadHash:
    """What is written down of a payload; see `ShardSpec`."""

    size_bytes: int
    blake3: str
    chunk_blake3: tuple[str, ...]


class PayloadHasher:
    """BLAKE3 over a payload and over each CHUNK_BYTES of it, fed in pieces of any size."""

    def __init__(self) -> None:
        self._whole = blake3()
        self._chunk = blake3()
        self._chunks: list[str] = []
        self._size = 0

    def feed(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        self._whole.update(view)
        while view:
            room = CHUNK_BYTES - self._size % CHUNK_BYTES
            piece, view = view[:room], view[room:]
            self._chunk.update(piece)
            self._size += len(piece)
            if self._size % CHUNK_BYTES == 0:
                self._end_chunk()

    def finish(self) -> PayloadHash:
        if self._size % CHUNK_BYTES:
            self._end_chunk()
        return PayloadHash(size_bytes=self._size, blake3=self._whole.hexdigest(), chunk_blake3=tuple(self._chunks))

    def _end_chunk(self) -> None:
        self._chunks.append(self._chunk.hexdigest())
        self._chunk = blake3()


def build_manifest(
    *,
    header: GgufHeader,
    cuts: tuple[Cut, ...],
    hashes: Sequence[PayloadHash | None],
    header_blake3: str,
    model: ModelId,
    name: str,
    file_size_bytes: int,
    shard_size_bytes: int,
    created_at: int,
    publisher: NodeId | None = None,
    source: HubSource | None = None,
) -> Manifest:
    """An unsigned manifest. `hashes`: one per cut; None of a payload that is still on the hub. `header_blake3`: over the
    file up to `header.data_offset`."""
    architecture = check_supported(header)
    assert not isinstance(architecture, UnsupportedModel), f"{model}: {architecture}"
    for cut, payload in zip(cuts, hashes, strict=True):
        assert payload is not None or source is not None, f"shard {cut.index} has neither hashes nor a source"
        assert payload is None or cut.size_bytes == payload.size_bytes, (
            f"shard {cut.index} has {cut.size_bytes} bytes, hashed {payload.size_bytes if payload else 0}"
        )
    return Manifest(
        model=model,
        name=_printable(name) or model,
        architecture=architecture.name,
        layer_count=architecture.layer_count,
        width=architecture.hidden_width,
        context_length=architecture.context_length,
        vocab_size=architecture.vocab_size,
        quantization=quantization(header),
        file_size_bytes=file_size_bytes,
        header_size_bytes=header.data_offset,
        header_blake3=header_blake3,
        shard_size_bytes=shard_size_bytes,
        layout=layout_id(header, cuts),
        shards=tuple(
            ShardSpec(
                index=cut.index,
                layer_start=cut.layer_start,
                layer_end=cut.layer_end,
                tensors=_spans(header, cut),
                size_bytes=cut.size_bytes,
                blake3="" if payload is None else payload.blake3,
                chunk_blake3=() if payload is None else payload.chunk_blake3,
            )
            for cut, payload in zip(cuts, hashes, strict=True)
        ),
        publisher=publisher,
        created_at=created_at,
        signature="",
        source=source,
    )


def quantization(header: GgufHeader) -> str:
    """llama.cpp's name of the file type, `unknown` where the file does not say or says nonsense."""
    try:
        return file_type_name(header.integer("general.file_type"))
    except BadGguf:
        return "unknown"


def signed(manifest: Manifest, publisher: NodeId, sign: Sign) -> Manifest:
    """The manifest under this publisher's name and signature."""
    named = replace(manifest, publisher=publisher, signature="")
    return replace(named, signature=sign(canonical_bytes(named)).hex())


def canonical_bytes(manifest: Manifest) -> bytes:
    """What is signed: JSON without the signature, keys sorted, no spaces, whole numbers and ASCII-safe strings only.

    A field that came later is left out where it says nothing, so that manifests signed before it stay good.
    """
    fields = msgspec.to_builtins(replace(manifest, signature=""))
    if manifest.source is None:
        del fields["source"]
    return msgspec.json.encode(fields, order="sorted")


def encode(manifest: Manifest) -> bytes:
    """The file `manifest.json`."""
    return msgspec.json.encode(manifest, order="sorted")


def decode(data: bytes, *, verify: Verify) -> Manifest | BadFile:
    """A manifest that is consistent in itself, with a good signature or without publisher and signature.

    Whoever wants signed manifests only refuses one whose `publisher` is None.
    """
    if len(data) > MANIFEST_LIMIT:
        return BadFile(what=f"a manifest of {len(data)} bytes is larger than the {MANIFEST_LIMIT} that one may have")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as reason:
        return BadFile(what=f"this is no manifest: {reason}")
    fault = _fault(manifest)
    if fault is None and not _signature_is_good(manifest, verify):
        fault = "its signature is not the publisher's"
    return manifest if fault is None else BadFile(what=f"this manifest cannot be used: {fault}")


def check_against_header(manifest: Manifest, header: GgufHeader) -> BadFile | None:
    """What in a decoded manifest does not fit the model's own header; None when all of it does.

    The cuts need not be those `plan_layout` would make today, only such that they hold every layer once, at places
    where the architecture can be cut, each with exactly its tensors: a later version may cut better, and must not
    invalidate shards that exist.
    """
    architecture = check_supported(header)
    if isinstance(architecture, UnsupportedModel):
        return BadFile(what=architecture.what)
    stated = (manifest.architecture, manifest.layer_count, manifest.width, manifest.context_length, manifest.vocab_size)
    found = (
        architecture.name,
        architecture.layer_count,
        architecture.hidden_width,
        architecture.context_length,
        architecture.vocab_size,
    )
    if stated != found:
        return BadFile(what=f"the manifest of {manifest.model} describes {stated}, the header {found}")
    if manifest.header_size_bytes != header.data_offset:
        return BadFile(what=f"the header of {manifest.model} does not end where its manifest says")
    bounds = (0, *(shard.layer_end for shard in manifest.shards))
    if any(bound % architecture.cut_period for bound in bounds[:-1]):
        return BadFile(
            what=f"{manifest.model} is cut at {bounds}, allowed are multiples of {architecture.cut_period} layers"
        )
    for shard in manifest.shards:
        if shard.layers in architecture.unloadable_runs:
            return BadFile(
                what=f"shard {shard.index} of {manifest.model} has {shard.layers} layers, "
                "by which llama.cpp takes it for another model"
            )
    cuts = cuts_at(header, architecture, bounds)
    for cut, shard in zip(cuts, manifest.shards, strict=True):
        if shard.tensors != _spans(header, cut):
            return BadFile(what=f"shard {shard.index} of {manifest.model} does not hold the tensors of its layers")
    if layout_id(header, cuts) != manifest.layout:
        return BadFile(what=f"the layout id of {manifest.model} is not that of its shards")
    return None


def _spans(header: GgufHeader, cut: Cut) -> tuple[TensorSpan, ...]:
    start = header.data_offset
    return tuple(
        TensorSpan(name=tensor.name, offset_bytes=start + tensor.offset_bytes, size_bytes=tensor.size_bytes)
        for tensor in cut.tensors
    )


def _signature_is_good(manifest: Manifest, verify: Verify) -> bool:
    if manifest.publisher is None:
        return not manifest.signature
    return bool(_SIGNATURE.fullmatch(manifest.signature)) and verify(
        manifest.publisher, canonical_bytes(manifest), bytes.fromhex(manifest.signature)
    )


def _fault(manifest: Manifest) -> str | None:
    """The first thing in it that cannot be; None when there is none."""
    try:
        parse_model_id(manifest.model)
        if manifest.publisher is not None:
            parse_node_id(manifest.publisher)
    except ValueError as reason:
        return str(reason)
    for what in (manifest.name, manifest.architecture, manifest.quantization):
        if not what or what != _printable(what):
            return f"{what[:_MAX_TEXT]!a} is empty, too long or not printable"
    return (
        _number_fault(manifest)
        or source_fault(manifest)
        or _order_fault(manifest)
        or _overlap_fault(manifest)
    )


def _number_fault(manifest: Manifest) -> str | None:
    for what, number, limit in (
        ("layers", manifest.layer_count, MAX_LAYERS),
        ("elements of a hidden state", manifest.width, _MAX_NUMBER),
        ("tokens of context", manifest.context_length, _MAX_NUMBER),
        ("tokens of vocabulary", manifest.vocab_size, _MAX_NUMBER),
        ("bytes of the file", manifest.file_size_bytes, _MAX_FILE_BYTES),
        ("bytes of the header", manifest.header_size_bytes, min(manifest.file_size_bytes, GgufLimits().max_header_bytes)),
        ("bytes a shard", manifest.shard_size_bytes, _MAX_FILE_BYTES),
        ("seconds of time", manifest.created_at + 1, _MAX_SECONDS),
        ("shards", len(manifest.shards), manifest.layer_count),
    ):
        if not 1 <= number <= limit:
            return f"{number} {what}, accepted are 1 to {limit}"
    if not _HASH.fullmatch(manifest.header_blake3):
        return "the hash of its header is not 64 lower-case hex digits"
    if not _LAYOUT.fullmatch(manifest.layout):
        return "its layout id is not 32 lower-case hex digits"
    return None


def source_fault(manifest: Manifest) -> str | None:
    """What is wrong with its source: a place on the hub that can be asked for, whose parts lie one after the other and
    within the file. None: nothing, or it has none."""
    source = manifest.source
    if source is None:
        return None
    if not REPO_ID.fullmatch(source.repo_id) or len(source.repo_id) > REPO_ID_MAX:
        return f"its source {source.repo_id[:_MAX_TEXT]!a} is no repository"
    if not _COMMIT.fullmatch(source.commit):
        return "its source has no commit of 40 lower-case hex digits"
    if not 1 <= len(source.parts) <= MAX_PARTS:
        return f"its source has {len(source.parts)} files, accepted are 1 to {MAX_PARTS}"
    start = end = manifest.header_size_bytes
    for part in source.parts:
        if not is_filename(part.filename):
            return f"its source has the file name {part.filename[:_MAX_TEXT]!a}"
        if part.sha256 is not None and not _HASH.fullmatch(part.sha256):
            return f"the SHA-256 of {part.filename} is not 64 lower-case hex digits"
        if not 0 < part.data_offset <= part.size_bytes or part.virtual_offset < start:
            return f"the offsets of {part.filename} in its source are impossible"
        start, end = part.virtual_offset, part.virtual_offset + part.size_bytes - part.data_offset
    vision = source.vision
    if vision is not None and (
        not is_filename(vision.filename)
        or not 0 < vision.size_bytes <= _MAX_FILE_BYTES
        or (vision.sha256 is not None and not _HASH.fullmatch(vision.sha256))
    ):
        return "the vision encoder of its source is impossible"
    return None if end <= manifest.file_size_bytes else "its source is larger than the file"


def is_filename(text: str) -> bool:
    """A GGUF file in a repository that can be asked for: folders and names of ordinary characters, no way out."""
    return len(text) <= FILENAME_MAX and bool(FILENAME.fullmatch(text)) and ".." not in text


def _order_fault(manifest: Manifest) -> str | None:
    """Shards 0, 1, 2 ... with the layers in order and without gaps, each consistent in itself."""
    layer = 0
    for index, shard in enumerate(manifest.shards):
        if shard.index != index:
            return f"shard {index} calls itself {shard.index}"
        if shard.layer_start != layer or not layer < shard.layer_end <= manifest.layer_count:
            return f"shard {index} has the layers [{shard.layer_start}, {shard.layer_end}), the next one is {layer}"
        layer = shard.layer_end
        fault = _shard_fault(shard, manifest.header_size_bytes, manifest.file_size_bytes)
        if fault is None and manifest.source is None and not shard.sealed:
            fault = "has neither hashes nor a place on the hub to be read from"
        if fault is not None:
            return f"shard {index} {fault}"
    return None if layer == manifest.layer_count else f"its shards end at layer {layer} of {manifest.layer_count}"


def _shard_fault(shard: ShardSpec, start: int, end: int) -> str | None:
    position, total = start, 0
    names: set[str] = set()
    for tensor in shard.tensors:
        if not _TENSOR.fullmatch(tensor.name) or tensor.name in names:
            return f"has the tensor {tensor.name[:_MAX_TEXT]!a}, which is no name or is there twice"
        names.add(tensor.name)
        if tensor.size_bytes < 1 or tensor.offset_bytes < position or tensor.offset_bytes + tensor.size_bytes > end:
            return f"has the tensor {tensor.name} at {tensor.offset_bytes}, outside the file, or out of order"
        position = tensor.offset_bytes + tensor.size_bytes
        total += tensor.size_bytes
    if not total or total != shard.size_bytes:
        return f"has {shard.size_bytes} bytes, its tensors {total}"
    if not shard.blake3 and not shard.chunk_blake3:
        return None  # not sealed yet
    if len(shard.chunk_blake3) != shard.chunk_count:
        return f"of {total} bytes has {len(shard.chunk_blake3)} chunks"
    if not all(_HASH.fullmatch(digits) for digits in (shard.blake3, *shard.chunk_blake3)):
        return "has a hash that is not 64 lower-case hex digits"
    return None


def _overlap_fault(manifest: Manifest) -> str | None:
    """Two shards may hold the same tensor (a tied embedding, RoPE factors), but never two tensors the same bytes."""
    spans: dict[str, TensorSpan] = {}
    for shard in manifest.shards:
        for tensor in shard.tensors:
            if spans.setdefault(tensor.name, tensor) != tensor:
                return f"tensor {tensor.name} lies at two places"
    ordered = sorted(spans.values(), key=lambda span: span.offset_bytes)
    for before, after in pairwise(ordered):
        if before.offset_bytes + before.size_bytes > after.offset_bytes:
            return f"the tensors {before.name} and {after.name} overlap"
    return None


def _printable(text: str) -> str:
    """At most _MAX_TEXT printable characters of it: names are shown in terminals, logs and pages."""
    return "".join(character for character in text if character.isprintable())[:_MAX_TEXT].strip()
