"""SQL of what this node is fetching, so that the next start goes on with it."""

from __future__ import annotations

from dataclasses import dataclass

from swarmd.domain.ids import ModelId
from swarmd.store.database import Database, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquisitionRow:
    """A model that was to be fetched."""

    model: ModelId
    trigger: str
    started_at: float
    """Unix seconds."""
    shards: tuple[int, ...]
    """Sorted; empty: not chosen yet."""


async def read_acquisitions(db: Database) -> tuple[AcquisitionRow, ...]:
    """The oldest first."""
    shards: dict[str, list[int]] = {}
    for model, shard in await db.fetch_all("SELECT model, shard FROM acquisition_shards ORDER BY model, shard"):
        shards.setdefault(model, []).append(shard)
    return tuple(
        AcquisitionRow(
            model=ModelId(model), trigger=trigger, started_at=started_at, shards=tuple(shards.get(model, ()))
        )
        for model, trigger, started_at in await db.fetch_all(
            "SELECT model, triggered_by, started_at FROM acquisitions ORDER BY started_at, model"
        )
    )


async def write_acquisition(tx: Transaction, row: AcquisitionRow) -> None:
    """Replaces what was there for this model."""
    await forget_acquisition(tx, row.model)
    await tx.execute(
        "INSERT INTO acquisitions (model, triggered_by, started_at) VALUES (?, ?, ?)",
        (row.model, row.trigger, row.started_at),
    )
    await tx.execute_many(
        "INSERT INTO acquisition_shards (model, shard) VALUES (?, ?)", [(row.model, shard) for shard in row.shards]
    )


async def forget_acquisition(tx: Transaction, model: ModelId) -> None:
    """It is finished, given up or no longer wanted."""
    await tx.execute("DELETE FROM acquisitions WHERE model = ?", (model,))
