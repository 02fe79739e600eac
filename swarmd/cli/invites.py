"""What `swarmd invite` does: make codes, list them, cancel them."""

from __future__ import annotations

import re
from typing import Final

import typer

from swarmd.api import invite_shapes, shapes
from swarmd.cli.client import NodeClient
from swarmd.cli.failure import NOT_FOUND, USAGE, Failure
from swarmd.cli.place import Chosen, find
from swarmd.cli.terminal import say, say_json, show_table
from swarmd.domain.membership import RoleName
from swarmd.kit import qr

DEFAULTS: Final = invite_shapes.InviteRequest()
PAPER: Final = "#000000 on #ffffff"  # scanners want dark on light, whatever the colours of the terminal are
_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400}
_LIFE: Final = re.compile(r"([0-9]{1,9})([mhd])")  # nine digits: no number that a float could not hold exactly


def seconds(text: str) -> int:
    """`7d`, `12h`, `30m`. Raises typer.BadParameter with what is possible; the range is for the node to judge."""
    found = _LIFE.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no length of time: write a whole number and d, h or m, as in 7d, 12h, 30m")
    return int(found[1]) * _UNITS[found[2]]


def role_name(text: str) -> RoleName:
    """`member` or `inviter`. Raises typer.BadParameter."""
    match text:
        case "member" | "inviter":
            return text
        case _:
            raise typer.BadParameter(f"{text!r} is no role: write member or inviter")


async def make(
    chosen: Chosen,
    *,
    uses: int | None,
    life_s: int | None,
    with_qr: bool,
    as_json: bool,
    role: RoleName | None = None,
) -> None:
    """Without terms the node's current code, which is the same until it is used."""
    async with NodeClient(find(chosen)) as node:
        if uses is None and life_s is None and role is None:
            made = await node.invite()
        else:
            terms = (DEFAULTS.uses if uses is None else uses, DEFAULTS.life_seconds if life_s is None else life_s)
            made = await node.make_invite(uses=terms[0], life_seconds=terms[1], role=role or DEFAULTS.role)
    if as_json:
        say_json(made)
        return
    say(made.code)
    admitted = 1 if isinstance(made, shapes.NetworkCodeView) else made.uses
    nodes = "one node" if admitted == 1 else f"{admitted} nodes"
    say(f"It admits {nodes} until {made.expires_at}. On that machine: swarmd join CODE", style="dim")
    if isinstance(made, invite_shapes.InviteMade):
        if made.role == "inviter":
            say("Who joins with it may invite others and put those out; they go with it if it is put out.", style="dim")
        say(f"It is not shown again. To end it sooner: swarmd invite --cancel {made.id}", style="dim")
    if with_qr:
        lines = qr.as_lines(made.code)
        if lines is None:
            raise Failure("this code is too long for a QR code that could be scanned: pass on its text")
        for line in lines:
            say(line, style=PAPER)


async def make_short(chosen: Chosen, *, as_json: bool) -> None:
    """The old one ends."""
    async with NodeClient(find(chosen)) as node:
        made = await node.make_short_code()
    if as_json:
        say_json(made)
        return
    say(made.code, style="bold")
    say(f"Type on a machine in this network, until {made.expires_at}: swarmd join {made.code}", style="dim")
    say("It takes one try, right or wrong. From elsewhere add --at and the address of this node.", style="dim")


async def show(chosen: Chosen, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        rows = await node.invites()
    if as_json:
        say_json(rows)
        return
    if not rows:
        say("this node gave no codes that it remembers: make one with `swarmd invite`")
        return
    show_table(
        ("id", "kind", "state", "role", "uses left", "expires", "made"),
        [
            (
                row.id, "short" if row.short else "long", row.state, row.role, str(row.uses_left), row.expires_at,
                row.created_at,
            )
            for row in rows
        ],
        numbers=("uses left",),
        spare=("made", "role"),
    )


async def cancel(chosen: Chosen, start: str, *, as_json: bool) -> None:
    """Raises Failure where `start` is not the beginning of exactly one id."""
    async with NodeClient(find(chosen)) as node:
        row = await node.cancel_invite(_only(start.strip().lower(), await node.invites()))
    if as_json:
        say_json(row)
    elif row.state == "cancelled":
        say(f"nobody joins with {row.id} any more; who joined with it stays a member")
    else:
        say(f"nobody could join with {row.id} any more: it was {row.state}")


def _only(start: str, rows: list[invite_shapes.InviteRow]) -> str:
    found = [row.id for row in rows if row.id.startswith(start)]
    if len(found) == 1 and start:
        return found[0]
    if not found:
        sentence = f"no code has an id that starts with {start[:32]!r}: `swarmd invite --list` shows all"
        raise Failure(sentence, exit_code=NOT_FOUND)
    raise Failure(f"{len(found)} codes have an id that starts with {start!r}: write more of it", exit_code=USAGE)
