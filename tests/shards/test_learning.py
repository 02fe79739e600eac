"""Learning models from neighbours: what is taken and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from swarmd.domain.ids import ModelId
from swarmd.domain.peers import PeerIdentity
from swarmd.domain.refusals import BadFile, NotFound
from swarmd.domain.shards import Acquisition
from swarmd.models.catalog import HEADER_NAME, MANIFEST_NAME, KnownModel
from swarmd.shards import learning
from swarmd.wire.exchange import AskManifest
from swarmd.wire.messages import CODES
from tests.fakes.holders import Holder
from tests.shards.test_desk import TINY, Folks, ended, until, with_model


@pytest.fixture
async def folks(tmp_path: Path) -> AsyncIterator[Folks]:
    made = Folks(tmp_path)
    yield made
    for seed in reversed(list(made.stacks)):
        await made.stop(seed)


async def test_an_unsigned_or_forged_manifest_is_refused_once_and_for_all(folks: Folks, tiny: Path) -> None:
    one, two = await with_model(folks, tiny), await folks.start(2)
    known = one.store.catalog.get(TINY)
    assert known is not None
    path = one.store.catalog.folder(TINY) / MANIFEST_NAME
    good = path.read_bytes()
    path.write_bytes(good.replace(b'"name":"tiny"', b'"name":"evil"'))
    await two.connect(one)
    layout = known.manifest.layout
    await until(lambda: bool(two.desk._learner._refused))
    assert isinstance(await two.desk._learner.learn(one.id, TINY, layout), BadFile)
    assert two.desk._learner._unknown(one.id) == [] and two.store.catalog.all() == ()
    path.write_bytes(good)
    assert isinstance(await two.desk._learner.learn(one.id, ModelId("other"), layout), NotFound)
    assert isinstance(await two.desk._learner.learn(one.id, TINY, layout), KnownModel), "a person may ask again"


def hindered(holder: Holder, name: str, hinder: Callable[[], Awaitable[None]]) -> None:
    """Before each part of the file of this name that it sends."""
    real = holder.store.disk.size_bytes

    async def size_bytes(path: Path) -> int:
        if path.name == name:
            await hinder()
        return await real(path)

    holder.store.disk.size_bytes = size_bytes  # type: ignore[method-assign]


async def test_a_member_that_never_sends_its_manifest_does_not_hold_a_job_for_ever(
    folks: Folks, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Honest holders waited behind it, and so did every model in the queue."""
    monkeypatch.setattr(learning, "MANIFEST_S", 0.3)
    evil, honest = await with_model(folks, tiny, 1), await with_model(folks, tiny, 3)
    two, asked = await folks.start(2, patience_s=1.0), asyncio.Event()

    async def never() -> None:
        asked.set()
        await asyncio.Event().wait()

    hindered(evil, MANIFEST_NAME, never)
    await two.connect(evil)
    await asked.wait()
    await two.connect(honest)
    assert isinstance(await two.desk.acquire(TINY, (0,)), Acquisition)
    assert (await ended(two)).state == "complete"


async def test_another_holder_can_be_asked_while_one_takes_its_time(folks: Folks, tiny: Path) -> None:
    slow, quick = await with_model(folks, tiny, 1), await with_model(folks, tiny, 3)
    two, asked, go = await folks.start(2), asyncio.Event(), asyncio.Event()

    async def late() -> None:
        asked.set()
        await go.wait()

    hindered(slow, MANIFEST_NAME, late)
    await two.connect(slow)
    await asked.wait()
    await two.connect(quick)
    known = quick.store.catalog.get(TINY)
    assert known is not None
    async with asyncio.timeout(5):
        assert isinstance(await two.desk._learner.learn(quick.id, TINY, known.manifest.layout), KnownModel)
    go.set()
    await until(lambda: not two.desk._learner._busy)


