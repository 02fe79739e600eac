"""The two lists: 256 each, typed easily, and no word one slip away from another."""

from __future__ import annotations

import re
from itertools import combinations

from swarmd.discovery.short_words import FIRST, SECOND

ALL = FIRST + SECOND


def one_slip_apart(one: str, other: str) -> bool:
    """A letter more, less or another one."""
    if abs(len(one) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    rests = (one[start:], other[start:])
    return any(a == b for a in (rests[0], rests[0][1:]) for b in (rests[1], rests[1][1:]))


def test_a_byte_each_and_no_word_twice() -> None:
    assert len(FIRST) == len(SECOND) == 256
    assert len(set(ALL)) == 512


def test_they_can_be_typed() -> None:
    assert [word for word in ALL if not re.fullmatch(r"[a-z]{4,10}", word)] == []


def test_one_slip_never_makes_another_word() -> None:
    assert [(one, other) for one, other in combinations(ALL, 2) if one_slip_apart(one, other)] == []
    assert one_slip_apart("locket", "rocket") and one_slip_apart("plumber", "lumber")
    assert not one_slip_apart("olive", "onion")
