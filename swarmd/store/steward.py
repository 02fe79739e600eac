"""SQL of the autopilot: trust in models, policies, locks, what it fetched, what it dropped, and the schedule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from swarmd.domain.autopilot import ModelPolicy, PruneRecord, Schedule
from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.models import TrustLevel
from swarmd.store.database import Database, Row, Transaction

HISTORY_KEPT: Final = 500  # some 200 bytes each; at the most moves an hour a day's worth


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTrustRow:
    """The pin is not here: it is the file `pinned` in the model's folder, which the catalogue owns."""

    model: ModelId
    level: TrustLevel
    """Discovered, DemandVerified or NetworkPopular."""
    first_seen: float
    """Unix seconds, as the other times."""
    total_requests: int
    counted_requests: int
    """Since it was last Discovered."""
    last_request_at: float | None
    stepped_at: float
    """When the level changed last."""


async def read_model_trust(db: Database) -> tuple[ModelTrustRow, ...]:
    rows = await db.fetch_all(
        "SELECT model, trust_level, first_seen, total_requests, counted_requests, last_request_at, stepped_at "
        "FROM model_trust ORDER BY model"
    )
    return tuple(
        ModelTrustRow(
            model=ModelId(model), level=TrustLevel(level), first_seen=first, total_requests=total, counted_requests=counted,
            last_request_at=last, stepped_at=stepped,
        )
        for model, level, first, total, counted, last, stepped in rows
    )  # fmt: skip


async def write_model_trust(tx: Transaction, rows: Iterable[ModelTrustRow]) -> None:
    """Replaces what was there for these models."""
    await tx.execute_many(
        "INSERT OR REPLACE INTO model_trust (model, trust_level, first_seen, total_requests, counted_requests, "
        "last_request_at, stepped_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                row.model, row.level.value, row.first_seen, row.total_requests, row.counted_requests, row.last_request_at,
                row.stepped_at,
            )
            for row in rows
        ],
    )  # fmt: skip


async def forget_model_trust(tx: Transaction, model: ModelId) -> None:
    await tx.execute("DELETE FROM model_trust WHERE model = ?", (model,))


async def read_policies(db: Database) -> dict[ModelId, ModelPolicy]:
    rows = await db.fetch_all("SELECT model, enabled, max_shards, prune_enabled FROM model_policies ORDER BY model")
    return {
        ModelId(model): ModelPolicy(enabled=bool(enabled), max_shards=most, prune_enabled=bool(prune))
        for model, enabled, most, prune in rows
    }


async def write_policy(tx: Transaction, model: ModelId, policy: ModelPolicy) -> None:
    await tx.execute(
        "INSERT OR REPLACE INTO model_policies (model, enabled, max_shards, prune_enabled) VALUES (?, ?, ?, ?)",
        (model, int(policy.enabled), policy.max_shards, int(policy.prune_enabled)),
    )


async def read_locks(db: Database) -> frozenset[ShardRef]:
    rows = await db.fetch_all("SELECT model, shard FROM shard_locks")
    return frozenset(ShardRef(ModelId(model), shard) for model, shard in rows)


async def write_lock(tx: Transaction, shard: ShardRef, *, locked: bool) -> None:
    """Idempotent, both ways."""
    if locked:
        await tx.execute("INSERT OR IGNORE INTO shard_locks (model, shard) VALUES (?, ?)", (shard.model, shard.index))
    else:
        await tx.execute("DELETE FROM shard_locks WHERE model = ? AND shard = ?", (shard.model, shard.index))


async def forget_model(tx: Transaction, model: ModelId) -> None:
    """Its shards are gone: their locks, and what the autopilot brought. What a person allows with it stays."""
    await tx.execute("DELETE FROM shard_locks WHERE model = ?", (model,))
    await tx.execute("DELETE FROM autopilot_shards WHERE model = ?", (model,))


async def read_fetched(db: Database) -> dict[ShardRef, float]:
    """Unix seconds of the moment at which each was asked for."""
    rows = await db.fetch_all("SELECT model, shard, fetched_at FROM autopilot_shards")
    return {ShardRef(ModelId(model), shard): at for model, shard, at in rows}


