"""Two sessions that talk to each other through lists: the bench of the session tests."""

from __future__ import annotations

from swarmd.wire.events import Closed, MessageReceived, SessionEvent, StreamOpened
from swarmd.wire.handshake import Role
from swarmd.wire.noise import CipherState
from swarmd.wire.session import Session

KEY_A, KEY_B = b"a" * 32, b"b" * 32


def session_pair(now: float = 0.0) -> tuple[Session, Session]:
    """(initiator, responder) with fixed keys."""
    return (
        Session(role=Role.INITIATOR, send=CipherState(KEY_A), receive=CipherState(KEY_B), now=now),
        Session(role=Role.RESPONDER, send=CipherState(KEY_B), receive=CipherState(KEY_A), now=now),
    )


def wire_of(sender: Session) -> bytes:
    """Everything the session wants to write now."""
    parts: list[bytes] = []
    while records := sender.outgoing():
        parts += [bytes(record) for record in records]
    return b"".join(parts)


def carry(sender: Session, receiver: Session, now: float = 0.0, *, consume: bool = True) -> list[SessionEvent]:
    """Moves everything over, piece by piece, and returns the receiver's events."""
    events: list[SessionEvent] = []
    while records := sender.outgoing():
        for record in records:
            events += receiver.receive(record, now)
    if consume:
        for event in events:
            if isinstance(event, (MessageReceived, StreamOpened)):
                receiver.consumed(event.stream, event.message.cost)
    return events


def messages(events: list[SessionEvent]) -> list[tuple[int, bytes, bytes]]:
    return [
        (event.message.code, bytes(event.message.meta), bytes(event.message.payload))
        for event in events
        if isinstance(event, (MessageReceived, StreamOpened))
    ]


def closed(events: list[SessionEvent]) -> str:
    """The reason of the one Closed among them."""
    (reason,) = [event.reason for event in events if isinstance(event, Closed)]
    return reason


class Forger:
    """A peer that sends whatever frames it is told to, correctly encrypted."""

    def __init__(self, key: bytes = KEY_A) -> None:
        self._cipher = CipherState(key)

    def __call__(self, *plaintexts: bytes) -> bytes:
        out = bytearray()
        for plaintext in plaintexts:
            sealed = self._cipher.encrypt(plaintext)
            out += len(sealed).to_bytes(2, "big") + sealed
        return bytes(out)
