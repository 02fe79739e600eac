"""The proof behind every row of `architectures.FAMILIES`: the shards' logits are the whole model's, bit for bit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from swarmd.domain.refusals import UnsupportedModel
from swarmd.models.architectures import FAMILIES, check_supported
from swarmd.models.gguf import parse_header
from swarmd.models.shard_file import vocabulary_file
from swarmd.models.slicing import Cut, cuts_at
from tests.fakes.gguf import SPECIAL_TOKENS, TinyModel, tokens, write_model
from tests.fakes.llama import Llama, NativeModel, Rows
from tests.fakes.shards import CutModel, cut_model, write_shards

PREFILL = 40  # longer than gemma's window of 16, and no multiple of 32

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
}


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    opened = Llama()
    yield opened
    opened.close()


def steps(vocab: int) -> list[Rows]:
    """A prompt of PREFILL tokens, two decode steps, and a step with two sequences at once."""
    return [
        [(0, position, (position * 31 + 7) % vocab) for position in range(PREFILL)],
        [(0, PREFILL, 3)],
        [(0, PREFILL + 1, 9)],
        [(0, PREFILL + 2, 11), (1, 0, 5)],
    ]


def whole_logits(llama: Llama, path: Path, vocab: int, *, threads: int = 1) -> list[npt.NDArray[np.float32]]:
    with NativeModel(llama, path, threads=threads) as model:
        return [model.run(rows) for rows in steps(vocab)]


def chain_logits(
    llama: Llama, model: CutModel, paths: tuple[Path, ...], *, threads: int = 1
) -> list[npt.NDArray[np.float32]]:
    """As a pipeline does it: embedding rows from the first file, hidden states from file to file, logits from the last."""
    table = model.files[0].embedding
    assert table is not None
    out: list[npt.NDArray[np.float32]] = []
    with contextlib.ExitStack() as stack:
        chain = [
            stack.enter_context(
                NativeModel(llama, path, tap=None if path == paths[-1] else f"l_out-{shard.layers - 1}", threads=threads)
            )
            for path, shard in zip(paths, model.manifest.shards, strict=True)
        ]
        for rows in steps(model.architecture.vocab_size):
            ids = [token for _, _, token in rows]
            value = llama.embed(paths[0], table, ids, model.architecture.embedding_scale)
            for shard in chain:
                value = shard.run(rows, value)
            out.append(value)
    return out


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


@pytest.mark.parametrize("shape", MODELS.values(), ids=MODELS.keys())
def test_shards_in_a_row_equal_the_whole_model(llama: Llama, tmp_path: Path, shape: TinyModel) -> None:
    path = write_model(tmp_path / "whole.gguf", shape)
    data = path.read_bytes()
    whole = whole_logits(llama, path, shape.rows)
    assert all(np.isfinite(logits).all() for logits in whole)
    assert len({logits.tobytes() for logits in whole[0]}) == PREFILL, "the model has to tell positions apart"
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


def test_a_gemma3_cut_inside_the_pattern_would_be_wrong(llama: Llama, tmp_path: Path) -> None:
    """Why `layer_period` exists: such a shard loads, runs, and computes something else."""
    path = write_model(tmp_path / "whole.gguf", TinyModel(architecture="gemma3", layers=12, tied=True))
    header = parse_header(path.read_bytes())
    architecture = check_supported(header)
    assert not isinstance(architecture, UnsupportedModel), architecture
    with pytest.raises(AssertionError, match="bounds"):
        cuts_at(header, architecture, (0, 5, 12))
    anywhere = replace(architecture, cut_period=1)
    model = cut_model(path.read_bytes(), cuts=cuts_at(header, anywhere, (0, 5, 12)), unchecked=True)
    found = chain_logits(llama, model, write_shards(model, tmp_path))
    assert found[0].tobytes() != whole_logits(llama, path, 320)[0].tobytes()


def test_a_gemma3_of_62_layers_is_refused_because_its_shards_would_be_wrong(
    llama: Llama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If llama.cpp stops scaling attention by the number of layers, this fails and the refusal can go."""
    shape = TinyModel(architecture="gemma3", layers=62, width=64, heads=4, tied=True)
    path = write_model(tmp_path / "whole.gguf", shape)
    header = parse_header(path.read_bytes())
    refusal = check_supported(header)
    assert isinstance(refusal, UnsupportedModel)
    assert "62 layers" in refusal.sentence
    monkeypatch.setitem(FAMILIES, "gemma3", replace(FAMILIES["gemma3"], recognised_layer_count=None))
    architecture = check_supported(header)
    assert not isinstance(architecture, UnsupportedModel), architecture
    model = cut_model(path.read_bytes(), cuts=cuts_at(header, architecture, (0, 30, 62)))
    found = chain_logits(llama, model, write_shards(model, tmp_path))
    assert found[0].tobytes() != whole_logits(llama, path, 320)[0].tobytes()


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
