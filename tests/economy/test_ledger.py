"""Credits on the disk: written before they are shown, counted once, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.domain.credits import Tier
from swarmd.domain.events import (
    CircuitRelayed,
    Fact,
    GenerationFinished,
    GenerationStarted,
    PeerDisconnected,
    ServeFailed,
    ShardsSeeded,
    StageServed,
    StageUsed,
)
from swarmd.domain.ids import ModelId, NodeId, RequestId
from swarmd.economy.ledger import GATHER_S, HOSTING_S, Ledger
from swarmd.economy.rates import TOKEN_CREDITS
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World, seeded_world
from swarmd.store import credits as sql
from swarmd.store.database import Database, Transaction
from tests.fakes.inline_sqlite import inline_database

OWN, A, B = (NodeId(digit * 64) for digit in "0ab")
M = ModelId("m")


class Crash(Exception):
    """The power is gone."""


def ledger(db: Database, world: World, bus: EventBus | None = None, hosted: Callable[[], int] = lambda: 0) -> Ledger:
    return Ledger(own=OWN, db=db, bus=bus or EventBus(), clock=world.clock, hosted_bytes=hosted)


requests = st.integers(0, 3).map(lambda number: RequestId(f"r{number}"))
nodes = st.sampled_from((A, B))
tokens = st.integers(0, 500)
facts = st.one_of(
    st.builds(StageServed, model=st.just(M), head=nodes, tokens=tokens),
    st.builds(ServeFailed, model=st.just(M), head=nodes, reason=st.just("crashed")),
    st.builds(ShardsSeeded, node=nodes, size_bytes=st.integers(0, 3_000_000_000)),
    st.builds(
        CircuitRelayed, opener=nodes, node=nodes, seconds=st.floats(0, 9000, allow_nan=False), size_bytes=st.just(1)
    ),
    st.builds(
        GenerationStarted, request=requests, model=st.just(M),
        nodes=st.lists(st.sampled_from((OWN, A, B)), min_size=1, max_size=3).map(tuple), tokens=tokens,
    ),
    st.builds(StageUsed, request=requests, model=st.just(M), node=nodes, tokens=tokens),
    st.builds(
        GenerationFinished, request=requests, model=st.just(M), completion_tokens=st.just(1), duration_ms=st.just(1.0),
        outcome=st.sampled_from(("stop", "failed", "cancelled")),
    ),
)  # fmt: skip
steps = st.lists(
    st.tuples(
        st.lists(facts, max_size=6),
        st.sampled_from(("on", "on", "on", "restart", "crash", "stumble")),
        st.integers(0, 9),  # the statement at which the power goes
        st.sampled_from((0.0, 1.0, 400.0, 4000.0)),  # seconds that pass
    ),
    max_size=12,
)


Life = list[tuple[list[Fact], str, int, float]]


@given(steps)
@settings(max_examples=150)
def test_earned_less_spent_and_refunded_is_the_balance_after_any_life(life: Life) -> None:
    asyncio.run(_live(life))


async def _live(life: Life) -> None:
    world = seeded_world(1)
    async with inline_database() as db:
        books = ledger(db, world)
        await books.load()
        served = 0
        for batch, how, at, seconds in life:
            world.clock.shift(seconds)  # type: ignore[attr-defined]
            before = books.account()
            if how in ("crash", "stumble"):  # with the second the service goes on, as after an error of the disk
                with pytest.MonkeyPatch.context() as patch:
                    power_goes(patch, at)
                    with suppress(Crash):
                        await books.book(batch)
                        served += sum(fact.tokens for fact in batch if isinstance(fact, StageServed))
            else:
                await books.book(batch)
                served += sum(fact.tokens for fact in batch if isinstance(fact, StageServed))
            after = books.account()
            stored = await sql.read_account(db)
            assert after.balanced and stored.balanced
            # What is shown is on the disk, and what was not written is not shown.
            assert (after.earned, after.spent, after.refunded) == (stored.earned, stored.spent, stored.refunded)
            assert after.spent >= before.spent and after.earned >= before.earned and after.refunded >= before.refunded
            if how in ("restart", "crash"):
                books = ledger(db, world)
                await books.load()
                assert books.account().held == 0 and books.account().balanced
            entries, _ = await sql.read_entries(db, limit=1000)
            assert sum(entry.amount for entry in entries) == books.account().balance
            assert sum(entry.quantity for entry in entries if entry.kind.value == "served") == served, "each once"
            held = await sql.read_reservations(db)
            assert sum(row.amount for row in held) == books.account().held
        world.clock.shift(700.0)  # type: ignore[attr-defined]
        await books.book(())
        assert books.account().held == 0 and books.account().balanced, "nothing stays set aside"


def power_goes(patch: pytest.MonkeyPatch, at: int) -> None:
    """With the statement of this number, counted from 0."""
    left = at
    execute, many = Transaction.execute, Transaction.execute_many

    def counted(real: Any) -> Any:
        async def run(self: Transaction, *args: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Crash
            left -= 1
            return await real(self, *args)

        return run

    patch.setattr(Transaction, "execute", counted(execute))
    patch.setattr(Transaction, "execute_many", counted(many))


@asynccontextmanager
async def keeping(
    world: World, db: Database, bus: EventBus, hosted: Callable[[], int] = lambda: 0
) -> AsyncIterator[Ledger]:
    books = ledger(db, world, bus, hosted)
    await books.load()
    async with Supervisor("test", world=world) as supervisor:
        await supervisor.start(books)
        yield books


@pytest.mark.looptime
async def test_facts_of_a_second_are_booked_together_and_those_of_the_last_one_at_the_end(world: World) -> None:
    bus = EventBus()
    async with inline_database() as db:
        async with keeping(world, db, bus) as books:
            bus.publish(StageServed(model=M, head=A, tokens=1))
            await asyncio.sleep(GATHER_S / 2)
            bus.publish(StageServed(model=M, head=A, tokens=2))
            assert books.account().earned == 0, "nothing is shown before it is written"
            await asyncio.sleep(GATHER_S)
            assert books.account().earned == 3 * TOKEN_CREDITS
            bus.publish(StageServed(model=M, head=A, tokens=4))
        assert (await sql.read_account(db)).earned == 7 * TOKEN_CREDITS
        async with keeping(world, db, bus) as books:
            assert books.account().earned == 7 * TOKEN_CREDITS
            (entry,), total = await books.transactions(limit=10)
            assert (entry.amount, entry.events, total) == (70, 3, 1)


@pytest.mark.looptime
async def test_hosting_counts_what_was_there_and_stops_when_nobody_is_linked(world: World) -> None:
    bus, hosted = EventBus(), [36_000_000_000]  # 36 GB: a credit in 100 s
    async with inline_database() as db, keeping(world, db, bus, lambda: hosted[0]) as books:
        await asyncio.sleep(HOSTING_S + 1)
        assert books.account().earned == 3
        hosted[0] = 0
        bus.publish(PeerDisconnected(node=A, reason="gone"))
        await asyncio.sleep(GATHER_S * 2)
        assert books.account().earned == 3
        await asyncio.sleep(10 * HOSTING_S)
        assert books.account().earned == 3, "the rest of the second before it went is kept as a part of a credit"


@pytest.mark.looptime
async def test_a_dead_request_s_reservation_comes_back_at_the_next_start_and_while_it_runs(world: World) -> None:
    bus = EventBus()
    async with inline_database() as db:
        async with keeping(world, db, bus) as books:
            bus.publish(GenerationStarted(request=RequestId("r"), model=M, nodes=(A,), tokens=50))
            await asyncio.sleep(2 * GATHER_S)
            assert (books.account().held, books.account().balance) == (500, -500)
        async with keeping(world, db, bus) as books:
            assert (books.account().held, books.account().balance, books.account().refunded) == (0, 0, 500)
            bus.publish(GenerationStarted(request=RequestId("s"), model=M, nodes=(A,), tokens=50))
            await asyncio.sleep(700.0 + HOSTING_S)
            assert (books.account().held, books.account().balance) == (0, 0)


async def test_a_peer_s_tier_is_what_was_counted_here(world: World) -> None:
    async with await Database.open(None) as db:
        books = ledger(db, world)
        await books.load()
        others = [NodeId(f"{number:064x}") for number in range(1, 10)]
        await books.book([StageUsed(request=RequestId("r"), model=M, node=A, tokens=100)])
        await books.book([StageServed(model=M, head=node, tokens=1) for node in others])
        assert (books.peer_tier(A), books.weight(A)) == (Tier.PLATINUM, 8)
        assert (books.peer_tier(others[0]), books.weight(NodeId("f" * 64))) == (Tier.BRONZE, 1)
        assert next((row.node, row.balance) for row in books.peers()) == (A, 1000)
        again = ledger(db, world)
        await again.load()
        assert again.weight(A) == 8


async def test_entries_that_are_too_old_or_too_many_go_and_the_account_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "ENTRIES_KEPT", 3)
    async with await Database.open(None) as db:
        books = ledger(db, world)
        for _ in range(6):
            await books.book([StageServed(model=M, head=A, tokens=1)])
            world.clock.shift(3600.0)  # type: ignore[attr-defined]
        rows, total = await books.transactions(limit=2)
        assert (len(rows), total) == (2, 3) and rows[0].id > rows[1].id
        assert [row.id for row in (await books.transactions(limit=9, before=rows[1].id))[0]] == [rows[1].id - 1]
        world.clock.shift(200 * 86_400.0)  # type: ignore[attr-defined]
        await books.book([StageServed(model=M, head=A, tokens=1)])
        assert (await books.transactions(limit=9))[1] == 1
        assert books.account().earned == 70
