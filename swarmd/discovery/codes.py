"""The invite codes of this node, as a person asks for them.

The text of a code lives in memory only. The database holds its tag and psk, without which nobody could be let in; with
the addresses and the network, which are no secrets, they are as good as the code until it is spent, so the database is a
secret like the keys beside it (mode 0600). After a restart the next question gets a new code, and the old one still works.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from swarmd.discovery.invites import FRESH_BYTES, LIFE_S, USES, make_invite
from swarmd.domain.ids import NetworkId
from swarmd.domain.membership import NetworkCode, Phase
from swarmd.domain.peers import Endpoint
from swarmd.domain.refusals import Busy, Forbidden, Invalid
from swarmd.kit.world import World
from swarmd.peers.invitations import Invitations
from swarmd.peers.links import Links
from swarmd.peers.membership import Membership

LEFT_S: Final = 3600.0
"""A code that ends sooner is not handed out again: whoever gets it by mail may need an hour to read it."""
LIFE_LIMIT_S: Final = 30 * 24 * 3600.0  # a code is meant to be used soon; a month is for "when you are back"
USES_LIMIT: Final = 100  # a class room

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
        links: Links,
        world: World,
        announced: Callable[[], tuple[Endpoint, ...]],
    ) -> None:
        """`announced`: where others can reach this node, best first (`peers.addresses.announced`)."""
        self._membership = membership
        self._invitations = invitations
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
                return await self._hand_out(life_s=LIFE_S, uses=USES, keep=True)
            return self._shown(handed, network)

    async def new_code(self, *, life_s: float = LIFE_S, uses: int = USES) -> NetworkCode | Forbidden | Busy | Invalid:
        """A fresh code with other terms; `network_code` does not return it again."""
        if not 0 < life_s <= LIFE_LIMIT_S:
            return Invalid(
                what=f"a code lives up to {LIFE_LIMIT_S / 86400:.0f} days, not {life_s:g} seconds", param="life_s"
            )
        if not 1 <= uses <= USES_LIMIT:
            return Invalid(what=f"a code admits 1 to {USES_LIMIT} nodes, not {uses}", param="uses")
        async with self._turn:
            return await self._hand_out(life_s=life_s, uses=uses, keep=False)

    def phase(self) -> Phase:
        return Phase.ESTABLISHED if self._links.connected() else Phase.SEEDLING

    async def _still_good(self, handed: _Handed) -> bool:
        return (
            handed.expires_at - self._world.clock.now() > LEFT_S
            and handed.endpoints == self._announced()  # a machine that moved needs a code that says so
            and await self._invitations.is_live(handed.tag)
        )

    async def _hand_out(self, *, life_s: float, uses: int, keep: bool) -> NetworkCode | Forbidden | Busy | Invalid:
        endpoints = self._announced()
        if not endpoints:
            return Invalid(what="this node listens on no address that others could reach: set network.listen_address")
        network = await self._membership.ensure_network()
        if isinstance(network, Forbidden):
            return network
        text, invite = make_invite(
            network=network,
            inviter=self._membership.node,
            endpoints=endpoints,
            now=self._world.clock.now(),
            life_s=life_s,
            uses=uses,
            fresh=self._world.entropy.token(FRESH_BYTES),
        )
        if (busy := await self._invitations.add(invite)) is not None:
            return busy
        handed = _Handed(text=text, tag=invite.tag, endpoints=endpoints, expires_at=invite.expires_at)
        if keep:
            self._handed = handed
        logger.info("made an invite code for %d node(s), valid for %.0f hours", uses, life_s / 3600)
        return self._shown(handed, network)

    def _shown(self, handed: _Handed, network: NetworkId) -> NetworkCode:
        return NetworkCode(
            code=handed.text,
            node=self._membership.node,
            network=network,
            phase=self.phase(),
            peer_count=len(self._links.connected()),
            expires_at=handed.expires_at,
        )
