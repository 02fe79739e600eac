"""The invite codes of this node, as a person asks for them.

The text of a code lives in memory only, and that of a code on terms of its own (`new_code`) not even there: it is told
once. The database holds its tag and psk, without which nobody could be let in; with the addresses and the network, which
are no secrets, they are as good as the code until it is spent, so the database is a secret like the keys beside it (mode
0600). After a restart the next question gets a new code, and the old one still works.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from swarmd.discovery.invites import FRESH_BYTES, LIFE_S, USES, make_invite
from swarmd.discovery.short_text import WORD_BYTES, make_short
from swarmd.domain.ids import NetworkId
from swarmd.domain.membership import InviteRecord, InviteView, NetworkCode, NewInvite, Phase, RoleName
from swarmd.domain.peers import Endpoint
from swarmd.domain.refusals import Busy, Forbidden, Invalid, NotFound, Refusal
from swarmd.identity.certificates import Role
from swarmd.kit.world import World
from swarmd.peers.invitations import Invitations
from swarmd.peers.links import Links
from swarmd.peers.membership import Membership
from swarmd.peers.short_codes import ShortCodes

LEFT_S: Final = 3600.0
"""A code that ends sooner is not handed out again: whoever gets it by mail may need an hour to read it."""
LEAST_LIFE_S: Final = 60.0  # below that a code dies while it is being pasted
LIFE_LIMIT_S: Final = 365 * 24 * 3600.0  # a code in a machine's image, renewed yearly; older, and nobody remembers it
USES_LIMIT: Final = 1000  # the machines of a school; it is also what a leaked code costs at most

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handed:
    text: str
    tag: bytes
    endpoints: tuple[Endpoint, ...]
    expires_at: float


class NetworkCodes:
    """One per node."""

    def __init__(
        self,
        *,
        membership: Membership,
        invitations: Invitations,
        short_codes: ShortCodes,
        links: Links,
        world: World,
        announced: Callable[[], tuple[Endpoint, ...]],
    ) -> None:
        """`announced`: where others can reach this node, best first (`peers.addresses.announced`)."""
        self._membership = membership
        self._invitations = invitations
        self._short_codes = short_codes
        self._links = links
        self._world = world
        self._announced = announced
        self._handed: _Handed | None = None
        self._turn = asyncio.Lock()

    async def network_code(self) -> NetworkCode | Forbidden | Busy | Invalid:
        """The current code: the same one while it is unused and has LEFT_S to live. Founds the network when there is
        none."""
        async with self._turn:
            handed = self._handed
            network = self._membership.network
            if handed is None or network is None or not await self._still_good(handed):
                return await self._hand_out()
            return self._shown(handed, network)

    async def new_code(
        self, *, life_s: float = LIFE_S, uses: int = USES, role: RoleName = "member"
    ) -> NewInvite | Forbidden | Busy | Invalid:
        """A fresh code on terms of its own, shown this once; `network_code` does not return it."""
        if not LEAST_LIFE_S <= life_s <= LIFE_LIMIT_S:
            return Invalid(
                what=f"a code lives {LEAST_LIFE_S:.0f} seconds to {LIFE_LIMIT_S / 86400:.0f} days, not {life_s:.0f} seconds",
                param="life_seconds",
            )
        if not 1 <= uses <= USES_LIMIT:
            return Invalid(what=f"a code admits 1 to {USES_LIMIT} nodes, not {uses}", param="uses")
        async with self._turn:
            made = await self._make(self._announced(), life_s=life_s, uses=uses, role=role)
        if isinstance(made, Refusal):
            return made
        text, invite = made
        return NewInvite(code=text, invite=invite.view(now=self._world.clock.now()))

    async def short_code(self) -> NewInvite | Forbidden | Busy:
        """A number and two words for one node in this room, or at a node that both can reach; the one before ends."""
        async with self._turn:
            network = await self._membership.ensure_network()
            if isinstance(network, Forbidden):
                return network
            nameplate = self._short_codes.free_nameplate()
            if isinstance(nameplate, Busy):
                return nameplate
            text = make_short(nameplate, self._world.entropy.token(WORD_BYTES))
            invite = await self._short_codes.begin(nameplate, text, network=network)
            if isinstance(invite, Busy):
                return invite
        return NewInvite(code=text, invite=invite.view(now=self._world.clock.now()))

    async def invites(self) -> tuple[InviteView, ...]:
        """Those of `network_code` too, newest first."""
        return await self._invitations.views()

    async def cancel(self, id: str) -> InviteView | NotFound:
        """From now on nobody joins with it; `network_code` hands out another one."""
        invite = await self._invitations.cancel(id)
        if isinstance(invite, InviteView):
            self._short_codes.cancelled(invite.id)
        return invite

    def phase(self) -> Phase:
        return Phase.ESTABLISHED if self._links.connected() else Phase.SEEDLING

    async def _still_good(self, handed: _Handed) -> bool:
        return (
            handed.expires_at - self._world.clock.now() > LEFT_S
            and handed.endpoints == self._announced()  # a machine that moved needs a code that says so
            and await self._invitations.is_live(handed.tag)
        )

    async def _hand_out(self) -> NetworkCode | Forbidden | Busy | Invalid:
        endpoints = self._announced()
        made = await self._make(endpoints, life_s=LIFE_S, uses=USES)
        if isinstance(made, Refusal):
            return made
        text, invite = made
        network = self._membership.network
        assert network is not None, "an invite was made for it"
        self._handed = _Handed(text=text, tag=invite.tag, endpoints=endpoints, expires_at=invite.expires_at)
        return self._shown(self._handed, network)

    async def _make(
        self, endpoints: tuple[Endpoint, ...], *, life_s: float, uses: int, role: RoleName = "member"
    ) -> tuple[str, InviteRecord] | Forbidden | Busy | Invalid:
        """The code, and what is stored of it by then."""
        if not endpoints:
            return Invalid(what="this node listens on no address that others could reach: set network.listen_address")
        network = await self._membership.ensure_network()
        if isinstance(network, Forbidden):
            return network
        if (refusal := self._membership.may_give(Role[role.upper()])) is not None:
            return refusal  # now, and not to the guest
        text, invite = make_invite(
            network=network,
            inviter=self._membership.node,
            endpoints=endpoints,
            now=self._world.clock.now(),
            life_s=life_s,
            uses=uses,
            fresh=self._world.entropy.token(FRESH_BYTES),
        )
        invite = replace(invite, role=role)
        if (busy := await self._invitations.add(invite)) is not None:
            return busy
        logger.info("made invite %s for %d node(s), valid for %.1f hours", invite.id, uses, life_s / 3600)
        return text, invite

    def _shown(self, handed: _Handed, network: NetworkId) -> NetworkCode:
        return NetworkCode(
            code=handed.text,
            node=self._membership.node,
            network=network,
            phase=self.phase(),
            peer_count=len(self._links.connected()),
            expires_at=handed.expires_at,
        )
