"""What a session keeps for each stream."""

from __future__ import annotations

from typing import Final

from swarmd.wire.frames import Cutter
from swarmd.wire.spare_memory import SpareMemory

# Two of the largest messages (2 x 8.25 MiB), one on the way while one is being consumed, and what has not been given back.
STREAM_WINDOW: Final = 20 * 1024 * 1024

LARGE_BYTES: Final = 1024 * 1024  # below, the allocator's own blocks are reused
spare_memory: Final = SpareMemory()
"""Of all sessions of the process, as an allocator is: each alone would keep its own, and most are idle."""


class Incoming:
    """A message of which more frames are to come."""

    __slots__ = ("body", "code", "cost", "filled", "last", "meta_length", "opens")

    def __init__(
        self, *, opens: bool, code: int, last: bool, meta_length: int, cost: int, size: int, first: memoryview
    ) -> None:
        self.opens = opens
        self.code = code
        self.last = last
        self.meta_length = meta_length
        self.cost = cost
        self.body = _memory(size)
        self.filled = 0
        self.add(first)

    @property
    def left(self) -> int:
        """Bytes that are to come."""
        return len(self.body) - self.filled

    def add(self, piece: memoryview) -> None:
        end = self.filled + len(piece)
        self.body[self.filled : end] = piece
        self.filled = end


def _memory(size: int) -> memoryview:
    """For a whole message, which its credit allows."""
    return memoryview(bytearray(size)) if size < LARGE_BYTES else spare_memory.take(size)


class Stream:
    """One stream, both directions."""

    __slots__ = (
        "announced",
        "ends",
        "id",
        "incoming",
        "local_ended",
        "outbox",
        "receive_credit",
        "remote_ended",
        "returned",
        "send_credit",
        "short",
        "waits",
    )

    def __init__(self, number: int, *, announced: bool) -> None:
        self.id = number
        self.announced = announced
        """The peer knows of it."""
        self.outbox: Cutter | None = None
        self.ends = False
        """Our direction ends with what is in the outbox."""
        self.short = False
        """The outbox waits for credit of this stream, and stands in no queue."""
        self.waits = False
        """Somebody waits for the outbox: say Writable."""
        self.incoming: Incoming | None = None
        self.send_credit = STREAM_WINDOW
        self.receive_credit = STREAM_WINDOW
        self.returned = 0
        """Consumed, and not yet given back."""
        self.local_ended = False
        self.remote_ended = False
