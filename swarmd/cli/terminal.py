"""What the commands write and how: plain lines where nobody watches, rich ones on a terminal; errors on stderr.

Texts of peers and models come through here, so control characters are taken out: a reply must not drive the terminal.
"""

from __future__ import annotations

import asyncio
import os
import sys
import unicodedata
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from swarmd.cli.failure import CLOSED_PIPE, FAILED, INTERRUPTED, USAGE, Failure

T = TypeVar("T")

PLAIN_WIDTH: Final = 160  # columns in a pipe or a file, where a table needs no more: rich's own 80 would cut node ids
MOST_WIDTH: Final = 4096  # of a table in a pipe: texts of peers are bounded, and their sum is as well
_KEPT: Final = "\n\t"


class Paper(Console):
    """A console that ends the command without a word when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(CLOSED_PIPE)


def output(width: int | None = None) -> Console:
    """stdout. Made anew each time, so that it is the stdout of now. `width`: of a pipe or a file."""
    return Paper(width=None if sys.stdout.isatty() else width or PLAIN_WIDTH, highlight=False)


def errors() -> Console:
    """stderr."""
    return Console(stderr=True, highlight=False)


def printable(text: str) -> str:
    """Without control and format characters other than line ends and tabs: no escape sequence survives."""
    return "".join(one for one in text if one in _KEPT or unicodedata.category(one) not in ("Cc", "Cf"))


def say(text: str, *, style: str | None = None, end: str = "\n") -> None:
    """One line (or a piece of one) on stdout, never wrapped: what can be copied must stay whole."""
    output().print(printable(text), style=style, end=end, markup=False, soft_wrap=True)


def complain(sentence: str) -> None:
    errors().print(f"swarmd: {printable(sentence)}", style="red", markup=False, soft_wrap=True)


def say_json(value: Any) -> None:
    """Any of the API's shapes, indented, for other programs."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    output().print(text, markup=False, soft_wrap=True)


def show_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Collection[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """The columns named in `numbers` are right-aligned; those in `spare` are left out, the first one first, where the
    terminal is too narrow for all. In a pipe or a file every row is one line with every column."""
    cells = [[*row] for row in rows]
    if not sys.stdout.isatty():
        made = table(columns, cells, numbers=numbers)
        wide = output(MOST_WIDTH)
        wanted = max(PLAIN_WIDTH, Measurement.get(wide, wide.options, made).maximum)
        output(min(wanted, MOST_WIDTH)).print(made, markup=False)
    else:
        output().print(fitting(columns, cells, width=output().width, numbers=numbers, spare=spare), markup=False)


def fitting(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int,
    numbers: Collection[str] = (),
    spare: Sequence[str] = (),
) -> Table:
    """The table with as few of the `spare` columns left out as make it fit into `width`; what is still too wide wraps."""
    wide = output(MOST_WIDTH)
    for count in range(len(spare) + 1):
        kept = [index for index, column in enumerate(columns) if column not in spare[:count]]
        made = table([columns[at] for at in kept], [[row[at] for at in kept] for row in rows], numbers=numbers)
        if count == len(spare) or Measurement.get(wide, wide.options.update(width=MOST_WIDTH), made).maximum <= width:
            return made
    raise AssertionError("the last one is taken as it is")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[str] = ()) -> Table:
    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", no_wrap=column in numbers, overflow="fold")
    for row in rows:
        made.add_row(*(printable(cell) for cell in row))
    return made


async def watch(draw: Callable[[], Awaitable[Table | str]], *, every_s: float) -> None:
    """Shows what `draw` returns again and again, in place on a terminal and one below the other elsewhere, until it is
    cancelled. A Failure is shown in its place: what is watched may come back."""
    console = output()
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            try:
                shown = await draw()
            except Failure as failure:
                shown = f"swarmd: {failure}"
            text = Text(printable(shown)) if isinstance(shown, str) else shown
            if console.is_terminal:
                live.update(text, refresh=True)
            else:
                console.print(text)
            await asyncio.sleep(every_s)


def megabytes(size: float) -> str:
    """`6.8 MB`, `1.2 GB`: decimal, as disks are sold."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Runs a command's coroutine. A Failure becomes its sentence and exit code, Ctrl-C a quiet end."""
    try:
        return asyncio.run(work)
    except Failure as failure:
        complain(str(failure))
        raise typer.Exit(failure.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def sure(sentence: str) -> typer.Exit:
    """For `raise`: says on stderr how the command wants to be used, and ends with exit code 2."""
    complain(sentence)
    return typer.Exit(USAGE)


def confirm(question: str, *, yes: bool, otherwise: str) -> None:
    """Asks on the terminal before something is lost, unless `yes`. Raises typer.Exit where the answer is no, and where
    nobody can be asked. `otherwise`: what the command does, for the sentence that says to add --yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise sure(f"{otherwise}: add --yes where nobody can be asked")
    try:
        answer = errors().input(f"{printable(question)} [y/N] ", markup=False)
    except EOFError:
        answer = ""
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if answer.strip().lower() not in ("y", "yes"):
        complain("nothing was changed")
        raise typer.Exit(FAILED)
