"""SQL of trust."""

from __future__ import annotations

from swarmd.domain.ids import NodeId
from swarmd.store.database import Database
from swarmd.store.trust import TrustRow, read_trust, write_trust


async def test_what_is_written_replaces_what_was_there() -> None:
    rows = tuple(TrustRow(node=NodeId(digit * 64), score=0.25, judged_at=1.5) for digit in "ab")
    async with await Database.open(None) as db:
        for kept in (rows, rows[1:], ()):
            async with db.transaction() as tx:
                await write_trust(tx, kept)
            assert await read_trust(db) == kept
