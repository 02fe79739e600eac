"""Credits: the account, its entries, and the books on each peer."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from swarmd.api import credit_shapes, views
from swarmd.api.calls import Call
from swarmd.api.ports import Ledger
from swarmd.domain.credits import TIER_WEIGHTS, UNITS, CreditEntry
from swarmd.domain.ids import short
from swarmd.domain.refusals import Invalid
from swarmd.kit.world import Clock

PAGE: Final = 100
PAGE_LIMIT: Final = 500  # as the listing of responses (swarmllm.md 2.9)
ID_MAX: Final = 10**18  # a number that sqlite can hold
PageSize = Annotated[int, Meta(ge=1, le=PAGE_LIMIT)]
EntryId = Annotated[int, Meta(ge=1, le=ID_MAX)]


class CreditHandlers:
    def __init__(self, *, ledger: Ledger, clock: Clock) -> None:
        self._ledger, self._began = ledger, clock.now()

    async def credits(self, _call: Call) -> credit_shapes.CreditView:
        account = self._ledger.account()
        return credit_shapes.CreditView(
            balance=account.balance,
            lifetime_earned=account.earned,
            lifetime_spent=account.spent,
            lifetime_refunded=account.refunded,
            net_spent=account.spent - account.refunded,
            tier=self._ledger.tier().value,
            last_updated=views.time_text(self._began if account.updated_at is None else account.updated_at),
            books_balance=account.balanced,
            escrow_held=account.held,
            escrow_pending_count=account.pending,
        )

    async def transactions(self, call: Call) -> credit_shapes.CreditRows | Invalid:
        limit = _number(call, "limit", PAGE, low=1, high=PAGE_LIMIT)
        before = _number(call, "before", ID_MAX, low=1, high=ID_MAX)
        if isinstance(limit, Invalid):
            return limit
        if isinstance(before, Invalid):
            return before
        found, total = await self._ledger.transactions(limit=limit + 1, before=before)
        rows = [_row(entry) for entry in found[:limit]]
        return credit_shapes.CreditRows(
            transactions=rows, total=total, next_before=rows[-1].id if len(found) > limit else None
        )

    async def peers(self, _call: Call) -> list[credit_shapes.PeerCreditRow]:
        return [
            credit_shapes.PeerCreditRow(
                node_id=short(one.node),
                given=one.given,
                taken=one.taken,
                balance=one.balance,
                tier=(tier := self._ledger.peer_tier(one.node)).value,
                weight=TIER_WEIGHTS[tier],
                last_at=views.time_text(one.last_at),
            )
            for one in self._ledger.peers()
        ]


def _number(call: Call, name: str, default: int, *, low: int, high: int) -> int | Invalid:
    text = call.request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 40 and low <= int(text) <= high):
        return Invalid(what=f"{name} is a whole number from {low} to {high}, not {text[:40]!r}", param=name)
    return int(text)


def _row(entry: CreditEntry) -> credit_shapes.CreditRow:
    return credit_shapes.CreditRow(
        id=entry.id,
        hour=views.time_text(entry.hour),
        timestamp=views.time_text(entry.at),
        kind=entry.kind.value,
        amount=entry.amount,
        quantity=entry.quantity,
        unit=UNITS[entry.kind],
        events=entry.events,
        node_id=None if entry.peer is None else short(entry.peer),
        model_id=entry.model,
    )
