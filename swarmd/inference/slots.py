"""Which of llama.cpp's sequence numbers belongs to whom, and whose caches stay a while although their sequence has ended.

Attention adds up a sequence's cells in the order in which they lie in the cache, and flash attention on a CPU does so in 16
bits: another order is another result, now and then another token. A free cell below the newest one is taken by whoever needs
one next, so an end would change the order for all that still run. Therefore the caches of ended sequences are kept until
nobody runs, or until their place is needed; whoever runs alone is then always bit for bit the same, and several at once
nearly always.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from swarmd.inference.engine import EngineFailure

KEPT: Final = 16
"""Ended sequences, if there are numbers for them. A number costs llama.cpp no memory."""

Forget = Callable[[int, int], None]
"""Drops the cells of one of llama.cpp's sequences, in every shard, from a position on."""


@dataclass(slots=True)
class Slot:
    """The caches of one sequence."""

    number: int
    """For llama.cpp."""
    end: int = 0
    """First position that is not in the cache."""


class Slots:
    """At most `sequences` numbers, running and kept; `forget` is called for what is dropped."""

    def __init__(self, sequences: int, forget: Forget) -> None:
        self._forget = forget
        self._running: dict[int, Slot] = {}
        self._ended: list[Slot] = []
        self._free = list(range(sequences))

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
        if position < slot.end:
            self._forget(slot.number, position)
        slot.end = position + count
        return slot.number

    def roll_back(self, sequence: int, position: int) -> None:
        slot = self.slot(sequence)
        if position < slot.end:
            self._forget(slot.number, position)
            slot.end = position

    def end(self, sequence: int) -> None:
        slot = self._running.pop(sequence, None)
        if slot is not None:
            self._ended.append(slot)
        if not self._running:
            self.make_room()

    def make_room(self) -> bool:
        """Drops what is kept. False: there is nothing."""
        if not self._ended:
            return False
        for slot in self._ended:
            self._forget(slot.number, 0)
        self._free = sorted([*self._free, *(slot.number for slot in self._ended)])
        self._ended.clear()
        return True
