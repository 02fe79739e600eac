"""SQL of how far other nodes are trusted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from swarmd.domain.ids import NodeId
from swarmd.store.database import Database, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustRow:
    node: NodeId
    score: float
    judged_at: float
    """Unix seconds."""


async def read_trust(db: Database) -> tuple[TrustRow, ...]:
    rows = await db.fetch_all("SELECT node, score, judged_at FROM trust ORDER BY node")
    return tuple(TrustRow(node=NodeId(node), score=score, judged_at=at) for node, score, at in rows)


async def write_trust(tx: Transaction, rows: Iterable[TrustRow]) -> None:
    """These and no others."""
    await tx.execute("DELETE FROM trust")
    await tx.execute_many(
        "INSERT INTO trust (node, score, judged_at) VALUES (?, ?, ?)", [(row.node, row.score, row.judged_at) for row in rows]
    )
