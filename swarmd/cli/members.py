"""`members`, `revoke`: who belongs to the swarm, and putting a node out of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import typer

from swarmd.api import shapes
from swarmd.cli.client import NodeClient
from swarmd.cli.failure import NOT_FOUND, USAGE, Failure
from swarmd.cli.network import AsJson
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Url, find
from swarmd.cli.terminal import confirm, finish, say, say_json, show_table, sure

MIN_PREFIX: Final = 8  # hex digits: nobody types fewer by accident, and among a thousand members two rarely share them
SHOWN: Final = 16  # digits of a node id, as everywhere

_PREFIX: Final = re.compile(rf"[0-9a-f]{{{MIN_PREFIX},64}}")


def members(
    *, as_json: AsJson = False, url: Url = None, data_dir: DataFolder = None, config: Config = None, key_file: KeyFile = None
) -> None:
    """Who belongs to the swarm, as far as this node knows; its founder knows everybody."""
    finish(_members(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), as_json=as_json))


def revoke(
    node: Annotated[str, typer.Argument(help=f"Its id, or the first {MIN_PREFIX} or more digits of it.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Put a node out of the swarm, and whom it invited with it. It comes back only with a new code."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    if not yes and not sys.stdin.isatty():
        raise sure("`swarmd revoke` puts a node out: add --yes where nobody can be asked")
    member = finish(_member(chosen, node.strip().lower()))
    question = f"Put node {member.node_id[:SHOWN]} ({state_of(member)}) out of the swarm?"
    question += _with_it(member.members_below, "go")
    confirm(question, yes=yes, otherwise="`swarmd revoke` puts a node out")
    finish(_revoke(chosen, member, as_json=as_json))


async def _members(chosen: Chosen, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        rows = await node.members()
    if as_json:
        say_json(rows)
        return
    if not rows:
        say("this node belongs to no swarm yet: `swarmd invite` founds one, `swarmd join CODE` enters one")
        return
    columns = ("node", "state", "role", "admitted by", "since", "until", "last seen")
    show_table(columns, [member_cells(row) for row in rows], spare=("last seen", "since", "admitted by"))


def member_cells(row: shapes.MemberRow) -> tuple[str, ...]:
    days = (_day(moment) for moment in (row.issued_at, row.expires_at, row.last_seen))
    return (row.node_id[:SHOWN], state_of(row), row.role or "", (row.admitted_by or "")[:SHOWN], *days)


def state_of(row: shapes.MemberRow) -> str:
    if row.revoked_at is not None:
        return f"out since {_day(row.revoked_at)}"
    if row.is_self:
        return "this node"
    return "linked" if row.connected else "away"


def _day(moment: str | None) -> str:
    """`2027-04-15 10:00` of an RFC 3339 time in UTC."""
    return "" if moment is None else moment[:16].replace("T", " ")


async def _member(chosen: Chosen, prefix: str) -> shapes.MemberRow:
    async with NodeClient(find(chosen)) as node:
        return the_one(prefix, await node.members())


async def _revoke(chosen: Chosen, member: shapes.MemberRow, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        gone = await node.revoke(member.node_id)
    if as_json:
        say_json(gone)
        return
    say(f"node {member.node_id[:SHOWN]} is out; it comes back only with a new code from `swarmd invite`")
    if gone.members_below:
        say(f"{_with_it(gone.members_below, 'went').strip()} Codes of the founder admit them again.")


def _with_it(members: int, verb: Literal["go", "went"]) -> str:
    """Of an inviter: who falls with it."""
    if not members:
        return ""
    if members == 1:
        return f" 1 member it invited {'goes' if verb == 'go' else verb} with it."
    return f" {members} members it invited {verb} with it."


def the_one(prefix: str, rows: Sequence[shapes.MemberRow]) -> shapes.MemberRow:
    """The member whose id begins so. Raises Failure where there is none, or more than one."""
    if not _PREFIX.fullmatch(prefix):
        raise Failure(f"{prefix[:80]!r} is not the beginning of a node id: {MIN_PREFIX} to 64 hex digits", exit_code=USAGE)
    found = [row for row in rows if row.node_id.startswith(prefix)]
    if not found:
        sentence = f"this node knows no member whose id begins with {prefix}: `swarmd members` shows all"
        raise Failure(sentence, exit_code=NOT_FOUND)
    if len(found) > 1:
        raise Failure(f"{len(found)} members' ids begin with {prefix}: give more digits (`swarmd members --json` has all)")
    return found[0]
