"""The one connection to the node's sqlite file: transactions, reads, numbered migrations. The only `aiosqlite`.

Acknowledged means on the disk: the journal is WAL with `synchronous = FULL`, which syncs the journal at every commit.
With NORMAL, the usual choice, a power cut can take back commits whose callers were already told "done" (a used-up
invite would come back to life). It costs one sync, about a millisecond, at the few writes a node makes.

One connection, one user at a time: a lock orders transactions and reads, so a read never sees half a transaction.
A migration and its version number are one transaction; `kill -9` at any moment leaves the old schema or the new one.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiosqlite

from swarmd.kit.disk import PRIVATE, Disk

MIGRATIONS: Final = Path(__file__).parent / "migrations"
MIGRATION_LIMIT: Final = 1024 * 1024  # bytes of one SQL file
BUSY_TIMEOUT_MS: Final = 5000  # somebody else (a backup, the sqlite3 shell) may hold the file for a moment

SqlValue = None | int | float | str | bytes
Row = sqlite3.Row

_FILE_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_COMMENTS: Final = re.compile(r"--[^\n]*(\n|$)|/\*.*?\*/", re.DOTALL)
_OWN_CONTROL: Final = ("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "PRAGMA", "VACUUM", "ATTACH")


class SchemaTooNew(Exception):
    """The file was written by a newer program. `str()` is the sentence for the user."""

    def __init__(self, path: Path | None, found: int, known: int) -> None:
        super().__init__(
            f"{path} has schema version {found} and this program knows versions up to {known}: install the newer program "
            "again, or start with another data folder"
        )
        self.found = found
        self.known = known


class DatabaseUnusable(Exception):
    """The file cannot be opened or is not a sound database. `str()` is the sentence for the user."""


class BadMigration(Exception):
    """The migration files are wrong: a gap, a wrong name, SQL that fails or that handles transactions itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    version: int
    name: str
    statements: tuple[str, ...]


