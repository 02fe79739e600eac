"""The Noise Protocol Framework, revision 34, for exactly two suites: XX and XXpsk3 with X25519, ChaChaPoly and BLAKE2s.

Written over the primitives of `cryptography` because no maintained Python package offers them (design, decision 4).
The names are those of the specification, section 5; `PATTERNS` is its table of tokens and the only place where the two
suites differ. Nothing here makes a key: ephemeral keys are handed in, so the published vectors run through the same code.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import Enum
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

Buffer = bytes | bytearray | memoryview
"""What is accepted wherever bytes go in."""

KEY_BYTES: Final = 32  # X25519 keys, symmetric keys, psk and BLAKE2s digests all have this length
TAG_BYTES: Final = 16  # Poly1305
MAX_MESSAGE_BYTES: Final = 65535  # section 3: every Noise message fits a 16-bit length
_NONCE_END: Final = 2**64 - 1  # section 5.1: this value is reserved, a cipher that reaches it is spent


class NoiseError(Exception):
    """A message that does not verify, a bad key, a spent cipher, or a call out of turn. The state is of no more use."""


class Token(Enum):
    """Section 7.1 and 9.1."""

    E = "e"
    S = "s"
    EE = "ee"
    ES = "es"
    SE = "se"
    PSK = "psk"


class Suite(Enum):
    """The value is the protocol name, which is hashed into the handshake (section 8)."""

    XX = "Noise_XX_25519_ChaChaPoly_BLAKE2s"
    XX_PSK3 = "Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s"


Pattern = tuple[tuple[Token, ...], ...]

PATTERNS: Final[dict[Suite, Pattern]] = {
    Suite.XX: (
        (Token.E,),
        (Token.E, Token.EE, Token.S, Token.ES),
        (Token.S, Token.SE),
    ),
    Suite.XX_PSK3: (
        (Token.E,),
        (Token.E, Token.EE, Token.S, Token.ES),
        (Token.S, Token.SE, Token.PSK),
    ),
}
"""The initiator writes the first message, then the two take turns."""


def public_key(private: bytes) -> bytes:
    """The X25519 public key of 32 raw private bytes."""
    return _private(private).public_key().public_bytes_raw()


def _private(raw: bytes) -> X25519PrivateKey:
    if len(raw) != KEY_BYTES:
        raise NoiseError(f"a private key has {KEY_BYTES} bytes, not {len(raw)}")
    return X25519PrivateKey.from_private_bytes(raw)


def _dh(private: X25519PrivateKey, public: bytes) -> bytes:
    """Raises NoiseError on a public key of small order. Section 12.1 leaves the choice; honest peers never see it."""
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise NoiseError("the Diffie-Hellman result is all zero") from error


def _hkdf(chaining_key: bytes, material: bytes, outputs: int) -> list[bytes]:
    """Section 4.3: `outputs` keys of 32 bytes each."""
    temporary = hmac.new(chaining_key, material, hashlib.blake2s).digest()
    keys: list[bytes] = []
    previous = b""
    for index in range(1, outputs + 1):
        previous = hmac.new(temporary, previous + bytes((index,)), hashlib.blake2s).digest()
        keys.append(previous)
    return keys


class CipherState:
    """Section 5.1 with a key: one direction of a finished handshake, or the handshake's own cipher."""

    __slots__ = ("_cipher", "_nonce")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise NoiseError(f"a cipher key has {KEY_BYTES} bytes, not {len(key)}")
        self._cipher = ChaCha20Poly1305(key)
        self._nonce = 0

    @property
    def nonce(self) -> int:
        """Of the next message."""
        return self._nonce

    def encrypt(self, plaintext: Buffer, associated: bytes | None = None) -> bytes:
        """Returns the ciphertext, TAG_BYTES longer."""
        return self._cipher.encrypt(self._next_nonce(), plaintext, associated)

    def encrypt_into(self, plaintext: Buffer, out: memoryview) -> None:
        """As `encrypt`, into `out`: exactly `len(plaintext) + TAG_BYTES` bytes that do not overlap `plaintext`."""
        nonce = self._nonce
        if nonce >= _NONCE_END:
            raise NoiseError("the cipher is spent: every nonce has been used")
        self._nonce = nonce + 1
        self._cipher.encrypt_into((nonce << 32).to_bytes(12, "little"), plaintext, None, out)

    def decrypt(self, ciphertext: Buffer, associated: bytes | None = None) -> bytes:
        """Returns the plaintext; the nonce moves only when the tag was right (section 5.1)."""
        nonce = self._nonce
        if nonce >= _NONCE_END:
            raise NoiseError("the cipher is spent: every nonce has been used")
        try:
            # ChaChaPoly (section 12.3): 32 zero bits, then the counter, little-endian.
            plaintext = self._cipher.decrypt((nonce << 32).to_bytes(12, "little"), ciphertext, associated)
        except InvalidTag as error:
            raise NoiseError("the message was not made with this key, or was changed on its way") from error
        self._nonce = nonce + 1
        return plaintext

    def _next_nonce(self) -> bytes:
        nonce = self._nonce
        if nonce >= _NONCE_END:
            raise NoiseError("the cipher is spent: every nonce has been used")
        self._nonce = nonce + 1
        return (nonce << 32).to_bytes(12, "little")


