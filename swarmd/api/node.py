"""The node itself: statistics, settings, version, shutdown."""

from __future__ import annotations

import asyncio
from typing import Any

from swarmd import __version__
from swarmd.api import shapes, views
from swarmd.api.calls import Call, Encoded
from swarmd.api.fresh import Fresh
from swarmd.api.live_settings import LiveSettings
from swarmd.api.ports import Counters, Guesses, Ledger, Machine, Models, Peers
from swarmd.api.replies import NotStored
from swarmd.api.setting_rows import SettingList, setting_list
from swarmd.config.contract import flat_view
from swarmd.config.settings import KEYS
from swarmd.domain.ids import NodeId
from swarmd.domain.refusals import Refusal
from swarmd.kit.world import Clock


class NodeHandlers:
    def __init__(
        self,
        *,
        node: NodeId,
        clock: Clock,
        settings: LiveSettings,
        counters: Counters,
        machine: Machine,
        models: Models,
        peers: Peers,
        ledger: Ledger,
        guesses: Guesses,
        figures: Fresh,
        stop: asyncio.Event,
    ) -> None:
        """`stop`: set when somebody asks for an orderly shutdown; `app` waits for it. `figures`: keeps the statistics."""
        self._figures = figures
        self._ledger, self._guesses = ledger, guesses
        self._node, self._clock, self._settings, self._counters = node, clock, settings, counters
        self._machine, self._models, self._peers, self._stop = machine, models, peers, stop
        self._started_at = clock.monotonic()

    async def stats(self, _call: Call) -> Encoded:
        """`shapes.Stats`."""
        return self._figures.reply(self._stats)

    def _stats(self) -> shapes.Stats:
        return views.stats(
            node=self._node,
            version=__version__,
            uptime_s=self._clock.monotonic() - self._started_at,
            counters=self._counters,
            hosted_shards=sum(len(self._models.held(model)) for model in self._models.models()),
            peers=sum(peer.connected for peer in self._peers.views()),
            hardware=self._machine.snapshot(),
            ledger=self._ledger,
            guesses=self._guesses,
        )

    async def config(self, _call: Call) -> dict[str, bool | int | str]:
        return flat_view(self._settings.current())

    async def config_schema(self, _call: Call) -> SettingList:
        return setting_list(self._settings)

    async def change_config(self, call: Call) -> shapes.Done | Refusal:
        body: dict[str, Any] = call.body
        try:
            refusal = await self._settings.change(body)
        except OSError as error:
            return NotStored(reason=error.strerror or type(error).__name__)
        return shapes.Done(status="ok") if refusal is None else refusal

    async def reload_config(self, _call: Call) -> shapes.Reloaded | Refusal:
        applied = await self._settings.reload()
        if isinstance(applied, Refusal):
            return applied
        return shapes.Reloaded(
            status="ok",
            changed=bool(applied.live or applied.restart),
            applied={key: value for key, value in applied.live.items() if not KEYS[key].declared.secret},
            restart_required={key: value for key, value in applied.restart.items() if not KEYS[key].declared.secret},
        )

    async def shutdown(self, _call: Call) -> shapes.Done:
        self._stop.set()
        return shapes.Done(status="shutting_down")
