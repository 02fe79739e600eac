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
from swarmd.models.gguf_values import Value, ValueType, number_value

EMBEDDING: Final = "token_embd.weight"
OUTPUT: Final = "output.weight"
OUTPUT_NORM: Final = "output_norm.weight"
ROPE_FACTORS: Final = "rope_freqs.weight"
LONG_FACTORS: Final = "rope_factors_long.weight"
EVERY_SHARD: Final = frozenset({ROPE_FACTORS, LONG_FACTORS, "rope_factors_short.weight"})
"""Non-layer tensors that every layer reads."""
OUTPUT_BIAS: Final = "output.bias"
OUTPUT_NORM_BIAS: Final = "output_norm.bias"
LAST_SHARD: Final = frozenset({OUTPUT_NORM, OUTPUT_NORM_BIAS, OUTPUT, OUTPUT_BIAS})
"""Non-layer tensors behind the last layer."""

MAX_LAYERS: Final = 512  # LLAMA_MAX_LAYERS
_MAX_WIDTH: Final = 1 << 17  # eight times the widest published model; a hidden state then has 512 KiB
_MAX_HEADS: Final = 1 << 14
_MAX_HEAD_LENGTH: Final = 1 << 14
_MAX_CONTEXT: Final = 1 << 28  # twenty-five times the longest published context
_MAX_VOCABULARY: Final = 1 << 22  # GgufLimits.max_array_elements: the tokens are an array
F16_BYTES: Final = 2

