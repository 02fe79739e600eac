"""What neighbours tell each other: whom else they are linked to, and who was put out.

One coroutine per control connection says what is new since it last spoke, and sleeps until there is something. So news
never queue up: a peer that reads slowly gets the newest state, not every state. Introductions go to direct neighbours only.
Revocations reach everybody: they are signed, kept by each node that hears one, and so told on by it to its own neighbours,
once. What a node says about itself is the business of `gossip`; what may be in it, `unsound` here.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final

from swarmd.domain.ids import NetworkId, NodeId, parse_model_id, parse_node_id, short
from swarmd.domain.peers import (
    MAX_DEMANDS,
    MAX_NAMEPLATE,
    MAX_NAMEPLATES,
    MAX_NEAR,
    MAX_REQUESTS,
    MAX_RTT_TENTHS,
    MAX_SESSIONS,
    Endpoint,
    ModelDemand,
    NodeSummary,
    is_nickname,
)
from swarmd.identity import revocations
from swarmd.identity.revocations import Revocation
from swarmd.kit.flow import TokenBucket
from swarmd.kit.world import Clock
from swarmd.peers.addresses import MAX_ENDPOINTS, as_seen_from, is_loopback, is_unspecified
from swarmd.peers.book import MAX_PEERS, PeerBook
from swarmd.wire.messages import MAX_RECORDS, Introduced, Introduction, Revocations

MAX_INTRODUCED: Final = 64  # members in one message: more than a private network has; the rest follows in the next one

INTRODUCTIONS_BURST: Final = 300  # after a power cut: 150 neighbours come up one by one, each with its addresses later
INTRODUCTIONS_PER_S: Final = 1.0  # reading one takes 5 ms at most
NEWS_BURST: Final = 300  # two for each of 150 members: that it is there, and one more address
NEWS_PER_S: Final = 1 / 60  # each is up to 96 dials (12 of 8 addresses): a liar makes us dial twice a second, not more
WAYS_BURST: Final = 300  # a relay with 150 links that comes back twice; who gets no turn is dialled after its pause
WAYS_PER_S: Final = 1.0

MAX_TEXT: Final = 128  # characters of a software version, a region, the name of a graphics card
MAX_HOLDINGS: Final = 1000  # models on one node; at two dozen bytes each the message still fits
MAX_SHARDS: Final = 4096  # a shard has at least one layer, and no model has a tenth of this
SHORT: Final = re.compile(r"[0-9a-f]{16}")  # `ids.short`
LAYOUT: Final = re.compile(r"[0-9a-f]{32}")  # `domain.models.Manifest.layout`

Send = Callable[[Introduction | Revocations], Awaitable[None]]
"""Returns when the message is on its way. Raises when the link is gone."""

Hear = Callable[[NodeId, tuple[Endpoint, ...], NodeId], Awaitable[bool]]
"""`await hear(member, endpoints, who says so)`: True when that was news."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Patience:
    """How much more one neighbour may introduce."""

    messages: TokenBucket
    news: TokenBucket
    ways: TokenBucket
    """Members to whom it says that it has a link, and who are dialled at once for that."""


