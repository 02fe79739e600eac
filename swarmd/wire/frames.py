"""Records, frames and message heads: the fixed layouts under a session, with every limit checked before memory is taken.

    record   2-byte big-endian length, then that many bytes of Noise ciphertext; one frame in each
    frame    kind u8, flags u8, reserved u16 = 0, stream u32, value u32, payload       all little-endian
    message  code u16, flags u16, meta length u32, payload length u32, meta, payload   cut into OPEN and DATA frames

`value` is the length of the frame's payload, except in CREDIT, where it is the credit. A message that does not fit one
frame fills every frame but its last: so the number of pieces to keep is known from its head, and a peer cannot make us
keep a million pieces of one byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import Final

import msgspec

from swarmd.wire.noise import MAX_MESSAGE_BYTES, TAG_BYTES, Buffer

HEADER: Final = Struct("<BBHII")
HEAD: Final = Struct("<HHII")
RECORD_PREFIX_BYTES: Final = 2
MAX_FRAME_PAYLOAD: Final = MAX_MESSAGE_BYTES - TAG_BYTES - HEADER.size  # 65,507
MIN_RECORD: Final = TAG_BYTES + HEADER.size
MAX_META: Final = 256 * 1024  # the largest typed message: a manifest with thousands of chunk hashes
MAX_PAYLOAD: Final = 8 * 1024 * 1024  # one chunk of a shard (`domain.models.CHUNK_BYTES`)
MESSAGE_COST: Final = 512  # what keeping even an empty message costs its receiver in Python objects
MAX_MESSAGE: Final = MESSAGE_COST + MAX_META + MAX_PAYLOAD
MAX_REASON_BYTES: Final = 512

FIRST: Final = 1
"""Flag of DATA: the frame begins a message. OPEN always does."""
LAST: Final = 1
"""Flag of a message: its sender sends nothing more on this stream."""

Payload = Buffer | Sequence[Buffer]
"""What is accepted as a message's raw bytes: one buffer, or several that follow each other. Never copied before the wire."""


class FrameError(Exception):
    """The peer broke the protocol. The session closes; nothing of the frame is used."""


class Kind(IntEnum):
    """First byte of a frame."""

    OPEN = 1
    DATA = 2
    END = 3
    RESET = 4
    CREDIT = 5
    PING = 6
    PONG = 7
    GOODBYE = 8


class Message(msgspec.Struct, frozen=True):
    """One message as it came off the wire: a typed part and raw bytes, both opaque here.

    A Struct and not a dataclass: this is made for every token at every hop, and a frozen dataclass takes 6 times as long.
    """

    code: int
    meta: memoryview
    payload: memoryview
    """Possibly empty. Read-only, and valid as long as it is referenced."""
    cost: int
    """What the message takes of the credit: its bytes and MESSAGE_COST. Give exactly this to `Session.consumed`."""


class RecordReader:
    """Cuts a byte stream into records. Keeps at most one incomplete record, and copies only that one."""

    __slots__ = ("_partial",)

    def __init__(self) -> None:
        self._partial = bytearray()

    def feed(self, data: Buffer) -> list[memoryview]:
        """The ciphertexts of all records that are complete now, to be used before `data` changes. Raises FrameError."""
        view = memoryview(data)
        end = len(view)
        position = 0
        records: list[memoryview] = []
        partial = self._partial
        if partial:
            if len(partial) < RECORD_PREFIX_BYTES:
                position = RECORD_PREFIX_BYTES - len(partial)
                partial += view[:position]
                if len(partial) < RECORD_PREFIX_BYTES:
                    return records
            missing = RECORD_PREFIX_BYTES + _record_length(partial) - len(partial)
            partial += view[position : position + missing]
            position += missing
            if position > end:
                return records
            records.append(memoryview(partial)[RECORD_PREFIX_BYTES:])
            self._partial = bytearray()
        while True:
            body = position + RECORD_PREFIX_BYTES
            if body > end:
                break
            stop = body + _record_length(view[position:body])
            if stop > end:
                break
            records.append(view[body:stop])
            position = stop
        if position < end:
            self._partial += view[position:]
        return records


def _record_length(prefix: Buffer) -> int:
    """Raises FrameError unless a frame can be in a record of this length."""
    length = (prefix[0] << 8) | prefix[1]
    if length < MIN_RECORD:
        raise FrameError(f"a record of {length} bytes")
    return length


# For every kind: flags it may carry, whether it belongs to a stream, shortest and longest payload.
_Rule = tuple[int, bool, int, int]
_RULES: Final[dict[int, _Rule]] = {
    Kind.OPEN: (0, True, HEAD.size, MAX_FRAME_PAYLOAD),
    Kind.DATA: (FIRST, True, 1, MAX_FRAME_PAYLOAD),
    Kind.END: (0, True, 0, 0),
    Kind.RESET: (0, True, 2, 2 + MAX_REASON_BYTES),
    Kind.PING: (0, False, 8, 8),
    Kind.PONG: (0, False, 8, 8),
    Kind.GOODBYE: (0, False, 2, 2 + MAX_REASON_BYTES),
}


