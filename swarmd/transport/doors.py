"""Accepting and dialling: both end in a handshaken `Connection`, or in a refusal.

Whoever knocks and is not proven costs us little: a few sockets for each address, five seconds, and two X25519 operations;
and it learns little: one silence for every mistake. When all places are taken, a newcomer gets one and somebody who has
not proven itself for longer loses it: else eight addresses that say nothing would keep everybody out.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from swarmd.domain.ids import NodeId, short
from swarmd.domain.peers import Endpoint, PeerIdentity, Purpose
from swarmd.domain.refusals import NoAnswer, OtherNode, Refusal
from swarmd.kit.flow import TokenBucket
from swarmd.kit.logs import Seldom
from swarmd.kit.service import Fatal, Ready
from swarmd.kit.world import World
from swarmd.transport.connection import Connection
from swarmd.transport.greeting import HUNG_UP, Greeting
from swarmd.wire.handshake import ElementReceived, Handshake, HandshakeFailed, InviteTag, PeerProven, ResponderSeen

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_S: Final = 5.0  # three flights over the slowest link we want (1 s), and a store that is busy
LISTEN_FAILED: Final = 1  # exit code: another program has the port
_EPHEMERAL_BYTES: Final = 32
_BUCKETS: Final = 1024  # addresses whose rate is remembered; the one seen longest ago is forgotten first

Spawn = Callable[..., "asyncio.Task[Any]"]
"""`spawn(coroutine, name=...)`: `kit.service.Supervisor.spawn`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The caller may come in; `reply` is our own Hello (in an invited handshake with the certificate that was issued)."""

    peer: PeerIdentity
    reply: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnedAway:
    """The caller may not come in. It is told `reply` and then disconnected; `None` means silence, the rule for strangers."""

    why: Refusal
    reply: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The answer to whoever tries a short code of ours. The only one on that code until `exchange_over`."""

    element: bytes
    """Ours."""
    psk: bytes
    """Right for whoever knows the words; the caller proves that with message 3."""
    tag: bytes
    """Of the invite that stands behind the code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """A node that we are linked to has the short code that was asked for."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortTry:
    """What `Doors.dial` needs of somebody who joins by a short code. For one dial."""

    nameplate: int
    element: bytes
    finish: Callable[[bytes], Awaitable[bytes | None]]
    """The psk out of the element that answers ours; None: it is no element."""


Forward = Callable[[Greeting, NodeId, bytes], Awaitable[None]]
"""`await forward(greeting, node, first)`: carries the bytes of this handshake to that node and its answers back, until
either side hangs up. `first` is all that was read so far; nothing was written, and reading is paused. Takes over the
socket: it sets another protocol on `greeting.transport`, or closes it."""


