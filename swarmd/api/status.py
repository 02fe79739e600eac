"""`GET /v1/status`: in one small reply what this node serves, what it is doing, and whether it is worth asking."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import UNSET, Struct, UnsetType

from swarmd import __version__
from swarmd.api.calls import Call
from swarmd.api.openai_shapes import CardSwarm, ModelCard
from swarmd.api.ports import Counters, Peers, Running
from swarmd.domain.ids import NodeId, short
from swarmd.kit.world import Clock


class ServedModel(Struct, frozen=True, kw_only=True):
    id: str
    owned_by: str
    """`local`, `hybrid`, or `network`; the name of a provider that answers in place of the swarm."""
    context_length: int | UnsetType = UNSET
    swarm: CardSwarm | UnsetType = UNSET


class Status(Struct, frozen=True, kw_only=True):
    node: str
    version: str
    uptime_seconds: int
    peers: int
    """Connected ones."""
    active: int
    """Replies that this node heads now."""
    queued: int
    """Requests that wait for a place."""
    stages: int
    """Of replies, whoever heads them, that run through this node now."""
    tokens_per_second: float | None
    """Of the last reply that ended; null before the first."""
    models: list[ServedModel]
    """What a request may name now."""


class StatusHandlers:
    def __init__(
        self,
        *,
        node: NodeId,
        clock: Clock,
        cards: Callable[[], Awaitable[list[ModelCard]]],
        running: Running,
        counters: Counters,
        peers: Peers,
    ) -> None:
        self._node, self._clock, self._cards = node, clock, cards
        self._running, self._counters, self._peers = running, counters, peers
        self._started_at = clock.monotonic()

    async def status(self, _call: Call) -> Status:
        return await self.now()

    async def now(self) -> Status:
        speed = self._counters.last_tokens_per_second
        return Status(
            node=short(self._node),
            version=__version__,
            uptime_seconds=int(self._clock.monotonic() - self._started_at),
            peers=sum(peer.connected for peer in self._peers.views()),
            active=self._running.active,
            queued=self._running.waiting,
            stages=self._running.stage_sessions,
            tokens_per_second=None if speed is None else round(speed, 2),
            models=[
                ServedModel(id=card.id, owned_by=card.owned_by, context_length=card.context_length, swarm=card.swarm)
                for card in await self._cards()
            ],
        )
