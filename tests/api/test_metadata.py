"""The metadata object, on files of an independent writer."""

from __future__ import annotations

from pathlib import Path

import gguf

from swarmd.api.metadata import metadata_view, raw_text
from swarmd.domain.ids import ModelId
from swarmd.models.gguf import GgufHeader, parse_header
from swarmd.models.gguf_values import ValueType, number_value, text_value


def header_of(path: Path) -> GgufHeader:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny")
    writer.add_file_type(15)
    writer.add_context_length(4096)
    writer.add_block_count(32)
    writer.add_embedding_length(4096)
    writer.add_head_count(32)
    writer.add_head_count_kv(8)
    writer.add_rope_dimension_count(128)
    writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["a", "b", "c"])
    writer.add_token_scores([0.0, 1.0, 2.0])
    writer.add_token_types([1, 1, 1])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("x" * 300)
    writer.add_bool("general.flag", True)
    writer.add_array("general.tags", ["one", "two"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return parse_header(path.read_bytes(), file_size_bytes=path.stat().st_size)


def test_the_seed_s_object(tmp_path: Path) -> None:
    view = metadata_view(ModelId("tiny"), header_of(tmp_path / "a.gguf"), architecture_supported=True)
    assert (view.general.name, view.general.architecture, view.general.architecture_supported) == ("Tiny", "llama", True)
    assert (view.general.file_type, view.general.quantization) == (15, "Q4_K_M"), "llama.cpp's own table"
    model = view.model
    assert (model.context_length, model.block_count, model.embedding_length) == (4096, 32, 4096)
    assert (model.head_count, model.head_count_kv, model.rope_dimension_count) == (32, 8, 128)
    assert (model.rope_freq_base, model.layer_norm_rms_epsilon, model.vocab_size) == (500000.0, 1e-05, 3)
    tokenizer = view.tokenizer
    assert (tokenizer.model, tokenizer.pre, tokenizer.eos_token_id, tokenizer.bos_token_id) == ("llama", None, 2, 1)
    assert tokenizer.padding_token_id is None
    assert view.tensors.count == 0 and view.tensors.data_offset > 0


def test_raw_values_are_texts_sorted_by_key(tmp_path: Path) -> None:
    view = metadata_view(ModelId("tiny"), header_of(tmp_path / "a.gguf"), architecture_supported=True)
    raw = {one.key: one.value for one in view.raw}
    assert list(raw) == sorted(raw)
    assert raw["general.architecture"] == "llama"
    assert raw["general.tags"] == "[array of 2 items]"
    assert raw["general.flag"] == "true"
    assert raw["llama.attention.layer_norm_rms_epsilon"] == "1e-05"
    assert raw["llama.block_count"] == "32"
    assert raw["tokenizer.chat_template"] == "x" * 200 + "..."
    assert not {"tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"} & set(raw)


def test_numbers_as_people_write_them() -> None:
    assert raw_text(number_value(ValueType.FLOAT32, 0.1)) == "0.1"
    assert raw_text(number_value(ValueType.FLOAT32, 16777217.0)) == "16777216.0"
    assert raw_text(number_value(ValueType.FLOAT64, 0.1)) == "0.1"
    assert raw_text(number_value(ValueType.FLOAT32, float("nan"))) == "nan"
    assert raw_text(number_value(ValueType.INT8, -3)) == "-3"
    assert raw_text(number_value(ValueType.BOOL, False)) == "false"
    assert raw_text(text_value("y" * 200)) == "y" * 200


def test_what_is_missing_or_of_another_kind_is_null() -> None:
    header = GgufHeader(
        version=3,
        metadata={"general.architecture": text_value("odd"), "odd.block_count": text_value("many")},
        tensors=(), alignment=32, data_offset=64,
    )  # fmt: skip
    view = metadata_view(ModelId("odd"), header, architecture_supported=False)
    assert (view.model.block_count, view.model.vocab_size, view.general.quantization) == (None, None, None)
