"""Accounts say whether they add up."""

from __future__ import annotations

from swarmd.domain.credits import TIER_WEIGHTS, UNITS, Account, CreditKind, PeerAccount, Tier
from swarmd.domain.ids import NodeId


def test_an_account_knows_whether_its_books_balance() -> None:
    assert Account().balanced
    assert Account(earned=10, spent=7, refunded=2, balance=5).balanced
    assert not Account(earned=10, spent=7, refunded=2, balance=6).balanced


def test_the_balance_of_a_peer_is_what_it_gave_less_what_it_took() -> None:
    assert PeerAccount(node=NodeId("a" * 64), given=3, taken=10, last_at=0.0).balance == -7


def test_every_kind_has_a_unit_and_every_tier_a_weight() -> None:
    assert set(UNITS) == set(CreditKind)
    assert [TIER_WEIGHTS[tier] for tier in (Tier.PLATINUM, Tier.GOLD, Tier.SILVER, Tier.BRONZE)] == [8, 4, 2, 1]
