"""What people tell the autopilot, and what it tells them: policies, locks, the schedule, its history and its plan."""

from __future__ import annotations

from typing import Final, TypeVar

from msgspec import UnsetType

from swarmd.api import autopilot_shapes as shapes
from swarmd.api.calls import Call
from swarmd.api.ports import Autopilot
from swarmd.api.views import time_text
from swarmd.domain.autopilot import Drop, Fetch, Kept, ModelPolicy, NotFetched, PruneRecord, Schedule
from swarmd.domain.refusals import Refusal

T = TypeVar("T")

EVENTS_SHOWN: Final = 100  # "recent" in the contract; the number of all is beside them


class AutopilotHandlers:
    def __init__(self, *, autopilot: Autopilot) -> None:
        self._autopilot = autopilot

    async def policy(self, call: Call) -> shapes.PolicyView:
        policy = self._autopilot.policy(call.model)
        return shapes.PolicyView(
            model_id=call.model, enabled=policy.enabled, max_shards=policy.max_shards, prune_enabled=policy.prune_enabled
        )

    async def set_policy(self, call: Call) -> shapes.PolicySet | Refusal:
        body: shapes.PolicyRequest = call.body
        policy = ModelPolicy(enabled=body.enabled, max_shards=body.max_shards, prune_enabled=body.prune_enabled)
        refusal = await self._autopilot.set_policy(call.model, policy)
        if refusal is not None:
            return refusal
        return shapes.PolicySet(
            status="ok", model_id=call.model, enabled=body.enabled, max_shards=body.max_shards,
            prune_enabled=body.prune_enabled,
        )  # fmt: skip

    async def lock(self, call: Call) -> shapes.LockSet | Refusal:
        body: shapes.LockRequest = call.body
        refusal = await self._autopilot.lock(call.shard, locked=body.locked)
        if refusal is not None:
            return refusal
        return shapes.LockSet(status="ok", model_id=call.model, shard_index=call.shard.index, locked=body.locked)

    async def prune_history(self, _call: Call) -> shapes.PruneHistory:
        records, total = await self._autopilot.prune_history(EVENTS_SHOWN)
        return shapes.PruneHistory(events=[_event(record) for record in records], total=total)

    async def schedule(self, _call: Call) -> shapes.ScheduleView:
        now = self._autopilot.schedule()
        return shapes.ScheduleView(
            enabled=now.enabled, reduced_hours_start=now.reduced_hours_start, reduced_hours_end=now.reduced_hours_end,
            reduced_contribution=now.reduced_contribution, prune_aggressiveness=now.prune_aggressiveness,
        )  # fmt: skip

    async def set_schedule(self, call: Call) -> shapes.ScheduleSet:
        changed = _changed(self._autopilot.schedule(), call.body)
        await self._autopilot.set_schedule(changed)
        return shapes.ScheduleSet(
            status="ok", enabled=changed.enabled, reduced_hours_start=changed.reduced_hours_start,
            reduced_hours_end=changed.reduced_hours_end, reduced_contribution=changed.reduced_contribution,
            prune_aggressiveness=changed.prune_aggressiveness,
        )  # fmt: skip

    async def plan(self, _call: Call) -> shapes.AutopilotPlan:
        plan = self._autopilot.plan()
        return shapes.AutopilotPlan(
            enabled=plan.enabled,
            reduced_hours=plan.reduced,
            contribution=plan.contribution,
            pool=plan.pool,
            budget_bytes=plan.budget_bytes,
            used_bytes=plan.used_bytes,
            pressure=round(plan.pressure, 3),
            moves_left=plan.moves_left,
            fetch=[_move(one) for one in plan.fetches],
            drop=[_move(one) for one in plan.drops],
            not_fetched=[_stays_away(one) for one in plan.not_fetched],
            kept=[_stays_here(one) for one in plan.kept],
            shards=[
                shapes.ShardCopies(
                    model_id=one.shard.model, shard_index=one.shard.index, holders=one.holders, coming=one.coming,
                    target=one.target,
                )
                for one in plan.counts
            ],
        )  # fmt: skip


def _changed(now: Schedule, body: shapes.ScheduleRequest) -> Schedule:
    return Schedule(
        enabled=_given(body.enabled, now.enabled),
        reduced_hours_start=_given(body.reduced_hours_start, now.reduced_hours_start),
        reduced_hours_end=_given(body.reduced_hours_end, now.reduced_hours_end),
        reduced_contribution=_given(body.reduced_contribution, now.reduced_contribution),
        prune_aggressiveness=_given(body.prune_aggressiveness, now.prune_aggressiveness),
    )


def _given(new: T | UnsetType, old: T) -> T:
    return old if isinstance(new, UnsetType) else new


def _event(record: PruneRecord) -> shapes.PruneEvent:
    return shapes.PruneEvent(
        model_id=record.model, model_name=record.name, shard_index=record.shard, reason=record.reason,
        freed_bytes=record.freed_bytes, remaining_local_shards=record.remaining_local_shards,
        holder_count_before=record.holder_count_before, holder_count_after=record.holder_count_after,
        timestamp=time_text(record.at),
    )  # fmt: skip


def _move(one: Fetch | Drop) -> shapes.PlannedMove:
    return shapes.PlannedMove(
        model_id=one.shard.model, shard_index=one.shard.index, size_bytes=one.size_bytes, score=one.score, reason=one.why
    )


def _stays_away(one: NotFetched) -> shapes.NotPlanned:
    return shapes.NotPlanned(model_id=one.model, shard_index=one.index, code=one.gate.value, reason=one.why)


def _stays_here(one: Kept) -> shapes.NotPlanned:
    return shapes.NotPlanned(
        model_id=one.shard.model, shard_index=one.shard.index, code=one.guard.value, reason=one.why
    )
