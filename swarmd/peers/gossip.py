"""Gossip: what a node says about itself reaches everybody, not only its direct neighbours.

A record (`peers.facts`) travels in two ways. *Pushed*: its node sends it to all its neighbours at once, and whoever hears it
for the first time sends it to FANOUT more, drawn by lot among those not known to have it. A moment later the others, if they
have not shown meanwhile that they have it too, are told that it is there: 40 bytes for 900. *Compared*: on a new link, after
a failure, and every COMPARE_S with one neighbour or other, two tables are compared by marks, bucket by bucket, and what one
side lacks is fetched or sent. The first is quick, the second finds what the first has lost; it alone would do in the end.

What is believed and kept is `peers.fact_table`'s to decide; this module keeps what is to be told to whom. One coroutine for
each control link says one thing at a time and waits for the answer, and only the ids of what is to be told are kept: a peer
that reads slowly gets the newest state, not every state.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, Protocol, TypeVar

from swarmd.domain.events import IdentityCloned, SummaryForgotten, SummaryReceived, SummaryRejected
from swarmd.domain.ids import NetworkId, NodeId, short
from swarmd.domain.peers import NodeSummary
from swarmd.domain.refusals import Busy, Forbidden, Refusal
from swarmd.identity import certificates
from swarmd.identity.certificates import Certificate
from swarmd.identity.keys import NodeKey
from swarmd.kit.bus import EventBus
from swarmd.kit.flow import TokenBucket
from swarmd.kit.logs import Seldom
from swarmd.kit.world import World
from swarmd.peers import facts
from swarmd.peers.fact_table import AHEAD_S, MAX_NODES, FactTable, Known, Outcome, Verdict
from swarmd.peers.facts import BOOT_BYTES, NO_RIVAL, FactRecord
from swarmd.wire.gossip import (
    MAX_HINTS,
    MAX_TOLD,
    Compare,
    Facts,
    Given,
    Pair,
    Told,
    Versions,
    Want,
    pack_marks,
    pack_nodes,
    pack_pairs,
    unpack_marks,
    unpack_nodes,
    unpack_pairs,
)
from swarmd.wire.messages import Heard

FANOUT: Final = 2
"""One fewer takes a fifth off the bytes and adds half to the time, one more the reverse (docs/performance.md)."""
HINTED: Final = 5
HINT_ALL: Final = 16
"""Who has no more links than this passes nobody by: a neighbour with two or three links may hear it from nobody else. Of
more links HINTED are told, for where links are many each hint costs most; what that leaves out is found by comparing."""
HINT_FROM_S: Final = 0.8
HINT_TO_S: Final = 1.2
"""By then nearly everybody has it, and one neighbour in two has shown it: few hints are left, for the few it passed by."""
BATCH_FROM_S: Final = 0.1
BATCH_TO_S: Final = 0.25
"""How long what others said waits for company. A change then takes one to three seconds to everybody among 1,000 nodes."""
COMPARE_S: Final = 15.0
"""How often a node compares its table with that of a neighbour. What a push has lost is found within two or three; with
1,000 nodes the marks take 2 KB, a hundredth of what the records take meanwhile."""

LISTEN_BURST: Final = 2.0 * MAX_NODES  # records: a whole table on a new link, and as much news meanwhile
LISTEN_PER_S: Final = 100.0  # reading a new one takes a third of a millisecond; 1,000 busy nodes make some 15 a second
COMPARES_BURST: Final = 6
COMPARES_PER_S: Final = 0.2  # one costs us a millisecond and up to 160 KB; an honest neighbour asks four times a minute
SLICE: Final = 16  # records read before others have a turn: 5 ms, less than tokens notice
JUMPS_BURST: Final = 3
JUMPS_PER_S: Final = 1 / 30  # two nodes with one key number each other up for as long as both run; this is their pace
MAX_LISTENED: Final = 1000  # neighbours whose patience is kept, as many as the book has members

R = TypeVar("R")

logger = logging.getLogger(__name__)


class Ask(Protocol):
    """One message to a neighbour, and its answer."""

    async def __call__(self, message: object, reply: type[R]) -> R | None:
        """None: it refused. Raises when the link is gone or nothing came back."""
        ...


@dataclass(slots=True, kw_only=True)
class _Neighbour:
    """Somebody with a control link."""

    pending: dict[NodeId, None] = field(default_factory=dict[NodeId, None])
    """Whose records it is to be told, in this order; at most one for each node in the table."""
    hints: dict[NodeId, None] = field(default_factory=dict[NodeId, None])
    """Whose newest version is only to be mentioned; at most one for each node in the table."""
    hints_at: float = math.inf
    """Monotonic: when the hints are due."""
    wanted: dict[NodeId, None] = field(default_factory=dict[NodeId, None])
    """Whose newer version it has mentioned; at most one for each node that there is room for."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """Set together with `news` for what does not wait for company."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Patience:
    """How much more one neighbour may say."""

    records: TokenBucket
    compares: TokenBucket


