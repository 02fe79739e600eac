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
from swarmd.domain.refusals import BadFile, Busy, Invalid, NotFound, Refusal
from swarmd.kit.bus import EventBus
from swarmd.kit.flow import SingleFlight
from swarmd.kit.world import World
from swarmd.models import lora
from swarmd.models.catalog import KnownModel
from swarmd.shards.adapter_parts import REMOVED, AdapterParts
from swarmd.shards.fetching import Lines
from swarmd.shards.serving import ShardServer
from swarmd.shards.small_files import NOT_SENT, bulk_link, collect
from swarmd.transport.rpc import Dispatcher, Link, Stream
from swarmd.wire.exchange import AdapterPart, AskAdapter
from swarmd.wire.messages import Refused

FETCH_S: Final = 540.0  # of all that one stage lacks: the head waits 600 s for it
PLACES: Final = 4  # parts on their way at once, from as many nodes: each is held whole, 64 MiB at most
SLOWEST_BYTES_S: Final = 125_000  # 1 Mbit/s: others wait for the place of who sends slower than that
PATIENCE_S: Final = 40.0  # beside that, for each part: behind 4 MiB of somebody else's


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
        link = await bulk_link(self._lines, source, self._world)
        if link is None:
            return Busy(what=f"there is no link to {short(source)} to fetch the adapter over")
        try:
            async with asyncio.timeout(FETCH_S), self._turns.setdefault(source, asyncio.Lock()):
                refusal = await self._fetch_over(link, ref, known, start, end)
        except NOT_SENT as error:
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
            async with self._places:
                data = await _collect(link, ref.digest, None, limit=lora.INDEX_LIMIT)
                kept = data if isinstance(data, Refusal) else await self._parts.keep_index(ref.digest, data)
            if isinstance(kept, Refusal):
                return kept
            index = kept
        fault = _misfit(index, ref, known)
        if fault is not None:  # before hundreds of MB come
            return Invalid(what=f"the adapter does not fit model {known.manifest.model}: {fault}")
        for part in self._parts.missing(ref.digest, start, end):
            async with self._places:  # of each part anew: a slow node does not keep others waiting for all of its parts
                data = await _collect(link, ref.digest, part.layer, exactly=part.size_bytes)
                refusal = data if isinstance(data, Refusal) else await self._parts.keep_part(ref.digest, part.layer, data)
            if refusal is not None:
                return refusal
        return None

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
    return await collect(
        link, lambda offset: AskAdapter(digest=digest, layer=layer, offset=offset), AdapterPart, limit=limit,
        exactly=exactly, within_s=PATIENCE_S + (exactly or limit) / SLOWEST_BYTES_S,
    )  # fmt: skip
