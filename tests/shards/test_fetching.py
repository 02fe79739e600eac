"""Which holder is asked, and what happens when it goes away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmd.domain.events import ShardDownloadStarted
from swarmd.domain.ids import ShardRef
from swarmd.domain.shards import Acquisition
from tests.shards.test_desk import TINY, Folks, ended, until, with_model


@pytest.fixture
async def folks(tmp_path: Path) -> AsyncIterator[Folks]:
    made = Folks(tmp_path)
    yield made
    for seed in reversed(list(made.stacks)):
        await made.stop(seed)


async def test_several_shards_come_from_several_holders(folks: Folks, tiny: Path) -> None:
    one, three, two = await with_model(folks, tiny, 1), await with_model(folks, tiny, 3), await folks.start(2)
    await two.connect(one)
    await two.connect(three)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    with two.store.bus.spy() as spy:
        assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
        assert (await ended(two)).state == "complete"
    assert {fact.source for fact in spy.of(ShardDownloadStarted)} == {one.id, three.id}


async def test_a_lost_holder_is_followed_by_the_next(folks: Folks, tiny: Path) -> None:
    one, three, two = await with_model(folks, tiny, 1), await with_model(folks, tiny, 3), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    with two.store.bus.spy() as spy:
        assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
        await spy.wait_for(ShardDownloadStarted)
        two.store.wire.links[one.id].close("the cable is out")
        await two.connect(three)
        done = await ended(two)
    assert done.state == "complete", done
    assert await two.store.storage.verify(ShardRef(TINY, len(done.transfers) - 1))
