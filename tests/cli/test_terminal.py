"""What reaches the terminal, and what does not."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys

import pytest
import typer

from swarmd.cli.failure import Failure
from swarmd.cli.terminal import (
    complain,
    confirm,
    finish,
    fitting,
    megabytes,
    printable,
    say,
    say_json,
    show_table,
    sure,
    watch,
)


def test_control_characters_are_taken_out() -> None:
    assert printable("a\x1b[31mb\x07\u202ec\td\ne\r") == "a[31mbc\td\ne"


def test_long_lines_stay_whole_and_markup_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    say("swarm://" + "x" * 500 + "[bold]")
    assert capsys.readouterr().out == "swarm://" + "x" * 500 + "[bold]\n"


def test_complaints_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    complain("[red]no[/red]")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "swarmd: [red]no[/red]\n")


def test_json_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    say_json({"a": "[b]"})
    assert capsys.readouterr().out == '{\n  "a": "[b]"\n}\n'


def test_tables_hold_text_of_strangers(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("name", "n"), [("[red]x", "1"), ("\x1b[2Jy", "22")], numbers=("n",))
    out = capsys.readouterr().out
    assert "[red]x" in out and "\x1b" not in out


def test_sizes_are_decimal() -> None:
    assert (megabytes(6_841_344), megabytes(1.25e9)) == ("6.8 MB", "1.2 GB")


def test_a_failure_becomes_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    async def fails() -> None:
        raise Failure("it is closed", exit_code=2)

    with pytest.raises(typer.Exit) as ended:
        finish(fails())
    assert ended.value.exit_code == 2
    assert "it is closed" in capsys.readouterr().err


def test_ctrl_c_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    async def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as ended:
        finish(interrupted())
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err == ""


def test_sure_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert sure("add --yes").exit_code == 2, "wrong usage"
    assert "add --yes" in capsys.readouterr().err


async def test_what_is_watched_is_shown_again_and_a_failure_in_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    looks = 0

    async def draw() -> str:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise Failure("no node answers")
        if looks == 4:
            raise asyncio.CancelledError
        return f"look {looks} [bold]\x1b[2J"

    with pytest.raises(asyncio.CancelledError):
        await watch(draw, every_s=0)
    assert capsys.readouterr().out.splitlines() == ["look 1 [bold][2J", "swarmd: no node answers", "look 3 [bold][2J"]


def wide_rows() -> list[list[str]]:
    return [["a" * 20, "b" * 30, "c" * 20, "7"], ["x", "y", "z", "12"]]


def test_a_wide_table_leaves_out_what_is_least_important_until_it_fits() -> None:
    columns = ("one", "two", "three", "count")
    for width, kept in ((90, 4), (60, 3), (40, 2), (10, 2)):
        made = fitting(columns, wide_rows(), width=width, numbers=("count",), spare=("two", "three"))
        assert len(made.columns) == kept, width
    assert [column.header for column in made.columns] == ["one", "count"]


def test_a_wide_table_is_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """`swarmd models | grep` has to find every name in one line."""
    show_table(("one", "two", "count"), [["a" * 150, "b" * 150, "7"]], numbers=("count",), spare=("two",))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "a" * 150 in lines[1] and "b" * 150 in lines[1]


class Terminal:
    """stdin of a person."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return f"{self.answers.pop(0)}\n" if self.answers else ""


@pytest.mark.parametrize(
    ("answer", "goes_on"), [("y", True), ("YES", True), ("", False), ("n", False), ("of course", False)]
)
def test_only_a_yes_is_a_yes(monkeypatch: pytest.MonkeyPatch, answer: str, goes_on: bool) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    if goes_on:
        confirm("Delete [red]?", yes=False, otherwise="it deletes")
        return
    with pytest.raises(typer.Exit) as ended:
        confirm("Delete [red]?", yes=False, otherwise="it deletes")
    assert ended.value.exit_code == 1


def test_where_nobody_can_be_asked_yes_has_to_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(typer.Exit) as ended:
        confirm("Delete?", yes=False, otherwise="it deletes")
    assert ended.value.exit_code == 2
    confirm("Delete?", yes=True, otherwise="it deletes")


def test_a_reader_that_goes_away_ends_the_command_without_a_word() -> None:
    """`swarmd help exit-codes | head -1`: no traceback, and the shell's own code for it."""
    command = f"{sys.executable} -m swarmd help exit-codes; echo code $? >&2"
    done = subprocess.run(["sh", "-c", f"({command}) | true"], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == "code 141\n"


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {}])
def test_there_are_no_colours_in_a_pipe(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-m", "swarmd", "help", "ask"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "\x1b" not in done.stdout and "Examples" in done.stdout
