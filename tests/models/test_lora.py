"""What becomes of an adapter's names, shapes and scale, and whose index is believed. That it is right: test_lora_runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import gguf
import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from swarmd.domain.refusals import BadFile
from swarmd.models import lora
from swarmd.models.safetensors import StoredTensor, header_length, parse_header
from tests.fakes.adapters import PREFIX, random_adapter, safetensors_bytes
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.shards import CutModel, cut_model
from tests.models.test_lora_runs import converted, write_slice

SHAPE = TinyModel(layers=3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> CutModel:
    return cut_model(write_model(tmp_path_factory.mktemp("base") / "tiny.gguf", SHAPE).read_bytes())


def planned(
    base: CutModel, tensors: Mapping[str, npt.NDArray[np.float32]], config: dict[str, object] | None = None, **said: float
) -> lora.Plan | BadFile:
    found = parse(tensors)
    read = None if config is None else lora.read_config(json.dumps(config).encode())
    if isinstance(read, BadFile):
        return read
    rank = said.get("rank")
    return lora.plan_adapter(
        found, base.header, base.architecture, rank=None if rank is None else int(rank), alpha=said.get("alpha"), config=read
    )


def refused(plan: lora.Plan | BadFile) -> BadFile:
    assert isinstance(plan, BadFile), plan
    return plan


@pytest.mark.parametrize("prefix", ["", "model.", "base_model.model.", "base_model.model.model.language_model."])
def test_names_of_all_kinds_of_checkpoints_mean_the_same(base: CutModel, prefix: str) -> None:
    tensors = random_adapter(SHAPE)
    renamed = {name.replace("base_model.model.model.", prefix): values for name, values in tensors.items()}
    default = {name.replace(".weight", ".default.weight"): values for name, values in renamed.items()}
    expected = planned(base, tensors, alpha=8.0)
    assert isinstance(expected, lora.Plan) and sorted(expected.layers) == [0, 1, 2]
    for other in (renamed, default):
        plan = planned(base, other, alpha=8.0)
        assert isinstance(plan, lora.Plan), plan
        assert {k: [p.tensor for p in v] for k, v in plan.layers.items()} == {
            k: [p.tensor for p in v] for k, v in expected.layers.items()
        }


@pytest.mark.parametrize(
    ("name", "shape", "word"),
    [
        ("base_model.model.lm_head.lora_A.weight", (4, 64), "output matrix"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", (4, 64), "embeddings"),
        (f"{PREFIX}0.self_attn.q_proj.lora_magnitude_vector", (128,), "DoRA"),
        ("base_model.model.model.norm.modules_to_save.weight", (64,), "modules_to_save"),
        (f"{PREFIX}0.self_attn.q_proj.lora_B.bias", (128,), "biases"),
        (f"{PREFIX}0.mlp.experts.1.gate_proj.lora_A.weight", (4, 64), "experts"),
        (f"{PREFIX}0.self_attn.qkv_proj.lora_A.weight", (4, 64), "self_attn.q_proj"),
        (f"{PREFIX}00.self_attn.q_proj.lora_A.weight", (4, 64), "self_attn.q_proj"),
        ("x\n" * 300, (4, 64), "adapters change"),
    ],
)
def test_what_cannot_be_applied_is_refused_by_name(base: CutModel, name: str, shape: tuple[int, ...], word: str) -> None:
    refusal = refused(planned(base, {**random_adapter(SHAPE), name: np.ones(shape, np.float32)}, alpha=8.0))
    assert word in refusal.sentence and ascii(name[:20])[1:-1] in refusal.sentence and refusal.param == "path"
    assert len(refusal.sentence) < 500 and "\n" not in refusal.sentence


def test_shapes_have_to_be_those_of_the_base_model(base: CutModel) -> None:
    one = f"{PREFIX}1.mlp.up_proj.lora_"
    tensors = random_adapter(SHAPE)
    for changed, word in (
        ({f"{one}B.weight": np.ones((95, 4), np.float32)}, "64 by 96"),
        ({f"{one}B.weight": np.ones((96, 5), np.float32)}, r"no (rank, in)"),
        ({f"{one}A.weight": np.ones((64,), np.float32)}, r"no (rank, in)"),
        ({f"{PREFIX}7.mlp.up_proj.lora_A.weight": tensors[f"{one}A.weight"]}, "lora_B is missing"),
        ({name.replace(".1.", ".7."): values for name, values in tensors.items() if ".1.mlp.up" in name}, "no tensor blk.7"),
        ({f"{one}A.weight": np.ones((2, 64), np.float32), f"{one}B.weight": np.ones((96, 2), np.float32)}, "ranks 2, 4"),
        ({f"{one}A.default.weight": tensors[f"{one}A.weight"]}, "two names"),
    ):  # fmt: skip
        refusal = refused(planned(base, {**tensors, **changed}, alpha=8.0))
        assert word in refusal.sentence and refusal.param == "path", refusal
    assert "no LoRA tensors" in refused(planned(base, {}, alpha=8.0)).sentence


def test_rank_and_alpha_have_to_agree_with_the_file_and_its_config(base: CutModel) -> None:
    tensors = random_adapter(SHAPE)
    assert refused(planned(base, tensors)).param == "alpha"
    assert refused(planned(base, tensors, alpha=0.0)).param == "alpha"
    assert refused(planned(base, tensors, alpha=math.nan)).param == "alpha"
    assert refused(planned(base, tensors, alpha=8.0, rank=5)).param == "rank"
    config: dict[str, object] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    assert refused(planned(base, tensors, config, alpha=9.0)).param == "alpha"
    assert refused(planned(base, tensors, {**config, "r": 5})).param == "path"
    plan = planned(base, tensors, config)
    assert isinstance(plan, lora.Plan) and (plan.rank, plan.alpha, plan.effective_alpha) == (4, 8.0, 8.0)
    stable = planned(base, tensors, {**config, "use_rslora": True}, rank=4, alpha=8.0)
    assert isinstance(stable, lora.Plan) and stable.effective_alpha == 16.0, "alpha / sqrt(4), where llama.cpp divides by 4"


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"lora_bias": True}, "biases"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 8}}, "alpha_pattern"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"alora_invocation_tokens": [1]}, "activated"),
        ({"r": "four"}, "cannot be read"),
    ],
)
def test_a_config_that_asks_for_more_is_refused(base: CutModel, changed: dict[str, object], word: str) -> None:
    config: dict[str, object] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **changed}
    assert word in refused(planned(base, random_adapter(SHAPE), config)).sentence


def test_numbers_that_are_none_are_refused(base: CutModel) -> None:
    tensors = random_adapter(SHAPE)
    plan = planned(base, tensors, alpha=8.0)
    assert isinstance(plan, lora.Plan)
    pair = plan.layers[0][0]
    good = np.ones(pair.b.shape, np.float32)
    bad = good.copy()
    bad[0, 0] = np.inf
    a = np.ones(pair.a.shape, np.float32).tobytes()
    assert isinstance(lora.convert(pair, a, good.tobytes(), base.architecture), bytes)
    assert isinstance(lora.convert(pair, a, bad.tobytes(), base.architecture), BadFile)


def test_heads_are_ordered_as_llama_cpps_converter_orders_them() -> None:
    """Two heads of six rows: row i of the lower half, then row i of the upper one."""
    rows = np.arange(12, dtype=np.float32).reshape(12, 1)
    assert lora.rotated(rows, 6)[:, 0].tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


def test_a_slice_reads_back_with_the_gguf_package(base: CutModel, tmp_path: Path) -> None:
    tensors = random_adapter(SHAPE, layers=(1, 2), modules=("mlp.down_proj", "self_attn.v_proj"))
    index, contents = converted(safetensors_bytes(tensors), base, alpha=6.0)
    assert write_slice(tmp_path / "none.gguf", index, contents, 0, 1) is None, "layer 0 is not changed"
    path = write_slice(tmp_path / "slice.gguf", index, contents, 1, 3)
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items() if "." in name and not name.startswith("GGUF")}
    assert fields == {
        "general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 6.0,
    }  # fmt: skip
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    assert sorted(found) == sorted(
        f"blk.{n}.{t}.weight.lora_{h}" for n in (0, 1) for t in ("ffn_down", "attn_v") for h in "ab"
    )
    for half in "AB":
        mine = found[f"blk.1.ffn_down.weight.lora_{half.lower()}"]
        assert np.array_equal(mine, tensors[f"{PREFIX}2.mlp.down_proj.lora_{half}.weight"])


def good_index(base: CutModel) -> lora.Index:
    return converted(safetensors_bytes(random_adapter(SHAPE)), base)[0]


def test_the_digest_depends_on_every_number_and_on_the_scale(base: CutModel) -> None:
    tensors = random_adapter(SHAPE)

    def digest(alpha: float) -> bytes:
        return lora.digest_of(lora.encode_index(converted(safetensors_bytes(tensors), base, alpha=alpha)[0]))

    digests = {digest(8.0), digest(8.0), digest(9.0)}
    tensors[f"{PREFIX}2.mlp.up_proj.lora_A.weight"][0, 0] += 1e-3
    assert len({*digests, digest(8.0)}) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": math.nan}, {"alpha": 0.0}, {"alpha": 1e38}, {"parts": []},
        {"parts": [lora.Part(1, bytes(32), [lora.Pair("attn_q", 1, 1, 1)])] * 2},
        {"parts": [lora.Part(-1, bytes(32), [lora.Pair("attn_q", 1, 1, 1)])]},
        {"parts": [lora.Part(512, bytes(32), [lora.Pair("attn_q", 1, 1, 1)])]},
        {"parts": [lora.Part(0, bytes(31), [lora.Pair("attn_q", 1, 1, 1)])]},
        {"parts": [lora.Part(0, bytes(32), [])]},
        {"parts": [lora.Part(0, bytes(32), [lora.Pair("output", 1, 1, 1)])]},
        {"parts": [lora.Part(0, bytes(32), [lora.Pair("attn_q", 0, 1, 1)])]},
        {"parts": [lora.Part(0, bytes(32), [lora.Pair("attn_q", 1025, 1, 1)])]},
        {"parts": [lora.Part(0, bytes(32), [lora.Pair("attn_q", 1, 1, 1 << 60)])]},
        {"parts": [lora.Part(0, bytes(32), [lora.Pair("attn_q", 1024, 1 << 20, 1 << 20)])]},
        {"parts": [lora.Part(n, bytes(32), [lora.Pair("attn_q", 512, 1 << 13, 1 << 13)]) for n in range(40)]},
    ],
)  # fmt: skip
def test_an_index_that_cannot_be_is_not_believed(base: CutModel, change: dict[str, object]) -> None:
    good = good_index(base)
    assert lora.decode_index(lora.encode_index(good)) == good
    with pytest.raises(lora.BadAdapter):
        lora.decode_index(lora.encode_index(msgspec.structs.replace(good, **change)))


def test_bytes_that_are_no_index_are_not_believed(base: CutModel) -> None:
    good = lora.encode_index(good_index(base))
    for bad in (b"", good[:-1], b"\x91" * 5000, bytes(lora.INDEX_LIMIT + 1)):
        with pytest.raises(lora.BadAdapter):
            lora.decode_index(bad)


def test_an_adapter_of_another_architecture_or_model_does_not_fit(base: CutModel, tmp_path: Path) -> None:
    index = good_index(base)
    assert lora.misfit(index, base.header, base.architecture) is None
    for shape, word in (
        (TinyModel(architecture="qwen3", layers=3), "the model is qwen3"),
        (TinyModel(layers=2), "no tensor blk.2"),
        (TinyModel(layers=3, feed_forward=128), "64 by 128"),
        (TinyModel(layers=3, experts=4), "no tensor blk.0.ffn_down.weight"),
    ):
        other = cut_model(write_model(tmp_path / "other.gguf", shape).read_bytes())
        fault = lora.misfit(index, other.header, other.architecture)
        assert fault is not None and (word in fault or word.replace("64 by 128", "128 by 64") in fault), fault


def test_what_is_not_proven_is_refused_by_name(base: CutModel) -> None:
    architecture = replace(base.architecture, name="granite")
    tensors = parse(random_adapter(SHAPE))
    refusal = lora.plan_adapter(tensors, base.header, architecture, rank=None, alpha=8.0, config=None)
    assert isinstance(refusal, BadFile) and "adapters of granite models" in refusal.sentence
    index = msgspec.structs.replace(good_index(base), architecture="granite")
    assert lora.misfit(index, base.header, architecture) == "adapters of 'granite' models cannot be applied"


def parse(tensors: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, StoredTensor]:
    data = safetensors_bytes(tensors)
    return parse_header(data[8 : 8 + header_length(data[:8], len(data))], len(data))
