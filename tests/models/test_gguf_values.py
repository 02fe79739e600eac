from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.models.gguf_values import (
    Value,
    ValueType,
    encoded_string,
    number_array,
    number_value,
    string_array,
    text_value,
)


@given(st.lists(st.binary(max_size=20)))
def test_strings_come_back_as_they_went_in(strings: list[bytes]) -> None:
    value = string_array(tuple(strings))
    assert (tuple(value.strings()), value.count, value.is_array) == (tuple(strings), len(strings), True)


def test_tokens_that_are_no_utf8_survive() -> None:
    assert list(string_array((b"\xff\xfe", b"", b"a\x00b")).strings()) == [b"\xff\xfe", b"", b"a\x00b"]


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1), st.data())
def test_a_slice_of_an_array_is_the_slice_of_its_numbers(numbers: list[int], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(numbers) - 1))
    end = data.draw(st.integers(start + 1, len(numbers)))
    value = number_array(ValueType.UINT32, tuple(numbers))
    assert value.numbers() == tuple(numbers)
    assert value.slice(start, end) == number_array(ValueType.UINT32, tuple(numbers[start:end]))


def test_encodings_are_those_of_the_specification() -> None:
    assert number_value(ValueType.UINT32, 7).encoded() == struct.pack("<II", 4, 7)
    assert number_value(ValueType.BOOL, True).encoded() == struct.pack("<IB", 7, 1)
    assert text_value("é").encoded() == struct.pack("<IQ", 8, 2) + "é".encode()
    assert number_array(ValueType.INT8, (-1, 2)).encoded() == struct.pack("<IIQbb", 9, 1, 2, -1, 2)
    assert string_array((b"x",)).encoded() == struct.pack("<IIQQ", 9, 8, 1, 1) + b"x"
    assert encoded_string(b"ab") == struct.pack("<Q", 2) + b"ab"


def test_what_is_an_integer() -> None:
    assert number_value(ValueType.INT64, -1).is_integer
    for value in (number_value(ValueType.BOOL, 1), number_value(ValueType.FLOAT32, 1), text_value("1")):
        assert not value.is_integer


def test_numbers_of_every_type() -> None:
    for kind in ValueType:
        if kind in (ValueType.STRING, ValueType.ARRAY):
            continue
        assert number_value(kind, 1).numbers() == (1,)
        assert number_array(kind, ()).numbers() == ()


def test_misuse_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="no strings"):
        next(number_value(ValueType.UINT8, 1).strings())
    with pytest.raises(AssertionError, match="only an array"):
        number_value(ValueType.UINT8, 1).slice(0, 1)
    with pytest.raises(AssertionError, match="not inside"):
        Value(type=ValueType.UINT8, count=2, data=b"ab").slice(1, 3)
