"""Becoming a member: from the text a person pasted to a link with the inviter.

The invited handshake proves the code to the inviter and the inviter to us, and brings the certificate. It is a visit,
not a link: we store certificate and inviter together, close, and come back through `peers.links` as any member does. A
crash at any point leaves a node that can use the same code again.

A short code goes the same way after it was found (in the local network, or at the address in it) and its words were tried:
one node after the other, since every node that answers has one guess at what was typed here.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol

from swarmd.discovery.invites import SCHEME, Invite, read_invite
from swarmd.discovery.lan import NoMulticast
from swarmd.discovery.short_text import SAMPLE, ShortCode, looks_short, read_short
from swarmd.domain.events import NetworkJoined
from swarmd.domain.ids import NetworkId, NodeId, short
from swarmd.domain.peers import Endpoint, Purpose
from swarmd.domain.refusals import BadCode, Expired, Forbidden, Invalid, NoAnswer, OpenNetwork, OtherNetwork, Refusal, UsedUp
from swarmd.identity.certificates import Certificate
from swarmd.identity.pake import Half, Side
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World
from swarmd.peers.addresses import parse_multiaddr, refuse
from swarmd.peers.gate import Gate
from swarmd.peers.links import Dialler, Links
from swarmd.peers.membership import Membership
from swarmd.peers.renewal import is_due
from swarmd.peers.short_codes import Compute, unhurried
from swarmd.store.peers import Source
from swarmd.transport.connection import Connection
from swarmd.transport.doors import ShortTry

DEADLINE_S: Final = 15.0  # for all addresses together: somebody sits in front of a browser and waits
STAGGER_S: Final = 0.3  # between the dials; the first address is usually right (RFC 8305 says 250 ms)
LINK_WAIT_S: Final = 10.0  # for the link after the certificate; being a member does not depend on it
SEEK_S: Final = 5.0  # for the local network: answers come within 0.2 s, and a lost packet is asked for again after 1 and 3 s
MAX_CANDIDATES: Final = 3
"""Nodes that say they have the code, and of them so many get to answer: each has one guess at the words, so three liars
have three in 65,536. More than one with the same number is chance, or a liar."""

logger = logging.getLogger(__name__)

JoinRefusal = BadCode | Expired | UsedUp | NoAnswer | OtherNetwork | Forbidden | Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """This node is a member, and the node in the code is in its book."""

    network: NetworkId
    inviter: NodeId
    endpoint: Endpoint
    """Where it answered."""
    linked: bool
    """The link to it is up. False: it will be, as soon as the two reach each other; they try for ever."""
    already: bool
    """This node was a member before."""


class Segment(Protocol):
    """What is needed of `discovery.lan.Lan`."""

    def seek(self, nameplate: int) -> AbstractAsyncContextManager[asyncio.Queue[tuple[Endpoint, ...]]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Admitted:
    """A short code has opened a door."""

    certificate: Certificate
    inviter: NodeId
    endpoint: Endpoint
    """Where we knocked; the inviter itself may be somewhere behind it."""


@dataclass(slots=True, kw_only=True)
class _Search:
    """One short code that is being tried."""

    code: ShortCode
    tried: list[Endpoint] = field(default_factory=list[Endpoint])
    exchanges: int = 0
    """Nodes that answered with their half, and so had their guess, or let us have ours."""


class Joiner:
    """One per node."""

    def __init__(
        self,
        *,
        membership: Membership,
        gate: Gate,
        links: Links,
        dialler: Dialler,
        segment: Segment | None,
        world: World,
        bus: EventBus,
        compute: Compute = asyncio.to_thread,
    ) -> None:
        """`segment` None: this node does not speak in the local network."""
        self._membership = membership
        self._gate = gate
        self._links = links
        self._dialler = dialler
        self._segment = segment
        self._compute = compute
        self._world = world
        self._bus = bus
        self._turn = asyncio.Lock()

    async def join(self, text: str) -> Joined | JoinRefusal:
        """`text`: an invite code, a short code; or a multiaddr, of a member to dial (again) or of one in an open network to
        enter. One at a time; takes up to half a minute."""
        async with self._turn:
            if text.strip().startswith("/"):
                return await self._redial(text)
            if looks_short(text):
                return await self._join_short(text)
            return await self._join(text)

    async def _join(self, text: str) -> Joined | JoinRefusal:
        invite = read_invite(text, now=self._world.clock.now())
        if not isinstance(invite, Invite):
            if isinstance(invite, BadCode) and not text.strip().startswith(SCHEME):
                return BadCode(
                    reason=f"it starts neither with {SCHEME} nor, as a multiaddr does, with /ip4/, nor with a number as "
                    f"{SAMPLE} does"
                )
            return invite
        if invite.inviter == self._membership.node:
            return Forbidden(what="this code was made by this very node: enter it on another one")
        if (other := await self._membership.may_join(invite.network)) is not None:
            return other
        known = await self._known(invite) if self._is_member(invite.network) else None
        if known is not None and not (isinstance(known, Joined) and not known.linked):
            return known
        # Members that do not link may have been put out: to them the inviter is silent, unless they bring a new code.
        visit = await self._visit(invite)
        if known is not None and isinstance(visit, NoAnswer):
            return known
        if not isinstance(visit, tuple):
            return visit
        certificate, answered = visit
        endpoints = tuple(dict.fromkeys((answered, *_diallable(invite))))
        refusal = await self._membership.adopt(certificate, inviter=invite.inviter, endpoints=endpoints)
        if refusal is not None:
            return refusal
        logger.info("joined network %s at node %s", invite.network[:16], short(invite.inviter))
        self._bus.publish(NetworkJoined(network=invite.network, inviter=invite.inviter))
        return await self._link(invite.inviter, endpoints, network=invite.network, already=False, source=Source.INVITE)

    async def _known(self, invite: Invite) -> Joined | Forbidden:
        """We are a member already: nothing is spent; the inviter is dialled like any other member."""
        endpoints = _diallable(invite)
        if not endpoints:
            return Forbidden(what="this node is a member already, and the code names no address that may be dialled")
        return await self._link(invite.inviter, endpoints, network=invite.network, already=True, source=Source.INVITE)

    async def _redial(self, text: str) -> Joined | NoAnswer | Forbidden | Invalid | OtherNetwork:
        address = parse_multiaddr(text)
        if isinstance(address, Invalid):
            return address
        endpoint, node = address
        network = self._membership.network
        if network is None and not self._membership.is_open:
            return Forbidden(
                what="this node belongs to no network yet, and an address alone admits nobody: use an invite code; to enter "
                'an open network, set network.admission to "open" and start again'
            )
        if network is None:
            return await self._join_open(endpoint, node)
        if node == self._membership.node:
            return Forbidden(what="this is the address of this very node: enter that of another one")
        if node is None or self._links.link(node) is None:
            result = await self._dialler.dial(endpoint, expect=node, purpose=Purpose.CONTROL)
            if not isinstance(result, Connection):
                return result if isinstance(result, NoAnswer | Forbidden) else Forbidden(what=result.sentence)
            node = result.node
            self._links.dialled(result, endpoint)
        return await self._link(node, (endpoint,), network=network, already=True, source=Source.MANUAL)

    async def _join_open(self, endpoint: Endpoint, expected: NodeId | None) -> Joined | NoAnswer | Forbidden | OtherNetwork:
        """Whoever answers says which open network it belongs to; from then on we say the same."""
        offer = await self._dialler.dial(endpoint, expect=expected, purpose=Purpose.CONTROL)
        assert not isinstance(offer, Connection), "the gate links to nobody while we belong to no network"
        if not isinstance(offer, OpenNetwork):
            return offer if isinstance(offer, NoAnswer | Forbidden) else Forbidden(what=offer.sentence)
        if expected is not None and offer.node != expected:
            return Forbidden(what=f"node {short(offer.node)} answered at {endpoint} in place of {short(expected)}")
        refusal = await self._membership.adopt_open(offer.network, inviter=offer.node, endpoints=(endpoint,))
        if refusal is not None:
            return refusal
        logger.info("joined the open network %s at node %s", offer.network[:16], short(offer.node))
        self._bus.publish(NetworkJoined(network=offer.network, inviter=offer.node))
        return await self._link(offer.node, (endpoint,), network=offer.network, already=False, source=Source.INVITE)

    async def _link(
        self, node: NodeId, endpoints: tuple[Endpoint, ...], *, network: NetworkId, already: bool, source: Source
    ) -> Joined:
        """`endpoints`: the first one is where it answered."""
        await self._links.offer(node, endpoints, source=source)
        self._links.wake(node)
        linked = await self._links.wait_for(node, timeout_s=LINK_WAIT_S)
        return Joined(network=network, inviter=node, endpoint=endpoints[0], linked=linked, already=already)

    def _is_member(self, network: NetworkId) -> bool:
        """Not of the same network with a certificate that has ended, was taken back or should have been renewed (perhaps its
        inviter is gone for good), or without one: then a code brings a new one."""
        ours = self._membership.certificate
        if ours is None or self._membership.network != network or not self._membership.has_valid_certificate:
            return False
        return self._membership.has_network_key or not is_due(ours, now=self._world.clock.now())

    # ---- short codes

    async def _join_short(self, text: str) -> Joined | JoinRefusal:
        code = read_short(text)
        if not isinstance(code, ShortCode):
            return code
        if (refusal := await self._is_settled()) is not None:
            return refusal
        search = _Search(code=code)
        try:
            async with asyncio.timeout(DEADLINE_S):
                found = await (self._look_around(search) if code.at is None else self._knock(search, code.at))
        except TimeoutError:
            found = NoAnswer(tried=_texts(search.tried), reason=f"no answer within {DEADLINE_S:.0f} s")
        if not isinstance(found, _Admitted):
            return self._fruitless(search, found)
        certificate, inviter, endpoint = found.certificate, found.inviter, found.endpoint
        refusal = await self._membership.adopt(certificate, inviter=inviter, endpoints=(endpoint,))
        if refusal is not None:
            return refusal
        logger.info("joined network %s at node %s", certificate.network[:16], short(inviter))
        self._bus.publish(NetworkJoined(network=certificate.network, inviter=inviter))
        node = await self._settle(inviter, endpoint)
        return await self._link(node, (endpoint,), network=certificate.network, already=False, source=Source.INVITE)

    async def _is_settled(self) -> Forbidden | None:
        """A short code does not say for which network it is, so a member of one keeps what it has. One that is alone in its
        own leaves it."""
        network = self._membership.network
        if network is None or not self._membership.is_valid:
            return None
        if await self._membership.may_join(_ANOTHER) is None:
            return None
        return Forbidden(
            what=f"this node is a member of network {network[:16]} already: a short code is for a node that is in none"
        )

    async def _look_around(self, search: _Search) -> _Admitted | Refusal:
        if self._segment is None:
            return NoAnswer(
                tried=(),
                reason=f"network.enable_mdns is off here, so nobody is looked for; name the address, as in {SAMPLE}@HOST",
            )
        nobody = (
            f"nobody in the local network has short code {search.code.nameplate}: it is over, or its node is not in this "
            f"network and its address has to be named, as in {SAMPLE}@HOST"
        )
        said: _Admitted | Refusal = NoAnswer(tried=(), reason=nobody)
        try:
            async with self._segment.seek(search.code.nameplate) as found:
                until = self._world.clock.monotonic() + SEEK_S
                for _ in range(MAX_CANDIDATES):
                    try:
                        async with asyncio.timeout_at(until):
                            endpoints = await found.get()
                    except TimeoutError:
                        break
                    said = await self._knock(search, *endpoints)
                    if not isinstance(said, NoAnswer):
                        break
        except NoMulticast as error:
            reason = f"the local network cannot be searched: {error}; name the address, as in {SAMPLE}@HOST"
            return NoAnswer(tried=(), reason=reason)
        return said

    async def _knock(self, search: _Search, *endpoints: Endpoint) -> _Admitted | Refusal:
        """At one node, whose addresses these are. One after the other: it has one guess, and so have we."""
        had = search.exchanges
        said: _Admitted | Refusal = NoAnswer(tried=(), reason="it has no address")
        for endpoint in endpoints:
            said = await self._try_words(search, endpoint)
            if not isinstance(said, NoAnswer) or search.exchanges > had:
                break
        return said

    async def _try_words(self, search: _Search, endpoint: Endpoint) -> _Admitted | Refusal:
        code, entropy = search.code, self._world.entropy
        search.tried.append(endpoint)
        half = await self._compute(lambda: Half(Side.GUEST, code.words, entropy=entropy))

        async def finish(element: bytes) -> bytes | None:
            search.exchanges += 1
            return await unhurried(lambda: half.psk(element), compute=self._compute, clock=self._world.clock)

        result = await self._dialler.dial(
            endpoint,
            expect=None,  # who knows the words is the inviter
            purpose=Purpose.CONTROL,
            short=ShortTry(nameplate=code.nameplate, element=half.element, finish=finish),
        )
        if not isinstance(result, Connection):
            return result
        certificate = self._gate.admission(result.peer_hello, network=None)
        result.close("admitted")
        if isinstance(certificate, Forbidden):
            return certificate
        return _Admitted(certificate=certificate, inviter=result.node, endpoint=endpoint)

    async def _settle(self, inviter: NodeId, endpoint: Endpoint) -> NodeId:
        """Whom to link to: whoever answers a member at that address. It may be a node which passed our handshake on to the
        inviter; then the address says nothing of the inviter, and other members will."""
        result = await self._dialler.dial(endpoint, expect=None, purpose=Purpose.CONTROL)
        if not isinstance(result, Connection):
            return inviter
        if result.node != inviter:
            await self._links.forget(inviter)
        self._links.dialled(result, endpoint)
        return result.node

    @staticmethod
    def _fruitless(search: _Search, said: Refusal) -> JoinRefusal:
        tried = _texts(search.tried)
        if not isinstance(said, NoAnswer):
            return said if isinstance(said, JoinRefusal) else Forbidden(what=said.sentence)
        if search.exchanges:
            return BadCode(
                reason=f"whoever has number {search.code.nameplate} at {', '.join(tried)} did not take the words",
                remedy="a short code ends with the first wrong try, so ask for a new one",
            )
        if search.code.at is not None:
            reason = f"{said.reason}; no live short code {search.code.nameplate} there, or somebody else tries it just now"
            return NoAnswer(tried=tried, reason=reason)
        return NoAnswer(tried=tried, reason=said.reason)

    # ---- the visit

    async def _visit(self, invite: Invite) -> tuple[Certificate, Endpoint] | JoinRefusal:
        """Our certificate and where we got it. All addresses are tried, one shortly after the other."""
        endpoints = _diallable(invite)
        if not endpoints:
            return Forbidden(what="the code names no address that may be dialled: ask for a new one")
        answers: asyncio.Queue[tuple[Endpoint, Certificate | Refusal]] = asyncio.Queue(len(endpoints))
        said: list[Refusal] = []
        try:
            async with asyncio.timeout(DEADLINE_S), Supervisor("joining", world=self._world) as dials:
                for number, endpoint in enumerate(endpoints):
                    dials.spawn(
                        self._try(invite, endpoint, after_s=number * STAGGER_S, answers=answers), name=f"join at {endpoint}"
                    )
                while len(said) < len(endpoints):
                    endpoint, answer = await answers.get()
                    if isinstance(answer, Certificate):
                        return answer, endpoint
                    said.append(answer)
                    if isinstance(answer, UsedUp | Expired):
                        return answer  # the inviter itself said so: the other addresses lead to the same
        except TimeoutError:
            said.append(NoAnswer(tried=(), reason=f"no answer within {DEADLINE_S:.0f} s"))
        return _worst(said, endpoints)

    async def _try(
        self,
        invite: Invite,
        endpoint: Endpoint,
        *,
        after_s: float,
        answers: asyncio.Queue[tuple[Endpoint, Certificate | Refusal]],
    ) -> None:
        await asyncio.sleep(after_s)
        result = await self._dialler.dial(
            endpoint, expect=invite.inviter, purpose=Purpose.CONTROL, invite=(invite.tag, invite.psk)
        )
        if isinstance(result, Connection):
            answer: Certificate | Refusal = self._gate.admission(result.peer_hello, network=invite.network)
            result.close("admitted")
        else:
            answer = result
        answers.put_nowait((endpoint, answer))  # one place for each


_ANOTHER: Final = NetworkId("0" * 64)  # the key of no network: all zero is a point of small order


def _texts(endpoints: list[Endpoint]) -> tuple[str, ...]:
    return tuple(str(endpoint) for endpoint in dict.fromkeys(endpoints))


def _diallable(invite: Invite) -> tuple[Endpoint, ...]:
    return tuple(endpoint for endpoint in invite.endpoints if refuse(endpoint) is None)


def _worst(said: list[Refusal], endpoints: tuple[Endpoint, ...]) -> NoAnswer | Forbidden:
    """Of several noes the one that says most: what somebody answered, before nobody answering."""
    for refusal in said:
        if not isinstance(refusal, NoAnswer):
            return refusal if isinstance(refusal, Forbidden) else Forbidden(what=refusal.sentence)
    reasons = dict.fromkeys(refusal.reason for refusal in said if isinstance(refusal, NoAnswer))
    return NoAnswer(tried=tuple(str(endpoint) for endpoint in endpoints), reason="; ".join(reasons))
