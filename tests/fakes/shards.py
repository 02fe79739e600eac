"""Cuts a GGUF file on disk into shard files, the plain way: everything in memory. For tests of what the pieces mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from swarmd.domain.ids import model_slug
from swarmd.domain.models import Manifest
from swarmd.models.architectures import Architecture, check_supported
from swarmd.models.gguf import GgufHeader, parse_header
from swarmd.models.manifest import PayloadHash, PayloadHasher, build_manifest, check_against_header
from swarmd.models.shard_file import Run, ShardFile, shard_file, source_runs
from swarmd.models.slicing import Cut, plan_layout


@dataclass(frozen=True, slots=True, kw_only=True)
class CutModel:
    header: GgufHeader
    architecture: Architecture
    manifest: Manifest
    payloads: tuple[bytes, ...]
    files: tuple[ShardFile, ...]


def cut_model(
    data: bytes, *, cuts: tuple[Cut, ...] | None = None, shard_size_bytes: int = 1 << 30, unchecked: bool = False
) -> CutModel:
    """All shards of a model; with `cuts` at these places, else as planned for the size. `unchecked`: wrong ones too."""
    header = parse_header(data, file_size_bytes=len(data))
    architecture = check_supported(header)
    assert isinstance(architecture, Architecture), architecture
    if cuts is None:
        planned = plan_layout(header, shard_size_bytes)
        assert isinstance(planned, tuple), planned
        cuts = planned
    payloads = tuple(payload_of(data, header, cut) for cut in cuts)
    manifest = build_manifest(
        header=header,
        cuts=cuts,
        hashes=[hash_of(payload) for payload in payloads],
        header_blake3=blake3(data[: header.data_offset]).hexdigest(),
        model=model_slug("tiny.gguf"),
        name="tiny",
        file_size_bytes=len(data),
        shard_size_bytes=shard_size_bytes,
        created_at=1_700_000_000,
    )
    assert unchecked or check_against_header(manifest, header) is None
    for shard, payload in zip(manifest.shards, payloads, strict=True):
        assert gather(data, source_runs(shard)) == payload
    files = tuple(shard_file(header, manifest, index) for index in range(len(cuts)))
    return CutModel(header=header, architecture=architecture, manifest=manifest, payloads=payloads, files=files)


def payload_of(data: bytes, header: GgufHeader, cut: Cut) -> bytes:
    starts = [(header.data_offset + tensor.offset_bytes, tensor.size_bytes) for tensor in cut.tensors]
    return b"".join(data[start : start + size] for start, size in starts)


def hash_of(payload: bytes) -> PayloadHash:
    hasher = PayloadHasher()
    hasher.feed(payload)
    return hasher.finish()


def gather(data: bytes, runs: tuple[Run, ...]) -> bytes:
    """The payload, out of a file that holds it in these runs."""
    return b"".join(data[run.file_offset : run.file_offset + run.size] for run in runs)


def assemble(file: ShardFile, payload: bytes) -> bytes:
    """The bytes of a shard file."""
    out = bytearray(file.size_bytes)
    out[: len(file.header)] = file.header
    for run in file.runs:
        out[run.file_offset : run.file_offset + run.size] = payload[run.payload_offset : run.payload_offset + run.size]
    for offset, data in file.tail:
        out[offset : offset + len(data)] = data
    assert len(out) == file.size_bytes
    return bytes(out)


def write_shards(model: CutModel, folder: Path) -> tuple[Path, ...]:
    paths = tuple(folder / f"shard_{index:03}.gguf" for index in range(len(model.files)))
    for path, file, payload in zip(paths, model.files, model.payloads, strict=True):
        path.write_bytes(assemble(file, payload))
    return paths
