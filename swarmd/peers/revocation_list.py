"""Who was put out of our network. The owner of the table `revocations`.

Every record here was verified up to the network key and is on the disk: what is told to others, and what the gate and
`links` act upon, survives a crash. A node that comes back by a new invite has a certificate issued after its revocation,
and that one is not covered; the record stays, for the old certificate is still about.

One record for each node and issuer, the newest. An inviter's stays good when the inviter itself is put out later, as far as
it was made before that; later ones are nothing. An inviter that dates one back gains nothing: whoever was below it fell
with it. What one inviter may fill is a small part of the list, and no record of the founder ever gives way to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from swarmd.domain.events import MemberRevoked
from swarmd.domain.ids import NetworkId, NodeId, short
from swarmd.domain.refusals import Busy, Forbidden, Refusal
from swarmd.identity import revocations
from swarmd.identity.certificates import Certificate
from swarmd.identity.revocations import Revocation
from swarmd.kit.bus import EventBus
from swarmd.kit.flow import TokenBucket
from swarmd.kit.world import Clock
from swarmd.store import network as sql
from swarmd.store.database import Database

MAX_REVOCATIONS: Final = 1000
"""As many as the book has members, and they can be forgotten once no certificate can outlive them (91 days). Whoever has
to put out more than that in three months needs a new network."""

MAX_OF_BRANCH: Final = 100
"""Of one inviter that the founder made and of all below it: an inviter may make more inviters, but gets no more of the list
by that."""

NEWS_PER_S: Final = 1 / 60
"""Of one branch, after MAX_OF_BRANCH at once. It may date a record forward second by second, and each would be written
by every node; a person that puts out a class room does so once."""

MAX_PACES: Final = 256  # remembered; the one that said something longest ago is forgotten first
MAX_LIARS: Final = 1000  # as many as the book has members; in an open network whoever comes may be one

Key = tuple[NodeId, NodeId | NetworkId]
"""Who was put out, by whom."""

logger = logging.getLogger(__name__)


class RevocationList:
    """One per node; `peers.membership` makes it. `load` before anything else."""

    def __init__(
        self,
        *,
        own: NodeId,
        network: Callable[[], NetworkId | None],
        db: Database,
        clock: Clock,
        bus: EventBus,
        certificate: Callable[[], Certificate | None] = lambda: None,
    ) -> None:
        """`certificate`: this node's own, to say it when it falls."""
        self._own = own
        self._network = network
        self._certificate = certificate
        self._db = db
        self._clock = clock
        self._bus = bus
        self._records: dict[Key, Revocation] = {}
        self._branches: dict[NodeId, set[Key]] = {}
        """Of the inviters' among them: whose share they count into."""
        self._pace: OrderedDict[tuple[NodeId, int], TokenBucket] = OrderedDict()
        """Of branches, by how far down the inviter stands: one that says too much is put out from above nevertheless."""
        self._liars: set[NodeId] = set()
        """Tellers of forged records: each costs us one signature check and is not listened to again until the next start.
        At most one for each certificate of our network that ever linked, and MAX_LIARS."""
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        """Read what the last run knew."""
        self._records.clear()
        self._branches.clear()
        for data in await sql.read_revocations(self._db):
            record = revocations.decode(data)
            assert isinstance(record, Revocation), f"the stored revocation is not one: {record}"
            self._put(record)

    def records(self) -> tuple[Revocation, ...]:
        """All of them, the founder's first: older programs understand no others. Else in the order in which they came."""
        return tuple(sorted(self._records.values(), key=lambda one: one.proof is not None))

    def of_founder(self, node: NodeId) -> Revocation | None:
        """What the founder said of `node`: it holds for whatever certificate it has, and where it has none."""
        network = self._network()
        return None if network is None else self._records.get((node, network))

    def against(self, node: NodeId, *, parent: Certificate | None) -> tuple[Revocation, ...]:
        """What concerns certificates that `node` gets below `parent`, or with None from the network key."""
        network = self._network()
        above = (network, *(() if parent is None else (link.node for link in parent.chain())))
        return tuple(
            record for issuer in above if issuer is not None and (record := self._records.get((node, issuer))) is not None
        )

    def revoked_at(self, node: NodeId) -> int | None:
        """Unix seconds, by the founder's word alone. Certificates that `node` got later are good: ask `covers` about a
        certificate."""
        record = self.of_founder(node)
        return None if record is None else record.revoked_at

    def covers(self, certificate: Certificate) -> bool:
        """For `certificates.verify`: whether this link of a chain was taken back."""
        return self._covering(certificate) is not None

    def covering(self, certificate: Certificate) -> Revocation | None:
        """What takes back `certificate` or one above it: the chain's nearest first."""
        return next((record for link in certificate.chain() if (record := self._covering(link)) is not None), None)

    def _covering(self, link: Certificate) -> Revocation | None:
        return next((record for record in self.against(link.node, parent=link.parent) if record.covers(link)), None)

    async def hear(self, told: Sequence[bytes], *, teller: NodeId) -> tuple[Revocation, ...]:
        """What a neighbour told us, as far as it is true and news; that is kept, and worth passing on."""
        news: list[Revocation] = []
        for data in told:
            if teller in self._liars:
                break
            record = revocations.decode(data)
            if isinstance(record, Forbidden):
                logger.debug("from node %s: %s", short(teller), record.sentence)
                continue
            if record.proof is not None:
                await asyncio.sleep(0)  # up to four signatures, half a millisecond: 64 of them in a row would delay tokens
            # Cheap checks first; an inviter that says too much is not even verified.
            if self._is_known(record):
                continue
            if (refusal := self._judge(record) or self._too_much(record)) is not None:
                logger.debug("from node %s: %s", short(teller), refusal.sentence)
                continue
            if not revocations.is_signed(record):
                # Nobody passes on what it has not verified, so this is no accident.
                if len(self._liars) < MAX_LIARS:
                    self._liars.add(teller)
                    logger.warning("node %s tells of a revocation nobody signed, not listened to any more", short(teller))
                break
            kept = await self.keep(record)
            if isinstance(kept, Refusal):
                logger.debug("from node %s: %s", short(teller), kept.sentence)
            elif kept:
                news.append(record)
        return tuple(news)

    async def keep(self, record: Revocation) -> bool | Forbidden | Busy:
        """True: it was news and is on the disk. Its signature has been checked. Publishes MemberRevoked for the
        founder's."""
        async with self._turn:
            if self._is_known(record):
                return False
            if (refusal := self._judge(record) or self._too_much(record)) is not None:
                return refusal
            if isinstance(gone := self._making_room(record), Busy):
                return gone
            fallen = [key for key, one in self._records.items() if _made_after(one, record)]
            gone = tuple(dict.fromkeys((*gone, *fallen)))
            data = revocations.encode(record)
            async with self._db.transaction() as tx:
                for node, issuer in gone:
                    await sql.remove_revocation(tx, node=node, issuer=issuer)
                await sql.write_revocation(
                    tx, node=record.node, issuer=record.issuer, revoked_at=record.revoked_at, record=data
                )
            for key in gone:
                self._drop(key)
            self._put(record)
            if record.proof is not None:
                self._pace_of(record).try_take()
        self._say(record)
        if record.proof is None:  # an inviter may name anybody: `links` tells of those whom it did put out
            self._bus.publish(MemberRevoked(node=record.node))
        return True

    def _put(self, record: Revocation) -> None:
        self._drop(_key(record))  # the newest comes last
        self._records[_key(record)] = record
        if record.proof is not None:
            self._branches.setdefault(_branch(record), set()).add(_key(record))

    def _drop(self, key: Key) -> None:
        record = self._records.pop(key, None)
        if record is None or record.proof is None:
            return
        theirs = self._branches[_branch(record)]
        theirs.discard(key)
        if not theirs:
            del self._branches[_branch(record)]

    def _say(self, record: Revocation) -> None:
        by = "the founder" if record.proof is None else f"node {short(NodeId(record.issuer))}"
        ours = self._certificate()
        if record.node == self._own and (record.proof is None if ours is None else record.covers(ours)):
            logger.warning("%s has put this node out of the network: join again with a new code", by)
        elif ours is not None and any(record.covers(link) for link in ours.chain()):
            logger.warning(
                "%s has put out node %s, and with it whom it invited, as this node: join again with a code of the founder",
                by, short(record.node),
            )  # fmt: skip
        elif record.proof is not None:
            logger.info("%s puts out node %s, as far as that was admitted by it", by, short(record.node))
        else:
            logger.info("node %s was put out of the network by %s", short(record.node), by)

    def clear(self) -> None:
        """We belong to another network now; the caller has emptied the table."""
        self._records.clear()
        self._branches.clear()
        self._pace.clear()
        self._liars.clear()

    def _is_known(self, record: Revocation) -> bool:
        known = self._records.get(_key(record))
        return known is not None and known.network == record.network and known.revoked_at >= record.revoked_at

    def _judge(self, record: Revocation) -> Forbidden | None:
        network = self._network()
        if network is None:
            return Forbidden(what="this node belongs to no network yet")
        if (refusal := revocations.refuse(record, network=network, now=self._clock.now())) is not None:
            return refusal
        for link in () if record.proof is None else record.proof.chain():
            if any(_made_after(record, one) for one in self.against(link.node, parent=link.parent)):
                who = short(NodeId(record.issuer))
                return Forbidden(what=f"node {who} put out node {short(record.node)} when it was itself put out already")
        return None

    def _too_much(self, record: Revocation) -> Busy | None:
        """A branch's share of the list, and its pace."""
        if record.proof is None:
            return None
        if isinstance(busy := self._making_room(record), Busy):
            return busy
        pace = self._pace.get(_pace_key(record))  # nothing is made of what is not verified yet
        if pace is not None and pace.retry_after_s() > 0:
            return Busy(what=f"inviters may put out {NEWS_PER_S * 60:.0f} node a minute now: wait, or ask the founder")
        return None

    def _pace_of(self, record: Revocation) -> TokenBucket:
        key = _pace_key(record)
        pace = self._pace.pop(key, None) or TokenBucket(NEWS_PER_S, MAX_OF_BRANCH, clock=self._clock)
        self._pace[key] = pace
        if len(self._pace) > MAX_PACES:
            self._pace.popitem(last=False)
        return pace

    def _making_room(self, record: Revocation) -> tuple[Key, ...] | Busy:
        """Whose place it takes. Useless ones go only where room is needed: a machine may start with a clock that runs years
        ahead. Else the oldest of those that give way: to the founder's one of whichever branch has most, to an inviter's one
        of an inviter below it or beside that, in its own full branch."""
        if _key(record) in self._records:
            return ()
        now, proof = self._clock.now(), record.proof
        theirs = set[Key]() if proof is None else self._branches.get(_branch(record), set[Key]())
        full = len(self._records) >= MAX_REVOCATIONS
        if not full and len(theirs) < MAX_OF_BRANCH:
            return ()
        if useless := tuple(
            key for key, one in self._records.items() if (full or key in theirs) and not one.is_useful(now)
        ):
            return useless
        if proof is None:
            theirs = max(self._branches.values(), key=len, default=set[Key]())
        for key, one in self._records.items():
            if key in theirs and (proof is None or (one.proof is not None and len(one.proof.chain()) > len(proof.chain()))):
                return (key,)
        if full:
            return Busy(what=f"{MAX_REVOCATIONS} nodes are revoked already: wait until their certificates are over")
        return Busy(what=f"inviters may put out {MAX_OF_BRANCH} nodes, and so many are out: ask the founder")


def _key(record: Revocation) -> Key:
    return record.node, record.issuer


def _branch(record: Revocation) -> NodeId:
    """The inviter that the founder made, above an inviter's record."""
    assert record.proof is not None, "the founder's are of no branch"
    return record.proof.chain()[-1].node


def _pace_key(record: Revocation) -> tuple[NodeId, int]:
    assert record.proof is not None, "the founder has no pace"
    return _branch(record), len(record.proof.chain())


def _made_after(record: Revocation, other: Revocation) -> bool:
    """`record` was made by somebody whom `other` had put out by then, or by somebody below it."""
    if record.proof is None or record.revoked_at <= other.revoked_at:
        return False
    return any(other.covers(link) for link in record.proof.chain())
