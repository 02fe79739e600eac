"""The header of a GGUF file (versions 2 and 3, little-endian): a streaming parser that trusts nothing, and a writer.

Whatever llama.cpp would refuse, or read differently from us, is refused here first, with a sentence. Lengths and counts
are compared with what is left of the cap and of the file before anything is made of them, so a hostile header costs at
most the memory of its own bytes, twice.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, cast

from swarmd.models.ggml import tensor_size_bytes
from swarmd.models.gguf_values import SCALAR_BYTES, Value, ValueType, encoded_string

ALIGNMENT_KEY: Final = "general.alignment"
DEFAULT_ALIGNMENT: Final = 32  # GGUF specification: when the key is absent

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)  # version 1 had 32-bit counts and was in use for weeks; llama.cpp refuses it too
_MAX_DIMS: Final = 4  # GGML_MAX_DIMS
_MAX_NAME_BYTES: Final = 63  # GGML_MAX_NAME less the closing zero
_ALIGNMENTS: Final = tuple(1 << power for power in range(3, 17))
"""8 to 65,536. Below 8 an I64 or F64 tensor would lie askew; above 64 KiB, the largest page in use, nothing is gained
and each tensor of a small file would be mostly padding."""
_MAX_INT64: Final = (1 << 63) - 1  # ggml counts elements and bytes in int64
_FEED_BYTES: Final = 1 << 20  # `parse_header` copies a large buffer piece by piece: most of it is not header
_PRINTABLE: Final = bytes(range(0x21, 0x7F))  # names and keys: a zero byte or a line end would mean another thing to C


class BadGguf(ValueError):
    """The bytes are no GGUF header that this node accepts; the message is one sentence for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufLimits:
    """What a header may cost."""

    max_header_bytes: int = 64 << 20
    """A vocabulary of 256 k tokens with scores, types and merges is 15 MB; the copy of its tokenizer.json that some
    files carry is 33 MB more."""
    max_metadata: int = 4096  # the richest files in use have about 100 keys
    max_tensors: int = 65_536  # 512 layers (llama.cpp's limit) of 128 tensors
    max_key_bytes: int = 65_535  # GGUF specification
    max_string_bytes: int = 40 << 20  # that tokenizer.json
    max_array_elements: int = 1 << 22  # eight times the merges of a 256 k vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One row of the tensor table."""

    name: str
    dims: tuple[int, ...]
    """In ggml's order: `dims[0]` is the length of a row."""
    type: int
    """ggml's number; see `ggml.TENSOR_TYPES`."""
    offset_bytes: int
    """From the start of the tensor data."""
    size_bytes: int
    """Without padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """Everything in front of the tensor data."""

    version: int
    metadata: Mapping[str, Value]
    """In the order of the file."""
    tensors: tuple[TensorInfo, ...]
    """In the order of the file, which is also the order of their data, without gaps but for padding."""
    alignment: int
    data_offset: int
    """Where the tensor data starts: the size of the header, padding included."""

    def integer(self, key: str) -> int | None:
        """None when the key is absent. Raises BadGguf when it is not a single whole number."""
        value = self.metadata.get(key)
        if value is None:
            return None
        if value.is_array or not value.is_integer:
            raise BadGguf(f"key {_shown(key)} has to be a whole number and is {_kind_of(value)}")
        return int(value.numbers()[0])

    def integers(self, key: str) -> tuple[int, ...] | None:
        """As `integer`, for an array of whole numbers."""
        value = self.metadata.get(key)
        if value is None:
            return None
        if not value.is_array or not value.is_integer:
            raise BadGguf(f"key {_shown(key)} has to be an array of whole numbers and is {_kind_of(value)}")
        return tuple(int(number) for number in value.numbers())

    def text(self, key: str) -> str | None:
        """None when the key is absent; bytes that are not UTF-8 become U+FFFD. Raises BadGguf when it is not a string."""
        value = self.metadata.get(key)
        if value is None:
            return None
        if value.is_array or value.type is not ValueType.STRING:
            raise BadGguf(f"key {_shown(key)} has to be a string and is {_kind_of(value)}")
        return next(value.strings()).decode(errors="replace")


class HeaderParser:
    """Takes the start of a file in pieces of any size until the header is complete; keeps only header bytes.

    `file_size_bytes`: None when it is not known yet; then nobody has checked that the tensors fit into the file.
    """

    def __init__(self, *, limits: GgufLimits | None = None, file_size_bytes: int | None = None) -> None:
        self._limits: Final = limits or GgufLimits()
        self._file_size: Final = file_size_bytes
        self._end: Final = min(self._limits.max_header_bytes, _MAX_INT64 if file_size_bytes is None else file_size_bytes)
        self._buffer = bytearray()
        self._position = 0
        self._where = "its first bytes"
        self._header: GgufHeader | None = None
        self._failure: BadGguf | None = None
        self._steps = self._parse()

    @property
    def where(self) -> str:
        """What it is reading, for messages about a file that ends too early."""
        return self._where

    def feed(self, data: bytes | memoryview) -> GgufHeader | None:
        """None = needs more. Raises BadGguf, and again at each further call."""
        if self._failure is not None:
            raise self._failure
        if self._header is None:
            self._buffer += data[: self._end - len(self._buffer)]
            try:
                next(self._steps, None)
            except BadGguf as failure:
                self._failure = failure
                raise
        return self._header

    def _parse(self) -> Generator[None]:
        """Each `yield` waits for more bytes."""
        limits = self._limits
        version = yield from self._version()
        tensor_count = yield from self._count("tensors", limits.max_tensors)
        metadata_count = yield from self._count("metadata keys", limits.max_metadata)
        metadata: dict[str, Value] = {}
        for _ in range(metadata_count):
            key = yield from self._name("metadata key", limits.max_key_bytes)
            if key in metadata:
                raise BadGguf(f"key {_shown(key)} is there twice")
            self._where = f"key {_shown(key)}"
            metadata[key] = yield from self._value(key)
        alignment = alignment_of(metadata)
        names: set[str] = set()
        tensors: list[TensorInfo] = []
        offset = 0
        for _ in range(tensor_count):
            tensor = yield from self._tensor(offset)
            if tensor.name in names:
                raise BadGguf(f"tensor {_shown(tensor.name)} is there twice")
            names.add(tensor.name)
            tensors.append(tensor)
            offset = padded(tensor.offset_bytes + tensor.size_bytes, alignment)
        data_offset = padded(self._position, alignment)
        if tensors:
            last = tensors[-1]
            self._check_end(last, data_offset + last.offset_bytes + last.size_bytes)
        self._buffer = bytearray()
        self._header = GgufHeader(
            version=version, metadata=metadata, tensors=tuple(tensors), alignment=alignment, data_offset=data_offset
        )

    def _check_end(self, last: TensorInfo, end: int) -> None:
        if end > (_MAX_INT64 if self._file_size is None else self._file_size):
            raise BadGguf(f"tensor {_shown(last.name)} ends at byte {end} of a file of {self._file_size}")

    def _version(self) -> Generator[None, None, int]:
        start = yield from self._take(8)
        magic, version = bytes(self._buffer[start : start + 4]), self._uint32_at(start + 4)
        if magic != _MAGIC:
            raise BadGguf(f"a GGUF file starts with {_MAGIC!r}, this one with {magic!r}")
        if version not in _VERSIONS:
            hint = " (a big-endian file)" if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS else ""
            raise BadGguf(f"GGUF version {version}{hint} is not one of {', '.join(map(str, _VERSIONS))}")
        return version

    def _count(self, what: str, limit: int) -> Generator[None, None, int]:
        count = yield from self._uint64()
        if count > limit:
            raise BadGguf(f"{count} {what} are more than the {limit} that a file may have")
        return count

    def _name(self, what: str, limit: int) -> Generator[None, None, str]:
        """A key or a tensor name: printable ASCII, because C code and people have to read the same name in it."""
        self._where = f"the {what} at byte {self._position}"
        length = yield from self._uint64()
        if not 0 < length <= limit:
            raise BadGguf(f"{self._where} has {length} bytes, allowed are 1 to {limit}")
        start = yield from self._take(length)
        raw = bytes(self._buffer[start : start + length])
        if raw.translate(None, _PRINTABLE):
            raise BadGguf(f"{self._where} is {_shown(raw.decode('latin-1'))}, which is not printable ASCII")
        return raw.decode("ascii")

    def _value(self, key: str) -> Generator[None, None, Value]:
        kind = yield from self._value_type(key)
        count = None
        if kind is ValueType.ARRAY:
            kind = yield from self._value_type(key)
            if kind is ValueType.ARRAY:
                raise BadGguf(f"key {_shown(key)} is an array of arrays, which llama.cpp does not read")
            count = yield from self._uint64()
            if count > self._limits.max_array_elements:
                limit = self._limits.max_array_elements
                raise BadGguf(f"key {_shown(key)} is an array of {count} elements, allowed are {limit}")
        start = self._position
        if kind is ValueType.STRING:
            yield from self._strings(key, 1 if count is None else count)
        else:
            yield from self._take(SCALAR_BYTES[kind] * (1 if count is None else count))
        with memoryview(self._buffer) as view:
            data = bytes(view[start : self._position])
        if kind is ValueType.BOOL and data.translate(None, b"\x00\x01"):
            raise BadGguf(f"key {_shown(key)} holds a bool that is neither 0 nor 1")
        return Value(type=kind, count=count, data=data)

    def _value_type(self, key: str) -> Generator[None, None, ValueType]:
        start = yield from self._take(4)
        number = self._uint32_at(start)
        if number > max(ValueType):
            raise BadGguf(f"key {_shown(key)} has the value type {number}, the last one known is {max(ValueType):d}")
        return ValueType(number)

    def _strings(self, key: str, count: int) -> Generator[None]:
        """Steps over `count` strings. A vocabulary is half a million of them: no call per string in here."""
        buffer, position, end = self._buffer, self._position, self._end
        longest, length_at = self._limits.max_string_bytes, struct.Struct("<Q").unpack_from
        if position + 8 * count > end:
            raise self._too_long(position + 8 * count)
        have = len(buffer)
        for _ in range(count):
            while position + 8 > have:
                if position + 8 > end:
                    raise self._too_long(position + 8)
                yield
                have = len(buffer)
            (length,) = cast("tuple[int]", length_at(buffer, position))
            if length > longest:
                raise BadGguf(f"key {_shown(key)} holds a string of {length} bytes, allowed are {longest}")
            position += 8 + length
        self._position = position
        yield from self._take(0)

    def _tensor(self, offset_expected: int) -> Generator[None, None, TensorInfo]:
        name = yield from self._name("tensor name", _MAX_NAME_BYTES)
        self._where = f"tensor {_shown(name)}"
        start = yield from self._take(4)
        dim_count = self._uint32_at(start)
        if not 1 <= dim_count <= _MAX_DIMS:
            raise BadGguf(f"tensor {_shown(name)} has {dim_count} dimensions, allowed are 1 to {_MAX_DIMS}")
        start = yield from self._take(8 * dim_count + 12)
        with memoryview(self._buffer) as view:
            fields: tuple[int, ...] = struct.unpack_from(f"<{dim_count}QIQ", view, start)
        dims, kind, offset = fields[:dim_count], fields[dim_count], fields[dim_count + 1]
        if 0 in dims or math.prod(dims) > _MAX_INT64:
            raise BadGguf(f"tensor {_shown(name)} has the impossible dimensions {dims}")
        try:
            size = tensor_size_bytes(kind, dims)
        except ValueError as reason:
            raise BadGguf(f"tensor {_shown(name)} cannot be read: {reason}") from None
        if size > _MAX_INT64 - offset_expected:
            raise BadGguf(f"tensor {_shown(name)} has {size} bytes, which nothing can hold")
        if offset != offset_expected:
            raise BadGguf(
                f"tensor {_shown(name)} starts at {offset} and has to start at {offset_expected}, after the one before it"
            )
        return TensorInfo(name=name, dims=dims, type=kind, offset_bytes=offset, size_bytes=size)

    def _take(self, size: int) -> Generator[None, None, int]:
        """Waits for `size` bytes and steps over them; returns where they start."""
        start, end = self._position, self._position + size
        if end > self._end:
            raise self._too_long(end)
        while len(self._buffer) < end:
            yield
        self._position = end
        return start

    def _uint64(self) -> Generator[None, None, int]:
        start = yield from self._take(8)
        return int.from_bytes(self._buffer[start : start + 8], "little")

    def _uint32_at(self, start: int) -> int:
        return int.from_bytes(self._buffer[start : start + 4], "little")

    def _too_long(self, end: int) -> BadGguf:
        if self._end == self._file_size:
            return BadGguf(f"{self._where} would end at byte {end} of a file of {self._file_size} bytes")
        return BadGguf(f"{self._where} would end at byte {end}; a header may have {self._limits.max_header_bytes} bytes")


def parse_header(
    data: bytes | memoryview, *, limits: GgufLimits | None = None, file_size_bytes: int | None = None
) -> GgufHeader:
    """The header at the start of `data`, which may go on behind it. Raises BadGguf, also when `data` ends inside it."""
    parser = HeaderParser(limits=limits, file_size_bytes=file_size_bytes)
    view = memoryview(data)
    for start in range(0, len(view), _FEED_BYTES):
        header = parser.feed(view[start : start + _FEED_BYTES])
        if header is not None:
            return header
    raise BadGguf(f"the header is not complete: {len(view)} bytes end inside {parser.where}")


def alignment_of(metadata: Mapping[str, Value]) -> int:
    """What tensor data is aligned to. Raises BadGguf for a value ggml or we cannot use."""
    value = metadata.get(ALIGNMENT_KEY)
    if value is None:
        return DEFAULT_ALIGNMENT
    if value.is_array or value.type is not ValueType.UINT32 or value.numbers()[0] not in _ALIGNMENTS:
        raise BadGguf(f"{ALIGNMENT_KEY} has to be a power of two from 8 to 65536 as UINT32 and is {_kind_of(value)}")
    return int(value.numbers()[0])


def padded(size: int, alignment: int) -> int:
    """The next multiple of `alignment`."""
    return -size % alignment + size


def place_tensors(rows: Iterable[tuple[str, tuple[int, ...], int]], *, alignment: int) -> tuple[TensorInfo, ...]:
    """(name, dims, type) rows one after the other, each at the offset at which ggml demands it."""
    tensors: list[TensorInfo] = []
    offset = 0
    for name, dims, kind in rows:
        size = tensor_size_bytes(kind, dims)
        tensors.append(TensorInfo(name=name, dims=dims, type=kind, offset_bytes=offset, size_bytes=size))
        offset = padded(offset + size, alignment)
    return tuple(tensors)


def encode_header(*, metadata: Mapping[str, Value], tensors: tuple[TensorInfo, ...], version: int = 3) -> bytes:
    """The header with its padding; its length is where the tensor data starts. Reads back as the same values."""
    parts = [_MAGIC, struct.pack("<IQQ", version, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += (encoded_string(key.encode("ascii")), value.encoded())
    for tensor in tensors:
        count = len(tensor.dims)
        row = struct.pack(f"<I{count}QIQ", count, *tensor.dims, tensor.type, tensor.offset_bytes)
        parts += (encoded_string(tensor.name.encode("ascii")), row)
    header = b"".join(parts)
    return header.ljust(padded(len(header), alignment_of(metadata)), b"\x00")


def _shown(name: str) -> str:
    """A name from a file nobody vouched for, safe in a message."""
    return ascii(name if len(name) <= 80 else name[:77] + "...")


def _kind_of(value: Value) -> str:
    if value.is_array:
        return f"an array of {value.count} {value.type.name}"
    if value.type is ValueType.STRING:
        return f"the string {_shown(next(value.strings()).decode(errors='replace'))}"
    return f"{value.numbers()[0]} as {value.type.name}"
