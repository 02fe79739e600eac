"""Says to everybody what this node holds and has free: one summary, which `peers.gossip` spreads.

Facts about shards, workers and short codes are told within COALESCE_S, and while they keep coming, as in a download, once in
APART_S with all that has come together, as long as the budget lasts; what drifts (free memory, speeds, demand) every
DRIFT_S at most, and only when it has gone far: whatever is told here, every node of the swarm has to hear. And every
HEARTBEAT_S what is so is told anew as a sign of life, for nodes that have no link to this one.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from swarmd.domain.events import (
    ModelRemoved,
    SettingsChanged,
    ShardDownloadStarted,
    ShardDropped,
    ShardStored,
    ShortCodeEnded,
    ShortCodeMade,
    WorkerDied,
    WorkerReady,
    WorkerStopped,
)
from swarmd.domain.ids import ModelId, NodeId, short
from swarmd.domain.peers import (
    MAX_NEAR,
    MAX_RTT_TENTHS,
    MAX_SESSIONS,
    Endpoint,
    Holding,
    ModelDemand,
    NodeSummary,
    PeerView,
    RoundTrip,
)
from swarmd.kit.bus import EventBus
from swarmd.kit.flow import TokenBucket
from swarmd.kit.service import Ready
from swarmd.kit.world import World
from swarmd.peers.fact_table import AHEAD_S

COALESCE_S: Final = 0.25  # a model that is loaded or deleted makes a fact for every shard within milliseconds
APART_S: Final = 1.0  # a download is followed from second to second; a shard takes longer nearly everywhere
AT_ONCE: Final = 3  # tells that need not be apart: a person who makes a short code in the midst waits for nothing
TELLS_BURST: Final = 40  # a model of so many shards that comes in a minute; 36 kB in records of 900 bytes
TELLS_PER_S: Final = 0.25  # others take 48, then one in 3 s (`peers.fact_table`): one who keeps to this is never held back
LOOK_S: Final = 30.0  # how often the numbers that drift are looked at
DRIFT_S: Final = 60.0  # plans are made with these numbers, and every node checks again before it loads anything
HEARTBEAT_S: Final = 180.0  # of 1,000 nodes some six a second, 700 bytes each; see docs/performance.md
JITTER: Final = 0.15  # of the heartbeat, so that nodes that start together do not speak together
BELIEVED_AHEAD_MS: Final = int(AHEAD_S * 1000)
RAM_STEP: Final = 16 * 1024 * 1024  # free memory in steps of 16 MiB: its flicker is no news
RAM_DRIFT: Final = 1 / 32  # of all memory: 512 MiB of 16 GiB, about a shard
SPEED_DRIFT: Final = 0.1  # of the measured time of a layer: measurements scatter by half as much
DEMAND_DRIFT: Final = 0.25
RTT_DRIFT: Final = 0.3  # of a round trip: those over the air scatter by nearly as much
RTT_DRIFT_TENTHS: Final = 20  # 2 ms: less than a layer takes
SESSIONS_DRIFT: Final = 2  # one more or less is over before everybody has heard of it
DEMAND_STEP: Final = 2  # requests: one more or less within ten minutes changes no plan


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
        peers: Callable[[], Sequence[PeerView]],
        sessions: Callable[[], int],
        nickname: Callable[[], str] = str,
    ) -> None:
        """`announce`: of the links. `free_ram`: bytes workers may still take. `layer_ms`: measured on this node. `peers`:
        with their round trips; `sessions`: stages that run here; `nickname`: as the settings have it now."""
        self._node, self._holdings, self._announce = node, holdings, announce
        self._world, self._bus, self._software, self._region = world, bus, software, region
        self._free_ram, self._total_ram_bytes = free_ram, total_ram_bytes
        self._layer_ms, self._endpoints, self._demand = layer_ms, endpoints, demand
        self._nameplates, self._peers, self._sessions, self._nickname = nameplates, peers, sessions, nickname
        self._started_at = world.clock.now()
        self._told: NodeSummary | None = None
        self._pace = TokenBucket(TELLS_PER_S, TELLS_BURST, clock=world.clock)
        self._beat = TokenBucket(1 / APART_S, AT_ONCE, clock=world.clock)

    async def run(self, ready: Ready) -> None:
        codes = (ShortCodeMade, ShortCodeEnded)
        shards = (ShardDownloadStarted, ShardStored, ShardDropped, ModelRemoved)
        workers = (WorkerReady, WorkerStopped, WorkerDied)
        with self._bus.subscribe(*shards, *workers, *codes, SettingsChanged) as inbox:
            self.tell()
            ready()
            clock = self._world.clock
            told_at, heartbeat_s = clock.monotonic(), self._heartbeat_s()
            while True:
                try:
                    async with asyncio.timeout(LOOK_S):
                        await anext(inbox)
                except TimeoutError:
                    pass
                else:
                    await asyncio.sleep(COALESCE_S)
                    await self._beat.take()
                    await self._pace.take()
                    inbox.drain()
                silent_s = clock.monotonic() - told_at + LOOK_S / 2  # the nearest look counts
                if self.tell(drift=silent_s >= DRIFT_S, again=silent_s >= heartbeat_s):
                    told_at, heartbeat_s = clock.monotonic(), self._heartbeat_s()

    def tell(self, *, drift: bool = False, again: bool = False) -> bool:
        """Announce what is so now, if it differs from what was announced in what matters at once. `drift`: or in numbers
        that have gone far; `again`: in any case. False: there was nothing to announce."""
        summary, told = self.summary(), self._told
        if told is not None and not again and _steady(summary) == _steady(told) and not (drift and drifted(summary, told)):
            return False
        self._told = summary
        self._announce(summary)
        return True

    def summary(self) -> NodeSummary:
        """A version is the time in milliseconds, and more than the last one: a clock set back must not silence us. One set
        back by more than a day must not either: what was dated so far ahead, nobody has believed."""
        version = int(self._world.clock.now() * 1000)
        if self._told is not None and self._told.version <= version + BELIEVED_AHEAD_MS:
            version = max(version, self._told.version + 1)
        free = max(0, min(self._free_ram(), self._total_ram_bytes))
        holdings = self._holdings.holdings()
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
                for holding in holdings
            ),
            near=nearest(holdings, self._peers()),
            sessions=min(MAX_SESSIONS, self._sessions()),
            nickname=self._nickname(),
        )

    def _heartbeat_s(self) -> float:
        return HEARTBEAT_S * self._world.entropy.uniform(1 - JITTER, 1 + JITTER)


def nearest(holdings: Sequence[Holding], peers: Sequence[PeerView]) -> tuple[RoundTrip, ...]:
    """Round trips to those with whom this node could share a pipeline, the MAX_NEAR shortest, sorted by node."""
    ours = {(holding.model, holding.layout) for holding in holdings if holding.shards}
    found = [
        RoundTrip(node=short(peer.record.node), tenths_ms=min(MAX_RTT_TENTHS, round(peer.rtt_ms * 10)))
        for peer in peers
        if peer.connected and peer.rtt_ms is not None and peer.summary is not None
        if any(holding.shards and (holding.model, holding.layout) in ours for holding in peer.summary.holdings)
    ]
    shortest = heapq.nsmallest(MAX_NEAR, found, key=lambda one: (one.tenths_ms, one.node))
    return tuple(sorted(shortest, key=lambda one: one.node))


def drifted(now: NodeSummary, told: NodeSummary) -> bool:
    """Whether numbers that change all the time have gone so far that it is worth telling everybody."""
    if abs(now.ram_free_bytes - told.ram_free_bytes) > max(4 * RAM_STEP, now.ram_total_bytes * RAM_DRIFT):
        return True
    asked = {one.model: one.requests for one in told.demand}
    if {one.model for one in now.demand} != set(asked):
        return True
    if any(abs(one.requests - asked[one.model]) > max(DEMAND_STEP, asked[one.model] * DEMAND_DRIFT) for one in now.demand):
        return True
    if abs(now.sessions - told.sessions) > SESSIONS_DRIFT:
        return True
    trips = {one.node: one.tenths_ms for one in told.near}
    if any(_is_other_trip(one.tenths_ms, trips.get(one.node)) for one in now.near):
        return True
    speeds = {holding.model: holding.layer_ms for holding in told.holdings}
    return any(_is_other_speed(holding.layer_ms, speeds.get(holding.model)) for holding in now.holdings)


def _is_other_trip(now: int, told: int | None) -> bool:
    return told is None or abs(now - told) > max(RTT_DRIFT_TENTHS, told * RTT_DRIFT)


def _is_other_speed(now: float | None, told: float | None) -> bool:
    if now is None or told is None:
        return now is not told
    return abs(now - told) > told * SPEED_DRIFT


def _steady(summary: NodeSummary) -> NodeSummary:
    """Without the numbers that drift."""
    holdings = tuple(replace(holding, layer_ms=None) for holding in summary.holdings)
    return replace(summary, version=0, ram_free_bytes=0, demand=(), holdings=holdings, near=(), sessions=0)
