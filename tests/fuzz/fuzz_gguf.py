"""Mutates valid GGUF headers and reads them until the time is up: `python -m tests.fuzz.fuzz_gguf --seconds 60 --seed 1`.

Whatever comes in, the parser answers with a header or with BadGguf, and a header it accepts can be written, read again
and offered to the planner. The seed and the number of the case are printed with a failure, so that it can be repeated.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from swarmd.models.architectures import Architecture, check_supported
from swarmd.models.gguf import BadGguf, GgufHeader, encode_header, parse_header
from swarmd.models.slicing import cuts_at, layout_id, plan_layout
from tests.fakes.gguf import TinyModel, rich_header, write_model

INTERESTING = (0, 1, 2, 3, 7, 8, 31, 33, 64, 255, 65_535, 65_536, 1 << 22, 1 << 31, 1 << 32, 1 << 40, 1 << 62, 1 << 63)
LARGEST = (1 << 64) - 1


def seeds() -> tuple[bytes, ...]:
    """Valid headers: one with every value type, and those of models that can be cut."""
    out = [rich_header()]
    with tempfile.TemporaryDirectory() as folder:
        for model in (
            TinyModel(layers=2, per_layer=True),
            TinyModel(layers=1, tokenizer=True),
            TinyModel(architecture="gemma3", layers=7, tied=True, period=3),
        ):
            data = write_model(Path(folder) / "model.gguf", model).read_bytes()
            out.append(data[: parse_header(data).data_offset])
    return tuple(out)


def cases(headers: tuple[bytes, ...], chance: random.Random) -> Iterator[bytes]:
    """Endless mutations: bits flipped, lengths inflated, the end cut off, pieces moved, dropped, repeated."""
    fields = {header: length_fields(header) for header in headers}
    while True:
        source = chance.choice(headers)
        data = bytearray(source)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            mutate(data, fields[source], chance)
        yield bytes(data)


def length_fields(header: bytes) -> list[int]:
    """Offsets at which something looks like a length or a count: a small number in 8 bytes."""
    return [at for at in range(8, len(header) - 8) if 0 < int.from_bytes(header[at : at + 8], "little") < 4096]


def mutate(data: bytearray, fields: list[int], chance: random.Random) -> None:
    at = chance.randrange(max(len(data), 1))
    match chance.randrange(6):
        case 0:
            for _ in range(chance.randint(1, 8)):
                if data:
                    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        case 1:
            del data[at:]
        case 2:
            number = chance.choice((*INTERESTING, LARGEST, chance.getrandbits(64)))
            start = chance.choice(fields)
            data[start : start + 8] = struct.pack("<Q", (number + chance.randint(-1, 1)) & LARGEST)
        case 3:
            start = chance.choice(fields)
            value = int.from_bytes(data[start : start + 8], "little") + chance.choice((-1, 1, 8, 256))
            data[start : start + 8] = struct.pack("<Q", value & LARGEST)
        case 4:
            piece = data[at : at + chance.randint(1, 64)]
            where = chance.randrange(len(data) + 1)
            data[where:where] = piece
        case _:
            del data[at : at + chance.randint(1, 64)]


def exercise(data: bytes) -> GgufHeader | None:
    """Everything that may happen to a header from outside. None when it was refused; any other exception is a bug."""
    try:
        header = parse_header(data, file_size_bytes=1 << 30)
    except BadGguf as refusal:
        assert str(refusal).isprintable(), refusal
        return None
    again = encode_header(metadata=header.metadata, tensors=header.tensors, version=header.version)
    assert parse_header(again) == header
    architecture = check_supported(header)
    if isinstance(architecture, Architecture):
        cuts = plan_layout(header, 1 << 14)
        assert isinstance(cuts, tuple)
        assert layout_id(header, cuts) == layout_id(header, cuts_at(header, architecture, (0, *(c.layer_end for c in cuts))))
    else:
        assert architecture.sentence.isprintable(), architecture
    return header


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    accepted = number = 0
    for number, data in enumerate(cases(seeds(), random.Random(options.seed)), start=1):
        try:
            accepted += exercise(data) is not None
        except BaseException:
            sys.stderr.write(f"seed {options.seed}, case {number}: {data.hex()}\n")
            raise
        if time.monotonic() > deadline:
            break
    sys.stdout.write(f"{number} headers, {accepted} accepted, {number - accepted} refused, none crashed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
