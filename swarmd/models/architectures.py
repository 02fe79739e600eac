"""Which models can be cut into shards, and what must be known of one to cut and run it.

An architecture is in the table only when a test (tests/models/test_shard_file_runs.py) shows that the shards of a model
of it, run one after the other by stock llama.cpp, give the whole model's logits bit for bit. Everything that would load
and then silently compute something else is refused here, with the reason.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import Final

from swarmd.domain.refusals import UnsupportedModel
from swarmd.models.gguf import BadGguf, GgufHeader, TensorInfo

EMBEDDING: Final = "token_embd.weight"
OUTPUT: Final = "output.weight"
OUTPUT_NORM: Final = "output_norm.weight"
ROPE_FACTORS: Final = "rope_freqs.weight"
EVERY_SHARD: Final = frozenset({ROPE_FACTORS})
"""Non-layer tensors that every layer reads."""
LAST_SHARD: Final = frozenset({OUTPUT_NORM, OUTPUT, "output.bias"})
"""Non-layer tensors behind the last layer."""

MAX_LAYERS: Final = 512  # LLAMA_MAX_LAYERS
_MAX_WIDTH: Final = 1 << 17  # eight times the widest published model; a hidden state then has 512 KiB
_MAX_HEADS: Final = 1 << 14
_MAX_HEAD_LENGTH: Final = 1 << 14
_MAX_CONTEXT: Final = 1 << 28  # twenty-five times the longest published context
_MAX_VOCABULARY: Final = 1 << 22  # GgufLimits.max_array_elements: the tokens are an array
F16_BYTES: Final = 2

_LAYER: Final = re.compile(r"blk\.(0|[1-9][0-9]{0,3})\.(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What all models with one `general.architecture` have in common."""

    scales_embeddings: bool = False
    """Embeddings are multiplied with sqrt(width) as float32 (llama.cpp: gemma; only on token input, so we do it)."""
    layer_period: int = 1
    """Attention kinds repeat with this period, counted from layer 0 of a file: cuts only at its multiples."""
    period_key: str | None = None
    """Suffix of the key that overrides `layer_period`."""
    recognised_layer_count: int | None = None
    """llama.cpp takes a file with this many layers for one particular model and then scales attention by
    1/sqrt(width / heads) in place of 1/sqrt(key length): a shard with fewer layers computes something else, and so
    would a shard with just this many of a deeper model."""


FAMILIES: Final = {
    "llama": Family(),
    "qwen2": Family(),
    "qwen3": Family(),
    "gemma3": Family(
        scales_embeddings=True,
        layer_period=6,
        period_key="attention.sliding_window_pattern",
        recognised_layer_count=62,  # llama-model.cpp: 62 layers are LLM_TYPE_27B; measured: no other count up to 100 matters
    ),
}

_CANNOT_BE_CUT: Final = {
    "gemma3n": "its later layers reuse the key-value cache of earlier ones",
    "clip": "it is a vision projector, not a language model",
    "bert": "it is an encoder, not a language model",
    "t5": "it has an encoder and a decoder",
}

_PER_LAYER_KEYS: Final = ("attention.head_count", "attention.head_count_kv", "feed_forward_length")
"""Suffixes of the keys that are a number, or an array with one number per layer (llama.cpp: get_key_or_arr)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The shape of one supported model."""

    name: str
    """`general.architecture`."""
    layer_count: int
    hidden_width: int
    """Length of a hidden state, float32 elements."""
    context_length: int
    """What it was trained for, tokens."""
    vocab_size: int
    """Rows of the embedding table and of the output matrix."""
    kv_heads: int
    key_length: int
    value_length: int
    embedding_scale: float
    """Embedding rows are multiplied with it in float32; 1.0 where the architecture does not scale."""
    cut_period: int
    """Layers can be cut only at its multiples."""
    tied: bool
    """The embedding table is the output matrix too."""
    per_layer_keys: tuple[str, ...]
    """Full names of the metadata arrays with one element per layer, which are cut with the layers."""

    def kv_bytes_per_token(self, layers: int, *, element_bytes: int = F16_BYTES) -> int:
        """Cache of one token in `layers` layers. A sliding window needs less; this is the upper bound."""
        return layers * self.kv_heads * (self.key_length + self.value_length) * element_bytes


