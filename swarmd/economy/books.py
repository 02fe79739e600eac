"""The arithmetic of the credits: from facts to accounts. Pure; `economy.ledger` writes what changed and keeps time.

A request reserves at its start what the stages of other nodes may cost at most, which counts as spent, and at its end what
was not used is refunded. One that never ends (its node was killed, its end was lost) gets everything back after
EXPIRY_S, and one that only took longer pays at its end. So nothing is counted twice, and nothing stays set aside for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from swarmd.domain.credits import Account, CreditKind
from swarmd.domain.events import (
    CircuitRelayed,
    Fact,
    GenerationFinished,
    GenerationStarted,
    ServeFailed,
    ShardsSeeded,
    ShardStored,
    StageServed,
    StageUsed,
)
from swarmd.domain.ids import ModelId, NodeId, RequestId
from swarmd.economy.rates import FAILURE_CREDITS, MICRO, SEEDED_MICRO_BYTES, TOKEN_CREDITS, UNITS_PER_CREDIT
from swarmd.store.credits import PEERS_KEPT, EntrySum, PeerRow, ReservationRow

EXPIRY_S: Final = 600.0  # contract: swarmllm.md 4.7
MAX_RESERVATIONS: Final = 1024  # far above what a node runs at once; further requests pay at their end
HOUR_S: Final = 3600

HEARD: Final = (
    StageServed, ServeFailed, ShardsSeeded, CircuitRelayed, ShardStored, GenerationStarted, StageUsed, GenerationFinished,
)  # fmt: skip
"""Facts that come to credits."""


@dataclass(slots=True, kw_only=True)
class Changes:
    """Since the books were last written."""

    entries: dict[tuple[int, CreditKind, NodeId | None, ModelId | None], EntrySum] = field(
        default_factory=dict[tuple[int, CreditKind, NodeId | None, ModelId | None], EntrySum]
    )
    reserved: dict[RequestId, ReservationRow] = field(default_factory=dict[RequestId, ReservationRow])
    ended: set[RequestId] = field(default_factory=set[RequestId])
    peers: set[NodeId] = field(default_factory=set[NodeId])
    gone: set[NodeId] = field(default_factory=set[NodeId])


class Books:
    """All of it, and what has changed. Copied before facts are booked, so that what was not written never happened."""

    def __init__(
        self,
        *,
        own: NodeId,
        account: Account,
        carry: dict[CreditKind, int],
        reservations: dict[RequestId, ReservationRow],
        peers: dict[NodeId, PeerRow],
        used: dict[RequestId, tuple[int, int]] | None = None,
    ) -> None:
        """`used`: tokens and credits by request, of stages that have ended while their request goes on."""
        self._own = own
        self._account = account
        self.carry = dict(carry)
        self._reservations = dict(reservations)
        self._peers = dict(peers)
        self._used = dict(used or {})  # at most MAX_RESERVATIONS
        self.changes = Changes()

    def copy(self) -> Books:
        """Without what has changed."""
        return Books(
            own=self._own, account=self._account, carry=self.carry, reservations=self._reservations, peers=self._peers,
            used=self._used,
        )  # fmt: skip

    def reread(
        self,
        *,
        account: Account,
        carry: dict[CreditKind, int],
        reservations: dict[RequestId, ReservationRow],
        peers: dict[NodeId, PeerRow],
    ) -> Books:
        """What is on the disk, with what is known of requests that run."""
        return Books(
            own=self._own, account=account, carry=carry, reservations=reservations, peers=peers, used=self._used
        )

    @property
    def account(self) -> Account:
        held = sum(row.amount for row in self._reservations.values())
        return replace(self._account, held=held, pending=len(self._reservations))

    def peers(self) -> tuple[PeerRow, ...]:
        return tuple(self._peers.values())

    def peer(self, node: NodeId) -> PeerRow | None:
        return self._peers.get(node)

    def written(self) -> list[PeerRow]:
        """The rows of peers that have changed."""
        return [self._peers[node] for node in self.changes.peers if node in self._peers]

    # -- what happens

    def hear(self, fact: Fact, *, now: float) -> None:
        match fact:
            case StageServed(head=head, tokens=tokens, model=model) if tokens > 0:
                self._earn(CreditKind.SERVED, tokens * TOKEN_CREDITS, tokens, now, peer=head, model=model)
                self._tally(head, now, taken=tokens * TOKEN_CREDITS * MICRO)
            case ServeFailed(head=head, model=model):
                self._spend(CreditKind.PENALTY, FAILURE_CREDITS, 1, now, peer=head, model=model)
            case ShardsSeeded(node=node, size_bytes=size) if size > 0:
                self._earn_units(CreditKind.SEEDED, size, now, peer=node)
                self._tally(node, now, taken=size // SEEDED_MICRO_BYTES)
            case CircuitRelayed(opener=opener, seconds=seconds) if seconds > 0:
                self._earn_units(CreditKind.RELAYED, round(seconds * 1000), now, peer=opener)
            case ShardStored(source=source, size_bytes=size) if source is not None and source != self._own:
                self._tally(source, now, given=size // SEEDED_MICRO_BYTES)
            case GenerationStarted():
                self._reserve(fact, now)
            case StageUsed(request=request, node=node, tokens=tokens) if tokens > 0:
                count, credits = self._used.pop(request, (0, 0))
                if len(self._used) >= MAX_RESERVATIONS:  # the oldest one's end was lost
                    del self._used[next(iter(self._used))]
                self._used[request] = (count + tokens, credits + tokens * TOKEN_CREDITS)
                self._tally(node, now, given=tokens * TOKEN_CREDITS * MICRO)
            case GenerationFinished(request=request, model=model):
                self._settle(request, model, now)
            case _:
                pass

    def host(self, byte_seconds: int, *, now: float) -> None:
        """So many bytes of shards were here for so long."""
        if byte_seconds > 0:
            self._earn_units(CreditKind.HOSTED, byte_seconds, now)

    def expire(self, *, now: float) -> None:
        """Reservations whose time is over, also when the clock was set back to before they were made."""
        for row in tuple(self._reservations.values()):
            if not 0 <= now - row.reserved_at < EXPIRY_S:
                self._give_back(row, row.amount, now)

    def release_all(self, *, now: float) -> None:
        """At the start of the node: whatever ran is dead."""
        for row in tuple(self._reservations.values()):
            self._give_back(row, row.amount, now)
        self._used.clear()

    # -- accounts

    def _reserve(self, fact: GenerationStarted, now: float) -> None:
        others = sum(node != self._own for node in fact.nodes)
        amount = others * fact.tokens * TOKEN_CREDITS
        if amount <= 0 or fact.request in self._reservations or len(self._reservations) >= MAX_RESERVATIONS:
            return
        row = ReservationRow(fact.request, fact.model, amount, now)
        self._reservations[fact.request] = row
        self.changes.reserved[fact.request] = row
        self.changes.ended.discard(fact.request)
        self._spend(CreditKind.RESERVED, amount, others * fact.tokens, now, model=fact.model)

    def _settle(self, request: RequestId, model: ModelId, now: float) -> None:
        tokens, credits = self._used.pop(request, (0, 0))
        row = self._reservations.get(request)
        reserved = 0 if row is None else row.amount
        if row is not None:
            self._give_back(row, max(0, reserved - credits), now)
        if credits > reserved:
            beyond = tokens if row is None else (credits - reserved) // TOKEN_CREDITS
            self._spend(CreditKind.SPENT, credits - reserved, beyond, now, model=model)

    def _give_back(self, row: ReservationRow, amount: int, now: float) -> None:
        del self._reservations[row.request]
        self.changes.reserved.pop(row.request, None)
        self.changes.ended.add(row.request)
        if amount:
            old = self._account
            self._account = replace(old, refunded=old.refunded + amount, balance=old.balance + amount)
            self._enter(CreditKind.REFUNDED, amount, amount // TOKEN_CREDITS, now, None, row.model)

    def _earn_units(self, kind: CreditKind, quantity: int, now: float, *, peer: NodeId | None = None) -> None:
        amount, self.carry[kind] = divmod(self.carry.get(kind, 0) + quantity, UNITS_PER_CREDIT[kind])
        self._earn(kind, amount, quantity, now, peer=peer)

    def _earn(
        self, kind: CreditKind, amount: int, quantity: int, now: float, *, peer: NodeId | None = None,
        model: ModelId | None = None,
    ) -> None:  # fmt: skip
        old = self._account
        self._account = replace(old, earned=old.earned + amount, balance=old.balance + amount)
        self._enter(kind, amount, quantity, now, peer, model)

    def _spend(
        self, kind: CreditKind, amount: int, quantity: int, now: float, *, peer: NodeId | None = None,
        model: ModelId | None = None,
    ) -> None:  # fmt: skip
        old = self._account
        self._account = replace(old, spent=old.spent + amount, balance=old.balance - amount)
        self._enter(kind, -amount, quantity, now, peer, model)

    def _enter(
        self, kind: CreditKind, amount: int, quantity: int, now: float, peer: NodeId | None, model: ModelId | None
    ) -> None:
        self._account = replace(self._account, updated_at=now)
        key = (int(now) // HOUR_S * HOUR_S, kind, peer, model)
        before = self.changes.entries.get(key)
        self.changes.entries[key] = EntrySum(
            hour=key[0], kind=kind, peer=peer, model=model,
            amount=amount + (before.amount if before else 0),
            quantity=quantity + (before.quantity if before else 0),
            events=1 + (before.events if before else 0),
            at=now,
        )  # fmt: skip

    def _tally(self, node: NodeId, now: float, *, given: int = 0, taken: int = 0) -> None:
        """`given`: by that node to us; millionths, as `taken`."""
        if node not in self._peers and len(self._peers) >= PEERS_KEPT:
            oldest = min(self._peers.values(), key=lambda row: row.last_at).node
            del self._peers[oldest]
            self.changes.peers.discard(oldest)
            self.changes.gone.add(oldest)
        old = self._peers.get(node) or PeerRow(node, 0, 0, now)
        self._peers[node] = PeerRow(node, old.given + given, old.taken + taken, now)
        self.changes.peers.add(node)
        self.changes.gone.discard(node)
