"""Every setting as a row for people: `GET /api/admin/config/schema`. Made from the declarations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from swarmd.config.contract import FILE_ONLY
from swarmd.config.loading import Origin
from swarmd.config.settings import KEYS, Key, Value, value_of

if TYPE_CHECKING:
    from swarmd.api.live_settings import LiveSettings  # commands read the shapes, and start quicker without it


class SettingRow(Struct, frozen=True, kw_only=True):
    """One setting. Not in the contract."""

    key: str
    """Dotted path; `PUT /api/admin/config` takes it as a name."""
    section: str
    name: str
    type: str
    """`switch`, `number` or `text`."""
    range: str
    """The allowed values in words."""
    low: int | None
    high: int | None
    """Of a number, both inclusive."""
    choices: list[str]
    """Of a text that is one of a few; else empty."""
    default: bool | int | str
    value: bool | int | str | None
    """In force. Null of a secret, which is never shown; the same holds for the next."""
    waiting: bool | int | str | None
    """Stored, and in force after a restart; null: nothing waits."""
    source: str
    """Where the value came from: `default`, `file`, `environment` or `flag`."""
    live: bool
    """A change takes effect at once. False: at the next start."""
    writable: bool
    why_not: str | None
    """Where it is not writable: what to do instead."""
    secret: bool
    doc: str
    environment: str
    """Name of the variable that sets it."""


class SettingList(Struct, frozen=True, kw_only=True):
    settings: list[SettingRow]
    """In the order of the reference page."""
    file: str
    """The settings file, which may not exist yet."""


def setting_list(settings: LiveSettings) -> SettingList:
    return SettingList(settings=[_row(key, settings) for key in KEYS.values()], file=str(settings.path))


def _row(key: Key, settings: LiveSettings) -> SettingRow:
    declared, origin = key.declared, settings.origin(key.path)
    why_not = _why_not(key, origin)
    waiting: Value | None = settings.waiting.get(key.path)
    return SettingRow(
        key=key.path,
        section=key.section,
        name=key.name,
        type=key.kind,
        range=key.range,
        low=declared.low,
        high=declared.high,
        choices=[*declared.choices],
        default=key.default,
        value=None if declared.secret else value_of(settings.current(), key.path),
        waiting=None if declared.secret else waiting,
        source=origin.value,
        live=declared.live,
        writable=why_not is None,
        why_not=why_not,
        secret=declared.secret,
        doc=declared.doc,
        environment=key.environment,
    )


def _why_not(key: Key, origin: Origin) -> str | None:
    if key.path in FILE_ONLY:
        return f"only in the settings file: {FILE_ONLY[key.path]}"
    match origin:
        case Origin.ENVIRONMENT:
            return f"set by the environment variable {key.environment}, which wins over the settings file"
        case Origin.FLAG:
            return "set by a flag of the command line, which wins over the settings file"
        case Origin.DEFAULT | Origin.FILE:
            return None
