"""What a session keeps for each stream."""

from __future__ import annotations

import contextlib
import mmap
from typing import Final

from swarmd.wire.frames import Cutter

# Two of the largest messages (2 x 8.25 MiB), one on the way while one is being consumed, and what has not been given back.
STREAM_WINDOW: Final = 20 * 1024 * 1024

LARGE_BYTES: Final = 1024 * 1024  # below, the allocator's own blocks are reused


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
    """For a whole message, which its credit allows. A large one gets pages of its own, which the system hands out as they
    are written and takes back as soon as nobody refers to them. Pieces that are joined at the end need half as long again
    (1.6 ms for 8 MiB, this 1.0), twice the memory for that moment, and leave holes behind."""
    if size < LARGE_BYTES:
        return memoryview(bytearray(size))
    body = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux: 4 page faults instead of 2048
        with contextlib.suppress(OSError):  # a kernel without
            body.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(body)


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
