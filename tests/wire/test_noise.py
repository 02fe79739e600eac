"""Noise against the published vectors, against the independent `noiseprotocol` package, and against misuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from noise.connection import Keypair, NoiseConnection

from swarmd.wire.noise import (
    MAX_MESSAGE_BYTES,
    CipherState,
    HandshakeState,
    NoiseError,
    Suite,
    public_key,
)

VECTORS = json.loads((Path(__file__).parent / "vectors" / "cacophony.json").read_text())["vectors"]
PSK = bytes(range(32))
SUITES = [(Suite.XX, None), (Suite.XX_PSK3, PSK)]


def state(*, initiator: bool, suite: Suite = Suite.XX, psk: bytes | None = None, **changed: Any) -> HandshakeState:
    fields: dict[str, Any] = {
        "prologue": b"prologue",
        "static_private": (b"\x11" if initiator else b"\x22") * 32,
        "ephemeral_private": (b"\x33" if initiator else b"\x44") * 32,
    }
    return HandshakeState(suite=suite, initiator=initiator, psk=psk, **(fields | changed))


def finished(suite: Suite = Suite.XX, psk: bytes | None = None) -> tuple[HandshakeState, HandshakeState]:
    initiator, responder = state(initiator=True, suite=suite, psk=psk), state(initiator=False, suite=suite, psk=psk)
    responder.read(initiator.write())
    initiator.read(responder.write())
    responder.read(initiator.write())
    return initiator, responder


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["protocol_name"] for vector in VECTORS])
def test_published_vectors(vector: dict[str, Any]) -> None:
    def side(prefix: str) -> HandshakeState:
        psks = vector.get(f"{prefix}_psks", [])
        return HandshakeState(
            suite=Suite(vector["protocol_name"]),
            initiator=prefix == "init",
            prologue=bytes.fromhex(vector[f"{prefix}_prologue"]),
            static_private=bytes.fromhex(vector[f"{prefix}_static"]),
            ephemeral_private=bytes.fromhex(vector[f"{prefix}_ephemeral"]),
            psk=bytes.fromhex(psks[0]) if psks else None,
        )

    initiator, responder = side("init"), side("resp")
    steps = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    for index, (payload, ciphertext) in enumerate(steps[:3]):
        writer, reader = (initiator, responder) if index % 2 == 0 else (responder, initiator)
        assert writer.write(payload) == ciphertext
        assert reader.read(ciphertext) == payload
    assert initiator.handshake_hash == responder.handshake_hash  # the vectors' own value is another one: see the README
    initiator_send, initiator_receive = initiator.split()
    responder_send, responder_receive = responder.split()
    for index, (payload, ciphertext) in enumerate(steps[3:], start=3):
        send, receive = (initiator_send, responder_receive) if index % 2 == 0 else (responder_send, initiator_receive)
        assert send.encrypt(payload) == ciphertext
        assert receive.decrypt(ciphertext) == payload


@pytest.mark.parametrize(("suite", "psk"), SUITES, ids=["XX", "XXpsk3"])
@pytest.mark.parametrize("we_initiate", [True, False])
def test_other_implementation_in_both_roles(suite: Suite, psk: bytes | None, we_initiate: bool) -> None:
    other = NoiseConnection.from_name(suite.value.encode())
    if psk is not None:
        other.set_psks(psk)
    (other.set_as_responder if we_initiate else other.set_as_initiator)()
    other.set_prologue(b"prologue")
    other.set_keypair_from_private_bytes(Keypair.STATIC, b"\x77" * 32)
    other.start_handshake()
    ours = state(initiator=we_initiate, suite=suite, psk=psk)
    our_turn = we_initiate
    for step in range(3):
        if our_turn:
            assert bytes(other.read_message(ours.write(b"from us %d" % step))) == b"from us %d" % step
        else:
            assert ours.read(bytes(other.write_message(b"from them %d" % step))) == b"from them %d" % step
        our_turn = not our_turn
    assert ours.finished
    assert ours.remote_static == public_key(b"\x77" * 32)
    assert ours.handshake_hash == other.get_handshake_hash()
    send, receive = ours.split()
    for text in (b"", b"x", b"y" * (MAX_MESSAGE_BYTES - 16)):
        assert bytes(other.decrypt(send.encrypt(text))) == text
        assert receive.decrypt(bytes(other.encrypt(text))) == text


def test_static_keys_are_learned() -> None:
    initiator, responder = finished()
    assert initiator.remote_static == public_key(b"\x22" * 32)
    assert responder.remote_static == public_key(b"\x11" * 32)


@pytest.mark.parametrize(
    ("initiator_change", "responder_change"),
    [({"prologue": b"a"}, {"prologue": b"b"}), ({"psk": PSK}, {"psk": bytes(32)})],
    ids=["prologue", "psk"],
)
def test_both_sides_must_agree(initiator_change: dict[str, Any], responder_change: dict[str, Any]) -> None:
    suite = Suite.XX_PSK3 if "psk" in initiator_change else Suite.XX
    initiator = state(initiator=True, suite=suite, **initiator_change)
    responder = state(initiator=False, suite=suite, **responder_change)
    with pytest.raises(NoiseError):
        responder.read(initiator.write())
        initiator.read(responder.write())
        responder.read(initiator.write())
    assert not responder.finished


@pytest.mark.parametrize(
    "small_order",
    [bytes(32), b"\x01" + bytes(31), bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")],
)
def test_all_zero_results_are_refused(small_order: bytes) -> None:
    responder = state(initiator=False)
    responder.read(small_order)
    with pytest.raises(NoiseError, match="all zero"):
        responder.write()
    with pytest.raises(NoiseError, match="failed"):
        responder.write()


def test_calls_out_of_turn_are_refused() -> None:
    initiator, responder = state(initiator=True), state(initiator=False)
    with pytest.raises(NoiseError, match="turn"):
        initiator.read(b"")
    with pytest.raises(NoiseError, match="turn"):
        responder.write()
    with pytest.raises(NoiseError, match="not finished"):
        initiator.split()
    done, _ = finished()
    with pytest.raises(NoiseError, match="finished"):
        done.write()
    done.split()
    with pytest.raises(NoiseError, match="not finished"):
        done.split()


def test_broken_messages_fail_for_good() -> None:
    initiator, responder = state(initiator=True), state(initiator=False)
    responder.read(initiator.write())
    answer = bytearray(responder.write())
    answer[40] ^= 1
    with pytest.raises(NoiseError):
        initiator.read(answer)
    with pytest.raises(NoiseError, match="failed"):
        initiator.read(answer)
    with pytest.raises(NoiseError, match="too early"):
        state(initiator=False).read(b"short")
    with pytest.raises(NoiseError, match="at most"):
        state(initiator=False).read(bytes(MAX_MESSAGE_BYTES + 1))
    with pytest.raises(NoiseError, match="at most"):
        state(initiator=True).write(bytes(MAX_MESSAGE_BYTES))


def test_key_lengths_and_psk_use_are_checked() -> None:
    with pytest.raises(NoiseError, match="32 bytes"):
        state(initiator=True, static_private=b"short")
    with pytest.raises(NoiseError, match="32 bytes"):
        state(initiator=True, suite=Suite.XX_PSK3, psk=b"short")
    with pytest.raises(NoiseError, match="takes no psk"):
        state(initiator=True, psk=PSK)
    with pytest.raises(NoiseError, match="needs a psk"):
        state(initiator=True, suite=Suite.XX_PSK3)
    with pytest.raises(NoiseError, match="32 bytes"):
        CipherState(b"short")


def test_a_spent_cipher_is_refused() -> None:
    cipher = CipherState(PSK)
    cipher._nonce = 2**64 - 2
    cipher.encrypt(b"the last one")
    for use in (cipher.encrypt, cipher.decrypt):
        with pytest.raises(NoiseError, match="spent"):
            use(b"one too many" * 3)


def test_a_wrong_tag_does_not_move_the_nonce() -> None:
    send, receive = CipherState(PSK), CipherState(PSK)
    sealed = send.encrypt(b"hello")
    with pytest.raises(NoiseError):
        receive.decrypt(sealed[:-1] + bytes((sealed[-1] ^ 1,)))
    assert receive.nonce == 0
    assert receive.decrypt(sealed) == b"hello"


def test_encrypt_into_is_encrypt() -> None:
    one, two = CipherState(PSK), CipherState(PSK)
    out = bytearray(5 + 16)
    one.encrypt_into(b"hello", memoryview(out))
    assert bytes(out) == two.encrypt(b"hello")
