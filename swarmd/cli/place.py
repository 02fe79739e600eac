"""Which node a client command talks to, and with which key: from its options, else from what the running node wrote into its
data folder, else from the node's own settings."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from swarmd.api import whereabouts
from swarmd.api.api_key import FILE_NAME
from swarmd.cli.failure import USAGE, Failure
from swarmd.config.loading import CLIENT_VARIABLES, Loaded, Origin, default_path, load
from swarmd.config.settings import Settings, Value
from swarmd.domain.refusals import Invalid
from swarmd.kit.disk import Disk

KEY_LIMIT: Final = 1024  # bytes of a key file, as the node has it

DataFolder = Annotated[
    Path | None, typer.Option("--data-dir", help="The node's data folder.", show_default="the platform's")
]
Config = Annotated[
    Path | None, typer.Option("--config", help="The node's settings file.", show_default="config.toml in the data folder")
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url", envvar=CLIENT_VARIABLES[0], show_envvar=False, help="Where the node answers.",
        show_default=f"{CLIENT_VARIABLES[0]}, else where the node of the data folder says",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file", envvar=CLIENT_VARIABLES[1], show_envvar=False, help="File with its API key.",
        show_default=f"{CLIENT_VARIABLES[1]}, else SWARMD_API_API_KEY, else api_key in the data folder",
    ),
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A node to talk to."""

    url: str
    """Without a slash at the end."""
    key: str | None
    """None: there is no key file, which is fine for what a node shows freely on loopback."""
    key_path: Path
    """Where the key was looked for."""
    withheld: bool = False
    """The node is elsewhere, and nobody said with which key to talk to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The options of a client command as they were given."""

    url: str | None = None
    data_dir: Path | None = None
    config: Path | None = None
    key_file: Path | None = None


def flags_of(data_dir: Path | None, **more: Value | None) -> dict[str, Value | None]:
    """Options as settings by dotted path; `more`: with `__` for the dot. None: not given."""
    flags = {path.replace("__", "."): value for path, value in more.items()}
    return {**flags, "node.data_dir": None if data_dir is None else str(absolute(data_dir))}


def settings_of(flags: Mapping[str, Value | None], *, config: Path | None) -> Loaded:
    """The settings a node with these options has. Raises Failure when they cannot be read or are refused."""
    path = default_path(os.environ, flags) if config is None else absolute(config)
    if config is not None and not Disk().exists_now(path):
        raise Failure(f"there is no settings file {path}", exit_code=USAGE)
    try:
        loaded = load(path, os.environ, flags)
    except OSError as error:
        raise Failure(f"the settings file {path} cannot be read: {error.strerror or error}") from error
    if isinstance(loaded, Invalid):
        raise Failure(loaded.sentence, exit_code=USAGE)
    return loaded


def find(chosen: Chosen) -> Place:
    """Raises Failure when the settings are refused, the URL is none, or a key file that was named cannot be read."""
    loaded = settings_of(flags_of(chosen.data_dir), config=chosen.config)
    settings = loaded.settings
    key_path = absolute(chosen.key_file) if chosen.key_file else Path(settings.node.data_dir) / FILE_NAME
    url = _checked_url(chosen.url) if chosen.url else None
    if url is not None and is_elsewhere(url) and not _key_was_meant(chosen, loaded):
        # The key of this machine's own node opens it to whoever has the key: a stranger's URL does not get it unasked.
        return Place(url=url, key=None, key_path=key_path, withheld=True)
    key = settings.api.api_key if settings.api.api_key and chosen.key_file is None else _read_key(key_path)
    if key is None and chosen.key_file is not None:
        raise Failure(f"there is no key file {key_path}", exit_code=USAGE)
    if url is not None:
        return Place(url=url, key=key, key_path=key_path)
    running = whereabouts.read_now(Path(settings.node.data_dir), disk=Disk())
    return Place(url=running or url_of(settings), key=key, key_path=key_path)


def _key_was_meant(chosen: Chosen, loaded: Loaded) -> bool:
    """Somebody said which key: a file, a folder, a settings file, or the environment."""
    named = chosen.key_file is not None or chosen.data_dir is not None or chosen.config is not None
    return named or loaded.origins["api.api_key"] is Origin.ENVIRONMENT


def is_elsewhere(url: str) -> bool:
    """Not on this machine, as far as the text tells."""
    host = urlsplit(url).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def url_of(settings: Settings) -> str:
    """Where a node with these settings answers on this machine."""
    host = settings.node.listen_address
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{settings.node.listen_port}"
    if address.is_unspecified:
        host = "::1" if address.version == 6 else "127.0.0.1"
    return f"http://{f'[{host}]' if address.version == 6 else host}:{settings.node.listen_port}"


def absolute(path: Path) -> Path:
    """The node's settings want absolute paths; at a prompt people write relative ones."""
    return path.expanduser().absolute()


def _checked_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise Failure(f"{text!r} is not the URL of a node: give one like http://127.0.0.1:8800", exit_code=USAGE)
    return text.rstrip("/")


def _read_key(path: Path) -> str | None:
    try:
        return Disk().read_bytes_now(path, limit=KEY_LIMIT).decode("ascii").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not a key"
        raise Failure(f"the key file {path} cannot be read: {reason}") from error
