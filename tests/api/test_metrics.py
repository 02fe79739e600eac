"""`/metrics` over a real socket: who may read, that it parses, bounded labels, facts and the loop's lag."""

from __future__ import annotations

import asyncio
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from swarmd.api.metrics import MODELS_LIMIT
from swarmd.domain.credits import Account
from swarmd.domain.events import ShardRejected, ShardStored
from swarmd.domain.ids import ModelId, ShardRef
from swarmd.inference.workers import WorkerStatus
from tests.fakes.rim import PEER, TINY, Rim, keyed, script

Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def read(rim: Rim) -> Figures:
    async with rim.client() as session, session.get("/metrics") as reply:
        assert reply.status == 200
        assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = await reply.text()
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families), "each family once"
    assert all(family.documentation.endswith(".") and family.name.startswith("swarmd_") for family in families)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


async def test_reading_is_free_here_and_needs_the_key_elsewhere(rim: Rim) -> None:
    assert (await read(rim))["swarmd_build_info", (("version", "0.1.0"),)] == 1
    rim.address = "192.168.1.77"
    async with rim.client() as session, session.get("/metrics") as reply:
        assert reply.status == 401
    async with rim.client(**keyed()) as session, session.get("/metrics") as reply:
        assert reply.status == 200


async def test_links_and_peers_are_shown_by_the_short_form_of_their_ids(rim: Rim) -> None:
    found = await read(rim)
    assert found["swarmd_peers_linked", ()] == 1
    assert found["swarmd_peer_round_trip_seconds", (("peer", PEER[:16]),)] == pytest.approx(0.0016)
    assert found["swarmd_links", (("path", "direct"), ("purpose", "control"))] == 1
    assert found["swarmd_links", (("path", "relayed"), ("purpose", "bulk"))] == 0
    assert found["swarmd_link_bytes_total", (("direction", "out"), ("purpose", "control"))] == 2_600_000
    assert found["swarmd_link_bytes_total", (("direction", "in"), ("purpose", "bulk"))] == 0


async def test_however_many_models_there_are_labels_are_few(rim: Rim) -> None:
    rim.memory.workers = [
        WorkerStatus(
            model=ModelId(f"m{number}"), state="ready", shards=(0, 1), pid=1, rss_bytes=10, description="", shard_bytes=7,
            cells=100, cells_used=number,
        )
        for number in range(MODELS_LIMIT + 5)
    ]  # fmt: skip
    found = await read(rim)
    shards = {labels: value for (name, labels), value in found.items() if name == "swarmd_loaded_shards"}
    assert len(shards) == MODELS_LIMIT + 1 and shards[("model", "other"),] == 10
    assert found["swarmd_cache_cells_used", (("model", "m3"),)] == 3
    assert found["swarmd_workers", (("state", "ready"),)] == MODELS_LIMIT + 5
    assert found["swarmd_loaded_bytes", (("model", "m0"),)] == 7


async def test_shards_that_are_stored_and_rejected_are_counted(rim: Rim) -> None:
    shard = ShardRef(TINY, 0)
    rim.bus.publish(ShardStored(shard=shard, size_bytes=5, source=PEER))
    rim.bus.publish(ShardStored(shard=shard, size_bytes=6, source=None, hub=True))
    rim.bus.publish(ShardStored(shard=shard, size_bytes=7, source=None))
    rim.bus.publish(ShardRejected(shard=shard, source=PEER, reason="wrong"))
    found = await read(rim)
    assert [found["swarmd_stored_bytes_total", (("source", one),)] for one in ("peer", "hub", "file")] == [5, 6, 7]
    assert found["swarmd_shards_rejected_total", ()] == 1


async def test_a_loop_that_is_held_up_shows(rim: Rim) -> None:
    before = (await read(rim))["swarmd_event_loop_lag_seconds_count", ()]
    async with asyncio.timeout(10):
        await asyncio.sleep(0.8)
        while (await read(rim))["swarmd_event_loop_lag_seconds_count", ()] == before:
            time.sleep(0.02)
    assert (await read(rim))["swarmd_event_loop_lag_seconds_sum", ()] >= 0


async def test_what_was_counted_is_shown(rim: Rim) -> None:
    rim.tallies.ended("stop")
    rim.tallies.queue_s.add(0.3)
    rim.pipeline.waiting = 4
    rim.tallies.decoded([PEER], [(1000, 2000)], 0.010, 1)
    found = await read(rim)
    assert found["swarmd_requests_total", (("outcome", "stop"),)] == 1
    assert found["swarmd_requests_waiting", ()] == 4
    assert found["swarmd_queue_seconds_bucket", (("le", "0.5"),)] == found["swarmd_queue_seconds_count", ()] == 1
    assert found["swarmd_stage_node_seconds_sum", (("node", PEER[:16]),)] == pytest.approx(0.002)


async def test_nobody_saw_what_providers_responses_and_books_did(rim: Rim) -> None:
    rim.providers.counts.add("openai", "answered")
    rim.ledger.books = Account(earned=9, spent=3, refunded=1, balance=7)
    async with rim.client(**keyed()) as session:
        go = asyncio.Event()
        rim.pipeline.script = [go, *script("lo")]
        for where in (True, False):
            asked = {"model": TINY, "input": "x", "background": where, "stream": not where}
            answered = await session.post("/v1/responses", json=asked)
        async with session.ws_connect("/api/admin/ws"):
            found = await read(rim)
        go.set()
        await answered.read()
    assert found["swarmd_provider_requests_total", (("outcome", "answered"), ("provider", "openai"))] == 1
    assert found["swarmd_provider_requests_total", (("outcome", "failed"), ("provider", "openai"))] == 0
    assert found["swarmd_responses_running", (("where", "foreground"),)] == 1
    assert found["swarmd_responses_running", (("where", "background"),)] == 1
    assert found["swarmd_responses_stored", ()] == 2 and found["swarmd_live_sockets", ()] == 1
    assert [found[f"swarmd_credits_{one}", ()] for one in ("balance", "earned_total", "spent_total")] == [7, 9, 3]
    assert found["swarmd_update_available", ()] in (0, 1) and found["swarmd_update_error", ()] in (0, 1)
