"""How much the peer protocol costs: two sessions in one process, encryption and framing included, no sockets.

    python bench/wire.py

Prints microseconds for one message of 8 KiB sent and received (a hidden state of a decode step), and GB/s for 1 MiB chunks.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from swarmd.wire.events import MessageReceived, StreamOpened
from swarmd.wire.frames import Message
from swarmd.wire.handshake import Role
from swarmd.wire.noise import CipherState
from swarmd.wire.session import Session

META = b"\x93\xb0" + bytes(16) + b"\xcd\x04\xd2\x01"  # as large as the typed part of an activation


def pair() -> tuple[Session, Session]:
    one, two = os.urandom(32), os.urandom(32)
    return (
        Session(role=Role.INITIATOR, send=CipherState(one), receive=CipherState(two), now=0.0),
        Session(role=Role.RESPONDER, send=CipherState(two), receive=CipherState(one), now=0.0),
    )


def carry(sender: Session, receiver: Session) -> list[Message]:
    got: list[Message] = []
    while records := sender.outgoing():
        for record in records:
            for event in receiver.receive(record, 0.0):
                if isinstance(event, (MessageReceived, StreamOpened)):
                    receiver.consumed(event.stream, event.message.cost)
                    got.append(event.message)
    return got


def measure(size: int, count: int) -> float:
    """Seconds for one message, sent and received."""
    sender, receiver = pair()
    payload = os.urandom(size)
    stream = sender.open_stream(1, META)
    carry(sender, receiver)
    begin = time.perf_counter()
    for _ in range(count):
        sender.send(stream, 1, META, payload)
        (message,) = carry(sender, receiver)
        carry(receiver, sender)  # credit
    seconds = (time.perf_counter() - begin) / count
    assert message.payload == payload
    return seconds


def main() -> None:
    for size, count in ((8 * 1024, 20_000), (64 * 1024, 5_000)):
        best = min(measure(size, count) for _ in range(3))
        print(f"{size // 1024:5d} KiB message, sent and received: {best * 1e6:6.1f} us")
    best = min(measure(1024 * 1024, 300) for _ in range(3))
    print(f" 1024 KiB chunks, sent and received: {1024 * 1024 / best / 1e9:6.2f} GB/s")


if __name__ == "__main__":
    main()
