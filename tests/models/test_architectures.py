from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from swarmd.domain.refusals import UnsupportedModel
from swarmd.models.architectures import CANNOT_BE_CUT, FAMILIES, Architecture, check_supported, layer_of, renumbered
from swarmd.models.gguf import GgufHeader, TensorInfo, parse_header
from swarmd.models.gguf_values import Value, ValueType, number_array, number_value, text_value
from tests.fakes.gguf import DEEPSEEK2_LITE, SHAPES, TinyModel, handmade, pair, string, write_model

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def header_of(folder: Path, model: TinyModel) -> GgufHeader:
    return parse_header(write_model(folder / "model.gguf", model).read_bytes())


def shape_of(header: GgufHeader) -> Architecture:
    architecture = check_supported(header)
    assert isinstance(architecture, Architecture), architecture
    return architecture


def changed(header: GgufHeader, values: Mapping[str, Value | None]) -> GgufHeader:
    merged = {**header.metadata, **values}
    return replace(header, metadata={key: value for key, value in merged.items() if value is not None})


def u32(number: int) -> Value:
    return number_value(ValueType.UINT32, number)


def test_shape_of_a_llama(tmp_path: Path) -> None:
    found = shape_of(header_of(tmp_path, TinyModel(layers=3, rope_factors=True)))
    assert found == Architecture(
        name="llama",
        layer_count=3,
        hidden_width=64,
        context_length=4096,
        vocab_size=320,
        kv_heads=2,
        key_length=32,
        value_length=32,
        embedding_scale=1.0,
        cut_period=1,
        tied=False,
        per_layer_keys=(),
    )
    assert found.kv_bytes_per_token(2) == 2 * 2 * (32 + 32) * 2
    assert found.kv_bytes_per_token(2, element_bytes=4) == 2 * found.kv_bytes_per_token(2)


def test_shape_of_a_gemma3(tmp_path: Path) -> None:
    header = header_of(tmp_path, TinyModel(architecture="gemma3", layers=7, width=96, tied=True))
    found = shape_of(header)
    assert (found.cut_period, found.tied) == (6, True)
    assert np.float32(found.embedding_scale) == np.sqrt(np.float32(96)) == found.embedding_scale
    assert shape_of(changed(header, {"gemma3.attention.sliding_window_pattern": u32(4)})).cut_period == 4


def test_absent_keys_have_llama_cpps_defaults(tmp_path: Path) -> None:
    header = header_of(tmp_path, TinyModel(layers=1, heads=4, kv_heads=4, head_length=32))
    absent = ("attention.head_count_kv", "attention.key_length", "attention.value_length", "vocab_size")
    found = shape_of(changed(header, {f"llama.{key}": None for key in absent}))
    assert (found.kv_heads, found.key_length, found.value_length, found.vocab_size) == (4, 16, 16, 320)


def test_a_tokenizer_gives_the_vocabulary_its_size(tmp_path: Path) -> None:
    model = TinyModel(layers=1, tokenizer=True)
    assert shape_of(header_of(tmp_path, model)).vocab_size == model.rows


def test_arrays_with_one_number_per_layer_are_known_by_name(tmp_path: Path) -> None:
    found = shape_of(header_of(tmp_path, TinyModel(layers=4, per_layer=True)))
    assert set(found.per_layer_keys) == {
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "llama.feed_forward_length",
    }
    assert found.kv_heads == 2


def test_embedding_scales_of_the_file_are_ours_to_apply(tmp_path: Path) -> None:
    header = header_of(tmp_path, SHAPES["granite"])
    found = shape_of(header)
    assert found.embedding_scale == np.float32(0.7)
    assert dict(found.fixed_keys)["granite.embedding_scale"].numbers() == (1.0,)
    none = shape_of(changed(header, {"granite.embedding_scale": number_value(ValueType.FLOAT32, 0.0)}))
    assert none.embedding_scale == 1.0
    for wrong in (text_value("12"), number_value(ValueType.FLOAT32, float("nan")), u32(12)):
        assert isinstance(check_supported(changed(header, {"granite.embedding_scale": wrong})), UnsupportedModel)


def test_latent_attention_keeps_one_row_for_keys_and_values(tmp_path: Path) -> None:
    header = header_of(tmp_path, SHAPES["deepseek2"])
    assert shape_of(header).kv_bytes_per_token(4) == 4 * 48 * 2
    plain = shape_of(changed(header, {"deepseek2.attention.key_length_mla": None}))
    assert plain.kv_bytes_per_token(4) == 4 * (48 + 32) * 2


def test_windows_that_are_turned_off_need_no_pattern(tmp_path: Path) -> None:
    header = header_of(tmp_path, SHAPES["olmo2"])
    assert shape_of(header).cut_period == 1
    assert shape_of(changed(header, {"olmo2.attention.sliding_window": u32(16)})).cut_period == 4


