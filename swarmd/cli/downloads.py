"""`get`, `downloads`: models of the hub fetched into the swarm, and how that goes."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Generator, Sequence
from typing import Annotated, Final

import typer
from msgspec import Struct
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from swarmd.api import download_shapes as shapes
from swarmd.cli.client import NodeClient
from swarmd.cli.failure import NOT_FOUND, REFUSED, USAGE, Failure
from swarmd.cli.models import fetch_from_peers, model_id
from swarmd.cli.network import WATCH_S, AsJson, Watching, duration
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Url, find
from swarmd.cli.search import parse_wanted, resolve
from swarmd.cli.terminal import finish, megabytes, output, printable, say, say_json, sure, watch
from swarmd.domain.ids import parse_model_id

NOTHING: Final = "nothing is being fetched: `swarmd search WORDS` finds models, `swarmd get OWNER/REPO` fetches one"
GOES_ON: Final = "what has begun goes on: `swarmd downloads --watch` shows it, `swarmd downloads cancel` ends it"
COLUMNS: Final = ("model", "shard", "state", "progress", "", "bytes", "speed", "left", "from")
NUMBERS: Final = ("shard", "", "bytes", "speed", "left")
BAR: Final = 16  # columns: what is left of a terminal of 120 beside the figures
SHARDS_SHOWN: Final = 16  # of one model: more than are fetched at once, and no screen full
LOOK_S: Final = 0.5  # between two looks at a download: often enough for a bar, one cheap request each
LOST_LOOKS: Final = 6  # so many looks without it, and nobody is fetching it any more
OVER: Final = ("complete", "failed", "cancelled")
HUB: Final = "huggingface"  # as the API names it

_RANGE: Final = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")

Name = Annotated[
    str, typer.Argument(parser=model_id, metavar="MODEL", help="The model's id, as `swarmd downloads` shows it.")
]
To = Annotated[
    int, typer.Argument(metavar="PLACE", min=0, max=shapes.PLACE_MAX, help="0 is the first; a large number is the end.")
]


def get(
    model: Annotated[
        str, typer.Argument(metavar="OWNER/REPO[:Q4_K_M|/FILE.gguf]|MODEL", help="What; of a repository its best file.")
    ],
    *,
    shards: Annotated[str | None, typer.Option("--shards", metavar="0-3,7", help="Only these shards.")] = None,
    fair_share: Annotated[
        bool, typer.Option("--fair-share", help="This node's share; peers that manage their shards take the rest.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until it is here.")] = True,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Fetch a model from the hub, or by its id from the other nodes: all, some shards, or this node's share."""
    if shards is not None and fair_share:
        raise sure("--shards says which shards and --fair-share lets the node choose: one at a time")
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    if "/" not in model:
        if fair_share:
            raise sure("--fair-share is for models of the hub: of one that the other nodes have, name the --shards")
        finish(_get_from_peers(chosen, model, shards, wait=wait, as_json=as_json))
    else:
        finish(_get(chosen, model, shards, fair_share=fair_share, wait=wait, as_json=as_json))


def show(
    context: typer.Context,
    *,
    watching: Watching = False,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """What is being fetched: progress by shard, speed, time left, source. With a verb: change it."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    if context.invoked_subcommand is not None:
        if watching or as_json or chosen != Chosen():
            raise sure(f"options come behind the verb: `swarmd downloads {context.invoked_subcommand} MODEL ...`")
        return
    if watching and as_json:
        raise sure("--watch is for people and --json for programs: one at a time")
    finish(watch(lambda: _table(chosen), every_s=WATCH_S) if watching else _show(chosen, as_json=as_json))


def pause(
    model: Name,
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Let a download rest; what has arrived stays."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    finish(_change(chosen, "pause", model, as_json=as_json))


def resume(
    model: Name,
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Go on with a download."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    finish(_change(chosen, "resume", model, as_json=as_json))


def cancel(
    model: Name,
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Give a download up; shards that are here stay."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    finish(_change(chosen, "cancel", model, as_json=as_json))


def move(
    model: Name,
    place: To,
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Another place in the queue: those in front run first."""
    finish(_move(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), model, place, as_json=as_json))


