"""The trust in each model, kept: what was asked for here and, as far as they tell, at others (`economy.trust`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from swarmd.domain.events import GenerationStarted, ModelDiscovered, ModelRemoved
from swarmd.domain.ids import ModelId
from swarmd.domain.models import TrustLevel
from swarmd.economy.trust import TrustRecord, asked, checked, discovered, shown, told
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Ready
from swarmd.kit.world import Clock
from swarmd.store import steward as sql
from swarmd.store.database import Database
from swarmd.store.steward import ModelTrustRow

CHECK_S: Final = 60.0
"""Between two looks at holders and demand, and two writes of counters: a kill loses a minute of counting. Levels are written
at once."""
MAX_RECORDS: Final = 1024  # four times what the catalogue knows at once; requests name only models that it knows


class ModelTrust:
    """A service; the owner of the table `model_trust`. `load` before anything else."""

    name = "model trust"

    def __init__(
        self,
        *,
        db: Database,
        bus: EventBus,
        clock: Clock,
        pinned: Callable[[ModelId], bool],
        known: Callable[[ModelId], bool],
        hosted: Callable[[ModelId], bool],
        holders: Callable[[], Mapping[ModelId, int]],
        requests: Callable[[], Mapping[ModelId, int]],
    ) -> None:
        """`known`: its manifest is here; `hosted`: a shard of it is. `holders`: distinct nodes with a shard, by model.
        `requests`: of the last ten minutes in the whole swarm."""
        self._db, self._bus, self._clock = db, bus, clock
        self._pinned, self._known, self._hosted = pinned, known, hosted
        self._holders, self._requests = holders, requests
        self._records: dict[ModelId, TrustRecord] = {}
        self._unwritten: set[ModelId] = set()

    async def load(self) -> None:
        self._records = {
            row.model: TrustRecord(
                level=row.level, first_seen=row.first_seen, total_requests=row.total_requests,
                counted_requests=row.counted_requests, last_request_at=row.last_request_at, stepped_at=row.stepped_at,
            )
            for row in (await sql.read_model_trust(self._db))[:MAX_RECORDS]
        }  # fmt: skip

    def level(self, model: ModelId) -> TrustLevel:
        return shown(self._records.get(model), pinned=self._pinned(model), hosted=self._hosted(model))

    def record(self, model: ModelId) -> TrustRecord | None:
        return self._records.get(model)

    async def run(self, ready: Ready) -> None:
        with self._bus.subscribe(GenerationStarted, ModelDiscovered, ModelRemoved) as inbox:
            ready()
            deadline = self._clock.monotonic() + CHECK_S
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        fact = await anext(inbox)
                except TimeoutError:
                    await self.check()
                    deadline = self._clock.monotonic() + CHECK_S
                else:
                    await self._hear(fact)

    async def check(self) -> None:
        """What the swarm holds and asks for, and what time has done."""
        now, holders, requests = self._clock.now(), self._holders(), self._requests()
        for model in requests.keys() - self._records.keys():  # of an earlier run, before there were records
            if self._known(model):
                self._put(model, discovered(now))
        for model, record in tuple(self._records.items()):
            heard = told(record, requests=requests.get(model, 0), now=now)
            self._put(model, checked(heard, holders=holders.get(model, 0), now=now))
        await self._store()

    async def _hear(self, fact: GenerationStarted | ModelDiscovered | ModelRemoved) -> None:
        now = self._clock.now()
        match fact:
            case GenerationStarted():
                before = self._records.get(fact.model) or discovered(now)
                after = asked(before, now=now)
                self._put(fact.model, after)
                if after.level is not before.level:
                    await self._store()
            case ModelDiscovered():
                if fact.model not in self._records:
                    self._put(fact.model, discovered(now))
                    await self._store()
            case ModelRemoved():
                self._records.pop(fact.model, None)
                self._unwritten.discard(fact.model)
                async with self._db.transaction() as tx:
                    await sql.forget_model_trust(tx, fact.model)

    def _put(self, model: ModelId, record: TrustRecord) -> None:
        if self._records.get(model) == record or (model not in self._records and len(self._records) >= MAX_RECORDS):
            return
        self._records[model] = record
        self._unwritten.add(model)

    async def _store(self) -> None:
        models = sorted(self._unwritten)
        if not models:
            return
        rows = [_row(model, self._records[model]) for model in models]
        async with self._db.transaction() as tx:
            await sql.write_model_trust(tx, rows)
        # What changed while it was written is written next time.
        self._unwritten.difference_update(row.model for row in rows if _row(row.model, self._records[row.model]) == row)


def _row(model: ModelId, record: TrustRecord) -> ModelTrustRow:
    return ModelTrustRow(
        model=model, level=record.level, first_seen=record.first_seen, total_requests=record.total_requests,
        counted_requests=record.counted_requests, last_request_at=record.last_request_at, stepped_at=record.stepped_at,
    )  # fmt: skip
