from __future__ import annotations

import gguf
import pytest

from swarmd.inference.native import open_library
from swarmd.models.ggml import TENSOR_TYPES, file_type_name, tensor_size_bytes

NEVER_IN_A_FILE = {9, 15}  # Q8_1, Q8_K
NEWER_THAN_THE_PACKAGE = {42}  # Q2_0: the engine has it, gguf 0.19 does not


def test_tensor_types_are_those_of_the_gguf_package() -> None:
    theirs = {kind.value: (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    ours = {row.number: (row.name, row.block_elements, row.block_bytes) for row in TENSOR_TYPES.values()}
    assert {number: row for number, row in theirs.items() if number not in NEVER_IN_A_FILE} == {
        number: row for number, row in ours.items() if number not in NEWER_THAN_THE_PACKAGE
    }


def test_tensor_types_are_those_of_the_engine() -> None:
    library = open_library()
    for row in TENSOR_TYPES.values():
        traits = library.call.ggml_get_type_traits(row.number).contents
        assert (traits.type_name.decode().upper(), traits.block_size, traits.type_size) == (
            row.name.upper(),
            row.block_elements,
            row.block_bytes,
        )


def test_file_types_are_llama_cpps() -> None:
    theirs = {kind.value: kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in gguf.LlamaFileType}
    guessed = theirs.pop(gguf.LlamaFileType.GUESSED.value)
    assert guessed == "GUESSED"
    assert {number: file_type_name(number) for number in theirs} == theirs
    assert [file_type_name(number) for number in (15, 11)] == ["Q4_K_M", "Q3_K_S"], "design, ruling 4"
    assert file_type_name(1024 | 15) == "Q4_K_M"
    assert [file_type_name(number) for number in (None, 4, 5, 33, 999)] == ["unknown"] * 5


def test_sizes() -> None:
    assert tensor_size_bytes(0, (5,)) == 20
    assert tensor_size_bytes(8, (64, 10)) == 64 // 32 * 34 * 10
    assert tensor_size_bytes(12, (256, 2, 3)) == 144 * 6


@pytest.mark.parametrize(
    ("kind", "dims", "words"), [(4, (32,), "tensor type 4"), (99, (32,), "99"), (8, (33, 2), "row of 33")]
)
def test_what_has_no_size(kind: int, dims: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tensor_size_bytes(kind, dims)
