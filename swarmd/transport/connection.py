"""One socket, one session: bytes in, records out, time. Everything happens inside the event that caused it.

A received record reaches its consumer within `data_received`, without a task in between; a message that is sent goes to
the socket within the call. While the transport has too much unwritten, messages stay in the session, unencrypted,
where streams take turns; so at most `_HIGH_WATER` plus one `OUTGOING_BUDGET` of ciphertext waits in memory.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

from swarmd.domain.ids import NodeId, short
from swarmd.domain.peers import Endpoint, PeerIdentity, Purpose
from swarmd.kit.direct_writer import DirectWriter
from swarmd.kit.world import World
from swarmd.transport.foreign_text import cleaned
from swarmd.wire.events import Closed, MessageReceived, RttMeasured, SessionEvent
from swarmd.wire.frames import Payload
from swarmd.wire.handshake import Established, Role
from swarmd.wire.noise import Buffer
from swarmd.wire.session import Session, Unwanted

logger = logging.getLogger(__name__)

_HIGH_WATER: Final = 256 * 1024  # unwritten bytes above which we stop encrypting: 2 ms at 1 Gbit/s
_LOW_WATER: Final = 64 * 1024
_LATE_S: Final = 1.0  # a tick that comes this late says that we were stuck, not that the peer is silent
_GRAIN_S: Final = 0.001
_DRAIN_S: Final = 2.0  # for a last GOODBYE to leave; then the socket is closed anyway

Sink = Callable[[SessionEvent], None]


class Connection(asyncio.Protocol):
    """A link to a proven peer. Made by the doors, used through `transport.rpc.Link`; nothing is read before `start`."""

    def __init__(
        self,
        *,
        transport: asyncio.Transport,
        established: Established,
        peer: PeerIdentity,
        peer_hello: bytes,
        remote: Endpoint,
        world: World,
        via: NodeId | None = None,
    ) -> None:
        self.peer = peer
        self.peer_hello: Final = peer_hello
        """What the peer said in its Hello, as it came."""
        self.remote: Final = remote
        """The address we see the peer at; for a peer that dialled us its port means nothing, for a relayed one all of it."""
        self.via: Final = via
        """The member that relays the bytes; None: the peer's own socket."""
        self.dialled: Final = established.role is Role.INITIATOR
        """We opened it."""
        self.handshake_hash: Final = established.handshake_hash
        self.remote_static: Final = established.remote_static
        """The static key that the peer proved to hold."""
        self.rtt_s: float | None = None
        """The latest round trip."""
        self.min_rtt_s: float | None = None
        self.rtt_samples = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self._clock = world.clock
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._leftover = established.leftover
        self._session = Session(
            role=established.role, send=established.send, receive=established.receive, now=self._clock.ticks()
        )
        self._writer = DirectWriter(transport)
        self._sink: Sink | None = None
        self._paused = False
        self._flushing = False
        self._lost = False
        self._told = False
        self._timer: asyncio.TimerHandle | None = None
        self._abort: asyncio.TimerHandle | None = None
        self._closed: asyncio.Future[str] = self._loop.create_future()
        self._pongs: list[asyncio.Future[None]] = []
        transport.set_write_buffer_limits(high=_HIGH_WATER, low=_LOW_WATER)
        no_delay(transport)

    def __repr__(self) -> str:
        return f"<Connection {short(self.node)} {self.purpose.value} {self.remote}>"

    @property
    def node(self) -> NodeId:
        return self.peer.node

    @property
    def local_host(self) -> str | None:
        """The address of ours that the socket stands on; None when the transport does not say."""
        name = self._transport.get_extra_info("sockname")
        return str(name[0]).partition("%")[0].removeprefix("::ffff:") if name else None

    @property
    def purpose(self) -> Purpose:
        return self.peer.purpose

    @property
    def queued_bytes(self) -> int:
        """Encrypted, and not yet taken by the system."""
        return 0 if self._lost else self._transport.get_write_buffer_size()

    @property
    def closed(self) -> str | None:
        """Why the connection is over; None while it is not."""
        reason = self._session.closed
        return None if reason is None else cleaned(reason)

    def start(self, sink: Sink, *, unwanted: Unwanted | None = None) -> None:
        """Begins to read. Every event goes to `sink`, at once and in order; `Closed` is the last and comes exactly once.

        A stream whose first message is `unwanted` is reset, and the sink does not hear of it.
        """
        assert self._sink is None, "a connection has one sink"
        self._sink = sink
        if unwanted is not None:
            self._session.screen(unwanted)
        if self._told:
            sink(Closed(reason=self.closed or ""))
            return
        self._arm()
        self.ping()
        leftover, self._leftover = self._leftover, b""
        if leftover:
            self.data_received(leftover)
        if not self._transport.is_closing():
            self._transport.resume_reading()

    async def wait_closed(self) -> str:
        """Returns why, when the connection is over."""
        return await asyncio.shield(self._closed)

    def close(self, reason: str = "closing") -> None:
        """Says goodbye and closes. The sink hears `Closed`. Nothing happens when it is over already."""
        if self._session.closed is None:
            self._session.close(reason)
        self._flush()
        self._ends(reason)

    # ---- for rpc: the session's verbs, each followed by a write

    def open_stream(self, code: int, meta: Buffer, payload: Payload = b"", *, last: bool = False) -> int:
        """Raises TooManyStreams, StreamGone, ValueError (size)."""
        number = self._session.open_stream(code, meta, payload, last=last)
        self._flush()
        return number

    def send(self, stream: int, code: int, meta: Buffer, payload: Payload = b"", *, last: bool = False) -> bool:
        """False, with nothing done, while an earlier message is pending. Raises StreamGone, ValueError (size)."""
        if not self._session.send(stream, code, meta, payload, last=last):
            return False
        self._flush()
        return True

    def pending(self, stream: int) -> bool:
        """A message of this stream is not written yet; `Writable` follows."""
        return self._session.pending(stream)

    def end(self, stream: int) -> None:
        self._session.end(stream)
        self._flush()

    def reset(self, stream: int, code: int, text: str = "") -> None:
        self._session.reset(stream, code, text)
        self._flush()

    def consumed(self, stream: int, cost: int) -> None:
        """Credit goes out with what is written next; on its own only when enough has come together."""
        self._session.consumed(stream, cost)
        if self._session.has_outgoing:
            self._flush()

    def ping(self) -> None:
        """Measures the round trip; see `rtt_s`."""
        self._session.ping(self._clock.ticks())
        self._flush()

    async def answers(self, *, within_s: float) -> bool:
        """Whether the peer gives a sign of life by then. It must have been started."""
        pong = self._loop.create_future()
        self._pongs.append(pong)
        self.ping()
        try:
            async with asyncio.timeout(within_s):
                await pong
        except TimeoutError:
            return False
        finally:
            self._pongs.remove(pong)
        return self.closed is None

    # ---- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        session, sink = self._session, self._sink
        for event in session.receive(data, self._clock.ticks()):
            if sink is not None and type(event) is MessageReceived:  # nearly all of them, and one for every token
                sink(event)
            else:
                self._deliver(event)
        if session.has_outgoing:
            self._flush()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        reason = "the peer hung up" if exc is None else f"the connection broke: {exc}"
        if self._session.closed is None:
            self._session.close(reason)
        self._ends(reason)
        if self._abort is not None:
            self._abort.cancel()
            self._abort = None

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    # ---- inside

    def _deliver(self, event: SessionEvent) -> None:
        match event:
            case RttMeasured(seconds=seconds):
                self.rtt_s = seconds
                self.min_rtt_s = seconds if self.min_rtt_s is None else min(seconds, self.min_rtt_s)
                self.rtt_samples += 1
                self._wake_pongs()
            case Closed(reason=reason):
                self._flush()
                self._ends(reason)
            case _:
                assert self._sink is not None, "nothing is read before start"
                self._sink(event)

    def _flush(self) -> None:
        """Writes what the session has, until it has nothing more or the transport has enough."""
        if self._flushing or self._lost:
            return  # an event below sends something: the loop that is running takes it along
        session = self._session
        self._flushing = True
        try:
            while session.has_outgoing and not self._paused:
                records = session.outgoing()
                for record in records:
                    self.bytes_out += len(record)
                self._writer.write(records)
                for event in session.take_events():
                    self._deliver(event)
        finally:
            self._flushing = False
        for event in session.take_events():
            self._deliver(event)

    def _ends(self, reason: str) -> None:
        """The session is over: tell the sink once, and see the socket out."""
        if self._told:
            return
        self._told = True
        reason = cleaned(reason)  # the peer may have written it
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._closed.done():
            self._closed.set_result(reason)
        self._wake_pongs()
        if not self._lost:
            if self._paused:
                self._write_last()
            self._transport.close()
            self._abort = self._loop.call_later(_DRAIN_S, self._transport.abort)
        logger.debug("link to %s (%s) is over: %s", short(self.node), self.purpose.value, reason)
        if self._sink is not None:
            self._sink(Closed(reason=reason))

    def _wake_pongs(self) -> None:
        for pong in self._pongs:
            if not pong.done():
                pong.set_result(None)

    def _write_last(self) -> None:
        """A paused transport still takes the few bytes of a GOODBYE."""
        self._transport.writelines(self._session.outgoing())

    def _arm(self) -> None:
        if self._told:
            return
        # Never zero: a timer may come a rounding error early, and a loop of no time at all would follow.
        delay = max(_GRAIN_S, self._session.next_deadline() - self._clock.ticks())
        self._timer = self._loop.call_later(delay, self._tick, self._clock.ticks() + delay)

    def _tick(self, due: float) -> None:
        now = self._clock.ticks()
        if now - due > _LATE_S:
            # The loop was stuck: bytes of the peer may be waiting in the socket. Read them before judging.
            self._timer = self._loop.call_later(_LATE_S / 2, self._tick, now + _LATE_S / 2)
            return
        for event in self._session.tick(now):
            self._deliver(event)
        self._flush()
        self._arm()


def no_delay(transport: asyncio.BaseTransport) -> None:
    """A token must not wait for more bytes to fill a packet (Nagle); asyncio sets this too, but does not promise it."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
