"""What a decode step costs, in layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmd.inference.effort import decode_effort
from swarmd.models.catalog import KnownModel
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.shards import cut_model


def known(folder: Path, model: TinyModel, shard_bytes: int = 1) -> KnownModel:
    cut = cut_model(write_model(folder / "tiny.gguf", model).read_bytes(), shard_size_bytes=shard_bytes)
    return KnownModel(manifest=cut.manifest, header=cut.header, architecture=cut.architecture, files=cut.files, pinned=True)


@pytest.mark.parametrize("tied", [False, True])
def test_the_last_shard_has_the_output_matrix_and_the_first_one_no_embedding(tmp_path: Path, tied: bool) -> None:
    model = known(tmp_path, TinyModel(layers=4, tied=tied))
    sizes = {tensor.name: tensor.size_bytes for tensor in model.header.tensors}
    layer = sum(size for name, size in sizes.items() if name.startswith("blk.0."))
    output = sizes["token_embd.weight" if tied else "output.weight"]
    assert decode_effort(model) == pytest.approx((1, 1, 1, 1 + output / layer))


def test_all_in_one_shard_is_the_sum(tmp_path: Path) -> None:
    whole = decode_effort(known(tmp_path, TinyModel(layers=4), 1 << 30))
    assert whole == (pytest.approx(sum(decode_effort(known(tmp_path, TinyModel(layers=4))))),)


def test_of_the_experts_only_those_that_a_token_meets_count(tmp_path: Path) -> None:
    model = known(tmp_path, TinyModel(layers=2, experts=4))
    sizes = {tensor.name: tensor.size_bytes for tensor in model.header.tensors}
    used = model.header.integer("llama.expert_used_count")
    assert used is not None and 0 < used < 4
    layer = sum(size * (used / 4 if "_exps." in name else 1) for name, size in sizes.items() if name.startswith("blk.0."))
    assert decode_effort(model) == pytest.approx((1, 1 + sizes["output.weight"] / layer))
