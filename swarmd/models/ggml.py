"""The two number tables of ggml and llama.cpp that a GGUF header refers to: tensor types and file types.

Source: `enum ggml_type` with the block layouts of ggml-common.h, and `enum llama_ftype` of llama.h. The tests compare the
first with the engine itself and with the `gguf` package, the second with the `gguf` package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class TensorType:
    """How ggml packs numbers: `block_elements` of them in `block_bytes` bytes."""

    number: int
    name: str
    block_elements: int
    block_bytes: int


F32: Final = 0
F16: Final = 1
Q4_0: Final = 2
Q8_0: Final = 8
Q1_0: Final = 41
Q2_0: Final = 42

# Left out: the numbers ggml has withdrawn (4, 5, 31-33, 36-38), and 9 (Q8_1) and 15 (Q8_K), which exist only inside a
# matrix product and are in no file.
TENSOR_TYPES: Final = {
    row.number: row
    for row in (
        TensorType(0, "F32", 1, 4),
        TensorType(1, "F16", 1, 2),
        TensorType(2, "Q4_0", 32, 18),
        TensorType(3, "Q4_1", 32, 20),
        TensorType(6, "Q5_0", 32, 22),
        TensorType(7, "Q5_1", 32, 24),
        TensorType(8, "Q8_0", 32, 34),
        TensorType(10, "Q2_K", 256, 84),
        TensorType(11, "Q3_K", 256, 110),
        TensorType(12, "Q4_K", 256, 144),
        TensorType(13, "Q5_K", 256, 176),
        TensorType(14, "Q6_K", 256, 210),
        TensorType(16, "IQ2_XXS", 256, 66),
        TensorType(17, "IQ2_XS", 256, 74),
        TensorType(18, "IQ3_XXS", 256, 98),
        TensorType(19, "IQ1_S", 256, 50),
        TensorType(20, "IQ4_NL", 32, 18),
        TensorType(21, "IQ3_S", 256, 110),
        TensorType(22, "IQ2_S", 256, 82),
        TensorType(23, "IQ4_XS", 256, 136),
        TensorType(24, "I8", 1, 1),
        TensorType(25, "I16", 1, 2),
        TensorType(26, "I32", 1, 4),
        TensorType(27, "I64", 1, 8),
        TensorType(28, "F64", 1, 8),
        TensorType(29, "IQ1_M", 256, 56),
        TensorType(30, "BF16", 1, 2),
        TensorType(34, "TQ1_0", 256, 54),
        TensorType(35, "TQ2_0", 256, 66),
        TensorType(39, "MXFP4", 32, 17),
        TensorType(40, "NVFP4", 64, 36),
        TensorType(41, "Q1_0", 128, 18),
        TensorType(42, "Q2_0", 64, 18),
    )
}
"""Every type a tensor in a file can have, by its number."""

# Design, ruling 4: llama.cpp's own numbers. The gaps (4-6, 33-35) are withdrawn file types.
_FILE_TYPES: Final = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
}
_GUESSED: Final = 1024  # llama_ftype's flag "not written in the file, guessed from the tensors"


def file_type_name(number: int | None) -> str:
    """The name of `general.file_type`; `unknown` when it is absent or newer than this table."""
    return "unknown" if number is None else _FILE_TYPES.get(number & ~_GUESSED, "unknown")


def tensor_size_bytes(type_number: int, dims: tuple[int, ...]) -> int:
    """Bytes of a tensor without padding; `dims` in ggml's order, so `dims[0]` is the length of a row.

    Raises ValueError for an unknown type, and for a row that does not end at the end of a block.
    """
    kind = TENSOR_TYPES.get(type_number)
    if kind is None:
        raise ValueError(f"tensor type {type_number} is none that ggml stores in files")
    if dims[0] % kind.block_elements:
        raise ValueError(
            f"a row of {dims[0]} is not a multiple of the {kind.block_elements} elements of a {kind.name} block"
        )
    size = dims[0] // kind.block_elements * kind.block_bytes
    for dim in dims[1:]:
        size *= dim
    return size
