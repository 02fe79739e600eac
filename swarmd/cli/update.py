"""`update`: which version the node runs, whether there is a newer one, and the switch."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import typer

from swarmd import __version__
from swarmd.api import updates as shapes
from swarmd.cli.client import NodeClient
from swarmd.cli.failure import Failure
from swarmd.cli.network import AsJson
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Url, find
from swarmd.cli.terminal import finish, say, say_json
from swarmd.kit.world import real_world

BACK_S: Final = 60.0 + 30.0  # a new version has 60 s to become ready; another half minute until the old one is back
POLL_S: Final = 0.5
CHANGES_SHOWN: Final = 40  # lines

Retry = Annotated[bool, typer.Option("--retry", help="Also to a version that was tried here and rolled back.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until the node is back.")]


def update(
    context: typer.Context,
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """New versions of swarmd: what is known, `check` to look now, `apply` to switch."""
    if context.invoked_subcommand is None:
        finish(_show(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), as_json=as_json))


def check(
    *, as_json: AsJson = False, url: Url = None, data_dir: DataFolder = None, config: Config = None, key_file: KeyFile = None
) -> None:
    """Look for a newer version now."""
    finish(_check(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), as_json=as_json))


def apply(
    *,
    retry: Retry = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Switch the node to the newest version. Replies that run are waited for; a version that fails is taken back."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    finish(_apply(chosen, retry=retry, wait=not no_wait, as_json=as_json))


async def _show(chosen: Chosen, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        found = await node.version()
    if as_json:
        say_json(found)
        return
    say(f"the node runs swarmd {found.current_version}")
    if found.channel == "disabled":
        say("it looks for no updates by itself: updates.feed_url and updates.mode (docs/updates.md)")
    if found.latest_version is not None:
        say(f"swarmd {found.latest_version} is available: `swarmd update apply` switches to it")
        say_changes(found.changelog or "")
    elif found.last_checked is not None:
        say(f"there was nothing newer at {found.last_checked[:16].replace('T', ' ')} UTC")
    if found.last_error is not None:
        say(found.last_error, style="red")
    if found.restart_required:
        say("it is about to restart as another version")


async def _check(chosen: Chosen, *, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        found = await node.check_update()
    if as_json:
        say_json(found)
        return
    if isinstance(found, shapes.UpToDate):
        say(f"swarmd {found.current_version} is the newest version for this node")
        return
    info = found.info
    here = "is here" if info.downloaded else f"is available ({info.size_bytes / 1e6:.1f} MB)"
    say(f"swarmd {info.latest_version} of {info.published_at[:10]} {here}; the node runs {info.current_version}")
    say_changes(info.changelog)
    say("`swarmd update apply` switches to it")


def say_changes(text: str) -> None:
    lines = text.strip().splitlines()
    for line in lines[:CHANGES_SHOWN]:
        say(f"  {line}")
    if len(lines) > CHANGES_SHOWN:
        say(f"  ... and {len(lines) - CHANGES_SHOWN} lines more (`--json` has all)")


async def _apply(chosen: Chosen, *, retry: bool, wait: bool, as_json: bool) -> None:
    async with NodeClient(find(chosen)) as node:
        before = (await node.version()).current_version
        applied = await node.apply_update(retry=retry)
    if not as_json:
        say(f"switching from {before} to {applied.version}: {applied.message}")
    if wait:
        await _back(chosen, applied.version, as_json=as_json)
    if as_json:
        say_json(applied)


async def _back(chosen: Chosen, version: str, *, as_json: bool) -> None:
    """Until the node is back as that version. Raises Failure when it comes back as another one, or not at all."""
    clock = real_world().clock
    drained = False
    end = None
    while True:
        await asyncio.sleep(POLL_S)
        try:
            async with NodeClient(find(chosen)) as node:  # the port may be another one now
                found = await node.version()
                ready = (await node.readiness()).ready
        except Failure:
            drained, end = True, end or clock.monotonic() + BACK_S
            found, ready = None, False
        if found is not None and ready:
            if found.current_version == version:
                if not as_json:
                    say(f"the node runs swarmd {version}")
                    say_old_command(version)
                return
            if found.last_error is not None and version in found.last_error:
                raise Failure(found.last_error)
            if drained and not found.restart_required:
                raise Failure(f"the node is back as {found.current_version}: look into its log")
        if end is not None and clock.monotonic() > end:
            raise Failure(f"the node did not come back within {BACK_S:.0f} s: look into its log")


def say_old_command(version: str) -> None:
    """The node is a newer one; what was installed, this command with it, is not."""
    if version != __version__:
        say(f"this command is still {__version__} and works with it; `pipx upgrade swarmd` renews it, too")
