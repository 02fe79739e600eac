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
from swarmd.cli.terminal import finish, fitting, megabytes, output, say, say_json, show_table, sure, watch
from swarmd.discovery.short_text import looks_short
from swarmd.domain.membership import RoleName

PEER_COLUMNS: Final = ("node", "state", "round trip", "shards", "models", "version", "address")
PEER_NUMBERS: Final = ("round trip", "shards")
LINK_COLUMNS: Final = ("node", "purpose", "path", "round trip", "least", "received", "sent", "up", "address")
PEER_SPARE: Final = ("address", "version", "shards")
LINK_SPARE: Final = ("address", "up", "least", "received", "sent")
LINK_NUMBERS: Final = ("round trip", "least", "received", "sent")
NO_LINKS: Final = "no connection to another node is up: `swarmd peers` says whom this node knows"
NOBODY: Final = "this node knows no other one: print a code with `swarmd invite` and use it with `swarmd join` elsewhere"
WATCH_S: Final = 2.0  # as often as the node measures itself for the dashboard

Watching = Annotated[bool, typer.Option("--watch", help="Again every two seconds, until Ctrl-C.")]
Links = Annotated[bool, typer.Option("--links", help="The connections: path, round trip, bytes.")]
AsJson = Annotated[bool, typer.Option("--json", help="For other programs: one JSON value.")]
Uses = Annotated[int | None, typer.Option("--uses", help="A new code, for this many nodes.")]
Life = Annotated[
    int | None, typer.Option("--life", parser=invites.seconds, metavar="7d|12h|30m", help="A new code, good for this long.")
]
Short = Annotated[
    bool, typer.Option("--short", help="A number and two words to be typed, for one machine in this room and ten minutes.")
]
RoleOf = Annotated[
    RoleName | None,
    typer.Option("--role", parser=invites.role_name, metavar="member|inviter", help="A new code; inviters may invite."),
]
WithQr = Annotated[bool, typer.Option("--qr", help="Print the code as a QR code as well.")]
At = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="HOST[:PORT]", help="For a short code: where to look, if not in the local network. "
        "The node that made it, or one that both can reach.",
    ),
]  # fmt: skip
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
    *,
    watching: Watching = False,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """How the node is: peers, models, memory, replies."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    if watching and as_json:
        raise sure("--watch is for people and --json for programs: one at a time")
    finish(watch(lambda: _status_text(chosen), every_s=WATCH_S) if watching else _status(chosen, as_json=as_json))


def peers(
    *,
    links: Links = False,
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
    if watching:
        finish(watch(lambda: _link_table(chosen) if links else _peer_table(chosen), every_s=WATCH_S))
    else:
        finish(_links(chosen, as_json=as_json) if links else _peers(chosen, as_json=as_json))


def invite(
    *,
    uses: Uses = None,
    life: Life = None,
    short: Short = False,
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
    """Print a code that admits one more node, or more with --uses; a short one to type; list codes and cancel them."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    making = uses is not None or life is not None or role is not None or with_qr
    if making + short + list_all + (cancel is not None) > 1:
        raise sure("--list, --cancel, --short and the terms of a new code are different wishes: one at a time")
    if list_all:
        finish(invites.show(chosen, as_json=as_json))
    elif cancel is not None:
        finish(invites.cancel(chosen, cancel, as_json=as_json))
    elif short:
        finish(invites.make_short(chosen, as_json=as_json))
    else:
        finish(invites.make(chosen, uses=uses, life_s=life, role=role, with_qr=with_qr, as_json=as_json))


def join(
    code: Annotated[str, typer.Argument(help="What `swarmd invite` printed on a member; or a multiaddr.")],
    *,
    at: At = None,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Make the node a member of a swarm."""
    text = code.strip() if at is None else f"{code.strip()}@{at.strip()}"
    if at is not None and not looks_short(code):
        raise sure("--at says where to look for a short code, such as 7-crossover-clockwork: other codes know it themselves")
    finish(_join(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), text, as_json=as_json))


async def _status(chosen: Chosen, *, as_json: bool) -> None:
    found = await _found(chosen)
    if as_json:
        say_json(found)
        return
    for line in status_lines(found):
        say(line)


async def _status_text(chosen: Chosen) -> str:
    return "\n".join(status_lines(await _found(chosen)))


async def _found(chosen: Chosen) -> Status:
    async with NodeClient(find(chosen)) as node:
        readiness, stats, models = await node.readiness(), await node.stats(), await node.models()
    return Status(url=node.url, ready=readiness.ready, subsystems=readiness.subsystems, stats=stats, models=models)


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
    if stats.tokens_per_second is not None:
        lines.append(f"speed     {stats.tokens_per_second:.1f} tokens/s in the last reply")
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
        show_table(PEER_COLUMNS, [peer_cells(row) for row in rows], numbers=PEER_NUMBERS, spare=PEER_SPARE)
    else:
        say(NOBODY)


async def _peer_table(chosen: Chosen) -> Table | str:
    async with NodeClient(find(chosen)) as node:
        rows = await node.peers()
    if not rows:
        return NOBODY
    cells = [peer_cells(row) for row in rows]
    return fitting(PEER_COLUMNS, cells, width=output().width, numbers=PEER_NUMBERS, spare=PEER_SPARE)


async def _links(chosen: Chosen, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        rows = await node.links()
    if as_json:
        say_json(rows)
    elif rows:
        show_table(LINK_COLUMNS, [link_cells(row) for row in rows], numbers=LINK_NUMBERS, spare=LINK_SPARE)
    else:
        say(NO_LINKS)


async def _link_table(chosen: Chosen) -> Table | str:
    async with NodeClient(find(chosen)) as node:
        rows = await node.links()
    if not rows:
        return NO_LINKS
    cells = [link_cells(row) for row in rows]
    return fitting(LINK_COLUMNS, cells, width=output().width, numbers=LINK_NUMBERS, spare=LINK_SPARE)


def link_cells(row: shapes.LinkRow) -> tuple[str, ...]:
    return (
        row.node_id,
        row.purpose,
        row.path if row.via is None else f"{row.path} {row.via}",
        _milliseconds(row.rtt_ms),
        _milliseconds(row.min_rtt_ms),
        _size(row.bytes_in),
        _size(row.bytes_out),
        duration(row.up_seconds),
        row.address or "",
    )


def _size(size: int) -> str:
    return megabytes(size) if size >= 1e6 else f"{size / 1e3:.1f} kB"  # a control link moves little in its first hours


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} ms"


def peer_cells(row: shapes.PeerRow) -> tuple[str, ...]:
    addresses = row.addresses if isinstance(row.addresses, list) else []
    return (
        row.node_id,
        "linked" if row.connected else "away",
        _milliseconds(row.measured_min_rtt_ms),
        str(row.hosted_shards),
        ", ".join(row.hosted_models),
        row.version or "",
        addresses[0] if addresses else "",
    )


async def _join(chosen: Chosen, code: str, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        joined = await node.join(code)
    if as_json:
        say_json(joined)
    else:
        say(joined.message)


def duration(seconds: int) -> str:
    """`42 s`, `3 min`, `5 h 12 min`, `2 d 4 h`."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds} s"
