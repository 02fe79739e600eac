"""Seals of shards: made where a shard was read first, asked of holders by everybody else, and answered.

A node that holds a shard with its hashes in the manifest can seal it as well: somebody else may know the same file from the
hub, by a manifest without hashes.

A seal is believed where the hub could be read as well: without one no peer can bring a chunk, and every node would read
all of it at the hub. What makes up for that is that the hub has the last word: a seal that it contradicts is taken back.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Collection
from typing import Final

from swarmd.domain.ids import NodeId, ShardRef, short
from swarmd.domain.peers import PeerIdentity, Purpose
from swarmd.domain.refusals import BadFile, NotFound, Refusal
from swarmd.kit.disk import Disk
from swarmd.models import seals
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.models.manifest import PayloadHash, Sign
from swarmd.shards.fetching import Lines
from swarmd.shards.landing import Landing
from swarmd.shards.registry import Registry
from swarmd.shards.storage import ShardStorage
from swarmd.transport.rpc import Dispatcher, Link, LinkLost, StreamReset, WithPayload
from swarmd.wire.events import TooManyStreams
from swarmd.wire.exchange import AskSeal, SealPart
from swarmd.wire.messages import Refused

AT_ONCE: Final = 8  # asked at a time: an answer may have 8 MiB before it is looked at, as much as chunks on their way
SILENT_S: Final = 60.0  # for which one that did not answer is not waited for again: a model has hundreds of shards

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
        self._silent: dict[NodeId, tuple[float, float]] = {}
        """Did not answer: until when that counts (the loop's seconds), and for how many seconds it was waited for."""

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

    async def learn(self, ref: ShardRef, *, liars: Collection[NodeId] = (), within_s: float) -> NodeId | None:
        """Ask whoever holds the shard for its seal, AT_ONCE of them side by side. Who gave it; None: nobody did within
        `within_s`, or nobody had to. `liars` are not asked, and what they have signed is not taken. Raises OSError.
        """
        loop, each_s = asyncio.get_running_loop(), within_s / 2  # those who stay silent leave the other half to the next
        end = loop.time() + within_s
        self._silent = {node: wait for node, wait in self._silent.items() if wait[0] > loop.time()}
        known = self._catalog.get(ref.model)
        if known is None or known.manifest.shards[ref.index].sealed:
            return None
        ask = AskSeal(model=ref.model, layout=known.manifest.layout, shard=ref.index)
        able = (
            (node, link)
            for node, holding in sorted(self._registry.remote(ref.model, known.manifest.layout).items())
            if ref.index in holding.shards and node not in liars and (link := self._lines.link(node, Purpose.BULK))
            if node not in self._silent or self._silent[node][1] < each_s
        )
        asked: dict[asyncio.Task[bytes | None], NodeId] = {}
        failure: OSError | None = None
        async with asyncio.TaskGroup() as group:
            try:
                while (left := end - loop.time()) > 0:
                    for node, link in itertools.islice(able, AT_ONCE - len(asked)):
                        asked[group.create_task(self._ask(node, link, ask, timeout_s=each_s))] = node
                    if not asked:
                        return None
                    done, _ = await asyncio.wait(asked, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        node, data = asked.pop(task), task.result()
                        if data is not None and await self._take(known, ref.index, data, node, liars):
                            return node
            except OSError as error:
                failure = error  # raised in here, it would come out as a group
            finally:
                for task in asked:
                    task.cancel()
        if failure is not None:
            raise failure
        return None

    async def take_back(self, ref: ShardRef) -> NodeId | None:
        """The file at the hub contradicts the seal of this shard: it goes. Whose word it was.

        None, and nothing changes: this node has read the shard itself, or the hashes are of the manifest. Raises OSError.
        """
        known = self._catalog.get(ref.model)
        if known is None:
            return None
        try:
            data = await self._disk.read_bytes(self._catalog.seal_path(ref.model, ref.index), limit=seals.SEAL_LIMIT)
        except FileNotFoundError:
            return None
        signer = await asyncio.to_thread(_signer, known, ref.index, data)
        if signer is None or signer == self._node:
            return None
        await self._catalog.unseal(ref.model, ref.index)
        return signer

    async def _ask(self, node: NodeId, link: Link, ask: AskSeal, *, timeout_s: float) -> bytes | None:
        """What it sends as the seal; None: nothing."""
        try:
            reply = await link.call(ask, SealPart, timeout_s=timeout_s)
        except TimeoutError:
            self._silent[node] = (asyncio.get_running_loop().time() + SILENT_S, timeout_s)
            logger.info("no seal from %s within %.1f s", short(node), timeout_s)
            return None
        except (LinkLost, StreamReset, TooManyStreams) as error:
            logger.info("no seal of shard %d of %s from %s: %s", ask.shard + 1, ask.model, short(node), error)
            return None
        return None if isinstance(reply, Refused) else bytes(reply.payload)

    async def _take(self, known: KnownModel, index: int, data: bytes, node: NodeId, liars: Collection[NodeId]) -> bool:
        """A seal that a node sent, unless it is none or a liar's. Raises OSError."""
        if await asyncio.to_thread(_signer, known, index, data) in liars:
            return False
        sealed = await self._catalog.seal(known.manifest.model, index, data)
        if isinstance(sealed, Refusal):
            model = known.manifest.model
            logger.warning("%s sent a bad seal of shard %d of %s: %s", short(node), index + 1, model, sealed.sentence)
        return isinstance(sealed, KnownModel)

    async def _answer(self, ask: AskSeal, payload: memoryview, peer: PeerIdentity) -> WithPayload | Refusal:
        known = self._catalog.get(ask.model)
        if known is None or known.manifest.layout != ask.layout or ask.shard not in self._storage.held(ask.model):
            return NotFound(what=f"shard {ask.shard + 1} of model {ask.model[:80]!a} is not on this node")
        spec = known.manifest.shards[ask.shard]
        if not spec.sealed:
            return NotFound(what=f"the seal of shard {ask.shard + 1} of model {ask.model} is lost here")
        try:
            data = await self._disk.read_bytes(self._catalog.seal_path(ask.model, ask.shard), limit=seals.SEAL_LIMIT)
        except FileNotFoundError:
            hashes = PayloadHash(size_bytes=spec.size_bytes, blake3=spec.blake3, chunk_blake3=spec.chunk_blake3)
            data = self._made(known, ask.shard, hashes)
        except OSError as error:
            return BadFile(what=f"the seal of shard {ask.shard + 1} cannot be read here: {error.strerror}")
        return WithPayload(SealPart(), data)

    def _made(self, known: KnownModel, index: int, payload: PayloadHash) -> bytes:
        seal = seals.make(known.manifest, index, payload, signer=self._node, sign=self._sign)
        return seals.encode(seal)


def _signer(known: KnownModel, index: int, data: bytes) -> NodeId | None:
    """Who is named in a seal; whether that is true, the catalogue looks when it takes one."""
    seal = seals.decode(data, manifest=known.manifest, index=index, verify=lambda _signer, _data, _signature: True)
    return None if isinstance(seal, Refusal) else seal.signer
