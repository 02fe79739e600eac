"""Layouts and limits of records, frames and message heads."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.wire.frames import (
    FIRST,
    HEAD,
    HEADER,
    MAX_FRAME_PAYLOAD,
    MAX_META,
    MAX_PAYLOAD,
    Cutter,
    FrameError,
    Kind,
    RecordReader,
    credit_frame,
    frame,
    parse_frame,
    parse_head,
    parse_reason,
    reason_payload,
)

HEAD_OF_NOTHING = HEAD.pack(1, 0, 0, 0)


def test_layouts_are_those_of_the_documentation() -> None:
    assert HEADER.size == HEAD.size == 12
    assert MAX_FRAME_PAYLOAD == 65507
    assert frame(Kind.PING, payload=b"12345678") == b"\x06\0\0\0" + bytes(4) + b"\x08\0\0\0" + b"12345678"
    assert credit_frame(3, 0x01020304) == b"\x05\0\0\0" + b"\x03\0\0\0" + b"\x04\x03\x02\x01"


@pytest.mark.parametrize(
    "good",
    [
        frame(Kind.OPEN, stream=1, payload=HEAD_OF_NOTHING),
        frame(Kind.DATA, stream=1, payload=b"x"),
        frame(Kind.END, stream=1),
        frame(Kind.RESET, stream=1, payload=reason_payload(7, "enough")),
        frame(Kind.PONG, payload=bytes(8)),
        frame(Kind.GOODBYE, payload=reason_payload(0, "")),
        credit_frame(0, 1),
        credit_frame(9, 2**32 - 1),
    ],
)
def test_good_frames(good: bytes) -> None:
    kind, flags, stream, value = parse_frame(good)
    assert good[:1] == bytes((kind,))
    assert flags == 0
    assert good == HEADER.pack(kind, flags, 0, stream, value) + good[12:]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"", "no header"),
        (bytes(11), "no header"),
        (HEADER.pack(0, 0, 0, 0, 0), "unknown frame kind"),
        (HEADER.pack(9, 0, 0, 0, 0), "unknown frame kind"),
        (HEADER.pack(Kind.END, 0, 1, 1, 0), "reserved"),
        (HEADER.pack(Kind.END, 1, 0, 1, 0), "flags"),
        (HEADER.pack(Kind.DATA, 2, 0, 1, 1) + b"x", "flags"),
        (HEADER.pack(Kind.DATA, 0, 0, 1, 2) + b"x", "announced"),
        (HEADER.pack(Kind.DATA, 0, 0, 1, 0), "announced"),
        (HEADER.pack(Kind.DATA, 0, 0, 0, 1) + b"x", "stream 0"),
        (HEADER.pack(Kind.OPEN, 0, 0, 1, 11) + bytes(11), "announced"),
        (frame(Kind.END, stream=1, payload=b"x"), "announced"),
        (frame(Kind.PING, stream=1, payload=bytes(8)), "stream 1"),
        (frame(Kind.PING, payload=bytes(7)), "announced"),
        (frame(Kind.GOODBYE, payload=bytes(1000)), "announced"),
        (frame(Kind.RESET, stream=1), "announced"),
        (credit_frame(1, 0), "CREDIT"),
        (credit_frame(1, 5) + b"x", "CREDIT"),
        (HEADER.pack(Kind.CREDIT, 1, 0, 1, 5), "CREDIT"),
    ],
)
def test_bad_frames_are_refused(bad: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        parse_frame(bad)


@pytest.mark.parametrize(
    "bad",
    [
        bytes(11),
        HEAD.pack(1, 2, 0, 0),
        HEAD.pack(1, 0, MAX_META + 1, 0),
        HEAD.pack(1, 0, 0, MAX_PAYLOAD + 1),
        HEAD.pack(1, 0, 2**32 - 1, 2**32 - 1),
    ],
)
def test_bad_heads_are_refused(bad: bytes) -> None:
    with pytest.raises(FrameError):
        parse_head(memoryview(bad))


def test_reasons_are_cut_and_cleaned() -> None:
    assert parse_reason(memoryview(reason_payload(3, "a\nb\x1b[31m" + "x" * 1000))) == (3, ("a?b?[31m" + "x" * 1000)[:512])
    assert parse_reason(memoryview(b"\x01\x00\xff\xfe")) == (1, "\ufffd\ufffd")


@pytest.mark.parametrize("size", [0, 1, MAX_FRAME_PAYLOAD - 12, MAX_FRAME_PAYLOAD - 11, 3 * MAX_FRAME_PAYLOAD, MAX_PAYLOAD])
def test_a_message_fills_all_frames_but_the_last(size: int) -> None:
    payload = np.arange(size, dtype=np.uint32).astype(np.uint8).tobytes()
    cutter = Cutter(5, opens=False, code=77, last=True, meta=b"", payload=payload)
    frames = [cutter.next_frame()]
    while cutter.remaining:
        frames.append(cutter.next_frame())
    parsed = [parse_frame(each) for each in frames]
    assert [flags for _, flags, _, _ in parsed] == [FIRST] + [0] * (len(frames) - 1)
    assert all(value == MAX_FRAME_PAYLOAD for _, _, _, value in parsed[:-1])
    whole = b"".join(each[12:] for each in frames)
    assert parse_head(memoryview(whole)) == (77, True, 0, size)
    assert whole[12:] == payload


def test_any_buffer_is_taken_as_it_is() -> None:
    floats = np.arange(40_000, dtype=np.float32).reshape(200, 200)
    cutter = Cutter(
        5, opens=True, code=1, last=False, meta=b"meta", payload=[b"head", memoryview(floats), bytearray(b"tail")]
    )
    whole = b""
    while cutter.remaining:
        whole += cutter.next_frame()[12:]
    assert whole[12:] == b"meta" + b"head" + floats.tobytes() + b"tail"


def test_too_large_messages_are_not_sent() -> None:
    with pytest.raises(ValueError, match="above"):
        Cutter(1, opens=True, code=1, last=False, meta=bytes(MAX_META + 1), payload=b"")
    with pytest.raises(ValueError, match="above"):
        Cutter(1, opens=True, code=1, last=False, meta=b"", payload=[bytes(MAX_PAYLOAD), b"x"])


@given(sizes=st.lists(st.integers(28, 300), max_size=6), cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_records_survive_any_cutting(sizes: list[int], cuts: list[int]) -> None:
    records = [bytes((index + 1,)) * size for index, size in enumerate(sizes)]
    stream = b"".join(len(record).to_bytes(2, "big") + record for record in records)
    reader = RecordReader()
    got: list[bytes] = []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, stop in itertools.pairwise(edges):
        got += [bytes(record) for record in reader.feed(stream[start:stop])]
    assert got == records


def test_short_records_are_refused_as_soon_as_their_length_is_known() -> None:
    for pieces in ([b"\0\x1b"], [b"\0", b"\x1b"]):
        reader = RecordReader()
        with pytest.raises(FrameError, match="27"):
            for piece in pieces:
                reader.feed(piece)
