"""A network of our own on one machine: a namespace for each node, and a TCP proxy that is the only way between them.

In the namespace of node 1, which has nothing but a loopback of its own, the proxy listens on the addresses of all the other
nodes; what arrives there it carries into the namespace of the other node, and dials that one from node 1's address. So
nodes need to know nothing of it, whatever addresses they tell each other lead through it, and nothing can go past it.
Each direction of a line is late by a given time, in order; a line can be cut so that it says so, or so that it is silent.

Needs Linux, and root or user namespaces (`unshare` is used for those). Use `run` for the loop: the usual one wakes up to a
millisecond late.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import enum
import fcntl
import os
import selectors
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
IN_FLIGHT_BYTES = 64 << 20  # of a direction; more than a second at 50 MB/s, so bandwidth is not limited by it
PEER_PORT, API_PORT = 8810, 8800
BACKLOG = 128
MARK = "SWARMD_BENCH_NAMESPACE"
LIBC = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """Namespaces cannot be made here; the text says why."""


def _check(done: int, what: str) -> None:
    if done != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def ensure_allowed() -> None:
    """Starts this program anew as the root of a user namespace of its own, unless it is root. Raises Unavailable."""
    if not sys.platform.startswith("linux"):
        raise Unavailable("network namespaces are Linux's")
    if os.geteuid() == 0:
        if os.environ.get(MARK):
            _loopback_up()
        return
    main = sys.modules["__main__"]
    assert main.__spec__ is not None, "run it with python -m"
    os.environ[MARK] = "1"
    words = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-m", main.__spec__.name, *sys.argv[1:]]
    try:
        os.execvp("unshare", words)
    except OSError as error:
        raise Unavailable(f"unshare cannot be run: {error}") from error


def options_of(parser: argparse.ArgumentParser, *, rounds: int, tokens: int) -> argparse.Namespace:
    """With what every measurement in such a network can be told. Ends the program where there can be none."""
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--tokens", type=int, default=tokens)
    parser.add_argument("--fresh", action="store_true", help="measure anew what an earlier run has measured")
    options = parser.parse_args()
    allowed_or_exit(parser)
    return options


def allowed_or_exit(parser: argparse.ArgumentParser) -> None:
    """As `ensure_allowed`, with the sentence of a wrong command line where it is not."""
    try:
        ensure_allowed()
    except Unavailable as error:
        parser.error(str(error))


class Place:
    """A network namespace. It lives as long as somebody has it open."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.address = f"127.0.0.{10 + number}"  # a loopback answers on all of 127/8
        made: list[int | OSError] = []

        def make() -> None:
            try:
                _check(LIBC.unshare(CLONE_NEWNET), "unshare")
                _loopback_up()
                made.append(os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise Unavailable(str(made[0]))
        self.fd = made[0]
        self._inside = ThreadPoolExecutor(1, initializer=self.enter)

    def enter(self) -> None:
        """Moves this thread, or a child before it becomes another program, into the place."""
        _check(LIBC.setns(self.fd, CLONE_NEWNET), "setns")

    def inside(self, work: Callable[[], T]) -> T:
        return self._inside.submit(work).result(10)

    def listener(self, host: str, port: int) -> socket.socket:
        def make() -> socket.socket:
            made = socket.socket()
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((host, port))
            made.listen(BACKLOG)
            made.setblocking(False)
            return made

        return self.inside(make)

    def dialler(self, host: str) -> socket.socket:
        """A socket that comes from `host`."""

        def make() -> socket.socket:
            made = socket.socket()
            made.bind((host, 0))
            made.setblocking(False)
            return made

        return self.inside(make)

    def close(self) -> None:
        self._inside.shutdown()
        os.close(self.fd)


class Cut(enum.Enum):
    """How a line is broken."""

    RESET = "reset"
    """Connections are reset, and new ones too: a router that rebooted, a process in between that died."""
    SILENT = "silent"
    """Nothing arrives any more, and nobody is told: a pulled cable."""


@dataclass(slots=True)
class Line:
    """Between two places, both ways."""

    delay_s: float = 0.0
    cut: Cut | None = None
    pipes: set[_Pipe] = field(default_factory=set)
    carried_bytes: int = 0
    late_s: float = 0.0
    """Longest lateness of the proxy itself since somebody set it to 0."""

    def break_(self, how: Cut) -> None:
        self.cut = how
        if how is Cut.RESET:
            for pipe in tuple(self.pipes):
                pipe.reset()

    def mend(self) -> None:
        """What was silent is reset: its connections have lost bytes."""
        self.cut = None
        for pipe in tuple(self.pipes):
            if pipe.lost:
                pipe.reset()


class _End(asyncio.Protocol):
    """One socket of a pipe: what it receives is due at the other end later."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self.pipe: _Pipe | None = None
        self._loop = asyncio.get_running_loop()
        self._due: deque[tuple[float, bytes | None]] = deque()
        """Towards this end; None: the end of the stream. At most IN_FLIGHT_BYTES: then nothing more is read."""
        self._in_flight = 0
        self._timer: asyncio.TimerHandle | None = None
        self._heard_end = self._said_end = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=IN_FLIGHT_BYTES)
        if self._due:
            self._send_due()

    def data_received(self, data: bytes) -> None:
        self._pass_on(data)

    def eof_received(self) -> bool:
        self._pass_on(None)
        self._heard_end = True
        return not self._said_end  # True: the other direction goes on

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.pipe is not None:
            self.pipe.lost_end(self)

    def _pass_on(self, data: bytes | None) -> None:
        assert self.other is not None and self.pipe is not None
        if self.line.cut is not None:
            self.pipe.lost = True
            return
        self.other.later(data)

    def later(self, data: bytes | None) -> None:
        """To be sent from here when its time has come."""
        self._due.append((self._loop.time() + self.line.delay_s, data))
        self._in_flight += len(data or b"")
        if self._in_flight > IN_FLIGHT_BYTES and self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()
        if len(self._due) == 1:
            if self.line.delay_s > 0:
                self._timer = self._loop.call_at(self._due[0][0], self._send_due)
            else:
                self._send_due()

    def _send_due(self) -> None:
        self._timer = None
        if self.transport is None:
            return  # the accepted end is still being opened
        now = self._loop.time()
        while self._due and self._due[0][0] <= now + 20e-6:  # a timer costs as much
            due, data = self._due.popleft()
            self._in_flight -= len(data or b"")
            assert self.pipe is not None
            if self.line.cut is not None:
                self.pipe.lost = True
                continue
            self.line.late_s = max(self.line.late_s, now - due)
            if data is None:
                self._said_end = True
                if self._heard_end:
                    self.transport.close()
                    continue
                with contextlib.suppress(OSError):  # the peer has reset it meanwhile
                    self.transport.write_eof()
                continue
            self.line.carried_bytes += len(data)
            self.transport.write(data)
        if self._in_flight <= IN_FLIGHT_BYTES and self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()
        if self._due:
            self._timer = self._loop.call_at(self._due[0][0], self._send_due)


class _Pipe:
    """Two ends."""

    def __init__(self, line: Line, one: _End, other: _End) -> None:
        self.line, self.ends = line, (one, other)
        self.lost = False
        """Bytes were swallowed."""
        one.other, other.other, one.pipe, other.pipe = other, one, self, self
        line.pipes.add(self)

    def reset(self) -> None:
        for end in self.ends:
            if end.transport is not None:
                _reset(end.transport)

    def lost_end(self, end: _End) -> None:
        """What was on its way to the other one arrives, then it ends as well."""
        other = self.ends[1] if end is self.ends[0] else self.ends[0]
        self.line.pipes.discard(self)
        if other.transport is None or other.transport.is_closing():
            return
        if self.line.cut is not Cut.SILENT:
            asyncio.get_running_loop().call_later(self.line.delay_s, other.transport.close)


def _reset(transport: asyncio.Transport) -> None:
    with contextlib.suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Network:
    """Places 0 to `count` - 1 with a line between each two of them, all as late as `delay_s` each way.

    `async with`. The API of place n is at `api_port(n)` of this machine's loopback, without delay.
    """

    def __init__(self, count: int, *, delay_s: float = 0.0, first_port: int) -> None:
        self.places = [Place(number) for number in range(count)]
        self.lines = {(a, b): Line(delay_s) for a in range(count) for b in range(a + 1, count)}
        self._first_port = first_port
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[_Pipe] = set()

    async def __aenter__(self) -> Network:
        for place in self.places:
            for other in self.places:
                if other is not place:
                    self._serve(place.listener(other.address, PEER_PORT), place, other)
            front = socket.socket()
            front.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            front.bind(("127.0.0.1", self.api_port(place.number)))
            front.listen(BACKLOG)
            front.setblocking(False)
            self._serve(front, None, place)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        for line in self.lines.values():
            line.break_(Cut.RESET)
        await asyncio.sleep(0)
        for place in self.places:
            place.close()

    def api_port(self, number: int) -> int:
        return self._first_port + number

    def line(self, one: int, other: int) -> Line:
        return self.lines[min(one, other), max(one, other)]

    def delay(self, seconds: float) -> None:
        """Each way, on every line, from now on."""
        for line in self.lines.values():
            line.delay_s = seconds

    def settings(self, number: int) -> dict[str, str]:
        """The environment of the node in that place: peers come in on PEER_PORT of its address."""
        return {"SWARMD_NETWORK_LISTEN_ADDRESS": self.places[number].address}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _serve(self, listener: socket.socket, place: Place | None, other: Place) -> None:
        self._listeners.append(listener)
        self._spawn(self._accept(listener, place, other))

    async def _accept(self, listener: socket.socket, place: Place | None, other: Place) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, _ = await loop.sock_accept(listener)
            self._spawn(self._connect(accepted, place, other))

    async def _connect(self, accepted: socket.socket, place: Place | None, other: Place) -> None:
        loop = asyncio.get_running_loop()
        line = Line() if place is None else self.line(place.number, other.number)
        if line.cut is Cut.RESET:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()
            return
        where = ("127.0.0.1", API_PORT) if place is None else (other.address, PEER_PORT)
        further = other.dialler("127.0.0.1" if place is None else place.address)
        try:
            while line.cut is Cut.SILENT:  # as a dial into a cable that hangs in the air
                await asyncio.sleep(0.05)
            await loop.sock_connect(further, where)
        except BaseException as error:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()
            further.close()
            if isinstance(error, OSError):
                return  # nobody listens there, for now
            raise
        one, two = _End(line), _End(line)
        _Pipe(line, one, two)
        # The far end first: bytes of the near one need it.
        await loop.create_connection(lambda: two, sock=further)
        await loop.create_connection(lambda: one, sock=accepted)


def run(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, with a loop whose timers are exact to tens of microseconds: epoll counts in milliseconds."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(work)


@contextlib.contextmanager
def broken(line: Line, how: Cut) -> Iterator[None]:
    line.break_(how)
    try:
        yield
    finally:
        line.mend()