class Transaction:
    """Statements between BEGIN and COMMIT. Made by `Database.transaction`, dead after its block."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection: aiosqlite.Connection | None = connection

    async def execute(self, sql: str, values: Sequence[SqlValue] = ()) -> int:
        """How many rows were changed."""
        async with self._open.execute(sql, values) as cursor:
            return cursor.rowcount

    async def execute_many(self, sql: str, rows: Sequence[Sequence[SqlValue]]) -> None:
        await self._open.executemany(sql, rows)

    async def insert(self, sql: str, values: Sequence[SqlValue] = ()) -> int:
        """The row id of the new row."""
        async with self._open.execute(sql, values) as cursor:
            assert cursor.lastrowid is not None, "this statement inserts nothing"
            return cursor.lastrowid

    async def fetch_all(self, sql: str, values: Sequence[SqlValue] = ()) -> list[Row]:
        return list(await self._open.execute_fetchall(sql, values))

    async def fetch_one(self, sql: str, values: Sequence[SqlValue] = ()) -> Row | None:
        rows = await self.fetch_all(sql, values)
        return rows[0] if rows else None

    @property
    def _open(self) -> aiosqlite.Connection:
        assert self._connection is not None, "this transaction has ended"
        return self._connection

    def end(self) -> None:
        """For the database only."""
        self._connection = None


class Database:
    """See the module. `async with await Database.open(path) as database: ...`"""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._lock = asyncio.Lock()
        self._user: asyncio.Task[object] | None = None

    @classmethod
    async def open(cls, path: Path | None, migrations: Path = MIGRATIONS, *, disk: Disk | None = None) -> Database:
        """Open or create the file (mode 0600, in an existing folder) and bring its schema up to date.

        `path` None: in memory, for tests. Raises SchemaTooNew, DatabaseUnusable or BadMigration.
        """
        disk = disk or Disk()
        known = await _read_migrations(migrations, disk)
        try:
            if path is not None and not await disk.exists(path):
                await disk.write_atomic(path, b"", mode=PRIVATE)  # sqlite would use the umask; journals copy the mode
            connection = await aiosqlite.connect(path or ":memory:", isolation_level=None)  # we write BEGIN ourselves
        except (OSError, sqlite3.Error) as error:
            raise DatabaseUnusable(f"the database {path} cannot be opened: {error}") from error
        try:
            connection.row_factory = sqlite3.Row
            await _prepare(connection, path)
            await _migrate(connection, path, known)
            # Only now: a migration that rebuilds a table breaks references for a moment, and is checked at its end.
            await connection.execute("PRAGMA foreign_keys = ON")
        except BaseException as error:
            await connection.close()
            if isinstance(error, sqlite3.DatabaseError):
                raise DatabaseUnusable(f"the database {path} is not usable: {error}") from error
            raise
        return cls(connection)

    async def close(self) -> None:
        """After the running transaction. Closing twice is allowed."""
        async with self._lock:
            await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        """Everything in the block or nothing. When the block is left without an error, it is on the disk.

        An exception or a cancellation rolls back; a cancellation during the commit itself may come too late for that.
        Transactions do not nest: pass the `Transaction` on.
        """
        async with self._turn():
            transaction = Transaction(self._connection)
            try:
                # IMMEDIATE: take the write lock now, not at the first write, where a busy file would be an error.
                await self._connection.execute("BEGIN IMMEDIATE")
                yield transaction
                await self._connection.execute("COMMIT")
            except BaseException:
                # Requests to the connection's thread are served in order, so this follows a statement whose wait was
                # cancelled, and precedes the next transaction even when this wait is cancelled as well.
                await self._connection.rollback()
                raise
            finally:
                transaction.end()

    async def fetch_all(self, sql: str, values: Sequence[SqlValue] = ()) -> list[Row]:
        async with self._turn():
            return list(await self._connection.execute_fetchall(sql, values))

    async def fetch_one(self, sql: str, values: Sequence[SqlValue] = ()) -> Row | None:
        rows = await self.fetch_all(sql, values)
        return rows[0] if rows else None

    async def schema_version(self) -> int:
        async with self._turn():
            return await _version(self._connection)

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        current = asyncio.current_task()
        assert self._user is not current or current is None, "inside a transaction: use it, or this would wait for itself"
        async with self._lock:
            self._user = current
            try:
                yield
            finally:
                self._user = None


def split_statements(sql: str) -> list[str]:
    """The statements of a script, triggers in one piece. Raises ValueError when the last one is not closed by `;`."""
    statements: list[str] = []
    piece = ""
    for part in re.split(r"(?<=;)", sql):
        piece += part
        if sqlite3.complete_statement(piece):
            statements.append(piece.strip())
            piece = ""
    if _COMMENTS.sub("", piece).strip():
        raise ValueError(f"a statement does not end with a semicolon: {piece.strip()[:80]!r}")
    return statements


async def _read_migrations(folder: Path, disk: Disk) -> list[Migration]:
    migrations: list[Migration] = []
    for path in await disk.list_folder(folder):
        if path.suffix != ".sql":
            continue
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise BadMigration(f"{path.name} is not called NNNN_name.sql")
        version = int(match.group(1))
        if version != len(migrations) + 1:
            raise BadMigration(f"{path.name} follows migration {len(migrations):04}: numbers go 0001, 0002 ... without gaps")
        try:
            statements = split_statements((await disk.read_bytes(path, limit=MIGRATION_LIMIT)).decode())
        except ValueError as error:
            raise BadMigration(f"{path.name}: {error}") from error
        for statement in statements:
            first = _COMMENTS.sub("", statement).split(maxsplit=1)[0].upper().rstrip(";")
            if first in _OWN_CONTROL:
                raise BadMigration(f"{path.name} contains {first}: a migration is one transaction, which is made here")
        migrations.append(Migration(version=version, name=path.name, statements=tuple(statements)))
    return migrations


async def _prepare(connection: aiosqlite.Connection, path: Path | None) -> None:
    await connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    async with connection.execute("PRAGMA journal_mode = WAL") as cursor:
        row = await cursor.fetchone()
    mode = row[0] if row is not None else "none"
    if path is not None and mode != "wal":
        raise DatabaseUnusable(
            f"the file system of {path} does not allow sqlite's write-ahead log (it offers {mode}): choose a local folder"
        )
    await connection.execute("PRAGMA synchronous = FULL")


async def _migrate(connection: aiosqlite.Connection, path: Path | None, known: list[Migration]) -> None:
    found = await _version(connection)
    if found > len(known):
        raise SchemaTooNew(path, found, len(known))
    for migration in known[found:]:
        try:
            await connection.execute("BEGIN IMMEDIATE")
            for statement in migration.statements:
                await connection.execute(statement)
            if await connection.execute_fetchall("PRAGMA foreign_key_check"):
                raise BadMigration(f"{migration.name} leaves rows that refer to nothing")
            await connection.execute(f"PRAGMA user_version = {migration.version}")
            await connection.execute("COMMIT")
        except BaseException as error:
            await connection.rollback()
            if isinstance(error, sqlite3.Error):
                raise BadMigration(f"{migration.name} failed: {error}") from error
            raise


async def _version(connection: aiosqlite.Connection) -> int:
    async with connection.execute("PRAGMA user_version") as cursor:
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])
