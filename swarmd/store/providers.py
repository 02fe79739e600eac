"""SQL of providers: sealed keys, addresses of custom ones, choices."""

from __future__ import annotations

from dataclasses import dataclass

from swarmd.store.database import Database, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRow:
    name: str
    base_url: str | None
    """Of a custom one; None: of the twelve, and then there is a key."""
    sealed_key: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoicesRow:
    key_source: str
    claude_subscription: bool


async def read_providers(db: Database) -> tuple[ProviderRow, ...]:
    """By name."""
    rows = await db.fetch_all("SELECT name, base_url, sealed_key FROM providers ORDER BY name")
    return tuple(ProviderRow(name=name, base_url=url, sealed_key=sealed) for name, url, sealed in rows)


async def write_provider(tx: Transaction, row: ProviderRow) -> None:
    """In the place of the one of that name."""
    await tx.execute(
        "INSERT INTO providers (name, base_url, sealed_key) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET base_url = excluded.base_url, sealed_key = excluded.sealed_key",
        (row.name, row.base_url, row.sealed_key),
    )


async def delete_provider(tx: Transaction, name: str) -> None:
    await tx.execute("DELETE FROM providers WHERE name = ?", (name,))


async def read_choices(db: Database) -> ChoicesRow | None:
    """None: nobody chose."""
    row = await db.fetch_one("SELECT key_source, claude_subscription FROM provider_choices")
    return None if row is None else ChoicesRow(key_source=row[0], claude_subscription=bool(row[1]))


async def write_choices(tx: Transaction, choices: ChoicesRow) -> None:
    await tx.execute(
        "INSERT INTO provider_choices (one, key_source, claude_subscription) VALUES (1, ?, ?) "
        "ON CONFLICT (one) DO UPDATE SET key_source = excluded.key_source, "
        "claude_subscription = excluded.claude_subscription",
        (choices.key_source, int(choices.claude_subscription)),
    )