class SymmetricState:
    """Section 5.2: the chaining key, the transcript hash, and the cipher once there is a key."""

    __slots__ = ("_chaining_key", "_cipher", "hash")

    def __init__(self, protocol_name: str) -> None:
        name = protocol_name.encode()
        self.hash = name.ljust(KEY_BYTES, b"\0") if len(name) <= KEY_BYTES else hashlib.blake2s(name).digest()
        self._chaining_key = self.hash
        self._cipher: CipherState | None = None

    def mix_hash(self, data: Buffer) -> None:
        self.hash = hashlib.blake2s(self.hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        self._chaining_key, key = _hkdf(self._chaining_key, material, 2)
        self._cipher = CipherState(key)

    def mix_key_and_hash(self, material: bytes) -> None:
        self._chaining_key, digest, key = _hkdf(self._chaining_key, material, 3)
        self.mix_hash(digest)
        self._cipher = CipherState(key)

    @property
    def has_key(self) -> bool:
        return self._cipher is not None

    def encrypt_and_hash(self, plaintext: Buffer) -> bytes:
        sealed = bytes(plaintext) if self._cipher is None else self._cipher.encrypt(plaintext, self.hash)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: Buffer) -> bytes:
        plaintext = bytes(sealed) if self._cipher is None else self._cipher.decrypt(sealed, self.hash)
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[CipherState, CipherState]:
        """(initiator to responder, responder to initiator)."""
        first, second = _hkdf(self._chaining_key, b"", 2)
        return CipherState(first), CipherState(second)


