"""Invite codes: made, read, tampered with."""

from __future__ import annotations

import base64
import itertools
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.discovery.invites import (
    CODE_LIMIT,
    FRESH_BYTES,
    LIFE_S,
    MAX_ENDPOINTS,
    SCHEME,
    Invite,
    make_invite,
    read_invite,
)
from swarmd.domain.ids import NetworkId, NodeId
from swarmd.domain.membership import InviteRecord
from swarmd.domain.peers import Endpoint
from swarmd.domain.refusals import BadCode, Expired

NOW = 1_800_000_000.0
NETWORK = NetworkId("ab" * 32)
INVITER = NodeId("cd" * 32)
ENDPOINTS = (Endpoint("192.168.1.17", 8810), Endpoint("fd00::17", 8810), Endpoint("attic.example", 18810))
FRESH = bytes(range(FRESH_BYTES))


def code(endpoints: tuple[Endpoint, ...] = ENDPOINTS, fresh: bytes = FRESH) -> tuple[str, InviteRecord]:
    return make_invite(network=NETWORK, inviter=INVITER, endpoints=endpoints, now=NOW, fresh=fresh)


def test_what_was_written_can_be_read() -> None:
    text, record = code()
    invite = read_invite(text, now=NOW)
    assert isinstance(invite, Invite)
    assert (invite.network, invite.inviter, invite.endpoints) == (NETWORK, INVITER, ENDPOINTS)
    assert (invite.tag, invite.psk, invite.expires_at) == (record.tag, record.psk, record.expires_at)
    assert record.expires_at == NOW + LIFE_S
    assert record.uses_left == 1


def test_a_usual_code_is_short_enough_to_pass_on() -> None:
    assert len(code(ENDPOINTS[:1])[0]) < 190


def test_tag_psk_and_secret_say_nothing_about_each_other() -> None:
    _, record = code()
    secret = FRESH[12:]
    assert len({record.tag, record.psk[:16], record.psk[16:], secret}) == 4


def test_no_address_and_no_name_is_readable_in_the_code() -> None:
    text, record = code()
    data = base64.urlsafe_b64decode(text[len(SCHEME) :] + "==")
    readable = (b"192.168.1.17", bytes([192, 168, 1, 17]), b"attic", bytes.fromhex("fd00"), (8810).to_bytes(2))
    for fragment in (*readable, bytes.fromhex(NETWORK)[:4], bytes.fromhex(INVITER)[:4], record.tag, record.psk):
        assert fragment not in data[13 + 16 :]
        assert fragment not in text.encode()


def test_every_single_wrong_character_is_noticed() -> None:
    text, _ = code(ENDPOINTS[:1])
    for position, character in itertools.product(range(len(text)), string.printable):
        if character != text[position]:
            changed = text[:position] + character + text[position + 1 :]
            assert isinstance(read_invite(changed, now=NOW), BadCode), changed


def test_every_missing_or_doubled_character_is_noticed() -> None:
    for endpoints in (ENDPOINTS, ENDPOINTS[:1], ()):  # three lengths: base64 ends differently
        text, _ = code(endpoints)
        for position in range(len(text)):
            assert isinstance(read_invite(text[:position] + text[position + 1 :], now=NOW), BadCode)
            assert isinstance(read_invite(text[:position] + text[position] + text[position:], now=NOW), BadCode)
            assert isinstance(read_invite(text[:position], now=NOW), BadCode)


@given(st.text(max_size=300))
def test_any_text_is_refused_with_a_reason(text: str) -> None:
    for candidate in (text, SCHEME + text):
        refusal = read_invite(candidate, now=NOW)
        assert isinstance(refusal, BadCode)
        assert "swarm://" in refusal.sentence


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_a_well_sealed_box_with_hostile_content_is_refused(plain: bytes) -> None:
    """Whoever has a code has the key and can seal anything."""
    from blake3 import blake3
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    key = blake3(FRESH[12:], derive_key_context="swarmd 2026-11 invite secret to box key v1").digest(32)
    for content in (plain, bytes(64) + bytes([0, 0, 0, 0x7F, 0, 0, 0, 0]) + plain):
        data = bytes([1]) + FRESH + ChaCha20Poly1305(key).encrypt(FRESH[:12], content, bytes([1]))
        invite = read_invite(SCHEME + base64.urlsafe_b64encode(data).rstrip(b"=").decode(), now=NOW)
        if isinstance(invite, Invite):  # it was well-formed by chance: then it means exactly what it says
            again, _ = make_invite(
                network=invite.network,
                inviter=invite.inviter,
                endpoints=invite.endpoints,
                now=invite.expires_at,
                life_s=0,
                fresh=FRESH,
            )
            assert read_invite(again, now=NOW) == invite
        else:
            assert isinstance(invite, BadCode | Expired)


def test_white_space_from_a_mail_program_is_forgiven() -> None:
    text, _ = code()
    assert isinstance(read_invite(f"  {text[:70]}\r\n   {text[70:]}\n", now=NOW), Invite)


def test_an_old_code_says_when_it_ended() -> None:
    text, record = code()
    assert isinstance(read_invite(text, now=record.expires_at - 1), Invite)
    assert read_invite(text, now=record.expires_at) == Expired(expired_at=record.expires_at)


def test_a_newer_version_is_named() -> None:
    text, _ = code()
    data = bytearray(base64.urlsafe_b64decode(text[len(SCHEME) :] + "=="))
    data[0] = 2
    refusal = read_invite(SCHEME + base64.urlsafe_b64encode(bytes(data)).rstrip(b"=").decode(), now=NOW)
    assert isinstance(refusal, BadCode)
    assert "version 2" in refusal.sentence


def test_an_endless_text_is_not_read() -> None:
    refusal = read_invite(SCHEME + "A" * CODE_LIMIT, now=NOW)
    assert isinstance(refusal, BadCode)
    assert "at most 4096" in refusal.sentence


def test_only_the_first_endpoints_fit() -> None:
    many = tuple(Endpoint(f"10.0.0.{n}", 8810) for n in range(1, 20))
    text, _ = code(many)
    invite = read_invite(text, now=NOW)
    assert isinstance(invite, Invite)
    assert invite.endpoints == many[:MAX_ENDPOINTS]
    assert len(text) < CODE_LIMIT


@pytest.mark.parametrize("host", ["", "a b", "-a", "a" * 254, "ä", "/ip4/1.2.3.4"])
def test_a_host_that_is_none_never_gets_into_a_code(host: str) -> None:
    with pytest.raises(ValueError, match="neither an IP address nor a host name"):
        code((Endpoint(host, 1),))
