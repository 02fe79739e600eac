"""The node's own migrations: no gaps, and a fresh file opens."""

from __future__ import annotations

from pathlib import Path

from swarmd.identity import revocations
from swarmd.identity.keys import NetworkKey, NodeKey
from swarmd.store import network as sql
from swarmd.store.database import MIGRATIONS, Database
from swarmd.store.network import MembershipRow


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


async def test_what_version_4_kept_is_there_afterwards(tmp_path: Path) -> None:
    """Version 5 builds the tables of membership and revocations anew."""
    old = tmp_path / "old"
    old.mkdir()
    for path in sorted(MIGRATIONS.glob("*.sql"))[:4]:
        (old / path.name).write_text(path.read_text())
    key, node = NetworkKey(bytes([9]) * 32), NodeKey(bytes([1]) * 32).node
    record = revocations.revoke(key, node, now=1_800_000_000.0)
    async with await Database.open(tmp_path / "node.db", old) as database, database.transaction() as tx:
        await tx.execute("INSERT INTO membership VALUES (1, ?, ?, 1, 5.5)", (key.network, b"certificate"))
        await tx.execute("INSERT INTO invites VALUES (?, ?, 1.0, 2.0, 3, 0)", (b"t" * 16, b"p" * 32))
        await tx.execute(
            "INSERT INTO revocations VALUES (?, ?, ?)", (node, record.revoked_at, revocations.encode(record))
        )
    async with await Database.open(tmp_path / "node.db") as database:
        row = await sql.read_membership(database)
        assert row == MembershipRow(network=key.network, certificate=b"certificate", founded=True, joined_at=5.5)
        (invite,) = await sql.read_invites(database)
        assert (invite.tag, invite.uses_left, invite.role) == (b"t" * 16, 3, "member")
        assert await sql.read_revocations(database) == (revocations.encode(record),)
        async with database.transaction() as tx:
            await sql.remove_revocation(tx, node=node, issuer=key.network)  # it was given its issuer
        assert await sql.read_revocations(database) == ()
