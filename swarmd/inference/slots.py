"""Which of llama.cpp's sequence numbers belongs to whom, and whose caches stay a while although their sequence has ended.

Attention adds up a sequence's cells in the order in which they lie in the cache, and flash attention on a CPU does so in 16
bits: another order is another result, now and then another token. A free cell below the newest one is taken by whoever needs
one next, so an end would change the order for all that still run. Therefore the caches of ended sequences are kept until
nobody runs, or until their place is needed; and so are the cells of guesses that were wrong, while somebody else runs.
Where their place is needed while others run, those are moved together, so that no free cell lies below one in use and what
comes next follows behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from swarmd.inference.engine import EngineFailure

KEPT: Final = 16
"""Ended sequences, if there are numbers for them. A number costs llama.cpp no memory."""



class Caches(Protocol):
    """Of all shards. Numbers are llama.cpp's."""

    def forget(self, number: int, position: int) -> None:
        """Drops the cells of a sequence from a position on."""
        ...

    def share(self, number: int, other: int, position: int) -> None:
        """The cells of a sequence from a position on belong to the other one as well."""
        ...

    def move_together(self, numbers: Sequence[int]) -> None:
        """Puts the cells of these sequences, the only ones there are, one behind the other without a gap.

        Raises EngineFailure when one of them does not get its cells back."""
        ...



@dataclass(slots=True)
class Slot:
    """The caches of one sequence."""

    number: int
    """For llama.cpp."""
    end: int = 0
    """First position that is not in the cache."""


class Slots:
    """At most `sequences` numbers, running and kept."""

    def __init__(self, sequences: int, caches: Caches) -> None:
        self._caches = caches
        self._running: dict[int, Slot] = {}
        self._ended: list[Slot] = []
        self._free = list(range(sequences))
        self._wrong: Slot | None = None
        """Whose the cells of wrong guesses are."""

    def slot(self, sequence: int) -> Slot:
        """Of a sequence that runs, or begins now. Raises EngineFailure when as many run as there are numbers."""
        found = self._running.get(sequence)
        if found is None:
            if not self._free and not self.make_room():
                raise EngineFailure(f"sequence {sequence} is one too many")
            found = self._running[sequence] = Slot(self._free.pop(0))
        return found

    def numbered(self, sequence: int, position: int, count: int) -> int:
        """llama.cpp's number for rows at these positions; what the sequence had from there on is dropped."""
        slot = self.slot(sequence)
        self._cut(slot, position)
        slot.end = position + count
        return slot.number

    def roll_back(self, sequence: int, position: int) -> None:
        slot = self.slot(sequence)
        self._cut(slot, position)
        slot.end = min(slot.end, position)

    def _cut(self, slot: Slot, position: int) -> None:
        if position >= slot.end:
            return
        if len(self._running) > 1:
            if self._wrong is None and self._free:
                self._wrong = Slot(self._free.pop())
                self._ended.append(self._wrong)
            if self._wrong is not None:
                self._caches.share(slot.number, self._wrong.number, position)
        self._caches.forget(slot.number, position)

    def end(self, sequence: int) -> None:
        slot = self._running.pop(sequence, None)
        if slot is not None:
            self._ended.append(slot)
        if not self._running:
            self.make_room()

    def make_room(self) -> bool:
        """Drops what is kept. False: there is nothing. Raises EngineFailure."""
        if not self._ended:
            return False
        for slot in self._ended:
            self._caches.forget(slot.number, 0)
        self._wrong = None
        self._free = sorted([*self._free, *(slot.number for slot in self._ended)])
        self._ended.clear()
        if running := [slot.number for slot in self._running.values() if slot.end]:
            self._caches.move_together(running)
        return True
