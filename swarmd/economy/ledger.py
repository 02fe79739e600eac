"""The owner of this node's credits: hears what earns and what costs, and writes it down before anybody is told.

What is shown is what is on the disk. A kill costs what was heard within the last GATHER_S, and up to HOSTING_S of hosting;
nothing is ever counted twice, since facts are booked together with the accounts they change, in one transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from swarmd.domain.credits import TIER_WEIGHTS, Account, CreditEntry, PeerAccount, Tier
from swarmd.domain.events import Fact, ModelRemoved, PeerConnected, PeerDisconnected, ShardDropped, ShardStored
from swarmd.domain.ids import NodeId
from swarmd.economy.books import HEARD, HOUR_S, Books
from swarmd.economy.rates import MICRO, own_tier, peer_tiers
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Ready
from swarmd.kit.world import Clock
from swarmd.store import credits as sql
from swarmd.store.database import Database

GATHER_S: Final = 1.0  # facts of a second share a write: a busy node syncs its disk once a second, an idle one never
HOSTING_S: Final = 300.0  # between two looks at what was hosted
DAY_S: Final = 86_400.0
INBOX: Final = 8192  # facts of some seconds, should the disk be slow

logger = logging.getLogger(__name__)


class Ledger:
    """A service; the owner of the tables `credit_*`. `load` before anything else."""

    name = "credits"

    def __init__(
        self, *, own: NodeId, db: Database, bus: EventBus, clock: Clock, hosted_bytes: Callable[[], int]
    ) -> None:
        """`hosted_bytes`: of shards here that other nodes can ask for now; 0 while no other node is linked."""
        self._own, self._db, self._bus, self._clock, self._hosted_bytes = own, db, bus, clock, hosted_bytes
        self._books = self._empty()
        self._tiers: dict[NodeId, Tier] = {}
        self._hosting: tuple[float, int] | None = None
        """Since when, on the loop's clock, how many bytes are hosted."""
        self._swept_at = 0.0
        self._unsure = True
        """A write was begun and its end not seen: it may be on the disk or not."""

    def _empty(self) -> Books:
        return Books(own=self._own, account=Account(), carry={}, reservations={}, peers={})

    async def load(self) -> None:
        """What an earlier run left. Requests that ran then are dead: what they had set aside comes back."""
        await self._read()
        draft = self._books.copy()
        draft.release_all(now=self._clock.now())
        await self._write(draft)

    # -- what people see

    def account(self) -> Account:
        return self._books.account

    def tier(self) -> Tier:
        return own_tier(self._books.account.balance)

    def peer_tier(self, node: NodeId) -> Tier:
        """By what this node counted itself, never by what that one says."""
        return self._tiers.get(node, Tier.BRONZE)

    def weight(self, node: NodeId) -> int:
        """Turns out of as many, where turns are given by tier."""
        return TIER_WEIGHTS[self.peer_tier(node)]

    def peers(self) -> Sequence[PeerAccount]:
        """The one that gave most first."""
        rows = [
            PeerAccount(node=row.node, given=row.given // MICRO, taken=row.taken // MICRO, last_at=row.last_at)
            for row in self._books.peers()
        ]
        return sorted(rows, key=lambda row: (-row.balance, row.node))

    async def transactions(self, *, limit: int, before: int | None = None) -> tuple[Sequence[CreditEntry], int]:
        """Entries with smaller ids than `before`, the newest first, and how many there are in all."""
        return await sql.read_entries(self._db, limit=limit, before=before)

    # -- the service

    async def run(self, ready: Ready) -> None:
        hosting = (ShardDropped, ModelRemoved, PeerConnected, PeerDisconnected)
        heard: list[Fact] = []  # at most INBOX and those that come while it is read
        with self._bus.subscribe(*HEARD, *hosting, size=INBOX) as inbox:
            self._hosting = (self._clock.monotonic(), self._hosted_bytes())
            ready()
            try:
                while True:
                    try:
                        async with asyncio.timeout(HOSTING_S):
                            heard.append(await anext(inbox))
                    except TimeoutError:
                        pass
                    else:
                        await asyncio.sleep(GATHER_S)
                        heard += inbox.drain()
                    facts, heard = heard, []
                    await self.book(facts)
            finally:
                # The last seconds of an orderly stop. A second cancellation ends this too, as a kill would.
                await self.book((*heard, *inbox.drain()), last=True)
                self._hosting = None

    async def book(self, facts: Sequence[Fact], *, last: bool = False) -> None:
        """All of it, or nothing; at most once."""
        if self._unsure:
            await self._read()
        now = self._clock.now()
        draft = self._books.copy()
        for fact in facts:
            draft.hear(fact, now=now)
        draft.expire(now=now)
        hosting = self._hosted(draft, now=now, look=last or any(_moves(fact) for fact in facts))
        await self._write(draft)
        self._hosting = hosting

    def _hosted(self, draft: Books, *, now: float, look: bool) -> tuple[float, int] | None:
        """Books the time since the last look, with what was there then. The new look; it counts when that is written."""
        if self._hosting is None:
            return None
        since, held = self._hosting
        at = self._clock.monotonic()
        if not look and at - since < HOSTING_S - GATHER_S:
            return self._hosting
        draft.host(round(max(0.0, at - since) * held), now=now)
        return at, self._hosted_bytes()

    async def _write(self, draft: Books) -> None:
        changes, now = draft.changes, self._clock.now()
        if not (changes.entries or changes.reserved or changes.ended or changes.peers):
            self._books = draft.copy()
            return
        self._unsure = True
        sweep = not 0 <= now - self._swept_at < HOUR_S
        async with self._db.transaction() as tx:
            await sql.write_account(tx, draft.account, at=now)
            await sql.write_carry(tx, draft.carry)
            await sql.write_reservations(tx, changes.reserved.values(), ended=changes.ended)
            await sql.write_peers(tx, draft.written(), gone=changes.gone)
            await sql.add_entries(tx, changes.entries.values())
            if sweep:
                await sql.forget_entries(tx, older_than=int(now - sql.DAYS_KEPT * DAY_S))
        # No await from here on: it is on the disk, and it is what we say.
        self._unsure = False
        self._swept_at = now if sweep else self._swept_at
        self._books = draft.copy()
        if changes.peers:
            self._rank()

    async def _read(self) -> None:
        """What is on the disk. What is only in memory, of requests that run, stays."""
        self._books = self._books.reread(
            account=await sql.read_account(self._db),
            carry=await sql.read_carry(self._db),
            reservations={row.request: row for row in await sql.read_reservations(self._db)},
            peers={row.node: row for row in await sql.read_peers(self._db)},
        )
        self._unsure = False
        self._rank()

    def _rank(self) -> None:
        self._tiers = peer_tiers({row.node: row.balance for row in self.peers()})


def _moves(fact: Fact) -> bool:
    """Whether another number of bytes may be hosted from now on."""
    return isinstance(fact, (ShardStored, ShardDropped, ModelRemoved, PeerConnected, PeerDisconnected))
