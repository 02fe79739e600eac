from __future__ import annotations

import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest

from swarmd.domain.refusals import UnsupportedModel
from swarmd.models.architectures import check_supported
from swarmd.models.gguf import encode_header, parse_header
from swarmd.models.gguf_values import Value, text_value
from swarmd.models.shard_file import DUMMY_ROWS, shard_file, vocabulary_file
from swarmd.models.slicing import cuts_at
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.shards import CutModel, assemble, cut_model, gather

SHAPES = {
    "untied": TinyModel(layers=5, tokenizer=True),
    "tied": TinyModel(layers=5, tied=True, tokenizer=True),
    "arrays": TinyModel(layers=5, per_layer=True),
    "factors": TinyModel(layers=5, rope_factors=True),
}
BOUNDS = ((0, 5), (0, 2, 5), (0, 1, 2, 5))


def cut_at(data: bytes, bounds: tuple[int, ...]) -> CutModel:
    header = parse_header(data)
    architecture = check_supported(header)
    assert not isinstance(architecture, UnsupportedModel), architecture
    return cut_model(data, cuts=cuts_at(header, architecture, bounds))


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def data(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    return write_model(tmp_path / "whole.gguf", request.param).read_bytes()


@pytest.mark.parametrize("bounds", BOUNDS)
def test_a_payload_goes_in_and_comes_out_unchanged(data: bytes, bounds: tuple[int, ...]) -> None:
    model = cut_at(data, bounds)
    for file, payload in zip(model.files, model.payloads, strict=True):
        assert gather(assemble(file, payload), file.runs) == payload
        assert [run.payload_offset for run in file.runs] == [
            sum(run.size for run in file.runs[:place]) for place in range(len(file.runs))
        ]
        spans = sorted(
            [(0, len(file.header))]
            + [(run.file_offset, run.size) for run in file.runs]
            + [(offset, len(tail)) for offset, tail in file.tail]
        )
        ends = [start + size for start, size in spans]
        assert all(end <= start for end, (start, _) in zip(ends, spans[1:], strict=False)), "nothing overlaps"
        assert ends[-1] <= file.size_bytes < ends[-1] + 32


@pytest.mark.parametrize("bounds", BOUNDS)
def test_the_gguf_package_reads_the_layers_out_of_a_shard(data: bytes, bounds: tuple[int, ...], tmp_path: Path) -> None:
    model = cut_at(data, bounds)
    whole = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "whole.gguf").tensors}
    for shard, file, payload in zip(model.manifest.shards, model.files, model.payloads, strict=True):
        path = tmp_path / "shard.gguf"
        path.write_bytes(assemble(file, payload))
        last = shard.layer_end == 5
        for tensor in gguf.GGUFReader(path).tensors:
            name = tensor.name
            if name.startswith("blk."):
                _, layer, rest = name.split(".", 2)
                name = f"blk.{int(layer) + shard.layer_start}.{rest}"
            if name == "token_embd.weight" and last:
                name = "token_embd.weight" if model.architecture.tied else "output.weight"
            elif name in ("token_embd.weight", "output_norm.weight") and not last:
                expected = 0.0 if name == "token_embd.weight" else 1.0
                assert np.all(tensor.data == expected)
                continue
            assert np.array_equal(tensor.data, whole[name]), name


def test_metadata_of_an_inner_shard(tmp_path: Path) -> None:
    path = write_model(tmp_path / "whole.gguf", TinyModel(layers=5, per_layer=True))
    model = cut_at(path.read_bytes(), (0, 1, 3, 5))
    inner, last = (parse_header(model.files[index].header) for index in (1, 2))
    original = model.header
    assert inner.integer("llama.block_count") == 2
    assert inner.integers("llama.attention.head_count") == (4, 4)
    assert inner.text("tokenizer.ggml.model") == "no_vocab"
    assert inner.integer("llama.vocab_size") == DUMMY_ROWS
    changed = {key for key in original.metadata if inner.metadata.get(key) != original.metadata[key]}
    assert changed == {
        "llama.block_count",
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "llama.feed_forward_length",
        "llama.vocab_size",
    }
    assert last.integer("llama.vocab_size") == 320


