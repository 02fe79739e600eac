"""Finds out which of the addresses that callers state are worth telling others: those at which the caller answers.

A member may lie and state somebody else's address, again and again. So there are few dials at a time, apart from those to
members; one round for a node at a time, rarely more; and an address that did not answer is left alone for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from swarmd.domain.ids import NodeId, short
from swarmd.domain.peers import Endpoint
from swarmd.kit.flow import TokenBucket
from swarmd.kit.world import Clock
from swarmd.peers.book import PeerBook
from swarmd.transport.connection import Connection
from swarmd.transport.rpc import Spawn

DIALS: Final = 4  # at once; 150 members that come back after a power cut are through in a minute, on what answers at once
BURST: Final = 16.0  # dials for one node: all the addresses it may state, twice
PER_S: Final = 1 / 60  # and then: a liar makes one node dial somebody once a minute
LEFT_ALONE_S: Final = 3600.0  # an address that did not answer; a port is opened rarely, and links that dial find out first
REMEMBERED: Final = 1000  # nodes, and addresses that did not answer: as many as the book has nodes

logger = logging.getLogger(__name__)


class Prober(Protocol):
    """What is needed of `transport.doors.Doors`."""

    async def reaches(self, endpoint: Endpoint, static_public: bytes) -> bool: ...


class Proving:
    """One per node."""

    def __init__(
        self, *, book: PeerBook, prober: Prober, spawn: Spawn, clock: Clock, changed: Callable[[], None]
    ) -> None:
        """`changed`: called when an address was proven."""
        self._book, self._prober, self._spawn, self._clock, self._changed = book, prober, spawn, clock, changed
        self._turns = asyncio.Semaphore(DIALS)
        self._running: set[NodeId] = set()
        self._patience: OrderedDict[NodeId, TokenBucket] = OrderedDict()
        self._failed: OrderedDict[tuple[NodeId, Endpoint], float] = OrderedDict()

    def begin(self, connection: Connection) -> None:
        """Somebody came to us; it stated its addresses, and they are in the book."""
        node = connection.node
        if node in self._running or not self._worth(node):
            return
        self._running.add(node)
        task = self._spawn(self._prove(connection), name=f"addresses of {short(node)}")
        task.add_done_callback(lambda _: self._running.discard(node))

    def _worth(self, node: NodeId) -> list[Endpoint]:
        now = self._clock.monotonic()
        return [
            one for one in self._book.unproven_endpoints(node)
            if now - self._failed.get((node, one), -LEFT_ALONE_S) >= LEFT_ALONE_S
        ]  # fmt: skip

    async def _prove(self, connection: Connection) -> None:
        node = connection.node
        patience = self._patience.pop(node, None) or TokenBucket(PER_S, BURST, clock=self._clock)
        self._patience[node] = patience
        if len(self._patience) > REMEMBERED:
            self._patience.popitem(last=False)
        for endpoint in self._worth(node):
            async with self._turns:
                if connection.closed is not None or not patience.try_take():
                    return
                reached = await self._prober.reaches(endpoint, connection.remote_static)
            if reached:
                await self._book.record_seen(node, endpoint=endpoint)
                self._changed()
            else:
                self._failed[node, endpoint] = self._clock.monotonic()
                if len(self._failed) > REMEMBERED:
                    self._failed.popitem(last=False)
