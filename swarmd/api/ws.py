"""`GET /api/admin/ws`: what happens on this node, to every dashboard that looks.

Envelope `{"type", "data"}` (`models_changed` has no data). A fresh socket hears, in this order: one `peer_list`, the recent
activity again, one `stats_update`; then events as they happen and `stats_update` every 2 s. Nothing a client says is read.

Every socket has a bounded queue; who does not keep up is cut off and may come back. Publishing never waits for a browser.
A message is encoded once for all of them. Each is asked every 30 s whether it is there; one that was not heard of for 35 s
is cut off.
Browsers cannot put a key into a header of a socket, and a key does not belong into an address, which gets logged: from
another machine they ask `POST /api/admin/ws-ticket` first and connect with `?ticket=`, good once and for 30 s. Other
programs send the key in a header.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from swarmd.api import download_views, live_shapes, relay, views
from swarmd.api.calls import Call
from swarmd.api.history import Pace
from swarmd.api.outlook import Outlooks
from swarmd.api.ports import Census, Counters, Desk, Ledger, Machine, Models, Traffic, Trust
from swarmd.domain.events import (
    DownloadEnded,
    Fact,
    GenerationFinished,
    GenerationResumed,
    GenerationStarted,
    SummaryForgotten,
    SummaryReceived,
    WorkerDied,
    WorkerReady,
    WorkerStopped,
)
from swarmd.domain.hub import ProbeProgress
from swarmd.domain.ids import ModelId, NodeId, RequestId, short
from swarmd.domain.peers import Purpose
from swarmd.domain.refusals import Busy
from swarmd.kit.bus import EventBus
from swarmd.kit.flow import Channel
from swarmd.kit.service import Ready, Supervisor
from swarmd.kit.world import World

TICK_S: Final = 2.0  # the seed
SOCKETS_LIMIT: Final = 100  # contract: swarmllm.md 2.10
RECENT: Final = 256  # activities told again to a fresh socket; contract: swarmllm.md 2.10
QUEUE: Final = RECENT + 64  # the replay fits, and then two minutes of a quiet node or a burst of 64 events
PING_S: Final = 30.0  # contract: swarmllm.md 2.10
SILENT_S: Final = 35.0  # contract: swarmllm.md 2.10; since the last pong, looked at with each tick
FLOWS_SHOWN: Final = 16  # replies in the making that a picture can tell apart
FLOWS_KEPT: Final = 256  # as many generations may run at a time (inference.max_concurrent_requests)
HEARD_LIMIT_BYTES: Final = 4096  # of a message from a client: there is nothing to say
CLOSE_S: Final = 1.0  # for the other side's half of the closing handshake

logger = logging.getLogger(__name__)


class _Ping:
    """Stands in a queue for the frame that asks whether somebody is there."""


PING: Final = _Ping()


class _Socket:
    """One dashboard."""

    def __init__(self, request: web.Request, *, now: float) -> None:
        self._request = request
        self.outbox: Channel[str | _Ping] = Channel(QUEUE)
        self.shards: bytes = b""
        """The shard registry as this socket last heard it."""
        self.heard_at = self.pinged_at = now

    def offer(self, text: str | _Ping) -> bool:
        """False: it does not keep up and has been cut off."""
        if self.outbox.closed:
            return False
        if self.outbox.try_send(text):
            return True
        logger.info("a dashboard at %s does not keep up and is cut off", self._request.remote)
        self.cut()
        return False

    def cut(self) -> None:
        """At once and without a farewell: a client that reads nothing would not read that either."""
        self.outbox.close()
        if self._request.transport is not None:
            self._request.transport.abort()


class LiveFeed:
    """Service: hears every fact, keeps the recent activity, and tells all sockets. Start it before facts are published."""

    name = "live feed"

    def __init__(
        self,
        *,
        world: World,
        bus: EventBus,
        counters: Counters,
        machine: Machine,
        peers: Traffic,
        models: Models,
        desk: Desk,
        trust: Trust,
        census: Census,
        ledger: Ledger,
        outlook: Outlooks,
        probes: Callable[[], Sequence[ProbeProgress]] = tuple,
        tokens: Callable[[], int] | None = None,
    ) -> None:
        """`probes`: headers that are being read at the hub. `tokens`: that this head's replies have, since the start."""
        self._probes = probes
        self._pace = None if tokens is None else Pace(tokens, world.clock)
        self._flows: dict[RequestId, tuple[ModelId, tuple[NodeId, ...], float]] = {}
        """Replies in the making, at most FLOWS_KEPT: model, nodes and the monotonic time of the start."""
        self._world, self._bus, self._trust, self._census = world, bus, trust, census
        self._ledger, self._outlook = ledger, outlook
        self._counters, self._machine, self._peers, self._models, self._desk = counters, machine, peers, models, desk
        self._recent: deque[str] = deque(maxlen=RECENT)
        self._sockets: set[_Socket] = set()
        self._seats = 0
        self._supervisor: Supervisor | None = None
        self._models_changed = False
        self._peers_changed = False
        self._started_at = 0.0
        self._traffic: tuple[float, Mapping[Purpose, tuple[int, int]]] | None = None
        """As it was at the last tick."""
        self._loaded: dict[ModelId, frozenset[int]] = {}
        """Shards in the memory of workers, as they said last; as many models as this node knows."""

    async def run(self, ready: Ready) -> None:
        clock = self._world.clock
        self._started_at = self._started_at or clock.monotonic()
        try:
            async with Supervisor("live feed", world=self._world) as self._supervisor:
                with self._bus.tap(Fact) as tap:
                    ready()
                    tick_at = clock.monotonic() + TICK_S
                    while True:
                        try:
                            async with asyncio.timeout_at(tick_at):
                                fact = await anext(tap)
                        except TimeoutError:
                            self._tick()
                            tick_at = max(tick_at + TICK_S, clock.monotonic())
                        else:
                            self._hear(fact, more=len(tap) > 0)
        finally:
            self._supervisor = None
            for socket in list(self._sockets):
                socket.cut()

    async def socket(self, call: Call) -> web.StreamResponse | Busy:
        """The handler: lives as long as the connection."""
        if self._supervisor is None or self._seats >= SOCKETS_LIMIT:
            return Busy(what=f"{self._seats} dashboards are watching, which is all there is room for: close one")
        self._seats += 1  # taken before the first await, so that a hundred at once are a hundred
        try:
            response = web.WebSocketResponse(
                autoping=False, max_msg_size=HEARD_LIMIT_BYTES, timeout=CLOSE_S, compress=False
            )
            await response.prepare(call.request)
            await self._serve(response, _Socket(call.request, now=self._world.clock.monotonic()))
            return response
        finally:
            self._seats -= 1

    @property
    def watching(self) -> int:
        """Dashboards that have a socket now."""
        return self._seats

    def close_all(self) -> None:
        """The node stops: every socket is told so (1001), after what still waits in its queue."""
        for socket in self._sockets:
            socket.outbox.close()

    async def _serve(self, response: web.WebSocketResponse, socket: _Socket) -> None:
        if self._supervisor is None:  # the feed ended while the socket opened
            return
        # No await from the snapshot to the registration: what happens later comes after it, and nothing twice.
        socket.offer(self._peer_list())
        for text in self._recent:
            socket.offer(text)
        self._sockets.add(socket)
        self._send_stats([socket])
        pump = self._supervisor.spawn(_pump(response, socket), name="live socket")
        try:
            with contextlib.suppress(ConnectionError):  # it went away while its ping was answered
                async for message in response:
                    socket.heard_at = self._world.clock.monotonic()
                    if message.type is WSMsgType.PING:
                        await response.pong(message.data)
        finally:
            self._sockets.discard(socket)
            pump.cancel()

    def _hear(self, fact: Fact, *, more: bool) -> None:
        """`more`: further facts wait, so a burst of them ends in one `models_changed`."""
        row = relay.row_of(fact)
        self._follow(fact)
        activity = self._activity(fact)
        if activity is not None:
            text = _text(live_shapes.Envelope(type="activity_event", data=activity))
            self._recent.append(text)
            self._tell(text)
        if row.update is not None:
            self._tell(_text(live_shapes.Envelope(type="update_available", data=row.update(fact))))
        self._models_changed |= row.models_changed
        if row.peers_changed:
            self._peers_changed = False
            if self._sockets:
                self._tell(self._peer_list())
        elif isinstance(fact, (SummaryReceived, SummaryForgotten)):
            self._peers_changed = True  # nodes say much; the next tick is soon enough
        if self._models_changed and not more:
            self._models_changed = False
            self._tell(_text(live_shapes.Envelope(type="models_changed")))

    def _follow(self, fact: Fact) -> None:
        """Which replies are in the making, and where."""
        match fact:
            case GenerationStarted() | GenerationResumed():
                started = self._flows.get(fact.request, (fact.model, (), self._world.clock.monotonic()))[2]
                if fact.request in self._flows or len(self._flows) < FLOWS_KEPT:
                    self._flows[fact.request] = (fact.model, fact.nodes, started)
            case GenerationFinished():
                self._flows.pop(fact.request, None)
            case _:
                pass

    def _flow_rows(self) -> list[live_shapes.LiveFlow]:
        now = self._world.clock.monotonic()
        return [
            live_shapes.LiveFlow(model=model, nodes=[short(node) for node in nodes], seconds=round(now - started, 1))
            for model, nodes, started in list(self._flows.values())[:FLOWS_SHOWN]
        ]

    def _activity(self, fact: Fact) -> live_shapes.Activity | None:
        from_hub, before = None, frozenset[int]()
        match fact:
            case DownloadEnded():
                ended = self._desk.acquisition(fact.model)
                from_hub = None if ended is None else ended.from_hub
            case WorkerReady():
                before = self._loaded.get(fact.model, before)
                self._loaded[fact.model] = frozenset(fact.shards)
            case WorkerStopped() | WorkerDied():
                self._loaded.pop(fact.model, None)
            case _:
                pass
        return relay.activity(
            fact, now=self._world.clock.now(), from_hub=from_hub, loaded_before=before, name_of=self._name_of
        )

    def _name_of(self, model: ModelId) -> str | None:
        view = self._models.view(model)
        return None if view is None or view.manifest is None else view.name

    def _tick(self) -> None:
        if self._pace is not None:
            self._pace.look()
        if not self._sockets:
            self._traffic = None
            return
        self._look_who_is_there()
        if self._peers_changed:
            self._peers_changed = False
            self._tell(self._peer_list())
        self._send_stats(list(self._sockets))

    def _look_who_is_there(self) -> None:
        now = self._world.clock.monotonic()
        for socket in list(self._sockets):
            if now - socket.heard_at > SILENT_S:
                logger.info("a dashboard gave no sign for %.0f s and is cut off", now - socket.heard_at)
                socket.cut()
                self._sockets.discard(socket)
            elif now - socket.pinged_at >= PING_S:
                socket.pinged_at = now
                if not socket.offer(PING):
                    self._sockets.discard(socket)

    def _tell(self, text: str) -> None:
        for socket in list(self._sockets):
            if not socket.offer(text):
                self._sockets.discard(socket)

    def _send_stats(self, sockets: list[_Socket]) -> None:
        found = [view for model in self._models.models() if (view := self._models.view(model)) is not None]
        registry = msgspec.json.encode({view.model: views.live_shards(view) for view in found})
        stats = views.live_stats(
            uptime_s=self._world.clock.monotonic() - self._started_at,
            counters=self._counters,
            peers=self._peers.views(),
            downloads=download_views.download_rows(
                download_views.for_the_tick(self._desk.acquisitions()), known={view.model: view for view in found}
            ),
            hardware=self._machine.snapshot(),
            region=self._census.here(),
            census=self._census.regions(),
            account=self._ledger.account(),
            capacity=self._outlook.capacity(found),
            wishlist=self._outlook.wishes(found),
            traffic=self._traffic_now(),
            probes=self._probes(),
            flows=self._flow_rows(),
            tokens_now=None if self._pace is None else self._pace.rate,
        )
        short: str | None = None
        whole: str | None = None
        for socket in sockets:
            if socket.shards != registry:
                socket.shards = registry
                if whole is None:
                    told = msgspec.structs.replace(stats, shard_registry=msgspec.Raw(registry))
                    whole = _text(live_shapes.Envelope(type="stats_update", data=told))
                text = whole
            else:
                if short is None:
                    short = _text(live_shapes.Envelope(type="stats_update", data=stats))
                text = short
            if not socket.offer(text):
                self._sockets.discard(socket)

    def _traffic_now(self) -> live_shapes.NetworkTraffic:
        now, counted = self._world.clock.monotonic(), self._peers.traffic()
        since, before = self._traffic or (now, None)
        if before is None or now - since >= TICK_S / 2:  # not when a socket comes between two ticks
            self._traffic = (now, counted)
        return views.traffic(counted, before, seconds=now - since)

    def _peer_list(self) -> str:
        now = self._world.clock.now()
        rows = [
            views.peer_row(peer, trust=self._trust.score(peer.record.node), now=now, whole=False)
            for peer in self._peers.views()
        ]
        return _text(live_shapes.Envelope(type="peer_list", data=live_shapes.PeerList(peers=rows)))


async def _pump(response: web.WebSocketResponse, socket: _Socket) -> None:
    """From the queue to the wire, at the wire's pace; the end of the queue is the end of the connection."""
    try:
        async for text in socket.outbox:
            await (response.ping() if isinstance(text, _Ping) else response.send_str(text))
        await response.close(code=WSCloseCode.GOING_AWAY, message=b"the node stops")
    except ConnectionError:
        logger.debug("a dashboard went away")


def _text(envelope: Any) -> str:
    return msgspec.json.encode(envelope).decode()
