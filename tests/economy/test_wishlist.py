"""Which models the swarm should hold more of."""

from __future__ import annotations

import pytest

from swarmd.domain.ids import ModelId
from swarmd.economy.wishlist import ENTRIES, target, wishlist
from tests.fakes.rim import OWN, PEER, model_view


@pytest.mark.parametrize(
    ("nodes", "demand", "wanted"),
    [(1, 0, 1), (1, 999, 1), (3, 0, 2), (3, 11, 3), (3, 51, 3), (20, 0, 5), (20, 11, 8), (20, 51, 10)],
)  # fmt: skip
def test_targets_of_the_lighter_formula(nodes: int, demand: int, wanted: int) -> None:
    assert target(nodes=nodes, demand=demand) == wanted


def test_statuses_scores_and_reasons() -> None:
    models = [
        model_view(ModelId("here"), (OWN, PEER), (OWN, PEER)),
        model_view(ModelId("there"), (PEER,), (PEER,)),
        model_view(ModelId("half"), (PEER,), ()),
        model_view(ModelId("gone"), (), ()),
        model_view(ModelId("unwanted"), (PEER,)),
    ]
    found = wishlist(models, nodes=3, demand={ModelId("half"): 50}, blocked={ModelId("unwanted")}, now=7.0)
    rows = {wish.model_id: wish for wish in found.entries}
    assert {name: wish.status for name, wish in rows.items()} == {
        "here": "hosting", "there": "serveable", "half": "aspirational", "gone": "unreachable", "unwanted": "blocked",
    }  # fmt: skip
    assert [wish.model_id for wish in found.entries][:2] == ["half", "gone"]
    assert rows["half"].why_tags == ("under_replicated", "in_demand", "incomplete")
    assert rows["here"].why_tags == ("enough_copies", "hosted_here") and rows["gone"].why_tags[-1] == "no_holder"
    assert (rows["there"].swarm_replicas, rows["there"].target_replicas, rows["there"].vram_required_mb) == (1, 2, 12)
    assert rows["unwanted"].score == 0 and all(0 <= wish.score <= 100 for wish in found.entries)


def test_the_list_is_bounded() -> None:
    models = [model_view(ModelId(f"m{number}"), (PEER,)) for number in range(ENTRIES + 20)]
    assert len(wishlist(models, nodes=2, demand={}, blocked=(), now=0.0).entries) == ENTRIES
