"""An adapter cut with the model computes what llama.cpp computes with the whole one, and that is W + scale * B A."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from swarmd.models import lora
from swarmd.models.safetensors import header_length, parse_header
from tests.fakes.adapters import merge_into, random_adapter, safetensors_bytes
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.llama import Llama
from tests.fakes.runs import chain_logits, whole_logits
from tests.fakes.shards import CutModel, cut_model, write_shards
from tests.models.test_shard_file_runs import layouts

ALPHA = 6.0

MODELS = {
    "llama": TinyModel(layers=5),
    "llama, Q4_0": TinyModel(layers=3, kind="Q4_0"),
    "llama, F16": TinyModel(layers=3, kind="F16", tied=True),
    "llama, experts": TinyModel(layers=3, experts=4),
    "qwen2": TinyModel(architecture="qwen2", layers=4, width=128),
    "qwen3": TinyModel(architecture="qwen3", layers=4),
    "gemma3": TinyModel(architecture="gemma3", layers=12, tied=True),
}


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    opened = Llama()
    yield opened
    opened.close()


def converted(data: bytes, model: CutModel, *, alpha: float = ALPHA) -> tuple[lora.Index, dict[int, bytes]]:
    """As a node does it, in memory."""
    tensors = parse_header(data[8 : 8 + header_length(data[:8], len(data))], len(data))
    plan = lora.plan_adapter(tensors, model.header, model.architecture, rank=None, alpha=alpha, config=None)
    assert isinstance(plan, lora.Plan), plan
    parts: list[lora.Part] = []
    contents: dict[int, bytes] = {}
    for layer, pairs in plan.layers.items():
        pieces: list[bytes] = []
        for pair in pairs:
            a, b = (data[one.offset : one.offset + one.size_bytes] for one in (pair.a, pair.b))
            piece = lora.convert(pair, a, b, model.architecture)
            assert isinstance(piece, bytes), piece
            pieces.append(piece)
        contents[layer] = b"".join(pieces)
        parts.append(lora.Part(layer, lora.part_hash(contents[layer]), [pair.pair() for pair in pairs]))
    index = lora.Index(model.architecture.name, plan.effective_alpha, parts)
    assert lora.decode_index(lora.encode_index(index)) == index
    return index, contents


def write_slice(path: Path, index: lora.Index, contents: dict[int, bytes], start: int, end: int) -> Path | None:
    cut = lora.slice_of(index, start, end)
    if cut is None:
        return None
    data = bytearray(cut.size_bytes)
    data[: len(cut.header)] = cut.header
    for layer, at, place, size in cut.places:
        data[place : place + size] = contents[layer][at : at + size]
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("shape", MODELS.values(), ids=MODELS.keys())
def test_the_slices_in_a_row_equal_the_whole_adapter_bit_for_bit(llama: Llama, tmp_path: Path, shape: TinyModel) -> None:
    path = write_model(tmp_path / "whole.gguf", shape)
    data = path.read_bytes()
    adapter = safetensors_bytes(random_adapter(shape))
    index, contents = converted(adapter, cut_model(data))
    whole_adapter = write_slice(tmp_path / "whole-adapter.gguf", index, contents, 0, shape.layers)
    whole = whole_logits(llama, path, shape.rows, adapter=whole_adapter)
    plain = whole_logits(llama, path, shape.rows)
    assert all(np.abs(one - other).max() > 0.1 for one, other in zip(whole, plain, strict=True)), "it has to do something"
    for cuts in layouts(data):
        model = cut_model(data, cuts=cuts)
        folder = tmp_path / str(len(cuts))
        folder.mkdir()
        slices = [
            write_slice(folder / f"adapter-{spec.index}.gguf", index, contents, spec.layer_start, spec.layer_end)
            for spec in model.manifest.shards
        ]
        chained = chain_logits(llama, model, write_shards(model, folder), adapters=slices)
        for step, (expected, found) in enumerate(zip(whole, chained, strict=True)):
            difference = float(np.abs(expected - found).max())
            assert expected.tobytes() == found.tobytes(), f"{len(cuts)} shards, step {step}: off by {difference}"


@pytest.mark.parametrize(
    "shape",
    [
        TinyModel(layers=3, kind="F32"),
        TinyModel(layers=3, kind="F32", heads=4, kv_heads=1, head_length=16),
        TinyModel(layers=3, kind="F32", experts=4),
        TinyModel(architecture="qwen2", layers=3, width=128, kind="F32"),
        TinyModel(architecture="qwen3", layers=3, kind="F32"),
        TinyModel(architecture="gemma3", layers=6, kind="F32", tied=True),
    ],
    ids=["llama, grouped heads", "llama, one kv head", "llama, experts", "qwen2", "qwen3", "gemma3"],
)
def test_an_adapter_is_worth_the_weights_merged_in_numpy(llama: Llama, tmp_path: Path, shape: TinyModel) -> None:
    """The proof that names, order of rows and scale are right: a second implementation, and other arithmetic."""
    path = write_model(tmp_path / "base.gguf", shape)
    tensors = random_adapter(shape)
    index, contents = converted(safetensors_bytes(tensors), cut_model(path.read_bytes()))
    adapter = write_slice(tmp_path / "adapter.gguf", index, contents, 0, shape.layers)
    merged = merge_into(shape, path, tmp_path / "merged.gguf", tensors, ALPHA / 4)
    with_adapter = whole_logits(llama, path, shape.rows, adapter=adapter)
    with_weights = whole_logits(llama, merged, shape.rows)
    without = whole_logits(llama, path, shape.rows)
    for found, expected, base in zip(with_adapter, with_weights, without, strict=True):
        off, worth = np.abs(found - expected).max(), np.abs(expected - base).max()
        assert off < 0.01 * worth, f"off by {off}, where the adapter is worth {worth}"


def test_every_architecture_that_can_be_adapted_is_proven_here() -> None:
    assert {model.architecture for model in MODELS.values()} == set(lora.ADAPTED)
