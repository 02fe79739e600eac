"""The proof behind every row of `architectures.FAMILIES`: the shards' logits are the whole model's, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from swarmd.domain.refusals import UnsupportedModel
from swarmd.models.architectures import FAMILIES, check_supported
from swarmd.models.gguf import parse_header
from swarmd.models.manifest import check_against_header
from swarmd.models.shard_file import vocabulary_file
from swarmd.models.slicing import Cut, cuts_at, plan_layout
from tests.fakes.gguf import DEEPSEEK2_LITE, DEEPSEEK2_PLAIN, SHAPES, SPECIAL_TOKENS, TinyModel, tokens, write_model
from tests.fakes.llama import Llama, NativeModel, Rows
from tests.fakes.recipes import RECIPES
from tests.fakes.runs import FIRST_CHUNK, PREFILL, chain_logits, run_whole, whole_logits
from tests.fakes.shards import cut_model, write_shards

CELL_BYTES = 64  # at most, of what llama.cpp writes about a cell beside its numbers

MODELS = {
    "llama": TinyModel(layers=5),
    "llama, tied": TinyModel(layers=3, tied=True),
    "llama, Q4_0": TinyModel(layers=3, kind="Q4_0"),
    "llama, F16, tied": TinyModel(layers=2, kind="F16", tied=True),
    "llama, RoPE factors": TinyModel(layers=3, rope_factors=True),
    "llama, tokenizer": TinyModel(layers=3, tokenizer=True),
    "llama, arrays per layer": TinyModel(layers=4, per_layer=True),
    "llama, experts": TinyModel(layers=3, experts=4),
    "qwen2": TinyModel(architecture="qwen2", layers=4, width=128),
    "qwen2, tied, output bias": TinyModel(architecture="qwen2", layers=3, width=128, tied=True, output_bias=True),
    "qwen3": TinyModel(architecture="qwen3", layers=4),
    "qwen3, tied, tokenizer": TinyModel(architecture="qwen3", layers=3, tied=True, tokenizer=True),
    "gemma3": TinyModel(architecture="gemma3", layers=12, tied=True),
    "gemma3, 20 layers": TinyModel(architecture="gemma3", layers=20, tied=True),
    "gemma3, period 3": TinyModel(architecture="gemma3", layers=7, tied=True, period=3),
    "gemma3, period 2": TinyModel(architecture="gemma3", layers=5, period=2),
    "gemma3, no window": TinyModel(architecture="gemma3", layers=8, window=0),
    "gemma3, 62 layers, equal scales": TinyModel(architecture="gemma3", layers=62, width=128, heads=4, tied=True),
    **{name: shape for name, shape in SHAPES.items() if name not in ("llama", "qwen2", "qwen3", "gemma3")},
    "qwen3moe, Q4_0": replace(SHAPES["qwen3moe"], kind="Q4_0"),
    "gemma2, F16": replace(SHAPES["gemma2"], kind="F16"),
    "gemma2, period 3": replace(SHAPES["gemma2"], layers=7, period=3),
    "phi3, Q4_0, long factors": replace(SHAPES["phi3"], kind="Q4_0", rope_long=128),
    "stablelm, parallel": replace(SHAPES["stablelm"], layer=RECIPES["stablelm"].layer.replace(" ffn_norm+", "")),
    "olmo2, no windows, F16": replace(SHAPES["olmo2"], kind="F16"),
    "deepseek2, Q4_0": replace(SHAPES["deepseek2"], kind="Q4_0"),
    "deepseek2, all layers dense but one": replace(SHAPES["deepseek2"], leading_dense=3),
    "deepseek2, keys and values of each head": replace(
        SHAPES["deepseek2"], layers=2, leading_dense=0, kv_heads=2, layer=DEEPSEEK2_PLAIN,
        keys=(("attention.key_length_mla", 0), ("attention.value_length_mla", 0)),
    ),
    "deepseek2, lite": replace(
        SHAPES["deepseek2"], leading_dense=0, layer=DEEPSEEK2_LITE, kind="F16", keys=(("attention.q_lora_rank", 0),)
    ),
    "olmo2, windows": replace(SHAPES["olmo2"], layers=9, window=16),
    "granite, F16, tied": replace(SHAPES["granite"], kind="F16", tied=True),
    "glm4, Q4_0": replace(SHAPES["glm4"], kind="Q4_0"),
    "gpt-oss, MXFP4": replace(SHAPES["gpt-oss"], kind="Q4_0", width=96),
}  # fmt: skip


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    opened = Llama()
    yield opened
    opened.close()


def layouts(data: bytes) -> list[tuple[Cut, ...]]:
    """In 1, 2, 3 and as many shards as possible."""
    header = parse_header(data, file_size_bytes=len(data))
    architecture = check_supported(header)
    assert not isinstance(architecture, UnsupportedModel), architecture
    starts = list(range(0, architecture.layer_count, architecture.cut_period))
    counts = sorted({count for count in (1, 2, 3, len(starts)) if count <= len(starts)})
    return [
        cuts_at(
            header,
            architecture,
            (*(starts[len(starts) * index // count] for index in range(count)), architecture.layer_count),
        )
        for count in counts
    ]


def assert_forecast(native: NativeModel, data: bytes) -> None:
    """The cache grows with each token by what was forecast, or by less where windows let it."""
    architecture = check_supported(parse_header(data, file_size_bytes=len(data)))
    assert not isinstance(architecture, UnsupportedModel), architecture
    sizes: list[int] = []
    for position in (1, 2):  # of sequence 2, which is in no step: one cell, then two
        native.run([(2, position, 1)])
        sizes.append(native.state_bytes(2))
    numbers = sizes[1] - sizes[0]
    forecast = architecture.kv_bytes_per_token(architecture.layer_count)
    assert forecast <= numbers <= forecast + CELL_BYTES, (numbers, forecast)


@pytest.mark.parametrize("shape", MODELS.values(), ids=MODELS.keys())
def test_shards_in_a_row_equal_the_whole_model(llama: Llama, tmp_path: Path, shape: TinyModel) -> None:
    path = write_model(tmp_path / "whole.gguf", shape)
    data = path.read_bytes()
    with NativeModel(llama, path) as native:
        whole = run_whole(native, shape.rows)
        assert_forecast(native, data)
    assert all(np.isfinite(logits).all() for logits in whole)
    assert len({logits.tobytes() for logits in whole[0]}) == FIRST_CHUNK, "the model has to tell positions apart"
    for cuts in layouts(data):
        model = cut_model(data, cuts=cuts)
        folder = tmp_path / str(len(cuts))
        folder.mkdir()
        chained = chain_logits(llama, model, write_shards(model, folder))
        for step, (expected, found) in enumerate(zip(whole, chained, strict=True)):
            difference = float(np.abs(expected - found).max())
            assert expected.tobytes() == found.tobytes(), f"{len(cuts)} shards, step {step}: off by {difference}"


def test_two_threads_change_nothing(llama: Llama, tmp_path: Path) -> None:
    path = write_model(tmp_path / "whole.gguf", TinyModel(layers=2))
    model = cut_model(path.read_bytes(), shard_size_bytes=1)
    found = chain_logits(llama, model, write_shards(model, tmp_path), threads=2)
    whole = whole_logits(llama, path, 320, threads=2)
    assert [step.tobytes() for step in found] == [step.tobytes() for step in whole]


def test_every_supported_architecture_is_proven_here() -> None:
    assert {model.architecture for model in MODELS.values()} == set(FAMILIES)


def test_ggml_converts_embeddings_as_the_gguf_package_does(llama: Llama, tmp_path: Path) -> None:
    for kind in ("Q8_0", "Q4_0", "F16"):
        path = write_model(tmp_path / f"{kind}.gguf", TinyModel(layers=1, kind=kind))
        model = cut_model(path.read_bytes())
        (file,) = write_shards(model, tmp_path)
        table = model.files[0].embedding
        assert table is not None
        reader = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == "token_embd.weight")
        expected = gguf.quants.dequantize(reader.data, reader.tensor_type)
        found = llama.embed(file, table, list(range(table.rows)), 1.0)
        assert np.array_equal(expected, found), kind


INSIDE = {
    "gemma3": (replace(SHAPES["gemma3"], layers=12), 5),
    "gemma2": (SHAPES["gemma2"], 3),
    "olmo2": (replace(SHAPES["olmo2"], layers=5, window=16), 2),
    "gpt-oss": (replace(SHAPES["gpt-oss"], layers=2), 1),
    "smollm3": (replace(SHAPES["smollm3"], layers=5), 2),
    "cohere2": (replace(SHAPES["cohere2"], layers=5), 2),
}


@pytest.mark.parametrize("name", INSIDE)
def test_a_cut_inside_the_pattern_would_be_wrong(llama: Llama, tmp_path: Path, name: str) -> None:
    """Why `layer_period` exists: such a shard loads, runs, and computes something else."""
    shape, place = INSIDE[name]
    path = write_model(tmp_path / "whole.gguf", shape)
    header = parse_header(path.read_bytes())
    architecture = check_supported(header)
    assert not isinstance(architecture, UnsupportedModel), architecture
    bounds = (0, place, shape.layers)
    with pytest.raises(AssertionError, match="bounds"):
        cuts_at(header, architecture, bounds)
    anywhere = replace(architecture, cut_period=1)
    model = cut_model(path.read_bytes(), cuts=cuts_at(header, anywhere, bounds), unchecked=True)
    refusal = check_against_header(model.manifest, header)
    assert refusal is not None and "allowed are multiples" in refusal.sentence
    found = chain_logits(llama, model, write_shards(model, tmp_path))
    assert found[1].tobytes() != whole_logits(llama, path, shape.rows)[1].tobytes()


def test_every_pattern_is_shown_to_matter() -> None:
    assert {name for name, family in FAMILIES.items() if family.layer_period > 1} == set(INSIDE)


RECOGNISED = {
    "gemma3": TinyModel(architecture="gemma3", layers=62, width=64, heads=4, tied=True),
    "gemma2": TinyModel(architecture="gemma2", layers=46, width=32, heads=2, kv_heads=1, tied=True),
    "exaone4": TinyModel(architecture="exaone4", layers=64, width=32, heads=1, kv_heads=1),
}


@pytest.mark.parametrize("name", RECOGNISED)
def test_a_model_known_by_its_layers_is_refused_because_its_shards_would_be_wrong(
    llama: Llama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """If llama.cpp stops looking at the number of layers, this fails and the refusal can go."""
    shape = RECOGNISED[name]
    path = write_model(tmp_path / "whole.gguf", shape)
    header = parse_header(path.read_bytes())
    refusal = check_supported(header)
    assert isinstance(refusal, UnsupportedModel)
    assert f"{shape.layers} layers" in refusal.sentence
    monkeypatch.setitem(FAMILIES, name, replace(FAMILIES[name], recognised_layer_count=None))
    architecture = check_supported(header)
    assert not isinstance(architecture, UnsupportedModel), architecture
    model = cut_model(path.read_bytes(), cuts=cuts_at(header, architecture, (0, 30, shape.layers)))
    found = chain_logits(llama, model, write_shards(model, tmp_path))
    assert found[1].tobytes() != whole_logits(llama, path, 320)[1].tobytes()


def test_large_command_r_models_are_refused_because_their_shards_would_not_load(llama: Llama, tmp_path: Path) -> None:
    layer = RECIPES["command-r"].layer + " attn_q_norm attn_k_norm"
    shape = replace(SHAPES["command-r"], layers=64, width=32, heads=1, layer=layer)
    path = write_model(tmp_path / "whole.gguf", shape)
    NativeModel(llama, path).close()
    refusal = check_supported(parse_header(path.read_bytes()))
    assert isinstance(refusal, UnsupportedModel) and "64 layers" in refusal.sentence
    fewer = write_model(tmp_path / "fewer.gguf", replace(shape, layers=2))
    with pytest.raises(AssertionError, match="wrong number of tensors"):
        NativeModel(llama, fewer)


def test_deepseek2_without_the_factor_for_queries_runs_in_any_number_of_layers(llama: Llama, tmp_path: Path) -> None:
    """llama.cpp knows it by its 27 layers; shards have others, and one of those with the factor must not have 27."""
    lite = TinyModel(architecture="deepseek2", layers=27, width=32, heads=1, kv_heads=1, layer=DEEPSEEK2_LITE)
    path = write_model(tmp_path / "whole.gguf", lite)
    header = parse_header(path.read_bytes())
    architecture = check_supported(header)
    assert not isinstance(architecture, UnsupportedModel), architecture
    model = cut_model(path.read_bytes(), cuts=cuts_at(header, architecture, (0, 11, 27)))
    found = chain_logits(llama, model, write_shards(model, tmp_path))
    assert [step.tobytes() for step in found] == [step.tobytes() for step in whole_logits(llama, path, 320)]


def test_deepseek2_is_not_cut_into_shards_that_would_be_taken_for_another_model(llama: Llama, tmp_path: Path) -> None:
    shape = TinyModel(architecture="deepseek2", layers=54, width=32, heads=1, kv_heads=1)
    path = write_model(tmp_path / "whole.gguf", shape)
    header = parse_header(path.read_bytes())
    architecture = check_supported(header)
    assert not isinstance(architecture, UnsupportedModel), architecture
    half = sum(tensor.size_bytes for tensor in header.tensors) // 2 + 1
    planned = plan_layout(header, half)
    assert isinstance(planned, tuple)
    assert len(planned) == 3 and all(cut.layer_end - cut.layer_start not in (26, 27) for cut in planned)
    halves = cut_model(path.read_bytes(), cuts=cuts_at(header, architecture, (0, 27, 54)), unchecked=True)
    refusal = check_against_header(halves.manifest, header)
    assert refusal is not None and "27 layers" in refusal.sentence
    with pytest.raises(AssertionError, match=r"attn_q\.weight"):
        NativeModel(llama, write_shards(halves, tmp_path)[0], tap="l_out-26")


def test_long_factors_are_taken_whatever_the_context_of_a_stage(llama: Llama, tmp_path: Path) -> None:
    """llama.cpp takes those for short contexts where a context has fewer cells than the model began with."""
    shapes = [replace(SHAPES["phi3"], rope_long=length) for length in (128, 512, 8192)]  # contexts here have 256 cells
    whole, chained = [], []
    for shape in shapes:
        path = write_model(tmp_path / f"{shape.rope_long}.gguf", shape)
        whole.append(whole_logits(llama, path, 320)[1].tobytes())
        model = cut_model(path.read_bytes(), shard_size_bytes=1)
        folder = tmp_path / str(shape.rope_long)
        folder.mkdir()
        chained.append(chain_logits(llama, model, write_shards(model, folder))[1].tobytes())
    long, short = whole[0], whole[1]
    assert long != short == whole[2]
    assert chained == [long, long, short]  # the model was trained for 4096 tokens


def test_the_vocabulary_file_tokenizes_like_the_model(llama: Llama, tmp_path: Path) -> None:
    path = write_model(tmp_path / "whole.gguf", TinyModel(layers=1, tokenizer=True))
    header = parse_header(path.read_bytes())
    vocabulary = tmp_path / "vocabulary.gguf"
    vocabulary.write_bytes(vocabulary_file(header))
    text = "<|im_start|>the shard is near Ω<|im_end|>"
    found = llama.tokenize(vocabulary, text)
    assert found == llama.tokenize(path, text)
    assert llama.vocabulary_size(vocabulary) == len(tokens())
    words = [tokens()[token] for token in found]
    assert words[:2] == ["<|im_start|>", "the"]
    assert words[-1] == "<|im_end|>"
    assert "Ġs" in words and set(SPECIAL_TOKENS) & set(words)


@pytest.mark.parametrize("name", MODELS)
def test_what_llama_cpp_gives_as_an_embedding_is_the_tensor_that_the_tail_s_tap_takes(
    llama: Llama, tmp_path: Path, name: str
) -> None:
    path = write_model(tmp_path / "tiny.gguf", MODELS[name])
    rows: Rows = [(0, position, (position * 31 + 7) % MODELS[name].rows) for position in range(PREFILL)]
    with NativeModel(llama, path, pooling=0) as embedding, NativeModel(llama, path, tap="result_norm") as tapped:
        assert np.array_equal(embedding.vectors(rows), tapped.run(rows))