def layer_of(name: str) -> int | None:
    """The layer a tensor belongs to; None when it is no layer tensor."""
    found = _LAYER.fullmatch(name)
    return int(found[1]) if found else None


def renumbered(name: str, first_layer: int) -> str:
    """The name of a layer tensor in a shard that starts with `first_layer`."""
    found = _LAYER.fullmatch(name)
    assert found is not None, f"{name} is no layer tensor"
    return f"blk.{int(found[1]) - first_layer}.{found[2]}"


def check_supported(header: GgufHeader) -> Architecture | UnsupportedModel:
    """Whether the model in this file can run as shards, and its shape. Never raises on a header the parser accepted."""
    try:
        return _check(header)
    except BadGguf as reason:
        return UnsupportedModel(what=str(reason))


def _check(header: GgufHeader) -> Architecture | UnsupportedModel:
    name = header.text("general.architecture")
    these = ", ".join(FAMILIES)
    if name is None:
        what = f"the file does not say which architecture it has (key general.architecture); these run: {these}"
        return UnsupportedModel(what=what)
    family = FAMILIES.get(name)
    if family is None:
        shown = ascii(name[:64])
        if name in _CANNOT_BE_CUT:
            what = f"architecture {shown} cannot be cut into shards: {_CANNOT_BE_CUT[name]}; these can: {these}"
            return UnsupportedModel(what=what)
        return UnsupportedModel(what=f"architecture {shown} is not proven to run as shards; these are: {these}")
    if (header.integer("split.count") or 1) > 1:
        return UnsupportedModel(what="this is one part of a model in several files: join them with llama-gguf-split --merge")
    architecture = _shape(header, name, family)
    fault = (
        _table_fault(header, architecture)
        or _per_layer_fault(header, architecture)
        or _attention_fault(header, architecture, family)
    )
    return UnsupportedModel(what=f"this {name} model cannot run as shards: {fault}") if fault else architecture


