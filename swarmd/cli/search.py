"""`search`: models on the hub; and which file somebody means by `owner/repo:Q4_K_M`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from swarmd.api import download_shapes as shapes
from swarmd.cli.client import NodeClient
from swarmd.cli.failure import NOT_FOUND, USAGE, Failure
from swarmd.cli.network import AsJson
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Url, find
from swarmd.cli.terminal import finish, megabytes, say, say_json, show_table
from swarmd.models.manifest import REPO_ID, REPO_ID_MAX, is_filename

COLUMNS: Final = ("repository", "downloads", "take", "size", "memory", "held by", "other variants")
NUMBERS: Final = ("downloads", "size", "held by")
SPARE: Final = ("other variants", "held by", "downloads")
OTHERS_SHOWN: Final = 6  # of a repository's twenty; the line stays readable, --json has all
WHOLE: Final = 1.0  # contract: swarmllm.md 2.4.1, the fit of a model that one node holds whole

_QUANT: Final = re.compile(r"[A-Za-z0-9._-]{1,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A model of the hub as people name it; neither `quant` nor `filename`: the recommended one."""

    repo_id: str
    quant: str | None = None
    """Or the name of the file, where that says no quantisation: what `search` shows."""
    filename: str | None = None


def search(
    words: Annotated[list[str], typer.Argument(help="What the names of the models should contain.")],
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Find GGUF models on the hub, and what of it fits here or into the swarm."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    finish(_search(chosen, " ".join(words), as_json=as_json))


async def _search(chosen: Chosen, query: str, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        rows = await node.search_hub(query)
    if as_json:
        say_json(rows)
    elif rows:
        show_table(COLUMNS, [repo_cells(row) for row in rows], numbers=NUMBERS, spare=SPARE)
        say("fetch one with `swarmd get REPOSITORY`, or another variant with `swarmd get REPOSITORY:VARIANT`", style="dim")
    else:
        say(f"the hub has no GGUF model for {query[:80]!r}: try other words")


def repo_cells(row: shapes.HubRepoRow) -> tuple[str, ...]:
    taken = next((one for one in row.variants if one.filename == row.recommended_filename), None)
    others = [f"{one.quant or one.filename} {megabytes(one.size_bytes)}" for one in row.variants if one is not taken]
    more = f", and {len(others) - OTHERS_SHOWN} more" if len(others) > OTHERS_SHOWN else ""
    return (
        f"{row.repo_id} (gated)" if row.gated else row.repo_id,
        f"{row.downloads:,}",
        row.recommended_variant,
        "" if taken is None else megabytes(taken.size_bytes),
        fits_text(row),
        str(row.network_replicas),
        ", ".join(others[:OTHERS_SHOWN]) + more,
    )


def fits_text(row: shapes.HubRepoRow) -> str:
    """Whether the memory suffices for the recommended variant, and whose."""
    if row.score_breakdown.fit >= WHOLE:
        return "fits here"
    return "fits the swarm" if row.fits_swarm else "does not fit"


def parse_wanted(text: str) -> Wanted:
    """`owner/repo`, `owner/repo:Q4_K_M`, `owner/repo:file.gguf` or `owner/repo/file.gguf`. Raises Failure."""
    name, _, quant = text.strip().partition(":")
    owner, _, rest = name.partition("/")
    repo, _, filename = rest.partition("/")
    repo_id = f"{owner}/{repo}"
    good = bool(REPO_ID.fullmatch(repo_id)) and len(repo_id) <= REPO_ID_MAX
    if filename or "/" in rest:
        good = good and is_filename(filename) and ":" not in text
    elif ":" in text:
        good = good and (bool(_QUANT.fullmatch(quant)) or is_filename(quant))
    if not good:
        sentence = f"{text[:80]!r} is no model of a hub: write OWNER/REPO, OWNER/REPO:Q4_K_M or OWNER/REPO/FILE.gguf"
        raise Failure(sentence, exit_code=USAGE)
    return Wanted(repo_id=repo_id, quant=quant or None, filename=filename or None)


async def resolve(node: NodeClient, wanted: Wanted) -> tuple[str, str]:
    """Repository and file. Raises Failure when the hub has no such thing, or more than one."""
    if wanted.filename is not None:
        return wanted.repo_id, wanted.filename
    rows = await node.search_hub(wanted.repo_id)
    row = next((row for row in rows if row.repo_id.lower() == wanted.repo_id.lower()), None)
    if row is None:
        sentence = f"the hub shows no repository {wanted.repo_id} with GGUF files: `swarmd search` finds what there is"
        raise Failure(sentence, exit_code=NOT_FOUND)
    return row.repo_id, _file_of(row, wanted.quant)


def _file_of(row: shapes.HubRepoRow, quant: str | None) -> str:
    if not row.variants:
        sentence = f"nothing in {row.repo_id} can be fetched: it has no GGUF model, or one of which parts are missing"
        raise Failure(sentence)
    if quant is None:
        return row.recommended_filename
    names = [one.filename for one in row.variants]
    found = [one.filename for one in row.variants if one.quant.lower() == quant.lower()]
    found = found or [name for name in names if name == quant] or [name for name in names if name.endswith(f"/{quant}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise Failure(f"{row.repo_id} has {len(found)} files of {quant}: name one, such as {row.repo_id}/{found[0]}")
    there = ", ".join(dict.fromkeys(one.quant or one.filename for one in row.variants))
    raise Failure(f"{row.repo_id} has no {quant}: it has {there}", exit_code=NOT_FOUND)
