"""Counting copies."""

from __future__ import annotations

import pytest

from swarmd.economy.copies import GRACE_S, URGENT_GRACE_S, missing_of, model_holders, pool_of, survey
from tests.economy.stocks import OWN, M, model, peer, snapshot


def test_holders_are_distinct_nodes_and_what_comes_counts() -> None:
    found = survey(
        snapshot(
            peer(1, 0, 1), peer(2, 0, connected=False), peer(3, coming=(0, 1)), peer(4), peer(5),
            models=(model(1, 2, coming=frozenset({3})),),
        )
    )  # fmt: skip
    zero, one, two, three = found.copies[M]
    assert len(zero.holders) == 2 and len(zero.coming) == 1 and zero.linked == 1
    assert OWN in one.holders and len(one.holders) == 2
    assert two.holders == (OWN,) and three.coming == (OWN,) and three.holders == ()
    assert found.pool == 6 and zero.target == 3  # floor min(ceil(log2 6), 6 // 3) = 2, times 1.5
    assert [shard.missing for shard in found.copies[M]] == [0, 0, 2, 2]
    assert missing_of(found.copies[M]) == 4 and model_holders(found.copies[M]) == 3


@pytest.mark.parametrize(
    ("gone_s", "held_here", "requests", "spared"),
    [
        (GRACE_S - 1, (0,), 0, 1), (GRACE_S, (0,), 0, 0),  # one copy left of what nobody asks for can wait
        (URGENT_GRACE_S - 1, (0,), 5, 1), (URGENT_GRACE_S, (0,), 5, 0),
    ],
)  # fmt: skip
def test_who_vanished_counts_for_a_while(gone_s: float, held_here: tuple[int, ...], requests: int, spared: int) -> None:
    seen = snapshot(peer(1, 0, gone_s=gone_s), peer(2), models=(model(*held_here, requests=requests),))
    assert survey(seen).copies[M][0].spared == spared
    assert survey(seen).copies[M][0].holders == (OWN,)
    assert pool_of(seen) == (3 if gone_s < GRACE_S else 2)


def test_a_longer_grace_where_two_are_left() -> None:
    seen = snapshot(peer(1, 0, gone_s=URGENT_GRACE_S + 1), peer(2, 0), models=(model(0),))
    assert survey(seen).copies[M][0].spared == 1


def test_shards_that_do_not_exist_are_nobodys() -> None:
    found = survey(snapshot(peer(1, 0, 99), peer(2, coming=(77,)), models=(model(count=1),)))
    assert len(found.copies[M]) == 1 and len(found.copies[M][0].holders) == 1
