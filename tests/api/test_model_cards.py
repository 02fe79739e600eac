"""Who can serve a model, as its card says it; what clients see of it is in test_openai and test_messages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarmd.api.messages_shapes import ModelPage
from swarmd.api.model_cards import NODES_SHOWN, card_of, info, page_of
from swarmd.api.openai_shapes import CardSwarm, ModelCard
from swarmd.domain.ids import NodeId, short
from swarmd.domain.refusals import Invalid
from tests.fakes.rim import OWN, PEER, TINY, manifest, model_view

MANIFEST = manifest(TINY, layers=4)


def swarm_of(*holders: tuple[NodeId, ...], loaded: tuple[int, ...] = ()) -> CardSwarm:
    found = card_of(TINY, model_view(TINY, *holders, loaded=loaded), MANIFEST, context_tokens=2048).swarm
    assert isinstance(found, CardSwarm)
    return found


@pytest.mark.parametrize(
    ("holders", "source", "copies", "count", "whole"),
    [
        (((OWN,), (OWN,)), "local", 1, 1, 1),
        (((OWN, PEER), (OWN, PEER)), "local", 2, 2, 2),
        (((OWN,), (PEER,)), "hybrid", 1, 2, 0),
        (((OWN, PEER), (PEER,)), "hybrid", 1, 2, 1),
        (((PEER,), (PEER,)), "network", 1, 1, 1),
    ],
)
def test_how_it_is_served(holders: tuple[tuple[NodeId, ...], ...], source: str, copies: int, count: int, whole: int) -> None:
    found = swarm_of(*holders)
    assert (found.source, found.copies, found.holders, found.whole) == (source, copies, count, whole)
    assert found.shards == 2 and not found.loaded


def test_who_has_most_is_named_first_and_not_everybody_is() -> None:
    crowd = tuple(NodeId(f"{number:064x}") for number in range(40))
    found = swarm_of(crowd, (PEER, *crowd[:1]), (PEER, *crowd[:1]), loaded=(0,))
    assert [(one.node, one.shards) for one in found.nodes[:2]] == [(short(crowd[0]), 3), (short(PEER), 2)]
    assert len(found.nodes) == NODES_SHOWN and found.holders == 41 and found.whole == 1 and found.loaded


def test_the_context_is_what_both_the_model_and_the_node_take() -> None:
    view = model_view(TINY, (OWN,))
    assert card_of(TINY, view, MANIFEST, context_tokens=2048).context_length == 2048
    assert card_of(TINY, view, MANIFEST, context_tokens=1 << 20).context_length == 4096
    assert info(card_of(TINY, view, MANIFEST, context_tokens=2048)).max_tokens == 2048


def test_a_publisher_with_a_wild_clock_breaks_no_list() -> None:
    view = model_view(TINY, (OWN,))
    for created, shown in ((1 << 40, "9999-12-31T23:59:59Z"), (-5, "1970-01-01T00:00:00Z")):
        assert info(card_of(TINY, view, replace(MANIFEST, created_at=created), context_tokens=1)).created_at == shown


MODELS = [
    info(ModelCard(id=name, object="model", created=0, owned_by="local", max_model_len=1, context_length=1))
    for name in "abcde"
]


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ({}, "abcde", False), ({"limit": "2"}, "ab", True), ({"limit": "2", "after_id": "c"}, "de", False),
        ({"limit": "1", "after_id": "c"}, "d", True), ({"after_id": "e"}, "", False),
        ({"limit": "2", "before_id": "d"}, "bc", True), ({"before_id": "b"}, "a", False), ({"before_id": "a"}, "", False),
    ],
)  # fmt: skip
def test_pages(query: dict[str, str], ids: str, more: bool) -> None:
    found = page_of(MODELS, query)
    assert isinstance(found, ModelPage)
    assert "".join(model.id for model in found.data) == ids and found.has_more == more
    assert (found.first_id, found.last_id) == ((ids[0], ids[-1]) if ids else (None, None))


@pytest.mark.parametrize(
    ("query", "param"),
    [({"limit": text}, "limit") for text in ("", "0", "-1", "1001", "x", "²", "9" * 5000)]
    + [({"after_id": "z"}, "after_id"), ({"before_id": ""}, "before_id")],
)
def test_bad_pages(query: dict[str, str], param: str) -> None:
    found = page_of(MODELS, query)
    assert isinstance(found, Invalid) and found.param == param
