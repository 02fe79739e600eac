"""What the steward remembers between two looks: who is gone since when, how long copies have been missing, peaks of demand,
and what it did itself. Times are monotonic seconds, given by the caller.

Nothing of it is stored, but for what a person cancelled (`store.content`). A node that starts again has forgotten whom it
gave how long, and waits a while before it begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from swarmd.domain.ids import ModelId, NodeId, ShardRef
from swarmd.domain.peers import NodeSummary, PeerView
from swarmd.economy.acquiring import DROPPED_LATELY_S
from swarmd.economy.copies import GRACE_S
from swarmd.economy.pruning import FETCHED_LATELY_S, USED_LATELY_S

HOUR_S: Final = 3600.0
MOVES_PER_HOUR: Final = 60
"""Fetches and drops: 60 shards of 512 MB are 70 Mbit/s, which is as much as a good line at home gives."""
PEAK_S: Final = HOUR_S  # a model that was asked for is soon asked for again; demand itself is forgotten after ten minutes
PEAK_STEP_S: Final = 300.0
RETRY_S: Final = 600.0  # after the first failure; each further one in a row doubles it
RETRY_LIMIT_S: Final = 4 * HOUR_S
CANCELLED_S: Final = 24 * HOUR_S  # for a day a person's word stands against demand
MAX_KEPT: Final = 4096  # entries of each kind: more than a node can hold shards


@dataclass(slots=True)
class _Retry:
    failures: int
    at: float


@dataclass(slots=True)
class _Gap:
    missing: int
    since: float
    """When it was noticed, or grew smaller last."""


@dataclass(slots=True)
class Notes:
    """One per steward."""

    _there: dict[NodeId, NodeSummary] = field(default_factory=dict[NodeId, NodeSummary])
    _gone: dict[NodeId, tuple[NodeSummary, float]] = field(default_factory=dict[NodeId, tuple[NodeSummary, float]])
    _peaks: dict[ModelId, dict[int, int]] = field(default_factory=dict[ModelId, dict[int, int]])
    _gaps: dict[ModelId, _Gap] = field(default_factory=dict[ModelId, _Gap])
    _owed: dict[ModelId, dict[NodeId, _Gap]] = field(default_factory=dict[ModelId, dict[NodeId, _Gap]])
    _used: dict[ModelId, float] = field(default_factory=dict[ModelId, float])
    _pruned: dict[ModelId, float] = field(default_factory=dict[ModelId, float])
    _stored: dict[ShardRef, float] = field(default_factory=dict[ShardRef, float])
    _here: frozenset[ShardRef] = frozenset()
    _dropped: dict[ShardRef, float] = field(default_factory=dict[ShardRef, float])
    """Of what is not here any more; by whomever."""
    _pruned_here: set[ShardRef] = field(default_factory=set[ShardRef])
    """Those of them that the autopilot dropped."""
    _retries: dict[ShardRef, _Retry] = field(default_factory=dict[ShardRef, _Retry])
    _cancelled: dict[ShardRef, float] = field(default_factory=dict[ShardRef, float])
    _heard: dict[ModelId, float] = field(default_factory=dict[ModelId, float])
    """Start of the cancelled download that was heard of last."""
    _moves: deque[float] = field(default_factory=lambda: deque[float](maxlen=MOVES_PER_HOUR))

    # -- others

    def look_round(self, views: Iterable[PeerView], *, at: float) -> tuple[tuple[NodeSummary, float], ...]:
        """Who was there at an earlier look and is not now, with the seconds since then; at most GRACE_S."""
        there = {view.record.node: view.summary for view in views if view.present and view.summary is not None}
        for node, summary in self._there.items():
            if node not in there:
                self._gone[node] = (summary, at)
        self._there = there
        self._gone = {
            node: (summary, since)
            for node, (summary, since) in self._gone.items()
            if node not in there and at - since < GRACE_S
        }
        return tuple((summary, at - since) for summary, since in self._gone.values())

    def is_news(self, summary: NodeSummary) -> bool:
        """Whether its shards are others than at the last look."""
        known = self._there.get(summary.node)
        return known is None or _shards(known) != _shards(summary)

    # -- models

    def peak(self, model: ModelId, requests: int, *, at: float) -> int:
        """The highest number of the last PEAK_S, this one included."""
        step = int(at // PEAK_STEP_S)
        steps = {one: count for one, count in self._peaks.get(model, {}).items() if step - one <= PEAK_S / PEAK_STEP_S}
        if requests:
            steps[step] = max(requests, steps.get(step, 0))
        if steps:
            self._peaks[model] = steps
        else:
            self._peaks.pop(model, None)
        return max(steps.values(), default=0)

    def waited_s(self, model: ModelId, missing: int, *, at: float) -> float:
        """How long copies have been missing without one being added."""
        gap = self._gaps.get(model)
        if missing == 0:
            self._gaps.pop(model, None)
            return 0.0
        if gap is None or missing < gap.missing:
            gap = self._gaps[model] = _Gap(missing, at)
        gap.missing = missing
        return at - gap.since

    def owed_s(self, model: ModelId, owed: Mapping[NodeId, int], *, at: float) -> dict[NodeId, float]:
        """How long each node has owed shards of a shared model without there being fewer of them."""
        known, kept = self._owed.pop(model, {}), dict[NodeId, _Gap]()
        for node, missing in owed.items():
            gap = known.get(node)
            kept[node] = _Gap(missing, at) if gap is None or missing < gap.missing else _Gap(missing, gap.since)
        if kept:
            self._owed[model] = kept
        return {node: at - gap.since for node, gap in kept.items()}

    def used(self, model: ModelId, *, at: float) -> None:
        self._used[model] = at

    def used_s(self, model: ModelId, *, at: float) -> float | None:
        return None if (since := self._used.get(model)) is None else at - since

    def pruned_s(self, model: ModelId, *, at: float) -> float | None:
        return None if (since := self._pruned.get(model)) is None else at - since

    # -- shards of this node

    def look_here(self, shards: Iterable[ShardRef], models: Collection[ModelId], *, at: float) -> None:
        """What is on this node, of the models that it knows. What was here at an earlier look and is gone was dropped."""
        here = frozenset(shards)
        for ref in self._here - here:
            if ref.model in models:
                self.dropped(ref, at=at)
        self._here = here

    def stored(self, shard: ShardRef, *, at: float) -> None:
        self.wanted((shard,))
        self._stored[shard] = at
        self._retries.pop(shard, None)

    def wanted(self, shards: Iterable[ShardRef]) -> None:
        """Somebody asks for them now: what was said before counts no more."""
        for ref in shards:
            self._cancelled.pop(ref, None)
            self._dropped.pop(ref, None)
            self._pruned_here.discard(ref)

    def dropped(self, shard: ShardRef, *, at: float) -> None:
        """By a person, unless it is known already that it was the autopilot."""
        self._here -= {shard}
        self._stored.pop(shard, None)
        self._dropped.setdefault(shard, at)

    def pruned(self, shard: ShardRef, *, at: float) -> None:
        """By the autopilot."""
        self._pruned[shard.model] = at
        self.dropped(shard, at=at)
        self._pruned_here.add(shard)

    def was_given_up(self, shard: ShardRef) -> bool:
        """Somebody dropped it or cancelled its download: that it is not here is no failure."""
        return shard in self._dropped or shard in self._cancelled

    def rejected(self, shard: ShardRef, *, at: float) -> None:
        """Bytes of it are wrong. Where they were here for a while, nobody dropped it because it was not wanted."""
        if self._dropped.pop(shard, None) is not None:
            self._pruned_here.discard(shard)
            self.failed(shard, at=at)

    def failed(self, shard: ShardRef, *, at: float) -> None:
        """It could not be fetched."""
        failures = self._retries[shard].failures + 1 if shard in self._retries else 1
        self._retries[shard] = _Retry(failures, at + min(RETRY_LIMIT_S, RETRY_S * 2 ** min(failures - 1, 10)))

    def cancelled(self, model: ModelId, shards: Iterable[ShardRef], *, began: float, at: float) -> None:
        """By a person: a download that began at that Unix time, once however often it is told."""
        if self._heard.get(model) == began:
            return
        self._heard.pop(model, None)
        self._heard[model] = began
        self._cancelled.update(dict.fromkeys(shards, at))

    def cancelled_before(self, shards: Mapping[ShardRef, float]) -> None:
        """As it is written down, the oldest first."""
        for ref, since in shards.items():
            self._cancelled.setdefault(ref, since)

    def is_cancelled(self, shard: ShardRef) -> bool:
        return shard in self._cancelled

    def instructed(self, model: ModelId) -> None:
        """A person says anew what may be done with it."""
        self._cancelled = {ref: since for ref, since in self._cancelled.items() if ref.model != model}

    def cancelled_s(self, model: ModelId, *, at: float) -> dict[int, float]:
        return {
            shard.index: at - since
            for shard, since in self._cancelled.items()
            if shard.model == model and at - since < CANCELLED_S
        }

    def stored_s(self, model: ModelId, *, at: float) -> dict[int, float]:
        return {shard.index: at - since for shard, since in self._stored.items() if shard.model == model}

    def dropped_s(self, model: ModelId, *, at: float) -> dict[int, float]:
        return {shard.index: at - since for shard, since in self._dropped.items() if shard.model == model}

    def unwanted(self, model: ModelId) -> frozenset[int]:
        """Dropped by a person."""
        return frozenset(ref.index for ref in self._dropped if ref.model == model and ref not in self._pruned_here)

    def retry_s(self, model: ModelId, *, at: float) -> dict[int, float]:
        return {
            shard.index: retry.at - at for shard, retry in self._retries.items() if shard.model == model and retry.at > at
        }

    def forget(self, model: ModelId) -> None:
        self._peaks.pop(model, None)
        self._gaps.pop(model, None)
        self._owed.pop(model, None)
        self._used.pop(model, None)
        self._pruned.pop(model, None)
        self._heard.pop(model, None)
        self.instructed(model)
        for ref in [ref for ref in (*self._stored, *self._dropped, *self._retries) if ref.model == model]:
            self._stored.pop(ref, None)
            self._dropped.pop(ref, None)
            self._retries.pop(ref, None)
        self._pruned_here = {ref for ref in self._pruned_here if ref.model != model}
        self._here = frozenset(ref for ref in self._here if ref.model != model)

    # -- moves

    def moved(self, *, at: float) -> None:
        self._moves.append(at)

    def moves_left(self, *, at: float) -> int:
        while self._moves and at - self._moves[0] >= HOUR_S:
            self._moves.popleft()
        return MOVES_PER_HOUR - len(self._moves)

    def tidy(self, *, at: float) -> None:
        """Forget what says nothing any more."""
        self._stored = {ref: since for ref, since in self._stored.items() if at - since < FETCHED_LATELY_S}
        self._dropped = {ref: since for ref, since in self._dropped.items() if at - since < DROPPED_LATELY_S}
        self._retries = {ref: retry for ref, retry in self._retries.items() if at - retry.at < RETRY_LIMIT_S}
        self._cancelled = {ref: since for ref, since in self._cancelled.items() if at - since < CANCELLED_S}
        self._used = {model: since for model, since in self._used.items() if at - since < USED_LATELY_S}
        self._pruned = {model: since for model, since in self._pruned.items() if at - since < DROPPED_LATELY_S}
        for shards in (self._stored, self._dropped, self._retries, self._cancelled):
            while len(shards) > MAX_KEPT:
                shards.pop(next(iter(shards)))  # the oldest
        self._pruned_here &= self._dropped.keys()
        for models in (self._gaps, self._owed, self._peaks, self._heard):
            while len(models) > MAX_KEPT:
                models.pop(next(iter(models)))


def _shards(summary: NodeSummary) -> tuple[object, ...]:
    return tuple((one.model, one.layout, one.shards, one.partial, one.shared) for one in summary.holdings)
