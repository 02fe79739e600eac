"""Answers members who ask for models and shards: from the disk, what is verified here and nothing else. Each chunk is
compared with its hash as it is read: a disk may lose what it was given, and whoever sends wrong bytes passes for a liar.

The upload limit protects the way to the internet. A peer that is seen coming from a loopback, private or link-local address
is on the same machine or the same LAN, where there is nothing to protect, and is served as fast as it takes.

Publishes `ShardsSeeded`, for all chunks of some seconds together.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from swarmd.config.settings import Settings
from swarmd.domain.events import ShardsSeeded
from swarmd.domain.ids import ModelId, NodeId, ShardRef, short
from swarmd.domain.models import CHUNK_BYTES, ShardSpec
from swarmd.domain.peers import PeerIdentity
from swarmd.domain.refusals import Invalid, NotFound, Refusal
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk
from swarmd.kit.flow import TokenBucket
from swarmd.kit.world import World
from swarmd.models.catalog import HEADER_NAME, MANIFEST_NAME, Catalog, KnownModel
from swarmd.shards.storage import Damaged, ShardStorage
from swarmd.transport.rpc import Dispatcher, Stream, WithPayload
from swarmd.wire.exchange import (
    PART_BYTES,
    AskChunk,
    AskChunkMap,
    AskHeader,
    AskManifest,
    ChunkMap,
    HeaderPart,
    ManifestPart,
    ShardChunk,
    pack_chunks,
)
from swarmd.wire.messages import Refused

ASKS_PER_PEER: Final = 2  # in memory at a time: one is written to the socket while the next one is read
FIRST_PLACES: Final = 12  # for one of each peer, so that nobody waits behind the second one of somebody slow: 96 MiB
SECOND_PLACES: Final = 4  # for the peers' second ones: 32 MiB
TOLD_S: Final = 10.0  # what was given within so long is one fact: a chunk is no news, and a fact for each would be a stream
BITS_PER_MEGABIT: Final = 1_000_000
AUTOMATIC_MBPS: Final = {"minimal": 10, "moderate": 50, "maximum": None}  # the setting's own sentence

UploadLimit = Callable[[], float | None]
"""Bytes a second; None: no limit. Asked for every chunk, so a changed setting holds at once."""

ObservedHost = Callable[[PeerIdentity], str | None]
"""The address a peer's link comes from; None when the link has just gone."""

logger = logging.getLogger(__name__)


def upload_limit(settings: Settings) -> float | None:
    """Bytes a second that shards may take of the uplink; None: as many as go through."""
    mbps = settings.resources.max_bandwidth_mbps or AUTOMATIC_MBPS[settings.node.contribution]
    return None if mbps is None else mbps * BITS_PER_MEGABIT / 8


def is_near(host: str | None) -> bool:
    """Whether the way to this address stays inside the house."""
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    seen = mapped or address
    return seen.is_loopback or seen.is_private or seen.is_link_local


