"""A network in memory, for tests in virtual time and for `swarmd demo`: the same doors, Noise, sessions and connections.

Each node has a `LoopbackNetwork` in place of `TcpNetwork`. Between every two nodes there are `Conditions`: latency,
bandwidth, and a block that behaves as a partition or a lost packet does under TCP: bytes wait and come later, new
connections hang.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from swarmd.domain.peers import Endpoint

_KERNEL_BYTES: Final = 256 * 1024  # what a socket takes before its writer must wait; as much as Linux gives at first


@dataclass(slots=True, kw_only=True)
class Conditions:
    """Between two nodes, both ways. Change them at any time through `LoopbackHub.change`."""

    latency_s: float = 0.0
    """One way."""
    bytes_per_s: float | None = None
    """Of each connection and direction; None: as fast as the loop turns."""
    blocked: bool = False


class LoopbackHub:
    """All nodes of one test."""

    def __init__(self, *, latency_s: float = 0.0, bytes_per_s: float | None = None) -> None:
        self._default = Conditions(latency_s=latency_s, bytes_per_s=bytes_per_s)
        self._conditions: dict[frozenset[str], Conditions] = {}
        self._doors: dict[Endpoint, Callable[[], asyncio.Protocol]] = {}
        self._pipes: list[_Pipe] = []

    def network(self, host: str) -> LoopbackNetwork:
        """The network as the node `host` sees it."""
        return LoopbackNetwork(self, host)

    def conditions(self, one: str, other: str) -> Conditions:
        """As they are now; to be read."""
        return self._conditions.setdefault(
            frozenset((one, other)),
            Conditions(latency_s=self._default.latency_s, bytes_per_s=self._default.bytes_per_s),
        )

    def change(
        self,
        one: str,
        other: str,
        *,
        latency_s: float | None = None,
        bytes_per_s: float | None = None,
        blocked: bool | None = None,
    ) -> None:
        """From now on; what is on its way keeps its old latency. None leaves a value as it is."""
        conditions = self.conditions(one, other)
        if latency_s is not None:
            conditions.latency_s = latency_s
        if bytes_per_s is not None:
            conditions.bytes_per_s = bytes_per_s
        if blocked is not None:
            conditions.blocked = blocked
        for pipe in list(self._pipes):
            pipe.pump()

    def partition(self, one: str, other: str) -> None:
        """Nothing passes any more; nobody is told."""
        self.change(one, other, blocked=True)

    def heal(self, one: str, other: str) -> None:
        """What waited passes."""
        self.change(one, other, blocked=False)

    def cut(self, one: str, other: str) -> None:
        """Breaks every connection between the two, as a router that restarts does."""
        for pipe in list(self._pipes):
            if {pipe.sender.host, pipe.receiver.host} == {one, other}:
                pipe.sender.break_off(ConnectionResetError("cut"))

    def listen(self, endpoint: Endpoint, factory: Callable[[], asyncio.Protocol]) -> None:
        """Raises OSError when the address is taken."""
        if endpoint in self._doors:
            raise OSError(98, f"address in use: {endpoint}")
        self._doors[endpoint] = factory

    def unlisten(self, endpoint: Endpoint) -> None:
        self._doors.pop(endpoint, None)

    async def connect(self, host: str, factory: Callable[[], asyncio.Protocol], endpoint: Endpoint) -> None:
        conditions = self.conditions(host, endpoint.host)
        await asyncio.sleep(2 * conditions.latency_s)
        while conditions.blocked:  # noqa: ASYNC110  # as TCP does: a SYN is repeated after a second
            await asyncio.sleep(1.0)
        door = self._doors.get(endpoint)
        if door is None:
            raise ConnectionRefusedError(111, "nobody listens there")
        here, there = MemoryTransport(host), MemoryTransport(endpoint.host)
        here.join(there, self, conditions, seen_as=endpoint)
        there.join(here, self, conditions, seen_as=Endpoint(host, 0))
        # The door first, as the kernel completes its side before ours.
        there.begin(door())
        here.begin(factory())

    def add(self, pipe: _Pipe) -> None:
        self._pipes.append(pipe)

    def remove(self, pipe: _Pipe) -> None:
        if pipe in self._pipes:
            self._pipes.remove(pipe)


class LoopbackListener:
    """See `transport.doors.Listener`."""

    def __init__(self, hub: LoopbackHub, endpoint: Endpoint) -> None:
        self._hub = hub
        self._endpoint = endpoint

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    def close(self) -> None:
        self._hub.unlisten(self._endpoint)


class LoopbackNetwork:
    """See `transport.doors.Network`."""

    def __init__(self, hub: LoopbackHub, host: str) -> None:
        self._hub = hub
        self._host = host

    async def listen(self, factory: Callable[[], asyncio.Protocol], endpoint: Endpoint) -> LoopbackListener:
        own = Endpoint(self._host, endpoint.port)
        self._hub.listen(own, factory)
        return LoopbackListener(self._hub, own)

    async def connect(self, factory: Callable[[], asyncio.Protocol], endpoint: Endpoint) -> None:
        await self._hub.connect(self._host, factory, endpoint)


class _Pipe:
    """One direction of one connection: bytes with the time at which they arrive."""

    def __init__(self, sender: MemoryTransport, receiver: MemoryTransport, conditions: Conditions) -> None:
        self.sender = sender
        self.receiver = receiver
        self._conditions = conditions
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[float, bytes | None]] = deque()  # bounded by the sender's flow control; None is EOF
        self._free_at = 0.0
        self._timer: asyncio.Handle | None = None
        self.waiting = 0
        """Bytes sent and not delivered."""

    def put(self, data: bytes | None) -> None:
        start = max(self._loop.time(), self._free_at)
        rate = self._conditions.bytes_per_s
        self._free_at = start + (len(data) / rate if rate and data else 0.0)
        self._queue.append((self._free_at + self._conditions.latency_s, data))
        self.waiting += len(data) if data else 0
        self.pump()

    def pump(self) -> None:
        """Sees to it that what is due is delivered: never within the call of the sender."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._queue or self._conditions.blocked or self.receiver.reading_paused:
            return
        due = self._queue[0][0]
        if due <= self._loop.time():
            self._timer = self._loop.call_soon(self._deliver)
        else:
            self._timer = self._loop.call_at(due, self._deliver)

    @property
    def blocked(self) -> bool:
        return self._conditions.blocked

    def drop(self) -> None:
        self._queue.clear()
        self.pump()

    def _deliver(self) -> None:
        self._timer = None
        _, data = self._queue.popleft()
        if data is None:
            self.receiver.end_of_file()
        else:
            self.waiting -= len(data)
            self.receiver.deliver(data)
            self.sender.delivered()
        self.pump()


