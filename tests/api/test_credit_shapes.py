"""Names that the contract fixes."""

from __future__ import annotations

from swarmd.api.credit_shapes import CreditBalance, CreditView


def test_the_contract_s_names() -> None:
    newer = {"lifetime_refunded", "net_spent"}
    assert set(CreditBalance.__struct_fields__) == {"balance", "lifetime_earned", "lifetime_spent"} | newer
    assert set(CreditView.__struct_fields__) == {
        "balance", "lifetime_earned", "lifetime_spent", "tier", "last_updated", "books_balance", "escrow_held",
        "escrow_pending_count", *newer,
    }  # fmt: skip