class ShardServer:
    """Register it with the dispatcher of the members' links; guests who only join have another one."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        storage: ShardStorage,
        disk: Disk,
        world: World,
        upload_limit: UploadLimit,
        observed_host: ObservedHost,
        damaged: Callable[[ShardRef], None] = lambda _ref: None,
        bus: EventBus | None = None,
    ) -> None:
        """`damaged`: told of a shard whose bytes are not any more what they were. `bus`: None where nobody counts what was
        given."""
        self._damaged = damaged
        self._catalog, self._storage, self._disk, self._world = catalog, storage, disk, world
        self._upload_limit, self._observed_host = upload_limit, observed_host
        self._uplink: TokenBucket | None = None
        self._rate: float | None = None
        self._firsts = asyncio.Semaphore(FIRST_PLACES)
        self._seconds = asyncio.Semaphore(SECOND_PLACES)
        self._queues: dict[NodeId, _Queue] = {}
        self._bus = bus
        self._seeded: dict[NodeId, int] = {}
        """Bytes that are not told yet."""
        self._timer: asyncio.TimerHandle | None = None

    def register(self, dispatcher: Dispatcher) -> None:
        """Once, before the doors open."""
        dispatcher.serve(AskManifest, self._manifest)
        dispatcher.serve(AskHeader, self._header)
        dispatcher.answer(AskChunkMap, self._map)
        dispatcher.serve(AskChunk, self._chunk)

    async def _manifest(self, ask: AskManifest, payload: memoryview, stream: Stream) -> None:
        await self._part(ask.model, ask.layout, MANIFEST_NAME, ask.offset, stream, ManifestPart)

    async def _header(self, ask: AskHeader, payload: memoryview, stream: Stream) -> None:
        await self._part(ask.model, ask.layout, HEADER_NAME, ask.offset, stream, HeaderPart)

    async def _part(
        self,
        model: ModelId,
        layout: str,
        name: str,
        offset: int,
        stream: Stream,
        message: Callable[..., ManifestPart | HeaderPart],
    ) -> None:
        """The bytes of a file from `offset` on. As with a chunk, the place is not free before they are written."""
        known = self._known(model, layout)
        if isinstance(known, Refusal):
            await self._refuse(stream, known)
            return
        await self.send_range(
            self._catalog.folder(known.manifest.model) / name, offset, stream, message, f"{name} of model {model}"
        )

    async def send_range(
        self, path: Path, offset: int, stream: Stream, message: Callable[..., object], what: str
    ) -> None:
        """PART_BYTES of a file, or a refusal, to whoever asks: one of a peer's turns, and of the uplink's bytes."""
        try:
            total = await self._disk.size_bytes(path)
            if not 0 <= offset <= total:
                await self._refuse(stream, Invalid(what=f"{what} has {total} bytes, none at {offset}"))
                return
            async with self._place(stream.peer, min(PART_BYTES, total - offset)):
                data = await self._disk.read_range(path, offset, PART_BYTES)
                await stream.send(message(total_bytes=total), data, last=True)
                await stream.drain()
        except OSError as error:
            await self._refuse(stream, _unreadable(what, error))

    async def _map(self, ask: AskChunkMap, payload: memoryview, peer: PeerIdentity) -> WithPayload | Refusal:
        spec = self._shard(ask.model, ask.layout, ask.shard)
        if isinstance(spec, Refusal):
            return spec
        present = self._storage.present(ShardRef(ask.model, ask.shard))
        return WithPayload(ChunkMap(), pack_chunks(present, spec.chunk_count))

    async def _chunk(self, ask: AskChunk, payload: memoryview, stream: Stream) -> None:
        """A task of its own until the chunk is written: its place is not free while its bytes are in memory."""
        spec = self._shard(ask.model, ask.layout, ask.shard)
        if isinstance(spec, Refusal):
            await self._refuse(stream, spec)
            return
        if (absent := self._absent(ask, spec)) is not None:
            await self._refuse(stream, absent)
            return
        size = min(CHUNK_BYTES, spec.size_bytes - ask.chunk * CHUNK_BYTES)
        async with self._place(stream.peer, size):
            ref = ShardRef(ask.model, ask.shard)
            try:
                data = await self._storage.read_chunk(ref, ask.chunk)
            except OSError as error:
                if isinstance(error, Damaged):
                    self._damaged(ref)
                await self._refuse(stream, _unreadable(f"shard {ask.shard + 1} of model {ask.model}", error))
                return
            await stream.send(ShardChunk(), data, last=True)
            await stream.drain()
            self._gave(stream.peer.node, size)

    def _gave(self, node: NodeId, size_bytes: int) -> None:
        if self._bus is None:
            return
        self._seeded[node] = self._seeded.get(node, 0) + size_bytes
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TOLD_S, self._tell)

    def _tell(self) -> None:
        self._timer = None
        seeded, self._seeded = self._seeded, {}
        for node, size_bytes in seeded.items():
            assert self._bus is not None, "nothing is counted without one"
            self._bus.publish(ShardsSeeded(node=node, size_bytes=size_bytes))

    async def _refuse(self, stream: Stream, refusal: Refusal) -> None:
        await stream.send(Refused(kind=type(refusal).__name__, sentence=refusal.sentence), last=True)

    def _absent(self, ask: AskChunk, spec: ShardSpec) -> Refusal | None:
        if not 0 <= ask.chunk < spec.chunk_count:
            return Invalid(what=f"shard {ask.shard + 1} of model {ask.model} has no chunk {ask.chunk}")
        if not self._storage.has_chunk(ShardRef(ask.model, ask.shard), ask.chunk):
            return NotFound(what=f"chunk {ask.chunk} of shard {ask.shard + 1} of model {ask.model} is not on this node")
        return None

    def _shard(self, model: ModelId, layout: str, index: int) -> ShardSpec | Refusal:
        """A shard of which something is here."""
        known = self._known(model, layout)
        if isinstance(known, Refusal):
            return known
        if index not in self._storage.held(model) and index not in self._storage.arriving(model):
            return NotFound(what=f"shard {index + 1} of model {model} is not on this node")
        return known.manifest.shards[index]

    def _known(self, model: ModelId, layout: str) -> KnownModel | NotFound:
        known = self._catalog.get(model)
        if known is None or known.manifest.layout != layout:
            # The texts are the peer's own and go back to it alone.
            return NotFound(what=f"there is no model {model[:80]!a} in layout {layout[:32]!a} on this node")
        return known

    @asynccontextmanager
    async def _place(self, peer: PeerIdentity, size: int) -> AsyncGenerator[None]:
        """A greedy peer waits behind itself: first for a turn of its own, then, one ask of it at a time, for the uplink, so
        that peers take turns there; then for a place in memory. What waits holds no memory."""
        queue = self._queues.setdefault(peer.node, _Queue())
        queue.users += 1
        try:
            async with queue.turns:
                async with queue.uplink:
                    await self._pace(peer, size)
                first = not queue.has_first
                queue.has_first = True
                try:
                    async with self._firsts if first else self._seconds:
                        yield
                finally:
                    if first:
                        queue.has_first = False
        finally:
            queue.users -= 1
            if not queue.users:
                del self._queues[peer.node]

    async def _pace(self, peer: PeerIdentity, size: int) -> None:
        """Waits until the uplink has earned `size` bytes."""
        rate = self._upload_limit()
        if rate is None or is_near(self._observed_host(peer)):
            return
        if self._uplink is None:
            self._uplink = TokenBucket(rate, rate, clock=self._world.clock)
        elif rate != self._rate:
            self._uplink.set_rate(rate, rate)
        self._rate = rate
        logger.debug("%d bytes for %s go over the uplink", size, short(peer.node))
        await self._uplink.take(size)


class _Queue:
    """Of one peer, as long as it asks."""

    __slots__ = ("has_first", "turns", "uplink", "users")

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(ASKS_PER_PEER)
        self.uplink = asyncio.Lock()
        self.users = 0
        self.has_first = False
        """It has one of the first places, or is next for it."""


def _unreadable(what: str, error: OSError) -> NotFound:
    logger.warning("%s cannot be read: %s", what, error)
    return NotFound(what=f"{what} cannot be read here at the moment")
