"""What is done when the shards of a model have come."""

from __future__ import annotations

from swarmd.domain.events import ShardRejected
from swarmd.domain.shards import Acquisition
from tests.fakes.around import FILE, REPO, TINY, Around, asked, known_by, over, whole_file
from tests.hub.contents import Altered, Held
from tests.hub.faults import Cut


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


async def test_the_vision_encoder_comes_along(around: Around, data: bytes) -> None:
    encoder = bytes(range(256)) * 300
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
