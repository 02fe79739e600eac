"""Who takes which part of a shared model, and for how long the others leave it alone."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.autopilot import Gate
from swarmd.domain.ids import NodeId
from swarmd.domain.models import TrustLevel
from swarmd.economy.acquiring import propose
from swarmd.economy.copies import GRACE_S, survey
from swarmd.economy.sharing import FAIR_S, due, owed, own_gaps, own_share, parts_of
from swarmd.economy.stock import ModelStock, NodeStock, Snapshot
from swarmd.models.slicing import fair_share
from tests.economy.stocks import OWN, M, model, peer, snapshot

IDS = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=5, unique=True).map(
    lambda found: [NodeId(raw.hex()) for raw in found]
)


def shared(*held: int, count: int = 5, **rest) -> ModelStock:
    given = {"trust": TrustLevel.DISCOVERED, "requests": 0, "has_source": True, **rest}
    return model(*held, count=count, shared=True, **given)


def seen_by(own: NodeId, holdings: dict[NodeId, set[int]], count: int, **rest) -> Snapshot:
    others = (
        NodeStock(node=node, held={M: frozenset(held)} if held else {}) for node, held in holdings.items() if node != own
    )
    return snapshot(*others, models=(shared(*holdings[own], count=count, **rest),), own=own)


@given(IDS, st.integers(1, 24))
def test_a_requester_of_its_fair_share_does_not_end_with_the_whole_model(nodes: list[NodeId], count: int) -> None:
    """Seen: it took its two of five, and seconds later the other three, in the same moment as the others took theirs."""
    parts = parts_of(M, count, nodes)
    assert sorted(set().union(*(one.share | one.gaps for one in parts.values()))) == list(range(count))
    holdings: dict[NodeId, set[int]] = {node: set() for node in nodes}
    holdings[nodes[0]].update(fair_share(nodes[0], M, count, len(nodes) - 1))
    for _ in range(count):  # everybody looks in the same moment, some shards arrive, and again
        taken: dict[NodeId, set[int]] = {}
        for node in nodes:
            seen = seen_by(node, holdings, count)
            taken[node] = {one.shard.index for one in propose(seen, survey(seen))[0]}
        for node, indices in taken.items():
            holdings[node] |= indices
    assert holdings == {node: parts[node].share | parts[node].gaps for node in nodes}


@given(IDS, st.integers(1, 40))
def test_what_is_in_no_share_falls_to_one_node_each_and_to_all_alike(nodes: list[NodeId], count: int) -> None:
    parts = parts_of(M, count, nodes)
    assert parts == parts_of(M, count, list(reversed(nodes)))
    gaps = [index for one in parts.values() for index in sorted(one.gaps)]
    assert len(gaps) == len(set(gaps)) and not set(gaps) & set().union(*(one.share for one in parts.values()))
    most = -(-len(gaps) // len(nodes))
    assert all(len(one.gaps) <= most for one in parts.values())


def test_a_gap_falls_to_the_nearest_share() -> None:
    nodes = [NodeId(f"{number:064x}") for number in range(3)]
    for count in range(3, 60):
        parts = parts_of(M, count, nodes)
        gaps = {index: node for node, one in parts.items() for index in one.gaps}
        if len(gaps) == 1:
            ((index, node),) = gaps.items()
            far = {other: min(abs(index - one) for one in part.share) for other, part in parts.items()}
            assert far[node] == min(far.values())
            return
    raise AssertionError("no such model")


def test_what_others_owe_is_left_to_them_for_a_fair_time_and_then_taken_by_one() -> None:
    nodes = [OWN, *(NodeId(f"{number:064x}") for number in (1, 2))]
    parts = parts_of(M, 5, nodes)
    mine = parts[OWN].share | parts[OWN].gaps
    holdings: dict[NodeId, set[int]] = {OWN: set(mine), nodes[1]: set(), nodes[2]: set()}
    for waited_s in (0.0, FAIR_S - 1):
        seen = seen_by(OWN, holdings, 5, waited_s=waited_s, owed_s={node: waited_s for node in nodes[1:]})
        assert set().union(*owed(seen, seen.models[0]).values()) == set(range(5)) - mine
        fetches, skipped = propose(seen, survey(seen))
        assert fetches == () and {one.gate for one in skipped} == {Gate.OTHERS_FIRST}
    assert "fair share" in skipped[0].why and "0 min" in skipped[0].why
    takers: list[set[int]] = []
    for own in nodes:  # the others have no autopilot, or no room: nobody has taken anything
        late = {node: FAIR_S + 1 for node in nodes if node != own}
        seen = seen_by(own, holdings, 5, waited_s=FAIR_S + 1, owed_s=late)
        part = parts[own].share | parts[own].gaps
        takers.append({one.shard.index for one in propose(seen, survey(seen))[0]} - part)
    assert sum(map(len, takers)) == len(set().union(*takers)), "whatever is overdue is taken by one and not by all at once"


def test_one_that_goes_on_fetching_is_not_overdue_and_partial_shards_count() -> None:
    nodes = [OWN, NodeId(f"{1:064x}")]
    parts = parts_of(M, 6, nodes)
    theirs = parts[nodes[1]].share - parts[OWN].share
    first = min(theirs)
    stock = shared(*parts[OWN].share, count=6, owed_s={nodes[1]: 30.0})
    seen = snapshot(peer(1, coming=(first,)), models=(stock,))
    assert first not in owed(seen, stock).get(nodes[1], frozenset())
    assert due(seen, stock) == dict.fromkeys(theirs - {first}, 30.0)


def test_alone_it_takes_everything() -> None:
    seen = snapshot(models=(shared(),))
    assert own_share(seen, seen.models[0]) == set(range(5)) and due(seen, seen.models[0]) == {}


def test_who_vanished_a_moment_ago_keeps_its_share() -> None:
    """Shares that grow with every restart would be fetched and dropped again."""
    here = snapshot(peer(1), peer(2), models=(shared(),))
    gone = snapshot(peer(1), peer(2, gone_s=GRACE_S - 1), models=(shared(),))
    long_gone = snapshot(peer(1), peer(2, gone_s=GRACE_S), models=(shared(),))
    one = here.models[0]
    assert own_share(here, one) == own_share(gone, one) != own_share(long_gone, one)
    assert NodeId(f"{2:064x}") not in owed(gone, one), "but nobody waits for it"


def test_a_gap_that_somebody_has_is_no_more_mine() -> None:
    nodes = [OWN, *(NodeId(f"{number:064x}") for number in range(1, 4))]
    for count in range(4, 60):
        gaps = parts_of(M, count, nodes)[OWN].gaps
        if gaps:
            break
    others = tuple(peer(number) for number in range(1, 4))
    stock = shared(count=count)
    assert own_gaps(snapshot(*others, models=(stock,)), stock) == gaps
    for having in (peer(1, *gaps), peer(1, coming=tuple(gaps)), peer(1, *gaps, gone_s=5.0)):
        assert own_gaps(snapshot(having, *others[1:], models=(stock,)), stock) == frozenset()
    unshared = replace(stock, shared=False)
    assert own_gaps(snapshot(*others, models=(unshared,)), unshared) == frozenset()
    assert own_share(snapshot(*others, models=(unshared,)), unshared) == frozenset()
