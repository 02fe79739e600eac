"""SQL of what people chose for generations."""

from __future__ import annotations

from swarmd.domain.ids import ModelId
from swarmd.store.database import Database, Transaction


async def read_encrypted_pipelines(db: Database) -> dict[ModelId, bool]:
    rows = await db.fetch_all("SELECT model, enabled FROM encrypted_pipelines ORDER BY model")
    return {ModelId(model): bool(enabled) for model, enabled in rows}


async def write_encrypted_pipeline(tx: Transaction, model: ModelId, *, enabled: bool) -> None:
    await tx.execute("INSERT OR REPLACE INTO encrypted_pipelines (model, enabled) VALUES (?, ?)", (model, int(enabled)))
