"""Whom we know and where they are: in memory for reading, in the database for the next start.

The book decides what is worth keeping; who is dialled when is the business of `links`. Only members get into it: nodes
that showed a certificate, nodes that a member told us about, and the inviter of a code we joined with.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Final

from swarmd.domain.ids import NodeId, short
from swarmd.domain.peers import Endpoint, PeerRecord
from swarmd.kit.world import Clock
from swarmd.peers.addresses import MAX_ENDPOINTS, ip_of, refuse
from swarmd.store import peers as sql
from swarmd.store.database import Database
from swarmd.store.peers import EndpointRow, PeerRow, Source

MAX_PEERS: Final = 1000  # a private network has tens; a member that invents nodes cannot fill memory or the dial loop
HEARSAY_LIFE_S: Final = 7 * 24 * 3600.0
"""How long a node that somebody mentioned and that was never reached stays in the book: machines are off for a
weekend."""

_SOURCES: Final = tuple(Source)

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Entry:
    known_since: float
    last_seen: float | None = None
    endpoints: dict[Endpoint, EndpointRow] = field(default_factory=dict[Endpoint, EndpointRow])


class PeerBook:
    """The owner of the tables `peers` and `peer_endpoints`. `load` before anything else."""

    def __init__(self, *, own: NodeId, db: Database, clock: Clock) -> None:
        self._own = own
        self._db = db
        self._clock = clock
        self._entries: dict[NodeId, _Entry] = {}

    async def load(self) -> None:
        """Read what the last run knew, and drop hearsay that never came true."""
        now = self._clock.now()
        self._entries.clear()
        for row in await sql.read_peers(self._db):
            if row.last_seen is None and now - row.known_since > HEARSAY_LIFE_S and _only_hearsay(row):
                await self.remove(row.node)
            elif row.node != self._own:
                self._entries[row.node] = _Entry(
                    known_since=row.known_since,
                    last_seen=row.last_seen,
                    endpoints={one.endpoint: one for one in row.endpoints},
                )

    def nodes(self) -> tuple[NodeId, ...]:
        return tuple(self._entries)

    def __contains__(self, node: object) -> bool:
        return node in self._entries

    def endpoints(self, node: NodeId) -> tuple[Endpoint, ...]:
        """Best first; empty for a node that only ever came to us, or is unknown."""
        entry = self._entries.get(node)
        return () if entry is None else tuple(one.endpoint for one in sorted(entry.endpoints.values(), key=_rank))

    def proven_endpoints(self, node: NodeId) -> tuple[Endpoint, ...]:
        """Those over which we had a link, or which the node itself stated: fit for telling others."""
        entry = self._entries.get(node)
        if entry is None:
            return ()
        good = [one for one in entry.endpoints.values() if one.last_ok is not None or one.source is Source.OBSERVED]
        return tuple(one.endpoint for one in sorted(good, key=_rank))

    def record(self, node: NodeId) -> PeerRecord | None:
        entry = self._entries.get(node)
        if entry is None:
            return None
        return PeerRecord(node=node, endpoints=self.endpoints(node), last_seen=entry.last_seen)

    async def offer(self, node: NodeId, endpoints: tuple[Endpoint, ...], *, source: Source) -> bool:
        """Somebody says that `node` is there. True when that was news.

        Endpoints nobody may dial are left out; the worst ones go when there are more than MAX_ENDPOINTS. A node beyond
        MAX_PEERS is not taken.
        """
        if node == self._own:
            return False
        now = self._clock.now()
        entry = self._entries.get(node)
        if entry is None and len(self._entries) >= MAX_PEERS:
            logger.warning("the book is full with %d peers, node %s is not added", MAX_PEERS, short(node))
            return False
        known = {} if entry is None else entry.endpoints
        fresh = {
            one: EndpointRow(endpoint=one, source=source, known_since=now, last_ok=None)
            for one in dict.fromkeys(endpoints)
            if one not in known and refuse(one) is None
        }
        merged = {**known, **fresh}
        kept = {one.endpoint: one for one in sorted(merged.values(), key=_rank)[:MAX_ENDPOINTS]}
        added, dropped = kept.keys() - known.keys(), known.keys() - kept.keys()
        if entry is not None and not added:
            return False
        async with self._db.transaction() as tx:
            await sql.add_peer(tx, node, now=now)
            for endpoint in dropped:
                await sql.remove_endpoint(tx, node, endpoint)
            for endpoint in added:
                await sql.add_endpoint(tx, node, endpoint, source=source, now=now)
        # Somebody else may have changed the entry during the transaction: change it, do not replace it.
        entry = self._entries.setdefault(node, _Entry(known_since=now))
        for endpoint in dropped:
            entry.endpoints.pop(endpoint, None)
        for endpoint in added:
            entry.endpoints.setdefault(endpoint, kept[endpoint])
        return True

    async def record_seen(self, node: NodeId, *, endpoint: Endpoint | None) -> None:
        """A link to `node` is up now; `endpoint` is where we dialled it, None when it came to us."""
        entry = self._entries.get(node)
        if entry is None:
            return
        now = self._clock.now()
        entry.last_seen = now
        if endpoint is not None and (row := entry.endpoints.get(endpoint)) is not None:
            entry.endpoints[endpoint] = replace(row, last_ok=now)
        async with self._db.transaction() as tx:
            await sql.mark_seen(tx, node, endpoint=endpoint, now=now)

    async def remove(self, node: NodeId) -> None:
        """Forget it. It comes back when it dials us, or when a member mentions it."""
        self._entries.pop(node, None)
        async with self._db.transaction() as tx:
            await sql.remove_peer(tx, node)


def _only_hearsay(row: PeerRow) -> bool:
    return all(one.source is Source.INTRODUCED for one in row.endpoints)


def _rank(row: EndpointRow) -> tuple[float, int, int, Endpoint]:
    """The newest evidence first, then who said it, then the same network before the rest of the world, then the host.

    That a node came from an address is evidence too, else a travelling laptop would be looked for where it was last
    week.
    """
    address = ip_of(row.endpoint.host)
    near = 0 if address is not None and address.is_private else 1
    evidence = max(row.last_ok or 0.0, row.known_since if row.source is Source.OBSERVED else 0.0)
    return (-evidence, _SOURCES.index(row.source), near, row.endpoint)
