"""What was to be fetched, across restarts."""

from __future__ import annotations

from swarmd.domain.ids import ModelId
from swarmd.store.content import AcquisitionRow, forget_acquisition, read_acquisitions, write_acquisition
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
