"""Tiny GGUF files: random models that llama.cpp runs, written by the `gguf` package, and hostile headers made by hand.

`write_model` shares no code with `swarmd.models`, so a test that reads its files with our parser compares two
implementations. `handmade` writes whatever it is told, right or wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
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
    seed: int = 1

    @property
    def rows(self) -> int:
        return len(tokens()) if self.tokenizer else self.vocab


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
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_key_length(model.head_length)
    writer.add_value_length(model.head_length)
    writer.add_rope_dimension_count(model.head_length)
    writer.add_rope_freq_base(1e6)
    if model.experts:
        writer.add_expert_count(model.experts)
        writer.add_expert_used_count(2)
    if model.architecture == "gemma3":
        if model.window:
            writer.add_sliding_window(model.window)
        if model.period is not None:
            writer.add_uint32("gemma3.attention.sliding_window_pattern", model.period)
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
    writer.add_chat_template(CHAT_TEMPLATE)


class _Weights:
    """Adds the tensors of a model to a writer."""

    def __init__(self, writer: gguf.GGUFWriter, model: TinyModel) -> None:
        self._writer, self._model = writer, model
        self._random = np.random.default_rng(model.seed)
        self._kind = gguf.GGMLQuantizationType[model.kind]

    def add_all(self) -> None:
        model = self._model
        self._matrix("token_embd.weight", model.rows, model.width, 0.06 if model.architecture == "gemma3" else 1.0)
        if model.rope_factors:
            self._vector("rope_freqs.weight", model.head_length // 2, 2.0)
        self._vector("output_norm.weight", model.width, 1)
        for layer in range(model.layers):
            self._layer(f"blk.{layer}.")
        if not model.tied:
            self._matrix("output.weight", model.rows, model.width)
        if model.output_bias:
            self._vector("output.bias", model.rows, 0)

    def _layer(self, prefix: str) -> None:
        model = self._model
        heads, kv_heads = model.heads * model.head_length, model.kv_heads * model.head_length
        self._vector(prefix + "attn_norm.weight", model.width, 1)
        for name, rows, columns in (
            ("attn_q", heads, model.width),
            ("attn_k", kv_heads, model.width),
            ("attn_v", kv_heads, model.width),
            ("attn_output", model.width, heads),
        ):
            self._matrix(f"{prefix}{name}.weight", rows, columns)
            if model.architecture == "qwen2" and name != "attn_output":
                self._vector(f"{prefix}{name}.bias", rows, 0)
        self._vector(prefix + "ffn_norm.weight", model.width, 1)
        if model.experts:
            self._vector(prefix + "ffn_gate_inp.weight", (model.experts, model.width), 0)
        suffix = "_exps" if model.experts else ""
        for name, rows, columns in (
            ("ffn_gate", model.feed_forward, model.width),
            ("ffn_up", model.feed_forward, model.width),
            ("ffn_down", model.width, model.feed_forward),
        ):
            self._matrix(f"{prefix}{name}{suffix}.weight", rows, columns)
        if model.architecture in ("qwen3", "gemma3"):
            self._vector(prefix + "attn_q_norm.weight", model.head_length, 1)
            self._vector(prefix + "attn_k_norm.weight", model.head_length, 1)
        if model.architecture == "gemma3":
            self._vector(prefix + "post_attention_norm.weight", model.width, 1)
            self._vector(prefix + "post_ffw_norm.weight", model.width, 1)

    def _matrix(self, name: str, rows: int, columns: int, deviation: float | None = None) -> None:
        shape = (self._model.experts, rows, columns) if "_exps" in name else (rows, columns)
        values = self._random.standard_normal(shape, dtype=np.float32) * (deviation or columns**-0.5)
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
