"""How far models are trusted to be wanted: what lets this node fetch them by itself. Pure (swarmllm.md 4.8).

Discovered, then Pinned (a person chose it here), then DemandVerified (asked for three times), then NetworkPopular (three
nodes hold it). Requests at other nodes count like those at this one, since a node that is never the head of a generation
would otherwise help nobody, and a swarm in which one person asks at one machine would keep one copy for ever. A
member can lie about its demand; what that buys is a share of the storage budget, under a name that everybody knows, until
a person puts it out.

The pin is not stored here: it is the catalogue's file. What is stored is the rung on the ladder of demand; the level that
is shown is the higher one of both, so that nothing takes a pinned model below Pinned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from swarmd.domain.models import TrustLevel

REQUESTS_TO_VERIFY: Final = 3  # contract: swarmllm.md 4.8
HOLDERS_OF_POPULAR: Final = 3  # contract
DECAY_S: Final = 7 * 24 * 3600.0  # contract

RANK: Final[Mapping[TrustLevel, int]] = {
    TrustLevel.DISCOVERED: 0,
    TrustLevel.PINNED: 1,
    TrustLevel.DEMAND_VERIFIED: 2,
    TrustLevel.NETWORK_POPULAR: 3,
}
_BELOW: Final = {
    TrustLevel.NETWORK_POPULAR: TrustLevel.DEMAND_VERIFIED,
    TrustLevel.DEMAND_VERIFIED: TrustLevel.DISCOVERED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustRecord:
    """One model on the ladder of demand. Times are Unix seconds."""

    level: TrustLevel = TrustLevel.DISCOVERED
    first_seen: float
    total_requests: int = 0
    """At this node."""
    counted_requests: int = 0
    """At this node, since it was last Discovered."""
    last_request_at: float | None = None
    """Here or, as far as they told, at others."""
    stepped_at: float


def discovered(now: float) -> TrustRecord:
    return TrustRecord(first_seen=now, stepped_at=now)


def asked(record: TrustRecord, *, now: float) -> TrustRecord:
    """One more request at this node."""
    record = replace(
        record,
        total_requests=record.total_requests + 1,
        counted_requests=record.counted_requests + 1,
        last_request_at=now,
    )
    return _verified(record, record.counted_requests, now)


def told(record: TrustRecord, *, requests: int, now: float) -> TrustRecord:
    """So many requests of the last ten minutes in the whole swarm."""
    if requests <= 0:
        return record
    return _verified(replace(record, last_request_at=now), requests, now)


def checked(record: TrustRecord, *, holders: int, now: float) -> TrustRecord:
    """The periodic look: up to NetworkPopular, or one step down after DECAY_S without a request.

    What three nodes hold and nobody has asked for in that time does not become popular: it would go up again after each
    step down.
    """
    wanted_at = max(record.first_seen, record.last_request_at or 0.0)
    if now - wanted_at < DECAY_S:
        if holders >= HOLDERS_OF_POPULAR and record.level is not TrustLevel.NETWORK_POPULAR:
            return replace(record, level=TrustLevel.NETWORK_POPULAR, stepped_at=now)
        return record
    below = _BELOW.get(record.level)
    if below is None or now - max(wanted_at, record.stepped_at) < DECAY_S:
        return record
    return replace(
        record,
        level=below,
        stepped_at=now,
        counted_requests=0 if below is TrustLevel.DISCOVERED else record.counted_requests,
    )


def shown(record: TrustRecord | None, *, pinned: bool, hosted: bool) -> TrustLevel:
    """The level as everybody sees it."""
    if record is None:
        return TrustLevel.PINNED if pinned or hosted else TrustLevel.DISCOVERED
    return max(record.level, TrustLevel.PINNED, key=RANK.__getitem__) if pinned else record.level


def _verified(record: TrustRecord, requests: int, now: float) -> TrustRecord:
    if requests < REQUESTS_TO_VERIFY or record.level is not TrustLevel.DISCOVERED:
        return record
    return replace(record, level=TrustLevel.DEMAND_VERIFIED, stepped_at=now)