async def _move(chosen: Chosen, model: str, place: int, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        moved = await node.move_download(model, place)
    if as_json:
        say_json(moved)
        return
    say(f"the download of {moved.model_id} is at place {moved.place} now; 0 is the first")


async def _change(chosen: Chosen, verb: str, model: str, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        changed = await node.change_download(model, verb)
    if as_json:
        say_json(changed)
        return
    say(f"the download of {changed.model_id} is {changed.status}")


async def _show(chosen: Chosen, *, as_json: bool) -> None:
    if as_json:
        async with NodeClient(find(chosen)) as node:
            say_json(await node.downloads())
        return
    shown = await _table(chosen)
    if isinstance(shown, str):
        say(shown)
    else:
        output().print(shown)


async def _table(chosen: Chosen) -> Table | str:
    async with NodeClient(find(chosen)) as node:
        rows = (await node.downloads()).downloads
    return downloads_table(rows) if rows else NOTHING


def downloads_table(rows: Sequence[shapes.DownloadRow]) -> Table:
    """A line for each model, and below it one for each shard that is on its way."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in COLUMNS:
        number = column in NUMBERS
        made.add_column(column, justify="right" if number else "left", no_wrap=number)
    for row in rows:
        state = row.state if row.reason is None else f"{row.state}: {row.reason}"
        left = "" if row.eta_secs is None else duration(row.eta_secs)
        _add(made, row, (row.model_id, "", state), row.overall_pct, left, "hub" if row.source == HUB else "peers")
        moving = [one for one in row.shard_details if one.state in ("downloading", "verifying", "failed")]
        for one in moving[:SHARDS_SHOWN] if row.state not in OVER else ():
            source = "hub" if one.source == HUB else one.source or ""
            _add(made, one, ("", str(one.index), one.state), one.progress_pct, _left(one), source)
    return made


def _add(
    made: Table,
    what: shapes.DownloadRow | shapes.ShardDetail,
    names: tuple[str, ...],
    percent: float,
    left: str,
    source: str,
) -> None:
    size = f"{megabytes(what.downloaded_bytes)} of {megabytes(what.total_bytes)}" if what.total_bytes else ""
    speed = f"{megabytes(what.speed_bytes_per_sec)}/s" if what.speed_bytes_per_sec else ""
    bar = ProgressBar(total=100, completed=percent, width=BAR)
    made.add_row(*_texts(*names), bar, *_texts(f"{percent:.0f} %", size, speed, left, source))


def _texts(*cells: str) -> list[Text]:
    """Text, not str: what others wrote must not be taken for markup."""
    return [Text(printable(cell)) for cell in cells]


def _left(one: shapes.ShardDetail) -> str:
    speed, missing = one.speed_bytes_per_sec, one.total_bytes - one.downloaded_bytes
    return duration(-(-missing // speed)) if speed > 0 and one.state == "downloading" else ""


class Got(Struct, frozen=True, kw_only=True):
    """What `get --json` prints of a model of the hub; of one of the other nodes it is `Fetched`."""

    model_id: str
    state: str
    """As in `downloads --json`; `started` where it was not waited for."""
    verified_shards: int
    total_shards: int


async def _get_from_peers(chosen: Chosen, text: str, shards: str | None, *, wait: bool, as_json: bool) -> None:
    try:
        model = parse_model_id(text)
    except ValueError as error:
        sentence = f"{error}; of the hub write OWNER/REPO, OWNER/REPO:Q4_K_M or OWNER/REPO/FILE.gguf"
        raise Failure(sentence, exit_code=USAGE) from error
    indices = () if shards is None else parse_shards(shards)
    with _told_that_it_goes_on(quiet=as_json):
        await fetch_from_peers(chosen, model, indices, wait=wait, as_json=as_json)


async def _get(
    chosen: Chosen, text: str, shards: str | None, *, fair_share: bool, wait: bool, as_json: bool
) -> None:
    wanted, indices = parse_wanted(text), None if shards is None else parse_shards(shards)
    tell = _nothing if as_json else say
    async with NodeClient(find(chosen)) as node:
        repo_id, filename = await resolve(node, wanted)
        tell(f"reading the header of {filename} in {repo_id} ...", style="dim")
        found = await node.probe_hub(repo_id, filename)
        if not found.architecture_supported:
            reason = found.reason or f"its architecture is {found.architecture}"
            raise Failure(f"{filename} cannot run here: {reason}", exit_code=REFUSED)
        if indices is not None and indices[-1] >= found.shard_count:
            sentence = f"{filename} has {found.shard_count} shards, from 0 on: there is no shard {indices[-1]}"
            raise Failure(sentence, exit_code=NOT_FOUND)
        with _told_that_it_goes_on(quiet=as_json):
            started = await node.download_shards(repo_id, filename, shards=indices, fair_share=fair_share)
            size = f"{megabytes(found.total_size)} in {found.shard_count} {_shards(found.shard_count)}"
            if indices is not None or fair_share:
                size = _of_the_whole(await _row(node, started.model_id), indices, found)
            tell(f"fetching {_part(indices, fair_share=fair_share)} {started.model_id} ({size})")
            if not wait:
                tell("`swarmd downloads --watch` shows how it goes")
                if as_json:
                    total = found.shard_count if indices is None else len(indices)
                    say_json(Got(model_id=started.model_id, state=started.status, verified_shards=0, total_shards=total))
                return
            row = await _until_over(node, started.model_id, quiet=as_json)
    if row.state != "complete":
        why = f"could not be fetched: {row.reason or 'unknown'}" if row.state == "failed" else "was cancelled"
        raise Failure(f"{row.model_id} {why}")
    if as_json:
        verified, total = row.verified_shards, row.total_shards
        say_json(Got(model_id=row.model_id, state=row.state, verified_shards=verified, total_shards=total))
    elif row.total_shards:
        say(f"{row.model_id}: {row.verified_shards} {_shards(row.verified_shards)} arrived, each verified")
    else:
        say(f"{row.model_id}: what was wanted of it was here already")


def _nothing(_text: str, *, style: str | None = None) -> None:
    """For programs only the end is printed."""


def _part(indices: tuple[int, ...] | None, *, fair_share: bool) -> str:
    if fair_share:
        return "this node's share of"
    return "all of" if indices is None else f"{len(indices)} {_shards(len(indices))} of"


def _of_the_whole(row: shapes.DownloadRow | None, indices: tuple[int, ...] | None, found: shapes.HubProbe) -> str:
    """What is really fetched. `indices`: of the shards asked for; None: whichever the node chose."""
    coming = [] if row is None else [one for one in row.shard_details if indices is None or one.index in indices]
    every = f"{found.shard_count} {_shards(found.shard_count)}"
    if not coming:
        return f"{every} in all"
    size = megabytes(sum(one.total_bytes for one in coming))
    return f"{len(coming)} of {every}, {size} of {megabytes(found.total_size)}"


async def _row(node: NodeClient, model: str) -> shapes.DownloadRow | None:
    return next((row for row in (await node.downloads()).downloads if row.model_id == model), None)


def _shards(count: int) -> str:
    return "shard" if count == 1 else "shards"


@contextlib.contextmanager
def _told_that_it_goes_on(*, quiet: bool) -> Generator[None]:
    """Ctrl-C ends the command, not the download."""
    try:
        yield
    except asyncio.CancelledError:
        if not quiet:
            say(GOES_ON)
        raise


async def _until_over(node: NodeClient, model: str, *, quiet: bool) -> shapes.DownloadRow:
    """Shows it on a terminal; elsewhere nothing, since a log of percentages helps nobody. Raises Failure when the node
    does not know it any more."""
    console, lost = output(), 0
    visible = console.is_terminal and not quiet
    shown = Live(console=console, auto_refresh=False, transient=True) if visible else contextlib.nullcontext()
    with shown as live:
        while True:
            row = await _row(node, model)
            if row is not None and row.state in OVER:
                return row
            lost = lost + 1 if row is None else 0
            if lost >= LOST_LOOKS:
                raise Failure(f"nothing fetches {model} any more: `swarmd models` says what is here")
            if live is not None and row is not None:
                live.update(downloads_table([row]), refresh=True)
            await asyncio.sleep(LOOK_S)


def parse_shards(text: str) -> tuple[int, ...]:
    """`0-3,7` as indices, sorted and distinct. Raises Failure unless they are 1 to SHARDS_MAX."""
    found: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            sentence = f"--shards {text[:80]!r} is no list of shards: write numbers and ranges from 0 on, such as 0-3,7"
            raise Failure(sentence, exit_code=USAGE)
        if last - first >= shapes.SHARDS_MAX:  # looked at before the range is made
            raise _too_many()
        found.update(range(first, last + 1))
        if len(found) > shapes.SHARDS_MAX:
            raise _too_many()
    return tuple(sorted(found))


def _too_many() -> Failure:
    sentence = f"--shards takes at most {shapes.SHARDS_MAX} shards; without it all are fetched"
    return Failure(sentence, exit_code=USAGE)
