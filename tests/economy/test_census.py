"""The swarm by region."""

from __future__ import annotations

from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.peers import Holding, ModelDemand, NodeSummary, PeerRecord, PeerView
from swarmd.domain.regions import RegionView
from swarmd.economy.census import MAX_MODELS, Census, by_region

A, B, C = ModelId("a"), ModelId("b"), ModelId("c")


def node(number: int, region: str, *holds: ModelId, **asked: int) -> NodeSummary:
    """Holds two shards of each of `holds`."""
    return NodeSummary(
        node=NodeId(f"{number:064x}"), version=1, software="swarmd/test", started_at=0.0, ram_free_bytes=0,
        ram_total_bytes=0, region=region, holdings=tuple(Holding(model=m, layout="0" * 32, shards=(0, 1)) for m in holds),
        demand=tuple(ModelDemand(model=ModelId(name), requests=count) for name, count in asked.items()),
    )  # fmt: skip


def peer(summary: NodeSummary | None, *, connected: bool = True, heard_lately: bool = False) -> PeerView:
    record = PeerRecord(node=NodeId("f" * 64), endpoints=(), last_seen=None)
    return PeerView(record=record, connected=connected, summary=summary, heard_lately=heard_lately)


def test_the_contracts_sample() -> None:
    nodes = (node(1, "US", A, a=2), node(2, "us", A, a=3), node(3, "US"))
    assert by_region(nodes, models=(A,), min_replicas=2) == {
        "US": RegionView(nodes=3, holders={A: 2}, demand={A: 5}, gaps=(), targets={A: 2})
    }


def test_a_node_counts_once_for_a_model_however_many_shards_it_holds() -> None:
    (view,) = by_region((node(1, "US", A, A),), models=(A,), min_replicas=2).values()
    assert view.holders == {A: 1} and view.targets == {A: 1}


def test_regions_are_apart_and_gaps_are_sorted() -> None:
    found = by_region((node(1, "US", B, c=7), node(2, "DE", A)), models=(C, A, B), min_replicas=2)
    assert list(found) == ["DE", "US"]
    assert (found["DE"].gaps, found["US"].gaps) == ((B, C), (A, C))
    assert found["US"].demand == {C: 7} and found["DE"].demand == {}
    assert set(found["US"].targets) == {B}, "only of what is there"


def test_whoever_says_no_region_is_in_none_of_ours() -> None:
    found = by_region((node(1, "US", A), node(2, "a b", A), None), models=(A,), min_replicas=2)
    assert found["US"].nodes == 1 and found["??"].nodes == 2 and found["??"].holders == {A: 1}


def test_the_census_counts_itself_and_who_is_there_with_or_without_a_link() -> None:
    peers = (
        peer(node(2, "US", A)), peer(None), peer(None, connected=False), peer(node(3, "FR", A), connected=False),
        peer(node(4, "DE", B), connected=False, heard_lately=True),
    )  # fmt: skip
    census = Census(
        ours=lambda: node(1, "US", A), peers=lambda: peers, models=lambda: (A, B), min_replicas=lambda: 2
    )
    regions = census.regions()
    assert {region: view.nodes for region, view in regions.items()} == {"US": 2, "??": 1, "DE": 1}
    assert regions["DE"].holders == {B: 1}, "what is told of a node without a link counts"
    assert census.here() == "US"


def test_invented_names_do_not_make_it_endless() -> None:
    models = (B, *(ModelId(f"m{number}") for number in range(10 * MAX_MODELS)))
    (view,) = by_region((node(1, "US"),), models=models, min_replicas=2).values()
    assert len(view.gaps) == MAX_MODELS and B in view.gaps