class Neighbours:
    """Used by `links`, which knows the connections."""

    def __init__(
        self,
        *,
        own: NodeId,
        book: PeerBook,
        clock: Clock,
        hear: Hear,
        direct: Callable[[NodeId], bool],
        wake: Callable[[NodeId], None],
        revoked: Callable[[], tuple[Revocation, ...]],
    ) -> None:
        """`direct`: whether there is a direct link to a node. `wake`: there is a new way to it, a relay.

        `revoked`: everybody who was put out of the network.
        """
        self._own = own
        self._book = book
        self._clock = clock
        self._hear = hear
        self._direct = direct
        self._wake = wake
        self._revoked = revoked
        self._patience: OrderedDict[NodeId, _Patience] = OrderedDict()
        """By node, not by connection: dialling again does not renew it. The one heard longest ago goes first."""
        self._news: dict[NodeId, asyncio.Event] = {}
        """One for each neighbour with a control link; its keys are the connected nodes."""
        self._introduced: dict[NodeId, set[NodeId]] = {}
        """By neighbour: to whom it has a direct link, as it said since its own link is up. At most MAX_PEERS of each."""

    def gone(self, node: NodeId) -> None:
        """The last control connection to `node` is over: it relays nothing."""
        self._introduced.pop(node, None)

    def linked_with(self, node: NodeId) -> tuple[NodeId, ...]:
        """Neighbours that said they have a direct link to `node`: they might relay."""
        return tuple(teller for teller, introduced in self._introduced.items() if node in introduced)

    def not_linked_with(self, teller: NodeId, node: NodeId) -> None:
        """`teller` has no link to `node` any more; it says so again when it has."""
        self._introduced.get(teller, set()).discard(node)

    async def converse(self, node: NodeId, *, observed_host: str, send: Send) -> None:
        """Tell `node` what it does not know yet, for as long as the connection lives; ends by cancellation or by
        `send`."""
        news = self._news[node] = asyncio.Event()
        self.refresh()  # the others hear of this one
        told: dict[NodeId, tuple[Endpoint, ...]] = {}
        told_revoked: dict[tuple[NodeId, NodeId | NetworkId], int] = {}
        try:
            while True:
                news.clear()
                # Before everything else: the sooner somebody is out everywhere, the better.
                out = [one for one in self._revoked() if told_revoked.get((one.node, one.issuer)) != one.revoked_at]
                if out:
                    # Not both kinds in one message: older programs refuse one with an inviter's in it.
                    out = [one for one in out if (one.proof is None) == (out[0].proof is None)][:MAX_RECORDS]
                    await send(Revocations(records=tuple(revocations.encode(one) for one in out)))
                    told_revoked.update(((one.node, one.issuer), one.revoked_at) for one in out)
                    continue
                fresh = self._introductions(node, observed_host=observed_host, told=told)
                if fresh:
                    await send(Introduction(members=fresh))
                    told.update((one.node, one.endpoints) for one in fresh)
                    continue  # there may be more than fit into one message
                await news.wait()
        finally:
            if self._news.get(node) is news:  # else a newer connection to the same node has taken over
                del self._news[node]

    async def heard_introduction(self, node: NodeId, message: Introduction, *, observed_host: str) -> None:
        """From a connected neighbour: whom it is linked to. They go into the book and are dialled; they prove
        themselves. A neighbour that introduces without end is not listened to for a while."""
        patience = self._patience_with(node)
        if not patience.messages.try_take():
            logger.debug("node %s introduces too often, ignored", short(node))
            return
        for one in message.members[:MAX_INTRODUCED]:
            try:
                member = parse_node_id(one.node)
            except ValueError:
                logger.warning("node %s introduces somebody without a proper id, ignored", short(node))
                return
            if member in (self._own, node):
                continue
            # Loopback is right for us only when the teller itself is on this machine.
            same_machine = observed_host if is_loopback(observed_host) else None
            stated = tuple(endpoint for endpoint in one.endpoints[:MAX_ENDPOINTS] if not is_unspecified(endpoint.host))
            endpoints = as_seen_from(stated, observed_host=same_machine)
            if patience.news.retry_after_s() > 0:
                logger.debug("node %s introduces too many, the rest is ignored", short(node))
                return
            news = await self._hear(member, endpoints, node)
            if self._new_way(member, teller=node) and patience.ways.try_take():
                self._wake(member)
            if news:
                patience.news.try_take()

    def _new_way(self, member: NodeId, *, teller: NodeId) -> bool:
        introduced = self._introduced.setdefault(teller, set())
        if member in introduced or len(introduced) >= MAX_PEERS or teller not in self._news:
            return False
        introduced.add(member)
        return True

    def _patience_with(self, node: NodeId) -> _Patience:
        patience = self._patience.pop(node, None) or _Patience(
            messages=TokenBucket(INTRODUCTIONS_PER_S, INTRODUCTIONS_BURST, clock=self._clock),
            news=TokenBucket(NEWS_PER_S, NEWS_BURST, clock=self._clock),
            ways=TokenBucket(WAYS_PER_S, WAYS_BURST, clock=self._clock),
        )
        self._patience[node] = patience
        if len(self._patience) > MAX_PEERS:
            self._patience.popitem(last=False)
        return patience

    def _introductions(
        self, to: NodeId, *, observed_host: str, told: dict[NodeId, tuple[Endpoint, ...]]
    ) -> tuple[Introduced, ...]:
        """Members with a direct link that `to` was not told about, or whose endpoints have changed since. At most
        MAX_INTRODUCED. One without any endpoint can be reached through us.

        Who is gone is told again when it is back: a relay that lost a node is asked for it no more.
        """
        fresh: list[Introduced] = []
        present = [member for member in self._news if member != to and self._direct(member)]
        for gone in told.keys() - set(present):
            del told[gone]
        for member in present:
            if len(fresh) == MAX_INTRODUCED:
                break
            endpoints = tuple(
                endpoint
                for endpoint in self._book.proven_endpoints(member)
                if is_loopback(observed_host) or not is_loopback(endpoint.host)
            )
            # Compared as sets: the order changes with every link, and that is no news.
            if member not in told or set(endpoints) != set(told[member]):
                fresh.append(Introduced(node=member, endpoints=endpoints))
        return tuple(fresh)

    def refresh(self) -> None:
        """Something changed that neighbours may not know: see what is new for each."""
        for news in self._news.values():
            news.set()


