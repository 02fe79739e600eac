"""SQL of stored responses: bounded in number and bytes, the oldest go first; those that still run stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from swarmd.domain.responses import ResponseStatus, ResponseSummary, ResponseTurn, StoredResponse
from swarmd.store.database import Database, Row, Transaction

_SUMMARY: Final = (
    "id, created_at, expires_at, model, status, background, previous, input_tokens, output_tokens, input_preview, "
    "output_preview"
)
_OPEN: Final = f"('{ResponseStatus.QUEUED.value}', '{ResponseStatus.IN_PROGRESS.value}')"


async def insert_response(tx: Transaction, stored: StoredResponse) -> None:
    one = stored.summary
    await tx.execute(
        f"INSERT INTO responses ({_SUMMARY}, size_bytes, body, output, input_items) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            one.id, one.created_at, one.expires_at, one.model, one.status.value, int(one.background), one.previous,
            one.input_tokens, one.output_tokens, one.input_preview, one.output_preview, stored.size_bytes, stored.body,
            stored.output, stored.input_items,
        ),
    )  # fmt: skip


async def update_response(tx: Transaction, stored: StoredResponse) -> bool:
    """What may change while a reply is made. False: it is not there (any more)."""
    one = stored.summary
    changed = await tx.execute(
        "UPDATE responses SET status = ?, input_tokens = ?, output_tokens = ?, output_preview = ?, size_bytes = ?, "
        "body = ?, output = ? WHERE id = ?",
        (
            one.status.value, one.input_tokens, one.output_tokens, one.output_preview, stored.size_bytes, stored.body,
            stored.output, one.id,
        ),
    )  # fmt: skip
    return changed > 0


async def delete_response(tx: Transaction, id: str) -> bool:
    return await tx.execute("DELETE FROM responses WHERE id = ?", (id,)) > 0


async def delete_expired(tx: Transaction, *, now: float) -> int:
    """How many."""
    return await tx.execute(f"DELETE FROM responses WHERE expires_at <= ? AND status NOT IN {_OPEN}", (now,))


async def count_responses(db: Database) -> int:
    row = await db.fetch_one("SELECT count(*) FROM responses")
    assert row is not None
    return int(row[0])


async def trim_responses(tx: Transaction, *, count: int, size_bytes: int) -> int:
    """Delete the oldest beyond `count` responses or `size_bytes`. How many went."""
    row = await tx.fetch_one("SELECT count(*), coalesce(sum(size_bytes), 0) FROM responses")
    assert row is not None
    if row[0] <= count and row[1] <= size_bytes:
        return 0
    return await tx.execute(
        f"DELETE FROM responses WHERE status NOT IN {_OPEN} AND number IN (SELECT number FROM ("
        "SELECT number, row_number() OVER newest AS place, sum(size_bytes) OVER newest AS total FROM responses "
        "WINDOW newest AS (ORDER BY number DESC ROWS UNBOUNDED PRECEDING)) WHERE place > ? OR total > ?)",
        (count, size_bytes),
    )


async def read_response(db: Database, id: str) -> StoredResponse | None:
    row = await db.fetch_one(f"SELECT {_SUMMARY}, body, output, input_items FROM responses WHERE id = ?", (id,))
    return None if row is None else _stored(row)


async def read_open(db: Database) -> tuple[str, ...]:
    """Ids of those that were under way."""
    return tuple(row[0] for row in await db.fetch_all(f"SELECT id FROM responses WHERE status IN {_OPEN} ORDER BY number"))


async def read_turn(db: Database, id: str) -> ResponseTurn | None:
    row = await db.fetch_one("SELECT id, status, previous, output, input_items FROM responses WHERE id = ?", (id,))
    if row is None:
        return None
    return ResponseTurn(id=row[0], status=ResponseStatus(row[1]), previous=row[2], output=row[3], input_items=row[4])


async def read_summaries(
    db: Database, *, statuses: Sequence[ResponseStatus], limit: int
) -> tuple[tuple[ResponseSummary, ...], int]:
    """The newest first, and how many there are in all. Of `statuses` only, unless it is empty."""
    where = f" WHERE status IN ({', '.join('?' * len(statuses))})" if statuses else ""
    values = [one.value for one in statuses]
    rows = await db.fetch_all(f"SELECT {_SUMMARY} FROM responses{where} ORDER BY number DESC LIMIT ?", (*values, limit))
    count = await db.fetch_one(f"SELECT count(*) FROM responses{where}", values)
    assert count is not None
    return tuple(_summary(row) for row in rows), int(count[0])


def _stored(row: Row) -> StoredResponse:
    return StoredResponse(
        summary=_summary(row), body=row["body"], output=row["output"], input_items=row["input_items"]
    )


def _summary(row: Row) -> ResponseSummary:
    return ResponseSummary(
        id=row["id"], created_at=row["created_at"], expires_at=row["expires_at"], model=row["model"],
        status=ResponseStatus(row["status"]), background=bool(row["background"]), previous=row["previous"],
        input_tokens=row["input_tokens"], output_tokens=row["output_tokens"], input_preview=row["input_preview"],
        output_preview=row["output_preview"],
    )  # fmt: skip
