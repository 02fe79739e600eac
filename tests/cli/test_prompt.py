"""The line at which people type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarmd.cli.prompt import HISTORY_LINES, Prompt, history_path


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def lines(*texts: str) -> None:
        waiting: Iterator[str] = iter(texts)

        def read(_prompt: str) -> str:
            try:
                return next(waiting)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("builtins.input", read)

    return lines


def test_lines_and_blocks_of_lines(typed: Callable[..., None]) -> None:
    typed("  one ", '"""first', " second", 'third"""  ', '"""all in one"""')
    with Prompt(lambda _: [], history=None) as prompt:
        assert prompt.line() == "one"
        assert prompt.line() == "first\n second\nthird"
        assert prompt.line() == "all in one"
        with pytest.raises(EOFError):
            prompt.line()


def test_the_history_outlives_the_program_and_is_private(typed: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "deep" / "history"
    typed("one", '"""two', 'lines"""', "")
    with Prompt(lambda _: [], history=path) as prompt:
        for _ in range(3):
            prompt.line()
    assert path.read_text() == "one\ntwo\\nlines\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert Prompt(lambda _: [], history=path)._remembered() == ["one", "two\nlines"]


def test_the_history_is_bounded_and_a_broken_one_is_no_obstacle(typed: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("old\n" * HISTORY_LINES)
    typed("new", "newer")
    with Prompt(lambda _: [], history=path) as prompt:
        prompt.line()
        assert len(path.read_text().splitlines()) == HISTORY_LINES
        path.write_bytes(b"\xff\xfe")
        assert prompt.line() == "newer"
    assert path.read_text() == "newer\n"
    (tmp_path / "file").write_text("")
    typed("one", "two")
    with Prompt(lambda _: [], history=tmp_path / "file" / "history") as prompt:
        assert [prompt.line(), prompt.line()] == ["one", "two"], "a place that cannot be written costs the history alone"


def test_where_the_history_is(tmp_path: Path) -> None:
    assert history_path({"XDG_STATE_HOME": "/state"}) == Path("/state/swarmd/chat_history")
    assert history_path({"HOME": "/home/a", "XDG_STATE_HOME": "relative"}) == Path(
        "/home/a/.local/state/swarmd/chat_history"
    )
