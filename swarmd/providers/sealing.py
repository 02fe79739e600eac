"""Keys of providers as they lie in the database: sealed with a key that only this node's identity gives."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from swarmd.kit.world import Entropy

USE: Final = "provider-keys"
"""What `NodeKey.sealing_key` makes the key for."""

NONCE_BYTES: Final = 12  # RFC 8439


class Seal:
    """One per node."""

    def __init__(self, key: bytes, *, entropy: Entropy) -> None:
        """`key`: 32 bytes."""
        self._cipher, self._entropy = ChaCha20Poly1305(key), entropy

    def closed(self, text: str, *, about: str) -> bytes:
        """`about`: what it belongs to; it opens for nothing else, so that a row cannot be moved to another name."""
        nonce = self._entropy.token(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text.encode(), about.encode())

    def opened(self, sealed: bytes, *, about: str) -> str | None:
        """None: it was not sealed by this node for this, or is damaged."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], about.encode()).decode()
        except (InvalidTag, ValueError):
            return None
