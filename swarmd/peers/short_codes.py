"""The live short code of this node: a number and two words that somebody in the room types on the other machine.

The words are worth 16 bits, so everything rests on counting guesses. SPAKE2 (`identity.pake`) gives whoever dials one guess
for each exchange, and the guess is message 3 of the handshake; an exchange that ends before it teaches nothing. So only one
exchange runs at a time, the first wrong guess burns the code, and it does so in memory, without waiting, before anybody
else can begin.

A code and its words live in memory only. Behind it stands an ordinary invite whose tag and psk nobody knows: it is listed,
cancelled and redeemed as any other. A code that was used answers until its time is over, so that a guest that lost our
reply gets the same certificate again; others hear that it is used.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from swarmd.domain.events import ShortCodeEnded, ShortCodeMade
from swarmd.domain.ids import NetworkId, NodeId
from swarmd.domain.membership import InviteId, InviteRecord
from swarmd.domain.peers import MAX_NAMEPLATE, MAX_NAMEPLATES, Endpoint, NodeSummary
from swarmd.domain.refusals import Busy
from swarmd.identity.pake import Half, Side
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Spawn
from swarmd.kit.world import Clock, World
from swarmd.peers.invitations import Invitations
from swarmd.peers.membership import Membership
from swarmd.transport.doors import Elsewhere, Exchange

LIFE_S: Final = 600.0  # to walk over to the other machine, start it, and type the code twice
MAX_ABANDONED: Final = 8
"""Exchanges that ended before message 3. They teach nobody anything about the words, but each keeps the guest out for up to
five seconds and costs us ten milliseconds; a guest has a bad connection three times, somebody who is at it eight times is
no guest, and whoever made the code should hear of it."""
ANSWER_S: Final = 0.1
"""From their element to ours, always: computing takes 15 ms and on a small machine 60, depending on the words, and who
measures that must learn nothing of them."""

_TAG_BYTES: Final = 16
_PSK_BYTES: Final = 32

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Compute(Protocol):
    """`asyncio.to_thread`, as far as it is used here."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


async def unhurried(work: Callable[[], T], *, compute: Compute, clock: Clock) -> T:
    """What `work` computes, ANSWER_S from now, however long it took."""
    began = clock.monotonic()
    done = await compute(work)
    await asyncio.sleep(max(0.0, ANSWER_S - (clock.monotonic() - began)))
    return done


@dataclass(slots=True, kw_only=True, eq=False)
class _Live:
    nameplate: int
    words: str = field(repr=False)
    """The whole code in its one spelling."""
    network: NetworkId
    invite: InviteRecord
    busy: bool = False
    """An exchange is running."""
    abandoned: int = 0
    proven: bool = False
    """Somebody knew the words."""


