"""The table of stored responses, in a real file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from swarmd.domain.responses import ResponseStatus, ResponseSummary, StoredResponse
from swarmd.store import responses as sql
from swarmd.store.database import Database

DONE, OPEN = ResponseStatus.COMPLETED, ResponseStatus.IN_PROGRESS


def stored(id: str, *, status: ResponseStatus = DONE, previous: str | None = None, size: int = 10) -> StoredResponse:
    summary = ResponseSummary(
        id=id, created_at=1.5, expires_at=9.5, model="m", status=status, background=True, previous=previous, input_tokens=3,
        output_tokens=None, input_preview="", output_preview="",
    )  # fmt: skip
    return StoredResponse(summary=summary, body="b" * (size - 4), output="[]", input_items="{}")


async def put(db: Database, *rows: StoredResponse) -> None:
    async with db.transaction() as tx:
        for row in rows:
            await sql.insert_response(tx, row)


async def ids(db: Database) -> list[str]:
    return [one.id for one in (await sql.read_summaries(db, statuses=(), limit=100))[0]]


async def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    async with await Database.open(path) as db:
        await put(db, stored("a"), stored("b", status=OPEN, previous="a"))
        changed = replace(stored("b", previous="a"), output="[1]", body="{}")
        async with db.transaction() as tx:
            assert await sql.update_response(tx, changed)
            assert not await sql.update_response(tx, stored("nobody"))
    async with await Database.open(path) as db:
        assert await sql.read_response(db, "a") == stored("a") and await sql.read_response(db, "b") == changed
        assert await sql.read_response(db, "c") is None and await sql.read_turn(db, "c") is None
        turn = await sql.read_turn(db, "b")
        assert turn is not None and (turn.previous, turn.output, turn.input_items, turn.status) == ("a", "[1]", "{}", DONE)
        async with db.transaction() as tx:
            assert await sql.delete_response(tx, "a") and not await sql.delete_response(tx, "a")
        assert await ids(db) == ["b"]


async def test_listed_by_status_the_newest_first() -> None:
    async with await Database.open(None) as db:
        await put(db, *(stored(str(number), status=OPEN if number % 2 else DONE) for number in range(6)))
        found, total = await sql.read_summaries(db, statuses=(OPEN,), limit=2)
        assert ([one.id for one in found], total) == (["5", "3"], 3)
        assert await ids(db) == ["5", "4", "3", "2", "1", "0"]
        assert await sql.read_open(db) == ("1", "3", "5")


async def test_what_has_expired_goes() -> None:
    async with await Database.open(None) as db:
        await put(db, stored("a"), stored("open", status=OPEN))
        async with db.transaction() as tx:
            assert await sql.delete_expired(tx, now=9.4) == 0
            assert await sql.delete_expired(tx, now=9.5) == 1
        assert await ids(db) == ["open"]


@pytest.mark.parametrize(("count", "size_bytes", "left"), [
    (10, 1000, ["4", "3", "2", "1", "0"]), (3, 1000, ["4", "3", "2", "0"]), (10, 25, ["4", "3", "0"]), (0, 0, ["0"]),
])  # fmt: skip
async def test_the_oldest_go_first_and_what_runs_stays(count: int, size_bytes: int, left: list[str]) -> None:
    async with await Database.open(None) as db:
        await put(db, stored("0", status=OPEN), *(stored(str(number)) for number in range(1, 5)))
        async with db.transaction() as tx:
            assert await sql.trim_responses(tx, count=count, size_bytes=size_bytes) == 5 - len(left)
        assert await ids(db) == left
