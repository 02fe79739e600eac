"""How two nodes come to trust a byte stream: preamble, Noise XX, one Hello each way. Bytes in, events out, both roles.

    initiator                                             responder
    preamble (version, mode, invite tag), message 1  ──►  in mode INVITED: `InviteTag`, answered with `psk` or `reject`
                                                     ◄──  message 2: ephemeral and sealed static key, nothing else
    message 3: sealed static key, Hello              ──►  `PeerProven`, answered with `accept` or `reject`
    `PeerProven`, answered with `accept` or `reject` ◄──  reply: Hello, the first transport message
    open                                                  open (since it sent the reply)

In mode SHORT nobody knows a psk yet. Where the tag is, the preamble has the number of a short code, and SPAKE2 (RFC 9382)
makes the psk out of the words that both sides know, or of two different ones:

    preamble (version, mode, number), element        ──►  `ElementReceived`, answered with `exchanged` or `reject`
    `ElementReceived`, answered with `exchanged`     ◄──  element
    message 1, and on as above

What an element is, is not known here: bytes. The words are proven by message 3 and not before, so that message is the one
guess that whoever dials has: `guess` says how it went.

Every message after the preamble is a 2-byte big-endian length and that many bytes; the length is checked before anything
is kept. The preamble and the elements are part of the Noise prologue, so nobody can change them on the way. A stranger
learns nothing from the responder but two public keys and an element: every bad byte moves the machine to FAILED with
nothing to send, and the glue closes without a word. What a Hello says is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from swarmd.wire.noise import KEY_BYTES, TAG_BYTES, Buffer, CipherState, HandshakeState, NoiseError, Suite

PROTOCOL_VERSION: Final = 1
INVITE_TAG_BYTES: Final = 16
NAMEPLATE_BYTES: Final = 2
ELEMENT_BYTES: Final = 33  # of SPAKE2 over Ed25519: one byte says which side it is from, and a point
MAX_HELLO_BYTES: Final = 4096  # a node id, a signature, a certificate and some text are well under 1 KiB

_LABEL: Final = b"swarmd peer link\0"
_PREAMBLE_BYTES: Final = 2 + INVITE_TAG_BYTES
_NO_TAG: Final = bytes(INVITE_TAG_BYTES)
_MESSAGE_2_BYTES: Final = KEY_BYTES + (KEY_BYTES + TAG_BYTES) + TAG_BYTES
_MESSAGE_3_LIMIT: Final = (KEY_BYTES + TAG_BYTES) + MAX_HELLO_BYTES + TAG_BYTES
_REPLY_LIMIT: Final = MAX_HELLO_BYTES + TAG_BYTES
# What may wait unread. Before the peer has proven anything: the largest thing it may send. A responder that has accepted us
# may talk at once, while we still judge its Hello: one read of the socket (256 KiB in asyncio and uvloop) and one more.
_STRANGER_LIMIT: Final = _PREAMBLE_BYTES + 2 * (2 + _MESSAGE_3_LIMIT)  # an element is smaller
_PROVEN_LIMIT: Final = 512 * 1024


class Role(Enum):
    """Who opened the connection."""

    INITIATOR = "initiator"
    RESPONDER = "responder"


class Mode(IntEnum):
    """Second byte of the preamble."""

    MEMBER = 0
    INVITED = 1
    SHORT = 2


class State(Enum):
    """`AWAIT_*` wait for bytes, `JUDGING_*` for an answer of the glue."""

    AWAIT_PREAMBLE = "await preamble"
    JUDGING_TAG = "judging tag"
    AWAIT_ELEMENT = "await element"
    JUDGING_ELEMENT = "judging element"
    AWAIT_MESSAGE_1 = "await message 1"
    AWAIT_MESSAGE_2 = "await message 2"
    AWAIT_MESSAGE_3 = "await message 3"
    AWAIT_REPLY = "await reply"
    JUDGING_PEER = "judging peer"
    OPEN = "open"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteTag:
    """Somebody joins by this invite. Answer with `psk`, or `reject`. The tag alone proves nothing."""

    tag: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementReceived:
    """The peer's half of a SPAKE2 exchange, in mode SHORT. Answer with `exchanged`, or `reject`. It proves nothing yet."""

    nameplate: int
    """Of the short code, 0 to 65535 as it came."""
    element: bytes
    """ELEMENT_BYTES of them, perhaps no element at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerProven:
    """The peer holds this static key, and the psk where there is one. Judge its Hello: answer with `accept` or `reject`."""

    static_public: bytes
    hello: bytes
    invite_tag: bytes | None
    """Set in mode INVITED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeFailed:
    """Nothing more can come of it: close the socket. `reason` is for our log only."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponderSeen:
    """To a `probe`: whoever answered holds this static key. It was told nothing of us, and nothing more comes of it."""

    static_public: bytes


HandshakeEvent = InviteTag | ElementReceived | PeerProven | ResponderSeen | HandshakeFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Established:
    """What a finished handshake leaves behind."""

    role: Role
    send: CipherState
    receive: CipherState
    handshake_hash: bytes
    remote_static: bytes
    """The peer's static key, proven."""
    leftover: bytes
    """Bytes that came behind the handshake: the first ones for the session."""


