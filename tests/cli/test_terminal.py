"""What reaches the terminal, and what does not."""

from __future__ import annotations

import asyncio

import pytest
import typer

from swarmd.cli.failure import Failure
from swarmd.cli.terminal import complain, finish, megabytes, printable, say, say_json, show_table, sure, watch


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