def test_deepseek2_says_which_runs_of_layers_load(tmp_path: Path) -> None:
    whole = shape_of(header_of(tmp_path, SHAPES["deepseek2"]))
    assert whole.unloadable_runs == {26, 27, 48}
    lite = shape_of(header_of(tmp_path, replace(SHAPES["deepseek2"], leading_dense=0, layer=DEEPSEEK2_LITE)))
    assert lite.unloadable_runs == set()
    assert dict(lite.fixed_keys)["deepseek2.attention.q_lora_rank"].numbers() == (0,)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("qwen3moe", {"qwen3moe.nextn_predict_layers": u32(1)}, "guess tokens ahead"),
        ("minicpm", {"minicpm.residual_scale": None}, "residual_scale is missing"),
        ("dots1", {"dots1.leading_dense_block_count": number_value(ValueType.INT32, -1)}, "is negative"),
    ],
)
def test_keys_that_no_test_covers_are_refused(
    tmp_path: Path, name: str, values: dict[str, Value | None], words: str
) -> None:
    refusal = check_supported(changed(header_of(tmp_path, SHAPES[name]), values))
    assert isinstance(refusal, UnsupportedModel) and words in refusal.sentence


def test_experts_gated_by_the_number_of_layers_are_refused(tmp_path: Path) -> None:
    header = header_of(tmp_path, replace(SHAPES["deepseek2"], layers=47, width=32, heads=1))
    shape_of(header)
    refusal = check_supported(changed(header, {"deepseek2.expert_gating_func": None}))
    assert isinstance(refusal, UnsupportedModel) and "47 layers" in refusal.sentence


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.demands])
def test_what_llama_cpp_demands_has_to_be_there(tmp_path: Path, name: str) -> None:
    header = header_of(tmp_path, SHAPES[name])
    for demanded in FAMILIES[name].demands:
        without = replace(header, tensors=tuple(tensor for tensor in header.tensors if tensor.name != demanded))
        refusal = check_supported(without)
        assert isinstance(refusal, UnsupportedModel) and f"no tensor {demanded}" in refusal.sentence


@pytest.mark.parametrize("name", ["rope_factors_long.weight", "output_norm.bias"])
def test_tensors_of_other_architectures_have_no_place(tmp_path: Path, name: str) -> None:
    header = header_of(tmp_path, TinyModel(layers=1))
    extra = TensorInfo(name=name, dims=(1,), type=0, offset_bytes=0, size_bytes=4)
    assert isinstance(check_supported(replace(header, tensors=(*header.tensors, extra))), UnsupportedModel)


def test_experts_in_tensors_of_their_own_are_refused(tmp_path: Path) -> None:
    header = header_of(tmp_path, TinyModel(layers=1))
    extra = TensorInfo(name="blk.0.ffn_gate.3.weight", dims=(1,), type=0, offset_bytes=0, size_bytes=4)
    refusal = check_supported(replace(header, tensors=(*header.tensors, extra)))
    assert isinstance(refusal, UnsupportedModel) and "convert the model anew" in refusal.sentence


@pytest.mark.parametrize("name", CANNOT_BE_CUT)
def test_what_cannot_be_cut_says_why(tmp_path: Path, name: str) -> None:
    refusal = check_supported(parse_header(handmade([pair("general.architecture", 8, string(name))])))
    assert isinstance(refusal, UnsupportedModel) and CANNOT_BE_CUT[name] in refusal.sentence


def rows_of_the_page(title: str) -> list[list[str]]:
    part = PAGE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_lists_what_runs_and_where_it_is_cut() -> None:
    rows = {row[0].strip("`"): row for row in rows_of_the_page("Supported")}
    assert list(rows) == list(FAMILIES)
    for name, family in FAMILIES.items():
        place = "any layer" if family.layer_period == 1 else f"every {family.layer_period} layers"
        place += " (or as the file says)" if family.period_key else ""
        assert rows[name][2] == place + (", any layer where it has no windows" if family.period_only_with else "")
        if family.recognised_layer_count:
            assert f"{family.recognised_layer_count} layers or more" in rows[name][3]


def test_the_page_lists_what_cannot_be_cut_and_why() -> None:
    listed = {name.strip("`"): why for names, why in rows_of_the_page("Refused") for name in names.split(", ")}
    assert listed == CANNOT_BE_CUT
    assert not listed.keys() & FAMILIES.keys()


def array(*numbers: int) -> Value:
    return number_array(ValueType.UINT32, numbers)


