"""The code table: strict inside, open towards newer nodes."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest

from swarmd.domain.ids import NodeId
from swarmd.wire.frames import MAX_META
from swarmd.wire.messages import (
    MAX_RECORD,
    MAX_RECORDS,
    MessageError,
    Refused,
    Revocations,
    class_of,
    decode,
    encode,
    message,
)


@message(60001)
@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    node: NodeId
    words: tuple[str, ...] = ()


@message(60002)
class Step(msgspec.Struct, frozen=True, array_like=True):
    position: int
    rows: int


def test_there_and_back() -> None:
    for value in (
        Greeting(node=NodeId("ab" * 32), words=("hello", "there")),
        Step(position=7, rows=1),
        Refused(kind="NoCoverage", sentence="no"),
    ):
        code, meta = encode(value)
        assert decode(code, memoryview(meta)) == value
        assert class_of(code) is type(value)


def test_hot_messages_are_short() -> None:
    assert len(encode(Step(position=1234, rows=1))[1]) == 5


def test_newer_fields_are_ignored() -> None:
    meta = msgspec.msgpack.encode({"node": "x", "words": [], "mood": "good"})
    assert decode(60001, meta) == Greeting(node=NodeId("x"))
    assert decode(60002, msgspec.msgpack.encode([1, 2, 3])) == Step(position=1, rows=2)


@pytest.mark.parametrize(
    ("code", "meta"),
    [
        (59999, b"\x80"),
        (60001, b""),
        (60001, b"\x80"),
        (60001, b"\xc1"),
        (60001, b"\x91" * 5000),
        (60001, msgspec.msgpack.encode({"node": 5})),
        (60002, msgspec.msgpack.encode([1, "two"])),
        (60002, msgspec.msgpack.encode([1, 2]) + b"\0"),
    ],
)
def test_anything_else_is_a_message_error(code: int, meta: bytes) -> None:
    with pytest.raises(MessageError):
        decode(code, meta)


def test_a_code_belongs_to_one_class() -> None:
    with pytest.raises(AssertionError, match="60001 belongs to Greeting"):
        message(60001)(type("Other", (), {}))
    with pytest.raises(AssertionError, match="16 bits"):
        message(65536)


def test_oversized_messages_are_not_encoded() -> None:
    with pytest.raises(ValueError, match="allowed"):
        encode(Greeting(node=NodeId("x"), words=("y" * MAX_META,)))


def test_revocations_beyond_their_bounds_are_not_decoded() -> None:
    full = Revocations(records=(bytes(MAX_RECORD),) * MAX_RECORDS)
    code, meta = encode(full)
    assert code == 13
    assert decode(code, meta) == full
    for records in ([bytes(MAX_RECORD + 1)], [b""] * (MAX_RECORDS + 1)):
        with pytest.raises(MessageError):
            decode(13, msgspec.msgpack.encode({"records": records}))
