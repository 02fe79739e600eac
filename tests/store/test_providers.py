"""Rows of providers."""

from __future__ import annotations

import pytest

from swarmd.store.database import Database
from swarmd.store.providers import (
    ChoicesRow,
    ProviderRow,
    delete_provider,
    read_choices,
    read_providers,
    write_choices,
    write_provider,
)


async def test_rows_come_back_and_are_replaced() -> None:
    one = ProviderRow(name="openai", base_url=None, sealed_key=b"sealed")
    two = ProviderRow(name="mine", base_url="http://10.0.0.1", sealed_key=None)
    async with await Database.open(None) as db:
        assert await read_choices(db) is None
        async with db.transaction() as tx:
            await write_provider(tx, ProviderRow(name="openai", base_url=None, sealed_key=b"old"))
            await write_provider(tx, one)
            await write_provider(tx, two)
            for choices in (ChoicesRow(key_source="env", claude_subscription=False),
                            ChoicesRow(key_source="auto", claude_subscription=True)):  # fmt: skip
                await write_choices(tx, choices)
        assert await read_providers(db) == (two, one)
        assert await read_choices(db) == ChoicesRow(key_source="auto", claude_subscription=True)
        async with db.transaction() as tx:
            await delete_provider(tx, "mine")
        assert await read_providers(db) == (one,)


async def test_a_row_of_nothing_is_refused() -> None:
    async with await Database.open(None) as db:
        with pytest.raises(Exception, match="CHECK"):
            async with db.transaction() as tx:
                await write_provider(tx, ProviderRow(name="openai", base_url=None, sealed_key=None))
