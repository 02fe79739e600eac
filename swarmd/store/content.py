"""SQL of what this node is fetching, so that the next start goes on with it, and of what a person cancelled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swarmd.domain.ids import ModelId, ShardRef
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
    place: int = 0
    """In the queue; 0 is the first."""
    paused: bool = False


async def read_acquisitions(db: Database) -> tuple[AcquisitionRow, ...]:
    """In the order of the queue."""
    shards: dict[str, list[int]] = {}
    for model, shard in await db.fetch_all("SELECT model, shard FROM acquisition_shards ORDER BY model, shard"):
        shards.setdefault(model, []).append(shard)
    return tuple(
        AcquisitionRow(
            model=ModelId(model), trigger=trigger, started_at=started_at, shards=tuple(shards.get(model, ())), place=place,
            paused=bool(paused),
        )
        for model, trigger, started_at, place, paused in await db.fetch_all(
            "SELECT model, triggered_by, started_at, place, paused FROM acquisitions ORDER BY place, started_at, model"
        )
    )


async def write_acquisition(tx: Transaction, row: AcquisitionRow) -> None:
    """Replaces what was there for this model."""
    await forget_acquisition(tx, row.model)
    await tx.execute(
        "INSERT INTO acquisitions (model, triggered_by, started_at, place, paused) VALUES (?, ?, ?, ?, ?)",
        (row.model, row.trigger, row.started_at, row.place, row.paused),
    )
    await tx.execute_many(
        "INSERT INTO acquisition_shards (model, shard) VALUES (?, ?)", [(row.model, shard) for shard in row.shards]
    )


async def write_places(tx: Transaction, order: Sequence[ModelId]) -> None:
    """The order of the queue; models that are not in the table do not matter."""
    await tx.execute_many(
        "UPDATE acquisitions SET place = ? WHERE model = ?", [(place, model) for place, model in enumerate(order)]
    )


async def forget_acquisition(tx: Transaction, model: ModelId) -> None:
    """It is finished, given up or no longer wanted."""
    await tx.execute("DELETE FROM acquisitions WHERE model = ?", (model,))


async def read_cancelled(db: Database) -> dict[ShardRef, float]:
    """Unix seconds of the moment at which a person cancelled the download of each, the oldest first."""
    rows = await db.fetch_all("SELECT model, shard, cancelled_at FROM cancelled_shards ORDER BY cancelled_at, model, shard")
    return {ShardRef(ModelId(model), shard): at for model, shard, at in rows}


async def write_cancelled(tx: Transaction, shards: Iterable[ShardRef], *, at: float) -> None:
    await tx.execute_many(
        "INSERT OR REPLACE INTO cancelled_shards (model, shard, cancelled_at) VALUES (?, ?, ?)",
        [(ref.model, ref.index, at) for ref in shards],
    )


async def forget_cancelled(tx: Transaction, model: ModelId, shards: Iterable[int] | None = None) -> None:
    """A person wants these again. None: all of the model."""
    if shards is None:
        await tx.execute("DELETE FROM cancelled_shards WHERE model = ?", (model,))
        return
    await tx.execute_many(
        "DELETE FROM cancelled_shards WHERE model = ? AND shard = ?", [(model, index) for index in shards]
    )


async def forget_cancelled_before(tx: Transaction, at: float) -> None:
    """It is too long ago to count."""
    await tx.execute("DELETE FROM cancelled_shards WHERE cancelled_at < ?", (at,))
