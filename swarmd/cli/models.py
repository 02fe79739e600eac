"""`swarmd models` and `swarmd model`: add a GGUF file, list, fetch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Annotated, Final

import typer
from msgspec import Struct
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from swarmd.api import shapes
from swarmd.cli.client import AcquisitionState, NodeClient
from swarmd.cli.failure import Failure
from swarmd.cli.network import AsJson
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Url, absolute, find
from swarmd.cli.terminal import finish, megabytes, output, printable, say, say_json, show_table
from swarmd.domain.ids import ModelId, parse_model_id

LOOK_S: Final = 0.5  # between two looks at a transfer: often enough for a bar, one cheap request each
LOST_LOOKS: Final = 6  # so many looks without shards and without a transfer, and nobody is fetching any more



def model_id(text: str) -> ModelId:
    """Raises typer.BadParameter for what no model is called."""
    try:
        return parse_model_id(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


ModelName = Annotated[
    str, typer.Argument(parser=model_id, metavar="ID", help="The model's id, as `swarmd model list` shows it.")
]
class Fetched(Struct, frozen=True, kw_only=True):
    """What `model fetch --json` prints, and `get --json` of a model of the other nodes."""

    model_id: str
    complete: bool
    """What was wanted is here; false: it was not waited for."""
    hosted_shards: int
    shard_count: int


OnProgress = Callable[[int, int], None]
"""(bytes so far, bytes in all)."""


def add(
    file: Annotated[Path, typer.Argument(metavar="FILE.gguf", help="A GGUF file on the node's own machine.")],
    *,
    shard_size_mb: Annotated[
        int | None, typer.Option("--shard-size-mb", min=64, max=2048, help="Target size of a shard, for this file.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Cut a GGUF file into shards, which other nodes can fetch."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    finish(_add(chosen, absolute(file), shard_size_mb, as_json=as_json))


def list_models(
    *, as_json: AsJson = False, url: Url = None, data_dir: DataFolder = None, config: Config = None, key_file: KeyFile = None
) -> None:
    """The models this node knows, and who holds them."""
    finish(_list(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), as_json=as_json))


def fetch(
    model: ModelName,
    *,
    shard: Annotated[list[int] | None, typer.Option("--shard", min=0, help="Only this shard; may be repeated.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until it is here.")] = True,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Fetch a model, or some shards of it, from the other nodes."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    finish(fetch_from_peers(chosen, model, tuple(sorted(set(shard or ()))), wait=wait, as_json=as_json))


async def _add(chosen: Chosen, file: Path, shard_size_mb: int | None, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        if not as_json:
            say(f"cutting {file.name} ...", style="dim")
        added = await node.add_file(str(file), shard_size_mb=shard_size_mb)
    if as_json:
        say_json(added)
        return
    say(f"{added.model_id} is here in {added.shard_count} {'shard' if added.shard_count == 1 else 'shards'}")


async def _list(chosen: Chosen, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        rows = await node.models()
    if as_json:
        say_json(rows)
        return
    if not rows:
        say("this node knows no model: `swarmd search` and `swarmd get` bring one, `swarmd model add FILE.gguf` cuts one")
        return
    columns = ("model", "size", "kind", "shards here", "nodes", "trust", "source", "state", "can answer")
    spare = ("source", "kind", "trust", "nodes", "state")
    show_table(columns, [model_cells(row) for row in rows], numbers=("size", "shards here", "nodes"), spare=spare)


def model_cells(row: shapes.ModelRow) -> tuple[str, ...]:
    return (
        row.id,
        megabytes(row.total_size_bytes),
        " ".join(part for part in (row.architecture, row.quantization) if part),
        f"{row.hosted_shards}/{row.shard_count}",
        str(holders(row)),
        row.trust_level,
        source_text(row),
        state_text(row),
        answer_text(row),
    )


def source_text(row: shapes.ModelRow) -> str:
    """Where the model was found first, wherever its shards come from."""
    if row.hf_source is not None:
        return row.hf_source.repo_id
    return "a file" if row.has_manifest else ""


def state_text(row: shapes.ModelRow) -> str:
    """`loaded`, `ready`, `partial` or `available`, or how far it has arrived."""
    progress = row.acquisition_progress
    if row.acquisition == "downloading" and progress is not None and progress.total_bytes:
        return f"downloading, {100 * progress.downloaded_bytes / progress.total_bytes:.0f} %"
    return row.status if row.acquisition is None else row.acquisition


def holders(row: shapes.ModelRow) -> int:
    """Distinct nodes that hold a part of it, this one included."""
    return len({node for shard in row.shards for node in shard.holder_ids})


def answer_text(row: shapes.ModelRow) -> str:
    """Whether and how a question would be answered now."""
    if row.shards and all(shard.local for shard in row.shards):
        return "yes, alone"
    missing = [shard.index + 1 for shard in row.shards if not shard.local and shard.holders == 0]
    if not row.shards:
        return "no, its manifest is missing"
    return f"no, nobody has shard {', '.join(map(str, missing))}" if missing else "yes, with others"


async def fetch_from_peers(chosen: Chosen, model: str, indices: tuple[int, ...], *, wait: bool, as_json: bool) -> None:
    """`indices`: none, for all."""
    async with NodeClient(find(chosen)) as node:
        if indices:
            for index in indices:
                await node.fetch_shard(model, index)
        else:
            await node.fetch_model(model)
        row = await _row(node, model)
        if wait:
            with _shown_progress(model, quiet=as_json) as progress:
                row = await until_held(node, model, indices or None, progress)
    here, count = (0, 0) if row is None else (row.hosted_shards, row.shard_count)
    if as_json:
        say_json(Fetched(model_id=model, complete=wait, hosted_shards=here, shard_count=count))
    elif wait:
        say(f"{model}: {here} of {count} shards are here")
    else:
        say(f"fetching {model}; see `swarmd model list`")


async def until_held(
    node: NodeClient, model: str, indices: tuple[int, ...] | None, on_progress: OnProgress
) -> shapes.ModelRow:
    """Waits until the node holds these shards (None: all). Raises Failure when the transfer failed or was given up."""
    lost = 0
    while True:
        row = await _row(node, model)
        if row is not None and row.shards and _held(row, indices):
            return row
        state = await node.acquisition(model)
        if state.failed is not None:
            raise Failure(f"{model} could not be fetched: {state.failed}")
        lost = 0 if _under_way(state) else lost + 1
        if lost >= LOST_LOOKS:
            raise Failure(f"{model} is not here, and nothing fetches it any more: {state.message or 'try again'}")
        on_progress(state.downloaded_bytes, state.total_bytes)
        await asyncio.sleep(LOOK_S)


async def _row(node: NodeClient, model: str) -> shapes.ModelRow | None:
    return next((row for row in await node.models() if row.id == model), None)


def _held(row: shapes.ModelRow, indices: tuple[int, ...] | None) -> bool:
    wanted = [shard for shard in row.shards if indices is None or shard.index in indices]
    return bool(wanted) and all(shard.local for shard in wanted)


def _under_way(state: AcquisitionState) -> bool:
    return state.state in ("awaiting_manifest", "queued", "downloading", "paused")


@contextlib.contextmanager
def _shown_progress(model: str, *, quiet: bool) -> Generator[OnProgress]:
    """A bar on a terminal; elsewhere nothing, since a log of percentages helps nobody."""
    console = output()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(escape(printable(model)), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