async def test_what_many_tell_of_at_once_is_sent_by_one(folks: Folks, tiny: Path) -> None:
    holders = [await with_model(folks, tiny, seed) for seed in (1, 3, 4)]
    two, sent = await folks.start(2), list[int]()

    async def count() -> None:
        sent.append(1)

    for holder in holders:
        hindered(holder, HEADER_NAME, count)
    await asyncio.gather(*(two.connect(holder) for holder in holders))
    await until(lambda: two.store.catalog.get(TINY) is not None and not two.desk._learner._busy)
    assert len(sent) == 1


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
async def test_a_model_is_not_cut_anew_under_a_job(folks: Folks, tiny: Path, paused: bool) -> None:
    """Its shards were those of the old cut: until it ended, every look at the room on the disk failed, for any model."""
    one, two = await with_model(folks, tiny), await folks.start(2, patience_s=0.5)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    old = two.store.catalog.get(TINY)
    assert old is not None
    folks.hub.change("node-1", "node-2", bytes_per_s=30_000)
    assert isinstance(await two.desk.acquire(TINY, (len(old.manifest.shards) - 1,), "auto_manage"), Acquisition)
    await until(lambda: (job := two.desk.acquisition(TINY)) is not None and bool(job.transfers[0].done_bytes))
    if paused:
        assert await two.desk.pause(TINY) is None
    folks.hub.change("node-1", "node-2", bytes_per_s=30_000_000)
    assert isinstance(await one.desk.delete_model(TINY), int)
    assert await one.desk.add_file(tiny, 10_000_000) == TINY
    new = one.store.catalog.get(TINY)
    assert new is not None and len(new.manifest.shards) == 1
    two.hear(one)
    assert isinstance(await two.desk._learner._learn(one.id, TINY, new.manifest.layout), NotFound)
    assert two.store.catalog.get(TINY) is old and not two.desk._learner._refused and two.desk.room() > 0
    if paused:
        assert await two.desk.resume(TINY) is None
    done = await ended(two)
    assert done.state == "failed" and "could be reached" in (done.reason or "")
    # As soon as nobody holds on to the old cut, the new one is learned, and can be asked for.
    await until(lambda: (known := two.store.catalog.get(TINY)) is not None and known.identity == new.identity)
    assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
    await until(lambda: two.store.registry.held(TINY) == (0,))


async def test_a_model_that_was_cut_anew_is_learned_anew(folks: Folks, tiny: Path) -> None:
    """Its owner removed it and added it again in other shards; nodes that had only heard of it stayed with the old cut, of
    which there was nothing any more, for ever."""
    one, two = await with_model(folks, tiny), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    old = two.store.catalog.get(TINY)
    assert old is not None
    assert isinstance(await one.desk.delete_model(TINY), int)
    assert await one.desk.add_file(tiny, 200_000) == TINY
    two.hear(one)
    await until(lambda: (known := two.store.catalog.get(TINY)) is not None and known.identity != old.identity)
    assert isinstance(await two.desk.acquire(TINY, None, "user"), Acquisition)
    await until(lambda: two.store.registry.held(TINY) == one.store.registry.held(TINY) != ())
    # What somebody wants here stays as it is cut.
    wanted = two.store.catalog.get(TINY)
    assert isinstance(await one.desk.delete_model(TINY), int)
    assert await one.desk.add_file(tiny, 100_000) == TINY
    two.hear(one)
    assert two.desk._learner._unknown(one.id) == [] and wanted is not None
    kept = two.store.catalog.get(TINY)
    assert kept is not None and kept.manifest.layout == wanted.manifest.layout


async def test_a_silent_teller_does_not_keep_others_from_being_asked(
    folks: Folks, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: everybody else who told of the model waited for its turn, 25 minutes at the worst."""
    monkeypatch.setattr(learning, "TURN_S", 0.05)
    nodes, asker = [await with_model(folks, tiny, seed) for seed in (1, 2, 3)], await folks.start(4)
    for node in nodes[:2]:
        node.dispatcher._answers[CODES[AskManifest]] = never
    for node in nodes:
        await asker.connect(node)
    await until(lambda: asker.store.catalog.get(TINY) is not None)


async def never(ask: AskManifest, payload: memoryview, peer: PeerIdentity) -> NotFound:
    await asyncio.sleep(3600)
    return NotFound(what="")
