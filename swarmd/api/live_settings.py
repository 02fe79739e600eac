"""The settings in force, and the two ways to change them in the running node.

`app` makes one and hands `current` to whoever asks for settings again and again. Publishes `SettingsChanged`. What needs a
restart is stored and shown, and takes effect when the node starts again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from swarmd.config.contract import apply_flat
from swarmd.config.loading import Loaded, changed, diff, load, save
from swarmd.config.settings import Settings, Value, value_of, with_values
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

    def current(self) -> Settings:
        return self._loaded.settings

    async def change(self, changes: Mapping[str, object]) -> Refusal | None:
        """Flat keys of the contract: checked all together, stored, then applied. Raises OSError when not writable."""
        async with self._turn:
            accepted = apply_flat(self.current(), changes)
            if isinstance(accepted, Invalid):
                return accepted
            if not accepted.changes:
                return None
            refusal = await asyncio.to_thread(save, self._loaded.path, accepted.changes, disk=self._disk)
            if refusal is not None:
                return refusal
            loaded = changed(self._loaded, accepted.changes)
            if isinstance(loaded, Invalid):
                return loaded
            self._loaded = loaded
            self._bus.publish(SettingsChanged(keys=tuple(accepted.changes)))
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
            if live:
                self._bus.publish(SettingsChanged(keys=changes.live))
            return Applied(live=live, restart={key: value_of(found.settings, key) for key in changes.restart})
