"""What a session keeps for each stream."""

from __future__ import annotations

from typing import Final

from swarmd.wire.frames import Cutter

# Two of the largest messages (2 x 8.25 MiB), one on the way while one is being consumed, and what has not been given back.
STREAM_WINDOW: Final = 20 * 1024 * 1024


class Incoming:
    """A message of which more frames are to come."""

    __slots__ = ("code", "cost", "last", "left", "meta_length", "opens", "parts")

    def __init__(
        self, *, opens: bool, code: int, last: bool, meta_length: int, cost: int, left: int, first: memoryview
    ) -> None:
        self.opens = opens
        self.code = code
        self.last = last
        self.meta_length = meta_length
        self.cost = cost
        self.left = left
        self.parts = [first]


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
