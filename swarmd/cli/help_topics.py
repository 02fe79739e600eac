"""`swarmd help`: the help of a command, or a topic that belongs to all of them."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
from msgspec import Struct

from swarmd.cli.failure import EXIT_CODES, USAGE
from swarmd.cli.network import AsJson
from swarmd.cli.terminal import complain, say, say_json, show_table

JSON_TEXT: Final = """\
Every command that prints something takes --json: one value on stdout, indented, of one shape that does not change within
a major version; fields may be added. docs/cli.md says which shape, and the node's own page /api/docs has the fields of those
that come from the API. When a command fails, stdout stays empty, the sentence is on stderr, and the exit code says why."""

NODE_TEXT: Final = """\
A command talks to the node that runs on the data folder: --data-dir, else SWARMD_NODE_DATA_DIR, else the platform's.
Another one, also on another machine: --url or SWARMD_URL, with its API key in a file (--api-key-file or
SWARMD_API_KEY_FILE) or in SWARMD_API_API_KEY. The key of this machine's own node is not sent to other machines unasked.
Settings in the environment are called SWARMD_SECTION_NAME: `swarmd config list --json` has their names.
NO_COLOR switches colours off; they are only used on a terminal anyway."""

TOPICS: Final = {"exit-codes": "", "json": JSON_TEXT, "node": NODE_TEXT}


class ExitCodeRow(Struct, frozen=True, kw_only=True):
    """What `help exit-codes --json` prints of each."""

    code: int
    name: str
    meaning: str


def show(
    context: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="TOPIC|COMMAND", help="exit-codes, json, node, or a command.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """The help of a command, or a topic: exit-codes, json, node."""
    root = context.find_root()
    wanted = " ".join(words or ())
    if wanted == "exit-codes":
        rows = [ExitCodeRow(code=row.code, name=row.name, meaning=row.meaning) for row in EXIT_CODES]
        if as_json:
            say_json(rows)
        else:
            show_table(("code", "name", "when"), [(str(row.code), row.name, row.meaning) for row in rows], numbers=("code",))
        return
    if wanted in TOPICS:
        say(TOPICS[wanted])
        return
    at: Any = root
    for word in words or ():
        command = at.command.get_command(at, word) if hasattr(at.command, "get_command") else None
        if command is None:
            topics = ", ".join(TOPICS)
            complain(f"there is no help on {wanted[:80]!r}: the topics are {topics}, and `swarmd --help` lists the commands")
            raise typer.Exit(USAGE)
        at = command.context_class(command, parent=at, info_name=word, **command.context_settings)
    typer.echo(at.get_help(), nl=False)
    if at is root:
        say(f"Topics: {', '.join(f'swarmd help {topic}' for topic in TOPICS)}", style="dim")
