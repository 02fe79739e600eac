"""Rows from domain values; the fields themselves are checked where the endpoints are."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from msgspec import UNSET

from swarmd.api import views
from swarmd.api.outlook_shapes import SwarmCapacity, Wishlist
from swarmd.domain.credits import Account
from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.peers import Endpoint, Holding, ModelDemand, NodeSummary, PeerRecord, PeerView, Purpose
from swarmd.domain.regions import RegionView
from swarmd.economy.capacity import swarm_capacity
from swarmd.economy.census import by_region
from tests.fakes.rim import (
    OWN,
    PEER,
    SPREAD,
    TINY,
    FakeMachine,
    FakePeers,
    FakePipeline,
    acquisition,
    hub_source,
    model_view,
)

NOW = 1_700_000_000.0


def test_percentiles_at_the_contract_s_indices() -> None:
    row = views.inference_row([float(value) for value in range(100, 0, -1)], total_requests=100)
    assert (row.p50_latency_ms, row.p95_latency_ms, row.p99_latency_ms) == (50.0, 95.0, 99.0)
    assert (row.min_latency_ms, row.max_latency_ms, row.avg_latency_ms) == (1.0, 100.0, 50.5)
    one = views.inference_row([7.04], total_requests=3)
    assert (one.p50_latency_ms, one.p99_latency_ms, one.samples) == (7.0, 7.0, 1)
    none = views.inference_row([], total_requests=3)
    assert (none.avg_latency_ms, none.samples, none.p50_latency_ms) == (None, 0, UNSET)


def peer(**changes: object) -> PeerView:
    return replace(FakePeers().rows[0], **changes)  # type: ignore[arg-type]


def test_a_peer_is_healthy_for_ninety_seconds() -> None:
    gone = peer(connected=False)
    assert views.peer_row(gone, trust=0.5, now=NOW + 90, whole=True).healthy
    assert not views.peer_row(gone, trust=0.5, now=NOW + 91, whole=True).healthy
    assert views.peer_row(peer(), trust=0.5, now=NOW + 91, whole=True).healthy
    assert views.peer_row(gone, trust=0.5, now=NOW, whole=True).uptime_seconds is None


def test_a_peer_of_whom_we_know_only_the_address() -> None:
    bare = PeerView(record=PeerRecord(node=NodeId("d" * 64), endpoints=(), last_seen=None), connected=False)
    row = views.peer_row(bare, trust=0.5, now=NOW, whole=True)
    assert (row.latency_ms, row.healthy, row.hosted_models, row.is_lan_peer, row.version) == (None, False, [], False, None)
    assert (row.addresses, row.last_seen) == ([], None)


@pytest.mark.parametrize(
    ("host", "lan"),
    [("192.168.1.5", True), ("127.0.0.1", True), ("fe80::1", True), ("8.8.8.8", False), ("box.local", False)],
)
def test_what_counts_as_lan(host: str, lan: bool) -> None:
    assert views.is_lan(peer(addresses=(Endpoint(host, 8810),))) is lan


def test_models_by_what_is_where() -> None:
    def status(*holders: tuple[NodeId, ...], loaded: tuple[int, ...] = ()) -> tuple[str, str, str]:
        row = views.model_row(model_view(TINY, *holders, loaded=loaded), node=OWN)
        return row.status, row.mode, row.source

    assert status((OWN,), (OWN,)) == ("ready", "full", "local")
    assert status((OWN,), (OWN,), loaded=(1,)) == ("loaded", "full", "local")
    assert status((OWN,), (PEER,)) == ("ready", "distributed", "hybrid")
    assert status((OWN,), ()) == ("partial", "distributed", "hybrid")
    assert status((PEER,), (PEER,)) == ("ready", "distributed", "network")
    assert status((PEER,), ()) == ("available", "distributed", "network")


def test_stored_models() -> None:
    assert views.stored_model(model_view(TINY, (OWN,), (OWN,))).ready == "ready"
    assert views.stored_model(model_view(TINY, (PEER,), (PEER,))).ready == "available"
    assert views.stored_model(model_view(TINY, (PEER,), ())).ready == "incomplete"


def test_holders_are_counted_whole_and_shown_up_to_32() -> None:
    many = tuple(NodeId(f"{number:064x}") for number in range(40))
    row = views.shard_row(model_view(TINY, many).shards[0], memory=True)
    assert (row.holders, len(row.holder_ids)) == (40, 32)


@pytest.mark.parametrize(
    ("state", "word"),
    [("queued", "downloading"), ("paused", "downloading"), ("failed", "failed"), ("cancelled", None), ("complete", None)],
)
def test_the_contract_s_words_of_an_acquisition(state: str, word: str | None) -> None:
    view = replace(model_view(SPREAD, (OWN,), ()), acquisition=acquisition(SPREAD, state=state))
    assert views.model_row(view, node=OWN).acquisition == word


def test_where_the_bytes_of_an_acquisition_come_from() -> None:
    one = acquisition(SPREAD)
    assert views.acquisition_status(one).source == "peers"
    from_hub = replace(one, transfers=(replace(one.transfers[0], hub=True, source=None),))
    assert views.acquisition_status(from_hub).source == "huggingface"
    progress = views.model_row(replace(model_view(SPREAD, (OWN,)), acquisition=from_hub), node=OWN).acquisition_progress
    assert progress is not None and progress.source == "huggingface"


def test_a_model_of_the_hub_says_where() -> None:
    view = model_view(SPREAD, (OWN,))
    assert view.manifest is not None
    row = views.model_row(view, node=OWN)
    assert (row.hf_source, row.probed) == (None, False)
    row = views.model_row(replace(view, manifest=replace(view.manifest, source=hub_source())), node=OWN)
    assert row.probed and row.hf_source is not None
    assert (row.hf_source.repo_id, row.hf_source.filename) == ("owner/Tiny-GGUF", "tiny.Q4_K_M.gguf")


def test_the_contract_s_sample_of_a_network_map() -> None:
    tiny = ModelId("tinyllama-1.1b-q4-k-m")

    def node(number: int, region: str, requests: int, *, holds: bool) -> NodeSummary:
        return NodeSummary(
            node=NodeId(f"{number:064x}"), version=1, software="x", started_at=0.0, ram_free_bytes=0, ram_total_bytes=0,
            region=region, holdings=(Holding(model=tiny, layout="0" * 32, shards=(0, 1)),) if holds else (),
            demand=(ModelDemand(model=tiny, requests=requests),),
        )  # fmt: skip

    nodes = (node(1, "US", 2, holds=True), node(2, "us", 3, holds=True), node(3, "US", 0, holds=False))
    found = msgspec.to_builtins(views.network_map(by_region(nodes, models=(tiny,), min_replicas=2)))
    assert found == {
        "regions": {
            "US": {
                "total": 3,
                "models": {"tinyllama-1.1b-q4-k-m": 2},
                "demand": {"tinyllama-1.1b-q4-k-m": 5},
                "coverage_gaps": [],
                "replication_target": {"tinyllama-1.1b-q4-k-m": 2},
            }
        }
    }


NO_CAPACITY = msgspec.convert(swarm_capacity([], [], now=0.0), SwarmCapacity, from_attributes=True)


def test_traffic_is_summed_and_its_rate_is_of_the_time_between() -> None:
    now = {Purpose.CONTROL: (100, 40), Purpose.BULK: (1000, 0)}
    before = {Purpose.CONTROL: (50, 20), Purpose.BULK: (1000, 0)}
    assert msgspec.to_builtins(views.traffic(now, before, seconds=2.0)) == {
        "bytes_in": 1100, "bytes_out": 40, "bytes_in_per_sec": 25, "bytes_out_per_sec": 10,
    }  # fmt: skip
    assert views.traffic(now, None, seconds=0.0).bytes_in_per_sec is None


def test_shards_that_arrive_at_others_are_told_without_a_progress_that_nobody_tells() -> None:
    (peer,) = FakePeers().rows
    assert peer.summary is not None
    holding = Holding(model=SPREAD, layout="0" * 32, shards=(), partial=(0, 1))
    arriving = replace(peer, summary=replace(peer.summary, holdings=(holding,)))
    assert [(row.model_id, row.shard_index, row.node_id, row.progress_pct) for row in views.peer_downloads([arriving])] == [
        (SPREAD, 0, PEER[:16], None), (SPREAD, 1, PEER[:16], None),
    ]  # fmt: skip


def test_of_many_gaps_a_tick_says_the_first() -> None:
    gaps = tuple(ModelId(f"m{number:04}") for number in range(1000))
    census = {"DE": RegionView(nodes=1, holders={}, demand={}, gaps=gaps, targets={})}
    stats = views.live_stats(
        uptime_s=1.0, counters=FakePipeline(), peers=[], downloads=[], hardware=FakeMachine().snapshot(),
        region="DE", census=census, account=Account(), capacity=NO_CAPACITY, wishlist=Wishlist(computed_at=0, entries=[]),
        traffic=None,
    )  # fmt: skip
    assert stats.region_coverage_gaps == {"DE": [*gaps[: views.GAPS_SHOWN]]}
    assert stats.region_demand == {}


def test_times_are_rfc_3339() -> None:
    assert views.time_text(1_700_000_000.1234) == "2023-11-14T22:13:20.123Z"