_OLD_EXPERT: Final = re.compile(r"blk\.\d+\.ffn_(gate|up|down)\.\d+\.weight")
_LAYER: Final = re.compile(r"blk\.(0|[1-9][0-9]{0,3})\.(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What all models with one `general.architecture` have in common."""

    scales_embeddings: bool = False
    """Embeddings are multiplied with sqrt(width) as float32, which is done here: a shard that is not the first must not."""
    has_embedding_scale: bool = False
    """Embeddings are multiplied with the key `embedding_scale`, which is done here, and shards have a 1 there: llama.cpp
    would multiply the hidden states that come in with it, too."""
    has_long_factors: bool = False
    """There may be two tables of RoPE factors, for short and for long contexts."""
    entry: str | None = None
    """llama.cpp does to hidden states that come in what it should do to tokens alone (gemma multiplies them), or takes none
    at all (glm4). A shard is then given tokens, and the value of this tensor, the input of layer 0, is replaced."""
    layer_period: int = 1
    """Kinds of layers repeat with this period, counted from layer 0 of a file: cuts only at its multiples."""
    period_key: str | None = None
    """Suffix of the key that overrides `layer_period`."""
    period_only_with: str | None = None
    """Suffix of the key without which, or with 0 in it, all layers are of one kind."""
    stated_keys: tuple[str, ...] = ()
    """Suffixes of keys that have to be there: what llama.cpp takes where they are not depends on the number of layers, or
    is not what a shard needs."""
    counts_from_start: tuple[str, ...] = ()
    """Suffixes of the keys that say how many of the first layers are of another kind: less for each layer before."""
    zeroed_keys: tuple[str, ...] = ()
    """Suffixes of keys that shards have as 0: what they turn on is for pictures, and wider hidden states."""
    demands: frozenset[str] = frozenset()
    """Tensors behind the last layer that llama.cpp demands of each file, beside the output norm."""
    recognised_layer_count: int | None = None
    """llama.cpp takes a file with this many layers (or as many and more) for one particular model, and computes it
    differently: a shard with fewer layers computes something else, and so would a shard with just this many of a deeper
    model."""
    recognised_by: str = "scales attention in it differently"
    """What it does then."""
    recognised_scale: bool = True
    """It then scales attention by 1/sqrt(width / heads) in place of 1/sqrt(key length), which may be the same."""


_WINDOW_KEY: Final = "attention.sliding_window_pattern"
_PICTURES: Final = ("n_deepstack_layers",)
_MIXTURE: Final = ("leading_dense_block_count",)

FAMILIES: Final = {
    "llama": Family(),
    "qwen2": Family(),
    "qwen3": Family(),
    "gemma3": Family(
        scales_embeddings=True,
        layer_period=6,
        period_key=_WINDOW_KEY,
        recognised_layer_count=62,  # llama-model.cpp: 62 layers are LLM_TYPE_27B; measured: no other count up to 100 matters
    ),
    "qwen3moe": Family(),
    "qwen2moe": Family(demands=frozenset({OUTPUT})),
    "gemma": Family(scales_embeddings=True, entry="inp_scaled"),
    "gemma2": Family(
        scales_embeddings=True, entry="inp_scaled", layer_period=2, period_key=_WINDOW_KEY, recognised_layer_count=46
    ),
    "phi3": Family(has_long_factors=True),
    "deepseek2": Family(counts_from_start=_MIXTURE),
    "glm4": Family(entry="embd"),
    "olmo2": Family(
        demands=frozenset({OUTPUT}), layer_period=4, period_key=_WINDOW_KEY, period_only_with="attention.sliding_window"
    ),
    "granite": Family(has_embedding_scale=True),
    "granitemoe": Family(has_embedding_scale=True),
    "gpt-oss": Family(demands=frozenset({OUTPUT}), layer_period=2, period_key=_WINDOW_KEY),
    "mistral3": Family(),
    "smollm3": Family(layer_period=4),
    "command-r": Family(
        recognised_layer_count=64, recognised_by="demands norms in it that smaller ones lack", recognised_scale=False
    ),
    "cohere2": Family(layer_period=4, period_key=_WINDOW_KEY),
    "starcoder2": Family(demands=frozenset({OUTPUT_NORM_BIAS})),
    "phi2": Family(demands=frozenset({OUTPUT, OUTPUT_BIAS, OUTPUT_NORM_BIAS})),
    "internlm2": Family(demands=frozenset({OUTPUT})),
    "stablelm": Family(demands=frozenset({OUTPUT, OUTPUT_NORM_BIAS})),
    "exaone": Family(),
    "exaone4": Family(
        recognised_layer_count=64, recognised_by="gives it sliding windows", recognised_scale=False
    ),
    "ernie4_5": Family(),
    "qwen2vl": Family(entry="embd"),
    "qwen3vl": Family(entry="embd", zeroed_keys=_PICTURES),
    "qwen3vlmoe": Family(entry="embd", zeroed_keys=_PICTURES),
    "minicpm": Family(has_embedding_scale=True, stated_keys=("embedding_scale", "residual_scale")),
    "hunyuan-dense": Family(),
    "seed_oss": Family(),
    "olmoe": Family(demands=frozenset({OUTPUT})),
    "dots1": Family(demands=frozenset({OUTPUT}), counts_from_start=_MIXTURE),
    "bailingmoe": Family(demands=frozenset({OUTPUT}), counts_from_start=_MIXTURE),
}

_SHARED_CACHE: Final = "its later layers reuse the key-value cache of earlier ones"
_RECURRENT: Final = "layers of it keep a recurrent state, which cannot be rolled back to an earlier position"
_ENCODER: Final = "it is an encoder, not a language model"
_DIFFUSION: Final = "it fills in a text by diffusion, not token after token"
_DRAFT: Final = "it guesses for another model, whose hidden states it needs"

CANNOT_BE_CUT: Final = {
    **dict.fromkeys(("gemma3n", "gemma4"), _SHARED_CACHE),
    **dict.fromkeys(
        (
            "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7", "jamba", "falcon-h1", "granitehybrid", "lfm2",
            "lfm2moe", "nemotron_h", "nemotron_h_moe", "plamo2", "kimi-linear", "qwen3next", "qwen35", "qwen35moe",
        ),
        _RECURRENT,
    ),
    **dict.fromkeys(
        (
            "bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "neo-bert", "modern-bert", "eurobert",
            "gemma-embedding", "llama-embed", "t5encoder",
        ),
        _ENCODER,
    ),
    **dict.fromkeys(("dream", "llada", "llada-moe", "rnd1", "diffusion-gemma"), _DIFFUSION),
    **dict.fromkeys(("eagle3", "dflash", "gemma4-assistant"), _DRAFT),
    "t5": "it has an encoder and a decoder",
    "clip": "it is a vision projector, not a language model",
    "wavtokenizer-dec": "it makes sound, not text",
}  # fmt: skip
"""Why no version of this program will run these as shards, or none like this one."""

_LITE: Final = "deepseek2"
_LITE_LAYERS: Final = frozenset({26, 27, 48})
_UNNAMED_GATING: Final = 47
_AHEAD_KEY: Final = "nextn_predict_layers"

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
    """0: the values are a part of the keys, and nothing is kept for them."""
    embedding_scale: float
    """Embedding rows are multiplied with it in float32; 1.0 where the architecture does not scale."""
    cut_period: int
    """Layers can be cut only at its multiples."""
    tied: bool
    """The embedding table is the output matrix too."""
    per_layer_keys: tuple[str, ...]
    """Full names of the metadata arrays with one element per layer, which are cut with the layers."""
    counted_keys: tuple[str, ...] = ()
    """Full names of the keys that count the first layers, see `Family.counts_from_start`."""
    fixed_keys: tuple[tuple[str, Value], ...] = ()
    """What every shard has under a key, whatever the file has."""
    demands: frozenset[str] = frozenset()
    """As in `Family`."""
    unloadable_runs: frozenset[int] = frozenset()
    """Numbers of layers by which llama.cpp takes a shard for another model, and does not load it."""

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
        if name in CANNOT_BE_CUT:
            what = f"architecture {shown} cannot be cut into shards: {CANNOT_BE_CUT[name]}; these can: {these}"
            return UnsupportedModel(what=what)
        return UnsupportedModel(what=f"architecture {shown} is not proven to run as shards; these are: {these}")
    if (header.integer("split.count") or 1) > 1:
        return UnsupportedModel(what="this is one part of a model in several files: join them with llama-gguf-split --merge")
    architecture = _shape(header, name, family)
    fault = (
        _table_fault(header, architecture, family)
        or _per_layer_fault(header, architecture)
        or _recognised_fault(header, architecture, family)
        or _key_fault(header, architecture, family)
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
    heads_kv = _same_in_all_layers(header, f"{name}.attention.head_count_kv", layers, heads)
    value_length = _bounded(header, f"{name}.attention.value_length", _MAX_HEAD_LENGTH, max(width // heads, 1))
    if (header.integer(f"{name}.attention.key_length_mla") or 0) > 0:
        value_length = 0  # multi-head latent attention: keys and values are made of one row, the key of one head
    return Architecture(
        name=name,
        layer_count=layers,
        hidden_width=width,
        context_length=_bounded(header, f"{name}.context_length", _MAX_CONTEXT),
        vocab_size=_vocab_size(header, name, embedding),
        kv_heads=heads_kv,
        key_length=_bounded(header, f"{name}.attention.key_length", _MAX_HEAD_LENGTH, max(width // heads, 1)),
        value_length=value_length,
        embedding_scale=_embedding_scale(header, name, family, width),
        cut_period=_period(header, name, family, layers),
        tied=all(tensor.name != OUTPUT for tensor in header.tensors),
        per_layer_keys=per_layer,
        counted_keys=tuple(key for suffix in family.counts_from_start if (key := f"{name}.{suffix}") in header.metadata),
        fixed_keys=tuple(_fixed_keys(header, name, family).items()),
        demands=family.demands,
        unloadable_runs=_unloadable_runs(header, name),
    )


def _embedding_scale(header: GgufHeader, name: str, family: Family, width: int) -> float:
    if family.scales_embeddings:
        return _float32(math.sqrt(width))
    value = header.metadata.get(f"{name}.embedding_scale") if family.has_embedding_scale else None
    if value is None:
        return 1.0
    if value.is_array or value.type is not ValueType.FLOAT32:
        raise BadGguf(f"key {name}.embedding_scale has to be a number of type float32")
    (scale,) = value.numbers()
    if not math.isfinite(scale):
        raise BadGguf(f"key {name}.embedding_scale is not finite")
    return float(scale) or 1.0  # llama.cpp: 0 is no scale


def _fixed_keys(header: GgufHeader, name: str, family: Family) -> dict[str, Value]:
    zero = number_value(ValueType.UINT32, 0)
    fixed = {key: zero for suffix in family.zeroed_keys if (key := f"{name}.{suffix}") in header.metadata}
    if family.has_embedding_scale:
        fixed[f"{name}.embedding_scale"] = number_value(ValueType.FLOAT32, 1.0)
    if family.has_long_factors and any(tensor.name == LONG_FACTORS for tensor in header.tensors):
        key = f"{name}.rope.scaling.original_context_length"
        context = _bounded(header, f"{name}.context_length", _MAX_CONTEXT)
        original = _bounded(header, key, _MAX_CONTEXT, context)
        # llama.cpp takes the long factors where a context has more cells than this, and how many cells a stage has is each
        # node's own affair. So it is as for a context of the length that the model was trained for, everywhere.
        fixed[key] = number_value(ValueType.UINT32, 1 if context > original else _MAX_CONTEXT)
    if name == _LITE and _is_lite(header):
        # Without the factor for queries. llama.cpp knows these models by their number of layers, or by a rank of 0.
        fixed[f"{name}.attention.q_lora_rank"] = zero
    return fixed


def _is_lite(header: GgufHeader) -> bool:
    return any(tensor.name == "blk.0.attn_q.weight" for tensor in header.tensors)


def _unloadable_runs(header: GgufHeader, name: str) -> frozenset[int]:
    """Measured: a deepseek2 of so many layers is loaded as one without the factor for queries, whatever it says."""
    return _LITE_LAYERS if name == _LITE and not _is_lite(header) else frozenset()


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
    if family.period_only_with is not None and not header.integer(f"{name}.{family.period_only_with}"):
        return 1
    if family.period_key is None:
        return family.layer_period
    period = header.integer(f"{name}.{family.period_key}")
    if period is None:
        return family.layer_period
    if not 2 <= period <= layers:  # 1, no window at all but a cache for one, makes llama.cpp abort the process
        raise BadGguf(f"key {name}.{family.period_key} is {period}, accepted are 2 to {layers}, the number of layers")
    return period


def _table_fault(header: GgufHeader, architecture: Architecture, family: Family) -> str | None:
    """What is missing from the tensor table, or is in it and has no place in a shard."""
    tensors = {tensor.name: tensor for tensor in header.tensors}
    for name in (EMBEDDING, OUTPUT_NORM, *sorted(architecture.demands)):
        if name not in tensors:
            return f"it has no tensor {name}"
    for name in (EMBEDDING, OUTPUT):
        wanted = (architecture.hidden_width, architecture.vocab_size)
        if name in tensors and tensors[name].dims != wanted:
            return f"tensor {name} has the dimensions {tensors[name].dims}, expected {wanted}"
    seen: set[int] = set()
    for name in tensors:
        layer = layer_of(name)
        if layer is None and name not in _places(family):
            return f"tensor {name!a} belongs to no layer and is unknown"
        if layer is not None:
            if _OLD_EXPERT.fullmatch(name):
                return f"tensor {name!a} is of one expert alone, a form that llama.cpp has given up: convert the model anew"
            if layer >= architecture.layer_count:
                return f"tensor {name!a} is of layer {layer}, the model has {architecture.layer_count} layers"
            seen.add(layer)
    missing = next((layer for layer in range(architecture.layer_count) if layer not in seen), None)
    return None if missing is None else f"layer {missing} has no tensors"


def _places(family: Family) -> frozenset[str]:
    """Non-layer tensors that have a place in the shards of such a model."""
    known = {EMBEDDING, OUTPUT_NORM, OUTPUT, OUTPUT_BIAS, ROPE_FACTORS} | family.demands
    return frozenset(known | EVERY_SHARD if family.has_long_factors else known)


def _per_layer_fault(header: GgufHeader, architecture: Architecture) -> str | None:
    """An array with as many elements as layers that is not in our list may be one that has to be cut."""
    for key, value in header.metadata.items():
        if key == f"{architecture.name}.rope.dimension_sections":
            continue  # four numbers, in every model
        if key.startswith(architecture.name + ".") and value.count == architecture.layer_count:
            if key not in architecture.per_layer_keys:
                return f"key {key!a} may hold one value per layer, and nobody has taught this version to cut it"
        elif key in architecture.per_layer_keys:
            return f"key {key} has {value.count} elements, the model has {architecture.layer_count} layers"
    return None


def _recognised_fault(header: GgufHeader, architecture: Architecture, family: Family) -> str | None:
    recognised = family.recognised_layer_count
    if recognised is None or architecture.layer_count < recognised:
        return None
    heads = _same_in_all_layers(header, f"{architecture.name}.attention.head_count", architecture.layer_count, None)
    if family.recognised_scale and architecture.hidden_width == heads * architecture.key_length:
        return None  # both scales are the same
    return (
        f"llama.cpp knows a model by its {recognised} layers and {family.recognised_by}, "
        "so a whole file and its shards would not agree"
    )


def _key_fault(header: GgufHeader, architecture: Architecture, family: Family) -> str | None:
    """Keys that turn on what no test covers."""
    name = architecture.name
    for suffix in family.stated_keys:
        if f"{name}.{suffix}" not in header.metadata:
            return f"key {name}.{suffix} is missing, and what llama.cpp takes instead is wrong for a shard"
    if header.integer(f"{name}.{_AHEAD_KEY}"):
        return "its last layers guess tokens ahead, and nobody has taught this version where they belong"
    for key in architecture.counted_keys:
        if (header.integer(key) or 0) < 0:
            return f"key {key} is negative"
    unnamed = f"{name}.expert_gating_func" not in header.metadata
    if name == _LITE and unnamed and architecture.layer_count == _UNNAMED_GATING:
        return f"it does not say how its experts are gated, and llama.cpp goes by its {_UNNAMED_GATING} layers"
    return None


def _float32(number: float) -> float:
    """`number` as C's float has it."""
    (rounded,) = struct.unpack("<f", struct.pack("<f", number))
    return float(rounded)
