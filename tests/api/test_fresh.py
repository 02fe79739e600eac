"""What is encoded once and for how long."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarmd.api.fresh import AGE_S, Fresh, News
from swarmd.domain.events import WorkerStopped
from swarmd.kit.bus import EventBus
from swarmd.kit.world import World
from tests.fakes.rim import TINY, Rim, keyed, running


@pytest.mark.looptime
async def test_made_once_until_there_is_news_or_it_is_old(world: World) -> None:
    bus, made = EventBus(), 0
    news = News(bus)
    fresh = Fresh(news=news, clock=world.clock)

    def make() -> list[int]:
        nonlocal made
        made += 1
        return [made]

    assert [fresh.reply(make).data for _ in range(3)] == [b"[1]"] * 3
    bus.publish(WorkerStopped(model=TINY))
    assert fresh.reply(make).data == b"[2]", "a fact"
    news.wrote()
    assert fresh.reply(make).data == b"[3]", "a write"
    await asyncio.sleep(AGE_S / 2)
    assert fresh.reply(make).data == b"[3]"
    await asyncio.sleep(AGE_S / 2)
    assert fresh.reply(make).data == b"[4]", "what changes without a fact"


async def test_who_wrote_reads_what_was_written(tmp_path: Path) -> None:
    async with running(Rim(tmp_path, age_s=3600.0)) as rim, rim.client(**keyed()) as client:

        async def encrypted() -> dict[str, bool]:
            async with client.get("/api/admin/models") as reply:
                return {row["id"]: row["encrypted_pipeline"] for row in await reply.json()}

        assert not (await encrypted())[TINY]
        rim.encrypted.chosen[TINY] = True
        assert not (await encrypted())[TINY], "nothing says so, and an hour has not passed"
        del rim.encrypted.chosen[TINY]
        path = f"/api/admin/models/{TINY}/encrypted-pipeline"
        async with client.put(path, json={"enabled": True}) as reply:
            assert reply.status == 200
        assert (await encrypted())[TINY]
