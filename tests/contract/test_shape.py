from __future__ import annotations

from typing import Any

import pytest

from tests.contract.shape import Shape, faults


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        ("int", 3), ("num", 3), ("num", 3.5), ("str|null", None), ("bool", False), ("=ok", "ok"), ("=a|=b", "b"),
        ("time", "2023-11-14T22:13:20.000Z"), ("node", "a" * 16), ("node64", "0" * 64), ("any", {"x": 1}),
        (["int"], []), (["int"], [1, 2]), ({"a": "int", "b?": "str"}, {"a": 1}), ({"*": "int"}, {"x": 1, "y": 2}),
        (("int", {"a": "int"}), {"a": 1}),
    ],
)  # fmt: skip
def test_what_fits(shape: Shape, value: Any) -> None:
    assert faults(shape, value) == []


@pytest.mark.parametrize(
    ("shape", "value", "said"),
    [
        ("int", True, "$ is bool 'True', not int"),
        ("int", 3.0, "$ is float '3.0', not int"),
        ("num", "3", "$ is str '3', not num"),
        ("str", None, "$ is NoneType 'None', not str"),
        ("=ok", "done", "$ is str 'done', not =ok"),
        ("time", "2023-11-14 22:13", "$ is str '2023-11-14 22:13', not time"),
        ("node", "A" * 16, "$ is str 'AAAAAAAAAAAAAAAA', not node"),
        (["int"], {}, "$ is dict '{}', not a list"),
        (["int"], [1, "2"], "$[1] is str '2', not int"),
        ({"a": "int"}, {}, "$.a is missing"),
        ({"a?": "int"}, {"a": None}, "$.a is NoneType 'None', not int"),
        ({"a": {"b": "int"}}, {"a": {"b": 1, "c": 2}}, "$.a.c is in no contract"),
        ({"*": "int"}, {"x": "1"}, "$.x is str '1', not int"),
        (("str", {"a": "int"}), {"a": "1"}, "$ is dict \"{'a': '1'}\", not str"),
    ],
)
def test_what_does_not(shape: Shape, value: Any, said: str) -> None:
    assert faults(shape, value)[0] == said


def test_a_misspelt_type_is_a_bug_not_a_fault() -> None:
    with pytest.raises(AssertionError, match="no type"):
        faults("integer", 1)
