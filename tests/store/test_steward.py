"""Tables of the autopilot: what is written is read again, and the history has an end."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from swarmd.domain.autopilot import ModelPolicy, PruneRecord, Schedule
from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.models import TrustLevel
from swarmd.store import steward as sql
from swarmd.store.database import Database

M, N = ModelId("m"), ModelId("n")
RECORD = PruneRecord(
    model=M, name="M", shard=3, reason="4 copies are there", freed_bytes=5, remaining_local_shards=1, holder_count_before=4,
    holder_count_after=3, at=1.5,
)  # fmt: skip


async def test_trust_of_models() -> None:
    row = sql.ModelTrustRow(
        model=M, level=TrustLevel.NETWORK_POPULAR, first_seen=1.0, total_requests=9, counted_requests=2,
        last_request_at=None, stepped_at=2.5,
    )  # fmt: skip
    async with await Database.open(None) as db:
        async with db.transaction() as tx:
            await sql.write_model_trust(tx, (row, replace(row, model=N)))
            await sql.write_model_trust(tx, (replace(row, last_request_at=7.5),))
        assert await sql.read_model_trust(db) == (replace(row, last_request_at=7.5), replace(row, model=N))
        async with db.transaction() as tx:
            await sql.forget_model_trust(tx, M)
        assert [one.model for one in await sql.read_model_trust(db)] == [N]
        with pytest.raises(sqlite3.IntegrityError):
            async with db.transaction() as tx:  # the pin has its own home
                await sql.write_model_trust(tx, (replace(row, level=TrustLevel.PINNED),))


async def test_policies_locks_and_what_was_fetched() -> None:
    async with await Database.open(None) as db:
        async with db.transaction() as tx:
            await sql.write_policy(tx, M, ModelPolicy(enabled=False, max_shards=3, prune_enabled=True))
            await sql.write_policy(tx, M, ModelPolicy(enabled=True, max_shards=4, prune_enabled=False))
            for _ in range(2):
                await sql.write_lock(tx, ShardRef(M, 0), locked=True)
            await sql.write_lock(tx, ShardRef(N, 1), locked=True)
            await sql.write_lock(tx, ShardRef(N, 2), locked=False)
            await sql.write_fetched(tx, [ShardRef(M, 0), ShardRef(M, 1), ShardRef(N, 0)], at=5.0)
            await sql.forget_fetched(tx, [ShardRef(M, 1)])
        assert await sql.read_policies(db) == {M: ModelPolicy(enabled=True, max_shards=4, prune_enabled=False)}
        assert await sql.read_locks(db) == {ShardRef(M, 0), ShardRef(N, 1)}
        assert await sql.read_fetched(db) == {ShardRef(M, 0): 5.0, ShardRef(N, 0): 5.0}
        async with db.transaction() as tx:
            await sql.forget_model(tx, M)
        assert await sql.read_locks(db) == {ShardRef(N, 1)} and await sql.read_fetched(db) == {ShardRef(N, 0): 5.0}
        assert M in await sql.read_policies(db)


async def test_history() -> None:
    async with await Database.open(None) as db:
        async with db.transaction() as tx:
            first, second = await sql.begin_prune(tx, RECORD), await sql.begin_prune(tx, replace(RECORD, shard=4))
        assert await sql.read_history(db, limit=9) == ((), 0)
        assert await sql.read_open_prunes(db) == {first: ShardRef(M, 3), second: ShardRef(M, 4)}
        async with db.transaction() as tx:
            await sql.finish_prune(tx, first)
            await sql.abandon_prune(tx, second)
        assert await sql.read_history(db, limit=9) == ((RECORD,), 1) and await sql.read_open_prunes(db) == {}


async def test_the_history_has_an_end() -> None:
    async with await Database.open(None) as db:
        async with db.transaction() as tx:
            numbers = [await sql.begin_prune(tx, replace(RECORD, shard=n)) for n in range(sql.HISTORY_KEPT + 5)]
            await tx.execute("UPDATE prune_history SET done = 1 WHERE id < ?", (numbers[-1],))
            await sql.finish_prune(tx, numbers[-1])
        records, total = await sql.read_history(db, limit=2)
        assert total == sql.HISTORY_KEPT and [one.shard for one in records] == [sql.HISTORY_KEPT + 4, sql.HISTORY_KEPT + 3]


async def test_schedule() -> None:
    async with await Database.open(None) as db:
        assert await sql.read_schedule(db) == Schedule()
        changed = Schedule(
            enabled=True, reduced_hours_start=0, reduced_hours_end=23, reduced_contribution="moderate",
            prune_aggressiveness="aggressive",
        )  # fmt: skip
        for schedule in (changed, replace(changed, enabled=False)):
            async with db.transaction() as tx:
                await sql.write_schedule(tx, schedule)
            assert await sql.read_schedule(db) == schedule
