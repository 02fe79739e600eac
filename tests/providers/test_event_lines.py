"""Events out of pieces that end anywhere."""

from __future__ import annotations

import pytest

from swarmd.providers.event_lines import EventLines, EventTooLong

STREAM = b": hello\r\nevent: a\r\ndata: one\r\n\r\ndata:two\ndata: lines\n\nretry: 5\n\ndata: [DONE]\n\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_however_it_is_cut(size: int) -> None:
    lines = EventLines()
    found = [event for at in range(0, len(STREAM), size) for event in lines.feed(STREAM[at : at + size])]
    assert found == [b"one", b"two\nlines", b"[DONE]"]
    assert lines.end() == []


def test_an_end_without_an_empty_line() -> None:
    lines = EventLines()
    assert lines.feed(b"data: one\n\ndata: two") == [b"one"]
    assert lines.end() == [b"two"]


def test_an_event_without_an_end_is_not_kept_for_ever() -> None:
    with pytest.raises(EventTooLong):
        EventLines(limit=100).feed(b"data: " + b"x" * 200)
    lines = EventLines(limit=100)
    with pytest.raises(EventTooLong):
        for _ in range(20):
            lines.feed(b"data: 0123456789\n")


def test_pieces_that_end_with_half_a_line_end_are_counted_too() -> None:
    lines = EventLines(limit=100)
    with pytest.raises(EventTooLong):
        for _ in range(20):
            lines.feed(b"0123456789\r")
