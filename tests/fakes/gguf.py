"""Tiny GGUF files: random models that llama.cpp runs, written by the `gguf` package, and hostile headers made by hand.

`write_model` shares no code with `swarmd.models`, so a test that reads its files with our parser compares two
implementations. `handmade` writes whatever it is told, right or wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.fakes.recipes import DENSE, EXPERTS, RECIPES, Scalar

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_WINDOWED = frozenset({"gemma2", "gemma3", "phi3", "olmo2", "cohere2", "gpt-oss", "exaone4"})
_UNQUANTIZED = frozenset({"ffn_gate_inp"})
_SHAPES = {
    "attn_norm": "W", "ffn_norm": "W", "output_norm": "W", "post_attention_norm": "W", "post_ffw_norm": "W",
    "attn_q_norm": "D", "attn_k_norm": "D", "attn_sinks": "H",
    "attn_q": "A W", "attn_k": "K W", "attn_v": "K W", "attn_output": "W A", "attn_qkv": "Q W",
    "ffn_gate": "F W", "ffn_up": "F W", "ffn_down": "W F",
    "ffn_gate_inp": "E W", "ffn_gate_exps": "E F W", "ffn_up_exps": "E F W", "ffn_down_exps": "E W F", "exp_probs_b": "E",
    "ffn_gate_inp_shexp": "W", "ffn_gate_shexp": "F W", "ffn_up_shexp": "F W", "ffn_down_shexp": "W F",
    "attn_q_a": "R W", "attn_q_a_norm": "R", "attn_q_b": "HK R", "attn_kv_a_mqa": "LR W", "attn_kv_a_norm": "L",
    "attn_kv_b": "NV L", "attn_k_b": "H L N", "attn_v_b": "H V L",
}  # fmt: skip
_MERGES = (
    "t h", "i n", "e r", "Ġ t", "Ġ a", "th e", "o n", "r e", "Ġ s", "a t", "Ġt he", "e n", "o r", "in g", "e s", "Ġ w",
    "a n", "o u", "i s", "i t", "h a", "Ġ o", "e d", "a r", "Ġ b", "Ġ f", "Ġ c", "l l", "o w", "h e", "h i", "s h",
    "ha r", "sh ar", "shar d", "n o", "Ġ m", "Ġ d", "Ġo f", "a s",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """Shape of a random model. All rows are multiples of 32, so that Q4_0 and Q8_0 fit."""

    architecture: str = "llama"
    layers: int = 6
    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_length: int = 32
    feed_forward: int = 96
    vocab: int = 320
    """Of a model without tokenizer; with one it is `len(tokens())`."""
    kind: str = "Q8_0"
    tied: bool = False
    tokenizer: bool = False
    rope_factors: bool = False
    experts: int = 0
    period: int | None = None
    """gemma3: of the sliding window, when the file says it."""
    window: int = 16
    """gemma3: shorter than the tests' prompts, so that a layer of the wrong kind shows; 0 leaves it out."""
    per_layer: bool = False
    """Head counts as arrays with one number per layer."""
    output_bias: bool = False
    pooling: int | None = None
    """How it wants embeddings pooled, as a number of GGUF."""
    causal: bool = True
    ends_texts: bool = False
    """With a tokenizer: its texts end with a token of their own."""
    rope_long: int = 0
    """Tokens after which `rope_factors_long` are for; 0: the file has no such factors."""
    leading_dense: int = 0
    """Layers without experts, before those with."""
    keys: tuple[tuple[str, Scalar], ...] = ()
    """More metadata under the architecture's name, or other than the recipe's."""
    layer: str | None = None
    """Tensors of a layer, in place of the recipe's."""
    seed: int = 1

    @property
    def rows(self) -> int:
        return len(tokens()) if self.tokenizer else self.vocab


def _shape(architecture: str, *, layers: int = 3, **rest: Any) -> TinyModel:
    return TinyModel(architecture=architecture, layers=layers, **{"heads": 2, "kv_heads": 1, **rest})


