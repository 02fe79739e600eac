"""Random LoRA adapters for tiny models, as PEFT writes them, and what they make of the weights, in numpy.

Shares no code with `swarmd.models.lora`: the safetensors bytes and the arithmetic are made here anew.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from swarmd.models.catalog import KnownModel
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.shards import cut_model

PREFIX = "base_model.model.model.layers."
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
Weights = dict[str, npt.NDArray[np.float32]]


def shapes(model: TinyModel) -> dict[str, tuple[int, int]]:
    """(out, in) of what can be adapted."""
    heads, kv_heads = model.heads * model.head_length, model.kv_heads * model.head_length
    return {
        "self_attn.q_proj": (heads, model.width), "self_attn.k_proj": (kv_heads, model.width),
        "self_attn.v_proj": (kv_heads, model.width), "self_attn.o_proj": (model.width, heads),
        "mlp.gate_proj": (model.feed_forward, model.width), "mlp.up_proj": (model.feed_forward, model.width),
        "mlp.down_proj": (model.width, model.feed_forward),
    }  # fmt: skip


def random_adapter(
    model: TinyModel, *, rank: int = 4, seed: int = 5, layers: Iterable[int] | None = None, modules: Iterable[str] = ()
) -> Weights:
    """Tensors by PEFT's names. By default of every matrix of every layer."""
    random = np.random.default_rng(seed)
    tensors: Weights = {}
    for layer in range(model.layers) if layers is None else layers:
        for module in tuple(modules) or GGUF_NAMES:
            if model.experts and module.startswith("mlp."):
                continue
            rows, columns = shapes(model)[module]
            for half, shape in (("A", (rank, columns)), ("B", (rows, rank))):
                values = random.standard_normal(shape, dtype=np.float32) * 0.3
                tensors[f"{PREFIX}{layer}.{module}.lora_{half}.weight"] = values
    return tensors


def safetensors_bytes(tensors: Mapping[str, npt.NDArray[np.float32]], *, dtype: str = "F32") -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, values in tensors.items():
        raw = packed(values, dtype)
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + bytes(data)


def packed(values: npt.NDArray[np.float32], dtype: str) -> bytes:
    if dtype == "F32":
        return values.astype("<f4").tobytes()
    if dtype == "F16":
        return values.astype("<f2").tobytes()
    assert dtype == "BF16"
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()  # cut off, not rounded: what it is, it is


def write_adapter(folder: Path, tensors: Mapping[str, npt.NDArray[np.float32]], **config: object) -> Path:
    """As PEFT's `save_pretrained`; without `config` there is no adapter_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(safetensors_bytes(tensors))
    if config:
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "bias": "none", **config}))
    return path


def merge_into(
    model: TinyModel, source: Path, target: Path, tensors: Mapping[str, npt.NDArray[np.float32]], scale: float
) -> Path:
    """The model with W + scale * B A in place of each W, in F32: what the adapter has to amount to.

    For the llama architecture B A is a matrix of the original checkpoint, whose rows the GGUF has in another order; that
    order is written out here by index, one row at a time.
    """
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, model.architecture)
    from tests.fakes.gguf import _metadata

    _metadata(writer, model)
    for tensor in reader.tensors:
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        delta = _delta(model, tensor.name, tensors)
        writer.add_tensor(tensor.name, (weight if delta is None else weight + np.float32(scale) * delta).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _delta(
    model: TinyModel, name: str, tensors: Mapping[str, npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32] | None:
    for module, target in GGUF_NAMES.items():
        for layer in range(model.layers):
            if name != f"blk.{layer}.{target}.weight":
                continue
            a = tensors.get(f"{PREFIX}{layer}.{module}.lora_A.weight")
            b = tensors.get(f"{PREFIX}{layer}.{module}.lora_B.weight")
            if a is None or b is None:
                return None
            delta = b @ a
            if model.architecture == "llama" and target in ("attn_q", "attn_k"):
                delta = delta[[_row_in_checkpoint(row, model.head_length) for row in range(len(delta))]]
            return delta
    return None


def _row_in_checkpoint(row: int, head_length: int) -> int:
    """Where a row of a llama GGUF's q or k is in the checkpoint. RoPE of llama.cpp turns rows 2i and 2i+1 of a head
    together; that of the checkpoint rows i and i + half."""
    head, at = divmod(row, head_length)
    return head * head_length + at // 2 + (at % 2) * (head_length // 2)


def known_model(folder: Path, model: TinyModel) -> KnownModel:
    """A base model, one shard a layer; nothing of it needs to be on a disk afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = cut_model(write_model(folder / "tiny.gguf", model).read_bytes(), shard_size_bytes=1)
    return KnownModel(
        manifest=whole.manifest, header=whole.header, architecture=whole.architecture, files=whole.files, pinned=True
    )
