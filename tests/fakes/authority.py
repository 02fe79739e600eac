"""An `Authority` for tests of the transport: everybody is who they say, unless told otherwise."""

from __future__ import annotations

import asyncio

from swarmd.domain.ids import NodeId
from swarmd.domain.peers import Endpoint, PeerIdentity, Purpose
from swarmd.domain.refusals import Forbidden, Refusal, UsedUp
from swarmd.transport.doors import Admitted, Elsewhere, Exchange, TurnedAway
from swarmd.wire.noise import public_key


class FakeAuthority:
    """A node named by one letter. Its Hello is `node id|purpose|invited`."""

    def __init__(self, letter: str, *, invites: dict[bytes, bytes] | None = None) -> None:
        self.node = NodeId(letter * 64)
        self.invites = invites or {}
        """psk by tag; each good for one use."""
        self.short: Exchange | Elsewhere | None = None
        """What whoever asks for short code 7 gets."""
        self.thinks_of_elements_s = 0.0
        self.guesses: list[bool | None] = []
        self.banned: set[NodeId] = set()
        self.thinking_s = 0.0
        """How long a judgement takes."""

    def static_private(self) -> bytes:
        return self.node.encode()[:32]

    def hello(self, *, purpose: Purpose, invited: bool, expect: NodeId | None = None) -> bytes:
        return f"{self.node}|{purpose.value}|{int(invited)}".encode()

    async def psk_for(self, tag: bytes) -> bytes | None:
        return self.invites.get(tag)

    async def exchange(self, nameplate: int, element: bytes, *, caller: Endpoint) -> Exchange | Elsewhere | None:
        await asyncio.sleep(self.thinks_of_elements_s)
        return self.short if nameplate == 7 else None

    def exchange_over(self, exchange: Exchange, *, guess: bool | None, caller: Endpoint) -> None:
        self.guesses.append(guess)

    async def admit(self, hello: bytes, *, static_public: bytes, invite_tag: bytes | None) -> Admitted | TurnedAway:
        await asyncio.sleep(self.thinking_s)
        peer = self._identity(hello, static_public)
        if peer is None or peer.node in self.banned:
            return TurnedAway(why=Forbidden(what="not one of us"))
        if invite_tag is not None and self.invites.pop(invite_tag, None) is None:
            return TurnedAway(why=UsedUp(), reply=b"used up")
        return Admitted(peer=peer, reply=self.hello(purpose=peer.purpose, invited=invite_tag is not None))

    async def check(self, hello: bytes, *, static_public: bytes, invited: bool) -> PeerIdentity | Refusal:
        await asyncio.sleep(self.thinking_s)
        if hello == b"used up":
            return UsedUp()
        peer = self._identity(hello, static_public)
        return Forbidden(what="not one of us") if peer is None or peer.node in self.banned else peer

    def _identity(self, hello: bytes, static_public: bytes) -> PeerIdentity | None:
        node, purpose, _ = hello.decode().split("|")
        if public_key(node.encode()[:32]) != static_public:
            return None
        return PeerIdentity(node=NodeId(node), purpose=Purpose(purpose), software="swarmd/test")
