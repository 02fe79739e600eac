"""The node's own migrations: no gaps, and a fresh file opens."""

from __future__ import annotations

from pathlib import Path

from swarmd.store.database import MIGRATIONS, Database


async def test_a_fresh_database_opens_at_the_newest_version(tmp_path: Path) -> None:
    files = sorted(path.name for path in MIGRATIONS.glob("*.sql"))
    assert [name[:4] for name in files] == [f"{number:04}" for number in range(1, len(files) + 1)]
    async with await Database.open(tmp_path / "node.db") as database:
        assert await database.schema_version() == len(files)
        row = await database.fetch_one("PRAGMA integrity_check")
        assert row is not None and row[0] == "ok"
    async with await Database.open(tmp_path / "node.db") as database:
        assert await database.schema_version() == len(files)


async def test_every_table_is_strict(tmp_path: Path) -> None:
    """Without STRICT sqlite stores a text in an INTEGER column, and the mistake shows up far away."""
    async with await Database.open(None) as database:
        rows = await database.fetch_all("SELECT name FROM pragma_table_list WHERE NOT strict AND name NOT LIKE 'sqlite%'")
    assert [row["name"] for row in rows] == []
