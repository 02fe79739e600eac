"""SPAKE2: two sides that know the same few words make a key of them, and whoever watches or takes part has one guess.

RFC 9382 in the variant of the `spake2` package, over Ed25519, with SHA-256. This is its only home. Each side computes some
five milliseconds in pure Python, and the time depends on the words, so callers compute in a thread and answer at a fixed
pace (`peers.short_codes.unhurried`).
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol, cast

from spake2 import SPAKE2_A, SPAKE2_B, SPAKEError  # pyright: ignore[reportMissingTypeStubs]
from spake2.ed25519_basic import NotOnCurve  # pyright: ignore[reportMissingTypeStubs]

from swarmd.kit.world import Entropy
from swarmd.wire.handshake import ELEMENT_BYTES


class Side(Enum):
    """Who has the words from whom."""

    GUEST = "swarmd 2026-11 short code: guest"
    INVITER = "swarmd 2026-11 short code: inviter"


class _Half(Protocol):
    """What is used of the package, which has no types of its own."""

    def start(self) -> bytes: ...
    def finish(self, inbound_side_and_message: bytes) -> bytes: ...


class Half:
    """One side of one exchange: a second exchange with the same numbers would give the words away."""

    def __init__(self, side: Side, words: str, *, entropy: Entropy) -> None:
        """`words`: the whole code in its one spelling."""
        kind = SPAKE2_A if side is Side.GUEST else SPAKE2_B
        made = kind(words.encode(), idA=Side.GUEST.value.encode(), idB=Side.INVITER.value.encode(), entropy_f=entropy.token)
        self._half = cast("_Half", made)
        self.element = self._half.start()
        """ELEMENT_BYTES, for the other side."""
        assert len(self.element) == ELEMENT_BYTES, "Ed25519, and the byte that names the side"

    def psk(self, element: bytes) -> bytes | None:
        """32 bytes out of the other side's element; both have the same ones where both had the same words. Once.

        None: it is no element of the group, or one of our own side.
        """
        try:
            return self._half.finish(element)
        except (SPAKEError, NotOnCurve, ValueError):  # the last: a point of small order
            return None
