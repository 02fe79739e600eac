"""Bodies of the credit endpoints (swarmllm.md 2.1.3)."""

from __future__ import annotations

from msgspec import Struct


class CreditBalance(Struct, frozen=True, kw_only=True):
    """As it is shown beside other figures. `lifetime_earned - lifetime_spent + lifetime_refunded` is `balance`."""

    balance: int = 0
    lifetime_earned: int = 0
    lifetime_spent: int = 0
    """With what was set aside for requests, used or not; never less than before."""
    lifetime_refunded: int = 0
    net_spent: int = 0
    """What was really taken, or is set aside now."""


class CreditView(Struct, frozen=True, kw_only=True):
    balance: int
    lifetime_earned: int
    lifetime_spent: int
    lifetime_refunded: int
    net_spent: int
    tier: str
    """`bronze` or `silver`: the upper two compare nodes, and no node tells another its balance."""
    last_updated: str
    """When something was booked last; before the first time, when the node began."""
    books_balance: bool
    """The identity holds; false would be a mistake of the node."""
    escrow_held: int
    """Set aside for requests that run."""
    escrow_pending_count: int


class CreditRow(Struct, frozen=True, kw_only=True):
    """What came or went within one hour for one reason, with one node and one model. Not in the contract."""

    id: int
    hour: str
    """Its beginning."""
    timestamp: str
    """Of the last of it."""
    kind: str
    """`served`, `hosted`, `seeded`, `relayed`, `reserved`, `spent`, `penalty` or `refunded`."""
    amount: int
    """Credits; negative: they went."""
    quantity: int
    unit: str
    """Of `quantity`: `tokens`, `bytes`, `byte_seconds`, `milliseconds` or `failures`."""
    events: int
    node_id: str | None
    model_id: str | None


class CreditRows(Struct, frozen=True, kw_only=True):
    transactions: list[CreditRow]
    """The newest first."""
    total: int
    next_before: int | None
    """For `before` of the next page; null: this is the last one."""


class PeerCreditRow(Struct, frozen=True, kw_only=True):
    """Between this node and one other, by this node's own count. Not in the contract."""

    node_id: str
    given: int
    """Credits for what it did for this node."""
    taken: int
    """For what this node did for it."""
    balance: int
    tier: str
    weight: int
    """Turns out of as many, where `inference.priority_by_tier` is on."""
    last_at: str