def test_only_the_last_shard_keeps_the_tokenizer(tmp_path: Path) -> None:
    path = write_model(tmp_path / "whole.gguf", TinyModel(layers=2, tokenizer=True))
    model = cut_at(path.read_bytes(), (0, 1, 2))
    first, last = (parse_header(file.header).metadata for file in model.files)
    assert [key for key in first if key.startswith("tokenizer.")] == ["tokenizer.ggml.model"]
    kept = {key: value for key, value in model.header.metadata.items() if key.startswith("tokenizer.")}
    assert len(kept) > 5 and kept.items() <= last.items()


@pytest.mark.parametrize("tied", [False, True])
def test_the_real_embedding_lies_behind_what_llama_cpp_is_told_of(tmp_path: Path, tied: bool) -> None:
    data = write_model(tmp_path / "whole.gguf", TinyModel(layers=2, tied=tied)).read_bytes()
    reader = next(t for t in gguf.GGUFReader(tmp_path / "whole.gguf").tensors if t.name == "token_embd.weight")
    for bounds in ((0, 1, 2), (0, 2)):
        model = cut_at(data, bounds)
        file, header = model.files[0], parse_header(model.files[0].header)
        table = file.embedding
        assert table is not None and (table.type, table.columns, table.rows) == (8, 64, 320)
        assert table.size_bytes == 320 * table.row_bytes == 320 * 68
        content = assemble(file, model.payloads[0])
        assert content[table.file_offset : table.file_offset + table.size_bytes] == reader.data.tobytes()
        described_end = header.data_offset + max(row.offset_bytes + row.size_bytes for row in header.tensors)
        if tied and bounds == (0, 2):
            assert table.file_offset < described_end, "tied and alone: the output matrix is the embedding"
        else:
            assert table.file_offset >= described_end
        assert all(other.embedding is None for other in model.files[1:])


def test_the_vocabulary_file_is_the_metadata_alone(data: bytes) -> None:
    header = parse_header(data)
    found = parse_header(vocabulary_file(header))
    assert (dict(found.metadata), found.tensors) == (dict(header.metadata), ())


def with_metadata(data: bytes, extra: dict[str, Value]) -> bytes:
    """The same model with more in its header."""
    header = parse_header(data)
    encoded = encode_header(metadata={**header.metadata, **extra}, tensors=header.tensors, version=header.version)
    return encoded + data[header.data_offset :]


def test_a_large_header_is_not_kept_in_memory_for_every_shard(tmp_path: Path) -> None:
    data = write_model(tmp_path / "whole.gguf", TinyModel(layers=5, width=256)).read_bytes()
    large = text_value("x" * 1_000_000)
    model = cut_at(with_metadata(data, {"general.note": large, "llama.note": large}), (0, 1, 2, 3, 4, 5))
    tracemalloc.start()
    try:
        files = tuple(shard_file(model.header, model.manifest, index) for index in range(5))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 50_000, "neither headers nor the dummies' 32 kB"
    assert files == model.files and all(file.data_offset == len(file.header) for file in files)


def test_a_large_header_is_written_in_front_of_the_last_shard_alone(tmp_path: Path) -> None:
    data = write_model(tmp_path / "whole.gguf", TinyModel(layers=3, tokenizer=True)).read_bytes()
    large = text_value("x" * 1_000_000)
    model = cut_at(with_metadata(data, {"general.note": large, "llama.note": large, "foreign.key": large}), (0, 1, 2, 3))
    first, second, last = (parse_header(file.header) for file in model.files)
    for inner in (first, second):
        assert inner.data_offset < 10_000
        assert {key for key in inner.metadata if not key.startswith("llama.")} == {
            "general.architecture", "general.name", "general.file_type", "tokenizer.ggml.model",
        }  # fmt: skip
    assert set(last.metadata) == set(model.header.metadata) and last.data_offset > 3_000_000
