"""Names that the contract fixes (swarmllm.md 2.10)."""

from __future__ import annotations

from swarmd.api import outlook_shapes
from swarmd.economy import capacity, wishlist


def test_the_contract_s_names() -> None:
    assert set(outlook_shapes.SwarmCapacity.__struct_fields__) == {
        "online_nodes", "total_vram_mb", "total_disk_mb", "gpu_nodes", "regions_represented", "serveable_models",
        "aspirational_models", "hosted_locally", "min_redundancy", "median_redundancy", "headline_model", "computed_at",
    }  # fmt: skip
    assert set(outlook_shapes.Wish.__struct_fields__) == {
        "model_id", "display_name", "status", "score", "why_tags", "swarm_replicas", "target_replicas", "size_mb",
        "vram_required_mb", "shards_covered", "total_shards", "hosted_by_us",
    }  # fmt: skip


def test_shapes_have_the_fields_of_what_they_show() -> None:
    for shape, shown in (
        (outlook_shapes.SwarmCapacity, capacity.SwarmCapacity), (outlook_shapes.ModelCoverage, capacity.ModelCoverage),
        (outlook_shapes.Headline, capacity.Headline), (outlook_shapes.Wish, wishlist.Wish),
        (outlook_shapes.Wishlist, wishlist.Wishlist),
    ):  # fmt: skip
        assert set(shape.__struct_fields__) == set(shown.__dataclass_fields__)
