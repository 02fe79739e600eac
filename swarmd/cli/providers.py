"""`providers`: who answers in place of the swarm, with which key, and how they are. Keys come from a terminal or from stdin,
never from the command line, which everybody on the machine can read."""

from __future__ import annotations

import getpass
import sys
from enum import StrEnum
from typing import Annotated, Final

import typer
from msgspec import Struct, convert

from swarmd.api import provider_shapes as shapes
from swarmd.cli.client import NodeClient
from swarmd.cli.failure import USAGE, Failure
from swarmd.cli.network import AsJson
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Url, find
from swarmd.cli.terminal import finish, say, say_json, show_table

KEY_LIMIT: Final = 4096  # characters of stdin; the longest keys have some two hundred

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `swarmd providers` shows it.")]


class Source(StrEnum):
    AUTO = "auto"
    ENV = "env"
    NODE = "node"


class Switch(StrEnum):
    ON = "on"
    OFF = "off"


class ProviderLine(Struct, frozen=True, kw_only=True):
    """One provider: what the node has for it, and how it answered."""

    name: str
    configured: bool
    source: str
    custom: bool
    base_url: str
    status: str | None
    """As `provider-health` has it; null: it was not asked."""
    latency_ms: int | None
    detail: str


def show(
    context: typer.Context,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Ask no provider: that costs one token each.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Providers that may answer in place of the swarm, where their keys come from, and how they are."""
    if context.invoked_subcommand is None:
        chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
        finish(_show(chosen, quick=quick, as_json=as_json))


def set_key(
    name: Name,
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Give the node a key for a provider. It is asked for on the terminal, or read from stdin."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    finish(_set(chosen, name, _key_of(name), as_json=as_json))


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, - and _: models are then NAME:MODEL.")],
    address: Annotated[str, typer.Argument(metavar="URL", help="With /v1 where the server has its API there.")],
    *,
    with_key: Annotated[bool, typer.Option("--with-key", help="Ask for a key, or read it from stdin.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Add a server that speaks OpenAI's dialect: vLLM, SGLang, llama-server and the like; or give it another address."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    one = shapes.CustomIn(name=name, base_url=address, key=_key_of(name) if with_key else None)
    finish(_add(chosen, one, as_json=as_json))


def remove(
    name: Name,
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Take a provider's key away from the node, or the whole of a custom one."""
    finish(_remove(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), name, as_json=as_json))


def key_source(
    source: Annotated[
        Source,
        typer.Argument(
            help="auto: keys given to the node before those of its environment; env: only those; node: only those given."
        ),
    ],
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Say which keys count: those given to the node, those of its environment, or both."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    finish(_change(chosen, _with_source(source), _SOURCES[source], as_json=as_json))


def subscription(
    state: Annotated[Switch, typer.Argument(help="on or off.")],
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Answer for claude-* with the claude program of the node's machine and the login its user has there, or with a key."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    on = state is Switch.ON
    sentence = (
        "models claude-* are answered by the claude program of the node's machine now" if on
        else "models claude-* are answered with an API key, if the node has one"
    )  # fmt: skip
    finish(_change(chosen, shapes.ProvidersRequest(claude_subscription_enabled=on), sentence, as_json=as_json))


_SOURCES: Final = {
    Source.AUTO: "keys given to the node count, and those of its environment where it was given none",
    Source.ENV: "only keys of the node's environment count now",
    Source.NODE: "only keys given to the node count now",
}


def _with_source(source: Source) -> shapes.ProvidersRequest:
    return shapes.ProvidersRequest(key_source="dashboard" if source is Source.NODE else source.value)


async def _change(chosen: Chosen, change: shapes.ProvidersRequest, sentence: str, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        changed = await node.change_providers(change)
    _tell(changed, sentence, as_json=as_json)


async def _show(chosen: Chosen, *, quick: bool, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        listed = await node.providers()
        health = {} if quick else {row.provider: row for row in await node.provider_health()}
    lines = [_line(row, health.get(row.name)) for row in listed.providers]
    if as_json:
        say_json(lines)
        return
    cells = [
        (
            line.name, line.base_url, _where(line), line.status or "-",
            "-" if line.latency_ms is None else f"{line.latency_ms} ms", line.detail,
        )
        for line in lines
        if line.configured
    ]  # fmt: skip
    if cells:
        show_table(("name", "address", "key", "state", "answered in", "detail"), cells, numbers=("answered in",))
    without = ", ".join(line.name for line in lines if not line.configured)
    if without:
        say(f"without a key: {without}", style="dim")
    if not cells:
        say("no provider can be asked: `swarmd providers set NAME`, or `swarmd providers add NAME URL` for one of your own")
    if listed.key_source != "auto":
        say(f"only keys of the {'environment' if listed.key_source == 'env' else 'node itself'} count", style="dim")


async def _set(chosen: Chosen, name: str, key: str, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        row = _row(await node.providers(), name)
        if row.custom:
            change = shapes.ProvidersRequest(custom=[shapes.CustomIn(name=name, base_url=row.base_url, key=key)])
        else:
            change = _with_key(name, key)
        changed = await node.change_providers(change)
    _tell(changed, f"the node has a key for {name} now: ask for {name}:MODEL", as_json=as_json)


async def _add(chosen: Chosen, one: shapes.CustomIn, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        changed = await node.change_providers(shapes.ProvidersRequest(custom=[one]))
    _tell(changed, f"{one.name} is a provider now: ask for {one.name}:MODEL", as_json=as_json)


async def _remove(chosen: Chosen, name: str, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        row = _row(await node.providers(), name)
        if row.custom:
            changed = await node.change_providers(shapes.ProvidersRequest(remove_custom=[name]))
            _tell(changed, f"{name} is no provider any more", as_json=as_json)
            return
        if row.source == "env":
            raise Failure(f"the key of {name} comes from the node's environment: take it out there")
        changed = await node.change_providers(_with_key(name, ""))
    still = getattr(changed, name) is True
    _tell(
        changed,
        f"the key is gone, and the one of the node's environment is used for {name} now" if still
        else f"the node has no key for {name} any more",
        as_json=as_json,
    )  # fmt: skip


def _with_key(name: str, key: str) -> shapes.ProvidersRequest:
    return convert({f"{name}_key": key}, shapes.ProvidersRequest)


def _tell(changed: shapes.ProvidersChanged, sentence: str, *, as_json: bool) -> None:
    if as_json:
        say_json(changed)
    else:
        say(sentence)


def _row(listed: shapes.ProviderList, name: str) -> shapes.ProviderRow:
    for row in listed.providers:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in listed.providers)
    raise Failure(f"there is no provider {name[:64]!r}: the known ones are {known}", exit_code=USAGE)


def _line(row: shapes.ProviderRow, health: shapes.HealthRow | None) -> ProviderLine:
    return ProviderLine(
        name=row.name, configured=row.configured, source=row.source, custom=row.custom, base_url=row.base_url,
        status=None if health is None else health.status, latency_ms=None if health is None else health.latency_ms,
        detail="" if health is None else health.detail,
    )  # fmt: skip


def _where(line: ProviderLine) -> str:
    return {"config": "given to the node", "env": "environment"}.get(line.source, "none")


def _key_of(name: str) -> str:
    """Of the terminal, unseen, or of stdin."""
    if sys.stdin.isatty():
        key = getpass.getpass(f"Key for {name} (is not shown): ").strip()
    else:
        key = sys.stdin.read(KEY_LIMIT + 1).strip()
    if not key or len(key) > KEY_LIMIT or len(key.split()) != 1:
        raise typer.BadParameter("give one key: on the terminal, or as the only line of stdin")
    return key