class Authority(Protocol):
    """What the doors must know about identity and membership. Implemented by `peers/membership.py`.

    Hellos are opaque bytes here, at most `wire.handshake.MAX_HELLO_BYTES` (4096) long. Both travel encrypted, after the
    sender's static X25519 key has been proven by Noise, so a Hello has to bind its node id to exactly the `static_public`
    that comes with it (design, section 6: the static key is signed by the Ed25519 key).

    Order of calls for one link, member (`invited=False`, `invite_tag=None`) and joining (`invited=True`, tag given):

        initiator                                  responder
        (dial is given tag and psk)                psk_for(tag)                 joining only, before any answer
        hello(purpose, invited)          ──►       admit(hello, ...)            → Admitted.reply
        check(reply, ...)                ◄──       (or TurnedAway.reply, or silence)

    Somebody who joins by a short code comes with a number and an element (`wire.handshake`): `exchange` in the place of
    `psk_for`, then as with an invite whose tag is `Exchange.tag`, and in the end `exchange_over`, whatever happened.

    None of these may take longer than the handshake deadline (5 s); they may be cancelled at any `await`.
    """

    def static_private(self) -> bytes:
        """This node's static X25519 private key, 32 raw bytes."""
        ...

    def hello(self, *, purpose: Purpose, invited: bool, expect: NodeId | None = None) -> bytes:
        """The Hello to send when we dial. `invited`: we hold no certificate yet and ask for one. `expect`: whom we mean;
        anybody else is to turn us away."""
        ...

    async def psk_for(self, tag: bytes) -> bytes | None:
        """The 32-byte psk of the live invite with this 16-byte tag; None when there is none (the caller then gets silence).

        The invite is not spent here: anybody can send a tag. Only `admit` knows that the caller had the secret.
        """
        ...

    async def exchange(self, nameplate: int, element: bytes, *, caller: Endpoint) -> Exchange | Elsewhere | None:
        """Our half of an exchange on the short code with this number. None: there is none, or it is busy (the caller then
        gets silence). `element` is as it came, `caller` for the log."""
        ...

    def exchange_over(self, exchange: Exchange, *, guess: bool | None, caller: Endpoint) -> None:
        """What `exchange` gave has been used: the words were right, or wrong, or nobody tried any (None). It must not
        wait: a second guess must not be judged before this one is known."""
        ...

    async def admit(self, hello: bytes, *, static_public: bytes, invite_tag: bytes | None) -> Admitted | TurnedAway:
        """Judge somebody who dialled us. With `invite_tag` the psk of that invite has been proven: spend it, issue here."""
        ...

    async def check(self, hello: bytes, *, static_public: bytes, invited: bool) -> PeerIdentity | Refusal:
        """Judge the Hello that answers ours. With `invited` it holds our new certificate, or why there is none.

        The doors compare `PeerIdentity.node` with the node they were told to expect, after this returns.
        The raw reply stays readable as `Connection.peer_hello` for whoever dialled: a joiner finds its certificate there.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorLimits:
    """What strangers may take of us. One address is one IPv4 address or one IPv6 /64, which is what one customer gets."""

    waiting_total: int = 64
    """Connections under handshake, from everywhere; beyond, the newest takes the place of an old one."""
    waiting_per_address: int = 8
    rate_per_address: float = 4.0
    """New connections a second, on average."""
    burst_per_address: float = 40.0
    """A small office behind one address reconnecting after a power cut: 20 nodes, two links each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Caller:
    """Somebody who knocked."""

    address: str
    """As `_network_of` gives it."""
    task: asyncio.Task[bool]


class Listener(Protocol):
    """An open port."""

    @property
    def endpoint(self) -> Endpoint: ...

    def close(self) -> None:
        """Accepts no more; connections stay."""
        ...


class Network(Protocol):
    """Where sockets come from: TCP, or `transport.loopback` in tests."""

    async def listen(self, factory: Callable[[], asyncio.Protocol], endpoint: Endpoint) -> Listener:
        """Raises OSError when the port cannot be had."""
        ...

    async def connect(self, factory: Callable[[], asyncio.Protocol], endpoint: Endpoint) -> None:
        """Raises OSError when nobody listens there."""
        ...


class Carrier(Protocol):
    """What carries bytes and is no socket: `transport.circuit.CircuitTransport`."""

    def begin(self, protocol: asyncio.Protocol) -> None:
        """From now on the protocol has the bytes."""
        ...


