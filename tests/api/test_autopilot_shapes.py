"""Field by field as the contract has them (swarmllm.md 2.2, 2.3)."""

from __future__ import annotations

import msgspec
import pytest

from swarmd.api import autopilot_shapes as shapes


def fields(shape: type) -> list[str]:
    return [one.name for one in msgspec.structs.fields(shape)]


def test_fields_of_the_contract() -> None:
    assert fields(shapes.PolicyView) == ["model_id", "enabled", "max_shards", "prune_enabled"]
    assert fields(shapes.PolicySet) == ["status", *fields(shapes.PolicyView)]
    assert fields(shapes.LockSet) == ["status", "model_id", "shard_index", "locked"]
    assert fields(shapes.ScheduleSet) == ["status", *fields(shapes.ScheduleView)]
    assert fields(shapes.ScheduleRequest) == fields(shapes.ScheduleView)
    assert fields(shapes.PruneEvent) == [
        "model_id", "model_name", "shard_index", "reason", "freed_bytes", "remaining_local_shards", "holder_count_before",
        "holder_count_after", "timestamp",
    ]  # fmt: skip


@pytest.mark.parametrize("text", [b'{"max_shards": 4294967295}', b"{}", b'{"enabled": false}'])
def test_policies_that_are_read(text: bytes) -> None:
    assert msgspec.json.decode(text, type=shapes.PolicyRequest).prune_enabled
