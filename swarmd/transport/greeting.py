"""A socket while its handshake runs: from the first byte to a proven peer, or to silence."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from swarmd.domain.peers import Endpoint, PeerIdentity
from swarmd.kit.world import World
from swarmd.transport.connection import Connection
from swarmd.wire.handshake import Handshake, HandshakeEvent, HandshakeFailed

HUNG_UP: Final = "the peer hung up during the handshake"


class Greeting(asyncio.Protocol):
    """Feeds the handshake machine and hands its questions, one at a time, to the coroutine that answers them.

    Reading stops while a question is open: at most four events and one read of the socket are ever waiting.
    """

    def __init__(self, handshake: Handshake, *, on_connected: Callable[[Greeting], None] | None = None) -> None:
        self.handshake = handshake
        self._on_connected = on_connected
        self._events: deque[HandshakeEvent] = deque()  # the machine makes at most four in its life
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._lost = False

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None, "not connected yet"
        return self._transport

    @property
    def remote(self) -> Endpoint:
        """The address the peer is seen at."""
        name = self.transport.get_extra_info("peername")
        return Endpoint(str(name[0]), int(name[1])) if name else Endpoint("unknown", 0)

    async def question(self) -> HandshakeEvent:
        """The machine's next event. A lost socket is a failed handshake."""
        while not self._events:
            if self._lost:
                return HandshakeFailed(reason=HUNG_UP)
            if not self.transport.is_closing():
                self.transport.resume_reading()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._events.popleft()

    def psk(self, psk: bytes) -> None:
        """The answer to an invite tag."""
        self._took(self.handshake.psk(psk))

    def exchanged(self, psk: bytes, element: bytes = b"") -> None:
        """The answer to an element."""
        self._took(self.handshake.exchanged(psk, element))

    def write(self) -> None:
        """Sends what the machine has to say."""
        data = self.handshake.outgoing()
        if data and not self._lost:
            self.transport.write(data)

    def close(self) -> None:
        """Closes after what was written has left."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Closes at once; also right when there is no socket yet or any more."""
        if self._transport is not None:
            self._transport.abort()

    def opened(self, *, peer: PeerIdentity, peer_hello: bytes, world: World) -> Connection | None:
        """The finished handshake as a connection, which has taken over the socket; None when the socket is gone."""
        self.write()
        if self._lost:
            return None
        connection = Connection(
            transport=self.transport,
            established=self.handshake.established(),
            peer=peer,
            peer_hello=peer_hello,
            remote=self.remote,
            via=self.transport.get_extra_info("via"),
            world=world,
        )
        self.transport.set_protocol(connection)
        return connection

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports do not inherit from asyncio's
        if self._on_connected is not None:
            self._on_connected(self)
        self.write()

    def data_received(self, data: bytes) -> None:
        self._took(self.handshake.receive(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._wake()

    def _took(self, events: list[HandshakeEvent]) -> None:
        self.write()
        if events:
            self._events += events
            if not self._lost and not self.transport.is_closing():
                self.transport.pause_reading()
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
