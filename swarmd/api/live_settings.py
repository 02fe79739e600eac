"""The settings in force, and the two ways to change them in the running node.

`app` makes one and hands `current` to whoever asks for settings again and again. Publishes `SettingsChanged`. What needs a
restart is stored and shown as `waiting`, and takes effect when the node starts again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swarmd.config.contract import apply_flat
from swarmd.config.loading import Loaded, Origin, changed, diff, load, save
from swarmd.config.settings import KEYS, Settings, Value, value_of, with_values
from swarmd.domain.events import SettingsChanged
from swarmd.domain.refusals import Invalid, NotFound, Refusal
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What a reload changed, by dotted path, with the new values."""

    live: Mapping[str, Value]
    restart: Mapping[str, Value]


class LiveSettings:
    """One per node."""

    def __init__(
        self,
        loaded: Loaded,
        *,
        environ: Mapping[str, str],
        flags: Mapping[str, Value | None],
        bus: EventBus,
        disk: Disk,
    ) -> None:
        """`environ` and `flags` as they were at the start: they still win over the file after a reload."""
        self._loaded, self._environ, self._flags, self._bus, self._disk = loaded, environ, flags, bus, disk
        self._turn = asyncio.Lock()
        self._waiting: dict[str, Value] = {}

    def current(self) -> Settings:
        return self._loaded.settings

    @property
    def path(self) -> Path:
        """The settings file, which may not exist yet."""
        return self._loaded.path

    @property
    def waiting(self) -> Mapping[str, Value]:
        """Stored here since the start, by dotted path, and in force only after a restart."""
        return self._waiting

    def origin(self, path: str) -> Origin:
        """Where the value in force came from."""
        return self._loaded.origins[path]

    async def change(self, changes: Mapping[str, object]) -> Refusal | None:
        """Flat keys of the contract, and paths: checked all together, stored, then applied as far as they are live.

        A path whose value the environment or the command line sets is refused: at the next start that would win again.
        Raises OSError when not writable.
        """
        async with self._turn:
            # Compared with what the next start would bring: a change that waits can be taken back.
            accepted = apply_flat(with_values(self.current(), self._waiting), changes)
            if isinstance(accepted, Invalid):
                return accepted
            if not accepted.changes:
                return None
            for path in accepted.changes:
                if path in changes and (where := self._fixed_by(path)) is not None:
                    return Invalid(what=f"{path} is set by {where}, which wins over the settings file", param=path)
            refusal = await asyncio.to_thread(save, self._loaded.path, accepted.changes, disk=self._disk)
            if refusal is not None:
                return refusal
            live = {path: value for path, value in accepted.changes.items() if KEYS[path].declared.live}
            loaded = changed(self._loaded, live)
            if isinstance(loaded, Invalid):
                return loaded
            self._loaded = loaded
            later = {path: value for path, value in {**self._waiting, **accepted.changes}.items() if path not in live}
            self._waiting = {path: value for path, value in later.items() if value != value_of(self.current(), path)}
            if live:
                self._bus.publish(SettingsChanged(keys=tuple(live)))
            return None

    def _fixed_by(self, path: str) -> str | None:
        match self.origin(path):
            case Origin.ENVIRONMENT:
                return f"the environment variable {KEYS[path].environment}"
            case Origin.FLAG:
                return "a flag of the command line"
            case Origin.DEFAULT | Origin.FILE:
                return None

    async def reload(self) -> Applied | Refusal:
        """Read the file again. Only live settings take effect; the others are reported."""
        async with self._turn:
            path = self._loaded.path
            if not await self._disk.exists(path):
                return NotFound(what=f"there is no settings file {path}")
            found = await asyncio.to_thread(load, path, self._environ, self._flags, disk=self._disk)
            if isinstance(found, Invalid):
                return found
            changes = diff(self.current(), found.settings)
            live = {key: value_of(found.settings, key) for key in changes.live}
            settings = with_values(self.current(), live)
            self._loaded = Loaded(settings=settings, origins=found.origins, path=path)
            self._waiting = {key: value_of(found.settings, key) for key in changes.restart}
            if live:
                self._bus.publish(SettingsChanged(keys=changes.live))
            return Applied(live=live, restart={key: value_of(found.settings, key) for key in changes.restart})
