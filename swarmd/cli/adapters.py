"""`adapters`: LoRA adapters of this node, listed, added and removed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swarmd.api import adapters as shapes
from swarmd.cli.client import NodeClient
from swarmd.cli.models import ModelName
from swarmd.cli.network import AsJson
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Url, find
from swarmd.cli.terminal import finish, say, say_json, show_table


def show(
    context: typer.Context,
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """LoRA adapters of this node: listed; with a verb, added and removed."""
    if context.invoked_subcommand is None:
        finish(_list(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), as_json=as_json))


def list_adapters(
    *, as_json: AsJson = False, url: Url = None, data_dir: DataFolder = None, config: Config = None, key_file: KeyFile = None
) -> None:
    """The LoRA adapters that can be asked for on this node."""
    finish(_list(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), as_json=as_json))


def add(
    model: ModelName,
    file: Annotated[
        str, typer.Argument(help="A safetensors file of PEFT, in the node's folder of adapters or inference.adapter_folder.")
    ],
    *,
    id: Annotated[str | None, typer.Option("--id", help="What requests call it; without it the node makes one up.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="What people call it; without it the id.")] = None,
    rank: Annotated[int | None, typer.Option("--rank", min=1, help="If given, it has to be the file's.")] = None,
    alpha: Annotated[
        float | None, typer.Option("--alpha", help="lora_alpha; needed where no adapter_config.json is beside the file.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Register a LoRA adapter of MODEL; from then on `MODEL:ID` answers, on all nodes that run the model with this one."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    path = str(Path(file).resolve()) if Path(file).is_file() else file  # else it is below the node's own folder
    request = shapes.AdapterRequest(
        id=id, name=name or id or Path(file).stem, base_model=model, rank=rank, alpha=alpha, path=path
    )
    finish(_add(chosen, request, as_json=as_json))


def remove(
    id: Annotated[str, typer.Argument(metavar="ID", help="As `swarmd adapters list` shows it.")],
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Unregister a LoRA adapter; the file it was made from stays."""
    finish(_remove(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), id, as_json=as_json))


async def _list(chosen: Chosen, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        rows = await node.adapters()
    if as_json:
        say_json(rows)
    elif rows:
        cells = [(f"{row.base_model}:{row.id}", row.name, str(row.rank), f"{row.alpha:g}", row.path) for row in rows]
        show_table(("ask for", "name", "rank", "alpha", "file"), cells, numbers=("rank", "alpha"), spare=("file", "alpha"))
    else:
        say("no adapter is registered here: `swarmd adapters add MODEL FILE`")


async def _add(chosen: Chosen, request: shapes.AdapterRequest, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        row = await node.add_adapter(request)
    if as_json:
        say_json(row)
        return
    say(f"{row.base_model}:{row.id} answers from now on (rank {row.rank}, alpha {row.alpha:g})")


async def _remove(chosen: Chosen, id: str, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        gone = await node.remove_adapter(id)
    if as_json:
        say_json(gone)
        return
    say(f"adapter {id} is not registered any more; its file stays")
