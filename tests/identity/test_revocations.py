"""Revocations: made, carried, judged; those of the founder and those of inviters."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.ids import NetworkId, NodeId
from swarmd.domain.refusals import Forbidden
from swarmd.identity import certificates
from swarmd.identity.certificates import LIFE_S, LINK_BYTES, SKEW_S, Certificate, Role
from swarmd.identity.keys import NetworkKey, NodeKey, Signed
from swarmd.identity.revocations import (
    MAX_BYTES,
    MAX_PROOF,
    REVOCATION_BYTES,
    USEFUL_S,
    Revocation,
    decode,
    encode,
    is_signed,
    refuse,
    revoke,
)
from swarmd.wire.messages import MAX_RECORD

NOW = 1_800_000_000
KEY = NetworkKey(bytes([9]) * 32)
NODE = NodeKey(bytes([1]) * 32).node
RECORD = revoke(KEY, NODE, now=NOW)
INVITERS = [NodeKey(bytes([100 + n]) * 32) for n in range(MAX_PROOF)]


def inviter(depth: int = 1, *, now: float = NOW) -> Certificate:
    """Of the last of `depth` inviters, each invited by the one before, the first by the founder."""
    found = certificates.issue(KEY, node=INVITERS[0].node, role=Role.INVITER, now=now)
    for above, own in pairwise(INVITERS[:depth]):
        found = certificates.issue(above, node=own.node, role=Role.INVITER, now=now, parent=found)
    return found


def by_inviter(depth: int = 1, *, node: NodeId = NODE, now: float = NOW + 10) -> Revocation:
    return revoke(INVITERS[depth - 1], node, now=now, proof=inviter(depth))


RECORDS = [RECORD, *(by_inviter(depth) for depth in range(1, MAX_PROOF + 1))]


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


@pytest.mark.parametrize("depth", range(1, MAX_PROOF + 1))
def test_an_inviters_carries_its_certificate(depth: int) -> None:
    record = by_inviter(depth)
    data = encode(record)
    assert len(data) == REVOCATION_BYTES + depth * LINK_BYTES <= MAX_BYTES <= MAX_RECORD
    assert decode(data) == record
    assert is_signed(record)
    assert judged(record, NOW + 10) is None
    assert judged(record, NOW + LIFE_S + 60) is None, "it outlives the certificate that proves it"


def test_an_inviters_takes_back_what_is_below_it_and_nothing_else() -> None:
    first, second = inviter(1), inviter(2)
    record = by_inviter(1)
    before, after = NOW + 5, record.revoked_at + 1
    for parent, key, issued_at, covered in (
        (first, INVITERS[0], before, True),
        (second, INVITERS[1], before, True),
        (first, INVITERS[0], after, False),  # it let the node in again
        (second, INVITERS[1], after, True),  # somebody below it cannot
    ):
        certificate = certificates.issue(key, node=NODE, role=Role.MEMBER, now=issued_at, parent=parent)
        assert record.covers(certificate) is covered
    direct = certificates.issue(KEY, node=NODE, role=Role.MEMBER, now=before)
    beside = certificates.issue(NodeKey(bytes([7]) * 32), node=NODE, role=Role.MEMBER, now=before, parent=replace(
        first, node=NodeKey(bytes([7]) * 32).node
    ))  # fmt: skip
    assert not record.covers(direct), "the founder admitted it"
    assert not record.covers(beside), "another inviter did"
    above = certificates.issue(INVITERS[0], node=INVITERS[1].node, role=Role.INVITER, now=before, parent=first)
    assert not by_inviter(2, node=INVITERS[0].node).covers(above)


def test_what_the_founder_took_back_no_inviter_gives_again() -> None:
    record = revoke(KEY, NODE, now=NOW + 10)
    later = record.revoked_at + 1
    assert not record.covers(certificates.issue(KEY, node=NODE, role=Role.MEMBER, now=later))
    assert record.covers(certificates.issue(INVITERS[0], node=NODE, role=Role.MEMBER, now=later, parent=inviter()))


@pytest.mark.parametrize(
    ("record", "word"),
    [
        (replace(by_inviter(), proof=None), "not made by the founder"),
        (replace(by_inviter(), proof=inviter(2)), "the certificate of another node"),
        (replace(by_inviter(), proof=replace(inviter(), role=Role.MEMBER)), "no inviter"),
        (by_inviter(2, node=INVITERS[0].node), "owes its own membership"),
        (by_inviter(node=INVITERS[0].node), "owes its own membership"),
        (by_inviter(now=NOW - 1), "when node"),
        (by_inviter(now=NOW + LIFE_S), "when node"),
    ],
)
def test_an_inviters_that_says_nothing_is_refused(record: Revocation, word: str) -> None:
    assert word in (judged(record, NOW + LIFE_S) or "")


def test_an_inviters_without_a_true_chain_is_not_signed() -> None:
    good, stranger = by_inviter(2), NetworkKey(bytes([8]) * 32)
    elsewhere = certificates.issue(stranger, node=INVITERS[0].node, role=Role.INVITER, now=NOW)
    member = certificates.issue(KEY, node=INVITERS[0].node, role=Role.MEMBER, now=NOW)
    below_member = certificates.issue(INVITERS[0], node=INVITERS[1].node, role=Role.INVITER, now=NOW, parent=member)
    moved = replace(revoke(INVITERS[0], NODE, now=NOW + 10, proof=elsewhere), network=KEY.network)
    chain = good.proof
    assert chain is not None
    for record in (
        replace(moved, signature=INVITERS[0].sign(Signed.REVOCATION, moved.body())),
        revoke(INVITERS[1], NODE, now=NOW + 10, proof=below_member),
        replace(good, proof=replace(chain, expires_at=chain.expires_at - 1)),
        replace(good, proof=replace(chain, signature=bytes(64))),
        replace(good, signature=by_inviter(1).signature),
        replace(good, node=NodeId("ab" * 32)),
        replace(good, revoked_at=good.revoked_at + 1),
    ):
        assert not is_signed(record)


def test_versions_and_lengths_belong_together() -> None:
    short_one, long_one = encode(RECORD), encode(by_inviter())
    four = encode(by_inviter(MAX_PROOF)) + bytes(LINK_BYTES)
    for wrong in (
        b"\x02" + short_one[1:], b"\x01" + long_one[1:], b"\x03" + long_one[1:], long_one[:-1], long_one + b"\0", four,
        long_one[:REVOCATION_BYTES] + bytes(LINK_BYTES),
    ):  # fmt: skip
        assert isinstance(decode(wrong), Forbidden)


@given(st.binary(max_size=MAX_BYTES + LINK_BYTES))
def test_any_bytes_are_read_exactly_or_refused(data: bytes) -> None:
    record = decode(data)
    assert isinstance(record, Forbidden) or encode(record) == data


@given(st.sampled_from(RECORDS), st.data())
def test_no_changed_byte_goes_unnoticed(record: Revocation, chance: st.DataObject) -> None:
    data = bytearray(encode(record))
    data[chance.draw(st.integers(0, len(data) - 1))] ^= chance.draw(st.integers(1, 255))
    found = decode(bytes(data))
    assert isinstance(found, Forbidden) or judged(found, NOW + 10) is not None or not is_signed(found)


@given(st.binary(min_size=96, max_size=96), st.integers(0, 2**64 - 1), st.integers(0, MAX_PROOF))
def test_whatever_is_in_the_fields_comes_back(data: bytes, revoked_at: int, depth: int) -> None:
    record = Revocation(
        network=KEY.network, node=NodeId(data[:32].hex()), revoked_at=revoked_at, signature=data[32:],
        issuer=INVITERS[depth - 1].node if depth else KEY.network, proof=inviter(depth) if depth else None,
    )  # fmt: skip
    assert decode(encode(record)) == record


@given(st.binary(min_size=REVOCATION_BYTES, max_size=REVOCATION_BYTES))
def test_any_bytes_are_a_record_or_a_refusal(data: bytes) -> None:
    record = decode(data)
    if isinstance(record, Revocation):
        assert encode(record) == data
        assert not is_signed(record)
