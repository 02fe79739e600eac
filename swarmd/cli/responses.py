"""`swarmd responses`: what the Responses API keeps on this node, and what runs in the background."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from swarmd.api import responses_shapes as shapes
from swarmd.cli.client import NodeClient
from swarmd.cli.network import WATCH_S, AsJson, Watching
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Url, find
from swarmd.cli.terminal import confirm, finish, fitting, output, say, say_json, show_table, sure, watch

COLUMNS: Final = ("id", "made", "status", "model", "tokens", "asked", "replied")
NUMBERS: Final = ("tokens",)
SPARE: Final = ("replied", "made", "tokens", "model")
PREVIEW: Final = 40  # characters: the start of a question is known by them
NOTHING: Final = "no response is stored here: POST /v1/responses stores what it makes, for 30 days"

_ID: Final = re.compile(r"[A-Za-z0-9_\-]{1,64}")


def response_id(text: str) -> str:
    """Raises typer.BadParameter for what no response is called."""
    if not _ID.fullmatch(text):
        raise typer.BadParameter(f"{text[:80]!r} is no id of a response: `swarmd responses` shows them")
    return text


Id = Annotated[str, typer.Argument(parser=response_id, metavar="ID", help="As `swarmd responses` shows it.")]


def show(
    context: typer.Context,
    *,
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS[,STATUS]", help="queued, in_progress, completed, failed, ...")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=500, help="So many of the newest.")] = 50,
    watching: Watching = False,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Stored responses, the newest first. With a verb: read, cancel or delete one."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    if context.invoked_subcommand is not None:
        if watching or as_json or status is not None or chosen != Chosen():
            raise sure(f"options come behind the verb: `swarmd responses {context.invoked_subcommand} ID ...`")
        return
    if watching and as_json:
        raise sure("--watch is for people and --json for programs: one at a time")
    if watching:
        finish(watch(lambda: _table(chosen, status, lines), every_s=WATCH_S))
    else:
        finish(_list(chosen, status, lines, as_json=as_json))


def read(
    id: Id,
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Print the text of a stored response; --json prints all of it."""
    finish(_read(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), id, as_json=as_json))


def cancel(
    id: Id,
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Stop a response that runs in the background; one that has ended stays as it is."""
    finish(_cancel(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), id, as_json=as_json))


def remove(
    id: Id,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Delete a stored response; one that still runs is cancelled. Asks before."""
    confirm(f"Delete response {id}?", yes=yes, otherwise="`swarmd responses rm` deletes what was said")
    finish(_remove(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), id, as_json=as_json))


async def _list(chosen: Chosen, status: str | None, lines: int, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        found = await node.responses(lines, status)
    if as_json:
        say_json(found)
    elif found.data:
        show_table(COLUMNS, [cells(row) for row in found.data], numbers=NUMBERS, spare=SPARE)
        if found.total > len(found.data):
            say(f"{len(found.data)} of {found.total}: -n shows more", style="dim")
    else:
        say(NOTHING if status is None else f"no stored response is {status[:80]}")


async def _table(chosen: Chosen, status: str | None, lines: int) -> Table | str:
    async with NodeClient(find(chosen)) as node:
        found = await node.responses(lines, status)
    if not found.data:
        return NOTHING
    return fitting(COLUMNS, [cells(row) for row in found.data], width=output().width, numbers=NUMBERS, spare=SPARE)


def cells(row: shapes.StoredRow) -> tuple[str, ...]:
    made = datetime.fromtimestamp(row.created_at, UTC).strftime("%Y-%m-%d %H:%M")
    tokens = "" if row.usage is None else str(row.usage.output_tokens)
    return (row.id, made, row.status, row.model, tokens, _short(row.input_preview), _short(row.output_text_preview))


def _short(text: str | None) -> str:
    line = " ".join((text or "").split())
    return line if len(line) <= PREVIEW else line[: PREVIEW - 3] + "..."


async def _read(chosen: Chosen, id: str, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        found = await node.response(id)
    if as_json:
        say_json(found)
    else:
        say(text_of(found) or f"({found.get('status')}, without a text)")


def text_of(found: Mapping[str, Any]) -> str:
    """The texts of its messages, one below the other."""
    parts = [part for item in found.get("output", ()) for part in item.get("content") or ()]
    return "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))


async def _cancel(chosen: Chosen, id: str, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        found = await node.cancel_response(id)
    if as_json:
        say_json(found)
    else:
        say(f"response {id} is {found.get('status')}")


async def _remove(chosen: Chosen, id: str, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        gone = await node.delete_response(id)
    if as_json:
        say_json(gone)
    else:
        say(f"response {id} is deleted")
