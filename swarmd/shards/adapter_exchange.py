"""LoRA adapters from node to node: a stage asks the head of a generation for what the adapter does to its layers.

Members only, over the bulk link, one part after the other, each checked against the index and the index against the digest
that the head named. Publishes `AdapterRejected` where somebody sent something else.
"""

from __future__ import annotations

import asyncio
from typing import Final
from weakref import WeakValueDictionary

from swarmd.domain.adapters import AdapterRef
from swarmd.domain.events import AdapterRejected
from swarmd.domain.ids import NodeId, short
from swarmd.domain.peers import Purpose
from swarmd.domain.refusals import BadFile, Busy, Invalid, NotFound, Refusal
from swarmd.kit.bus import EventBus
from swarmd.kit.flow import Backoff, SingleFlight
from swarmd.kit.world import World
from swarmd.models import lora
from swarmd.models.catalog import KnownModel
from swarmd.shards.adapter_parts import REMOVED, AdapterParts
from swarmd.shards.fetching import Lines
from swarmd.shards.serving import ShardServer
from swarmd.transport.rpc import Dispatcher, Link, LinkLost, Stream, StreamReset
from swarmd.wire.events import TooManyStreams
from swarmd.wire.exchange import PART_BYTES, AdapterPart, AskAdapter
from swarmd.wire.messages import Refused

PART_TIMEOUT_S: Final = 120.0  # 4 MiB over an uplink of 1 Mbit/s take 34 s, behind as much again of somebody else's
FETCH_S: Final = 540.0  # of all that one stage lacks: the head waits 600 s for it
PLACES: Final = 4  # parts on their way at once, from as many nodes: each is held whole, 64 MiB at most
BULK_PATIENCE_S: Final = 30.0  # the bulk link is dialled when the control link is up
FIRST_S: Final = 0.05
LIMIT_S: Final = 1.0


