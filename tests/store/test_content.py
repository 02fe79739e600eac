"""What was to be fetched, across restarts."""

from __future__ import annotations

from swarmd.domain.ids import ModelId, ShardRef
from swarmd.store.content import (
    AcquisitionRow,
    forget_acquisition,
    forget_cancelled,
    forget_cancelled_before,
    read_acquisitions,
    read_cancelled,
    write_acquisition,
    write_cancelled,
)
from swarmd.store.database import Database


async def test_rows_are_replaced_read_in_order_and_forgotten() -> None:
    late = AcquisitionRow(model=ModelId("a"), trigger="user", started_at=2.0, shards=())
    early = AcquisitionRow(model=ModelId("b"), trigger="auto_manage", started_at=1.0, shards=(0, 3))
    async with await Database.open(None) as db:
        for row in (late, early, AcquisitionRow(model=ModelId("a"), trigger="user", started_at=2.0, shards=(7,))):
            async with db.transaction() as tx:
                await write_acquisition(tx, row)
        assert [(row.model, row.shards) for row in await read_acquisitions(db)] == [("b", (0, 3)), ("a", (7,))]
        async with db.transaction() as tx:
            await forget_acquisition(tx, ModelId("b"))
            await forget_acquisition(tx, ModelId("absent"))
        assert [row.model for row in await read_acquisitions(db)] == ["a"]
        assert await db.fetch_all("SELECT * FROM acquisition_shards WHERE model = 'b'") == []


async def test_what_was_cancelled_is_forgotten_one_by_one_by_model_or_by_age() -> None:
    a, b = ModelId("a"), ModelId("b")
    async with await Database.open(None) as db:
        async with db.transaction() as tx:
            await write_cancelled(tx, [ShardRef(a, 1), ShardRef(a, 0), ShardRef(a, 2)], at=1.0)
            await write_cancelled(tx, [ShardRef(b, 0), ShardRef(a, 1)], at=2.0)
        assert await read_cancelled(db) == {
            ShardRef(a, 0): 1.0, ShardRef(a, 2): 1.0, ShardRef(a, 1): 2.0, ShardRef(b, 0): 2.0,
        }  # fmt: skip
        async with db.transaction() as tx:
            await forget_cancelled(tx, a, (1, 7))
            await forget_cancelled(tx, b)
        assert list(await read_cancelled(db)) == [ShardRef(a, 0), ShardRef(a, 2)], "the oldest first"
        async with db.transaction() as tx:
            await write_cancelled(tx, [ShardRef(a, 0)], at=5.0)
            await forget_cancelled_before(tx, 5.0)
        assert await read_cancelled(db) == {ShardRef(a, 0): 5.0}
