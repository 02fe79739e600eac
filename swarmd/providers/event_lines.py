"""Server-sent events out of pieces of bytes that end anywhere. Pure: bounded, and told of every fault."""

from __future__ import annotations

from typing import Final

EVENT_LIMIT: Final = 8 * 1024 * 1024  # bytes of one event; the largest known ones are pictures, which nobody wants here


class EventTooLong(Exception):
    """More than EVENT_LIMIT bytes without the end of an event."""


class EventLines:
    """Feed it what comes; it returns the data of the events that are complete. Names of events are inside the data, too, in
    the dialects that have them."""

    def __init__(self, *, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """Raises EventTooLong."""
        found: list[bytes] = []
        first, *lines = piece.split(b"\n")  # of the piece alone: a long line comes in many, and is not read again for each
        self._rest += first
        for line in lines:
            if (event := self._line(bytes(self._rest.removesuffix(b"\r")))) is not None:
                found.append(event)
            self._rest = bytearray(line)
        if len(self._rest) + self._size > self._limit:
            raise EventTooLong
        return found

    def end(self) -> list[bytes]:
        """What is complete but for its last empty line: some servers leave that out."""
        found = [event for line in (bytes(self._rest.removesuffix(b"\r")), b"") if (event := self._line(line)) is not None]
        self._rest.clear()
        return found

    def _line(self, line: bytes) -> bytes | None:
        if not line:
            data, self._data, self._size = self._data, [], 0
            return b"\n".join(data) if data else None
        if line.startswith(b"data:"):
            value = line[5:].removeprefix(b" ")
            self._size += len(value)
            if self._size > self._limit:
                raise EventTooLong
            self._data.append(value)
        return None
