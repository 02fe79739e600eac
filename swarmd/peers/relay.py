"""Circuits through a common member, for two nodes that cannot dial each other: both sides of it, and the one in between.

What runs through a circuit is a link as any other, with the handshake between the two ends: the relay sees sizes and
times. A circuit has two hops and no more: the relay has a direct link to both ends, of the purpose that the circuit has,
so that shard bytes do not stand in the way of tokens there either.

A relay is bounded in circuits and in bytes a second, and every member may refuse to be one (`network.relay`).

Publishes `CircuitRelayed`, at the end of a circuit and every few minutes of a long one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final, Protocol

from swarmd.domain.events import CircuitRelayed
from swarmd.domain.ids import NodeId, parse_node_id, short
from swarmd.domain.peers import Purpose
from swarmd.domain.refusals import Busy, Forbidden, Invalid, NoAnswer, NotFound, Refusal
from swarmd.kit.bus import EventBus
from swarmd.kit.flow import TokenBucket
from swarmd.kit.world import World
from swarmd.transport.circuit import CircuitTransport
from swarmd.transport.connection import Connection
from swarmd.transport.doors import Carrier
from swarmd.transport.greeting import Greeting
from swarmd.transport.rpc import Dispatcher, Link, LinkLost, ResetCode, Stream, StreamReset
from swarmd.wire.circuits import MAX_CIRCUIT_BYTES, CircuitBytes, CircuitOpen, IncomingCircuit, OpenCircuit
from swarmd.wire.events import TooManyStreams
from swarmd.wire.messages import Refused

MAX_CIRCUITS: Final = 128  # 32 pairs of nodes with two connections each, from both sides; a circuit holds two streams
MAX_PER_NODE: Final = 32  # opened by one node: nobody takes all of them
MAX_VISITORS: Final = 4  # with short codes of others, at once: two people at two machines, each twice
VISIT_BYTES: Final = 64 * 1024  # of a visitor, both ways: Hellos have 4 KiB at most, and a certificate less than one
OPEN_TIMEOUT_S: Final = 5.0  # one call through the relay: as long as a handshake may take
BURST_S: Final = 0.25  # of the allowed rate at once: a prompt's activations do not wait, and nobody hogs the line for long
SLICE_BYTES: Final = 16 * 1024  # waited for one after the other, so that circuits take turns: a token waits for slices
SILENT_S: Final = 30.0  # links speak every 3 s (`wire.session.IDLE_PING_S`): nobody is there any more, or it is no link
LAST_S: Final = 5.0  # one direction has ended: what the other still has to say may take as long as a GOODBYE needs
TOLD_S: Final = 300.0  # of a circuit that goes on: they stand for days
SHORT_S: Final = 1.0  # nobody is told of less: a member that opens and closes circuits must not make facts by the thousand
BULK_SHARE: Final = 0.5  # of the allowed rate, for shard bytes of all circuits together: tokens always find room

logger = logging.getLogger(__name__)


class Lines(Protocol):
    """What relaying needs of `peers.links.Links`."""

    def link(self, node: NodeId, purpose: Purpose = Purpose.CONTROL) -> Link | None: ...


class Doors(Protocol):
    """What it needs of `transport.doors.Doors`."""

    def take(self, carrier: Carrier) -> None: ...

    async def dial_through(
        self, carrier: Carrier, *, via: NodeId, expect: NodeId, purpose: Purpose
    ) -> Connection | Refusal: ...


class Relay:
    """One per node. Registers its messages with `dispatcher`."""

    def __init__(
        self,
        *,
        own: NodeId,
        lines: Lines,
        doors: Doors,
        dispatcher: Dispatcher,
        world: World,
        bytes_per_s: Callable[[], float],
        bus: EventBus,
    ) -> None:
        """`bytes_per_s`: what this node relays for others, both directions of all circuits together; 0: nothing."""
        self._own = own
        self._lines = lines
        self._doors = doors
        self._bytes_per_s = bytes_per_s
        self._bus, self._clock = bus, world.clock
        self._buckets = {purpose: TokenBucket(1.0, 1.0, clock=world.clock) for purpose in Purpose}
        self._rate = 0.0
        self._circuits: Counter[NodeId] = Counter()
        """By who opened them."""
        self.relayed_bytes = 0
        """Since the start, for the metrics."""
        dispatcher.serve(OpenCircuit, self._serve)
        dispatcher.accept(IncomingCircuit, self._incoming)

    @property
    def circuits(self) -> int:
        """That run through this node now."""
        return self._circuits.total()

    # ---- at an end

    async def dial(self, node: NodeId, purpose: Purpose, *, via: NodeId) -> Connection | Refusal:
        """A link to `node` through `via`, to which we must have a direct one. NotFound: `via` has none to `node`. NoAnswer:
        there is no way now."""
        link = self._lines.link(via, purpose)
        if link is None or link.connection.via is not None:
            return NoAnswer(tried=(f"relay {short(via)}",), reason="there is no direct link to it")
        stream = await _opened(link, OpenCircuit(node=node), where=f"relay {short(via)}")
        if isinstance(stream, Refusal):
            return stream
        # No await since the stream was opened: whoever cancels us finds it in the transport's hands.
        carrier = CircuitTransport(stream, via=via)
        return await self._doors.dial_through(carrier, via=via, expect=node, purpose=purpose)

    def _incoming(self, message: IncomingCircuit, payload: memoryview, stream: Stream) -> None:
        """Somebody reaches us through `stream.peer`. The doors judge who it is."""
        near = self._lines.link(stream.peer.node, stream.peer.purpose)
        if near is None or near.connection.via is not None or message.node == stream.peer.node:
            stream.reset(ResetCode.CANCELLED, "a relay has a direct link to both, and is neither")
            return
        try:
            if not stream.send_now(CircuitOpen()):
                stream.reset()
                return
        except (LinkLost, StreamReset):
            return
        self._doors.take(CircuitTransport(stream, via=stream.peer.node))

    # ---- in between

    async def _serve(self, message: OpenCircuit, payload: memoryview, stream: Stream) -> None:
        onward = self._onward(message, stream)
        if isinstance(onward, Refusal):
            logger.debug("no circuit for node %s: %s", short(stream.peer.node), onward.sentence)
            await stream.send(Refused(kind=type(onward).__name__, sentence=onward.sentence), last=True)
            return
        with self._counted(stream.peer.node):
            onto = IncomingCircuit(node=stream.peer.node)
            far = await _opened(onward, onto, where=f"node {short(onward.node)}")
            if isinstance(far, Refusal):
                await stream.send(Refused(kind=type(far).__name__, sentence=far.sentence), last=True)
                return
            async with far:
                await stream.send(CircuitOpen())
                logger.debug("a circuit from %s to %s", short(stream.peer.node), short(onward.node))
                passed = _Passed()
                with self._told(stream.peer.node, onward.node, passed):
                    await self._pass_on(stream, far, passed)

    async def forward(self, greeting: Greeting, node: NodeId, first: bytes) -> None:
        """See `transport.doors.Forward`: somebody who is no member knocked here with a short code of `node`.

        The doors end it with the time that a handshake has, and it is bounded in bytes as well: nobody needs more to join.
        """
        link, visitors = self._lines.link(node), self._circuits[self._own]
        if link is None or link.connection.via is not None or self._bytes_per_s() <= 0 or visitors >= MAX_VISITORS:
            greeting.close()
            return
        with self._counted(self._own):
            far = await _opened(link, IncomingCircuit(node=None), where=f"node {short(node)}")
            if isinstance(far, Refusal):
                logger.debug("a visitor of node %s does not get through: %s", short(node), far.sentence)
                greeting.close()
                return
            logger.debug("%s is passed on to %s with its short code", greeting.remote, short(node))
            async with far:
                await _Visit(greeting, far).over(first)

    def _onward(self, message: OpenCircuit, stream: Stream) -> Link | Refusal:
        """The link to the other end, or why there is no circuit. The words are for the one that asks."""
        asks, purpose = stream.peer.node, stream.peer.purpose
        try:
            node = parse_node_id(message.node)
        except ValueError as error:
            return Invalid(what=str(error))
        if self._bytes_per_s() <= 0:
            return Forbidden(what=f"node {short(self._own)} relays for nobody (its setting network.relay is off)")
        if node in (asks, self._own):
            return Invalid(what="a circuit leads to a third node")
        near, onward = self._lines.link(asks, purpose), self._lines.link(node, purpose)
        if near is None or near.connection.via is not None:
            return Forbidden(what="whoever wants a circuit needs a direct link to the relay")
        if onward is None or onward.connection.via is not None:
            return NotFound(what=f"node {short(self._own)} has no direct link to node {short(node)}")
        if self._circuits.total() >= MAX_CIRCUITS or self._circuits[asks] >= MAX_PER_NODE:
            return Busy(what=f"node {short(self._own)} relays {self._circuits.total()} circuits, and no more")
        return onward

    @contextlib.contextmanager
    def _counted(self, node: NodeId) -> Generator[None]:
        self._circuits[node] += 1
        try:
            yield
        finally:
            self._circuits[node] -= 1
            if not self._circuits[node]:
                del self._circuits[node]

    @contextlib.contextmanager
    def _told(self, opener: NodeId, node: NodeId, passed: _Passed) -> Generator[None]:
        """Everybody hears how long this circuit stands."""
        loop = asyncio.get_running_loop()
        since, before = self._clock.monotonic(), 0

        def tell() -> None:
            nonlocal since, before
            now = self._clock.monotonic()
            if now - since >= SHORT_S:
                self._bus.publish(
                    CircuitRelayed(opener=opener, node=node, seconds=now - since, size_bytes=passed.bytes - before)
                )
            since, before = now, passed.bytes

        def tell_again() -> None:
            nonlocal timer
            tell()
            timer = loop.call_later(TOLD_S, tell_again)

        timer = loop.call_later(TOLD_S, tell_again)
        try:
            yield
        finally:
            timer.cancel()
            tell()

    async def _pass_on(self, near: Stream, far: Stream, passed: _Passed) -> None:
        """Until both directions have ended, or one LAST_S ago, or nothing has passed for SILENT_S."""
        try:
            async with asyncio.TaskGroup() as group:
                directions = [
                    group.create_task(self._copy(near, far, passed)), group.create_task(self._copy(far, near, passed))
                ]  # fmt: skip
                before, done = -1, set[asyncio.Task[None]]()
                while not done and passed.bytes != before:
                    before = passed.bytes
                    done, _ = await asyncio.wait(directions, timeout=SILENT_S, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    raise StreamReset(ResetCode.CANCELLED, "silent")
                async with asyncio.timeout(LAST_S):
                    await asyncio.wait(directions)
        except* (LinkLost, StreamReset, TimeoutError) as errors:
            logger.debug("a circuit is over: %s", errors.exceptions[0])

    async def _copy(self, source: Stream, sink: Stream, passed: _Passed) -> None:
        """What `source` brings goes to `sink`, no faster than this node relays; the credit of the streams does the rest."""
        while (received := await source.receive()) is not None:
            size = len(received.payload)
            if not isinstance(received.message, CircuitBytes) or size > MAX_CIRCUIT_BYTES:
                raise StreamReset(ResetCode.BAD_MESSAGE, f"{type(received.message).__name__} of {size} bytes on a circuit")
            passed.bytes += size
            await self._pace(source.peer.purpose, size)
            await sink.send(CircuitBytes(), received.payload)
            self.relayed_bytes += size
        await sink.drain()
        sink.end()

    async def _pace(self, purpose: Purpose, size: int) -> None:
        rate = self._bytes_per_s()
        if rate <= 0:
            raise StreamReset(ResetCode.CANCELLED, "this node relays no longer")
        if rate != self._rate:
            self._rate = rate
            for one, bucket in self._buckets.items():
                allowed = rate if one is Purpose.CONTROL else rate * BULK_SHARE
                bucket.set_rate(allowed, allowed * BURST_S)
        for start in range(0, size, SLICE_BYTES):
            part = min(SLICE_BYTES, size - start)
            if purpose is Purpose.BULK:
                await self._buckets[Purpose.BULK].take(part)
            await self._buckets[Purpose.CONTROL].take(part)


@dataclass(slots=True)
class _Passed:
    """By a circuit, in both directions."""

    bytes: int = 0


class _Visit(asyncio.Protocol):
    """A visitor's socket, in the hands of the circuit that carries its handshake."""

    def __init__(self, greeting: Greeting, far: Stream) -> None:
        self._transport = greeting.transport
        self._far = far
        self._left = VISIT_BYTES
        self._over = asyncio.Event()

    async def over(self, first: bytes) -> None:
        """Returns when either side has hung up; the socket is closed then."""
        try:
            self._transport.set_protocol(self)
            self.data_received(first)
            self._far.on_message(self._answered, lambda _: self._over.set())
            self._transport.resume_reading()
            await self._over.wait()
        finally:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        try:
            # What cannot be sent at once is more than a handshake.
            if self._left < 0 or not self._far.send_now(CircuitBytes(), data):
                self._over.set()
        except (LinkLost, StreamReset):
            self._over.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._over.set()

    def _answered(self, message: object, payload: memoryview) -> None:
        self._left -= len(payload)
        if self._left < 0 or not isinstance(message, CircuitBytes):
            self._over.set()
        else:
            self._transport.write(bytes(payload))


async def _opened(link: Link, request: OpenCircuit | IncomingCircuit, *, where: str) -> Stream | NoAnswer | NotFound:
    """A stream over which bytes may go, or why there is none."""
    try:
        stream = link.open(request)
    except (LinkLost, TooManyStreams) as error:
        return NoAnswer(tried=(where,), reason=str(error))
    opened = False
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            answer = await stream.receive()
        opened = answer is not None and isinstance(answer.message, CircuitOpen)
    except TimeoutError:
        return NoAnswer(tried=(where,), reason=f"no answer within {OPEN_TIMEOUT_S:.0f} s")
    except (LinkLost, StreamReset) as error:
        return NoAnswer(tried=(where,), reason=str(error))
    finally:
        if not opened:
            stream.reset()
    if opened:
        return stream
    if answer is None or not isinstance(answer.message, Refused):
        return NoAnswer(tried=(where,), reason="no answer")
    if answer.message.kind == NotFound.__name__:
        return NotFound(what=answer.message.sentence)
    return NoAnswer(tried=(where,), reason=answer.message.sentence)