class ShortCodes:
    """One per node, with one live code at most."""

    def __init__(
        self,
        *,
        membership: Membership,
        invitations: Invitations,
        summaries: Callable[[], Mapping[NodeId, NodeSummary]],
        heard: Callable[[], frozenset[int]],
        spawn: Spawn,
        world: World,
        bus: EventBus,
        compute: Compute = asyncio.to_thread,
    ) -> None:
        """`summaries`: of the linked nodes. `heard`: nameplates of other nodes in the local network."""
        self._membership = membership
        self._invitations = invitations
        self._summaries = summaries
        self._heard = heard
        self._spawn = spawn
        self._world = world
        self._bus = bus
        self._compute = compute
        self._live: _Live | None = None

    async def load(self) -> None:
        """What the last run left behind lives no more."""
        await self._invitations.withdraw_short()

    def nameplates(self) -> tuple[int, ...]:
        """Of our live code, for those who look for it."""
        live = self._current()
        return () if live is None else (live.nameplate,)

    def nameplates_around(self) -> tuple[int, ...]:
        """Of our live code and those of linked nodes, at most MAX_NAMEPLATES: whoever looks for one in the local network may
        knock here, and is passed on (`relay`)."""
        told = {plate for summary in self._summaries().values() for plate in summary.nameplates}
        return (*self.nameplates(), *sorted(told - set(self.nameplates())))[:MAX_NAMEPLATES]

    def free_nameplate(self) -> int | Busy:
        """A number that no code has that we know of."""
        told = {plate for summary in self._summaries().values() for plate in summary.nameplates}
        taken = told | self._heard() | set(self.nameplates())
        free = [plate for plate in range(1, MAX_NAMEPLATE + 1) if plate not in taken]
        if not free:
            return Busy(what=f"all {MAX_NAMEPLATE} numbers of short codes are taken: use `swarmd invite` without --short")
        # 32 bits over 999 numbers: the bias is of no account, the number is no secret.
        return free[int.from_bytes(self._world.entropy.token(4), "big") % len(free)]

    async def begin(self, nameplate: int, words: str, *, network: NetworkId) -> InviteRecord | Busy:
        """From now on somebody who knows `words`, the whole code in its one spelling, is let in. The code before it
        ends."""
        now, entropy = self._world.clock.now(), self._world.entropy
        before, self._live = self._live, None
        if before is not None:
            await self._invitations.cancel(before.invite.id)
        invite = InviteRecord(
            tag=entropy.token(_TAG_BYTES),
            psk=entropy.token(_PSK_BYTES),
            created_at=now,
            expires_at=now + LIFE_S,
            uses_left=1,
            short=True,
        )
        if (busy := await self._invitations.add(invite)) is not None:
            if before is not None:
                self._bus.publish(ShortCodeEnded(nameplate=before.nameplate, burnt=False))
            return busy
        self._live = _Live(nameplate=nameplate, words=words, network=network, invite=invite)
        logger.info("made short code %d, invite %s, valid for %.0f minutes", nameplate, invite.id, LIFE_S / 60)
        self._bus.publish(ShortCodeMade(nameplate=nameplate))
        return invite

    def cancelled(self, id: InviteId) -> None:
        """This invite was cancelled; if our code stands for it, that ends too."""
        live = self._live
        if live is not None and live.invite.id == id:
            self._live = None
            self._bus.publish(ShortCodeEnded(nameplate=live.nameplate, burnt=False))

    # ---- answering, for the gate

    async def exchange(self, nameplate: int, element: bytes, *, caller: Endpoint) -> Exchange | Elsewhere | None:
        """See `transport.doors.Authority`. Nothing is computed unless a live code has this number and nobody tries it."""
        live = self._current()
        if live is None or live.nameplate != nameplate:
            return self._elsewhere(nameplate)
        if live.busy:
            logger.debug("%s tries short code %d while somebody else does", caller, nameplate)
            return None
        live.busy = True
        answer: Exchange | None = None
        try:
            answer = await unhurried(lambda: self._answer(live, element), compute=self._compute, clock=self._world.clock)
        finally:  # also when it was cancelled: the thread goes on, and is one of MAX_ABANDONED
            if answer is None:
                self._abandoned(live, caller)
        return answer

    def exchange_over(self, exchange: Exchange, *, guess: bool | None, caller: Endpoint) -> None:
        """See `transport.doors.Authority`."""
        live = self._live
        if live is None or live.invite.tag != exchange.tag:
            return  # it has ended meanwhile, and so has the invite behind it
        live.busy = False
        if guess is None:
            self._abandoned(live, caller)
        elif guess:
            live.proven = True
        else:
            self._burn(live, f"somebody at {caller} tried it with wrong words")

    def _answer(self, live: _Live, element: bytes) -> Exchange | None:
        half = Half(Side.INVITER, live.words, entropy=self._world.entropy)
        psk = half.psk(element)
        return None if psk is None else Exchange(element=half.element, psk=psk, tag=live.invite.tag)

    def _abandoned(self, live: _Live, caller: Endpoint) -> None:
        live.busy = False
        live.abandoned += 1
        if live.abandoned >= MAX_ABANDONED and self._live is live:
            self._burn(live, f"{MAX_ABANDONED} attempts were broken off, the last one from {caller}")

    def _burn(self, live: _Live, why: str) -> None:
        self._live = None
        if live.proven:
            logger.info("short code %d, which was used before, is closed: %s", live.nameplate, why)
        else:
            logger.warning("short code %d is burnt, make a new one: %s", live.nameplate, why)
        self._spawn(self._invitations.burn(live.invite.tag), name=f"burn invite {live.invite.id}")
        self._bus.publish(ShortCodeEnded(nameplate=live.nameplate, burnt=not live.proven))

    def _current(self) -> _Live | None:
        live = self._live
        if live is None or self._world.clock.now() >= live.invite.expires_at:
            return None
        return live if self._membership.network == live.network else None  # we may have moved to another network

    def _elsewhere(self, nameplate: int) -> Elsewhere | None:
        for node, summary in self._summaries().items():
            if nameplate in summary.nameplates:
                return Elsewhere(node=node)
        return None
