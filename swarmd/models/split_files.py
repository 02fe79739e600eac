"""A GGUF in several files: their names, and the one file that they were split from. Pure.

llama.cpp's `gguf-split` names parts `NAME-00001-of-0000N.gguf`, puts all metadata into the first and gives each part a table
of its own tensors. Here they count as one model: the headers are merged into the header of the whole, whose tensors lie one
part behind the other, so that everything else sees one file. The merged header depends on the parts alone, so two nodes
that read the same parts get the same shards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from swarmd.models.gguf import BadGguf, GgufHeader, TensorInfo, encode_header, padded, parse_header

MAX_PARTS: Final = 999  # the largest published have some dozens

_PART: Final = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_QUANT: Final = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q\d(?:_[0-9A-Z]+)*|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|BF16|F16|F32))(?=[-._/]|$)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The whole that some parts are of."""

    header: GgufHeader
    header_data: bytes
    offsets: tuple[int, ...]
    """Where each part's tensor data starts in the whole."""
    size_bytes: int


def part_of(filename: str) -> tuple[int, int] | None:
    """(number from 1, how many) of a part; None for a file that is none."""
    match = _PART.fullmatch(filename)
    if match is None:
        return None
    number, count = int(match.group(2)), int(match.group(3))
    return (number, count) if 1 <= number <= count <= MAX_PARTS else None


def part_names(filename: str) -> tuple[str, ...]:
    """All parts of the model that this file is the whole or a part of, in order."""
    match = _PART.fullmatch(filename)
    if match is None or part_of(filename) is None:
        return (filename,)
    stem, count, suffix = match.group(1), match.group(3), filename[-5:]
    return tuple(f"{stem}-{number:05d}-of-{count}{suffix}" for number in range(1, int(count) + 1))


def whole_name(filename: str) -> str:
    """The name that the file would have if it were not split."""
    match = _PART.fullmatch(filename)
    return filename if match is None or part_of(filename) is None else match.group(1) + filename[-5:]


def quant_of(filename: str) -> str:
    """The quantisation that a file name tells, in upper case; empty when it tells none."""
    found = _QUANT.findall(whole_name(filename)[:-5])
    return found[-1].upper() if found else ""


def merge(headers: Sequence[GgufHeader], sizes: Sequence[int]) -> Merged:
    """`sizes`: of the files, in bytes. Raises BadGguf when they are not the parts of one file."""
    assert headers and len(headers) == len(sizes), f"{len(headers)} headers, {len(sizes)} sizes"
    first = headers[0]
    for number, header in enumerate(headers):
        stated = (header.integer("split.no"), header.integer("split.count"))
        if stated != (number, len(headers)):
            raise BadGguf(f"part {number + 1} of {len(headers)} says that it is part {stated[0]} (from 0) of {stated[1]}")
        if header.alignment != first.alignment:
            raise BadGguf(f"part {number + 1} is aligned to {header.alignment} bytes, the first to {first.alignment}")
    bases: list[int] = []
    tensors: list[TensorInfo] = []
    end = 0
    for header in headers:
        base = padded(end, first.alignment)
        bases.append(base)
        tensors += [replace(tensor, offset_bytes=base + tensor.offset_bytes) for tensor in header.tensors]
        end = tensors[-1].offset_bytes + tensors[-1].size_bytes if tensors else 0
    stated = first.integer("split.tensors.count")
    if stated is not None and stated != len(tensors):
        raise BadGguf(f"the parts have {len(tensors)} tensors together, the first says {stated}")
    metadata = {key: value for key, value in first.metadata.items() if not key.startswith("split.")}
    data = encode_header(metadata=metadata, tensors=tuple(tensors), version=first.version)
    size = len(data) + bases[-1] + sizes[-1] - headers[-1].data_offset
    merged = parse_header(data, file_size_bytes=size)  # names that are there twice, and whatever else cannot be
    return Merged(
        header=merged, header_data=data, offsets=tuple(len(data) + base for base in bases), size_bytes=size
    )
