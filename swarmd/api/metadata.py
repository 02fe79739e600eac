"""The metadata of a GGUF header as `GET /api/admin/models/{id}/metadata` shows it. Pure.

Shape and rules: the seed, and swarmllm.md 2.3.1. Names of file types are llama.cpp's own (design, ruling 4).
"""

from __future__ import annotations

import struct
from typing import Final

from swarmd.api import shapes
from swarmd.domain.ids import ModelId
from swarmd.models.ggml import file_type_name
from swarmd.models.gguf import GgufHeader
from swarmd.models.gguf_values import Value, ValueType

TEXT_SHOWN: Final = 200  # contract: swarmllm.md 2.3.1; a chat template alone has thousands

_TOKENS: Final = "tokenizer.ggml.tokens"
_LEFT_OUT: Final = frozenset({_TOKENS, "tokenizer.ggml.merges", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"})


def metadata_view(model: ModelId, header: GgufHeader, *, architecture_supported: bool) -> shapes.Metadata:
    """What is missing in the file, or is of another kind than it should be, is null."""
    prefix = _text(header, "general.architecture")
    file_type = _integer(header, "general.file_type")
    tokens = header.metadata.get(_TOKENS)

    def whole(key: str) -> int | None:
        return _integer(header, f"{prefix}.{key}")

    return shapes.Metadata(
        model_id=model,
        general=shapes.GeneralMetadata(
            name=_text(header, "general.name"),
            architecture=prefix,
            architecture_supported=architecture_supported,
            file_type=file_type,
            quantization=None if file_type is None else file_type_name(file_type),
        ),
        model=shapes.ModelMetadata(
            context_length=whole("context_length"),
            block_count=whole("block_count"),
            embedding_length=whole("embedding_length"),
            head_count=whole("attention.head_count"),
            head_count_kv=whole("attention.head_count_kv"),
            rope_dimension_count=whole("rope.dimension_count"),
            rope_freq_base=_number(header, f"{prefix}.rope.freq_base"),
            layer_norm_rms_epsilon=_number(header, f"{prefix}.attention.layer_norm_rms_epsilon"),
            vocab_size=tokens.count if tokens is not None else whole("vocab_size"),
        ),
        tokenizer=shapes.TokenizerMetadata(
            model=_text(header, "tokenizer.ggml.model"),
            pre=_text(header, "tokenizer.ggml.pre"),
            eos_token_id=_integer(header, "tokenizer.ggml.eos_token_id"),
            bos_token_id=_integer(header, "tokenizer.ggml.bos_token_id"),
            padding_token_id=_integer(header, "tokenizer.ggml.padding_token_id"),
        ),
        tensors=shapes.TensorMetadata(count=len(header.tensors), data_offset=header.data_offset),
        raw=[
            shapes.RawValue(key=key, value=raw_text(value))
            for key, value in sorted(header.metadata.items())
            if key not in _LEFT_OUT
        ],
    )


def raw_text(value: Value) -> str:
    """Any value as a short text."""
    if value.is_array:
        return f"[array of {value.count} items]"
    if value.type is ValueType.STRING:
        text = next(value.strings()).decode(errors="replace")
        return text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN] + "..."
    if value.type is ValueType.BOOL:
        return "true" if value.numbers()[0] else "false"
    return str(_float(value) if not value.is_integer else value.numbers()[0])


def _text(header: GgufHeader, key: str) -> str | None:
    value = header.metadata.get(key)
    if value is None or value.is_array or value.type is not ValueType.STRING:
        return None
    return next(value.strings()).decode(errors="replace")


def _integer(header: GgufHeader, key: str) -> int | None:
    value = header.metadata.get(key)
    return int(value.numbers()[0]) if value is not None and not value.is_array and value.is_integer else None


def _number(header: GgufHeader, key: str) -> float | None:
    value = header.metadata.get(key)
    if value is None or value.is_array or value.type in (ValueType.STRING, ValueType.BOOL):
        return None
    return _float(value)


def _float(value: Value) -> float:
    """The shortest decimal that is the same 32-bit number: 1e-05, where Python would print 9.999999747378752e-06."""
    number = float(value.numbers()[0])
    if value.type is not ValueType.FLOAT32:
        return number
    for digits in range(6, 9):
        short = float(f"{number:.{digits}g}")
        if struct.pack("<f", short) == value.data:
            return short
    return number
