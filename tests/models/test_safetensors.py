"""Headers of safetensors files, true ones and those of somebody who wants memory, other files' bytes, or a crash."""

from __future__ import annotations

import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.models.safetensors import (
    HEADER_LIMIT,
    TENSORS_LIMIT,
    BadSafetensors,
    StoredTensor,
    header_length,
    parse_header,
)
from tests.fakes.adapters import packed, safetensors_bytes


def read(data: bytes) -> dict[str, StoredTensor]:
    length = header_length(data[:8], len(data))
    return parse_header(data[8 : 8 + length], len(data))


def made(rows: object, data: bytes = b"") -> bytes:
    header = rows if isinstance(rows, bytes) else json.dumps(rows).encode()
    return struct.pack("<Q", len(header)) + header + data


def row(shape: object = (2,), offsets: object = (0, 8), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_every_dtype_is_read_exactly(dtype: str) -> None:
    values = np.random.default_rng(1).standard_normal((3, 5), dtype=np.float32)
    data = safetensors_bytes({"one": values, "two": values[:1]}, dtype=dtype)
    found = read(data)
    assert {name: tensor.shape for name, tensor in found.items()} == {"one": (3, 5), "two": (1, 5)}
    one = found["one"]
    floats = one.floats(data[one.offset : one.offset + one.size_bytes])
    assert floats.dtype == np.float32 and packed(floats, dtype) == packed(values, dtype)
    assert np.abs(floats - values).max() < 0.02


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "0 bytes"),
        (b"\xff" * 8, "header would have"),
        (struct.pack("<Q", HEADER_LIMIT + 1) + b"{}", "header would have"),
        (struct.pack("<Q", 100) + b"{}", "would end at byte 108 of 10"),
        (made(b"[]"), "cannot be read"),
        (made(b'{"a": ' + b"[" * 5000 + b"}"), "cannot be read"),
        (made({"a": row(dtype="I64", offsets=(0, 16))}, bytes(16)), "these can be read: F32, F16, BF16"),
        (made({"a": row(dtype=7)}, bytes(8)), "cannot be read"),
        (made({"a": row(shape=(-2,))}, bytes(8)), "cannot be read"),
        (made({"a": row(shape=[1] * 9)}, bytes(8)), "cannot be read"),
        (made({"a": row(shape=(1 << 40, 1 << 40))}, bytes(8)), "lies at bytes"),
        (made({"a": row(offsets=(8, 0))}, bytes(8)), "lies at bytes"),
        (made({"a": row(offsets=(0, 9))}, bytes(9)), "lies at bytes"),
        (made({"a": row(offsets=(8, 16))}, bytes(8)), "lies at bytes"),
        (made({"a": row(offsets=(8, 16))}, bytes(16)), "is next"),
        (made({"a": row(), "b": row()}, bytes(16)), "is next"),
        (made({"a": row(), "b": row(offsets=(4, 12))}, bytes(12)), "is next"),
        (made({"a": row()}, bytes(9)), "end at byte"),
        (made({f"t{n}": row(shape=(0,), offsets=(0, 0)) for n in range(TENSORS_LIMIT + 1)}), "more than"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(data: bytes, word: str) -> None:
    with pytest.raises(BadSafetensors, match=word):
        read(data)


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_else(data: bytes) -> None:
    with contextlib.suppress(BadSafetensors):
        read(data)
