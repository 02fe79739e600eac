"""Who was put out of our network. The owner of the table `revocations`.

Every record here was verified up to the network key and is on the disk: what is told to others, and what the gate and
`links` act upon, survives a crash. A node that comes back by a new invite has a certificate issued after its revocation,
and that one is not covered; the record stays, for the old certificate is still about.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from swarmd.domain.events import MemberRevoked
from swarmd.domain.ids import NetworkId, NodeId, short
from swarmd.domain.refusals import Busy, Forbidden, Refusal
from swarmd.identity import revocations
from swarmd.identity.certificates import Certificate
from swarmd.identity.revocations import Revocation
from swarmd.kit.bus import EventBus
from swarmd.kit.world import Clock
from swarmd.store import network as sql
from swarmd.store.database import Database

MAX_REVOCATIONS: Final = 1000
"""As many as the book has members; only the founder makes them, and they can be forgotten once no certificate can
outlive them (91 days). Whoever has to put out more than that in three months needs a new network."""

logger = logging.getLogger(__name__)


class RevocationList:
    """One per node; `peers.membership` makes it. `load` before anything else."""

    def __init__(
        self, *, own: NodeId, network: Callable[[], NetworkId | None], db: Database, clock: Clock, bus: EventBus
    ) -> None:
        self._own = own
        self._network = network
        self._db = db
        self._clock = clock
        self._bus = bus
        self._records: dict[NodeId, Revocation] = {}
        self._liars: set[NodeId] = set()
        """Tellers of forged records: each costs us one signature check and is not listened to again until the next start.
        At most one for each certificate of our network that ever linked."""
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        """Read what the last run knew."""
        self._records.clear()
        for data in await sql.read_revocations(self._db):
            record = revocations.decode(data)
            assert isinstance(record, Revocation), f"the stored revocation is not one: {record}"
            self._records[record.node] = record

    def records(self) -> tuple[Revocation, ...]:
        """All of them, in the order in which they came."""
        return tuple(self._records.values())

    def record(self, node: NodeId) -> Revocation | None:
        return self._records.get(node)

    def revoked_at(self, node: NodeId) -> int | None:
        """Unix seconds. Certificates that `node` got later are good: ask `covers` about a certificate."""
        record = self._records.get(node)
        return None if record is None else record.revoked_at

    def covers(self, certificate: Certificate) -> bool:
        """For `certificates.verify`: whether this link of a chain was taken back."""
        record = self._records.get(certificate.node)
        return record is not None and record.covers(certificate)

    async def hear(self, told: Sequence[bytes], *, teller: NodeId) -> tuple[Revocation, ...]:
        """What a neighbour told us, as far as it is true and news; that is kept, and worth passing on."""
        news: list[Revocation] = []
        for data in told:
            if teller in self._liars:
                break
            record = revocations.decode(data)
            if isinstance(record, Forbidden):
                logger.debug("from node %s: %s", short(teller), record.sentence)
            elif self._is_known(record):
                continue
            elif (refusal := self._judge(record)) is not None:
                logger.debug("from node %s: %s", short(teller), refusal.sentence)
            elif not revocations.is_signed(record):
                # Nobody passes on what it has not verified, so this is no accident.
                self._liars.add(teller)
                logger.warning("node %s tells of a revocation nobody signed, not listened to any more", short(teller))
            else:
                kept = await self.keep(record)
                if isinstance(kept, Refusal):
                    logger.debug("from node %s: %s", short(teller), kept.sentence)
                elif kept:
                    news.append(record)
        return tuple(news)

    async def keep(self, record: Revocation) -> bool | Forbidden | Busy:
        """True: it was news and is on the disk. Its signature has been checked. Publishes MemberRevoked."""
        async with self._turn:
            if self._is_known(record):
                return False
            if (refusal := self._judge(record)) is not None:
                return refusal
            if len(self._records) >= MAX_REVOCATIONS and record.node not in self._records:
                await self._forget_useless()
                if len(self._records) >= MAX_REVOCATIONS:
                    return Busy(what=f"{MAX_REVOCATIONS} nodes are revoked already: wait until their certificates are over")
            data = revocations.encode(record)
            async with self._db.transaction() as tx:
                await sql.write_revocation(tx, node=record.node, revoked_at=record.revoked_at, record=data)
            self._records.pop(record.node, None)  # so that it comes last
            self._records[record.node] = record
        if record.node == self._own:
            logger.warning("the founder has put this node out of the network: join again with a new code")
        else:
            logger.info("node %s was put out of the network", short(record.node))
        self._bus.publish(MemberRevoked(node=record.node))
        return True

    def clear(self) -> None:
        """We belong to another network now; the caller has emptied the table."""
        self._records.clear()
        self._liars.clear()

    def _is_known(self, record: Revocation) -> bool:
        known = self._records.get(record.node)
        return known is not None and known.network == record.network and known.revoked_at >= record.revoked_at

    def _judge(self, record: Revocation) -> Forbidden | None:
        network = self._network()
        if network is None:
            return Forbidden(what="this node belongs to no network yet")
        return revocations.refuse(record, network=network, now=self._clock.now())

    async def _forget_useless(self) -> None:
        """Only where room is needed: a machine may start with a clock that runs years ahead."""
        now = self._clock.now()
        useless = [node for node, record in self._records.items() if not record.is_useful(now)]
        if not useless:
            return
        async with self._db.transaction() as tx:
            for node in useless:
                await sql.remove_revocation(tx, node)
        for node in useless:
            del self._records[node]
