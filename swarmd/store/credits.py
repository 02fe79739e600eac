"""SQL of the credits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from swarmd.domain.credits import Account, CreditEntry, CreditKind
from swarmd.domain.ids import ModelId, NodeId, RequestId
from swarmd.store.database import Database, Transaction

DAYS_KEPT: Final = 90
ENTRIES_KEPT: Final = 20_000  # some 150 bytes each: 3 MB
PEERS_KEPT: Final = 2_000  # as many as gossip knows


@dataclass(frozen=True, slots=True)
class ReservationRow:
    request: RequestId
    model: ModelId
    amount: int
    reserved_at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class PeerRow:
    node: NodeId
    given: int
    """Millionths of a credit, as `taken`."""
    taken: int
    last_at: float


@dataclass(frozen=True, slots=True)
class EntrySum:
    """What is added to the entry of its hour, kind, peer and model."""

    hour: int
    kind: CreditKind
    peer: NodeId | None
    model: ModelId | None
    amount: int
    quantity: int
    events: int
    at: float


async def read_account(db: Database) -> Account:
    """Without what is set aside."""
    row = await db.fetch_one("SELECT earned, spent, refunded, balance, updated_at FROM credit_account")
    if row is None:
        return Account()
    earned, spent, refunded, balance, at = row
    return Account(earned=earned, spent=spent, refunded=refunded, balance=balance, updated_at=at)


async def read_carry(db: Database) -> dict[CreditKind, int]:
    return {CreditKind(kind): units for kind, units in await db.fetch_all("SELECT kind, units FROM credit_carry")}


async def read_reservations(db: Database) -> tuple[ReservationRow, ...]:
    rows = await db.fetch_all("SELECT request, model, amount, reserved_at FROM credit_reservations ORDER BY reserved_at")
    return tuple(ReservationRow(RequestId(request), ModelId(model), amount, at) for request, model, amount, at in rows)


async def read_peers(db: Database) -> tuple[PeerRow, ...]:
    rows = await db.fetch_all("SELECT node, given, taken, last_at FROM credit_peers ORDER BY node")
    return tuple(PeerRow(NodeId(node), given, taken, at) for node, given, taken, at in rows)


async def read_entries(
    db: Database, *, limit: int, before: int | None = None
) -> tuple[tuple[CreditEntry, ...], int]:
    """The newest first, those with smaller ids than `before`, and how many there are in all."""
    rows = await db.fetch_all(
        "SELECT id, hour, at, kind, amount, quantity, events, peer, model FROM credit_entries "
        "WHERE id < ? ORDER BY id DESC LIMIT ?",
        (2**63 - 1 if before is None else before, limit),
    )
    count = await db.fetch_one("SELECT count(*) FROM credit_entries")
    assert count is not None
    return tuple(
        CreditEntry(
            id=id, hour=hour, at=at, kind=CreditKind(kind), amount=amount, quantity=quantity, events=events,
            peer=NodeId(peer) if peer else None, model=ModelId(model) if model else None,
        )
        for id, hour, at, kind, amount, quantity, events, peer, model in rows
    ), int(count[0])  # fmt: skip


async def write_account(tx: Transaction, account: Account, *, at: float) -> None:
    await tx.execute(
        "INSERT OR REPLACE INTO credit_account (key, earned, spent, refunded, balance, updated_at) "
        "VALUES ('own', ?, ?, ?, ?, ?)",
        (account.earned, account.spent, account.refunded, account.balance, at),
    )


async def write_carry(tx: Transaction, carry: Mapping[CreditKind, int]) -> None:
    await tx.execute_many(
        "INSERT OR REPLACE INTO credit_carry (kind, units) VALUES (?, ?)",
        [(kind.value, units) for kind, units in carry.items()],
    )


async def write_reservations(
    tx: Transaction, new: Iterable[ReservationRow], *, ended: Iterable[RequestId]
) -> None:
    await tx.execute_many("DELETE FROM credit_reservations WHERE request = ?", [(request,) for request in ended])
    await tx.execute_many(
        "INSERT OR REPLACE INTO credit_reservations (request, model, amount, reserved_at) VALUES (?, ?, ?, ?)",
        [(row.request, row.model, row.amount, row.reserved_at) for row in new],
    )


async def write_peers(tx: Transaction, rows: Iterable[PeerRow], *, gone: Iterable[NodeId]) -> None:
    await tx.execute_many("DELETE FROM credit_peers WHERE node = ?", [(node,) for node in gone])
    await tx.execute_many(
        "INSERT OR REPLACE INTO credit_peers (node, given, taken, last_at) VALUES (?, ?, ?, ?)",
        [(row.node, row.given, row.taken, row.last_at) for row in rows],
    )


async def add_entries(tx: Transaction, entries: Iterable[EntrySum]) -> None:
    await tx.execute_many(
        "INSERT INTO credit_entries (hour, at, kind, peer, model, amount, quantity, events) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (hour, kind, peer, model) DO UPDATE SET at = max(at, excluded.at), "
        "amount = amount + excluded.amount, quantity = quantity + excluded.quantity, events = events + excluded.events",
        [
            (one.hour, one.at, one.kind.value, one.peer or "", one.model or "", one.amount, one.quantity, one.events)
            for one in entries
        ],
    )


async def forget_entries(tx: Transaction, *, older_than: int) -> None:
    """Of hours before that, and the oldest beyond ENTRIES_KEPT. The account keeps what they came to."""
    await tx.execute("DELETE FROM credit_entries WHERE hour < ?", (older_than,))
    await tx.execute(
        "DELETE FROM credit_entries WHERE id <= (SELECT id FROM credit_entries ORDER BY id DESC LIMIT 1 OFFSET ?)",
        (ENTRIES_KEPT,),
    )
