"""`autopilot`, `lock`, `unlock`: what the node would do with shards by itself, and what it must not."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final

import typer

from swarmd.api import autopilot_shapes as shapes
from swarmd.cli.client import NodeClient
from swarmd.cli.models import ModelName
from swarmd.cli.network import AsJson
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Url, find
from swarmd.cli.terminal import finish, megabytes, say, say_json, show_table

SWITCH: Final = "auto_manage_shards"  # the contract's name of auto_manage.enabled


class State(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


Index = Annotated[int, typer.Argument(metavar="INDEX", min=0, help="The shard's number, from 0 on.")]


def autopilot(
    state: Annotated[State | None, typer.Argument(help="Switch it; without this, show what it would do now.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", "-a", help="Also the shards for which there is nothing to do.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """What the autopilot would fetch and drop now, and why it leaves the rest; or switch it on or off."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    if state is None:
        finish(_plan(chosen, as_json=as_json, every=every))
    else:
        finish(_switch(chosen, on=state is State.ON, as_json=as_json))


def lock(
    model: ModelName,
    index: Index,
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Lock a shard: the autopilot never drops it from this node."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    finish(_lock(chosen, model, index, locked=True, as_json=as_json))


def unlock(
    model: ModelName,
    index: Index,
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Unlock a shard: the autopilot may drop it where the swarm has enough copies."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    finish(_lock(chosen, model, index, locked=False, as_json=as_json))


async def _switch(chosen: Chosen, *, on: bool, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        await node.change_setting(SWITCH, on)
        plan = await node.autopilot_plan()
    if as_json:
        say_json(plan)
        return
    say("the autopilot is on: `swarmd autopilot` shows what it does next" if on else "the autopilot is off")


async def _lock(chosen: Chosen, model: str, index: int, *, locked: bool, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        done = await node.lock_shard(model, index, locked=locked)
    if as_json:
        say_json(done)
        return
    say(f"shard {index + 1} of {model} (index {index}) is {'locked: only a person deletes it' if locked else 'unlocked'}")


async def _plan(chosen: Chosen, *, as_json: bool, every: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        plan = await node.autopilot_plan()
    if as_json:
        say_json(plan)
        return
    say(heading(plan))
    rows = list(plan_cells(plan, every=every))
    if rows:
        columns = ("", "model", "shard", "copies", "size", "why")
        show_table(columns, rows, numbers=("shard", "copies", "size"), spare=("size", "copies"))
    else:
        say("there is nothing to do" if every else "there is nothing to do; --all says why of each shard")


def heading(plan: shapes.AutopilotPlan) -> str:
    state = "on" if plan.enabled else "off: this is what it would do (`swarmd autopilot on`)"
    reduced = ", reduced hours" if plan.reduced_hours else ""
    return (
        f"the autopilot is {state}; {plan.pool} nodes, contribution {plan.contribution}{reduced}, "
        f"{megabytes(plan.used_bytes)} of {megabytes(plan.budget_bytes)} used, disk {plan.pressure:.0%} full, "
        f"{plan.moves_left} moves left this hour"
    )


def plan_cells(plan: shapes.AutopilotPlan, *, every: bool) -> Iterator[tuple[str, ...]]:
    """What it would do; what waits for something; and with `every` what is as it should be."""
    copies = {(one.model_id, one.shard_index): f"{one.holders}/{one.target}" for one in plan.shards}
    for what, moves in (("fetch", plan.fetch), ("drop", plan.drop)):
        for one in moves:
            place = (one.model_id, one.shard_index)
            yield (what, one.model_id, str(one.shard_index), copies.get(place, ""), megabytes(one.size_bytes), one.reason)
    for what, ones in (("not fetched", plan.not_fetched), ("kept", plan.kept)):
        for one in ones:
            if not every and (what == "kept" or one.code == "enough"):
                continue
            index = "" if one.shard_index is None else str(one.shard_index)
            place = (one.model_id, -1 if one.shard_index is None else one.shard_index)
            yield (what, one.model_id, index, copies.get(place, ""), "", one.reason)