class Handshake:
    """One handshake, one role. Feed `receive`, write what `outgoing` returns, answer the events."""

    def __init__(self, *, role: Role, static_private: bytes, ephemeral_private: bytes) -> None:
        """Use `dial` or `answer`."""
        self._role = role
        self._static_private = static_private
        self._ephemeral_private = ephemeral_private
        self._hello = b""
        self._probes = False
        self._preamble = b""
        self._elements = b""
        """The initiator's, then the responder's."""
        self._guess: bool | None = None
        self._noise: HandshakeState | None = None
        self._ciphers: tuple[CipherState, CipherState] | None = None
        self._buffer = bytearray()
        self._outgoing = bytearray()
        self._state = State.AWAIT_PREAMBLE

    @classmethod
    def dial(
        cls,
        *,
        static_private: bytes,
        ephemeral_private: bytes,
        hello: bytes,
        invite: tuple[bytes, bytes] | None = None,
        short: tuple[int, bytes] | None = None,
        probe: bool = False,
    ) -> Handshake:
        """The initiator's side. `invite` is (16-byte tag, 32-byte psk); or `short` is (nameplate, our SPAKE2 element).
        Raises NoiseError on keys of a wrong length.

        `probe`: the first two messages only, which prove the responder's static key and tell it nothing: `ResponderSeen`.
        """
        assert len(hello) <= MAX_HELLO_BYTES, f"our Hello has {len(hello)} bytes"
        machine = cls(role=Role.INITIATOR, static_private=static_private, ephemeral_private=ephemeral_private)
        machine._hello = hello
        machine._probes = probe
        if short is not None:
            machine._offer(*short)
            return machine
        tag, psk = invite if invite is not None else (_NO_TAG, None)
        assert len(tag) == INVITE_TAG_BYTES, f"an invite tag has {INVITE_TAG_BYTES} bytes"
        machine._preamble = bytes((PROTOCOL_VERSION, Mode.MEMBER if psk is None else Mode.INVITED)) + tag
        machine._outgoing += machine._preamble
        machine._send(machine._begin(psk).write())
        machine._state = State.AWAIT_MESSAGE_2
        return machine

    @classmethod
    def answer(cls, *, static_private: bytes, ephemeral_private: bytes) -> Handshake:
        """The responder's side."""
        return cls(role=Role.RESPONDER, static_private=static_private, ephemeral_private=ephemeral_private)

    @property
    def state(self) -> State:
        return self._state

    @property
    def guess(self) -> bool | None:
        """For a responder in mode SHORT: whether the words behind message 3 were right. None: there was no message 3."""
        return self._guess

    @property
    def first_flight(self) -> bytes:
        """For a responder that judges an element: all it has read so far. It has written nothing, so somebody else could
        still answer in its place."""
        assert self._state is State.JUDGING_ELEMENT and self._role is Role.RESPONDER, "only before anything was answered"
        return self._preamble + _framed(self._elements) + self._buffer

    def outgoing(self) -> bytes:
        """What is to be written now; often nothing."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def receive(self, data: Buffer) -> list[HandshakeEvent]:
        """Bytes from the peer. Never raises, whatever they are."""
        if self._state is State.FAILED:
            return []
        self._buffer += data
        return self._advance()

    def psk(self, psk: bytes) -> list[HandshakeEvent]:
        """The answer to `InviteTag`: 32 bytes. Goes on with what has arrived meanwhile."""
        assert self._state is State.JUDGING_TAG, f"no invite tag is being judged: {self._state.value}"
        self._begin(psk)
        self._state = State.AWAIT_MESSAGE_1
        return self._advance()

    def exchanged(self, psk: bytes, element: bytes = b"") -> list[HandshakeEvent]:
        """The answer to `ElementReceived`: the 32 bytes that came out, and a responder's own element. An initiator has sent
        its one already. Goes on with what has arrived meanwhile."""
        assert self._state is State.JUDGING_ELEMENT, f"no element is being judged: {self._state.value}"
        if self._role is Role.RESPONDER:
            assert len(element) == ELEMENT_BYTES, f"an element has {ELEMENT_BYTES} bytes"
            self._elements += element
            self._send(element)
            self._begin(psk)
            self._state = State.AWAIT_MESSAGE_1
        else:
            self._send(self._begin(psk).write())
            self._state = State.AWAIT_MESSAGE_2
        return self._advance()

    def accept(self, reply: bytes = b"") -> None:
        """The answer to `PeerProven`. A responder gives its own Hello; an initiator has sent its one already."""
        assert self._state is State.JUDGING_PEER, f"no peer is being judged: {self._state.value}"
        assert self._noise is not None, "a proven peer has a Noise state"
        if self._role is Role.RESPONDER:
            self._reply(reply)
        self._state = State.OPEN

    def reject(self, reply: bytes | None = None) -> None:
        """The other answer to each event. `reply` tells a proven peer why; without it, silence."""
        judging = (State.JUDGING_TAG, State.JUDGING_ELEMENT, State.JUDGING_PEER)
        assert self._state in judging, f"nobody is being judged: {self._state.value}"
        told = reply is not None and self._state is State.JUDGING_PEER and self._role is Role.RESPONDER
        self._outgoing.clear()
        if reply is not None and told:
            self._reply(reply)
        self._buffer.clear()
        self._state = State.FAILED

    def established(self) -> Established:
        """The result, once, when the state is OPEN."""
        assert self._state is State.OPEN, f"the handshake is not open: {self._state.value}"
        assert self._noise is not None, "an open handshake has a Noise state"
        assert self._ciphers is not None, "an open handshake has its ciphers, and they were not taken before"
        send, receive = self._ciphers
        self._ciphers = None
        leftover = bytes(self._buffer)
        self._buffer.clear()
        assert self._noise.remote_static is not None, "XX has brought the peer's static key"
        return Established(
            role=self._role,
            send=send,
            receive=receive,
            handshake_hash=self._noise.handshake_hash,
            remote_static=self._noise.remote_static,
            leftover=leftover,
        )

    def _advance(self) -> list[HandshakeEvent]:
        events: list[HandshakeEvent] = []
        try:
            while self._step(events):
                pass
            limit = _PROVEN_LIMIT if self._role is Role.INITIATOR else _STRANGER_LIMIT
            if len(self._buffer) > limit:
                raise NoiseError(f"more than {limit} bytes before they were asked for")
        except NoiseError as error:
            self._state = State.FAILED
            self._buffer.clear()
            self._outgoing.clear()
            return [HandshakeFailed(reason=str(error))]
        return events

    def _step(self, events: list[HandshakeEvent]) -> bool:
        """One message, if it is complete. True when there may be another one."""
        match self._state:
            case State.AWAIT_PREAMBLE:
                return self._read_preamble(events)
            case State.AWAIT_ELEMENT:
                return self._read_element(self._message(ELEMENT_BYTES, ELEMENT_BYTES), events)
            case State.AWAIT_MESSAGE_1:
                # With a psk there is a key from the first "e" on, and the empty payload has a tag (section 9.2).
                size = KEY_BYTES + (TAG_BYTES if self._preamble[1] != Mode.MEMBER else 0)
                return self._read_message_1(self._message(size, size))
            case State.AWAIT_MESSAGE_2:
                return self._read_message_2(self._message(_MESSAGE_2_BYTES, _MESSAGE_2_BYTES), events)
            case State.AWAIT_MESSAGE_3:
                return self._read_message_3(self._message(_MESSAGE_3_LIMIT - MAX_HELLO_BYTES, _MESSAGE_3_LIMIT), events)
            case State.AWAIT_REPLY:
                return self._read_reply(self._message(TAG_BYTES, _REPLY_LIMIT), events)
            case State.JUDGING_TAG | State.JUDGING_ELEMENT | State.JUDGING_PEER | State.OPEN | State.FAILED:
                return False

    def _read_preamble(self, events: list[HandshakeEvent]) -> bool:
        known = bytes(self._buffer[:_PREAMBLE_BYTES])
        if known[:1] and known[0] != PROTOCOL_VERSION:
            raise NoiseError(f"protocol version {known[0]}, ours is {PROTOCOL_VERSION}")
        if known[1:2] and known[1] not in tuple(Mode):
            raise NoiseError(f"unknown mode {known[1]}")
        if len(known) < _PREAMBLE_BYTES:
            return False
        del self._buffer[:_PREAMBLE_BYTES]
        self._preamble = known
        tag = known[2:]
        if known[1] == Mode.INVITED:
            self._state = State.JUDGING_TAG
            events.append(InviteTag(tag=tag))
            return False
        if known[1] == Mode.SHORT:
            if any(tag[NAMEPLATE_BYTES:]):
                raise NoiseError("something behind the number of a short code")
            self._state = State.AWAIT_ELEMENT
            return True
        if tag != _NO_TAG:
            raise NoiseError("an invite tag in mode MEMBER")
        self._begin(None)
        self._state = State.AWAIT_MESSAGE_1
        return True

    def _read_element(self, message: bytes | None, events: list[HandshakeEvent]) -> bool:
        if message is None:
            return False
        self._elements += message
        self._state = State.JUDGING_ELEMENT
        nameplate = int.from_bytes(self._preamble[2 : 2 + NAMEPLATE_BYTES], "big")
        events.append(ElementReceived(nameplate=nameplate, element=message))
        return False

    def _read_message_1(self, message: bytes | None) -> bool:
        if message is None:
            return False
        noise = self._running()
        if noise.read(message):
            raise NoiseError("message 1 has a payload")
        self._send(noise.write())
        self._state = State.AWAIT_MESSAGE_3
        return True

    def _read_message_2(self, message: bytes | None, events: list[HandshakeEvent]) -> bool:
        if message is None:
            return False
        noise = self._running()
        noise.read(message)
        if self._probes:
            assert noise.remote_static is not None, "message 2 brings the peer's static key"
            self._state = State.FAILED
            events.append(ResponderSeen(static_public=noise.remote_static))
            return False
        self._send(noise.write(self._hello))
        self._ciphers = noise.split()
        self._state = State.AWAIT_REPLY
        return True

    def _read_message_3(self, message: bytes | None, events: list[HandshakeEvent]) -> bool:
        if message is None:
            return False
        noise = self._running()
        short = self._preamble[1] == Mode.SHORT
        self._guess = False if short else None  # unless reading it proves otherwise
        hello = noise.read(message)
        self._guess = True if short else None
        self._ciphers = noise.split()
        self._judge(hello, events)
        return False

    def _read_reply(self, message: bytes | None, events: list[HandshakeEvent]) -> bool:
        if message is None:
            return False
        assert self._ciphers is not None, "message 2 made the ciphers"
        self._judge(self._ciphers[1].decrypt(message), events)
        return False

    def _judge(self, hello: bytes, events: list[HandshakeEvent]) -> None:
        static_public = self._running().remote_static
        assert static_public is not None, "XX has brought the peer's static key"
        tag = self._preamble[2:] if self._preamble[1] == Mode.INVITED else None
        self._state = State.JUDGING_PEER
        events.append(PeerProven(static_public=static_public, hello=hello, invite_tag=tag))

    def _message(self, at_least: int, at_most: int) -> bytes | None:
        """The next complete message, or None. Raises NoiseError as soon as its length is known to be wrong."""
        if len(self._buffer) < 2:
            return None
        size = int.from_bytes(self._buffer[:2], "big")
        if not at_least <= size <= at_most:
            raise NoiseError(f"a message of {size} bytes in state '{self._state.value}'")
        if len(self._buffer) < 2 + size:
            return None
        message = bytes(self._buffer[2 : 2 + size])
        del self._buffer[: 2 + size]
        return message

    def _offer(self, nameplate: int, element: bytes) -> None:
        assert len(element) == ELEMENT_BYTES, f"an element has {ELEMENT_BYTES} bytes"
        number = nameplate.to_bytes(NAMEPLATE_BYTES, "big")
        self._preamble = bytes((PROTOCOL_VERSION, Mode.SHORT)) + number.ljust(INVITE_TAG_BYTES, b"\0")
        self._elements = element
        self._outgoing += self._preamble + _framed(element)
        self._state = State.AWAIT_ELEMENT

    def _begin(self, psk: bytes | None) -> HandshakeState:
        self._noise = HandshakeState(
            suite=Suite.XX if psk is None else Suite.XX_PSK3,
            initiator=self._role is Role.INITIATOR,
            prologue=_LABEL + self._preamble + self._elements,
            static_private=self._static_private,
            ephemeral_private=self._ephemeral_private,
            psk=psk,
        )
        return self._noise

    def _running(self) -> HandshakeState:
        assert self._noise is not None, "the Noise state begins with the preamble"
        return self._noise

    def _reply(self, reply: bytes) -> None:
        assert len(reply) <= MAX_HELLO_BYTES, f"our Hello has {len(reply)} bytes"
        assert self._ciphers is not None, "message 3 made the ciphers"
        self._send(self._ciphers[0].encrypt(reply))

    def _send(self, message: bytes) -> None:
        self._outgoing += _framed(message)


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message
