"""Whose caches are dropped when."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from swarmd.inference.engine import EngineFailure
from swarmd.inference.slots import KEPT, Slots


class Caches:
    def __init__(self, sequences: int = 4 + KEPT) -> None:
        self.dropped: list[tuple[int, int]] = []
        self.shared: list[tuple[int, int, int]] = []
        self.moved: list[list[int]] = []
        self.slots = Slots(sequences, self)

    def forget(self, number: int, position: int) -> None:
        self.dropped.append((number, position))

    def share(self, number: int, other: int, position: int) -> None:
        self.shared.append((number, other, position))

    def move_together(self, numbers: Sequence[int]) -> None:
        self.moved.append(list(numbers))

    def numbers(self, *sequences: int) -> list[int]:
        return [self.slots.slot(sequence).number for sequence in sequences]

    def run(self, sequence: int, position: int, count: int = 1) -> int:
        return self.slots.numbered(sequence, position, count)


@pytest.fixture
def caches() -> Caches:
    return Caches()


def test_the_end_of_one_moves_nobody_and_the_last_end_drops_all(caches: Caches) -> None:
    assert [caches.run(7, 0, 20), caches.run(8, 0, 5), caches.run(7, 20)] == [0, 1, 0]
    caches.slots.end(7)
    assert caches.dropped == []
    assert caches.run(7, 0) == 2, "its number is another one's, or the old cells would be in its way"
    caches.slots.end(8)
    caches.slots.end(7)
    assert sorted(caches.dropped) == [(0, 0), (1, 0), (2, 0)]
    assert caches.run(3, 0) == 0


def test_what_was_computed_beyond_a_position_is_dropped_when_it_is_computed_anew(caches: Caches) -> None:
    caches.run(0, 0, 10)
    caches.run(0, 10, 5)
    assert caches.dropped == []
    caches.run(0, 12, 5)
    assert caches.dropped == [(0, 12)]
    caches.slots.roll_back(0, 16)
    caches.run(0, 16)
    caches.slots.roll_back(0, 99)
    assert caches.dropped == [(0, 12), (0, 16)]


def test_wrong_guesses_leave_no_hole_that_somebody_else_would_fill(caches: Caches) -> None:
    caches.run(0, 0, 10)
    caches.run(0, 7, 4)
    assert caches.shared == [], "alone it fills its holes itself"
    caches.run(1, 0, 10)
    caches.run(0, 9, 4)
    ((number, keeper, position),) = caches.shared
    assert (number, position) == (0, 9) and keeper not in (0, 1)
    caches.run(1, 4, 1)
    assert caches.shared[1:] == [(1, keeper, 4)]
    caches.slots.end(0)
    caches.slots.end(1)
    assert caches.dropped[-3:] == [(keeper, 0), (0, 0), (1, 0)]
    assert caches.run(5, 0) == 0
    assert caches.slots.make_room() is False


def test_room_is_made_when_it_is_needed(caches: Caches) -> None:
    assert caches.slots.make_room() is False
    caches.run(0, 0)
    for _ in range(KEPT):
        caches.run(1, 0)
        caches.slots.end(1)
    assert caches.dropped == []
    for sequence in (1, 2, 3):
        caches.run(sequence, 0)
    assert caches.dropped == []
    caches.run(4, 0)
    assert len(caches.dropped) == KEPT and (0, 0) not in caches.dropped
    assert caches.moved == [[0, *caches.numbers(1, 2, 3)]], "a free cell below theirs would be filled by what comes next"
    caches.slots.end(2)
    assert caches.slots.make_room() is True
    caches.slots.end(99)  # never began


def test_as_many_run_as_there_are_numbers() -> None:
    caches = Caches(4)
    assert len({caches.run(sequence, 0) for sequence in range(4)}) == 4
    with pytest.raises(EngineFailure, match="one too many"):
        caches.run(4, 0)
