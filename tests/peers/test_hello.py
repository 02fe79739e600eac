"""The Hello survives the wire, and nothing hostile does."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.peers import Endpoint, Purpose
from swarmd.identity.certificates import MAX_BYTES
from swarmd.peers.addresses import MAX_ENDPOINTS
from swarmd.peers.hello import MAX_SOFTWARE, Declined, Hello, StatedEndpoint, decode, encode
from swarmd.wire.handshake import MAX_HELLO_BYTES

PLAIN = Hello(
    node=bytes(range(32)),
    static_signature=bytes(64),
    purpose=Purpose.BULK,
    software="swarmd/0.1.0",
    boot=bytes(8),
    endpoints=(StatedEndpoint("0.0.0.0", 8810),),
)


def test_what_is_said_is_heard() -> None:
    heard = decode(encode(PLAIN))
    assert heard == PLAIN
    assert heard is not None
    assert heard.node_id == bytes(range(32)).hex()
    assert heard.stated == (Endpoint("0.0.0.0", 8810),)


def test_the_largest_hello_fits_into_the_handshake() -> None:
    largest = msgspec.structs.replace(
        PLAIN,
        software="ü" * MAX_SOFTWARE,
        endpoints=(StatedEndpoint("h" * 253, 65535),) * MAX_ENDPOINTS,
        certificate=bytes(MAX_BYTES),
        admission=bytes(MAX_BYTES),
        declined=Declined.EXPIRED,
        declined_since=1e10,
        network=bytes(32),
        is_open=True,
    )
    data = encode(largest)
    assert decode(data) == largest
    assert len(data) <= MAX_HELLO_BYTES


def test_fields_of_a_later_version_are_ignored() -> None:
    fields = msgspec.msgpack.decode(encode(PLAIN))
    assert decode(msgspec.msgpack.encode([*fields, "new", {"more": 1}])) == PLAIN
    assert decode(msgspec.msgpack.encode(fields[:5])) == msgspec.structs.replace(PLAIN, endpoints=())


def test_an_earlier_version_states_no_open_network() -> None:
    fields = msgspec.msgpack.decode(encode(msgspec.structs.replace(PLAIN, network=b"n" * 32, is_open=True)))
    heard = decode(msgspec.msgpack.encode(fields[:10]))
    assert heard == PLAIN and heard is not None
    assert (heard.network_id, heard.is_open, heard.is_guest) == (None, False, True)


def test_a_guest_shows_neither_certificate_nor_network() -> None:
    stating = msgspec.structs.replace(PLAIN, network=b"\xab" * 32)
    assert stating.network_id == "ab" * 32 and not stating.is_guest
    assert not msgspec.structs.replace(PLAIN, certificate=bytes(178)).is_guest


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, bytes(31)),
        (0, "x"),
        (1, bytes(65)),
        (2, "other"),
        (3, "x" * 65),
        (4, b""),
        (5, [["h", 0]]),
        (5, [["", 1]]),
        (5, [["h" * 254, 1]]),
        (5, [["h", 1]] * 9),
        (6, bytes(MAX_BYTES + 1)),
        (8, "why not"),
    ],
)
def test_a_field_out_of_bounds_is_refused(position: int, value: object) -> None:
    fields = msgspec.msgpack.decode(encode(PLAIN))
    fields[position] = value
    assert decode(msgspec.msgpack.encode(fields)) is None


def test_text_that_is_no_text_and_endless_nesting_are_refused() -> None:
    data = encode(PLAIN)
    assert decode(data.replace(b"swarmd/0.1.0", b"\xffwarmd/0.1.0")) is None
    count = data[0] - 0x90
    assert decode(bytes([0x90 + count + 1]) + data[1:] + b"\x91" * 3000 + b"\xc0") is None


@given(st.binary(max_size=MAX_HELLO_BYTES))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    decode(data)


@given(st.integers(0, 200), st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused(position: int, value: int) -> None:
    data = bytearray(encode(PLAIN))
    data[position % len(data)] = value
    decode(bytes(data))
