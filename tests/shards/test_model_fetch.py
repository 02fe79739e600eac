"""What is done when the shards of a model have come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmd.domain.events import ShardRejected
from swarmd.domain.peers import PeerIdentity
from swarmd.domain.refusals import NotFound
from swarmd.domain.shards import Acquisition
from swarmd.models.catalog import HEADER_NAME, MANIFEST_NAME, KnownModel
from swarmd.shards import model_fetch
from swarmd.shards.model_fetch import ASKED
from swarmd.wire.exchange import AskManifest
from swarmd.wire.messages import CODES
from tests.fakes.around import FILE, REPO, TINY, Around, asked, known_by, over, whole_file
from tests.fakes.gguf import TinyModel, write_model
from tests.hub.contents import Altered, Held
from tests.hub.faults import Cut
from tests.shards import test_desk as desks
from tests.shards.test_desk import Folks, ended, until, with_model


@pytest.fixture
async def folks(tmp_path: Path) -> AsyncIterator[Folks]:
    made = Folks(tmp_path)
    yield made
    for seed in reversed(list(made.stacks)):
        await made.stop(seed)


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
async def test_a_job_whose_model_is_another_one_now_says_so(folks: Folks, tiny: Path, paused: bool) -> None:
    """Nothing should do that to a job; when something did, nobody on the node could ask how much room there is."""
    one, two, other = await with_model(folks, tiny), await folks.start(2), await folks.start(3)
    assert await other.desk.add_file(tiny, 10_000_000) == desks.TINY
    await two.connect(one)
    await until(lambda: two.store.catalog.get(desks.TINY) is not None)
    folks.hub.change("node-1", "node-2", bytes_per_s=30_000)
    assert isinstance(await two.desk.acquire(desks.TINY, (2, 3)), Acquisition)
    await until(lambda: (job := two.desk.acquisition(desks.TINY)) is not None and bool(job.transfers[0].done_bytes))
    if paused:
        assert await two.desk.pause(desks.TINY) is None
    folder = other.store.catalog.folder(desks.TINY)
    data = (folder / MANIFEST_NAME).read_bytes(), (folder / HEADER_NAME).read_bytes()
    assert isinstance(await two.store.catalog.adopt(*data, admit=lambda known: (known.manifest.model,)), KnownModel)
    assert two.desk.room() > 0
    folks.hub.change("node-1", "node-2", bytes_per_s=30_000_000)
    if paused:
        assert await two.desk.resume(desks.TINY) is None
    done = await ended(two, desks.TINY)
    assert done.state == "failed" and "cut anew" in (done.reason or "")
    await until(lambda: desks.TINY not in two.desk._tasks)
    assert two.desk._supervisor is not None and two.desk._supervisor.failed_count == 0


async def test_silent_nodes_do_not_keep_the_one_that_answers_from_being_asked_for_the_manifest(
    folks: Folks, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were asked one after the other, and each had five minutes."""
    monkeypatch.setattr(model_fetch, "NEXT_S", 0.02)
    monkeypatch.setattr(model_fetch, "ENOUGH_S", 0.1)
    nodes = [await with_model(folks, tiny, seed) for seed in range(1, ASKED + 3)]
    *silent, _speaker = sorted(nodes, key=lambda node: node.id)
    asker, asked = await folks.start(9), list[PeerIdentity]()

    async def never(ask: AskManifest, payload: memoryview, peer: PeerIdentity) -> NotFound:
        asked.append(peer)
        await asyncio.sleep(3600)
        return NotFound(what="")

    for node in silent:
        node.dispatcher._answers[CODES[AskManifest]] = never
    await asker.connect(silent[0])  # and by itself it waits for that one
    for node in nodes:
        if node is not silent[0]:
            await asker.connect(node)
    assert isinstance(await asker.desk.acquire(desks.TINY, (0,)), Acquisition)
    assert (await ended(asker)).state == "complete"
    assert len(asked) <= len(silent), "each of them once"


async def test_a_hub_that_serves_another_file_than_it_states_is_found_out(around: Around, data: bytes) -> None:
    holder = await around.start(1)
    repo = around.hub.repo(REPO).file(FILE, Held(data))
    blob = repo.head.files[FILE]
    assert blob.sha256
    blob.content = Altered(blob.content, (len(data) - 100,))  # after its SHA-256 was told
    with holder.store.bus.spy() as spy:
        assert isinstance(await asked(holder), Acquisition)
        done = await over(holder)
        assert spy.of(ShardRejected)
    assert done.state == "failed" and "SHA-256" in (done.reason or "")
    assert holder.store.registry.held(TINY) == () and not any(shard.sealed for shard in known_by(holder).manifest.shards)


async def test_what_is_no_gguf_is_not_told_of_as_a_vision_encoder(around: Around, data: bytes) -> None:
    """2,004 bytes of nothing were stored and announced."""
    around.hub.repo(REPO).file("mmproj-tiny-f16.gguf", b"GGUF" + bytes(2000))
    holder = await around.start(1)
    assert isinstance(await asked(holder), Acquisition)
    done = await over(holder)
    assert done.state == "complete" and any("left out" in line for line in done.log), done.log
    path = holder.store.storage.vision_path(TINY)
    assert not path.exists() and not holder.store.storage.has_vision(TINY)
    path.write_bytes(b"GGUF" + bytes(2000))
    await around.stop(1)
    assert not (await around.start(1)).store.storage.has_vision(TINY)


async def test_the_vision_encoder_comes_along(around: Around, data: bytes) -> None:
    encoder = write_model(around.folder / "eyes.gguf", TinyModel(seed=7)).read_bytes()
    around.hub.repo(REPO).file("mmproj-tiny-f16.gguf", encoder).file("mmproj-tiny-f32.gguf", encoder * 2)
    holder = await around.start(1)
    assert isinstance(await asked(holder), Acquisition)
    done = await over(holder)
    assert done.state == "complete" and holder.store.storage.vision_path(TINY).read_bytes() == encoder
    view = holder.store.registry.view(TINY)
    assert view is not None and view.vision_here and view.vision_holders == (holder.id,)
    assert holder.summary().holdings[0].vision
    await around.stop(1)
    assert (await around.start(1)).store.storage.has_vision(TINY)


async def test_a_line_that_breaks_all_the_time_still_brings_everything(around: Around, data: bytes) -> None:
    holder = await around.start(1)
    around.hub.faults.add(Cut(after=9000), path=FILE, origin="cdn", probability=0.4, seed=7)
    assert isinstance(await asked(holder), Acquisition)
    assert (await over(holder)).state == "complete" and await whole_file(holder) == data
