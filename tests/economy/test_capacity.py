"""What the linked nodes can serve."""

from __future__ import annotations

from swarmd.domain.ids import ModelId, NodeId
from swarmd.economy.capacity import Machine, swarm_capacity
from tests.fakes.rim import OWN, PEER, model_view

THIRD = NodeId("c" * 64)
HERE = Machine(region="DE", gpu=None, vram_bytes=None, disk_bytes=100_000_000_000)
THERE = Machine(region="US", gpu="H200", vram_bytes=None, disk_bytes=None)


def test_a_node_alone_with_nothing() -> None:
    found = swarm_capacity([HERE], [], now=5.9)
    assert (found.online_nodes, found.gpu_nodes, found.total_vram_mb, found.total_disk_mb) == (1, 0, 0, 100_000)
    assert (found.headline_model, found.min_redundancy, found.median_redundancy, found.computed_at) == (None, 0, 0, 5)


def test_models_are_told_apart_by_what_is_covered() -> None:
    whole = model_view(ModelId("whole"), (OWN, PEER), (PEER,), (OWN, PEER, THIRD))
    small = model_view(ModelId("small"), (PEER, THIRD))
    half = model_view(ModelId("half"), (OWN,), ())
    quarter = model_view(ModelId("quarter"), (PEER,), (), (), ())
    gone = model_view(ModelId("gone"), (), ())
    found = swarm_capacity([HERE, THERE], [small, whole, quarter, half, gone], now=0.0)
    assert [one.model_id for one in found.serveable_models] == ["whole", "small"]
    assert [one.model_id for one in found.aspirational_models] == ["half", "quarter"]
    assert [one.model_id for one in found.hosted_locally] == ["whole", "half"]
    assert (found.min_redundancy, found.median_redundancy) == (1, 1.5)
    assert found.headline_model is not None and found.headline_model.model_id == "whole"
    first = found.serveable_models[0]
    assert (first.size_mb, first.holders, first.total_shards, first.shards_covered) == (15, 3, 3, 3)


def test_what_a_node_does_not_tell_is_not_made_up() -> None:
    found = swarm_capacity([HERE, THERE], [], now=0.0)
    assert (found.online_nodes, found.gpu_nodes, found.regions_represented) == (2, 1, 2)
    assert found.total_vram_mb is None and found.total_disk_mb is None
