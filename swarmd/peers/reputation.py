"""How far each other node is trusted, from what it was seen to do. Trust informs people; nobody is shut out by it.

Kept in memory and stored every WRITE_S when something changed: a `kill -9` loses the deeds of ten minutes, of which time
alone takes a fifth, and a busy head would else sync the database with every reply.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from swarmd.domain.events import (
    AdapterRejected,
    GenerationFinished,
    GenerationResumed,
    GenerationStarted,
    ShardRejected,
    SummaryRejected,
)
from swarmd.domain.ids import NodeId, RequestId
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Ready
from swarmd.kit.world import Clock
from swarmd.peers.book import MAX_PEERS
from swarmd.peers.trust import DEFAULT, Deed, drifted, judged
from swarmd.store import trust as sql
from swarmd.store.database import Database
from swarmd.store.trust import TrustRow

WRITE_S: Final = 600.0
MAX_KEPT: Final = MAX_PEERS  # as many as the book has
FORGOTTEN: Final = 0.005  # so near to DEFAULT that it says nothing: half of the least deed
MAX_RUNNING: Final = 1024  # four times the largest `inference.max_concurrent_requests`

Fact = ShardRejected | AdapterRejected | SummaryRejected | GenerationStarted | GenerationResumed | GenerationFinished


@dataclass(frozen=True, slots=True)
class _Judgement:
    score: float
    at: float
    """Monotonic."""


class Reputation:
    """A service; the owner of the table `trust`. `load` before anything else."""

    name = "reputation"

    def __init__(self, *, own: NodeId, db: Database, clock: Clock, bus: EventBus) -> None:
        self._own, self._db, self._clock, self._bus = own, db, clock, bus
        self._judgements: dict[NodeId, _Judgement] = {}
        self._running: OrderedDict[RequestId, tuple[NodeId, ...]] = OrderedDict()
        """Generations of this head and the nodes of their stages; the oldest goes when there are too many."""
        self._changed = False

    async def load(self) -> None:
        """What the last run thought, and what the time since has done to it."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        self._judgements = {
            row.node: _Judgement(drifted(row.score, now - row.judged_at), monotonic)
            for row in (await sql.read_trust(self._db))[:MAX_KEPT]
        }

    async def run(self, ready: Ready) -> None:
        with self._bus.subscribe(
            ShardRejected, AdapterRejected, SummaryRejected, GenerationStarted, GenerationResumed, GenerationFinished
        ) as inbox:
            ready()
            while True:
                try:
                    async with asyncio.timeout_at(self._clock.monotonic() + WRITE_S):
                        async for fact in inbox:
                            self._hear(fact)
                except TimeoutError:
                    await self._store()

    def score(self, node: NodeId) -> float:
        """Now."""
        known = self._judgements.get(node)
        return DEFAULT if known is None else drifted(known.score, self._clock.monotonic() - known.at)

    def _hear(self, fact: Fact) -> None:
        match fact:
            case ShardRejected():
                if fact.source is not None:
                    self._judge(fact.source, Deed.BAD_DATA)
            case AdapterRejected():
                self._judge(fact.source, Deed.BAD_DATA)
            case SummaryRejected():
                self._judge(fact.node, Deed.INVALID_GOSSIP)
            case GenerationStarted() | GenerationResumed():
                self._running[fact.request] = fact.nodes
                if len(self._running) > MAX_RUNNING:
                    self._running.popitem(last=False)
            case GenerationFinished():
                # Who failed is not known here, and cancelling is the client's right: neither says anything about a node.
                served = self._running.pop(fact.request, ())
                for node in set(served) if fact.outcome in ("stop", "length", "embedded") else ():
                    self._judge(node, Deed.SERVED)

    def _judge(self, node: NodeId, deed: Deed) -> None:
        if node == self._own:
            return
        self._judgements[node] = _Judgement(judged(self.score(node), deed), self._clock.monotonic())
        self._changed = True
        if len(self._judgements) > MAX_KEPT:
            del self._judgements[min(self._judgements, key=self._weight)]

    def _weight(self, node: NodeId) -> float:
        """How much would be lost if it were forgotten."""
        return abs(self.score(node) - DEFAULT)

    async def _store(self) -> None:
        if not self._changed:
            return
        self._changed = False
        for node in [node for node in self._judgements if self._weight(node) < FORGOTTEN]:
            del self._judgements[node]
        now = self._clock.now()
        rows = [TrustRow(node=node, score=self.score(node), judged_at=now) for node in sorted(self._judgements)]
        async with self._db.transaction() as tx:
            await sql.write_trust(tx, rows)