SHAPES = {
    "llama": _shape("llama"),
    "qwen2": _shape("qwen2"),
    "qwen3": _shape("qwen3"),
    "gemma3": _shape("gemma3", layers=13, tied=True),
    "gemma": _shape("gemma", tied=True),
    "gemma2": _shape("gemma2", layers=6, tied=True),
    "deepseek2": _shape("deepseek2", layers=4, leading_dense=2),
    "olmo2": _shape("olmo2", window=0),
    "gpt-oss": _shape("gpt-oss", layers=5),
    "smollm3": _shape("smollm3", layers=9),
    "command-r": _shape("command-r", tied=True),
    "cohere2": _shape("cohere2", layers=9, tied=True),
    "olmoe": _shape("olmoe", kv_heads=2),
    "dots1": _shape("dots1", kv_heads=2, leading_dense=1),
    **{
        name: _shape(name)
        for name in RECIPES
        if name not in {"gemma", "gemma2", "gemma3", "deepseek2", "olmo2", "gpt-oss", "smollm3", "command-r", "cohere2",
                        "olmoe", "dots1", "llama", "qwen2", "qwen3"}
    },
}  # fmt: skip
"""A small model of each architecture there is a recipe for, with as many layers as make three shards."""
DEEPSEEK2_LITE = RECIPES["deepseek2"].layer.replace("attn_q_a attn_q_a_norm attn_q_b", "attn_q")
"""Layers without the factor for queries."""
DEEPSEEK2_PLAIN = RECIPES["deepseek2"].layer.replace("attn_k_b attn_v_b", "attn_kv_b")
"""As in files from before llama.cpp knew multi-head latent attention."""


def tokens() -> tuple[str, ...]:
    """A byte-level BPE vocabulary: every byte, the merges, the special tokens."""
    return (*_byte_letters(), *(merge.replace(" ", "") for merge in _MERGES), *SPECIAL_TOKENS)


