"""What people chose for generations, in real SQL."""

from __future__ import annotations

from swarmd.domain.ids import ModelId
from swarmd.store.inference import read_encrypted_pipelines, write_encrypted_pipeline
from tests.fakes.inline_sqlite import inline_database


async def test_a_choice_is_read_as_it_was_written_last() -> None:
    async with inline_database() as db:
        assert await read_encrypted_pipelines(db) == {}
        async with db.transaction() as tx:
            await write_encrypted_pipeline(tx, ModelId("a"), enabled=True)
            await write_encrypted_pipeline(tx, ModelId("b"), enabled=True)
            await write_encrypted_pipeline(tx, ModelId("a"), enabled=False)
        assert await read_encrypted_pipelines(db) == {ModelId("a"): False, ModelId("b"): True}
