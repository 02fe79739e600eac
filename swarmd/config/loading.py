"""Settings in and out: defaults, then the TOML file, then the environment, then flags; later ones win.

What is unknown or out of range is refused with the key, the value and the allowed range: a node that starts with other
settings than its owner wrote down is worse than one that does not start. `save` writes back only what was changed, so
neither defaults nor environment nor flags ever freeze in the file.

`load` and `save` block on the disk (a few milliseconds): in the running node call them through `asyncio.to_thread`.
"""

from __future__ import annotations

import difflib
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, cast

import tomlkit
from tomlkit.exceptions import TOMLKitError

from swarmd.config.settings import KEYS, SECTIONS, Key, Settings, Value, value_of, with_values
from swarmd.domain.refusals import Invalid
from swarmd.kit.disk import PRIVATE, Disk

FILE_NAME: Final = "config.toml"  # in the data folder
FILE_LIMIT: Final = 1024 * 1024  # bytes; the example with every comment has 8 kB
ENVIRONMENT_PREFIX: Final = "SWARMD_"
CLIENT_VARIABLES: Final = ("SWARMD_URL", "SWARMD_API_KEY_FILE")  # no settings: which node the client commands talk to

_ENVIRONMENT: Final = {key.environment: key for key in KEYS.values()}
_TRUE: Final = ("true", "1", "yes", "on")
_FALSE: Final = ("false", "0", "no", "off")


class Origin(Enum):
    """Where the value of a setting came from."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    settings: Settings
    """`node.data_dir` is never empty here: the platform's folder is filled in."""
    origins: Mapping[str, Origin]
    """For every dotted path."""
    path: Path
    """The file that was read, or would be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Dotted paths whose values differ, by what it takes to apply them."""

    live: tuple[str, ...]
    restart: tuple[str, ...]


def platform_data_folder(environ: Mapping[str, str]) -> Path:
    """`swarmd` where this platform keeps application data: XDG, or Application Support on macOS."""
    home = Path(environ.get("HOME") or Path.home())
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "swarmd"
    base = environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base.startswith("/") else home / ".local" / "share") / "swarmd"  # XDG: relative is ignored


def default_path(environ: Mapping[str, str], flags: Mapping[str, Value | None]) -> Path:
    """The settings file of a node that was not told one: `config.toml` in its data folder."""
    chosen = flags.get("node.data_dir") or environ.get(KEYS["node.data_dir"].environment)
    folder = _expanded(str(chosen), environ) if chosen else platform_data_folder(environ)
    return folder / FILE_NAME


def load(
    path: Path, environ: Mapping[str, str], flags: Mapping[str, Value | None], *, disk: Disk | None = None
) -> Loaded | Invalid:
    """The settings of a node that starts now. A file that does not exist counts as empty.

    `flags` holds values by dotted path; None stands for a flag that was not given, a text is read like the environment.
    Raises OSError when the file exists and cannot be read.
    """
    stored = read_file(path, disk=disk)
    if isinstance(stored, Invalid):
        return stored
    surroundings = _from_environment(environ)
    if isinstance(surroundings, Invalid):
        return surroundings
    given = _from_flags(flags)
    if isinstance(given, Invalid):
        return given
    origins = dict.fromkeys(KEYS, Origin.DEFAULT)
    values: dict[str, Value] = {}
    layers = ((stored, Origin.FILE), (surroundings, Origin.ENVIRONMENT), (given, Origin.FLAG))
    for layer, origin in layers:
        values.update(layer)
        origins.update(dict.fromkeys(layer, origin))
    chosen = str(values.get("node.data_dir", ""))
    values["node.data_dir"] = str(_expanded(chosen, environ) if chosen else platform_data_folder(environ))
    return Loaded(settings=with_values(Settings(), values), origins=origins, path=path)


def parse(path: str, text: str) -> Value | Invalid:
    """`text` as the value of the setting with this dotted path, as the environment writes it."""
    return _checked(path, _read(KEYS[path], text) if path in KEYS else text)


def read_file(path: Path, *, disk: Disk | None = None) -> dict[str, Value] | Invalid:
    """The values in a settings file by dotted path, checked. No file: none."""
    try:
        text = (disk or Disk()).read_bytes_now(path, limit=FILE_LIMIT).decode()
        tables = tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return Invalid(what=f"{path} is not valid TOML: {error}")
    values: dict[str, Value] = {}
    for section, table in tables.items():
        if section not in SECTIONS or not isinstance(table, dict):
            hint = _nearest(section, SECTIONS)
            return Invalid(what=f"{path}: there is no section [{section}]{hint}", param=section)
        for name, value in cast("dict[str, object]", table).items():
            found = _checked(f"{section}.{name}", value)
            if isinstance(found, Invalid):
                return Invalid(what=f"{path}: {found.what}", param=found.param)
            values[f"{section}.{name}"] = found
    return values