class HandshakeState:
    """Section 5.3 for one side. Call `write` and `read` in turn until `finished`, then `split` once.

    Any NoiseError leaves the state failed: every later call raises NoiseError too.
    """

    __slots__ = (
        "_ephemeral",
        "_failed",
        "_index",
        "_initiator",
        "_pattern",
        "_psk",
        "_remote_ephemeral",
        "_static",
        "_symmetric",
        "remote_static",
    )

    def __init__(
        self,
        *,
        suite: Suite,
        initiator: bool,
        prologue: bytes,
        static_private: bytes,
        ephemeral_private: bytes,
        psk: bytes | None = None,
    ) -> None:
        self._pattern = PATTERNS[suite]
        if (psk is not None) != (suite is Suite.XX_PSK3):
            raise NoiseError(f"{suite.value} {'needs a psk' if psk is None else 'takes no psk'}")
        if psk is not None and len(psk) != KEY_BYTES:
            raise NoiseError(f"a psk has {KEY_BYTES} bytes, not {len(psk)}")
        self._psk = psk
        self._initiator = initiator
        self._static = _private(static_private)
        self._ephemeral = _private(ephemeral_private)
        self._remote_ephemeral: bytes | None = None
        self.remote_static: bytes | None = None
        """The peer's static public key, once a message brought it. Proven only when the handshake is finished."""
        self._index = 0
        self._failed = False
        self._symmetric = SymmetricState(suite.value)
        self._symmetric.mix_hash(prologue)

    @property
    def finished(self) -> bool:
        return self._index == len(self._pattern) and not self._failed

    @property
    def handshake_hash(self) -> bytes:
        """Names this very handshake (section 11.2); only meaningful when finished."""
        return self._symmetric.hash

    def write(self, payload: Buffer = b"") -> bytes:
        """The next message, when it is our turn."""
        tokens = self._turn(ours=True)
        try:
            parts: list[bytes] = []
            for token in tokens:
                match token:
                    case Token.E:
                        public = self._ephemeral.public_key().public_bytes_raw()
                        parts.append(public)
                        self._mix_ephemeral(public)
                    case Token.S:
                        parts.append(self._symmetric.encrypt_and_hash(self._static.public_key().public_bytes_raw()))
                    case _:
                        self._mix(token)
            parts.append(self._symmetric.encrypt_and_hash(payload))
            message = b"".join(parts)
            if len(message) > MAX_MESSAGE_BYTES:
                raise NoiseError(f"a Noise message has at most {MAX_MESSAGE_BYTES} bytes, not {len(message)}")
        except NoiseError:
            self._failed = True
            raise
        self._index += 1
        return message

    def read(self, message: Buffer) -> bytes:
        """The payload of the peer's next message, when it is its turn."""
        tokens = self._turn(ours=False)
        try:
            if len(message) > MAX_MESSAGE_BYTES:
                raise NoiseError(f"a Noise message has at most {MAX_MESSAGE_BYTES} bytes, not {len(message)}")
            rest = bytes(message)
            for token in tokens:
                match token:
                    case Token.E:
                        self._remote_ephemeral, rest = _cut(rest, KEY_BYTES)
                        self._mix_ephemeral(self._remote_ephemeral)
                    case Token.S:
                        sealed, rest = _cut(rest, KEY_BYTES + (TAG_BYTES if self._symmetric.has_key else 0))
                        self.remote_static = self._symmetric.decrypt_and_hash(sealed)
                    case _:
                        self._mix(token)
            payload = self._symmetric.decrypt_and_hash(rest)
        except NoiseError:
            self._failed = True
            raise
        self._index += 1
        return payload

    def split(self) -> tuple[CipherState, CipherState]:
        """(our sending cipher, our receiving cipher) of the finished handshake."""
        if not self.finished:
            raise NoiseError("the handshake is not finished")
        self._failed = True  # One split only: a second pair of ciphers would use the same nonces again.
        to_responder, to_initiator = self._symmetric.split()
        return (to_responder, to_initiator) if self._initiator else (to_initiator, to_responder)

    def _turn(self, *, ours: bool) -> tuple[Token, ...]:
        if self._failed:
            raise NoiseError("the handshake has failed or has been split")
        if self._index == len(self._pattern):
            raise NoiseError("the handshake is finished")
        if ours != ((self._index % 2 == 0) == self._initiator):
            raise NoiseError("it is the other side's turn")
        return self._pattern[self._index]

    def _mix_ephemeral(self, public: bytes) -> None:
        self._symmetric.mix_hash(public)
        if self._psk is not None:
            self._symmetric.mix_key(public)  # section 9.2: with a psk, "e" also goes into the key

    def _mix(self, token: Token) -> None:
        match token:
            case Token.EE:
                self._symmetric.mix_key(_dh(self._ephemeral, self._known(self._remote_ephemeral)))
            case Token.ES | Token.SE:
                # The first letter is the initiator's key, the second the responder's.
                ours_is_static = (token is Token.SE) == self._initiator
                private = self._static if ours_is_static else self._ephemeral
                public = self._remote_ephemeral if ours_is_static else self.remote_static
                self._symmetric.mix_key(_dh(private, self._known(public)))
            case Token.PSK:
                self._symmetric.mix_key_and_hash(self._known(self._psk))
            case Token.E | Token.S:
                raise AssertionError(f"token {token.value} carries bytes and is handled by write and read")

    @staticmethod
    def _known(key: bytes | None) -> bytes:
        assert key is not None, "the pattern uses a key before the message that brings it"
        return key


def _cut(data: bytes, size: int) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise NoiseError(f"the message ends {size - len(data)} bytes too early")
    return data[:size], data[size:]
