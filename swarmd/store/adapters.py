"""SQL of registered LoRA adapters."""

from __future__ import annotations

from swarmd.domain.adapters import Adapter, AdapterRef
from swarmd.domain.ids import ModelId
from swarmd.store.database import Database, Transaction


async def read_adapters(db: Database) -> tuple[Adapter, ...]:
    """By id."""
    rows = await db.fetch_all(
        "SELECT id, name, base_model, rank, alpha, path, digest, size_bytes FROM adapters ORDER BY id"
    )
    return tuple(
        Adapter(
            id=id, name=name, base_model=ModelId(model), rank=rank, alpha=alpha, path=path,
            ref=AdapterRef(digest=digest, size_bytes=size),
        )
        for id, name, model, rank, alpha, path, digest, size in rows
    )  # fmt: skip


async def write_adapter(tx: Transaction, adapter: Adapter) -> None:
    await tx.execute(
        "INSERT INTO adapters (id, name, base_model, rank, alpha, path, digest, size_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            adapter.id, adapter.name, adapter.base_model, adapter.rank, adapter.alpha, adapter.path, adapter.ref.digest,
            adapter.ref.size_bytes,
        ),
    )  # fmt: skip


async def delete_adapter(tx: Transaction, id: str) -> None:
    await tx.execute("DELETE FROM adapters WHERE id = ?", (id,))