def _shape(header: GgufHeader, name: str, family: Family) -> Architecture:
    """Raises BadGguf for a number that is missing or absurd."""
    layers = _bounded(header, f"{name}.block_count", MAX_LAYERS)
    width = _bounded(header, f"{name}.embedding_length", _MAX_WIDTH)
    heads = _same_in_all_layers(header, f"{name}.attention.head_count", layers, None)
    embedding = next((tensor for tensor in header.tensors if tensor.name == EMBEDDING), None)
    per_layer = tuple(
        key for suffix in _PER_LAYER_KEYS if (key := f"{name}.{suffix}") in header.metadata and header.metadata[key].is_array
    )
    return Architecture(
        name=name,
        layer_count=layers,
        hidden_width=width,
        context_length=_bounded(header, f"{name}.context_length", _MAX_CONTEXT),
        vocab_size=_vocab_size(header, name, embedding),
        kv_heads=_same_in_all_layers(header, f"{name}.attention.head_count_kv", layers, heads),
        key_length=_bounded(header, f"{name}.attention.key_length", _MAX_HEAD_LENGTH, max(width // heads, 1)),
        value_length=_bounded(header, f"{name}.attention.value_length", _MAX_HEAD_LENGTH, max(width // heads, 1)),
        embedding_scale=_float32(math.sqrt(width)) if family.scales_embeddings else 1.0,
        cut_period=_period(header, name, family, layers),
        tied=all(tensor.name != OUTPUT for tensor in header.tensors),
        per_layer_keys=per_layer,
    )


def _bounded(header: GgufHeader, key: str, limit: int, default: int | None = None) -> int:
    number = header.integer(key)
    if number is None:
        number = default
    if number is None:
        raise BadGguf(f"key {key} is missing")
    if not 1 <= number <= limit:
        raise BadGguf(f"key {key} is {number}, accepted are 1 to {limit}")
    return number


def _same_in_all_layers(header: GgufHeader, key: str, layers: int, default: int | None) -> int:
    """A number, or an array that has it once for every layer. None of the families here has layers of different shape."""
    value = header.metadata.get(key)
    if value is None or not value.is_array:
        return _bounded(header, key, _MAX_HEADS, default)
    numbers = set(header.integers(key) or ()) if value.count == layers else set[int]()  # unpack no hostile million
    number = numbers.pop() if len(numbers) == 1 else 0
    if not 1 <= number <= _MAX_HEADS:
        raise BadGguf(f"key {key} has to hold the same number for each of the {layers} layers")
    return number


def _vocab_size(header: GgufHeader, name: str, embedding: TensorInfo | None) -> int:
    """As llama.cpp finds it: the tokens, else the key. The tensor must agree, which `_table_fault` checks."""
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if tokens is not None and tokens.count:
        return tokens.count
    rows = embedding.dims[1] if embedding is not None and len(embedding.dims) > 1 else None
    return _bounded(header, f"{name}.vocab_size", _MAX_VOCABULARY, rows)


def _period(header: GgufHeader, name: str, family: Family, layers: int) -> int:
    """Raises BadGguf for a pattern given layer by layer, which no test covers."""
    if family.period_key is None:
        return family.layer_period
    period = header.integer(f"{name}.{family.period_key}")
    if period is None:
        return family.layer_period
    if not 2 <= period <= layers:  # 1, no window at all but a cache for one, makes llama.cpp abort the process
        raise BadGguf(f"key {name}.{family.period_key} is {period}, accepted are 2 to {layers}, the number of layers")
    return period


def _table_fault(header: GgufHeader, architecture: Architecture) -> str | None:
    """What is missing from the tensor table, or is in it and has no place in a shard."""
    tensors = {tensor.name: tensor for tensor in header.tensors}
    for name in (EMBEDDING, OUTPUT_NORM):
        if name not in tensors:
            return f"it has no tensor {name}"
    for name in (EMBEDDING, OUTPUT):
        wanted = (architecture.hidden_width, architecture.vocab_size)
        if name in tensors and tensors[name].dims != wanted:
            return f"tensor {name} has the dimensions {tensors[name].dims}, expected {wanted}"
    seen: set[int] = set()
    for name in tensors:
        layer = layer_of(name)
        if layer is None and name != EMBEDDING and name not in EVERY_SHARD and name not in LAST_SHARD:
            return f"tensor {name!a} belongs to no layer and is unknown"
        if layer is not None:
            if layer >= architecture.layer_count:
                return f"tensor {name!a} is of layer {layer}, the model has {architecture.layer_count} layers"
            seen.add(layer)
    missing = next((layer for layer in range(architecture.layer_count) if layer not in seen), None)
    return None if missing is None else f"layer {missing} has no tensors"


def _per_layer_fault(header: GgufHeader, architecture: Architecture) -> str | None:
    """An array with as many elements as layers that is not in our list may be one that has to be cut."""
    for key, value in header.metadata.items():
        if key.startswith(architecture.name + ".") and value.count == architecture.layer_count:
            if key not in architecture.per_layer_keys:
                return f"key {key!a} may hold one value per layer, and nobody has taught this version to cut it"
        elif key in architecture.per_layer_keys:
            return f"key {key} has {value.count} elements, the model has {architecture.layer_count} layers"
    return None


def _attention_fault(header: GgufHeader, architecture: Architecture, family: Family) -> str | None:
    recognised = family.recognised_layer_count
    if recognised is None or architecture.layer_count < recognised:
        return None
    heads = _same_in_all_layers(header, f"{architecture.name}.attention.head_count", architecture.layer_count, None)
    if architecture.hidden_width == heads * architecture.key_length:
        return None  # both scales are the same
    return (
        f"llama.cpp knows a model by its {recognised} layers and scales attention in it differently, "
        "so a whole file and its shards would not agree"
    )


def _float32(number: float) -> float:
    """`number` as C's float has it."""
    (rounded,) = struct.unpack("<f", struct.pack("<f", number))
    return float(rounded)
