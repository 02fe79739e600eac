"""The table: without doubles, documented. What has to be in it, to whom it answers, and with what: tests/contract."""

from __future__ import annotations

from tests.fakes.rim import Rim


def test_every_row_is_documented(rim: Rim) -> None:
    for row in rim.rows:
        assert row.doc.endswith("."), row.path
        assert row.reply is not None or row.streams is not None or row.media != "application/json", row.path


def test_rows_know_their_handlers(rim: Rim) -> None:
    assert len({row.handler.__qualname__ for row in rim.rows}) == len(rim.rows)
