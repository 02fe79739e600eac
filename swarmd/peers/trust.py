"""What deeds and time do to the trust in a node: a number from 0 to 1. Pure.

The numbers are the contract's (swarmllm.md 4.7). Time forgives and forgets: half of what a deed did is gone after 34
minutes.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

DEFAULT: Final = 0.5  # of a node about which nothing is known
CYCLE_S: Final = 30.0
KEPT: Final = 0.99  # of the distance to DEFAULT, from one cycle to the next


class Deed(Enum):
    """What a node did, and what that is worth. The contract's further deeds are not here: nothing could witness them."""

    SERVED = 0.01  # its stage of a generation that came to its end
    INVALID_GOSSIP = -0.05  # it said about itself what cannot be
    BAD_DATA = -0.10  # bytes of a shard that are not what the manifest says


def drifted(score: float, elapsed_s: float) -> float:
    """After that time without a deed. A share of a cycle counts as such, so it does not matter how often one looks."""
    return DEFAULT + (score - DEFAULT) * KEPT ** (max(0.0, elapsed_s) / CYCLE_S)


def judged(score: float, deed: Deed) -> float:
    return min(1.0, max(0.0, score + deed.value))
