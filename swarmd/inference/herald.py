"""Tells the neighbours what this node holds and has free: one summary, renewed when something changed.

Facts about shards, workers and short codes are told within COALESCE_S; what drifts (free memory, speeds, demand) every
EVERY_S.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from swarmd.domain.events import (
    ModelRemoved,
    ShardDropped,
    ShardStored,
    ShortCodeEnded,
    ShortCodeMade,
    WorkerDied,
    WorkerReady,
    WorkerStopped,
)
from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.peers import Endpoint, Holding, ModelDemand, NodeSummary
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Ready
from swarmd.kit.world import World

COALESCE_S: Final = 0.2  # a model that is loaded or deleted makes a fact for every shard within milliseconds
EVERY_S: Final = 30.0  # plans are made with these numbers, and every node checks again before it loads anything
RAM_STEP: Final = 16 * 1024 * 1024  # free memory in steps of 16 MiB: its flicker is no news


class Holdings(Protocol):
    """`shards.registry.Registry`."""

    def holdings(self) -> tuple[Holding, ...]: ...


class Herald:
    """A service."""

    name = "herald"

    def __init__(
        self,
        *,
        node: NodeId,
        holdings: Holdings,
        announce: Callable[[NodeSummary], None],
        world: World,
        bus: EventBus,
        software: str,
        region: str,
        free_ram: Callable[[], int],
        total_ram_bytes: int,
        layer_ms: Callable[[ModelId], float | None],
        endpoints: Callable[[], tuple[Endpoint, ...]],
        demand: Callable[[], tuple[ModelDemand, ...]],
        nameplates: Callable[[], tuple[int, ...]],
    ) -> None:
        """`announce`: of the links. `free_ram`: bytes workers may still take. `layer_ms`: measured on this node."""
        self._node, self._holdings, self._announce = node, holdings, announce
        self._world, self._bus, self._software, self._region = world, bus, software, region
        self._free_ram, self._total_ram_bytes = free_ram, total_ram_bytes
        self._layer_ms, self._endpoints, self._demand = layer_ms, endpoints, demand
        self._nameplates = nameplates
        self._started_at = world.clock.now()
        self._told: NodeSummary | None = None

    async def run(self, ready: Ready) -> None:
        codes = (ShortCodeMade, ShortCodeEnded)
        facts = (ShardStored, ShardDropped, ModelRemoved, WorkerReady, WorkerStopped, WorkerDied, *codes)
        with self._bus.subscribe(*facts) as inbox:
            self.tell()
            ready()
            while True:
                try:
                    async with asyncio.timeout(EVERY_S):
                        await anext(inbox)
                except TimeoutError:
                    self.tell()
                    continue
                await asyncio.sleep(COALESCE_S)
                inbox.drain()
                self.tell()

    def tell(self) -> None:
        """Announce what is so now, if it differs from what was announced."""
        summary = self.summary()
        told = self._told
        if told is not None and replace(summary, version=told.version) == told:
            return
        self._told = summary
        self._announce(summary)

    def summary(self) -> NodeSummary:
        """A version is the time in milliseconds, and more than the last one: a clock set back must not silence us."""
        version = int(self._world.clock.now() * 1000)
        if self._told is not None:
            version = max(version, self._told.version + 1)
        free = max(0, min(self._free_ram(), self._total_ram_bytes))
        return NodeSummary(
            node=self._node,
            version=version,
            software=self._software,
            started_at=self._started_at,
            ram_free_bytes=free - free % RAM_STEP,
            ram_total_bytes=self._total_ram_bytes,
            region=self._region,
            endpoints=self._endpoints(),
            demand=self._demand(),
            nameplates=self._nameplates(),
            holdings=tuple(
                replace(holding, layer_ms=None if (speed := self._layer_ms(holding.model)) is None else round(speed, 3))
                for holding in self._holdings.holdings()
            ),
        )
