"""Certificates: issued, carried, judged."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.refusals import Forbidden, Revoked
from swarmd.identity.certificates import (
    LIFE_S,
    LINK_BYTES,
    MAX_BYTES,
    MAX_CHAIN,
    SKEW_S,
    Certificate,
    Role,
    decode,
    encode,
    issue,
    verify,
)
from swarmd.identity.keys import NetworkKey, NodeKey

NOW = 1_800_000_000
NETWORK = NetworkKey(bytes([9]) * 32)
NODES = [NodeKey(bytes([n]) * 32) for n in range(1, 8)]


def member(node: NodeKey = NODES[0], role: Role = Role.MEMBER) -> Certificate:
    return issue(NETWORK, node=node.node, role=role, now=NOW)


def chain(length: int) -> Certificate:
    certificate = member(NODES[0], Role.INVITER)
    for issuer, node in pairwise(NODES[:length]):
        certificate = issue(issuer, node=node.node, role=Role.INVITER, now=NOW, parent=certificate)
    return certificate


def judged(certificate: Certificate, now: float = NOW) -> str | None:
    """None: it holds. Otherwise the sentence."""
    verdict = verify(certificate, network=NETWORK.network, now=now)
    if isinstance(verdict, Certificate):
        assert verdict == certificate
        return None
    return verdict.sentence


def test_a_member_is_a_member_until_the_last_second() -> None:
    certificate = member()
    assert judged(certificate) is None
    assert judged(certificate, NOW + LIFE_S - 1) is None
    assert "ended on 2027-04-15" in (judged(certificate, NOW + LIFE_S) or "")


def test_a_wrong_clock_is_forgiven_within_a_day_and_named_beyond() -> None:
    assert judged(member(), NOW - SKEW_S) is None
    assert "begins in the future" in (judged(member(), NOW - SKEW_S - 1) or "")


@pytest.mark.parametrize("length", range(1, MAX_CHAIN + 1))
def test_a_chain_of_inviters_holds_and_survives_the_wire(length: int) -> None:
    certificate = chain(length)
    assert len(certificate.chain()) == length
    assert judged(certificate) is None
    data = encode(certificate)
    assert len(data) == LINK_BYTES * length
    assert decode(data) == certificate


def test_the_longest_chain_cannot_be_made_longer() -> None:
    with pytest.raises(AssertionError, match="too long"):
        issue(NODES[3], node=NODES[4].node, role=Role.MEMBER, now=NOW, parent=chain(4))
    beyond = replace(member(), parent=chain(4))
    assert "5 links" in (judged(beyond) or "")


def test_another_network_is_not_ours() -> None:
    other = NetworkKey(bytes([8]) * 32)
    stranger = issue(other, node=NODES[0].node, role=Role.MEMBER, now=NOW)
    assert "belongs to network" in (judged(stranger) or "")
    # The same certificate with our network written into it does not lead up to our key.
    assert "does not lead up" in (judged(replace(stranger, network=NETWORK.network)) or "")
    assert "signature" in (judged(replace(stranger, network=NETWORK.network, issuer=NETWORK.network)) or "")


def test_a_mere_member_cannot_invite() -> None:
    below = issue(NODES[0], node=NODES[1].node, role=Role.MEMBER, now=NOW, parent=member())
    assert "may not issue" in (judged(below) or "")


def test_an_issue_stays_inside_its_issuers_time() -> None:
    parent = issue(NETWORK, node=NODES[0].node, role=Role.INVITER, now=NOW, life_s=100)
    below = issue(NODES[0], node=NODES[1].node, role=Role.MEMBER, now=NOW + 50, parent=parent)
    assert below.expires_at == parent.expires_at
    assert judged(below, NOW + 60) is None
    longer = _resigned(replace(below, expires_at=parent.expires_at + 1), NODES[0])
    assert "outside the time" in (judged(longer, NOW + 60) or "")
    earlier = _resigned(replace(below, issued_at=parent.issued_at - 1), NODES[0])
    assert "outside the time" in (judged(earlier, NOW + 60) or "")


def test_somebody_elses_certificate_above_ours_does_not_help() -> None:
    foreign_parent = member(NODES[2], Role.INVITER)
    forged = _resigned(
        Certificate(
            network=NETWORK.network,
            node=NODES[1].node,
            role=Role.INVITER,
            issued_at=NOW,
            expires_at=NOW + 10,
            issuer=NODES[0].node,
            signature=b"",
            parent=foreign_parent,
        ),
        NODES[0],
    )
    assert "does not fit" in (judged(forged) or "")
    assert "signature" in (judged(replace(forged, issuer=NODES[2].node)) or "")


def test_a_revoked_link_ends_everything_below_it() -> None:
    certificate = chain(3)
    verdict = verify(certificate, network=NETWORK.network, now=NOW, revoked=lambda link: link.node == NODES[0].node)
    assert verdict == Revoked(node=certificate.node, above=NODES[0].node)
    verdict = verify(certificate, network=NETWORK.network, now=NOW, revoked=lambda link: link is certificate)
    assert verdict == Revoked(node=certificate.node)


@given(st.integers(0, LINK_BYTES * 3 - 1), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(position: int, change: int) -> None:
    data = bytearray(encode(chain(3)))
    data[position] ^= change
    certificate = decode(bytes(data))
    assert isinstance(certificate, Forbidden) or judged(certificate) is not None


@given(st.binary(max_size=MAX_BYTES + LINK_BYTES))
def test_hostile_bytes_are_refused_or_read_exactly(data: bytes) -> None:
    certificate = decode(data)
    assert isinstance(certificate, Forbidden) or encode(certificate) == data


@pytest.mark.parametrize("size", [0, 1, LINK_BYTES - 1, LINK_BYTES + 1, MAX_BYTES + LINK_BYTES])
def test_a_wrong_length_is_refused(size: int) -> None:
    assert isinstance(decode(bytes([1]) * size), Forbidden)


def _resigned(certificate: Certificate, key: NodeKey) -> Certificate:
    from swarmd.identity.keys import Signed

    return replace(certificate, signature=key.sign(Signed.CERTIFICATE, certificate.body()))
