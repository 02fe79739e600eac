"""Worth and tiers, as the contract has them."""

from __future__ import annotations

from swarmd.domain.credits import CreditKind, Tier
from swarmd.domain.ids import NodeId
from swarmd.economy.rates import FAILURE_CREDITS, TOKEN_CREDITS, UNITS_PER_CREDIT, own_tier, peer_tiers


def node(number: int) -> NodeId:
    return NodeId(f"{number:064x}")


def test_the_rates_of_the_contract() -> None:
    assert (TOKEN_CREDITS, FAILURE_CREDITS) == (10, 50)
    assert 1_000_000_000 * 3600 / UNITS_PER_CREDIT[CreditKind.HOSTED] == 1
    assert 1_000_000_000 / UNITS_PER_CREDIT[CreditKind.SEEDED] == 5
    assert 3_600_000 / UNITS_PER_CREDIT[CreditKind.RELAYED] == 2


def test_nobody_to_compare_with_makes_silver_at_most() -> None:
    assert [own_tier(balance) for balance in (-5, 0, 1, 10**12)] == [Tier.BRONZE, Tier.BRONZE, Tier.SILVER, Tier.SILVER]


def test_peers_are_compared_with_each_other() -> None:
    tiers = peer_tiers({node(number): number for number in range(11)})
    assert [tiers[node(number)] for number in range(11)] == [
        Tier.BRONZE, *[Tier.SILVER] * 6, Tier.GOLD, Tier.GOLD, Tier.PLATINUM, Tier.PLATINUM,
    ]  # fmt: skip


def test_whoever_took_as_much_as_it_gave_is_bronze_even_among_worse_ones() -> None:
    assert set(peer_tiers({node(number): -number for number in range(20)}).values()) == {Tier.BRONZE}


def test_those_who_are_alike_are_in_one_tier_and_two_are_too_few_to_compare() -> None:
    assert set(peer_tiers({node(number): 5 for number in range(10)}).values()) == {Tier.SILVER}
    assert set(peer_tiers({node(1): 5, node(2): 900}).values()) == {Tier.SILVER}
    assert peer_tiers({}) == {} and peer_tiers({node(1): 5}) == {node(1): Tier.SILVER}
