"""Seals of shards: made where a shard was read first, asked of holders by everybody else, and answered.

A node that holds a shard with its hashes in the manifest can seal it as well: somebody else may know the same file from the
hub, by a manifest without hashes.
"""

from __future__ import annotations

import logging
from typing import Final

from swarmd.domain.ids import NodeId, ShardRef, short
from swarmd.domain.peers import PeerIdentity, Purpose
from swarmd.domain.refusals import BadFile, NotFound, Refusal
from swarmd.kit.disk import Disk
from swarmd.models import seals
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.models.manifest import PayloadHash, Sign
from swarmd.shards.fetching import Lines
from swarmd.shards.registry import Registry
from swarmd.shards.storage import Landing, ShardStorage
from swarmd.transport.rpc import Dispatcher, LinkLost, StreamReset, WithPayload
from swarmd.wire.events import TooManyStreams
from swarmd.wire.exchange import AskSeal, SealPart
from swarmd.wire.messages import Refused

TIMEOUT_S: Final = 60.0  # some kB over a slow uplink, behind somebody's chunk

logger = logging.getLogger(__name__)


class Sealer:
    """One per node."""

    def __init__(
        self,
        *,
        node: NodeId,
        catalog: Catalog,
        storage: ShardStorage,
        registry: Registry,
        lines: Lines,
        disk: Disk,
        sign: Sign,
    ) -> None:
        self._node, self._catalog, self._storage, self._registry = node, catalog, storage, registry
        self._lines, self._disk, self._sign = lines, disk, sign

    def register(self, dispatcher: Dispatcher) -> None:
        """Once, before the doors open."""
        dispatcher.answer(AskSeal, self._answer)

    async def make(self, landing: Landing) -> str | None:
        """Seal a shard whose bytes are all here and have no hashes yet. A sentence when it cannot be; None: it is sealed.

        Raises OSError.
        """
        known = self._catalog.get(landing.ref.model)
        if known is None:
            return f"model {landing.ref.model} was removed meanwhile"
        sealed = await self._catalog.seal(
            landing.ref.model, landing.ref.index, self._made(known, landing.ref.index, await landing.hash())
        )
        return sealed.sentence if isinstance(sealed, Refusal) else None

    async def learn(self, ref: ShardRef) -> bool:
        """Ask whoever holds the shard for its seal. True: it is sealed now. Raises OSError."""
        known = self._catalog.get(ref.model)
        if known is None or known.manifest.shards[ref.index].sealed:
            return known is not None
        for node, holding in sorted(self._registry.remote(ref.model, known.manifest.layout).items()):
            link = self._lines.link(node, Purpose.BULK)
            if ref.index not in holding.shards or link is None:
                continue
            try:
                ask = AskSeal(model=ref.model, layout=known.manifest.layout, shard=ref.index)
                reply = await link.call(ask, SealPart, timeout_s=TIMEOUT_S)
            except (LinkLost, StreamReset, TooManyStreams, TimeoutError) as error:
                logger.info("no seal of shard %d of %s from %s: %s", ref.index, ref.model, short(node), error)
                continue
            if isinstance(reply, Refused):
                continue
            sealed = await self._catalog.seal(ref.model, ref.index, bytes(reply.payload))
            if isinstance(sealed, KnownModel):
                return True
            logger.warning("%s sent a bad seal of shard %d of %s: %s", short(node), ref.index, ref.model, sealed.sentence)
        return False

    async def _answer(self, ask: AskSeal, payload: memoryview, peer: PeerIdentity) -> WithPayload | Refusal:
        known = self._catalog.get(ask.model)
        if known is None or known.manifest.layout != ask.layout or ask.shard not in self._storage.held(ask.model):
            return NotFound(what=f"shard {ask.shard} of model {ask.model[:80]!a} is not on this node")
        spec = known.manifest.shards[ask.shard]
        try:
            data = await self._disk.read_bytes(self._catalog.seal_path(ask.model, ask.shard), limit=seals.SEAL_LIMIT)
        except FileNotFoundError:
            hashes = PayloadHash(size_bytes=spec.size_bytes, blake3=spec.blake3, chunk_blake3=spec.chunk_blake3)
            data = self._made(known, ask.shard, hashes)
        except OSError as error:
            return BadFile(what=f"the seal of shard {ask.shard} cannot be read here: {error.strerror}")
        return WithPayload(SealPart(), data)

    def _made(self, known: KnownModel, index: int, payload: PayloadHash) -> bytes:
        seal = seals.make(known.manifest, index, payload, signer=self._node, sign=self._sign)
        return seals.encode(seal)
