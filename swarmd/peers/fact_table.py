"""What each node last said about itself, as far as it can be believed: the owner of the newest facts of everybody.

Decides and remembers, and sends nothing (`peers.gossip` does): so every rule can be tried without a network. A record is
believed for its signature and its certificate, never for its teller. The newest version of a node wins, in whatever order
they arrive.

How long facts count. Nodes renew theirs every HEARTBEAT_S (`inference.herald`). A node without a link to us *is there* as
long as its last record is younger than PRESENT_S, which leaves time for one more heartbeat and for finding a lost one;
unless we lost our own link to it since. A record of FORGET_S is forgotten, and one of TOLD_S not told any more, so that
nobody gets back from others what it has just forgotten. Ages go by the monotonic clock and are told with each record: wall
clocks of home machines are hours apart. A teller may lie about them, and keep a dead node on display at those who have
never heard of it; at nobody else, for what was forgotten is remembered as such.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from blake3 import blake3

from swarmd.domain.ids import NetworkId, NodeId, short
from swarmd.domain.peers import NodeSummary
from swarmd.domain.refusals import Forbidden, Refusal
from swarmd.identity import certificates
from swarmd.identity.certificates import SKEW_S, Certificate
from swarmd.kit.world import Clock
from swarmd.peers import facts
from swarmd.peers.facts import FactRecord
from swarmd.wire.gossip import BATCH_BYTES, MARK_BYTES, MAX_BUCKETS, MAX_PAIRS, MAX_TOLD, Pair, Told, bucket_of

MAX_NODES: Final = 2000
"""Measured 4 KB each with usual records, so 8 MB. A member that does its worst (16 KiB of shard numbers) takes 150 KB."""
PRESENT_S: Final = 300.0  # a heartbeat comes within 3.5 minutes, and what was lost is found within one more
FORGET_S: Final = 900.0  # four heartbeats: who is silent so long is off, and people want to see for a while who was there
TOLD_S: Final = 840.0  # a minute less: more than a record takes to everybody
AHEAD_S: Final = SKEW_S  # a version is a time: one from next year would silence its node until then
RECORDS_PER_S: Final = 0.33  # of one node; `inference.herald` stays below, so only a broken or hostile node is held back
RECORDS_BURST: Final = 48
PER_BUCKET: Final = 4  # nodes, about: a difference then costs some 200 bytes, and the marks of 1,000 nodes 2 KB


class Verdict(Enum):
    """What became of a record that was heard."""

    NEWS = "news"
    OLD = "old"
    LATER = "later"  # its node says too much; the next comparison finds it, or a newer one
    REFUSED = "refused"  # it tells nothing here and now; its teller may be honest
    UNSOUND = "unsound"  # it is that node's, and cannot be
    FORGED = "forged"  # nobody passes on what it has not verified: the teller lies
    OURS = "ours"  # signed with our key, and not by us


@dataclass(frozen=True, slots=True)
class Outcome:
    verdict: Verdict
    record: FactRecord | None = None
    summary: NodeSummary | None = None
    """Of NEWS."""
    why: str = ""
    """Of REFUSED, UNSOUND and FORGED."""
    changed: bool = False
    """Of NEWS: it says something else than the version before it."""


@dataclass(slots=True, kw_only=True, eq=False)
class Known:
    """One node's newest record. A thousand of these should stay small: no set, no bucket in each."""

    record: FactRecord
    summary: NodeSummary
    certificate: Certificate | None
    made_at: float
    """Monotonic: when the record was made, as it was told."""
    mark: int
    credit: float
    """How many more records of this node are taken now; as of `credit_at`."""
    credit_at: float
    doubted: bool = False
    """Our link to the node went since."""
    had_by: tuple[NodeId, ...] = ()
    """Neighbours that told us this version or were told of it; at most as many as there are links."""

    def add_had(self, neighbour: NodeId) -> None:
        if neighbour not in self.had_by:
            self.had_by += (neighbour,)


