"""Whole numbers that are written as floats."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from swarmd.api.numbers import converted, decoded


class Wish(msgspec.Struct):
    count: int
    heat: float = 1.0
    inner: dict[str, list[int]] = {}


def from_bytes(value: Any) -> Wish:
    return decoded(msgspec.json.encode(value), Wish)


def from_values(value: Any) -> Wish:
    return converted(value, Wish)


@pytest.mark.parametrize("read", [from_bytes, from_values])
def test_two_point_zero_is_two_and_two_point_five_is_not(read: Any) -> None:
    assert read({"count": 2.0, "heat": 3, "inner": {"a": [1.0, 2]}}) == Wish(count=2, heat=3.0, inner={"a": [1, 2]})
    assert type(read({"count": 2.0}).count) is int
    for wrong in ({"count": 2.5}, {"count": "2"}, {}):
        with pytest.raises(msgspec.ValidationError):
            read(wrong)
