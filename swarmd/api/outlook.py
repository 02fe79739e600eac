"""What the swarm can serve, and what it should hold more of: `economy.capacity` and `economy.wishlist`, asked and shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from swarmd.api import outlook_shapes
from swarmd.api.calls import Call
from swarmd.api.ports import Census, Machine, Models, Peers
from swarmd.domain.autopilot import ModelPolicy
from swarmd.domain.ids import ModelId
from swarmd.domain.regions import UNKNOWN, as_region
from swarmd.domain.shards import ModelView
from swarmd.economy import capacity, wishlist
from swarmd.kit.world import Clock


class Outlooks(Protocol):
    """What the live feed needs of `Outlook`."""

    def capacity(self, models: Sequence[ModelView]) -> outlook_shapes.SwarmCapacity: ...
    def wishes(self, models: Sequence[ModelView]) -> outlook_shapes.Wishlist: ...


class Outlook:
    def __init__(
        self,
        *,
        models: Models,
        peers: Peers,
        census: Census,
        machine: Machine,
        policy: Callable[[ModelId], ModelPolicy],
        clock: Clock,
    ) -> None:
        self._models, self._peers, self._census = models, peers, census
        self._machine, self._policy, self._clock = machine, policy, clock

    def capacity(self, models: Sequence[ModelView]) -> outlook_shapes.SwarmCapacity:
        here = self._machine.snapshot()
        machines = [
            capacity.Machine(
                region=self._census.here(), gpu=here.gpu_name, vram_bytes=None, disk_bytes=here.total_disk_bytes
            )
        ]
        for peer in self._peers.views():
            if peer.connected:
                told = peer.summary
                machines.append(
                    capacity.Machine(
                        region=UNKNOWN if told is None else as_region(told.region),
                        gpu=None if told is None else told.gpu, vram_bytes=None, disk_bytes=None,
                    )
                )  # fmt: skip
        found = capacity.swarm_capacity(machines, models, now=self._clock.now())
        return msgspec.convert(found, outlook_shapes.SwarmCapacity, from_attributes=True)

    def wishes(self, models: Sequence[ModelView]) -> outlook_shapes.Wishlist:
        nodes = 1 + sum(peer.connected for peer in self._peers.views())
        blocked = frozenset(view.model for view in models if not self._policy(view.model).enabled)
        found = wishlist.wishlist(
            models, nodes=nodes, demand=self._census.requests(), blocked=blocked, now=self._clock.now()
        )
        return msgspec.convert(found, outlook_shapes.Wishlist, from_attributes=True)

    async def show_capacity(self, _call: Call) -> outlook_shapes.SwarmCapacity:
        return self.capacity(self._views())

    async def show_wishlist(self, _call: Call) -> outlook_shapes.Wishlist:
        return self.wishes(self._views())

    def _views(self) -> list[ModelView]:
        found = (self._models.view(model) for model in self._models.models())
        return [view for view in found if view is not None]
