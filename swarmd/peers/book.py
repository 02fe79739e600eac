"""Whom we know and where they are: in memory for reading, in the database for the next start.

The book decides what is worth keeping; who is dialled when is the business of `links`. Only members get into it: nodes
that showed a certificate, nodes that a member told us about, those heard of in the local network, and the inviter of a code
we joined with.

What others tell is hearsay, and they may lie: each may have MAX_HEARSAY untried nodes in the book, they make room
for anybody who proved to be there, and an address that was only heard of is dropped when it was dialled in vain
MAX_FAILURES times. Whoever is really there shows a certificate sooner or later, to us or by dialling us.
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

MAX_PEERS: Final = 1000  # a private network has tens
MAX_HEARSAY: Final = 150  # of one teller: an honest one tells whom it is linked to (`network.max_peers`, by default 150)
MAX_FAILURES: Final = 12
"""Dials of an address from hearsay: with the pauses of `links` some three minutes. The teller says that it is linked to the
node now, so it can be reached soon, or it can only come to us."""
HEARSAY_LIFE_S: Final = 7 * 24 * 3600.0
"""How long a node that somebody mentioned and that was never reached stays in the book: machines are off for a
weekend."""

_SOURCES: Final = tuple(Source)
_HEARSAY: Final = (Source.INTRODUCED, Source.LAN)

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Entry:
    known_since: float
    last_seen: float | None = None
    endpoints: dict[Endpoint, EndpointRow] = field(default_factory=dict[Endpoint, EndpointRow])
    trusted: bool
    """It showed us a certificate once, or a person named it. Else it is hearsay."""
    teller: NodeId | Source | None = None
    """Who told us first, since the start; the local network is one teller, since anybody may speak in it."""
    failures: dict[Endpoint, int] = field(default_factory=dict[Endpoint, int])
    """Dials in vain of endpoints from hearsay, since the start."""
    absences: int = 0
    """Rounds in which there was nothing to dial and no way through others, since the start."""

    def rank(self, row: EndpointRow) -> tuple[float, int, int, float, int, Endpoint]:
        """The newest evidence first, then who said it, then the fewest failures; of hearsay the older (a liar does not
        push out what others said), then the same network before the rest of the world, then the host.

        That a node came from an address is evidence too, else a travelling laptop would be looked for where it was last
        week.
        """
        address = ip_of(row.endpoint.host)
        near = 0 if address is not None and address.is_private else 1
        evidence = max(row.last_ok or 0.0, row.known_since if row.source is Source.OBSERVED else 0.0)
        told_at = row.known_since if row.source in _HEARSAY else 0.0
        failures = self.failures.get(row.endpoint, 0)
        return (-evidence, _SOURCES.index(row.source), failures, told_at, near, row.endpoint)


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
                    trusted=row.last_seen is not None or not _only_hearsay(row),
                )

    def nodes(self) -> tuple[NodeId, ...]:
        return tuple(self._entries)

    def __contains__(self, node: object) -> bool:
        return node in self._entries

    def endpoints(self, node: NodeId) -> tuple[Endpoint, ...]:
        """Best first; empty for a node that only ever came to us, or is unknown."""
        entry = self._entries.get(node)
        return () if entry is None else tuple(one.endpoint for one in sorted(entry.endpoints.values(), key=entry.rank))

    def is_hearsay(self, node: NodeId) -> bool:
        """Somebody mentioned it, and we have no proof that it exists."""
        entry = self._entries.get(node)
        return entry is not None and not entry.trusted

    def proven_endpoints(self, node: NodeId) -> tuple[Endpoint, ...]:
        """Those at which we reached it: fit for telling others."""
        entry = self._entries.get(node)
        if entry is None:
            return ()
        good = [one for one in entry.endpoints.values() if one.last_ok is not None]
        return tuple(one.endpoint for one in sorted(good, key=entry.rank))

    def unproven_endpoints(self, node: NodeId) -> tuple[Endpoint, ...]:
        """Those that `node` itself stated, or came from, and at which we never reached it."""
        entry = self._entries.get(node)
        if entry is None:
            return ()
        open_ = [one for one in entry.endpoints.values() if one.last_ok is None and one.source is Source.OBSERVED]
        return tuple(one.endpoint for one in sorted(open_, key=entry.rank))

    def record(self, node: NodeId) -> PeerRecord | None:
        entry = self._entries.get(node)
        if entry is None:
            return None
        return PeerRecord(node=node, endpoints=self.endpoints(node), last_seen=entry.last_seen)

    async def offer(
        self, node: NodeId, endpoints: tuple[Endpoint, ...], *, source: Source, teller: NodeId | None = None
    ) -> bool:
        """Somebody says that `node` is there; with INTRODUCED, `teller` says so. True when that was news.

        Endpoints nobody may dial are left out; the worst ones go when there are more than MAX_ENDPOINTS. For a node
        beyond MAX_PEERS one from hearsay makes room, or it is not taken.
        """
        if node == self._own:
            return False
        hearsay = source in _HEARSAY
        told_by = source if source is Source.LAN else teller
        now = self._clock.now()
        entry = self._entries.get(node)
        new, evicted = entry is None, None
        if entry is None:
            if hearsay and self._told_by(told_by) >= MAX_HEARSAY:
                logger.debug("nodes that cannot be found come from one teller, node %s is not added", short(node))
                return False
            if len(self._entries) >= MAX_PEERS:
                evicted = None if hearsay else self._oldest_hearsay()
                if evicted is None:
                    logger.log(
                        logging.DEBUG if hearsay else logging.WARNING,
                        "the book is full with %d peers, node %s is not added", MAX_PEERS, short(node),
                    )  # fmt: skip
                    return False
                del self._entries[evicted]
            entry = self._entries[node] = _Entry(known_since=now, trusted=not hearsay, teller=told_by)
        promoted = not hearsay and not entry.trusted
        entry.trusted = entry.trusted or promoted
        known = dict(entry.endpoints)
        fresh = {
            one: EndpointRow(endpoint=one, source=source, known_since=now, last_ok=None)
            for one in dict.fromkeys(endpoints)
            if refuse(one) is None and (one not in known or (not hearsay and _is_rumour(known[one])))
        }
        ranked = sorted({**known, **fresh}.values(), key=entry.rank)
        chosen, rest = ranked[:MAX_ENDPOINTS], ranked[MAX_ENDPOINTS:]
        if not any(one.source is Source.LAN for one in chosen):
            # One place is for the local network: two laptops with eight old addresses each are both somewhere else now.
            chosen[-1:] = [next((one for one in rest if one.source is Source.LAN), one) for one in chosen[-1:]]
        kept = {one.endpoint: one for one in chosen}
        added, dropped = kept.keys() & fresh.keys(), known.keys() - kept.keys()
        if not (new or added or promoted):
            return False
        # In memory before the transaction: nobody who offers meanwhile finds a place that is given away already.
        # All rows go into the database, the known ones as well: an offer that was cancelled half-way left it behind.
        entry.endpoints, rows = kept, tuple(kept.values())
        for endpoint in (*dropped, *added):
            entry.failures.pop(endpoint, None)
        async with self._db.transaction() as tx:
            if evicted is not None:
                await sql.remove_peer(tx, evicted)
            await sql.add_peer(tx, node, now=now)
            for endpoint in dropped | (added & known.keys()):  # a rumour that has come true gets its better source
                await sql.remove_endpoint(tx, node, endpoint)
            for one in rows:
                await sql.add_endpoint(tx, node, one.endpoint, source=one.source, now=one.known_since)
        return new or bool(added - known.keys())

    async def record_seen(self, node: NodeId, *, endpoint: Endpoint | None) -> None:
        """A link to `node` is up now; `endpoint` is where we reached it, None when it came to us."""
        entry = self._entries.get(node)
        if entry is None:
            return
        now = self._clock.now()
        entry.last_seen = now
        entry.trusted = True
        if endpoint is not None and (row := entry.endpoints.get(endpoint)) is not None:
            entry.endpoints[endpoint] = replace(row, last_ok=now)
        async with self._db.transaction() as tx:
            await sql.mark_seen(tx, node, endpoint=endpoint, now=now)

    async def record_failure(self, node: NodeId, endpoint: Endpoint) -> None:
        """`node` was dialled at `endpoint` in vain. What is only hearsay goes after MAX_FAILURES of them."""
        entry = self._entries.get(node)
        row = None if entry is None else entry.endpoints.get(endpoint)
        if entry is None or row is None or not _is_rumour(row):
            return
        entry.failures[endpoint] = failures = entry.failures.get(endpoint, 0) + 1
        if failures < MAX_FAILURES:
            return
        del entry.endpoints[endpoint], entry.failures[endpoint]
        if not entry.trusted and not entry.endpoints:
            logger.debug("node %s was never found where it was said to be: forgotten", short(node))
            await self.remove(node)
            return
        async with self._db.transaction() as tx:
            await sql.remove_endpoint(tx, node, endpoint)

    async def record_absence(self, node: NodeId) -> None:
        """There was neither an address to dial nor a way through others. Who was only mentioned goes after MAX_FAILURES of
        them."""
        entry = self._entries.get(node)
        if entry is None or entry.trusted or entry.endpoints:
            return
        entry.absences += 1
        if entry.absences >= MAX_FAILURES:
            logger.debug("node %s was mentioned, and nobody leads to it: forgotten", short(node))
            await self.remove(node)

    async def remove(self, node: NodeId) -> None:
        """Forget it. It comes back when it dials us, or when a member mentions it."""
        self._entries.pop(node, None)
        async with self._db.transaction() as tx:
            await sql.remove_peer(tx, node)

    def _told_by(self, teller: NodeId | Source | None) -> int:
        return sum(not one.trusted and one.teller == teller for one in self._entries.values())

    def _oldest_hearsay(self) -> NodeId | None:
        hearsay = [(entry.known_since, node) for node, entry in self._entries.items() if not entry.trusted]
        return min(hearsay)[1] if hearsay else None


def _only_hearsay(row: PeerRow) -> bool:
    return all(one.source in _HEARSAY for one in row.endpoints)


def _is_rumour(row: EndpointRow) -> bool:
    return row.source in _HEARSAY and row.last_ok is None
