"""Rows of the Responses dialect: who may ask for what."""

from __future__ import annotations

from swarmd.api.guard import Guard
from tests.fakes.rim import Rim


def test_what_is_stored_is_never_an_open_read(rim: Rim) -> None:
    rows = {f"{row.method} {row.path}": row for row in rim.rows if "/responses" in row.path}
    assert len(rows) == 6
    assert rows.pop("GET /api/admin/responses").guard is Guard.LOCAL_READ
    assert {row.guard for row in rows.values()} == {Guard.WRITE}
    assert [name for name, row in rows.items() if row.hang_up_cancels] == ["POST /v1/responses"]
