"""All or nothing, in order, through cancellation and SIGKILL."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from swarmd.store.database import BadMigration, Database, DatabaseUnusable, SchemaTooNew, split_statements

ONE = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;\n"
TWO = "CREATE TABLE tags (note INTEGER NOT NULL REFERENCES notes(id), tag TEXT NOT NULL) STRICT;\n"


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_notes.sql").write_text(ONE)
    (folder / "0002_tags.sql").write_text(TWO)
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.db"


async def texts(database: Database) -> list[str]:
    return [row["text"] for row in await database.fetch_all("SELECT text FROM notes ORDER BY id")]


async def test_a_fresh_file_is_private_and_up_to_date(path: Path, migrations: Path) -> None:
    async with await Database.open(path, migrations) as database:
        assert await database.schema_version() == 2
        assert (await database.fetch_one("PRAGMA journal_mode"))[0] == "wal"
        assert (await database.fetch_one("PRAGMA synchronous"))[0] == 2
        assert (await database.fetch_one("PRAGMA foreign_keys"))[0] == 1
        async with database.transaction() as tx:
            await tx.execute("INSERT INTO notes (text) VALUES ('a')")
        for file in path.parent.glob("node.db*"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    await database.close()


async def test_what_was_committed_is_there_after_reopening(path: Path, migrations: Path) -> None:
    async with await Database.open(path, migrations) as database, database.transaction() as tx:
        first = await tx.insert("INSERT INTO notes (text) VALUES (?)", ("a",))
        assert await tx.insert("INSERT INTO notes (text) VALUES (?)", ("b",)) == first + 1
        await tx.execute_many("INSERT INTO notes (text) VALUES (?)", [("c",), ("d",)])
        assert await tx.execute("UPDATE notes SET text = upper(text) WHERE id > ?", (first,)) == 3
        row = await tx.fetch_one("SELECT text FROM notes WHERE id = ?", (first,))
        assert row is not None and row["text"] == "a"
        assert await tx.fetch_one("SELECT text FROM notes WHERE id = 99") is None
    async with await Database.open(path, migrations) as database:
        assert await texts(database) == ["a", "B", "C", "D"]


async def test_an_error_rolls_back_and_the_transaction_is_dead_afterwards(migrations: Path) -> None:
    async with await Database.open(None, migrations) as database:
        with pytest.raises(ValueError, match="no"):
            async with database.transaction() as tx:
                await tx.execute("INSERT INTO notes (text) VALUES ('a')")
                raise ValueError("no")
        assert await texts(database) == []
        with pytest.raises(AssertionError, match="has ended"):
            await tx.execute("INSERT INTO notes (text) VALUES ('b')")
        with pytest.raises(sqlite3.IntegrityError):
            async with database.transaction() as tx:
                await tx.execute("INSERT INTO notes (text) VALUES ('a')")
                await tx.execute("INSERT INTO tags (note, tag) VALUES (77, 'x')")
        assert await texts(database) == []


async def test_a_cancellation_rolls_back_and_lets_the_next_one_in(migrations: Path) -> None:
    async with await Database.open(None, migrations) as database:
        inside = asyncio.Event()

        async def long() -> None:
            async with database.transaction() as tx:
                await tx.execute("INSERT INTO notes (text) VALUES ('lost')")
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(long())
        await inside.wait()
        waiting = asyncio.create_task(texts(database))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await waiting == []
        async with database.transaction() as tx:
            await tx.execute("INSERT INTO notes (text) VALUES ('kept')")
        assert await texts(database) == ["kept"]


async def test_cancelled_at_any_moment_it_is_all_or_nothing(migrations: Path) -> None:
    async with await Database.open(None, migrations) as database:

        async def pair(number: int) -> None:
            async with database.transaction() as tx:
                await tx.execute("INSERT INTO notes (text) VALUES (?)", (f"{number}",))
                await tx.execute("INSERT INTO notes (text) VALUES (?)", (f"{number}",))

        for turns in range(40):
            task = asyncio.create_task(pair(turns))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        found = await texts(database)
        assert all(found.count(text) == 2 for text in found)
        await pair(99)
        assert (await texts(database))[-1] == "99"


async def test_reads_never_see_half_a_transaction_and_writers_take_turns(migrations: Path) -> None:
    async with await Database.open(None, migrations) as database:
        counts: list[int] = []

        async def write(number: int) -> None:
            async with database.transaction() as tx:
                await tx.execute("INSERT INTO notes (text) VALUES (?)", (f"{number}",))
                await asyncio.sleep(0)
                await tx.execute("INSERT INTO notes (text) VALUES (?)", (f"{number}",))

        async def read() -> None:
            counts.append(len(await texts(database)))

        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(write(number))
                group.create_task(read())
        assert all(count % 2 == 0 for count in counts)
        found = await texts(database)
        assert found[::2] == found[1::2] and len(found) == 20


async def test_waiting_for_oneself_is_a_bug_not_a_hang(migrations: Path) -> None:
    async with await Database.open(None, migrations) as database, database.transaction():
        with pytest.raises(AssertionError, match="wait for itself"):
            await database.fetch_all("SELECT 1")
        with pytest.raises(AssertionError, match="wait for itself"):
            async with database.transaction():
                pass


async def test_a_newer_file_is_refused_with_both_numbers(path: Path, migrations: Path) -> None:
    await (await Database.open(path, migrations)).close()
    (migrations / "0002_tags.sql").unlink()
    with pytest.raises(SchemaTooNew, match="schema version 2 and this program knows versions up to 1"):
        await Database.open(path, migrations)


@pytest.mark.parametrize(
    ("name", "sql", "words"),
    [
        ("0004_gap.sql", "SELECT 1;", "0004_gap.sql follows migration 0002"),
        ("0002_again.sql", "SELECT 1;", "follows migration"),
        ("3_short.sql", "SELECT 1;", "is not called NNNN_name.sql"),
        ("0003_open.sql", "SELECT 1", "does not end with a semicolon"),
        ("0003_own.sql", "-- why\nCOMMIT;", "contains COMMIT"),
        ("0003_own.sql", "PRAGMA user_version = 9;", "contains PRAGMA"),
        ("0003_wrong.sql", "CREATE TABLE more (x); CREATE TABLE notes (x);", "0003_wrong.sql failed: table notes already"),
        ("0003_loose.sql", "INSERT INTO tags VALUES (5, 'x');", "leaves rows that refer to nothing"),
    ],
)
async def test_bad_migrations_are_refused_and_leave_nothing(
    path: Path, migrations: Path, name: str, sql: str, words: str
) -> None:
    await (await Database.open(path, migrations)).close()
    (migrations / name).write_text(sql)
    with pytest.raises(BadMigration, match=words.replace("(", "\\(")):
        await Database.open(path, migrations)
    (migrations / name).unlink()
    async with await Database.open(path, migrations) as database:
        assert await database.schema_version() == 2
        assert [row["name"] for row in await database.fetch_all("SELECT name FROM sqlite_master ORDER BY name")] == [
            "notes",
            "tags",
        ]


def test_statements_are_split_where_sqlite_ends_them() -> None:
    trigger = "CREATE TRIGGER t AFTER INSERT ON notes BEGIN\n  DELETE FROM notes; -- all;\n  SELECT ';';\nEND;"
    assert split_statements(f"-- first; comment\n{ONE}\n{trigger}\n/* the ; end */\n") == [
        f"-- first; comment\n{ONE.strip()}",
        trigger,
    ]
    assert split_statements("-- nothing\n") == []


async def test_unusable_files_are_named(path: Path, migrations: Path) -> None:
    path.write_bytes(b"this is not a database, it is a text" * 100)
    with pytest.raises(DatabaseUnusable, match=r"node.db is not usable: file is not a database"):
        await Database.open(path, migrations)
    with pytest.raises(DatabaseUnusable, match="cannot be opened"):
        await Database.open(path.parent / "absent" / "node.db", migrations)


CHILD = """
import asyncio, pathlib, sys
from swarmd.store.database import Database