class Gossip:
    """One per node; no service: `talks` runs a `converse` for each link and hands in what is asked."""

    def __init__(
        self,
        *,
        key: NodeKey,
        network: Callable[[], NetworkId | None],
        certificate: Callable[[], Certificate | None],
        revoked: Callable[[Certificate], bool],
        bare: Callable[[NodeId], bool],
        world: World,
        bus: EventBus,
    ) -> None:
        """`network`, `certificate`: what this node belongs to now. `revoked`: whether a link of a certificate was taken
        back."""
        self._key, self._network, self._certificate = key, network, certificate
        self._world, self._bus = world, bus
        self._neighbours: dict[NodeId, _Neighbour] = {}
        self._table = FactTable(
            own=key.node, network=network, revoked=revoked, bare=bare, linked=self._neighbours.__contains__,
            clock=world.clock,
        )
        self._boot = world.entropy.token(BOOT_BYTES)
        self._ours: NodeSummary | None = None
        self._made_for: tuple[NetworkId, Certificate | None] | None = None
        """What our own record was made with; None: there is none, or it is outdated."""
        self._version = 0
        """Of our newest record."""
        self._above = 0
        """Another run's highest version, which ours must exceed."""
        self._rival = NO_RIVAL
        self._jumps = TokenBucket(JUMPS_PER_S, JUMPS_BURST, clock=world.clock)
        self._patience: OrderedDict[NodeId, _Patience] = OrderedDict()
        """By node, not by link: dialling again does not renew it. The one heard longest ago goes first."""
        self._wanted: dict[NodeId, int] = {}
        """Versions that we are about to ask one neighbour for, so that we do not ask all; at most MAX_NODES."""
        self._broken: set[NodeId] = set()
        """Neighbours whom something did not reach; each is compared with as soon as it can be talked to again. At most one
        for each node that ever linked."""
        self._liars: set[NodeId] = set()
        """Tellers of forged records: not listened to again until the next start. At most one for each certificate of our
        network that ever linked."""
        self._reading = asyncio.Lock()
        self._seldom = Seldom(clock=world.clock)
        self._clone_known = False

    # ---- asked by everybody

    def summary(self, node: NodeId) -> NodeSummary | None:
        """What `node` last said about itself, as far as we heard and have not forgotten."""
        known = self._table.known(node)
        return None if known is None else known.summary

    def known(self) -> tuple[NodeId, ...]:
        """Every other node of which facts are known."""
        return tuple(node for node in self._table if node != self._key.node)

    def heard_at(self, node: NodeId) -> float | None:
        """Unix seconds: when its newest record was made, as far as can be told."""
        known = self._table.known(node)
        return None if known is None else self._world.clock.now() - self._table.age_s(known)

    def is_present(self, node: NodeId) -> bool:
        """Whether a node without a link to us is there, see `peers.fact_table`."""
        known = self._table.known(node)
        return known is not None and self._table.is_present(known)

    # ---- told by others

    def announce(self, summary: NodeSummary) -> None:
        """From now on this is what we say about ourselves, to everybody."""
        assert summary.node == self._key.node, "a node speaks about itself only"
        self._ours = summary
        self._made_for = None
        self._publish()
        self.forget()  # a node without links compares nothing

    def gone(self, node: NodeId) -> None:
        """The last control link to `node` is over."""
        self._table.doubt(node)

    def forget(self) -> None:
        """Drop who has been silent for long or was put out."""
        for node in self._table.forget():
            self._bus.publish(SummaryForgotten(node=node))

    async def converse(self, node: NodeId, ask: Ask) -> None:
        """Tell `node` what it does not know yet, for as long as the link lives; ends by cancellation or by `ask`."""
        neighbour = self._neighbours[node] = _Neighbour()
        if not self._publish():  # perhaps we belong to a network only now
            self._queue(neighbour, self._key.node, hurry=True)
        # Both ends know which of them compares first.
        first = self._key.node < node or node in self._broken
        self._broken.discard(node)
        compare_at = self._world.clock.monotonic() + (0.0 if first else self._pause_s())
        try:
            while True:
                now = self._world.clock.monotonic()
                if neighbour.pending or now >= neighbour.hints_at:
                    await self._tell(node, neighbour, ask)
                elif neighbour.wanted:
                    await self._fetch_wanted(node, neighbour, ask)
                elif now >= compare_at:
                    await self._compare(node, neighbour, ask)
                    compare_at = self._world.clock.monotonic() + self._pause_s()
                else:
                    neighbour.news.clear()
                    await _wait(neighbour.news, timeout_s=min(compare_at, neighbour.hints_at) - now)
        except Exception:
            self._broken.add(node)
            raise
        finally:
            for one in neighbour.wanted:
                self._wanted.pop(one, None)
            if self._neighbours.get(node) is neighbour:  # else a newer link to the same node has taken over
                del self._neighbours[node]

    async def heard(self, teller: NodeId, told: Sequence[Told], hints: bytes = b"") -> None:
        """Records from a linked neighbour, pushed or asked for. One message at a time and a few records at once, so that
        a flood of them holds up neither tokens nor those who listen to the facts that come of it."""
        if hints:
            self._take_hints(teller, hints)
        async with self._reading:
            for number, one in enumerate(told, start=1):
                if teller in self._liars:
                    return
                if not self._patience_with(teller).records.try_take():
                    if self._seldom.due(f"floods {teller}"):
                        logger.warning("node %s tells too much, some of it is not read", short(teller))
                    return
                self._judge(teller, self._table.hear(one.record, age_s=one.age_s))
                if number % SLICE == 0:
                    await asyncio.sleep(0)

    def compared(self, asker: NodeId, message: Compare) -> Versions | Refusal:
        """Our side of the comparison."""
        marks = unpack_marks(message.marks)
        if marks is None:
            return Forbidden(what="the marks are not one for each of 1, 2, 4 ... 256 buckets")
        if not self._patience_with(asker).compares.try_take():
            return Busy(what="this node compares what it knows a few times a minute with each neighbour, not more")
        ours = self._table.marks(len(marks))
        differing = [bucket for bucket, mark in enumerate(marks) if mark != ours[bucket]]
        pairs = self._table.pairs(differing, buckets=len(marks))
        return Versions(differing=bytes(differing), pairs=pack_pairs(pairs))

    def given(self, asker: NodeId, message: Want) -> Given | Refusal:
        """Records that a neighbour lacks."""
        nodes = unpack_nodes(message.nodes)
        if nodes is None:
            return Forbidden(what="the list of nodes is not one of whole ids")
        if not self._patience_with(asker).records.try_take(max(1, len(nodes))):
            return Busy(what="too many records are asked for: ask again in a minute")
        answered, told = self._table.tell(nodes)
        return Given(answered=answered, told=told)

    # ---- our own record

    def _publish(self) -> bool:
        """Make our record anew if it is outdated, and tell all neighbours. False: it was not."""
        network, certificate, ours = self._network(), self._certificate(), self._ours
        if network is None or ours is None or self._made_for == (network, certificate):
            return False
        floor = max(self._version, self._above)
        if floor > (self._world.clock.now() + AHEAD_S) * 1000:
            floor = 0  # our clock was far ahead: nobody believed that, and nobody would believe what is above it
        version = max(ours.version, floor + 1)
        summary = facts.fitted(replace(ours, version=version))
        if (left_out := len(ours.holdings) - len(summary.holdings)) and self._seldom.due("holdings left out"):
            told = len(summary.holdings)
            logger.warning("%d models of this node are told to nobody: there is room for %d", left_out, told)
        shown = b"" if certificate is None else certificates.encode(certificate)
        data = facts.make(
            self._key, summary, network=network, certificate=shown, boot=self._boot, rival=self._rival
        )
        self._table.keep_own(data, summary)
        self._version, self._made_for = version, (network, certificate)
        for neighbour in self._neighbours.values():
            self._queue(neighbour, self._key.node, hurry=True)
        return True

    def _heard_ourselves(self, teller: NodeId, record: FactRecord) -> None:
        """Our key signed it, and this run did not: our last run, whose clock was ahead or whose end nobody noticed, or
        another process with a copy of our data folder."""
        # The same boot and not our record: a copy of the memory too, as when a snapshot of a machine is resumed twice.
        if self._boot in (record.rival, record.boot) and not self._clone_known:
            self._clone_known = True
            logger.warning(
                "another machine says that it is this node, %s, and node %s has heard it: its data folder is a copy of this "
                "one's; stop swarmd on one of the two, start it there with an empty data folder, and join with a new code",
                short(self._key.node), short(teller),
            )  # fmt: skip
            self._bus.publish(IdentityCloned(node=self._key.node, at=None))
        if record.version < self._version:
            return
        # Ours must be the higher one, and say above whom: if that one lives, it now has the proof, and answers with ours.
        self._above, self._rival = max(self._above, record.version), record.boot
        if self._jumps.try_take():
            self._made_for = None
            self._publish()

    # ---- telling

    def _judge(self, teller: NodeId, outcome: Outcome) -> None:
        record = outcome.record
        match outcome.verdict:
            case Verdict.NEWS:
                assert record is not None and outcome.summary is not None, "NEWS has both"
                self._spread(record.node, teller)
                if outcome.changed:
                    self._bus.publish(SummaryReceived(summary=outcome.summary))
            case Verdict.OLD:
                if record is not None and (known := self._table.known(record.node)) is not None:
                    self._has_it(teller, known, record.version)
            case Verdict.OURS:
                assert record is not None, "it was signed"
                self._heard_ourselves(teller, record)
            case Verdict.FORGED:
                self._liars.add(teller)
                logger.warning("node %s is not listened to any more: %s", short(teller), outcome.why)
                self._bus.publish(SummaryRejected(node=teller, reason=outcome.why))
            case Verdict.UNSOUND:
                assert record is not None, "it was signed"
                if self._seldom.due(outcome.why):
                    logger.warning("%s, ignored", outcome.why)
                self._bus.publish(SummaryRejected(node=record.node, reason=outcome.why))
            case Verdict.REFUSED:
                if self._seldom.due(outcome.why):
                    # A neighbour whose own facts are refused is of no use here, and somebody can see to it.
                    level = logging.WARNING if record is not None and record.node == teller else logging.DEBUG
                    logger.log(level, "facts from node %s are not kept: %s", short(teller), outcome.why)
            case Verdict.LATER:
                assert record is not None, "it was signed"
                if self._seldom.due(f"chatters {record.node}"):
                    logger.info("node %s says something new too often, some of it is skipped", short(record.node))

    def _spread(self, node: NodeId, teller: NodeId) -> None:
        """First heard from `teller`: to a few of those who may not know."""
        known = self._table.known(node)
        assert known is not None, "it was just kept"
        known.add_had(teller)
        others = [one for one in self._neighbours if one not in known.had_by and one != node]
        chosen: list[NodeId] = []
        wanted = len(others) if len(self._neighbours) <= HINT_ALL else FANOUT + HINTED
        while others and len(chosen) < wanted:
            at = min(int(self._world.entropy.uniform(0, len(others))), len(others) - 1)
            others[at], others[-1] = others[-1], others[at]
            chosen.append(others.pop())
        if teller != node and node in self._neighbours:
            chosen.insert(0, node)  # linked to us, and yet we hear it from elsewhere: if it has a double, it learns so
        for one in chosen[:FANOUT]:
            self._queue(self._neighbours[one], node)
        for one in chosen[FANOUT:]:
            self._hint(self._neighbours[one], node)
        if (theirs := self._neighbours.get(teller)) is not None:
            theirs.pending.pop(node, None)
            theirs.hints.pop(node, None)

    def _has_it(self, teller: NodeId, known: Known, version: int) -> None:
        """It told us what we know: we need not tell it."""
        if version == known.record.version:
            known.add_had(teller)
            if (neighbour := self._neighbours.get(teller)) is not None:
                neighbour.pending.pop(known.record.node, None)
                neighbour.hints.pop(known.record.node, None)

    def _hint(self, neighbour: _Neighbour, node: NodeId) -> None:
        if node in neighbour.pending:
            return
        if not neighbour.hints:
            neighbour.hints_at = self._world.clock.monotonic() + self._world.entropy.uniform(HINT_FROM_S, HINT_TO_S)
            neighbour.news.set()
        neighbour.hints[node] = None

    def _queue(self, neighbour: _Neighbour, node: NodeId, *, hurry: bool = False) -> None:
        if node not in self._table:
            return
        neighbour.hints.pop(node, None)
        neighbour.pending[node] = None
        neighbour.news.set()
        if hurry:
            neighbour.hurry.set()

    async def _tell(self, node: NodeId, neighbour: _Neighbour, ask: Ask) -> None:
        """One message of what is pending, after a short wait for more unless it is our own; and of the hints that are
        due."""
        if neighbour.pending and not neighbour.hurry.is_set():
            await _wait(neighbour.hurry, timeout_s=self._world.entropy.uniform(BATCH_FROM_S, BATCH_TO_S))
        neighbour.hurry.clear()
        pending = list(neighbour.pending)
        answered, told = self._table.tell(pending)
        for one in pending[:answered]:
            del neighbour.pending[one]
            if (known := self._table.known(one)) is not None:
                known.add_had(node)
        hints: list[Pair] = []
        if self._world.clock.monotonic() >= neighbour.hints_at:
            hinted = list(islice(neighbour.hints, MAX_HINTS))
            hints += [Pair(one, known.record.version) for one in hinted if (known := self._table.known(one)) is not None]
            for one in hinted:
                del neighbour.hints[one]
            if not neighbour.hints:
                neighbour.hints_at = math.inf
        if told or hints:
            await ask(Facts(told=told, hints=pack_pairs(hints)), Heard)

    def _take_hints(self, teller: NodeId, hints: bytes) -> None:
        """What the teller has; of what we lack, only one neighbour is asked."""
        pairs, neighbour = unpack_pairs(hints), self._neighbours.get(teller)
        if pairs is None or neighbour is None or not self._patience_with(teller).records.try_take(len(pairs)):
            return
        for pair in pairs:
            if (known := self._table.known(pair.node)) is not None:
                self._has_it(teller, known, pair.version)
        versions = {pair.node: pair.version for pair in pairs}
        for node in self._table.lacking(pairs):
            if self._wanted.get(node, -1) < versions[node] and len(self._wanted) < MAX_NODES:
                self._wanted[node] = versions[node]
                neighbour.wanted[node] = None
                neighbour.news.set()

    async def _fetch_wanted(self, node: NodeId, neighbour: _Neighbour, ask: Ask) -> None:
        wanted = list(neighbour.wanted)
        pairs = [Pair(one, version) for one in wanted if (version := self._wanted.get(one)) is not None]
        try:
            await self._fetch(node, self._table.lacking(pairs), ask)
        finally:
            for one in wanted:
                neighbour.wanted.pop(one, None)
                self._wanted.pop(one, None)

    async def _fetch(self, node: NodeId, left: Sequence[NodeId], ask: Ask) -> None:
        while left:
            given = await ask(Want(nodes=pack_nodes(left[:MAX_TOLD])), Given)
            if given is None or not 0 < given.answered <= len(left):
                return
            left = left[given.answered :]
            await self.heard(node, given.told)

    async def _compare(self, node: NodeId, neighbour: _Neighbour, ask: Ask) -> None:
        """Find out what either side lacks; ours is fetched, theirs queued."""
        self.forget()
        buckets = self._table.buckets()
        reply = await ask(Compare(marks=pack_marks(self._table.marks(buckets))), Versions)
        pairs = None if reply is None else unpack_pairs(reply.pairs)
        if reply is None or pairs is None:
            return
        differing = [bucket for bucket in reply.differing if bucket < buckets]
        for one in self._table.ahead(pairs, differing, buckets=buckets):
            self._queue(neighbour, one, hurry=True)
        await self._fetch(node, self._table.lacking(pairs), ask)

    # ---- inside

    def _pause_s(self) -> float:
        """Until the next comparison on one link: with all links together one every COMPARE_S."""
        return COMPARE_S * max(1, len(self._neighbours)) * self._world.entropy.uniform(0.5, 1.5)

    def _patience_with(self, node: NodeId) -> _Patience:
        clock = self._world.clock
        patience = self._patience.pop(node, None) or _Patience(
            records=TokenBucket(LISTEN_PER_S, LISTEN_BURST, clock=clock),
            compares=TokenBucket(COMPARES_PER_S, COMPARES_BURST, clock=clock),
        )
        self._patience[node] = patience
        if len(self._patience) > MAX_LISTENED:
            self._patience.popitem(last=False)
        return patience


async def _wait(event: asyncio.Event, *, timeout_s: float) -> None:
    """Until it is set, at most that long."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