class AdapterExchange:
    """Both sides of it."""

    def __init__(self, *, parts: AdapterParts, server: ShardServer, lines: Lines, world: World, bus: EventBus) -> None:
        self._parts, self._server, self._lines, self._world, self._bus = parts, server, lines, world, bus
        self._turns: WeakValueDictionary[NodeId, asyncio.Lock] = WeakValueDictionary()
        """One fetch from each node at a time: whoever names a hundred digests waits behind itself."""
        self._places = asyncio.Semaphore(PLACES)
        self._flights: SingleFlight[tuple[bytes, NodeId, int, int], Refusal | None] = SingleFlight()

    def register(self, dispatcher: Dispatcher) -> None:
        """Once, before the doors open."""
        dispatcher.serve(AskAdapter, self._serve)

    async def fetch(
        self, ref: AdapterRef, known: KnownModel, start: int, end: int, *, source: NodeId | None
    ) -> Refusal | None:
        """Makes sure that the adapter fits the model and that its parts of layers [start, end) are here.

        `source`: the node to ask for what is missing; None: nobody.
        """
        if len(ref.digest) != lora.DIGEST_BYTES or not 0 < ref.size_bytes <= lora.ADAPTER_LIMIT:
            return Invalid(what=f"an adapter of {ref.size_bytes} bytes cannot be: 1 to {lora.ADAPTER_LIMIT} can")
        index = self._parts.index(ref.digest)
        if index is None or self._parts.missing(ref.digest, start, end):
            if source is None:
                return NotFound(what="parts of this adapter are not on this node any more: remove it, and add it again")
            refusal = await self._flights.do(
                (ref.digest, source, start, end), lambda: self._fetch(ref, known, start, end, source)
            )
            index = self._parts.index(ref.digest)
            if refusal is not None or index is None:
                return refusal or Busy(what=REMOVED)
        fault = _misfit(index, ref, known)
        return Invalid(what=f"the adapter does not fit model {known.manifest.model}: {fault}") if fault else None

    async def _fetch(
        self, ref: AdapterRef, known: KnownModel, start: int, end: int, source: NodeId
    ) -> Refusal | None:
        link = await self._bulk(source)
        if link is None:
            return Busy(what=f"there is no link to {short(source)} to fetch the adapter over")
        try:
            async with (
                asyncio.timeout(FETCH_S),
                self._turns.setdefault(source, asyncio.Lock()),
                self._places,
            ):
                refusal = await self._fetch_over(link, ref, known, start, end)
        except (LinkLost, StreamReset, TooManyStreams, TimeoutError) as error:
            return Busy(what=f"{short(source)} did not send the adapter: {str(error) or 'it takes too long'}")
        except OSError as error:
            return Busy(what=f"the adapter cannot be written on this node: {error.strerror or error}")
        if isinstance(refusal, BadFile):
            self._bus.publish(AdapterRejected(source=source, reason=refusal.sentence))
        return refusal

    async def _fetch_over(
        self, link: Link, ref: AdapterRef, known: KnownModel, start: int, end: int
    ) -> Refusal | None:
        index = self._parts.index(ref.digest)
        if index is None:
            data = await _collect(link, ref.digest, None, limit=lora.INDEX_LIMIT)
            if isinstance(data, Refusal):
                return data
            kept = await self._parts.keep_index(ref.digest, data)
            if isinstance(kept, Refusal):
                return kept
            index = kept
        fault = _misfit(index, ref, known)
        if fault is not None:  # before hundreds of MB come
            return Invalid(what=f"the adapter does not fit model {known.manifest.model}: {fault}")
        for part in self._parts.missing(ref.digest, start, end):
            data = await _collect(link, ref.digest, part.layer, exactly=part.size_bytes)
            refusal = data if isinstance(data, Refusal) else await self._parts.keep_part(ref.digest, part.layer, data)
            if refusal is not None:
                return refusal
        return None

    async def _bulk(self, node: NodeId) -> Link | None:
        backoff = Backoff(FIRST_S, 2.0, LIMIT_S, entropy=self._world.entropy)
        deadline = self._world.clock.monotonic() + BULK_PATIENCE_S
        while (link := self._lines.link(node, Purpose.BULK)) is None:
            if self._world.clock.monotonic() >= deadline or node not in self._lines.connected():
                return None
            await asyncio.sleep(backoff.delay())
        return link

    async def _serve(self, ask: AskAdapter, payload: memoryview, stream: Stream) -> None:
        path = self._parts.path(ask.digest, ask.layer)
        if path is None:
            refusal = NotFound(what="this part of the adapter is not on this node")
            await stream.send(Refused(kind=type(refusal).__name__, sentence=refusal.sentence), last=True)
            return
        await self._server.send_range(path, ask.offset, stream, AdapterPart, f"adapter {ask.digest.hex()[:16]}")


def _misfit(index: lora.Index, ref: AdapterRef, known: KnownModel) -> str | None:
    if index.size_bytes != ref.size_bytes:
        return f"it has {index.size_bytes} bytes where {ref.size_bytes} were announced"
    return lora.misfit(index, known.header, known.architecture)


async def _collect(
    link: Link, digest: bytes, layer: int | None, *, limit: int = 0, exactly: int = 0
) -> bytearray | Refusal:
    """One file of a peer. BadFile when it does not keep to the rules, NotFound when it has it not."""
    data = bytearray()
    total: int | None = None
    while total is None or len(data) < total:
        ask = AskAdapter(digest=digest, layer=layer, offset=len(data))
        reply = await link.call(ask, AdapterPart, timeout_s=PART_TIMEOUT_S)
        if isinstance(reply, Refused):
            return NotFound(what=f"{short(link.node)} does not send it: {reply.sentence[:200]}")
        stated, size = reply.message.total_bytes, len(reply.payload)
        if (exactly and stated != exactly) or not 0 < stated <= (exactly or limit) or (total or stated) != stated:
            return BadFile(what=f"{short(link.node)} offers {stated} bytes of an adapter where {exactly or limit} are taken")
        if size != min(PART_BYTES, stated - len(data)):
            return BadFile(what=f"{short(link.node)} sent {size} bytes of an adapter after {len(data)} of {stated}")
        total = stated
        data += reply.payload
    return data