REFUSED: dict[str, tuple[dict[str, Value | None], str]] = {
    "no architecture": ({"general.architecture": None}, "general.architecture"),
    "unknown architecture": ({"general.architecture": text_value("mamba\x1b[2J")}, "not proven"),
    "shared KV": ({"general.architecture": text_value("gemma3n")}, "reuse the key-value cache"),
    "vision": ({"general.architecture": text_value("clip")}, "vision projector"),
    "architecture is a number": ({"general.architecture": u32(1)}, "has to be a string"),
    "no layers": ({"llama.block_count": None}, "llama.block_count is missing"),
    "zero layers": ({"llama.block_count": u32(0)}, "block_count is 0"),
    "513 layers": ({"llama.block_count": u32(513)}, "accepted are 1 to 512"),
    "layers as text": ({"llama.block_count": text_value("3")}, "has to be a whole number"),
    "negative width": ({"llama.embedding_length": number_value(ValueType.INT64, -64)}, "is -64"),
    "wide": ({"llama.embedding_length": u32(1 << 31)}, "accepted are"),
    "no context": ({"llama.context_length": None}, "context_length is missing"),
    "no heads": ({"llama.attention.head_count": None}, "head_count is missing"),
    "more layers than tensors": ({"llama.block_count": u32(4)}, "layer 3 has no tensors"),
    "fewer layers than tensors": ({"llama.block_count": u32(2)}, "is of layer 2"),
    "width of another model": ({"llama.embedding_length": u32(96)}, "token_embd.weight has the dimensions"),
    "vocabulary of another model": ({"llama.vocab_size": u32(319)}, "expected"),
    "uneven heads": ({"llama.attention.head_count_kv": array(2, 2, 1)}, "same number for each"),
    "heads of four layers": ({"llama.attention.head_count_kv": array(2, 2, 2, 2)}, "same number for each"),
    "no head at all": ({"llama.attention.head_count_kv": array(0, 0, 0)}, "same number for each"),
    "feed-forward of four layers": ({"llama.feed_forward_length": array(96, 96, 96, 96)}, "has 4 elements"),
    "unknown array per layer": ({"llama.something": array(1, 2, 3)}, "nobody has taught"),
    "split": ({"split.count": number_value(ValueType.UINT16, 3)}, "several files"),
}


@pytest.mark.parametrize("architecture", [None, "mamba", "bert", "clip", "gemma3n", "t5"])
def test_who_is_refused_for_its_architecture_is_told_which_ones_run(tmp_path: Path, architecture: str | None) -> None:
    """swarmllm.md 2.4.2."""
    value = None if architecture is None else text_value(architecture)
    refusal = check_supported(changed(header_of(tmp_path, TinyModel(layers=3)), {"general.architecture": value}))
    assert isinstance(refusal, UnsupportedModel)
    assert "llama, qwen2, qwen3, gemma3" in refusal.sentence


@pytest.mark.parametrize(("values", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_cut_is_refused_with_the_reason(tmp_path: Path, values: dict[str, Value | None], words: str) -> None:
    refusal = check_supported(changed(header_of(tmp_path, TinyModel(layers=3)), values))
    assert isinstance(refusal, UnsupportedModel), refusal
    assert words in refusal.sentence
    assert refusal.sentence.isprintable()


@pytest.mark.parametrize("period", [0, 1, 8, 1 << 31])
def test_patterns_that_no_test_covers_are_refused(tmp_path: Path, period: int) -> None:
    header = header_of(tmp_path, TinyModel(architecture="gemma3", layers=7, tied=True))
    refusal = check_supported(changed(header, {"gemma3.attention.sliding_window_pattern": u32(period)}))
    assert isinstance(refusal, UnsupportedModel)
    assert "sliding_window_pattern" in refusal.sentence
    by_layer = changed(header, {"gemma3.attention.sliding_window_pattern": array(1, 1, 1, 1, 1, 0, 1)})
    assert isinstance(check_supported(by_layer), UnsupportedModel)


@pytest.mark.parametrize("name", ["token_embd.weight", "output_norm.weight", "blk.1."])
def test_missing_tensors(tmp_path: Path, name: str) -> None:
    header = header_of(tmp_path, TinyModel(layers=3))
    kept = tuple(tensor for tensor in header.tensors if not tensor.name.startswith(name))
    refusal = check_supported(replace(header, tensors=kept))
    assert isinstance(refusal, UnsupportedModel)
    assert "has no tensor" in refusal.sentence


@pytest.mark.parametrize("name", ["token_types.weight", "blk.01.attn_q.weight", "blk.x.weight", "cls.output.weight"])
def test_tensors_without_a_place(tmp_path: Path, name: str) -> None:
    header = header_of(tmp_path, TinyModel(layers=1))
    extra = TensorInfo(name=name, dims=(1,), type=0, offset_bytes=0, size_bytes=4)
    refusal = check_supported(replace(header, tensors=(*header.tensors, extra)))
    assert isinstance(refusal, UnsupportedModel)
    assert "belongs to no layer" in refusal.sentence


def test_an_empty_file_is_refused() -> None:
    assert isinstance(check_supported(parse_header(handmade())), UnsupportedModel)


def test_layer_names() -> None:
    assert [layer_of(name) for name in ("blk.0.a", "blk.12.b.c", "output.weight", "blk.1", "blk.-1.a")] == [
        0, 12, None, None, None,
    ]  # fmt: skip
    assert renumbered("blk.12.attn_q.weight", 10) == "blk.2.attn_q.weight"
