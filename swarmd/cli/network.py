"""`status`, `peers`, `invite`, `join`: the swarm as one node sees it."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from msgspec import Struct
from rich.table import Table

from swarmd.api import shapes
from swarmd.cli import invites
from swarmd.cli.client import NodeClient
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Url, find
from swarmd.cli.terminal import finish, say, say_json, show_table, sure, table, watch
from swarmd.domain.membership import RoleName

PEER_COLUMNS: Final = ("node", "state", "round trip", "shards", "models", "version", "address")
PEER_NUMBERS: Final = ("round trip", "shards")
NOBODY: Final = "this node knows no other one: print a code with `swarmd invite` and use it with `swarmd join` elsewhere"
WATCH_S: Final = 2.0  # as often as the node measures itself for the dashboard

Watching = Annotated[bool, typer.Option("--watch", help="Again every two seconds, until Ctrl-C.")]
AsJson = Annotated[bool, typer.Option("--json", help="For other programs: the API's own JSON.")]
Uses = Annotated[int | None, typer.Option("--uses", help="A new code, for this many nodes.")]
Life = Annotated[
    int | None, typer.Option("--life", parser=invites.seconds, metavar="7d|12h|30m", help="A new code, good for this long.")
]
RoleOf = Annotated[
    RoleName | None,
    typer.Option("--role", parser=invites.role_name, metavar="member|inviter", help="A new code; inviters may invite."),
]
WithQr = Annotated[bool, typer.Option("--qr", help="Print the code as a QR code as well.")]
ListAll = Annotated[bool, typer.Option("--list", help="The codes this node gave, and what became of them.")]
CancelId = Annotated[
    str | None, typer.Option("--cancel", metavar="ID", help="End a code at once; the start of its id will do.")
]


class Status(Struct, frozen=True, kw_only=True):
    """What `status --json` prints."""

    url: str
    ready: bool
    subsystems: dict[str, bool]
    stats: shapes.Stats
    models: list[shapes.ModelRow]


def status(
    *, as_json: AsJson = False, url: Url = None, data_dir: DataFolder = None, config: Config = None, key_file: KeyFile = None
) -> None:
    """How the node is: peers, models, memory, replies."""
    finish(_status(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), as_json=as_json))


def peers(
    *,
    watching: Watching = False,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """The other nodes of the swarm."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    if watching and as_json:
        raise sure("--watch is for people and --json for programs: one at a time")
    finish(watch(lambda: _peer_table(chosen), every_s=WATCH_S) if watching else _peers(chosen, as_json=as_json))


def invite(
    *,
    uses: Uses = None,
    life: Life = None,
    role: RoleOf = None,
    with_qr: WithQr = False,
    list_all: ListAll = False,
    cancel: CancelId = None,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Print a code that admits one more node, or more with --uses; list codes and cancel them."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    making = uses is not None or life is not None or role is not None or with_qr
    if making + list_all + (cancel is not None) > 1:
        raise sure("--list, --cancel and the terms of a new code are different wishes: one at a time")
    if list_all:
        finish(invites.show(chosen, as_json=as_json))
    elif cancel is not None:
        finish(invites.cancel(chosen, cancel, as_json=as_json))
    else:
        finish(invites.make(chosen, uses=uses, life_s=life, role=role, with_qr=with_qr, as_json=as_json))


def join(
    code: Annotated[str, typer.Argument(help="What `swarmd invite` printed on a member; or a multiaddr.")],
    *,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Make the node a member of a swarm."""
    finish(_join(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), code.strip()))


async def _status(chosen: Chosen, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        readiness, stats, models = await node.readiness(), await node.stats(), await node.models()
    found = Status(url=node.url, ready=readiness.ready, subsystems=readiness.subsystems, stats=stats, models=models)
    if as_json:
        say_json(found)
        return
    for line in status_lines(found):
        say(line)


def status_lines(found: Status) -> list[str]:
    """The same for people."""
    stats, machine = found.stats, found.stats.hardware
    waiting = [name for name, ready in found.subsystems.items() if not ready]
    ready = "ready" if found.ready else f"not ready: {', '.join(waiting) or 'starting'}"
    held = sum(model.hosted_shards for model in found.models)
    lines = [
        f"node      {stats.node_id}",
        f"version   {stats.version}, up {duration(stats.uptime_seconds)}, {ready}",
        f"dashboard {found.url}",
        f"peers     {stats.peers} linked",
        f"models    {len(found.models)} known, {held} shards here",
        f"memory    {machine.used_ram_mb} of {machine.total_ram_mb} MB in use, {machine.process_rss_mb} by the node",
        f"disk      {machine.available_disk_mb} of {machine.total_disk_mb} MB free",
        f"replies   {stats.requests_made} asked here, {stats.forwards_served} helped with, {stats.active_requests} now",
    ]
    median = stats.inference.p50_latency_ms
    if isinstance(median, float | int):
        lines.append(f"latency   {median:.0f} ms in the median of {stats.inference.samples} replies")
    return lines


async def _peers(chosen: Chosen, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        rows = await node.peers()
    if as_json:
        say_json(rows)
        return
    if rows:
        show_table(PEER_COLUMNS, [peer_cells(row) for row in rows], numbers=PEER_NUMBERS)
    else:
        say(NOBODY)


async def _peer_table(chosen: Chosen) -> Table | str:
    async with NodeClient(find(chosen)) as node:
        rows = await node.peers()
    return table(PEER_COLUMNS, [peer_cells(row) for row in rows], numbers=PEER_NUMBERS) if rows else NOBODY


def peer_cells(row: shapes.PeerRow) -> tuple[str, ...]:
    addresses = row.addresses if isinstance(row.addresses, list) else []
    return (
        row.node_id,
        "linked" if row.connected else "away",
        "" if row.measured_min_rtt_ms is None else f"{row.measured_min_rtt_ms:.2f} ms",
        str(row.hosted_shards),
        ", ".join(row.hosted_models),
        row.version or "",
        addresses[0] if addresses else "",
    )


async def _join(chosen: Chosen, code: str) -> None:
    async with NodeClient(find(chosen)) as node:
        joined = await node.join(code)
    say(joined.message)


def duration(seconds: int) -> str:
    """`42 s`, `3 min`, `5 h 12 min`, `2 d 4 h`."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds} s"
