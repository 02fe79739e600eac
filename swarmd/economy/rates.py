"""What things are worth in credits, and which tier a balance makes. Pure. Rates: contract, swarmllm.md 4.7.

Rates are no settings: two nodes that count the same tokens should come to the same credits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from swarmd.domain.credits import CreditKind, Tier
from swarmd.domain.ids import NodeId

TOKEN_CREDITS: Final = 10  # of a token that a stage computed, whoever it was for: what one spends the other earns
FAILURE_CREDITS: Final = 50  # less, for a stage that broke here
UNITS_PER_CREDIT: Final = {
    CreditKind.HOSTED: 1_000_000_000 * 3600,  # 1 for a GB over an hour
    CreditKind.SEEDED: 1_000_000_000 // 5,  # 5 for a GB
    CreditKind.RELAYED: 3_600_000 // 2,  # 2 for a connection over an hour
}
"""Of what is worth less than a credit a piece. What does not make a whole one is kept for the next."""
MICRO: Final = 1_000_000
"""Books on peers are in millionths, so that a shard that comes in small parts counts as much as one that comes whole."""
SEEDED_MICRO_BYTES: Final = UNITS_PER_CREDIT[CreditKind.SEEDED] // MICRO

PLATINUM_SHARE, GOLD_SHARE = 0.90, 0.70  # of the nodes compared with: as many are not above it
MIN_COMPARED: Final = 3  # among fewer "better than nine in ten" means nothing


def own_tier(balance: int) -> Tier:
    """No node tells another its balance, so there is nobody to compare this one with: the upper two cannot be reached."""
    return Tier.SILVER if balance > 0 else Tier.BRONZE


def peer_tiers(balances: Mapping[NodeId, int]) -> dict[NodeId, Tier]:
    """Of all nodes that the books know, from the balances in the books of one node.

    The percentile of a node is the share of the others that have less. Who has taken as much as it gave is bronze,
    whatever the others did.
    """
    ordered = sorted(balances.values())
    below: dict[int, int] = {}
    for at, balance in enumerate(ordered):
        below.setdefault(balance, at)
    others = len(ordered) - 1
    found: dict[NodeId, Tier] = {}
    for node, balance in balances.items():
        percentile = below[balance] / others if others + 1 >= MIN_COMPARED else 0.0
        if balance <= 0:
            found[node] = Tier.BRONZE
        elif percentile >= PLATINUM_SHARE:
            found[node] = Tier.PLATINUM
        else:
            found[node] = Tier.GOLD if percentile >= GOLD_SHARE else Tier.SILVER
    return found