async def write_fetched(tx: Transaction, shards: Iterable[ShardRef], *, at: float) -> None:
    await tx.execute_many(
        "INSERT OR REPLACE INTO autopilot_shards (model, shard, fetched_at) VALUES (?, ?, ?)",
        [(shard.model, shard.index, at) for shard in shards],
    )


async def forget_fetched(tx: Transaction, shards: Iterable[ShardRef]) -> None:
    await tx.execute_many(
        "DELETE FROM autopilot_shards WHERE model = ? AND shard = ?", [(shard.model, shard.index) for shard in shards]
    )


_HISTORY: Final = (
    "model, name, shard, reason, freed_bytes, remaining_local_shards, holder_count_before, holder_count_after, pruned_at"
)


async def begin_prune(tx: Transaction, record: PruneRecord) -> int:
    """Its number. It is no part of the history until `finish_prune`."""
    return await tx.insert(
        f"INSERT INTO prune_history ({_HISTORY}, done) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        (
            record.model, record.name, record.shard, record.reason, record.freed_bytes, record.remaining_local_shards,
            record.holder_count_before, record.holder_count_after, record.at,
        ),
    )  # fmt: skip


async def finish_prune(tx: Transaction, number: int) -> None:
    """The shard is gone. The oldest records beyond HISTORY_KEPT go."""
    await tx.execute("UPDATE prune_history SET done = 1 WHERE id = ?", (number,))
    await tx.execute(
        "DELETE FROM prune_history WHERE done = 1 AND id NOT IN "
        "(SELECT id FROM prune_history WHERE done = 1 ORDER BY id DESC LIMIT ?)",
        (HISTORY_KEPT,),
    )


async def abandon_prune(tx: Transaction, number: int) -> None:
    """The shard is still here."""
    await tx.execute("DELETE FROM prune_history WHERE id = ?", (number,))


async def read_open_prunes(db: Database) -> dict[int, ShardRef]:
    """Those in the middle of which the node was killed."""
    rows = await db.fetch_all("SELECT id, model, shard FROM prune_history WHERE done = 0 ORDER BY id")
    return {number: ShardRef(ModelId(model), shard) for number, model, shard in rows}


async def read_history(db: Database, *, limit: int) -> tuple[tuple[PruneRecord, ...], int]:
    """The newest first, and how many there are in all."""
    rows = await db.fetch_all(f"SELECT {_HISTORY} FROM prune_history WHERE done = 1 ORDER BY id DESC LIMIT ?", (limit,))
    count = await db.fetch_one("SELECT count(*) FROM prune_history WHERE done = 1")
    assert count is not None
    return tuple(_record(row) for row in rows), int(count[0])


def _record(row: Row) -> PruneRecord:
    model, name, shard, reason, freed, remaining, before, after, at = row
    return PruneRecord(
        model=ModelId(model), name=name, shard=shard, reason=reason, freed_bytes=freed, remaining_local_shards=remaining,
        holder_count_before=before, holder_count_after=after, at=at,
    )  # fmt: skip


async def read_schedule(db: Database) -> Schedule:
    row = await db.fetch_one(
        "SELECT enabled, reduced_hours_start, reduced_hours_end, reduced_contribution, prune_aggressiveness "
        "FROM resource_schedule"
    )
    if row is None:
        return Schedule()
    enabled, start, end, contribution, aggressiveness = row
    return Schedule(
        enabled=bool(enabled), reduced_hours_start=start, reduced_hours_end=end, reduced_contribution=contribution,
        prune_aggressiveness=aggressiveness,
    )  # fmt: skip


async def write_schedule(tx: Transaction, schedule: Schedule) -> None:
    await tx.execute(
        "INSERT OR REPLACE INTO resource_schedule (key, enabled, reduced_hours_start, reduced_hours_end, "
        "reduced_contribution, prune_aggressiveness) VALUES ('current', ?, ?, ?, ?, ?)",
        (
            int(schedule.enabled), schedule.reduced_hours_start, schedule.reduced_hours_end, schedule.reduced_contribution,
            schedule.prune_aggressiveness,
        ),
    )  # fmt: skip