class MemoryTransport(asyncio.Transport):
    """One end of a connection in memory; behaves as the transport of a TCP socket."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self.host = host
        self.reading_paused = False
        self._protocol: asyncio.Protocol | None = None
        self._loop = asyncio.get_running_loop()
        self._hub: LoopbackHub | None = None
        self._out: _Pipe | None = None
        self._in: _Pipe | None = None
        self._peer_name = Endpoint("", 0)
        self._closing = False
        self._gone = False
        self._high = _KERNEL_BYTES
        self._low = 0
        self._writing_paused = False

    def join(self, other: MemoryTransport, hub: LoopbackHub, conditions: Conditions, *, seen_as: Endpoint) -> None:
        """`seen_as`: the address of the other end."""
        self._hub = hub
        self._peer_name = seen_as
        self._out = _Pipe(self, other, conditions)
        other._in = self._out
        hub.add(self._out)

    def begin(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol
        protocol.connection_made(self)

    # ---- asyncio.Transport

    def write(self, data: Any) -> None:
        if self._closing or self._gone:
            return
        assert self._out is not None, "joined"
        self._out.put(bytes(data))
        if self._out.waiting > self._high + _KERNEL_BYTES and not self._writing_paused:
            self._writing_paused = True
            self._running().pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high if high is not None else _KERNEL_BYTES
        self._low = low if low is not None else self._high // 4

    def get_write_buffer_size(self) -> int:
        assert self._out is not None, "joined"
        return max(0, self._out.waiting - _KERNEL_BYTES)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self._peer_name.host, self._peer_name.port) if name == "peername" else default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol), "a stream protocol"
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._running()

    def is_closing(self) -> bool:
        return self._closing or self._gone

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False
        if self._in is not None:
            self._in.pump()

    def close(self) -> None:
        if not self._closing and not self._gone:
            self._closing = True
            assert self._out is not None, "joined"
            self._out.put(None)
            self._loop.call_soon(self.lose, None)

    def abort(self) -> None:
        if not self._gone:
            self.break_off(None)

    # ---- from the pipes

    def break_off(self, error: Exception | None) -> None:
        """Both ends are lost, with what was on its way; the other one hears of it only where packets pass."""
        assert self._out is not None, "joined"
        self._out.drop()
        self._loop.call_soon(self.lose, error)
        if not self._out.blocked:
            self._loop.call_soon(self._out.receiver.lose, error or ConnectionResetError("aborted by the peer"))

    def deliver(self, data: bytes) -> None:
        if not self._closing and not self._gone:
            self._running().data_received(data)

    def delivered(self) -> None:
        assert self._out is not None, "joined"
        if self._writing_paused and self._out.waiting <= self._low + _KERNEL_BYTES and not self._gone:
            self._writing_paused = False
            self._running().resume_writing()

    def end_of_file(self) -> None:
        if not self._closing and not self._gone and not self._running().eof_received():
            self.close()

    def lose(self, error: Exception | None) -> None:
        if self._gone:
            return
        self._gone = True
        assert self._hub is not None, "joined"
        if self._in is not None:
            self._hub.remove(self._in)
        self._running().connection_lost(error)

    def _running(self) -> asyncio.Protocol:
        assert self._protocol is not None, "begun"
        return self._protocol
