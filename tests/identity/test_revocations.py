"""Revocations: made, carried, judged."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.ids import NetworkId, NodeId
from swarmd.domain.refusals import Forbidden
from swarmd.identity import certificates
from swarmd.identity.certificates import SKEW_S, Role
from swarmd.identity.keys import NetworkKey, NodeKey
from swarmd.identity.revocations import REVOCATION_BYTES, USEFUL_S, Revocation, decode, encode, is_signed, refuse, revoke
from swarmd.wire.messages import MAX_RECORD

NOW = 1_800_000_000
KEY = NetworkKey(bytes([9]) * 32)
NODE = NodeKey(bytes([1]) * 32).node
RECORD = revoke(KEY, NODE, now=NOW)


def judged(record: Revocation, now: float = NOW) -> str | None:
    refusal = refuse(record, network=KEY.network, now=now)
    return None if refusal is None else refusal.sentence


def test_there_and_back() -> None:
    data = encode(RECORD)
    assert len(data) == REVOCATION_BYTES <= MAX_RECORD
    assert decode(data) == RECORD
    assert is_signed(RECORD)
    assert judged(RECORD) is None


def test_it_takes_back_what_was_issued_up_to_then_and_nothing_later() -> None:
    record = revoke(KEY, NODE, now=NOW + 0.1)
    assert record.revoked_at == NOW + 1
    for issued_at, covered in ((NOW - 5, True), (NOW, True), (NOW + 1, True), (NOW + 2, False)):
        certificate = certificates.issue(KEY, node=NODE, role=Role.MEMBER, now=issued_at)
        assert record.covers(certificate) is covered
    other = certificates.issue(KEY, node=NodeKey(bytes([2]) * 32).node, role=Role.MEMBER, now=NOW)
    elsewhere = certificates.issue(NetworkKey(bytes([8]) * 32), node=NODE, role=Role.MEMBER, now=NOW)
    assert not record.covers(other) and not record.covers(elsewhere)


def test_a_signature_made_for_something_else_is_none() -> None:
    stranger = NetworkKey(bytes([8]) * 32)
    forged = replace(revoke(stranger, NODE, now=NOW), network=KEY.network, issuer=KEY.network)
    for record in (forged, replace(RECORD, revoked_at=NOW + 1), replace(RECORD, node=NodeId("ab" * 32))):
        assert not is_signed(record)


@pytest.mark.parametrize(
    ("record", "now", "word"),
    [
        (replace(RECORD, network=NetworkId("00" * 32)), NOW, "is for network"),
        (replace(RECORD, issuer=NODE), NOW, "not made by the founder"),
        (RECORD, NOW - SKEW_S - 1, "in the future"),
        (RECORD, NOW + USEFUL_S + 1, "older than any certificate"),
    ],
)
def test_what_says_nothing_here_is_refused(record: Revocation, now: float, word: str) -> None:
    assert word in (judged(record, now) or "")


def test_another_version_or_size_is_refused() -> None:
    data = encode(RECORD)
    for wrong in (b"", data[:-1], data + b"\0", b"\x02" + data[1:]):
        assert isinstance(decode(wrong), Forbidden)


@given(st.binary(min_size=REVOCATION_BYTES, max_size=REVOCATION_BYTES))
def test_any_bytes_are_a_record_or_a_refusal(data: bytes) -> None:
    record = decode(data)
    if isinstance(record, Revocation):
        assert encode(record) == data
        assert not is_signed(record)