def parse_frame(plaintext: bytes) -> tuple[int, int, int, int]:
    """(kind, flags, stream, value) of a frame whose payload is `plaintext[HEADER.size:]`. Raises FrameError."""
    if len(plaintext) < HEADER.size:
        raise FrameError(f"a frame of {len(plaintext)} bytes has no header")
    kind, flags, reserved, stream, value = HEADER.unpack_from(plaintext)
    if reserved:
        raise FrameError(f"reserved bits are set: {reserved:#x}")
    length = len(plaintext) - HEADER.size
    if kind == Kind.CREDIT:
        if flags or length or not value:
            raise FrameError("a CREDIT frame has a credit, and neither flags nor payload")
        return kind, flags, stream, value
    rule = _RULES.get(kind)
    if rule is None:
        raise FrameError(f"unknown frame kind {kind}")
    allowed, on_stream, shortest, longest = rule
    if flags & ~allowed:
        raise FrameError(f"unknown flags {flags:#x} in a frame of kind {kind}")
    if (stream != 0) is not on_stream:
        raise FrameError(f"stream {stream} in a frame of kind {kind}")
    if value != length or not shortest <= length <= longest:
        raise FrameError(f"{length} bytes, announced as {value}, in a frame of kind {kind}")
    return kind, flags, stream, value


def parse_head(view: memoryview) -> tuple[int, bool, int, int]:
    """(code, last, meta length, payload length) at the start of a message. Raises FrameError above the limits."""
    if len(view) < HEAD.size:
        raise FrameError("a message begins with its head")
    code, flags, meta_length, payload_length = HEAD.unpack_from(view)
    if flags & ~LAST:
        raise FrameError(f"unknown message flags {flags:#x}")
    if meta_length > MAX_META or payload_length > MAX_PAYLOAD:
        raise FrameError(f"a message of {meta_length} + {payload_length} bytes; {MAX_META} + {MAX_PAYLOAD} are allowed")
    return code, bool(flags & LAST), meta_length, payload_length


def frame(kind: Kind, *, stream: int = 0, payload: bytes = b"") -> bytes:
    """A whole frame, unencrypted."""
    return HEADER.pack(kind, 0, 0, stream, len(payload)) + payload


def credit_frame(stream: int, credit: int) -> bytes:
    """Stream 0 is the connection."""
    return HEADER.pack(Kind.CREDIT, 0, 0, stream, credit)


def reason_payload(code: int, text: str) -> bytes:
    """Of RESET and GOODBYE: code u16, then text, cut at MAX_REASON_BYTES."""
    return code.to_bytes(2, "little") + text.encode(errors="replace")[:MAX_REASON_BYTES]


def parse_reason(view: memoryview) -> tuple[int, str]:
    """(code, text). Control characters do not survive, for the text goes into logs."""
    text = bytes(view[2:]).decode(errors="replace")
    return int.from_bytes(view[:2], "little"), "".join(c if c.isprintable() else "?" for c in text)


class Cutter:
    """Cuts one outgoing message into frames. Keeps references to the caller's buffers, copies each byte once.

    The caller must not change its buffers before the message has been cut to its end.
    """

    __slots__ = ("_kind", "_parts", "_size", "_stream", "cost", "last", "remaining")

    def __init__(
        self,
        stream: int,
        *,
        opens: bool,
        code: int,
        last: bool,
        meta: Buffer,
        payload: Payload,
    ) -> None:
        """Raises ValueError when the message is above the limits."""
        # No isinstance of Sequence first: bytes are one too.
        if isinstance(payload, (bytes, bytearray)):
            parts: list[Buffer] = [payload]
        elif isinstance(payload, memoryview):
            parts = [_flat(payload)]  # pyright: ignore[reportArgumentType]
        else:
            parts = [_flat(part) for part in payload]
        payload_length = sum(map(len, parts))
        if len(meta) > MAX_META or payload_length > MAX_PAYLOAD:
            raise ValueError(f"a message of {len(meta)} + {payload_length} bytes is above {MAX_META} + {MAX_PAYLOAD}")
        self._stream = stream
        self._kind = Kind.OPEN if opens else Kind.DATA
        self.last = last
        self._parts: list[Buffer] = [HEAD.pack(code, LAST if last else 0, len(meta), payload_length), meta, *parts]
        self._size = self.remaining = HEAD.size + len(meta) + payload_length
        self.cost = MESSAGE_COST + len(meta) + payload_length

    @property
    def started(self) -> bool:
        return self.remaining != self._size

    def next_frame(self) -> bytes:
        """The next frame, unencrypted. `remaining` says whether there is another one."""
        first = self.remaining == self._size
        length = min(self.remaining, MAX_FRAME_PAYLOAD)
        flags = FIRST if first and self._kind is Kind.DATA else 0
        kind = self._kind if first else Kind.DATA
        pieces: list[Buffer] = [HEADER.pack(kind, flags, 0, self._stream, length)]
        if length == self.remaining:
            pieces += self._parts
            self._parts = []
        else:
            self._take(length, pieces)
        self.remaining -= length
        return b"".join(pieces)

    def _take(self, length: int, pieces: list[Buffer]) -> None:
        """Moves the first `length` bytes of the parts into `pieces`."""
        for index, part in enumerate(self._parts):
            if len(part) > length:
                view = memoryview(part)
                pieces.append(view[:length])
                self._parts = [view[length:], *self._parts[index + 1 :]]
                return
            pieces.append(part)
            length -= len(part)
        assert length == 0, "the lengths were counted from these very parts"
        self._parts = []


def _flat(part: Buffer) -> Buffer:
    """Bytes as they are; anything else with the buffer protocol (numpy arrays) as a flat view of bytes, without a copy."""
    if type(part) is bytes:
        return part
    view = memoryview(part)
    return view if view.format == "B" and view.ndim == 1 and view.contiguous else view.cast("B")