def write_model(path: Path, model: TinyModel, *, split_max_tensors: int = 0) -> Path:
    """Writes it with random weights, the same for the same shape and seed. Returns `path`. Split, it is in files beside it,
    named as `gguf-split` does."""
    writer = gguf.GGUFWriter(path, model.architecture, split_max_tensors=split_max_tensors)
    _metadata(writer, model)
    _Weights(writer, model).add_all()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _metadata(writer: gguf.GGUFWriter, model: TinyModel) -> None:
    layers = model.layers if model.per_layer else 0
    writer.add_name("tiny")
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if model.kind == "F32" else "MOSTLY_" + model.kind])
    writer.add_context_length(4096)
    writer.add_embedding_length(model.width)
    writer.add_block_count(model.layers)
    writer.add_feed_forward_length([model.feed_forward] * layers or model.feed_forward)
    writer.add_head_count([model.heads] * layers or model.heads)
    writer.add_head_count_kv([model.kv_heads] * layers or model.kv_heads)
    if model.pooling is not None:
        writer.add_pooling_type(gguf.PoolingType(model.pooling))
    if not model.causal:
        writer.add_causal_attention(False)
    recipe = RECIPES[model.architecture]
    if recipe.layer_norm:
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_layer_norm_rms_eps(1e-6)
    keys: dict[str, Scalar] = {
        "attention.key_length": model.head_length, "attention.value_length": model.head_length,
        "rope.dimension_count": model.head_length, "rope.freq_base": 1e6,
    }  # fmt: skip
    if model.experts:
        keys |= {"expert_count": model.experts, "expert_used_count": 2}
    if model.leading_dense:
        keys["leading_dense_block_count"] = model.leading_dense
    if model.architecture in _WINDOWED and model.window:
        keys["attention.sliding_window"] = model.window
    if model.period is not None:
        keys["attention.sliding_window_pattern"] = model.period
    if model.rope_long:
        keys["rope.scaling.original_context_length"] = model.rope_long
    for name, value in (keys | recipe.keys | dict(model.keys)).items():
        if isinstance(value, tuple):
            writer.add_array(f"{model.architecture}.{name}", list(value))
            continue
        kind = gguf.GGUFValueType.get_type(value) if isinstance(value, bool | float) else gguf.GGUFValueType.UINT32
        writer.add_key_value(f"{model.architecture}.{name}", value, kind)
    if not model.tokenizer:
        writer.add_vocab_size(model.vocab)
        writer.add_tokenizer_model("no_vocab")
        return
    words = tokens()
    kinds = [gguf.TokenType.CONTROL if word in SPECIAL_TOKENS else gguf.TokenType.NORMAL for word in words]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types(kinds)
    writer.add_token_merges(_MERGES)
    writer.add_bos_token_id(words.index("<|endoftext|>"))
    writer.add_eos_token_id(words.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    if model.ends_texts:
        writer.add_add_eos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


class _Weights:
    """Adds the tensors of a model to a writer."""

    def __init__(self, writer: gguf.GGUFWriter, model: TinyModel) -> None:
        self._writer, self._model, self._recipe = writer, model, RECIPES[model.architecture]
        self._keys: dict[str, Scalar] = {**self._recipe.keys, **dict(model.keys)}
        self._random = np.random.default_rng(model.seed)
        self._kind = gguf.GGMLQuantizationType[model.kind]

    def add_all(self) -> None:
        model, recipe = self._model, self._recipe
        self._matrix("token_embd.weight", (model.rows, model.width), recipe.embedding)
        if model.rope_factors:
            self._vector("rope_freqs.weight", model.head_length // 2, 2.0)
        if model.rope_long:
            for name, around in (("rope_factors_long", 4.0), ("rope_factors_short", 1.5)):
                self._vector(f"{name}.weight", model.head_length // 2, around)
        if recipe.output_norm:
            self._add(recipe.output_norm, "")
        for layer in range(model.layers):
            self._layer(layer)
        if not model.tied:
            self._matrix("output.weight", (model.rows, model.width))
        if model.output_bias or recipe.output_bias:
            self._vector("output.bias", model.rows, 0)

    def _layer(self, layer: int) -> None:
        model, recipe = self._model, self._recipe
        names = model.layer or recipe.layer
        if layer < model.leading_dense:
            assert recipe.dense is not None
            names = recipe.dense
        if model.experts and "_exps" not in names:
            names = names.replace(DENSE, EXPERTS)
        for name in names.split():
            self._add(name, f"blk.{layer}.")

    def _add(self, name: str, prefix: str) -> None:
        """A tensor, with its bias where there is a `+` behind it; `exp_probs_b` is nothing but a bias."""
        stem = name.rstrip("+")
        shape = self._shape(stem)
        if stem == "exp_probs_b":
            self._vector(f"{prefix}{stem}.bias", shape, 0)
            return
        if stem in _UNQUANTIZED or len(shape) == 1:
            self._vector(f"{prefix}{stem}.weight", shape, 1 if "norm" in stem else 0)
        else:
            self._matrix(f"{prefix}{stem}.weight", shape)
        if name.endswith("+"):
            self._vector(f"{prefix}{stem}.bias", shape if len(shape) == 1 else shape[:-1], 0)

    def _shape(self, name: str) -> tuple[int, ...]:
        """Rows before columns, as numpy has it."""
        model, keys = self._model, {key: value for key, value in self._keys.items() if not isinstance(value, tuple)}
        latent, rope = int(keys.get("attention.kv_lora_rank", 0)), int(keys.get("rope.dimension_count", 0))
        key, value = (
            int(keys.get(f"attention.{part}_length_mla", 0) or keys.get(f"attention.{part}_length", model.head_length))
            for part in ("key", "value")
        )
        lengths = {
            "W": model.width, "A": model.heads * model.head_length, "K": model.kv_heads * model.head_length,
            "Q": (model.heads + 2 * model.kv_heads) * model.head_length,
            "F": model.feed_forward, "2F": 2 * model.feed_forward,
            "D": model.head_length, "H": model.heads, "E": int(keys.get("expert_count", model.experts)),
            "L": latent, "LR": latent + rope, "N": key - rope, "R": int(keys.get("attention.q_lora_rank", 0)),
            "HK": model.heads * key, "HV": model.heads * value, "V": value, "NV": model.heads * (key - rope + value),
        }  # fmt: skip
        return tuple(lengths[letter] for letter in (self._recipe.shapes.get(name) or _SHAPES[name]).split())

    def _matrix(self, name: str, shape: tuple[int, ...], deviation: float | None = None) -> None:
        values = self._random.standard_normal(shape, dtype=np.float32) * (deviation or shape[-1] ** -0.5)
        self._writer.add_tensor(name, gguf.quants.quantize(values, self._kind), raw_dtype=self._kind)

    def _vector(self, name: str, shape: int | tuple[int, ...], around: float) -> None:
        self._writer.add_tensor(name, (around + 0.1 * self._random.standard_normal(shape)).astype(np.float32))


def _byte_letters() -> tuple[str, ...]:
    """GPT-2's letter for each byte: printable ones stand for themselves, the others for letters from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    letters, spare = [], 0x100
    for byte in range(256):
        if byte in printable:
            letters.append(chr(byte))
        else:
            letters.append(chr(spare))
            spare += 1
    return tuple(letters)


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str | bytes, kind: int, payload: bytes) -> bytes:
    """One metadata entry; `payload` as it follows the type."""
    return string(key) + struct.pack("<I", kind) + payload


def tensor(name: str | bytes, dims: Sequence[int], kind: int, offset: int) -> bytes:
    """One row of the tensor table."""
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def handmade(
    pairs: Sequence[bytes] = (),
    rows: Sequence[bytes] = (),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    tensor_count: int | None = None,
    pair_count: int | None = None,
) -> bytes:
    """A header from its pieces, with true counts unless told otherwise; no padding, no tensor data."""
    counts = (len(rows) if tensor_count is None else tensor_count, len(pairs) if pair_count is None else pair_count)
    return magic + struct.pack("<IQQ", version, *counts) + b"".join(pairs) + b"".join(rows)


def rich_header() -> bytes:
    """A valid header with every value type and several tensors: the seed that mutations start from."""
    scalars = [
        pair(f"test.scalar{kind}", kind, payload)
        for kind, payload in (
            (0, b"\xfe"), (1, b"\xfe"), (2, b"\xfe\xff"), (3, b"\xfe\xff"), (4, b"\1\2\3\4"), (5, b"\1\2\3\xff"),
            (6, struct.pack("<f", 1.5)), (7, b"\1"), (10, b"\1" * 8), (11, b"\xff" * 8), (12, struct.pack("<d", -0.25)),
        )
    ]  # fmt: skip
    words = [string(word) for word in ("a", "bc", b"\xff\xfe", "", "Ġthe")]
    arrays = [
        pair("test.words", 9, struct.pack("<IQ", 8, len(words)) + b"".join(words)),
        pair("test.numbers", 9, struct.pack("<IQ6I", 4, 6, *range(6))),
        pair("test.flags", 9, struct.pack("<IQ", 7, 3) + b"\0\1\1"),
        pair("test.nothing", 9, struct.pack("<IQ", 6, 0)),
    ]
    rows = [
        tensor("token_embd.weight", (64, 10), 8, 0),  # 680 bytes, padded to 704
        tensor("blk.0.attn_q.weight", (256, 2, 3), 12, 704),  # 864
        tensor("output_norm.weight", (64,), 0, 1568),
    ]
    return handmade(
        [pair("general.architecture", 8, string("llama")), *scalars, *arrays, pair("general.alignment", 4, b"\x20\0\0\0")],
        rows,
    )
