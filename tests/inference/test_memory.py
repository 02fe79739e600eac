"""The forecast of what a shard takes in memory. Against real workers it is measured in bench/predict.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmd.inference.memory import ACTIVATIONS, shard_bytes
from swarmd.models.catalog import KnownModel
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.shards import cut_model

CELLS, ROWS = 1000, 128


def known(folder: Path, shard_bytes: int = 1, **shape: object) -> KnownModel:
    cut = cut_model(
        write_model(folder / "tiny.gguf", TinyModel(layers=4, **shape)).read_bytes(), shard_size_bytes=shard_bytes
    )
    return KnownModel(manifest=cut.manifest, header=cut.header, architecture=cut.architecture, files=cut.files, pinned=True)


def forecast(model: KnownModel) -> list[int]:
    return [shard_bytes(model, index, cells=CELLS, rows=ROWS) for index in range(len(model.manifest.shards))]


def test_the_empty_embedding_of_a_last_shard_takes_memory_too(tmp_path: Path) -> None:
    with_it, without = (
        known(tmp_path, 1 << 30, architecture=architecture, heads=2, kv_heads=1) for architecture in ("internlm2", "llama")
    )
    (more,), (less,) = forecast(with_it), forecast(without)
    assert more - less == 320 * 18  # rows of 64 numbers: a block of Q2_0


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("tied", [False, True])
def test_weights_without_the_embedding_and_an_output_that_is_packed_anew_twice(
    tmp_path: Path, kind: str, tied: bool
) -> None:
    model = known(tmp_path, kind=kind, tied=tied)
    sizes = {tensor.name: tensor.size_bytes for tensor in model.header.tensors}
    shards = model.manifest.shards
    caches = 2 * (2 * 32 + 2 * 32) * CELLS  # of one layer: keys and values of two heads in F16
    buffers = ROWS * 64 * 4 * ACTIVATIONS
    output = sizes["token_embd.weight" if tied else "output.weight"]
    assert forecast(model) == [
        shards[0].size_bytes - sizes["token_embd.weight"] + caches + buffers,
        shards[1].size_bytes + caches + buffers,
        shards[2].size_bytes + caches + buffers,
        shards[3].size_bytes + (output if kind == "Q4_0" else 0) + caches + buffers + ROWS * 320 * 4,
    ]


def test_a_whole_model_that_uses_its_embedding_as_output_has_it_in_memory(tmp_path: Path) -> None:
    tied, untied = (known(tmp_path, 1 << 30, tied=tied) for tied in (True, False))
    table = next(one.size_bytes for one in untied.header.tensors if one.name == "token_embd.weight")
    (one,), (other,) = forecast(tied), forecast(untied)
    assert one == other
    assert untied.manifest.shards[0].size_bytes - tied.manifest.shards[0].size_bytes == table