class TcpListener:
    """See Listener."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    @property
    def endpoint(self) -> Endpoint:
        name = self._server.sockets[0].getsockname()
        return Endpoint(str(name[0]), int(name[1]))

    def close(self) -> None:
        # CPython 3.11 accepts in two turns of the loop, and closing the server between them fails an assertion and
        # leaves the socket open. So nothing is accepted from now on, and the server goes after what was begun: the loop
        # runs its callbacks in order.
        loop = self._server.get_loop()
        for sock in self._server.sockets:
            with contextlib.suppress(NotImplementedError):  # Windows' loop has no readers, and accepts in one turn
                loop.remove_reader(sock)
        loop.call_soon(self._server.close)


class TcpNetwork:
    """The real one."""

    async def listen(self, factory: Callable[[], asyncio.Protocol], endpoint: Endpoint) -> Listener:
        loop = asyncio.get_running_loop()
        return TcpListener(await loop.create_server(factory, endpoint.host, endpoint.port, backlog=128))

    async def connect(self, factory: Callable[[], asyncio.Protocol], endpoint: Endpoint) -> None:
        await asyncio.get_running_loop().create_connection(factory, endpoint.host, endpoint.port)


class Doors:
    """Service: listens while it runs. `dial` works as soon as the object exists."""

    name = "doors"

    def __init__(
        self,
        *,
        listen: Endpoint | None,
        authority: Authority,
        on_connection: Callable[[Connection], None],
        spawn: Spawn,
        world: World,
        network: Network | None = None,
        limits: DoorLimits | None = None,
        forward: Forward | None = None,
    ) -> None:
        """`listen=None`: dial only. `on_connection` takes what was accepted, at once, and must `start` or `close` it.
        `forward`: for callers who mean the short code of a node that we are linked to; without it they get silence."""
        self._listen = listen
        self._authority = authority
        self._on_connection = on_connection
        self._spawn = spawn
        self._world = world
        self._network = network or TcpNetwork()
        self._limits = limits or DoorLimits()
        self._forward = forward
        self._waiting: dict[Greeting, _Caller] = {}
        """Under handshake, the oldest first."""
        self._open = False
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._listener: Listener | None = None
        self._seldom = Seldom(clock=world.clock)
        self.turned_away = 0
        """Connections that ended before their peer was proven and admitted, for the metrics."""

    @property
    def endpoint(self) -> Endpoint | None:
        """Where we listen, with the real port; None while we do not."""
        return self._listener.endpoint if self._listener is not None else None

    async def run(self, ready: Ready) -> None:
        """Listens until cancelled. Raises Fatal when the port cannot be had."""
        self._open = True  # also of a node that does not listen: others come through relays
        if self._listen is not None:
            try:
                self._listener = await self._network.listen(self._knock, self._listen)
            except OSError as error:
                reason = os.strerror(error.errno) if error.errno else str(error)
                raise Fatal(LISTEN_FAILED, f"cannot listen for peers on {self._listen}: {reason}") from error
            logger.info("listening for peers on %s", self._listener.endpoint)
        try:
            ready()
            await asyncio.get_running_loop().create_future()
        finally:
            self._open = False
            if self._listener is not None:
                self._listener.close()
                self._listener = None

    # ---- dialling

    async def dial(
        self,
        endpoint: Endpoint,
        *,
        expect: NodeId | None,
        purpose: Purpose,
        invite: tuple[bytes, bytes] | None = None,
        short: ShortTry | None = None,
    ) -> Connection | Refusal:
        """A connection that nobody reads yet (`start` it or `close` it), or why there is none.

        NoAnswer: nobody there, or silence (which is also how a stranger is refused). OtherNode: somebody else than `expect`
        answered. Any other refusal comes from the authority. `invite` is (tag, psk) for somebody who joins;
        `short` is for somebody who joins by a short code.
        """

        async def connect(greeting: Greeting) -> None:
            await self._network.connect(lambda: greeting, endpoint)

        return await self._dial(connect, str(endpoint), expect=expect, purpose=purpose, invite=invite, short=short)

    async def dial_through(
        self, carrier: Carrier, *, via: NodeId, expect: NodeId, purpose: Purpose
    ) -> Connection | Refusal:
        """`dial`, over what `via` relays in place of a socket."""

        async def connect(greeting: Greeting) -> None:
            carrier.begin(greeting)

        return await self._dial(connect, f"relay {short(via)}", expect=expect, purpose=purpose)

    async def reaches(self, endpoint: Endpoint, static_public: bytes) -> bool:
        """Whether the node with this static key accepts links there. Whoever answers learns nothing of us."""
        greeting = Greeting(
            Handshake.dial(
                static_private=self._authority.static_private(),
                ephemeral_private=self._world.entropy.token(_EPHEMERAL_BYTES),
                hello=b"",
                probe=True,
            )
        )
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await self._network.connect(lambda: greeting, endpoint)
                event = await greeting.question()
        except (TimeoutError, OSError):
            return False
        finally:
            greeting.abort()
        return isinstance(event, ResponderSeen) and event.static_public == static_public

    async def _dial(
        self,
        connect: Callable[[Greeting], Awaitable[None]],
        where: str,
        *,
        expect: NodeId | None,
        purpose: Purpose,
        invite: tuple[bytes, bytes] | None = None,
        short: ShortTry | None = None,
    ) -> Connection | Refusal:
        handshake = Handshake.dial(
            static_private=self._authority.static_private(),
            ephemeral_private=self._world.entropy.token(_EPHEMERAL_BYTES),
            hello=self._authority.hello(purpose=purpose, invited=invite is not None or short is not None, expect=expect),
            invite=invite,
            short=None if short is None else (short.nameplate, short.element),
        )
        greeting = Greeting(handshake)
        done = False
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await connect(greeting)
                if short is not None and (silent := await self._exchange(greeting, where, short)) is not None:
                    return silent
                invited = invite is not None or short is not None
                result = await self._dialled(greeting, where, expect=expect, purpose=purpose, invited=invited)
            done = isinstance(result, Connection)
            return result
        except TimeoutError:
            return NoAnswer(tried=(where,), reason=f"no answer within {HANDSHAKE_TIMEOUT_S:.0f} s")
        except OSError as error:
            return NoAnswer(tried=(where,), reason=error.strerror or str(error))
        finally:
            if not done:
                greeting.abort()

    async def _exchange(self, greeting: Greeting, where: str, short: ShortTry) -> NoAnswer | None:
        """Our half of the psk. None: the handshake goes on."""
        event = await greeting.question()
        match event:
            case ElementReceived(element=element):
                psk = await short.finish(element)
            case HandshakeFailed(reason=reason):
                return NoAnswer(tried=(where,), reason=reason)
            case PeerProven() | InviteTag() | ResponderSeen():
                raise AssertionError("the element comes before everything else")
        if psk is None:
            return NoAnswer(tried=(where,), reason="its half of the exchange is none")
        greeting.exchanged(psk)
        return None

    async def _dialled(
        self, greeting: Greeting, where: str, *, expect: NodeId | None, purpose: Purpose, invited: bool
    ) -> Connection | Refusal:
        event = await greeting.question()
        match event:
            case PeerProven():
                pass
            case HandshakeFailed(reason=reason):
                return NoAnswer(tried=(where,), reason=reason)
            case InviteTag() | ElementReceived() | ResponderSeen():
                raise AssertionError("a responder is asked about invite tags, an element comes once, a probe sees no more")
        peer = await self._authority.check(event.hello, static_public=event.static_public, invited=invited)
        if isinstance(peer, Refusal):
            return peer
        if expect is not None and peer.node != expect:
            return OtherNode(node=peer.node, expected=expect, where=where)
        greeting.handshake.accept()
        connection = greeting.opened(peer=replace(peer, purpose=purpose), peer_hello=event.hello, world=self._world)
        if connection is None:
            return NoAnswer(tried=(where,), reason="the peer hung up after the handshake")
        return connection

    # ---- accepting

    def take(self, carrier: Carrier) -> None:
        """Somebody comes through a relay: the same handshake, and the same limits as for an address."""
        carrier.begin(self._knock())

    def _knock(self) -> Greeting:
        handshake = Handshake.answer(
            static_private=self._authority.static_private(),
            ephemeral_private=self._world.entropy.token(_EPHEMERAL_BYTES),
        )
        return Greeting(handshake, on_connected=self._accepted)

    def _accepted(self, greeting: Greeting) -> None:
        address = _network_of(greeting.remote.host)
        limits = self._limits
        if (
            not self._open  # accepted in the turn in which the listener was closed
            or sum(one.address == address for one in self._waiting.values()) >= limits.waiting_per_address
            or not self._bucket(address).try_take()
        ):
            self.turned_away += 1
            greeting.abort()
            return
        if len(self._waiting) >= limits.waiting_total:
            self._crowd_out()
        # No await since the check: the count cannot be stale.
        task: asyncio.Task[bool] = self._spawn(self._greet(greeting), name=f"handshake with {greeting.remote}")
        self._waiting[greeting] = _Caller(address=address, task=task)
        task.add_done_callback(lambda done: self._left(greeting, done))

    def _crowd_out(self) -> None:
        """The address that holds most places gives up its oldest one.

        A genuine handshake is over after three flights: it is among the young ones, and its address holds few places.
        Dropping at random, as sshd does, would hit it as often as one that says nothing.
        """
        held = Counter(one.address for one in self._waiting.values())
        victim = max(self._waiting, key=lambda one: held[self._waiting[one].address])  # of equals the first, the oldest
        logger.debug("%s makes room for a newer caller", victim.remote)
        self._waiting.pop(victim).task.cancel()

    def _left(self, greeting: Greeting, task: asyncio.Task[bool]) -> None:
        """However the handshake ended: a task that is cancelled before its first step runs no `finally` of its own."""
        self._waiting.pop(greeting, None)
        if task.cancelled():
            self.turned_away += 1
            greeting.abort()
        elif task.exception() is not None or not task.result():
            self.turned_away += 1
            greeting.close()

    async def _greet(self, greeting: Greeting) -> bool:
        """Whether somebody has the socket now: as a connection, or to forward it."""
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                answer = await self._answered(greeting)
        except TimeoutError:
            logger.debug("no handshake from %s in time", greeting.remote)
            return False
        if not isinstance(answer, Connection):
            return answer
        self._on_connection(answer)
        return True

    async def _answered(self, greeting: Greeting) -> Connection | bool:
        """In place of a connection: whether the socket was handed on to somebody else."""
        exchange: Exchange | None = None
        try:
            while True:
                event = await greeting.question()
                match event:
                    case InviteTag(tag=tag):
                        psk = await self._authority.psk_for(tag)
                        if psk is None:
                            level = logging.INFO if self._seldom.due(f"{greeting.remote.host} invite") else logging.DEBUG
                            logger.log(level, "%s knocked with an unknown invite", greeting.remote)
                            return False
                        greeting.psk(psk)
                    case ElementReceived():
                        answer = await self._authority.exchange(event.nameplate, event.element, caller=greeting.remote)
                        if not isinstance(answer, Exchange):
                            return await self._passed_on(greeting, event.nameplate, answer)
                        exchange = answer
                        greeting.exchanged(exchange.psk, exchange.element)
                    case PeerProven():
                        tag = event.invite_tag if exchange is None else exchange.tag
                        return await self._judged(greeting, event, tag) or False
                    case HandshakeFailed(reason=reason):
                        # Whoever only looks who lives here hangs up (`reaches`); the rest is worth a line, once: of each
                        # kind, for the numbers in it are the caller's.
                        kind = "".join(letter for letter in reason if not letter.isdigit())
                        loud = reason != HUNG_UP and self._seldom.due(f"{greeting.remote.host} {kind}")
                        logger.log(logging.INFO if loud else logging.DEBUG, "%s is no peer: %s", greeting.remote, reason)
                        return False
                    case ResponderSeen():
                        raise AssertionError("only a probe sees no more than the responder")
        finally:  # also when it was cancelled or took too long: a guess that was read counts
            if exchange is not None:
                self._authority.exchange_over(exchange, guess=greeting.handshake.guess, caller=greeting.remote)

    async def _passed_on(self, greeting: Greeting, nameplate: int, answer: Elsewhere | None) -> bool:
        if answer is None or self._forward is None:
            level = logging.INFO if self._seldom.due(f"{greeting.remote.host} short code") else logging.DEBUG
            logger.log(level, "%s knocked with short code %d, which nobody answers", greeting.remote, nameplate)
            return False
        await self._forward(greeting, answer.node, greeting.handshake.first_flight)
        return True

    async def _judged(self, greeting: Greeting, event: PeerProven, tag: bytes | None) -> Connection | None:
        verdict = await self._authority.admit(event.hello, static_public=event.static_public, invite_tag=tag)
        match verdict:
            case TurnedAway(why=why, reply=reply):
                # A node that was put out dials on for ever.
                level = logging.INFO if self._seldom.due(f"{greeting.remote.host} {why.sentence}") else logging.DEBUG
                logger.log(level, "%s was turned away: %s", greeting.remote, why.sentence)
                greeting.handshake.reject(reply)
                greeting.write()
                return None
            case Admitted(peer=peer, reply=reply):
                greeting.handshake.accept(reply)
                return greeting.opened(peer=peer, peer_hello=event.hello, world=self._world)

    def _bucket(self, address: str) -> TokenBucket:
        bucket = self._buckets.pop(address, None)
        if bucket is None:
            limits = self._limits
            bucket = TokenBucket(limits.rate_per_address, limits.burst_per_address, clock=self._world.clock)
        self._buckets[address] = bucket
        if len(self._buckets) > _BUCKETS:
            self._buckets.popitem(last=False)
        return bucket


def _network_of(host: str) -> str:
    """What counts as one address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host  # a name of the loopback network
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host
