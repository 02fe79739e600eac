"""What a node did for others and had done by others, in credits: an account of contribution, not money.

Nobody pays with it and no node believes another's figures. What the numbers are and are not: docs/credits.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from swarmd.domain.ids import ModelId, NodeId


class CreditKind(Enum):
    """Why credits came or went; the value is the word in the admin API."""

    SERVED = "served"  # layers run for generations of others
    HOSTED = "hosted"  # shards kept where others can reach them
    SEEDED = "seeded"  # bytes of shards given to others
    RELAYED = "relayed"  # connections of others passed on
    RESERVED = "reserved"  # set aside for a request when it begins
    SPENT = "spent"  # what a request took beyond what was set aside
    PENALTY = "penalty"  # a stage of somebody's generation failed here
    REFUNDED = "refunded"  # set aside and not taken


UNITS: Final = {
    CreditKind.SERVED: "tokens",
    CreditKind.HOSTED: "byte_seconds",
    CreditKind.SEEDED: "bytes",
    CreditKind.RELAYED: "milliseconds",
    CreditKind.RESERVED: "tokens",
    CreditKind.SPENT: "tokens",
    CreditKind.PENALTY: "failures",
    CreditKind.REFUNDED: "tokens",
}
"""What the quantity of an entry counts."""


class Tier(Enum):
    BRONZE = "bronze"
    SILVER = "silver"
    GOLD = "gold"
    PLATINUM = "platinum"


TIER_WEIGHTS: Final = {Tier.PLATINUM: 8, Tier.GOLD: 4, Tier.SILVER: 2, Tier.BRONZE: 1}
"""Turns out of as many, where turns are given by tier (swarmllm.md 4.7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """This node's own books as they are on the disk. `earned - spent + refunded == balance`, always."""

    earned: int = 0
    spent: int = 0
    """With what was only set aside and came back later; never less than before."""
    refunded: int = 0
    balance: int = 0
    """Kept by itself, not derived from the others."""
    held: int = 0
    """Of `spent`: set aside for requests that run."""
    pending: int = 0
    """Requests that run and have something set aside."""
    updated_at: float | None = None
    """Unix seconds; None: nothing was ever booked."""

    @property
    def balanced(self) -> bool:
        return self.earned - self.spent + self.refunded == self.balance


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditEntry:
    """What came or went within one hour for one reason, with one node and one model."""

    id: int
    hour: int
    """Unix seconds of its beginning."""
    at: float
    """Unix seconds of the last of it."""
    kind: CreditKind
    amount: int
    """Negative: it went."""
    quantity: int
    """In UNITS of its kind."""
    events: int
    peer: NodeId | None
    model: ModelId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAccount:
    """Between this node and one other, as this node counted it."""

    node: NodeId
    given: int
    """Credits for what it did for this node."""
    taken: int
    """For what this node did for it."""
    last_at: float
    """Unix seconds."""

    @property
    def balance(self) -> int:
        return self.given - self.taken
