"""Policies, locks, history, schedule and plan, over a real socket."""

from __future__ import annotations

from typing import Any

import pytest

from swarmd.domain.autopilot import ModelPolicy, Schedule
from swarmd.domain.ids import ShardRef
from swarmd.domain.refusals import Invalid
from tests.fakes.rim import SPREAD, TINY, Rim, keyed

POLICY = f"/api/admin/models/{TINY}/auto-manage"
LOCK = f"/api/admin/models/{TINY}/shards/1/lock"
SCHEDULE = "/api/admin/schedule"


async def fetch(rim: Rim, method: str, path: str, **more: Any) -> tuple[int, Any]:
    async with rim.client(**keyed()) as client, client.request(method, path, **more) as reply:
        return reply.status, await reply.json()


async def test_policy_of_a_model(rim: Rim) -> None:
    assert await fetch(rim, "GET", POLICY) == (
        200, {"model_id": TINY, "enabled": True, "max_shards": 0, "prune_enabled": True}
    )  # fmt: skip
    body = {"enabled": False, "max_shards": 3, "prune_enabled": False}
    assert await fetch(rim, "PUT", POLICY, json=body) == (200, {"status": "ok", "model_id": TINY, **body})
    assert rim.autopilot.policies[TINY] == ModelPolicy(enabled=False, max_shards=3, prune_enabled=False)
    assert (await fetch(rim, "GET", POLICY))[1] == {"model_id": TINY, **body}
    status, found = await fetch(rim, "PUT", POLICY, json={"enabled": False})
    assert status == 200 and (found["max_shards"], found["prune_enabled"]) == (0, True), "what is left out is reset"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (POLICY, {"max_shards": -1}, "max_shards"), (POLICY, {"max_shards": 2**32}, "max_shards"),
        (POLICY, {"enabled": "yes"}, "enabled"), (POLICY, {"prune": True}, "prune"),
        (LOCK, {"locked": 1}, "locked"), (LOCK, {}, "locked"),
        (SCHEDULE, {"reduced_hours_start": 24}, "reduced_hours_start"),
        (SCHEDULE, {"reduced_hours_end": -1}, "reduced_hours_end"),
        (SCHEDULE, {"reduced_contribution": "none"}, "reduced_contribution"),
        (SCHEDULE, {"prune_aggressiveness": "wild"}, "prune_aggressiveness"),
    ],
)  # fmt: skip
async def test_bad_input_names_the_field(rim: Rim, path: str, body: dict[str, Any], field: str) -> None:
    status, found = await fetch(rim, "PUT", path, json=body)
    assert status == 400
    assert found["error"]["param"] == field
    assert rim.autopilot.policies == {} and rim.autopilot.locks == set() and rim.autopilot.hours == Schedule()


async def test_lock_and_unlock(rim: Rim) -> None:
    for locked in (True, False):
        assert await fetch(rim, "PUT", LOCK, json={"locked": locked}) == (
            200, {"status": "ok", "model_id": TINY, "shard_index": 1, "locked": locked}
        )  # fmt: skip
        assert rim.autopilot.locks == ({ShardRef(TINY, 1)} if locked else set())
    rim.autopilot.says = Invalid(what=f"model {TINY} has no shard 1", param="index")
    status, found = await fetch(rim, "PUT", LOCK, json={"locked": True})
    assert (status, found["error"]["param"]) == (400, "index")


async def test_locks_show_in_model_rows_and_storage(rim: Rim) -> None:
    from dataclasses import replace

    whole = rim.models.known[TINY]
    rim.models.known[TINY] = replace(whole, shards=(whole.shards[0], replace(whole.shards[1], locked=True)))
    (row, _), (stored, _) = (await fetch(rim, "GET", "/api/admin/models"))[1], (
        await fetch(rim, "GET", "/api/admin/shard-storage")
    )[1]["models"]
    assert [shard["locked"] for shard in row["shards"]] == [False, True]
    assert [shard["locked"] for shard in stored["shards"]] == [False, True]


async def test_prune_history(rim: Rim) -> None:
    assert await fetch(rim, "GET", "/api/admin/prune-history") == (
        200,
        {
            "events": [
                {
                    "model_id": TINY, "model_name": "TINY-Q8", "shard_index": 1,
                    "reason": "3 copies are there and 2 are needed", "freed_bytes": 5_000_000, "remaining_local_shards": 1,
                    "holder_count_before": 3, "holder_count_after": 2, "timestamp": "2023-11-14T22:13:20.000Z",
                }
            ],
            "total": 1,
        },
    )  # fmt: skip


async def test_schedule(rim: Rim) -> None:
    defaults = {
        "enabled": False, "reduced_hours_start": 22, "reduced_hours_end": 8, "reduced_contribution": "minimal",
        "prune_aggressiveness": "normal",
    }  # fmt: skip
    assert await fetch(rim, "GET", SCHEDULE) == (200, defaults)
    changed = {**defaults, "enabled": True, "reduced_hours_end": 0, "prune_aggressiveness": "aggressive"}
    body = {"enabled": True, "reduced_hours_end": 0, "prune_aggressiveness": "aggressive"}
    assert await fetch(rim, "PUT", SCHEDULE, json=body) == (200, {"status": "ok", **changed})
    assert await fetch(rim, "PUT", SCHEDULE, json={"reduced_contribution": "moderate"}) == (
        200, {"status": "ok", **changed, "reduced_contribution": "moderate"}
    )  # fmt: skip
    assert rim.autopilot.hours.reduced_hours_start == 22


async def test_plan(rim: Rim) -> None:
    status, found = await fetch(rim, "GET", "/api/admin/auto-manage/plan")
    assert status == 200
    assert found["fetch"] == [
        {"model_id": SPREAD, "shard_index": 1, "size_bytes": 5_000_000, "score": 7.5, "reason": "1 of 2 copies are there"}
    ]
    assert [(one["model_id"], one["shard_index"]) for one in found["drop"]] == [(TINY, 1)]
    assert found["not_fetched"] == [
        {"model_id": "heard", "shard_index": None, "code": "trust", "reason": "it is Discovered"}
    ]
    assert [one["code"] for one in found["kept"]] == ["locked"]
    assert found["shards"] == [{"model_id": SPREAD, "shard_index": 1, "holders": 1, "coming": 0, "target": 2}]


async def test_writes_need_the_key(rim: Rim) -> None:
    async with rim.client() as client:
        for path, body in ((POLICY, {}), (LOCK, {"locked": True}), (SCHEDULE, {})):
            async with client.put(path, json=body) as reply:
                assert reply.status == 401, path
        for path in (POLICY, SCHEDULE, "/api/admin/prune-history", "/api/admin/auto-manage/plan"):
            async with client.get(path) as reply:
                assert reply.status == 200, path