def unsound(summary: NodeSummary) -> str | None:
    """What in a summary off the wire nobody should have to check again: ids that are none, numbers that are none."""
    texts = (summary.software, summary.region, summary.gpu or "")
    if any(len(text) > MAX_TEXT or not text.isprintable() for text in texts):
        return "an endless or unprintable text"
    if summary.nickname and not is_nickname(summary.nickname):
        return "a name that is none"
    if len(summary.endpoints) > MAX_ENDPOINTS or len(summary.holdings) > MAX_HOLDINGS:
        return "too many things"
    if not (isfinite(summary.started_at) and 0 <= summary.ram_free_bytes <= summary.ram_total_bytes):
        return "impossible numbers"
    if (why := _unsound_demand(summary.demand)) is not None:
        return why
    if (why := _unsound_load(summary) or _unsound_plates(summary.nameplates)) is not None:
        return why
    for holding in summary.holdings:
        try:
            parse_model_id(holding.model)
        except ValueError:
            return "a model id that is none"
        if not LAYOUT.fullmatch(holding.layout):
            return "a layout that is none"
        if holding.layer_ms is not None and not (isfinite(holding.layer_ms) and holding.layer_ms >= 0):
            return "an impossible speed"
        for shards in (holding.shards, holding.loaded, holding.partial):
            if any(index < 0 or index >= MAX_SHARDS for index in shards) or list(shards) != sorted(set(shards)):
                return "a list of shards that is none"
        if not set(holding.shards).issuperset(holding.loaded):
            return "loaded shards that it does not hold"
        if not set(holding.shards).isdisjoint(holding.partial):
            return "shards that it holds and does not hold yet"
    return None


def _unsound_load(summary: NodeSummary) -> str | None:
    if len(summary.near) > MAX_NEAR or not 0 <= summary.sessions <= MAX_SESSIONS:
        return "too many round trips or sessions"
    if any(not SHORT.fullmatch(one.node) or not 0 <= one.tenths_ms <= MAX_RTT_TENTHS for one in summary.near):
        return "a round trip that is none"
    return None


def _unsound_plates(plates: Sequence[int]) -> str | None:
    if len(plates) > MAX_NAMEPLATES or list(plates) != sorted(set(plates)):
        return "too many short codes"
    if any(not 1 <= plate <= MAX_NAMEPLATE for plate in plates):
        return "a number that no short code has"
    return None


def _unsound_demand(demand: tuple[ModelDemand, ...]) -> str | None:
    if len(demand) > MAX_DEMANDS or len({one.model for one in demand}) < len(demand):
        return "too many demands"
    for one in demand:
        try:
            parse_model_id(one.model)
        except ValueError:
            return "a demand for a model id that is none"
        if not 0 <= one.requests <= MAX_REQUESTS:
            return "an impossible demand"
    return None
