"""`swarmd credits`: what this node did for others and had done by them."""

from __future__ import annotations

from typing import Annotated

import typer

from swarmd.api import credit_shapes as shapes
from swarmd.cli.client import NodeClient
from swarmd.cli.network import AsJson
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Url, find
from swarmd.cli.terminal import finish, say, say_json, show_table, sure


def credits(
    *,
    entries: Annotated[bool, typer.Option("--entries", help="What it is made of, by hour, the newest first.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=500, help="So many entries.")] = 50,
    by_peer: Annotated[bool, typer.Option("--peers", help="The books on each other node.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """The node's account with the others. It is no money and gates nothing: docs/credits.md."""
    if entries and by_peer:
        raise sure("--entries is by hour and --peers by node: one at a time")
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    if entries:
        finish(_entries(chosen, lines, as_json=as_json))
    else:
        finish(_peers(chosen, as_json=as_json) if by_peer else _account(chosen, as_json=as_json))


async def _account(chosen: Chosen, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        found = await node.credits()
    if as_json:
        say_json(found)
        return
    for line in account_lines(found):
        say(line)


def account_lines(found: shapes.CreditView) -> list[str]:
    """The account for people."""
    held = f", {found.escrow_held:,} set aside for {found.escrow_pending_count} running" if found.escrow_held else ""
    return [
        f"balance   {found.balance:,} credits{held}",
        f"earned    {found.lifetime_earned:,} by what this node did for others",
        f"spent     {found.net_spent:,} for what others did for it",
        f"tier      {found.tier}",
        f"booked    {found.last_updated}",
    ]


async def _entries(chosen: Chosen, lines: int, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        found = await node.credit_entries(lines)
    if as_json:
        say_json(found)
    elif found.transactions:
        columns = ("hour", "kind", "credits", "quantity", "node", "model")
        cells = [
            (row.hour[:16].replace("T", " "), row.kind, f"{row.amount:+,}", f"{row.quantity:,} {row.unit.replace('_', ' ')}",
             row.node_id or "", row.model_id or "")
            for row in found.transactions
        ]  # fmt: skip
        show_table(columns, cells, numbers=("credits", "quantity"), spare=("model", "node"))
    else:
        say("nothing was booked yet: a node earns while others use what it has")


async def _peers(chosen: Chosen, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        rows = await node.credit_peers()
    if as_json:
        say_json(rows)
    elif rows:
        columns = ("node", "did for us", "we did", "balance", "tier", "last")
        cells = [
            (
                row.node_id, f"{row.given:,}", f"{row.taken:,}", f"{row.balance:+,}", row.tier,
                row.last_at[:16].replace("T", " "),
            )
            for row in rows
        ]  # fmt: skip
        show_table(columns, cells, numbers=("did for us", "we did", "balance"), spare=("last",))
    else:
        say("no other node is in the books yet")
