"""`load`, `unload`, `rm`: shards into the memory of this node and out of it, and models off its disk."""

from __future__ import annotations

from typing import Annotated

import typer
from msgspec import Struct

from swarmd.api import shapes
from swarmd.cli.client import NodeClient
from swarmd.cli.failure import NOT_FOUND, Failure
from swarmd.cli.models import ModelName
from swarmd.cli.network import AsJson
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Url, find
from swarmd.cli.terminal import confirm, finish, megabytes, printable, say, say_json

Shards = Annotated[list[int] | None, typer.Option("--shard", min=0, help="Only this shard; may be repeated.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


class Loaded(Struct, frozen=True, kw_only=True):
    """What `load --json` and `unload --json` print."""

    model_id: str
    shards: list[int]
    """That this command loaded or unloaded."""
    loaded_shards: list[int]
    """In memory now."""


class Removed(Struct, frozen=True, kw_only=True):
    """What `rm --json` prints."""

    model_id: str
    shards: list[int] | None
    """null: the whole model."""
    files_removed: int
    """0 of single shards, whose files nobody counts."""


def load(
    model: ModelName,
    *,
    shard: Shards = None,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Load a model's shards of this node into memory, so that the first question does not wait for that."""
    finish(_load(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), model, shard, as_json=as_json))


def unload(
    model: ModelName,
    *,
    shard: Shards = None,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Free the memory of a model on this node; its files stay, and the next question loads it again."""
    finish(_unload(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), model, shard, as_json=as_json))


def rm(
    model: ModelName,
    *,
    shard: Shards = None,
    yes: Yes = False,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Delete a model, or single shards of it, from this node's disk; other nodes keep theirs. Asks before."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    indices = sorted(set(shard or ()))
    row = finish(_row(chosen, model))
    size = sum(one.size_bytes for one in row.shards if one.local and (not indices or one.index in indices))
    what = f"shard {', '.join(map(str, indices))} of {model}" if indices else f"{model} with {row.hosted_shards} shards"
    last = [one.index for one in row.shards if one.local and one.holders <= 1 and (not indices or one.index in indices)]
    alone = " Nobody else has all of that: it would have to be fetched anew." if last else ""
    confirm(
        f"Delete {printable(what)} ({megabytes(size)}) from this node?{alone}", yes=yes,
        otherwise="`swarmd rm` deletes files",
    )  # fmt: skip
    finish(_remove(chosen, model, indices, as_json=as_json))


async def _load(chosen: Chosen, model: str, shard: list[int] | None, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        row = await _known(node, model)
        held = [one.index for one in row.shards if one.local]
        indices = sorted(set(shard)) if shard else held
        if not indices:
            raise Failure(f"no shard of {model} is on this node: `swarmd get {model}` fetches it", exit_code=NOT_FOUND)
        done: list[int] = []
        for index in indices:
            done = (await node.load_shard(model, index)).loaded_shards
    if as_json:
        say_json(Loaded(model_id=model, shards=indices, loaded_shards=done))
    else:
        say(f"{model}: {len(done)} of {row.shard_count} shards are in this node's memory")


async def _unload(chosen: Chosen, model: str, shard: list[int] | None, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        if shard:
            indices = sorted(set(shard))
            left: list[int] = []
            for index in indices:
                left = (await node.unload_shard(model, index)).remaining_loaded
            sentence = f"{model}: {len(left)} shards stay in memory"
        else:
            indices, left = [one.index for one in (await _known(node, model)).shards if one.in_vram is True], []
            gone = await node.unload(model)
            sentence = f"{model} is out of memory, which frees about {gone.estimated_freed_mb} MB; its files stay"
    if as_json:
        say_json(Loaded(model_id=model, shards=indices, loaded_shards=left))
    else:
        say(sentence)


async def _row(chosen: Chosen, model: str) -> shapes.ModelRow:
    async with NodeClient(find(chosen)) as node:
        return await _known(node, model)


async def _known(node: NodeClient, model: str) -> shapes.ModelRow:
    row = next((row for row in await node.models() if row.id == model), None)
    if row is None:
        raise Failure(f"this node knows no model {model}: `swarmd models` lists them", exit_code=NOT_FOUND)
    return row


async def _remove(chosen: Chosen, model: str, indices: list[int], *, as_json: bool) -> None:
    files = 0
    async with NodeClient(find(chosen)) as node:
        if indices:
            for index in indices:
                await node.delete_shard(model, index)
        else:
            files = (await node.remove_model(model)).files_removed
    if as_json:
        say_json(Removed(model_id=model, shards=indices or None, files_removed=files))
    elif indices:
        say(f"shard {', '.join(map(str, indices))} of {model} {'is' if len(indices) == 1 else 'are'} gone from this node")
    else:
        say(f"{model} is gone from this node: {files} files")
