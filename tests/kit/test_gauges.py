from __future__ import annotations

import pytest

from swarmd.kit.gauges import Gauges


def test_the_last_write_wins() -> None:
    gauges = Gauges()
    gauges.set("a.b", 1)
    gauges.set("a.b", 2.5)
    assert gauges.get("a.b") == 2.5
    assert gauges.get("a.c") is None
    assert gauges.get("a.c", "?") == "?"


def test_counters_begin_at_zero() -> None:
    gauges = Gauges()
    gauges.add("tokens")
    gauges.add("tokens", 4)
    assert gauges.get("tokens") == 5
    gauges.set("phase", "up")
    with pytest.raises(AssertionError, match="holds text"):
        gauges.add("phase")


def test_a_snapshot_is_a_copy_by_prefix() -> None:
    gauges = Gauges()
    for name in ("shard.b", "shard.a", "peer.x"):
        gauges.set(name, name)
    snapshot = gauges.snapshot("shard.")
    gauges.set("shard.c", 1)
    assert list(snapshot) == ["shard.a", "shard.b"]
    assert len(gauges.snapshot()) == 4


def test_remove_takes_the_name_and_what_is_below_it() -> None:
    gauges = Gauges()
    for name in ("job.1", "job.1.done", "job.10", "job"):
        gauges.set(name, 1)
    gauges.remove("job.1")
    assert list(gauges.snapshot()) == ["job", "job.10"]
