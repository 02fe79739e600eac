"""The swarm by region: who is where, what is held, asked for and missing. Derived from the newest summaries at every call.

Who is there counts: this node, those linked to it, and those heard of by gossip within `peers.fact_table.PRESENT_S`. So a
node that vanishes stops counting at once where it was linked, and within five minutes elsewhere. Two readings are ours. A
peer that has not said where it is counts under `??`: were it counted in our region, as elsewhere, its shards would hide a
gap here. And demand in the target of a model is that of the region, not that of whoever looks, so that two nodes see the
same target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from swarmd.domain.ids import ModelId
from swarmd.domain.peers import NodeSummary, PeerView
from swarmd.domain.regions import UNKNOWN, RegionView, as_region
from swarmd.economy.replication import replication_target

MAX_MODELS: Final = 1000
"""Looked for in each region; models of ours come first. Neighbours who invent names would make the reply endless."""


@dataclass(slots=True)
class _Tally:
    nodes: int = 0
    holders: Counter[ModelId] = field(default_factory=Counter[ModelId])
    demand: Counter[ModelId] = field(default_factory=Counter[ModelId])


class Census:
    """No state of its own."""

    def __init__(
        self,
        *,
        ours: Callable[[], NodeSummary],
        peers: Callable[[], tuple[PeerView, ...]],
        models: Callable[[], tuple[ModelId, ...]],
        min_replicas: Callable[[], int],
    ) -> None:
        """`ours`: of this node, fresh. `models`: every one that the swarm has, own ones first."""
        self._ours, self._peers, self._models, self._min_replicas = ours, peers, models, min_replicas

    def holders(self) -> dict[ModelId, int]:
        """Distinct nodes with at least one shard, this one included, by model."""
        found = Counter[ModelId]()
        for one in self._there():
            found.update({holding.model for holding in one.holdings if holding.shards})
        return dict(found)

    def requests(self) -> dict[ModelId, int]:
        """Of the window of `economy.demand`, in the whole swarm."""
        found = Counter[ModelId]()
        for one in self._there():
            found.update({demand.model: demand.requests for demand in one.demand})
        return dict(found)

    def _there(self) -> tuple[NodeSummary, ...]:
        theirs = (peer.summary for peer in self._peers() if peer.present)
        return (self._ours(), *(one for one in theirs if one is not None))

    def here(self) -> str:
        """The region of this node; `??` where it does not know."""
        return as_region(self._ours().region)

    def regions(self) -> dict[str, RegionView]:
        """By region, sorted."""
        theirs = (peer.summary for peer in self._peers() if peer.present)
        return by_region((self._ours(), *theirs), models=self._models(), min_replicas=self._min_replicas())


def by_region(
    nodes: Iterable[NodeSummary | None], *, models: Iterable[ModelId], min_replicas: int
) -> dict[str, RegionView]:
    """`nodes`: everybody who counts; None for one that has said nothing about itself yet."""
    tallies: dict[str, _Tally] = {}
    pool = 0
    for summary in nodes:
        pool += 1
        tally = tallies.setdefault(UNKNOWN if summary is None else as_region(summary.region), _Tally())
        tally.nodes += 1
        if summary is not None:
            tally.holders.update({holding.model for holding in summary.holdings if holding.shards})
            tally.demand.update({one.model: one.requests for one in summary.demand})
    known = sorted(islice(models, MAX_MODELS))
    return {
        region: RegionView(
            nodes=tally.nodes,
            holders=dict(sorted(tally.holders.items())),
            demand={model: requests for model, requests in sorted(tally.demand.items()) if requests},
            gaps=tuple(model for model in known if model not in tally.holders),
            targets={
                model: replication_target(pool=pool, min_replicas=min_replicas, requests=tally.demand[model])
                for model in sorted(tally.holders)
            },
        )
        for region, tally in sorted(tallies.items())
    }
