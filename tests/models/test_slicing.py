from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.ids import NodeId, model_slug
from swarmd.domain.refusals import UnsupportedModel
from swarmd.models.architectures import Architecture, check_supported
from swarmd.models.gguf import GgufHeader, parse_header, place_tensors
from swarmd.models.gguf_values import ValueType, number_value
from swarmd.models.slicing import Cut, cuts_at, fair_share, layout_id, plan_layout
from tests.fakes.gguf import TinyModel, write_model

MODEL = model_slug("a.gguf")


@cache
def header_of(model: TinyModel) -> GgufHeader:
    with tempfile.TemporaryDirectory() as folder:
        return parse_header(write_model(Path(folder) / "model.gguf", model).read_bytes())


def large_header(layers: int, *, layer_bytes: int, table_bytes: int, tied: bool = False) -> GgufHeader:
    """A model of real proportions, without data: F32 tensors of the given sizes, width 64."""
    metadata = dict(header_of(TinyModel(layers=1)).metadata)
    rows = [("token_embd.weight", (64, table_bytes // 256), 0), ("output_norm.weight", (64,), 0)]
    rows += [(f"blk.{layer}.ffn_up.weight", (64, layer_bytes // 256), 0) for layer in range(layers)]
    rows += [] if tied else [("output.weight", (64, table_bytes // 256), 0)]
    metadata["llama.block_count"] = number_value(ValueType.UINT32, layers)
    metadata["llama.vocab_size"] = number_value(ValueType.UINT32, table_bytes // 256)
    tensors = place_tensors(rows, alignment=32)
    return GgufHeader(version=3, metadata=metadata, tensors=tensors, alignment=32, data_offset=4096)


def planned(header: GgufHeader, size: int) -> tuple[Cut, ...]:
    cuts = plan_layout(header, size)
    assert not isinstance(cuts, UnsupportedModel), cuts
    return cuts


def check(header: GgufHeader, cuts: tuple[Cut, ...]) -> Architecture:
    """What holds for every layout."""
    architecture = check_supported(header)
    assert isinstance(architecture, Architecture)
    assert [cut.index for cut in cuts] == list(range(len(cuts)))
    assert cuts[0].layer_start == 0 and cuts[-1].layer_end == architecture.layer_count
    assert all(before.layer_end == after.layer_start for before, after in pairwise(cuts))
    assert all(cut.layer_start < cut.layer_end and cut.layer_start % architecture.cut_period == 0 for cut in cuts)
    holders = Counter(tensor.name for cut in cuts for tensor in cut.tensors)
    for tensor in header.tensors:
        twice = tensor.name == "token_embd.weight" and architecture.tied and len(cuts) > 1
        expected = len(cuts) if tensor.name == "rope_freqs.weight" else 1 + twice
        assert holders[tensor.name] == expected, tensor.name
    order = {tensor.name: place for place, tensor in enumerate(header.tensors)}
    for cut in cuts:
        places = [order[tensor.name] for tensor in cut.tensors]
        assert places == sorted(places), "payload is in file order"
        assert cut.size_bytes == sum(tensor.size_bytes for tensor in cut.tensors)
        for tensor in cut.tensors:
            if tensor.name.startswith("blk."):
                assert cut.layer_start <= int(tensor.name.split(".")[1]) < cut.layer_end
    assert "token_embd.weight" in {tensor.name for tensor in cuts[0].tensors}
    assert "output_norm.weight" in {tensor.name for tensor in cuts[-1].tensors}
    return architecture


@given(st.integers(1, 60), st.integers(1, 2000), st.integers(1, 4000), st.integers(1, 40_000), st.booleans())
def test_every_layout_holds_every_layer_once(
    layers: int, layer_rows: int, table_rows: int, shard_rows: int, tied: bool
) -> None:
    header = large_header(layers, layer_bytes=layer_rows * 256, table_bytes=table_rows * 256, tied=tied)
    cuts = planned(header, shard_rows * 256)
    architecture = check(header, cuts)
    total = sum(tensor.size_bytes for tensor in header.tensors)
    assert len(cuts) == min(max(-(-total // (shard_rows * 256)), 1), layers)
    assert planned(header, shard_rows * 256) == cuts
    bounds = (0, *(cut.layer_end for cut in cuts))
    assert cuts_at(header, architecture, bounds) == cuts


@given(st.integers(1, 20), st.integers(2, 7), st.integers(1, 1 << 18))
def test_gemma3_is_cut_between_its_patterns_only(layers: int, period: int, size: int) -> None:
    if period > layers:
        return
    header = header_of(TinyModel(architecture="gemma3", layers=layers, tied=True, period=period))
    architecture = check(header, planned(header, size))
    assert architecture.cut_period == period


@given(st.integers(1, 1 << 17))
def test_rope_factors_are_in_every_shard(size: int) -> None:
    header = header_of(TinyModel(layers=5, rope_factors=True))
    check(header, planned(header, size))


@pytest.mark.parametrize(
    ("layers", "layer_mb", "table_mb", "count", "smallest", "largest"),
    [
        (22, 27, 22, 2, 290, 350),  # like TinyLlama 1.1B Q4_K_M: 638 MB in 2 shards (swarmllm.md 4.1)
        (28, 57, 165, 4, 400, 520),  # like Llama 3.2 3B: 1925 MB in 4
        (32, 138, 140, 10, 270, 560),  # like Llama 3.1 8B: 4692 MB in 10
    ],
)
def test_models_of_real_size(layers: int, layer_mb: int, table_mb: int, count: int, smallest: int, largest: int) -> None:
    mega = 1 << 20
    header = large_header(layers, layer_bytes=layer_mb * mega, table_bytes=table_mb * mega)
    cuts = planned(header, 512 * mega)
    assert len(cuts) == count
    sizes = [cut.size_bytes / mega for cut in cuts]
    assert smallest <= min(sizes) and max(sizes) <= largest, sizes


def test_one_shard_is_everything() -> None:
    header = header_of(TinyModel(layers=3, tied=True))
    (cut,) = planned(header, 1 << 40)
    assert cut.tensors == header.tensors


def test_a_tied_embedding_is_in_the_first_and_in_the_last_shard() -> None:
    header = header_of(TinyModel(layers=3, tied=True))
    cuts = planned(header, 1)
    assert ["token_embd.weight" in {tensor.name for tensor in cut.tensors} for cut in cuts] == [True, False, True]


def test_what_is_not_supported_is_not_cut() -> None:
    header = header_of(TinyModel(layers=1))
    assert isinstance(plan_layout(replace(header, tensors=()), 1 << 20), UnsupportedModel)


def test_the_layout_id_is_of_tensors_and_cuts_only() -> None:
    header = header_of(TinyModel(layers=4))
    two, four = planned(header, 1 << 18), planned(header, 1)
    assert len(two) != len(four)
    first = layout_id(header, two)
    assert len(first) == 32 and first == layout_id(header, two)
    assert first != layout_id(header, four)
    renamed = {**header.metadata, "general.name": header.metadata["general.architecture"]}
    assert layout_id(replace(header, metadata=renamed), two) == first
    other = header_of(TinyModel(layers=4, kind="Q4_0"))
    assert layout_id(other, planned(other, 1 << 18)) != first


def test_the_layout_id_never_changes() -> None:
    """Shards that exist were cut under it: a new id would make every node's holdings worthless to every other."""
    header = large_header(3, layer_bytes=4096, table_bytes=1024)
    assert layout_id(header, planned(header, 6000)) == "866902135fa61754fd483bfb9a281d2e"


NODES = st.binary(min_size=32, max_size=32).map(lambda raw: NodeId(raw.hex()))


@given(NODES, st.integers(1, 200), st.integers(0, 300))
def test_a_fair_share_is_a_run_of_shards(node: NodeId, shards: int, peers: int) -> None:
    share = fair_share(node, MODEL, shards, peers)
    assert len(share) == len(set(share)) == -(-shards // (peers + 1))
    assert share == tuple(sorted(share)) and share[0] >= 0 and share[-1] < shards
    assert share[-1] - share[0] == len(share) - 1, "one run of layers: two would be a hop more for every token"
    assert share == fair_share(node, MODEL, shards, peers)


def test_alone_a_node_takes_everything() -> None:
    assert fair_share(NodeId("ab" * 32), MODEL, 7, 0) == tuple(range(7))


def test_every_place_is_about_equally_likely_and_the_last_ones_are_one() -> None:
    starts = Counter(fair_share(NodeId(f"{number:064x}"), MODEL, 10, 3)[0] for number in range(2000))
    assert set(starts) == set(range(8)), "a run of three never begins behind shard 7"
    assert max(starts[at] for at in range(7)) < 1.5 * min(starts[at] for at in range(7)), starts
    assert starts[7] > 2 * starts[0], "it is what a start at 8 or 9 is shifted to"


def test_another_model_starts_elsewhere() -> None:
    node = NodeId("ab" * 32)
    assert len({fair_share(node, model_slug(f"m{number}.gguf"), 50, 49) for number in range(40)}) > 20
