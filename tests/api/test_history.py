from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from swarmd.api.history import SAMPLE_S, SAMPLES, Pace
from swarmd.domain.peers import Purpose
from tests.fakes.rim import Rim, running


@pytest.mark.looptime
async def test_a_pace_is_what_came_since_the_last_look(tmp_path: Path) -> None:
    rim, total = Rim(tmp_path), 0
    pace = Pace(lambda: total, rim.world.clock)
    total = 50
    await asyncio.sleep(2)
    assert pace.look() == 25
    assert pace.look() == 25, "no time has passed: nothing new can be told"
    await asyncio.sleep(1)
    assert pace.look() == 0


@pytest.mark.looptime
async def test_columns_of_what_was_measured(tmp_path: Path) -> None:
    rim = Rim(tmp_path)
    service = asyncio.create_task(rim.history.run(lambda: None))
    await asyncio.sleep(0.1)
    rim.tallies.token_s.add(0.01, 100)
    bulk = replace(rim.peers.links[0], purpose=Purpose.BULK, rtt_ms=900.0)
    rim.peers.links = [replace(rim.peers.links[0], rtt_ms=rtt) for rtt in (3.0, 9.0, 4.0, None)] + [bulk]
    await asyncio.sleep(SAMPLE_S)
    rim.peers.links = []
    await asyncio.sleep(SAMPLE_S)
    view = await rim.history.show(None)  # type: ignore[arg-type]
    assert view.tokens_per_second == [20.0, 0.0]
    assert (view.rtt_ms, view.slowest_rtt_ms) == ([4.0, None], [9.0, None])
    assert view.peers == [1, 1] and view.active_requests == [rim.pipeline.active] * 2
    assert view.at[1] - view.at[0] == SAMPLE_S
    assert all(one > 0 for one in view.used_ram_mb + view.process_rss_mb)
    service.cancel()


@pytest.mark.looptime
async def test_it_keeps_an_hour_and_no_more(tmp_path: Path) -> None:
    rim = Rim(tmp_path)
    service = asyncio.create_task(rim.history.run(lambda: None))
    await asyncio.sleep(SAMPLE_S * (SAMPLES + 30) + 1)
    view = await rim.history.show(None)  # type: ignore[arg-type]
    assert len(view.at) == len(view.rtt_ms) == len(view.peers) == SAMPLES
    service.cancel()


async def test_over_http_before_the_first_reading(tmp_path: Path) -> None:
    async with running(Rim(tmp_path)) as rim, rim.client() as client, client.get("/api/admin/history") as reply:
        told = await reply.json()
    assert reply.status == 200
    assert (told["at"], told["rtt_ms"], told["interval_seconds"]) == ([], [], SAMPLE_S)