def save(path: Path, changes: Mapping[str, Value], *, disk: Disk | None = None) -> Invalid | None:
    """Store changed settings by dotted path: atomic, mode 0600, comments and order of the file kept.

    A value equal to its default leaves the file, so that a later version may bring a better default. Everything that is
    not in `changes` stays as its owner wrote it. Raises OSError when the file cannot be written.
    """
    disk = disk or Disk()
    stored = read_file(path, disk=disk)
    if isinstance(stored, Invalid):
        return stored  # a broken file is its owner's to mend, not ours to overwrite
    for dotted, value in changes.items():
        if isinstance(checked := _checked(dotted, value), Invalid):
            return checked
    try:
        text = disk.read_bytes_now(path, limit=FILE_LIMIT).decode()
    except FileNotFoundError:
        text = ""
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        return Invalid(what=f"{path} is not valid TOML: {error}")
    for dotted, value in changes.items():
        key = KEYS[dotted]
        if value == key.default:
            if dotted in stored:
                del document[key.section][key.name]
            continue
        if key.section not in document:
            document[key.section] = tomlkit.table()
        document[key.section][key.name] = value
    disk.make_folder_now(path.parent, mode=0o700)
    disk.write_atomic_now(path, tomlkit.dumps(document).encode(), mode=PRIVATE)
    return None


def changed(loaded: Loaded, changes: Mapping[str, Value]) -> Loaded | Invalid:
    """What `loaded` becomes after `save(loaded.path, changes)` in the running node."""
    for dotted, value in changes.items():
        if isinstance(checked := _checked(dotted, value), Invalid):
            return checked
    origins = {**loaded.origins, **dict.fromkeys(changes, Origin.FILE)}
    return Loaded(settings=with_values(loaded.settings, changes), origins=origins, path=loaded.path)


def diff(old: Settings, new: Settings) -> Changes:
    """Which settings differ, in the order of declaration."""
    paths = [path for path in KEYS if value_of(old, path) != value_of(new, path)]
    return Changes(
        live=tuple(path for path in paths if KEYS[path].declared.live),
        restart=tuple(path for path in paths if not KEYS[path].declared.live),
    )


def _from_environment(environ: Mapping[str, str]) -> dict[str, Value] | Invalid:
    values: dict[str, Value] = {}
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in CLIENT_VARIABLES:
            continue
        key = _ENVIRONMENT.get(name)
        if key is None:
            hint = _nearest(name, _ENVIRONMENT)
            return Invalid(what=f"the environment variable {name} names no setting{hint}", param=name)
        found = _checked(key.path, _read(key, environ[name]))
        if isinstance(found, Invalid):
            return Invalid(what=f"the environment variable {name}: {found.what}", param=key.path)
        values[key.path] = found
    return values


def _from_flags(flags: Mapping[str, Value | None]) -> dict[str, Value] | Invalid:
    values: dict[str, Value] = {}
    for path, value in flags.items():
        if value is None:
            continue
        found = _checked(path, _read(KEYS[path], value) if path in KEYS and isinstance(value, str) else value)
        if isinstance(found, Invalid):
            return found
        values[path] = found
    return values


def _checked(path: str, value: object) -> Value | Invalid:
    key = KEYS.get(path)
    if key is None:
        return Invalid(what=f"there is no setting {path}{_nearest(path, KEYS)}", param=path)
    if (problem := key.problem(value)) is not None:
        return Invalid(what=problem, param=path)
    return cast("Value", value)


def _read(key: Key, text: str) -> Value:
    """`text` as the setting's kind; unchanged when it cannot be, so that the check names it."""
    if key.kind == "text":
        return text
    word = text.strip().lower()
    if key.kind == "number":
        return int(word) if word.removeprefix("-").isdecimal() and word.isascii() else text
    return True if word in _TRUE else False if word in _FALSE else text


def _nearest(name: str, known: Iterable[str]) -> str:
    """`: did you mean X?`, or the list when nothing is near and the list is short."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f": did you mean {near[0]}?"
    return f": the known ones are {', '.join(known)}" if len(known) <= len(SECTIONS) else ""


def _expanded(folder: str, environ: Mapping[str, str]) -> Path:
    if folder == "~" or folder.startswith("~/"):
        return Path(environ.get("HOME") or Path.home()) / folder[2:]
    return Path(folder).expanduser()