async def main():
    print("opening", flush=True)
    async with await Database.open(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])) as database:
        number = 0
        while True:
            async with database.transaction() as tx:
                await tx.execute("INSERT INTO notes (text) VALUES (?)", (str(number),))
                await tx.execute("INSERT INTO notes (text) VALUES (?)", (str(number),))
            print(number, flush=True)
            number += 1

asyncio.run(main())
"""


async def killed(path: Path, migrations: Path, *, lines: int, after_s: float) -> list[str]:
    """Run the child, SIGKILL it `after_s` after its line number `lines`; the whole lines it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(path), str(migrations), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    printed = [await process.stdout.readline() for _ in range(lines)]
    await asyncio.sleep(after_s)
    process.kill()
    printed += (await process.stdout.read()).splitlines(keepends=True)
    assert await process.wait() == -signal.SIGKILL
    return [line.decode().strip() for line in printed if line.endswith(b"\n")]


async def test_sigkill_loses_nothing_that_was_acknowledged(path: Path, migrations: Path) -> None:
    printed = await killed(path, migrations, lines=20, after_s=0.003)
    acknowledged = [line for line in printed if line.isdigit()]
    assert len(acknowledged) >= 19
    async with await Database.open(path, migrations) as database:
        found = await texts(database)
    assert found[::2] == found[1::2], "half a transaction"
    assert found[::2][: len(acknowledged)] == acknowledged
    assert len(found) // 2 <= len(acknowledged) + 1


@pytest.mark.parametrize("after_s", [0.02, 0.06, 0.15])
async def test_sigkill_in_a_migration_leaves_the_old_schema_or_the_new(path: Path, migrations: Path, after_s: float) -> None:
    await (await Database.open(path, migrations)).close()
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)"
    (migrations / "0003_bulk.sql").write_text(
        f"CREATE TABLE bulk (i INTEGER) STRICT;\nINSERT INTO bulk {rows} SELECT i FROM n;\n"
        "ALTER TABLE notes ADD COLUMN extra TEXT;\n"
    )
    await killed(path, migrations, lines=1, after_s=after_s)
    file = sqlite3.connect(path)
    version = file.execute("PRAGMA user_version").fetchone()[0]
    tables = {row[0] for row in file.execute("SELECT name FROM sqlite_master")}
    columns = [row[1] for row in file.execute("PRAGMA table_info(notes)")]
    file.close()
    assert version in (2, 3)
    assert ("bulk" in tables) == (version == 3) == ("extra" in columns)
    async with await Database.open(path, migrations) as database:
        assert await database.schema_version() == 3
        row = await database.fetch_one("SELECT count(*) AS n FROM bulk")
        assert row is not None and row["n"] == 1_000_000
