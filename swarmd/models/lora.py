"""A LoRA adapter cut by layers: what llama.cpp's own converter makes of it, in a form that every stage checks by itself.

An adapter becomes one *part* for each layer it changes, float32 as that converter writes it, and an *index* that names them
with their hashes. The digest of the index names the adapter in the swarm, so whoever gets a part from a peer knows whether
it is the right one, however the model is cut. A slice is the parts of some layers as a GGUF that llama.cpp loads, layers
counted from 0 as in the shard it belongs to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from blake3 import blake3

from swarmd.domain.refusals import BadFile
from swarmd.models.architectures import MAX_LAYERS, Architecture
from swarmd.models.ggml import F32
from swarmd.models.gguf import GgufHeader, TensorInfo, encode_header, place_tensors
from swarmd.models.gguf_values import ValueType, number_value, text_value
from swarmd.models.safetensors import StoredTensor, shown

INDEX_LIMIT: Final = 1 << 20  # bytes; 512 layers of 7 pairs have 100 KiB
ADAPTER_LIMIT: Final = 1 << 30
"""Bytes of all parts of one adapter: rank 16 on all matrices of a 70B model is 830 MB."""
PART_LIMIT: Final = 64 << 20  # bytes of one layer: held whole in memory where it is checked. Rank 64 of a 70B model is 42 MB
MAX_RANK: Final = 1024  # four times the highest in use
DIGEST_BYTES: Final = 32

MODULES: Final = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""PEFT's names of what can be adapted, and GGUF's."""
ADAPTED: Final = ("llama", "qwen2", "qwen3", "gemma3")
"""Architectures whose adapters are proven to be worth the merged weights (tests/models/test_lora_runs.py). Names and the
order of rows are another matter in each."""
_ROTATED: Final = {"llama": frozenset({"attn_q", "attn_k"})}
"""By architecture: matrices whose rows llama.cpp's converter orders anew, so that the two halves of each head that RoPE
turns together lie side by side. Of an adapter those are the rows of B. In the other families RoPE takes halves."""
_TENSORS: Final = frozenset(MODULES.values())
_NAME: Final = re.compile(
    r"(?:base_model\.model\.)?(?:(?:model|language_model)\.)*layers\.(0|[1-9][0-9]{0,3})\."
    r"((?:self_attn|mlp)\.[a-z_]+)\.lora_(A|B)(?:\.default)?\.weight"
)
_MAX_DIMENSION: Final = 1 << 24
_F32_BYTES: Final = 4
_UNFIT: Final = (
    ("lora_magnitude_vector", "DoRA's magnitudes cannot be applied by llama.cpp"),
    ("modules_to_save", "whole modules (modules_to_save) cannot be replaced by an adapter here"),
    ("lora_embedding", "embeddings cannot be adapted here"),
    ("embed_tokens", "embeddings cannot be adapted here"),
    ("token_adapter", "embeddings cannot be adapted here"),
    ("lm_head", "the output matrix cannot be adapted here"),
    ("experts", "experts cannot be adapted here"),
    ("bias", "biases cannot be adapted here"),
)
"""What a tensor's name may contain, and why it is refused."""

Matrix = npt.NDArray[np.float32]


class BadAdapter(ValueError):
    """An index that cannot be what its digest says; one sentence for people."""


class Pair(msgspec.Struct, frozen=True, array_like=True):
    """A and B of one matrix; W + scale * B A is what it becomes. Float32, row after row, A (rank, inputs) first."""

    tensor: str
    """`attn_q` and its like."""
    rank: int
    inputs: int
    outputs: int

    @property
    def size_bytes(self) -> int:
        return _F32_BYTES * self.rank * (self.inputs + self.outputs)


class Part(msgspec.Struct, frozen=True, array_like=True):
    """What the adapter does to one layer."""

    layer: int
    hash: bytes
    """BLAKE3 of the pairs' bytes, one after the other."""
    pairs: list[Pair]

    @property
    def size_bytes(self) -> int:
        return sum(pair.size_bytes for pair in self.pairs)


class Index(msgspec.Struct, frozen=True, array_like=True):
    """The whole adapter without its numbers."""

    architecture: str
    alpha: float
    """As in a GGUF: B A is multiplied with alpha / rank."""
    parts: list[Part]
    """By layer, ascending."""

    @property
    def size_bytes(self) -> int:
        """Of all parts."""
        return sum(part.size_bytes for part in self.parts)

    def between(self, start: int, end: int) -> tuple[Part, ...]:
        """Those of layers [start, end)."""
        return tuple(part for part in self.parts if start <= part.layer < end)


