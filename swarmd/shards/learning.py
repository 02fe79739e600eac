"""Models that neighbours hold and we do not know: their manifest and header are fetched, checked and kept.

Only what is signed by a publisher is taken from a peer, one model at a time from each, and as much as `discovered` has
room for. Whatever fails its checks is not asked for again from the same peer until this node restarts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from swarmd.domain.ids import ModelId, NodeId, short
from swarmd.domain.peers import NodeSummary
from swarmd.domain.refusals import NotFound, Refusal
from swarmd.kit.flow import SingleFlight
from swarmd.kit.service import Spawn
from swarmd.kit.world import World
from swarmd.models.catalog import HEADER_LIMIT, Catalog, KnownModel
from swarmd.models.manifest import MANIFEST_LIMIT
from swarmd.shards.discovered import Discovered
from swarmd.shards.fetching import Lines
from swarmd.shards.small_files import NOT_SENT, bulk_link, collect
from swarmd.transport.rpc import Link
from swarmd.wire.exchange import AskHeader, AskManifest, HeaderPart, ManifestPart

MANIFEST_S: Final = 300.0  # 16 MiB, likewise
HEADER_S: Final = 1200.0  # 64 MiB
TURN_S: Final = 20.0  # then another node is asked for the model as well: 16 MiB of header over 10 Mbit/s take 13 s
REFUSED_LIMIT: Final = 4096
"""Names kept of what failed its checks, and as many of what was too large; beyond, peers invent them: all are forgotten."""

Summaries = Callable[[], Mapping[NodeId, NodeSummary]]

logger = logging.getLogger(__name__)


class Learner:
    """One per node. `heard` starts by itself what `learn` does when asked."""

    def __init__(
        self, *, catalog: Catalog, discovered: Discovered, lines: Lines, summaries: Summaries, world: World
    ) -> None:
        self._catalog, self._discovered = catalog, discovered
        self._lines, self._summaries, self._world = lines, summaries, world
        self._flights: SingleFlight[tuple[NodeId, ModelId, str], KnownModel | Refusal] = SingleFlight()
        self._turns: WeakValueDictionary[ModelId, asyncio.Lock] = WeakValueDictionary()
        """Of the nodes that are asked without need: when fifty tell of a model at once, one of them sends it."""
        self._busy: set[NodeId] = set()
        self._again: set[NodeId] = set()
        self._refused: set[tuple[NodeId, ModelId, str]] = set()
        self._sizes: dict[tuple[NodeId, ModelId, str], int] = {}
        """Of what had no room: asked for again when there is room for so many bytes."""

    def heard(self, node: NodeId, spawn: Spawn) -> None:
        """`node` told what it holds: learn the models that are new here, in a task of its own if there are any."""
        if node in self._busy:
            self._again.add(node)
        elif self._unknown(node):
            self._busy.add(node)
            spawn(self._learn_all(node), name=f"models of {short(node)}")

    async def learn(self, node: NodeId, model: ModelId, layout: str) -> KnownModel | Refusal:
        """Ask one node for one model. NotFound: not from this node, or not now; other refusals: what it sent is no good."""
        known = self._catalog.get(model)
        if known is not None and not self._is_stale(known, layout):
            return known
        return await self._flights.do((node, model, layout), lambda: self._learn(node, model, layout))

    async def _learn_all(self, node: NodeId) -> None:
        try:
            while True:
                self._again.discard(node)
                for model, layout in self._unknown(node):
                    if not self._discovered.has_room(node):
                        break  # those before took it
                    async with self._turn(model):
                        outcome = await self.learn(node, model, layout)
                    if isinstance(outcome, Refusal):
                        logger.info("model %s is not learned from %s: %s", model, short(node), outcome.sentence)
                if node not in self._again:  # no await between this look and the end
                    return
        finally:
            self._busy.discard(node)
            self._again.discard(node)

    @asynccontextmanager
    async def _turn(self, model: ModelId) -> AsyncGenerator[None]:
        """The next one's is after TURN_S at the latest: whoever does not answer keeps nobody from asking others."""
        lock, ended = self._turns.setdefault(model, asyncio.Lock()), False

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                lock.release()

        await lock.acquire()
        timer = asyncio.get_running_loop().call_later(TURN_S, end)
        try:
            yield
        finally:
            timer.cancel()
            end()

    def _unknown(self, node: NodeId) -> list[tuple[ModelId, str]]:
        summary = self._summaries().get(node)
        if summary is None or not self._discovered.has_room(node):
            return []
        return [
            (holding.model, holding.layout)
            for holding in summary.holdings
            if ((known := self._catalog.get(holding.model)) is None or self._is_stale(known, holding.layout))
            and self._discovered.may_come(holding.model)
            and (key := (node, holding.model, holding.layout)) not in self._refused
            and (key not in self._sizes or self._discovered.has_room(node, self._sizes[key]))
        ]

    def _is_stale(self, known: KnownModel, layout: str) -> bool:
        """Somebody cut the model anew: nobody here wants the old cut, and nobody has it any more."""
        old, model = known.manifest.layout, known.manifest.model
        return (
            layout != old
            and self._discovered.may_go(model)
            and not any(
                holding.model == model and holding.layout == old
                for summary in self._summaries().values()
                for holding in summary.holdings
            )
        )

    async def _learn(self, node: NodeId, model: ModelId, layout: str) -> KnownModel | Refusal:
        link = await bulk_link(self._lines, node, self._world)
        if link is None:
            return NotFound(what=f"there is no link to {short(node)} for the manifest of model {model}")
        data = await _collect(
            link,
            lambda offset: AskManifest(model=model, layout=layout, offset=offset),
            ManifestPart,
            MANIFEST_LIMIT,
            within_s=MANIFEST_S,
        )
        if isinstance(data, Refusal):
            return self._judged(node, model, layout, data)
        manifest = await self._catalog.check_manifest(data, expect=(model, layout))
        if isinstance(manifest, Refusal):
            return self._judged(node, model, layout, manifest)
        size = len(data) + 2 * manifest.header_size_bytes  # the vocabulary is the header without its table of tensors
        if not self._discovered.wants(node, model, size):  # before tens of MB come
            return self._too_large(node, model, layout, size)
        header = await _collect(
            link,
            lambda offset: AskHeader(model=model, layout=layout, offset=offset),
            HeaderPart,
            HEADER_LIMIT,
            within_s=HEADER_S,
        )
        if isinstance(header, Refusal):
            return self._judged(node, model, layout, header)
        try:
            outcome = await self._catalog.adopt(
                data,
                header,
                expect=(model, layout),
                introducer=node,
                admit=lambda known: self._admit(node, known),
            )
        except OSError as error:
            logger.warning("model %s cannot be kept: %s", model, error)
            return NotFound(what=f"the manifest of model {model} cannot be written: {error}")
        if isinstance(outcome, KnownModel):
            logger.info("learned model %s from %s", model, short(node))
            return outcome
        return self._judged(node, model, layout, outcome)

    def _admit(self, node: NodeId, known: KnownModel) -> tuple[ModelId, ...] | Refusal:
        model, layout = known.manifest.model, known.manifest.layout
        present = self._catalog.get(model)
        if present is None or present.manifest.layout == layout:
            return self._discovered.admit(node, known)
        if self._is_stale(present, layout):
            return (model,)  # the old one makes room for itself
        return NotFound(what=f"model {model} is here in another layout, which somebody may want by now")

    def _judged(self, node: NodeId, model: ModelId, layout: str, refusal: Refusal) -> Refusal:
        if not isinstance(refusal, NotFound):  # else it may work another time
            if len(self._refused) >= REFUSED_LIMIT:
                self._refused.clear()
            self._refused.add((node, model, layout))
        return refusal

    def _too_large(self, node: NodeId, model: ModelId, layout: str, size: int) -> NotFound:
        if len(self._sizes) >= REFUSED_LIMIT:
            self._sizes.clear()
        self._sizes[node, model, layout] = size
        return NotFound(what=f"there is no room for {size} bytes of model {model}, which nobody asked for")


async def _collect(
    link: Link,
    ask: Callable[[int], object],
    part: type[ManifestPart] | type[HeaderPart],
    limit: int,
    *,
    within_s: float,
) -> bytes | Refusal:
    """As `small_files.collect`; NotFound, too, when it does not come."""
    try:
        data = await collect(link, ask, part, limit=limit, within_s=within_s)
    except NOT_SENT as error:
        return NotFound(what=f"{short(link.node)} did not send it: {str(error) or 'it takes too long'}")
    return data if isinstance(data, Refusal) else bytes(data)