@dataclass(frozen=True, slots=True)
class _Dismissed:
    version: int
    at: float


class FactTable:
    """One per node."""

    def __init__(
        self,
        *,
        own: NodeId,
        network: Callable[[], NetworkId | None],
        revoked: Callable[[Certificate], bool],
        bare: Callable[[NodeId], bool],
        linked: Callable[[NodeId], bool],
        clock: Clock,
        max_nodes: int = MAX_NODES,
    ) -> None:
        """`revoked`: whether a link of a certificate was taken back. `bare`: whether a node without a certificate is a
        member, as in an open network. `linked`: whether a node has a link to us now."""
        self._own, self._network, self._revoked, self._linked, self._clock = own, network, revoked, linked, clock
        self._bare = bare
        self._max_nodes = max_nodes
        self._of: NetworkId | None = None
        """Whose nodes these are: another network begins with an empty table."""
        self._known: dict[NodeId, Known] = {}
        self._dismissed: OrderedDict[NodeId, _Dismissed] = OrderedDict()
        """Versions up to which a node's records are not wanted; at most `max_nodes`, the oldest goes first."""

    # ---- asked by everybody

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._known

    def __iter__(self) -> Iterator[NodeId]:
        return iter(self._known)

    def known(self, node: NodeId) -> Known | None:
        return self._known.get(node)

    def age_s(self, known: Known) -> float:
        return max(0.0, self._clock.monotonic() - known.made_at)

    def is_present(self, known: Known) -> bool:
        """Without a link: whether the node is there, see the module."""
        return not known.doubted and self.age_s(known) < PRESENT_S

    # ---- told by others

    def keep_own(self, data: bytes, summary: NodeSummary) -> None:
        """Our own record, as others will get it."""
        record = facts.decode(data)
        assert isinstance(record, FactRecord), "we made it"
        assert record.node == self._own, "a node speaks about itself only"
        self._follow_network()
        self._known[self._own] = self._entry(record, summary, None, age_s=0.0, known=self._known.get(self._own))

    def hear(self, data: bytes, *, age_s: float) -> Outcome:
        """Somebody told us `data`, made `age_s` ago. Cheap questions first, the signature when nothing else speaks
        against it."""
        network = self._follow_network()
        record = facts.decode(data)
        if isinstance(record, Forbidden):
            verdict = Verdict.REFUSED if facts.is_other_layout(data) else Verdict.FORGED
            return Outcome(verdict, why=record.sentence)
        if network is None:
            return Outcome(Verdict.REFUSED, record, why="this node belongs to no network yet")
        known = self._known.get(record.node)
        if record.node == self._own:
            if known is not None and record.boot == known.record.boot and record.version <= known.record.version:
                return Outcome(Verdict.OLD, record)
            return Outcome(Verdict.OURS, record) if facts.is_signed(record, network=network) else _forged(record)
        if age_s >= TOLD_S or not self._is_news(record.node, record.version):
            return Outcome(Verdict.OLD, record)
        if record.version > self._latest():
            why = f"node {short(record.node)} is more than a day ahead of this one: check the clocks of both"
            return Outcome(Verdict.REFUSED, record, why=why)
        if not facts.is_signed(record, network=network):
            return _forged(record)
        if known is not None and not self._take(known):
            return Outcome(Verdict.LATER, record)
        certificate = self._membership(record, known, network=network)
        if isinstance(certificate, Refusal):
            return Outcome(Verdict.REFUSED, record, why=certificate.sentence)
        summary = facts.read_summary(record)
        if isinstance(summary, Forbidden):
            self._dismiss(record.node, record.version)
            return Outcome(Verdict.UNSOUND, record, why=summary.sentence)
        if known is None and not self._make_room(record.node):
            return Outcome(Verdict.REFUSED, record, why=f"the facts of {self._max_nodes} nodes are kept already")
        self._known[record.node] = self._entry(record, summary, certificate, age_s=age_s, known=known)
        self._dismissed.pop(record.node, None)
        changed = known is None or known.doubted or replace(known.summary, version=summary.version) != summary
        return Outcome(Verdict.NEWS, record, summary, changed=changed)

    def doubt(self, node: NodeId) -> None:
        """Our link to `node` is gone: until it says something new, it may be gone itself."""
        if (known := self._known.get(node)) is not None:
            known.doubted = True

    def forget(self) -> tuple[NodeId, ...]:
        """Drop whoever has not been heard of for FORGET_S and whoever was put out; returns them."""
        self._follow_network()
        silent = [
            node
            for node, known in self._known.items()
            if node != self._own and not self._linked(node) and self.age_s(known) >= FORGET_S
        ]
        out = [node for node, known in self._known.items() if self._is_out(node, known.certificate)]
        for node in (gone := {*silent, *out}):
            self._dismiss(node, self._known.pop(node).record.version)
        return tuple(sorted(gone))

    # ---- comparing two tables

    def buckets(self) -> int:
        """Into how many a table of this size is cut."""
        wanted = max(1, len(self._known) // PER_BUCKET)
        return min(MAX_BUCKETS, 1 << (wanted - 1).bit_length())

    def marks(self, buckets: int) -> list[int]:
        marks = [0] * buckets
        for node, known in self._known.items():
            marks[bucket_of(node, buckets)] ^= known.mark
        return marks

    def pairs(self, differing: Iterable[int], *, buckets: int) -> tuple[Pair, ...]:
        """Everything known in those buckets, and what was dismissed there lately."""
        chosen, now = frozenset(differing), self._clock.monotonic()
        found = [
            Pair(node, known.record.version)
            for node, known in self._known.items()
            if bucket_of(node, buckets) in chosen and self._may_tell(node, known)
        ]
        found += [
            Pair(node, dismissed.version, dismissed=True)
            for node, dismissed in self._dismissed.items()
            if now - dismissed.at < FORGET_S and node not in self._known and bucket_of(node, buckets) in chosen
        ]
        return tuple(found[:MAX_PAIRS])

    def lacking(self, pairs: Iterable[Pair]) -> tuple[NodeId, ...]:
        """Whose records the other has and we want."""
        room, latest = self._max_nodes - len(self._known), self._latest()
        found: list[NodeId] = []
        for pair in pairs:
            if pair.dismissed or pair.version > latest or not self._is_news(pair.node, pair.version):
                continue
            if pair.node not in self._known:
                if room <= 0:
                    continue
                room -= 1
            found.append(pair.node)
        return tuple(found)

    def ahead(self, pairs: Iterable[Pair], differing: Iterable[int], *, buckets: int) -> tuple[NodeId, ...]:
        """Whose records we have in those buckets and the other does not."""
        theirs, chosen = {pair.node: pair.version for pair in pairs}, frozenset(differing)
        return tuple(
            node
            for node, known in self._known.items()
            if bucket_of(node, buckets) in chosen
            and known.record.version > theirs.get(node, -1)
            and self._may_tell(node, known)
        )

    def tell(self, nodes: Iterable[NodeId]) -> tuple[int, tuple[Told, ...]]:
        """Records of these, as many as go into one message, and how many of `nodes` were looked at for it."""
        told: list[Told] = []
        looked_at = size = 0
        for node in nodes:
            if looked_at == MAX_TOLD:
                break
            known = self._known.get(node)
            if known is not None and self._may_tell(node, known):
                size += len(known.record.data)
                if told and size > BATCH_BYTES:
                    break
                age_s = 0 if node == self._own else int(self.age_s(known))
                told.append(Told(age_s=age_s, record=known.record.data))
            looked_at += 1
        return looked_at, tuple(told)

    # ---- inside

    def _follow_network(self) -> NetworkId | None:
        network = self._network()
        if network != self._of:
            self._of = network
            self._known.clear()
            self._dismissed.clear()
        return network

    def _latest(self) -> int:
        """The highest version that is believed: milliseconds of the wall clock."""
        return int((self._clock.now() + AHEAD_S) * 1000)

    def _is_news(self, node: NodeId, version: int) -> bool:
        known, dismissed = self._known.get(node), self._dismissed.get(node)
        return (known is None or known.record.version < version) and (dismissed is None or dismissed.version < version)

    def _may_tell(self, node: NodeId, known: Known) -> bool:
        return node == self._own or self.age_s(known) < TOLD_S

    def _membership(self, record: FactRecord, known: Known | None, *, network: NetworkId) -> Certificate | Refusal | None:
        if not record.certificate:
            if self._bare(record.node):
                return None  # the signature says all that is asked
            return Forbidden(what=f"node {short(record.node)} shows no certificate with what it says about itself")
        before = None if known is None or known.record.certificate != record.certificate else known.certificate
        if before is not None and not self._is_out(record.node, before):
            now = self._clock.now()
            if all(now < one.expires_at for one in before.chain()):
                return before  # verified before: half of what a heartbeat costs
        certificate = certificates.decode(record.certificate)
        if isinstance(certificate, Forbidden):
            return certificate
        if certificate.node != record.node:
            return Forbidden(what=f"node {short(record.node)} shows the certificate of node {short(certificate.node)}")
        return certificates.verify(certificate, network=network, now=self._clock.now(), revoked=self._revoked)

    def _is_out(self, node: NodeId, certificate: Certificate | None) -> bool:
        if certificate is None:
            return node != self._own and not self._bare(node)
        return any(map(self._revoked, certificate.chain()))

    def _entry(
        self,
        record: FactRecord,
        summary: NodeSummary,
        certificate: Certificate | None,
        *,
        age_s: float,
        known: Known | None,
    ) -> Known:
        number, now = bytes.fromhex(record.node) + record.version.to_bytes(8), self._clock.monotonic()
        return Known(
            record=record,
            summary=summary,
            certificate=certificate,
            made_at=now - age_s,
            mark=int.from_bytes(blake3(number).digest(MARK_BYTES)),
            credit=RECORDS_BURST if known is None else known.credit,
            credit_at=now if known is None else known.credit_at,
        )

    def _take(self, known: Known) -> bool:
        """One more record of the same node: whether it is due."""
        now = self._clock.monotonic()
        known.credit = min(RECORDS_BURST, known.credit + (now - known.credit_at) * RECORDS_PER_S)
        known.credit_at = now
        if known.credit < 1:
            return False
        known.credit -= 1
        return True

    def _make_room(self, newcomer: NodeId) -> bool:
        """Somebody overdue gives way, never somebody linked or heard of lately: inventing nodes pushes out nobody."""
        if len(self._known) < self._max_nodes:
            return True
        overdue = [node for node, known in self._known.items() if node != self._own and not self.is_present(known)]
        overdue = [node for node in overdue if not self._linked(node)]
        if overdue:
            del self._known[min(overdue, key=lambda node: self._known[node].made_at)]
        elif self._linked(newcomer):
            far = [node for node in self._known if node != self._own and not self._linked(node)]
            if not far:
                return False
            del self._known[min(far, key=lambda node: self._known[node].made_at)]
        else:
            return False
        return True

    def _dismiss(self, node: NodeId, version: int) -> None:
        self._dismissed.pop(node, None)
        self._dismissed[node] = _Dismissed(version, self._clock.monotonic())
        if len(self._dismissed) > self._max_nodes:
            self._dismissed.popitem(last=False)


def _forged(record: FactRecord) -> Outcome:
    return Outcome(Verdict.FORGED, record, why=f"node {short(record.node)} did not sign what is told of it")