class PeftConfig(msgspec.Struct, frozen=True):
    """What must be known of an `adapter_config.json`."""

    peft_type: str | None = None
    r: int | None = None
    lora_alpha: float | None = None
    use_rslora: bool | None = False
    use_dora: bool | None = False
    fan_in_fan_out: bool | None = False
    bias: str | None = "none"
    lora_bias: bool | None = False
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    modules_to_save: list[str] | None = None
    alora_invocation_tokens: list[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePair:
    """One pair as it lies in a safetensors file."""

    tensor: str
    a: StoredTensor
    b: StoredTensor

    def pair(self) -> Pair:
        return Pair(self.tensor, self.a.shape[0], self.a.shape[1], self.b.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be converted; everything but the numbers is checked."""

    architecture: Architecture
    rank: int
    alpha: float
    """As people write it (`lora_alpha`)."""
    effective_alpha: float
    """For the GGUF: llama.cpp divides by the rank, and knows no other way to scale."""
    layers: Mapping[int, tuple[SourcePair, ...]]
    """By layer, ascending; pairs by name."""


_decode_index: Final = msgspec.msgpack.Decoder(Index)
_decode_config: Final = msgspec.json.Decoder(PeftConfig)


def read_config(data: bytes) -> PeftConfig | BadFile:
    """Of the file beside an adapter, when it is there."""
    try:
        config = _decode_config.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return BadFile(what=f"adapter_config.json beside the adapter cannot be read: {error}", param="path")
    unfit = (
        (config.peft_type not in (None, "LORA"), f"is of type {str(config.peft_type)[:40]!r} and not LORA"),
        (bool(config.use_dora), "says use_dora: llama.cpp cannot apply DoRA's magnitudes"),
        (config.bias not in (None, "none") or bool(config.lora_bias), "has biases, which cannot be adapted here"),
        (bool(config.fan_in_fan_out), "says fan_in_fan_out, which no supported architecture has"),
        (bool(config.modules_to_save), f"replaces whole modules ({', '.join(config.modules_to_save or ())[:80]})"),
        (bool(config.rank_pattern), "has a rank_pattern: one rank for all matrices is supported"),
        (bool(config.alpha_pattern), "has an alpha_pattern: one alpha for all matrices is supported"),
        (bool(config.alora_invocation_tokens), "is an activated LoRA, which begins inside a prompt: not supported"),
    )
    for is_so, what in unfit:
        if is_so:
            return BadFile(what=f"the adapter's adapter_config.json {what}", param="path")
    return config


def plan_adapter(
    tensors: Mapping[str, StoredTensor],
    header: GgufHeader,
    architecture: Architecture,
    *,
    rank: int | None,
    alpha: float | None,
    config: PeftConfig | None,
) -> Plan | BadFile:
    """What becomes of these tensors on this base model. `rank` and `alpha`: as somebody says; they have to agree with the
    file and with `config`, or are taken from there."""
    if architecture.name not in ADAPTED:
        what = f"adapters of {architecture.name} models cannot be applied yet, those of {', '.join(ADAPTED)} can"
        return BadFile(what=what, param="base_model")
    halves: dict[int, dict[str, dict[str, StoredTensor]]] = {}
    for name, tensor in tensors.items():
        found = _NAME.fullmatch(name)
        if found is None or found[2] not in MODULES:
            return BadFile(what=f"tensor {shown(name)} cannot be applied: {_why_unfit(name)}", param="path")
        layer, target = int(found[1]), MODULES[found[2]]
        pair = halves.setdefault(layer, {}).setdefault(target, {})
        if found[3] in pair:
            return BadFile(what=f"tensor {shown(name)} is there under two names", param="path")
        pair[found[3]] = tensor
    if not halves:
        return BadFile(what="the file has no LoRA tensors", param="path")
    layers: dict[int, tuple[SourcePair, ...]] = {}
    ranks: set[int] = set()
    for layer in sorted(halves):
        pairs: list[SourcePair] = []
        for target in sorted(halves[layer]):
            where, half = f"layer {layer}, {target}", halves[layer][target]
            if len(half) != 2:
                return BadFile(what=f"{where}: lora_{'B' if 'A' in half else 'A'} is missing", param="path")
            pair = SourcePair(tensor=target, a=half["A"], b=half["B"])
            if len(pair.a.shape) != 2 or len(pair.b.shape) != 2 or pair.a.shape[0] != pair.b.shape[1]:
                return BadFile(
                    what=f"{where}: lora_A {pair.a.shape} and lora_B {pair.b.shape} are no (rank, in) and (out, rank)",
                    param="path",
                )
            ranks.add(pair.a.shape[0])
            pairs.append(pair)
        layers[layer] = tuple(pairs)
    if len(ranks) != 1:
        some = ", ".join(map(str, sorted(ranks)[:8]))
        return BadFile(what=f"the adapter has matrices of ranks {some}: one rank is supported", param="path")
    scaling = _scaling(ranks.pop(), rank, alpha, config)
    if isinstance(scaling, BadFile):
        return scaling
    own_rank, own_alpha, effective = scaling
    plan = Plan(
        architecture=architecture, rank=own_rank, alpha=own_alpha, effective_alpha=effective, layers=layers
    )
    draft = Index(
        architecture.name, effective,
        [Part(layer, bytes(DIGEST_BYTES), [one.pair() for one in pairs]) for layer, pairs in layers.items()],
    )  # fmt: skip
    try:
        _check(draft)
    except BadAdapter as error:
        return BadFile(what=f"the adapter cannot be used: {error}", param="path")
    fault = misfit(draft, header, architecture)
    return BadFile(what=f"the adapter does not fit its base model: {fault}", param="path") if fault else plan


def convert(
    pair: SourcePair, a: bytes | memoryview, b: bytes | memoryview, architecture: Architecture
) -> bytes | BadFile:
    """The bytes of one pair as a part has them, from the bytes of its two tensors in the file."""
    down, up = pair.a.floats(a), pair.b.floats(b)
    if not (np.isfinite(down).all() and np.isfinite(up).all()):
        return BadFile(what=f"{pair.tensor} has numbers that are infinite or none", param="path")
    if pair.tensor in _ROTATED.get(architecture.name, ()):
        up = rotated(up, architecture.key_length)
    return down.astype("<f4", copy=False).tobytes() + up.astype("<f4", copy=False).tobytes()


def rotated(rows: Matrix, head_length: int) -> Matrix:
    """Rows of each head in the order of a llama GGUF: first of its lower half, first of its upper, and so on."""
    half = head_length // 2
    return np.ascontiguousarray(rows.reshape(-1, 2, half, rows.shape[1]).swapaxes(1, 2)).reshape(rows.shape)


def encode_index(index: Index) -> bytes:
    return msgspec.msgpack.encode(index)


def digest_of(index: bytes | bytearray) -> bytes:
    """The adapter's name in the swarm."""
    return blake3(index).digest()


def part_hash(data: bytes | bytearray) -> bytes:
    return blake3(data).digest()


def decode_index(data: bytes | bytearray) -> Index:
    """From a peer or a disk. Raises BadAdapter."""
    if len(data) > INDEX_LIMIT:
        raise BadAdapter(f"an index of {len(data)} bytes is longer than {INDEX_LIMIT}")
    try:
        index = _decode_index.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadAdapter(f"an adapter's index cannot be read: {error}") from None
    _check(index)
    return index


def misfit(index: Index, header: GgufHeader, architecture: Architecture) -> str | None:
    """Why llama.cpp could not apply the adapter to this model; None: it can."""
    if index.architecture not in ADAPTED:
        return f"adapters of {shown(index.architecture)} models cannot be applied"
    if index.architecture != architecture.name:
        return f"it is for {shown(index.architecture)} and the model is {architecture.name}"
    tables = {tensor.name: tensor.dims for tensor in header.tensors}
    for part in index.parts:
        for pair in part.pairs:
            name = f"blk.{part.layer}.{pair.tensor}.weight"
            dims = tables.get(name)
            if dims is None:
                return f"the model has no tensor {name} ({architecture.layer_count} layers)"
            if dims != (pair.inputs, pair.outputs):
                return f"{name} is {dims[0]} by {math.prod(dims[1:])} and the adapter's {pair.inputs} by {pair.outputs}"
            if pair.tensor in _ROTATED.get(architecture.name, ()) and (
                architecture.key_length % 2 or pair.outputs % architecture.key_length
            ):
                return f"{name} has {pair.outputs} rows, which are no heads of {architecture.key_length}"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A GGUF for llama.cpp, without the numbers."""

    header: bytes
    places: tuple[tuple[int, int, int, int], ...]
    """(layer, offset in its part, file offset, bytes) of each tensor."""
    size_bytes: int


def slice_of(index: Index, start: int, end: int) -> Slice | None:
    """Of layers [start, end), which are numbered from 0 in it. None: the adapter changes none of them."""
    parts = index.between(start, end)
    if not parts:
        return None
    rows: list[tuple[str, tuple[int, ...], int]] = []
    for part in parts:
        for pair in part.pairs:
            name = f"blk.{part.layer - start}.{pair.tensor}.weight"
            rows.append((f"{name}.lora_a", (pair.inputs, pair.rank), F32))
            rows.append((f"{name}.lora_b", (pair.rank, pair.outputs), F32))
    tensors: tuple[TensorInfo, ...] = place_tensors(rows, alignment=32)
    header = encode_header(
        metadata={
            "general.architecture": text_value(index.architecture),
            "general.type": text_value("adapter"),
            "adapter.type": text_value("lora"),
            "adapter.lora.alpha": number_value(ValueType.FLOAT32, index.alpha),
        },
        tensors=tensors,
    )
    places: list[tuple[int, int, int, int]] = []
    placed = iter(tensors)
    for part in parts:
        at = 0
        for _ in range(2 * len(part.pairs)):
            tensor = next(placed)
            places.append((part.layer, at, len(header) + tensor.offset_bytes, tensor.size_bytes))
            at += tensor.size_bytes
    size = places[-1][2] + places[-1][3]
    return Slice(header=header, places=tuple(places), size_bytes=-size % 32 + size)


def _check(index: Index) -> None:
    """Raises BadAdapter: numbers that cannot be, before anything is made of them."""
    if not (math.isfinite(index.alpha) and index.alpha != 0 and abs(index.alpha) < 1e30):
        raise BadAdapter(f"alpha is {index.alpha}, which scales nothing")
    if not 0 < len(index.parts) <= MAX_LAYERS:
        raise BadAdapter(f"{len(index.parts)} layers are adapted, 1 to {MAX_LAYERS} may be")
    before = -1
    for part in index.parts:
        if not before < part.layer < MAX_LAYERS:
            raise BadAdapter(f"layer {part.layer} follows layer {before}")
        before = part.layer
        if len(part.hash) != DIGEST_BYTES:
            raise BadAdapter(f"the hash of layer {part.layer} has {len(part.hash)} bytes")
        names = [pair.tensor for pair in part.pairs]
        if not names or names != sorted(set(names)) or not _TENSORS.issuperset(names):
            raise BadAdapter(f"layer {part.layer} has other matrices than can be adapted, or in another order")
        for pair in part.pairs:
            if not 0 < pair.rank <= MAX_RANK:
                raise BadAdapter(f"layer {part.layer}, {pair.tensor}: rank {pair.rank}, allowed are 1 to {MAX_RANK}")
            if not (0 < pair.inputs <= _MAX_DIMENSION and 0 < pair.outputs <= _MAX_DIMENSION):
                raise BadAdapter(f"layer {part.layer}, {pair.tensor} is {pair.inputs} by {pair.outputs}")
        if part.size_bytes > PART_LIMIT:
            raise BadAdapter(f"layer {part.layer} has {part.size_bytes} bytes, at most {PART_LIMIT} are taken")
    if index.size_bytes > ADAPTER_LIMIT:
        raise BadAdapter(f"it has {index.size_bytes} bytes as float32, at most {ADAPTER_LIMIT} are taken")


def _scaling(
    found: int, rank: int | None, alpha: float | None, config: PeftConfig | None
) -> tuple[int, float, float] | BadFile:
    """Rank, alpha, and alpha as the GGUF has it."""
    if rank is not None and rank != found:
        return BadFile(what=f"rank is {rank} and the matrices of the adapter have rank {found}", param="rank")
    if config is not None and config.r is not None and config.r != found:
        return BadFile(what=f"adapter_config.json says rank {config.r}, the matrices have rank {found}", param="path")
    stated = None if config is None else config.lora_alpha
    if alpha is None:
        alpha = stated
    elif stated is not None and stated != alpha:
        return BadFile(what=f"alpha is {alpha:g} and adapter_config.json beside the adapter says {stated:g}", param="alpha")
    if alpha is None:
        return BadFile(what="alpha is not given, and there is no adapter_config.json beside the adapter", param="alpha")
    if not math.isfinite(alpha) or alpha == 0:
        return BadFile(what=f"alpha is {alpha}: with it the adapter does nothing", param="alpha")
    stable = config is not None and bool(config.use_rslora)  # scaled with alpha / sqrt(rank)
    effective = float(np.float32(alpha * math.sqrt(found) if stable else alpha))
    return found, float(alpha), effective


def _why_unfit(name: str) -> str:
    for part, why in _UNFIT:
        if part in name:
            return why
    return f"adapters change layers' {', '.join(MODULES)}"
