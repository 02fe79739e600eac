"""From facts to credits."""

from __future__ import annotations

from swarmd.domain.credits import Account, CreditKind
from swarmd.domain.events import (
    CircuitRelayed,
    Fact,
    GenerationFinished,
    GenerationStarted,
    ServeFailed,
    ShardsSeeded,
    ShardStored,
    StageServed,
    StageUsed,
)
from swarmd.domain.ids import ModelId, NodeId, RequestId, ShardRef
from swarmd.economy import books as books_module
from swarmd.economy.books import EXPIRY_S, Books
from swarmd.economy.rates import MICRO

OWN, A, B = (NodeId(digit * 64) for digit in "0ab")
M, R = ModelId("m"), RequestId("r")
GIGABYTE = 1_000_000_000


def books() -> Books:
    return Books(own=OWN, account=Account(), carry={}, reservations={}, peers={})


def heard(*facts: Fact, now: float = 1000.0) -> Books:
    found = books()
    for fact in facts:
        found.hear(fact, now=now)
    assert found.account.balanced
    return found


def started(tokens: int, *nodes: NodeId, request: RequestId = R) -> GenerationStarted:
    return GenerationStarted(request=request, model=M, nodes=nodes, tokens=tokens)


def finished(request: RequestId = R) -> GenerationFinished:
    return GenerationFinished(request=request, model=M, completion_tokens=1, duration_ms=1.0, outcome="stop")


def used(tokens: int, node: NodeId = A, request: RequestId = R) -> StageUsed:
    return StageUsed(request=request, model=M, node=node, tokens=tokens)


def numbers(found: Books) -> tuple[int, int, int, int]:
    account = found.account
    return account.earned, account.spent, account.refunded, account.balance


def test_what_is_done_for_others_is_earned() -> None:
    assert numbers(heard(StageServed(model=M, head=A, tokens=7))) == (70, 0, 0, 70)
    assert numbers(heard(ShardsSeeded(node=A, size_bytes=GIGABYTE))) == (5, 0, 0, 5)
    assert numbers(heard(CircuitRelayed(opener=A, node=B, seconds=3600.0, size_bytes=1))) == (2, 0, 0, 2)
    hosting = books()
    hosting.host(GIGABYTE * 3600, now=0.0)
    assert numbers(hosting) == (1, 0, 0, 1)


def test_a_stage_that_broke_here_costs() -> None:
    assert numbers(heard(ServeFailed(model=M, head=A, reason="crashed"))) == (0, 50, 0, -50)


def test_parts_of_a_credit_are_kept_until_they_make_one() -> None:
    part = ShardsSeeded(node=A, size_bytes=GIGABYTE // 10)  # half a credit
    assert numbers(heard(part)) == (0, 0, 0, 0)
    assert numbers(heard(part, part, part)) == (1, 0, 0, 1)
    entry = next(iter(heard(part, part, part).changes.entries.values()))
    assert (entry.amount, entry.quantity, entry.events) == (1, 3 * GIGABYTE // 10, 3)


def test_a_request_reserves_for_others_and_gets_back_what_it_did_not_use() -> None:
    begun = heard(started(100, OWN, A, B))
    assert numbers(begun) == (0, 2000, 0, -2000)
    assert (begun.account.held, begun.account.pending) == (2000, 1)
    over = heard(started(100, OWN, A, B), used(40, A), used(40, B), finished())
    assert numbers(over) == (0, 2000, 1200, -800)
    assert (over.account.held, over.account.pending) == (0, 0)


def test_a_request_that_took_more_than_it_reserved_pays_the_rest() -> None:
    """A stage was lost, and the whole of it was computed again."""
    assert numbers(heard(started(10, A), used(9, A), used(12, B), finished())) == (0, 210, 0, -210)


def test_a_request_of_this_node_alone_costs_nothing() -> None:
    alone = heard(started(100, OWN), finished())
    assert numbers(alone) == (0, 0, 0, 0) and not alone.changes.entries


def test_what_a_lost_request_reserved_comes_back_and_a_long_one_pays_at_its_end() -> None:
    found = heard(started(100, A))
    found.expire(now=1000.0 + EXPIRY_S - 1)
    assert found.account.held == 1000
    found.expire(now=1000.0 + EXPIRY_S)
    assert numbers(found) == (0, 1000, 1000, 0) and found.account.pending == 0
    for fact in (used(30), finished(), finished()):
        found.hear(fact, now=1000.0 + EXPIRY_S)
    assert numbers(found) == (0, 1300, 1000, -300)


def test_a_clock_that_is_set_back_keeps_nothing_aside_for_years() -> None:
    found = heard(started(100, A), now=2e9)
    found.expire(now=1e9)
    assert found.account.held == 0


def test_one_request_reserves_once() -> None:
    assert numbers(heard(started(10, A), started(10, A))) == (0, 100, 0, -100)


def test_peers_have_what_they_gave_and_took() -> None:
    found = heard(
        StageServed(model=M, head=A, tokens=3), used(5, A), ShardsSeeded(node=B, size_bytes=GIGABYTE),
        ShardStored(shard=ShardRef(M, 0), size_bytes=2 * GIGABYTE, source=B),
        ShardStored(shard=ShardRef(M, 1), size_bytes=GIGABYTE, source=None),
    )  # fmt: skip
    rows = {row.node: (row.given // MICRO, row.taken // MICRO) for row in found.peers()}
    assert rows == {A: (50, 30), B: (10, 5)}


def test_books_on_peers_are_bounded_and_the_oldest_goes(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(books_module, "PEERS_KEPT", 2)
    found = books()
    for now, node in enumerate((A, B, OWN)):
        found.hear(StageServed(model=M, head=node, tokens=1), now=float(now))
    assert {row.node for row in found.peers()} == {B, OWN}
    assert found.changes.gone == {A}


def test_entries_are_one_an_hour_for_each_reason_peer_and_model() -> None:
    found = books()
    for now in (0.0, 1.0, 3601.0):
        found.hear(StageServed(model=M, head=A, tokens=2), now=now)
    assert [(key[0], one.amount, one.events) for key, one in found.changes.entries.items()] == [(0, 40, 2), (3600, 20, 1)]
    assert {key[1] for key in found.changes.entries} == {CreditKind.SERVED}
