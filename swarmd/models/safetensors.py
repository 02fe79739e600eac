"""The header of a safetensors file, read without trust: every number is compared with the file before it is used.

The format: 8 bytes with the length of a JSON object that maps names to dtype, shape and place; then the data, without gaps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

LENGTH_BYTES: Final = 8
HEADER_LIMIT: Final = 4 << 20  # bytes; 512 layers of 7 pairs have 1 MB
TENSORS_LIMIT: Final = 16_384  # twice what 512 layers of 7 pairs have
MAX_DIMS: Final = 8
METADATA: Final = "__metadata__"

ELEMENT_BYTES: Final = {"F32": 4, "F16": 2, "BF16": 2}
"""Dtypes that can be read; every other one is refused by name."""

_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 48)]


class BadSafetensors(ValueError):
    """The bytes are no safetensors file that this node accepts; one sentence for people."""


class _Row(msgspec.Struct, frozen=True):
    dtype: str
    shape: Annotated[list[_Count], msgspec.Meta(max_length=MAX_DIMS)]
    data_offsets: tuple[_Count, _Count]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One row of the header."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    """In the file."""
    size_bytes: int

    def floats(self, data: bytes | memoryview) -> npt.NDArray[np.float32]:
        """Its numbers, exactly; `data` is its bytes."""
        assert len(data) == self.size_bytes, f"{len(data)} bytes of {self.size_bytes}"
        if self.dtype == "F32":
            return np.frombuffer(data, "<f4").reshape(self.shape)
        if self.dtype == "F16":
            return np.frombuffer(data, "<f2").astype(np.float32).reshape(self.shape)
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(self.shape)


def header_length(start: bytes, file_bytes: int) -> int:
    """Bytes of JSON behind the first 8, which are `start`. Raises BadSafetensors."""
    if len(start) != LENGTH_BYTES:
        raise BadSafetensors(f"a file of {file_bytes} bytes is no safetensors file")
    length = int.from_bytes(start, "little")
    if not 2 <= length <= HEADER_LIMIT:
        raise BadSafetensors(f"its header would have {length} bytes, accepted are 2 to {HEADER_LIMIT}")
    if LENGTH_BYTES + length > file_bytes:
        raise BadSafetensors(f"its header would end at byte {LENGTH_BYTES + length} of {file_bytes}")
    return length


def parse_header(header: bytes, file_bytes: int) -> dict[str, StoredTensor]:
    """Rows of the JSON behind the first 8 bytes of a file of so many bytes. Raises BadSafetensors."""
    try:
        raw = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadSafetensors(f"its header cannot be read: {error}") from None
    raw.pop(METADATA, None)
    if len(raw) > TENSORS_LIMIT:
        raise BadSafetensors(f"{len(raw)} tensors are more than the {TENSORS_LIMIT} that an adapter may have")
    start = LENGTH_BYTES + len(header)
    found = {name: _tensor(name, row, start, file_bytes) for name, row in raw.items()}
    position = start
    for name, tensor in sorted(found.items(), key=lambda item: (item[1].offset, item[1].size_bytes)):
        if tensor.offset != position:
            raise BadSafetensors(f"tensor {shown(name)} lies at byte {tensor.offset} where {position} is next")
        position += tensor.size_bytes
    if position != file_bytes:
        raise BadSafetensors(f"its tensors end at byte {position} of {file_bytes}")
    return found


def shown(name: str) -> str:
    """A name from a file nobody vouched for, safe in a message."""
    return ascii(name if len(name) <= 120 else name[:117] + "...")


def _tensor(name: str, raw: Any, start: int, file_bytes: int) -> StoredTensor:
    try:
        row = msgspec.json.decode(raw, type=_Row)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadSafetensors(f"tensor {shown(name)} cannot be read: {error}") from None
    size = ELEMENT_BYTES.get(row.dtype)
    if size is None:
        known = ", ".join(ELEMENT_BYTES)
        raise BadSafetensors(f"tensor {shown(name)} is {shown(row.dtype)}; these can be read: {known}")
    begin, end = row.data_offsets
    wanted = math.prod(row.shape) * size
    if end - begin != wanted or not begin <= end <= file_bytes - start:
        raise BadSafetensors(
            f"tensor {shown(name)} of shape {tuple(row.shape)} lies at bytes {begin} to {end} of {file_bytes - start}"
        )
    return StoredTensor(dtype=row.dtype, shape=tuple(row.shape), offset=start + begin, size_bytes=wanted)
