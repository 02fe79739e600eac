"""The metadata values of a GGUF file, kept as the bytes they came as.

Why bytes: a header must be written again exactly as it was, except for the few keys a shard changes; and a hostile
array of five million one-byte strings would grow twenty-fold as Python objects. So a value is checked when it is read
and unpacked only where somebody asks for it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class ValueType(IntEnum):
    """GGUF specification, `gguf_metadata_value_type`."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


_CODES: Final = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}
"""struct's letters of the types with a fixed size."""

SCALAR_BYTES: Final = {kind: struct.calcsize("<" + code) for kind, code in _CODES.items()}
"""Size of one element in a file, of every type that has a fixed one."""

_FLOATS: Final = frozenset({ValueType.FLOAT32, ValueType.FLOAT64})
_LENGTH: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One metadata value. Equal values are equal byte for byte in a file."""

    type: ValueType
    """Of the elements, when it is an array."""
    count: int | None
    """How many elements an array has; None when it is not an array."""
    data: bytes
    """As in the file: little-endian, strings with their length in front; for an array all elements in a row."""

    @property
    def is_array(self) -> bool:
        return self.count is not None

    @property
    def is_integer(self) -> bool:
        """Whether the value, or every element of it, is a whole number (a bool is not)."""
        return self.type in _CODES and self.type is not ValueType.BOOL and self.type not in _FLOATS

    def numbers(self) -> tuple[int | float | bool, ...]:
        """Its numbers or flags; one when it is not an array. Not for strings."""
        return struct.unpack(f"<{1 if self.count is None else self.count}{_CODES[self.type]}", self.data)

    def strings(self) -> Iterator[bytes]:
        """Its strings as they are in the file, one after the other; tokens need not be UTF-8. Only for strings."""
        assert self.type is ValueType.STRING, f"a value of type {self.type.name} has no strings"
        position, data = 0, self.data
        while position < len(data):
            (length,) = _LENGTH.unpack_from(data, position)
            position += _LENGTH.size + length
            yield data[position - length : position]

    def encoded(self) -> bytes:
        """Type and value as they follow the key in a file."""
        if self.count is None:
            return struct.pack("<I", self.type) + self.data
        return struct.pack("<IIQ", ValueType.ARRAY, self.type, self.count) + self.data

    def slice(self, start: int, end: int) -> Value:
        """The elements `[start, end)` of an array of numbers."""
        assert self.count is not None, "only an array can be cut"
        assert 0 <= start < end <= self.count, f"[{start}, {end}) is not inside an array of {self.count}"
        size = SCALAR_BYTES[self.type]
        return Value(type=self.type, count=end - start, data=self.data[start * size : end * size])


def number_value(kind: ValueType, number: float) -> Value:
    """A single number or flag. An integer outside its type is a bug (struct.error)."""
    return Value(type=kind, count=None, data=struct.pack("<" + _CODES[kind], number))


def number_array(kind: ValueType, numbers: tuple[int | float | bool, ...]) -> Value:
    return Value(type=kind, count=len(numbers), data=struct.pack(f"<{len(numbers)}{_CODES[kind]}", *numbers))


def text_value(text: str) -> Value:
    return Value(type=ValueType.STRING, count=None, data=encoded_string(text.encode()))


def string_array(strings: tuple[bytes, ...]) -> Value:
    return Value(type=ValueType.STRING, count=len(strings), data=b"".join(map(encoded_string, strings)))


def encoded_string(raw: bytes) -> bytes:
    """A string as GGUF writes it: its length in 8 bytes, then its bytes."""
    return _LENGTH.pack(len(raw)) + raw
