"""Models from the hub, by real sockets: asked for, told of, fetched, verified, shared out between nodes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from swarmd.domain.events import DownloadEnded, DownloadStarted
from swarmd.domain.hub import HubSource, ModelOrigin
from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.models import ShardState
from swarmd.domain.refusals import BadFile, IdTaken, Invalid, NoSpace, NotFound, Refusal, UnsupportedModel
from swarmd.domain.shards import Acquisition, TransferState
from swarmd.identity.keys import Signed
from swarmd.models.catalog import KnownModel
from swarmd.models.manifest import encode, signed
from swarmd.models.slicing import fair_share
from swarmd.shards import hub_desk as hub_desks
from tests.fakes.around import FILE, REPO, TINY, Around, asked, known_by, over, started, until, whole_file
from tests.fakes.gguf import TinyModel, write_model
from tests.hub.faults import Failing, Flip, Slow


async def test_a_whole_model_comes_is_sealed_and_is_the_hubs_file(around: Around, data: bytes) -> None:
    holder = await around.start(1)
    with holder.store.bus.spy() as spy:
        started = await asked(holder)
        assert isinstance(started, Acquisition) and started.model == TINY
        done = await over(holder)
        assert spy.of(DownloadStarted)[0].hub and spy.of(DownloadEnded)[0].state == "complete"
    assert done.state == "complete" and done.from_hub and done.name == "tiny", done.log
    count = len(known_by(holder).manifest.shards)
    assert count > 2 and holder.store.registry.held(TINY) == tuple(range(count))
    assert await whole_file(holder) == data
    assert any("byte for byte" in line for line in done.log), done.log
    assert all(shard.sealed for shard in known_by(holder).manifest.shards) and known_by(holder).pinned
    left = {path.suffix for path in holder.store.catalog.folder(TINY).iterdir()}
    assert left == {".bin", ".gguf", ".json", ".seal", ""}, "nothing half is left (pinned has no suffix)"
    assert isinstance(holder.hub_desk, hub_desks.HubDesk)
    assert await holder.hub_desk.origin(TINY) == ModelOrigin(model=TINY, repo_id=REPO, filename=FILE)
    assert not around.hub.counters.as_json().get("tokens_at_cdn")


async def test_only_what_was_asked_for_is_fetched(around: Around, data: bytes) -> None:
    holder = await around.start(1)
    assert isinstance(await asked(holder, shards=(1,)), Acquisition)
    assert (await over(holder)).state == "complete" and holder.store.registry.held(TINY) == (1,)
    known = known_by(holder)
    spec, start = known.manifest.shards[1], known.manifest.header_size_bytes
    first = min(span.offset_bytes for span in spec.tensors)
    assert any(first <= at < first + spec.size_bytes for at, _ in around.hub.counters.ranges(f"{REPO}/{FILE}"))
    for at, end in around.hub.counters.ranges(f"{REPO}/{FILE}"):
        inside = any(span.offset_bytes <= at and end <= first + spec.size_bytes for span in spec.tensors)
        assert inside or at < max(start, 256 << 10), "a range of another shard"


async def test_a_fair_share_is_told_of_before_the_data_and_the_others_take_the_rest(around: Around, data: bytes) -> None:
    first, second = await around.start(1), await around.start(2)
    await first.connect(second)
    assert isinstance(await asked(first, fair=True), Acquisition)
    told = first.summary().holdings
    assert [(one.model, one.shared) for one in told] == [(TINY, True)], "told before a shard is here, or with it"
    second.hear(first)
    await until(lambda: second.store.catalog.get(TINY) is not None)
    assert known_by(second).manifest.source == known_by(first).manifest.source
    count = len(known_by(second).manifest.shards)
    share = fair_share(second.id, TINY, count, 1)
    assert isinstance(await second.desk.acquire(TINY, share, "auto_manage"), Acquisition)
    assert (await over(first)).state == (await over(second)).state == "complete"
    assert first.store.registry.held(TINY) == fair_share(first.id, TINY, count, 1)
    assert second.store.registry.held(TINY) == share
    # Now the rest of it, from the other: each with the seal of whoever read it at the hub.
    first.hear(second)
    second.hear(first)
    here = around.hub.counters.ranges(f"{REPO}/{FILE}")
    around.hub.faults.add(Failing(), path=FILE)  # the hub is gone
    rest = tuple(index for index in range(count) if index not in share and index in first.store.registry.held(TINY))
    if rest:
        assert isinstance(await second.desk.acquire(TINY, rest, "user"), Acquisition)
        assert (await over(second)).state == "complete"
        assert set(rest) <= set(second.store.registry.held(TINY))
    assert here


async def test_a_node_that_is_stopped_goes_on_where_it_was(around: Around, data: bytes) -> None:
    holder = await around.start(1)
    around.hub.faults.add(Slow(150_000), path=FILE, origin="cdn", skip=1)
    assert isinstance(await asked(holder), Acquisition)
    await until(lambda: sum(one.done_bytes for one in started(holder).transfers) > 60_000)
    await around.stop(1)
    around.hub.faults.clear()
    holder = await around.start(1)
    done = await over(holder)
    assert done.state == "complete" and await whole_file(holder) == data
    assert any("after a restart" in line for line in done.log)


async def test_a_paused_download_shows_after_a_restart_what_is_kept_of_it(around: Around, data: bytes) -> None:
    """It showed 0 bytes and 0 %."""
    holder = await around.start(1)
    around.hub.faults.add(Slow(150_000), path=FILE, origin="cdn", skip=1)
    assert isinstance(await asked(holder), Acquisition)
    await until(lambda: sum(one.done_bytes for one in started(holder).transfers) > 60_000)
    assert await holder.desk.pause(TINY) is None
    before = [one.done_bytes for one in started(holder).transfers if one.state is not TransferState.COMPLETE]
    await around.stop(1)
    holder = await around.start(1)
    job = started(holder)
    assert job.state == "paused" and job.bytes_per_second == 0.0
    assert sum(one.done_bytes for one in job.transfers) >= sum(before) > 0


async def test_pause_resume_order_and_cancel(around: Around, data: bytes) -> None:
    around.hub.repo(REPO).file("second.Q8_0.gguf", data).file("third.Q8_0.gguf", data)
    second, third = ModelId("second.q8-0"), ModelId("third.q8-0")
    holder = await around.start(1)
    holder.settings[0] = replace(
        holder.settings[0], downloads=replace(holder.settings[0].downloads, models_at_once=1)
    )
    around.hub.faults.add(Slow(100_000), path="Q8_0", origin="cdn", skip=1)
    for name in (FILE, "second.Q8_0.gguf", "third.Q8_0.gguf"):
        assert isinstance(await asked(holder, filename=name), Acquisition)
    await until(lambda: started(holder).state == "downloading" and any(one.done_bytes for one in started(holder).transfers))
    assert [(one.model, one.state) for one in holder.desk.acquisitions()][1:] == [(second, "queued"), (third, "queued")]
    assert await holder.desk.move(third, 1) is None
    assert [one.model for one in holder.desk.acquisitions()] == [TINY, third, second]
    assert await holder.desk.pause(TINY) is None and started(holder).state == "paused"
    await until(lambda: started(holder, third).state == "downloading")
    done = sum(one.done_bytes for one in started(holder).transfers)
    await around.stop(1)
    holder = await around.start(1)
    assert started(holder).state == "paused", "a pause outlives the node"
    assert [one.model for one in holder.desk.acquisitions()] == [TINY, third, second], "so does the order"
    assert await holder.desk.cancel(third) is None and started(holder, third).state == "cancelled"
    folder = holder.store.catalog.folder(third)
    assert not [path for path in folder.iterdir() if path.suffix in (".partial", ".journal")], "nothing half is left"
    around.hub.faults.clear()
    assert await holder.desk.resume(TINY) is None
    assert (await over(holder)).state == "complete" and await whole_file(holder) == data and done > 0
    assert (await over(holder, second)).state == "complete"
    for change in (holder.desk.cancel, holder.desk.pause, holder.desk.resume):
        assert isinstance(await change(second), NotFound)
    assert isinstance(await holder.desk.move(second, 0), NotFound)


async def test_bytes_that_change_on_the_way_are_seen_without_tls(around: Around, data: bytes) -> None:
    """A shard nobody has read has no hash: over a line without TLS it is read twice."""
    holder = await around.start(1)
    around.hub.faults.add(Flip(at=4000), path=FILE, origin="cdn", skip=1, times=3)
    assert isinstance(await asked(holder), Acquisition)
    assert (await over(holder)).state == "complete" and await whole_file(holder) == data


async def test_a_split_model_is_one_model(around: Around, tmp_path: Path) -> None:
    folder = tmp_path / "split"
    folder.mkdir()
    write_model(folder / "tiny.Q8_0.gguf", TinyModel(), split_max_tensors=20)
    parts = sorted(folder.glob("*.gguf"))
    assert len(parts) > 2
    repo = around.hub.repo(REPO)
    for part in parts:
        repo.file(part.name, part.read_bytes())
    holder = await around.start(1)
    assert holder.hub_desk is not None
    view = await holder.hub_desk.probe(REPO, parts[1].name)
    assert not isinstance(view, Refusal) and view.model == TINY and len(view.source.parts) == len(parts)
    assert view.total_bytes == sum(part.stat().st_size for part in parts)
    assert isinstance(await asked(holder, filename=parts[0].name), Acquisition)
    done = await over(holder)
    assert done.state == "complete" and any("byte for byte" in line for line in done.log), done.log
    single = write_model(tmp_path / "tiny.Q8_0.gguf", TinyModel())
    other = await around.start(2)
    added = await other.desk.add_file(single, 200 * 512)
    assert added == TINY
    ours, theirs = known_by(holder).manifest, known_by(other).manifest
    assert [shard.blake3 for shard in ours.shards] == [shard.blake3 for shard in theirs.shards], "the same shards as unsplit"


async def test_a_manifest_that_lies_about_its_source_is_not_followed(around: Around, data: bytes) -> None:
    liar, holder = await around.start(1), await around.start(2)
    around.hub.repo(REPO).file("other.Q8_0.gguf", data[:-4096] + bytes(4096))
    assert isinstance(await asked(liar), Acquisition)
    await over(liar)
    manifest = known_by(liar).manifest
    source = manifest.source
    assert isinstance(source, HubSource)
    wrong = replace(source, parts=(replace(source.parts[0], filename="other.Q8_0.gguf"),))
    bare = tuple(replace(shard, blake3="", chunk_blake3=()) for shard in manifest.shards)
    forged = signed(
        replace(manifest, source=wrong, shards=bare), liar.id,
        lambda text: liar.store.key.sign(Signed.MANIFEST, text),
    )  # fmt: skip
    header = (liar.store.catalog.folder(TINY) / "gguf_header.bin").read_bytes()
    assert isinstance(await holder.store.catalog.adopt(encode(forged), header), KnownModel)
    assert isinstance(await holder.desk.acquire(TINY, None, "user"), Acquisition)
    await until(lambda: any("does not describe" in line for line in started(holder).log))
    assert holder.store.registry.held(TINY) == ()
    assert await holder.desk.cancel(TINY) is None


async def test_what_cannot_be_fetched_is_refused_with_the_reason(around: Around, data: bytes, tmp_path: Path) -> None:
    holder = await around.start(1)
    around.hub.repo(REPO).file("broken.gguf", b"GGUF" + bytes(100)).file("notes.txt", b"hello")
    strange = write_model(tmp_path / "strange.gguf", TinyModel()).read_bytes().replace(b"llama", b"zzama")
    around.hub.repo(REPO).file("strange.gguf", strange)
    for filename, kind in (
        ("absent.gguf", NotFound), ("notes.txt", Invalid), ("../x.gguf", Invalid), ("broken.gguf", BadFile),
        ("strange.gguf", UnsupportedModel),
    ):  # fmt: skip
        assert isinstance(await asked(holder, filename=filename), kind), filename
    assert isinstance(await asked(holder, shards=(0, 99)), Invalid)
    assert holder.store.catalog.all() == () and holder.store.registry.models() == (), "a refused wish leaves no model"
    assert not holder.store.catalog.folder(TINY).exists()
    holder.limit_disk(0)
    assert isinstance(await asked(holder), NoSpace)
    assert holder.store.catalog.all() == () and not holder.store.catalog.folder(TINY).exists()
    holder.limit_disk(10_000)
    assert isinstance(await asked(holder), Acquisition)
    await over(holder)
    other = write_model(tmp_path / "other.gguf", TinyModel(layers=4)).read_bytes()
    around.hub.repo("maker/other").file(FILE, other)
    assert holder.hub_desk is not None
    clash = await holder.hub_desk.fetch("maker/other", FILE, shards=None, fair_share=False, model=None)
    assert isinstance(clash, IdTaken)
    named = await holder.hub_desk.fetch("maker/other", FILE, shards=None, fair_share=False, model=ModelId("mine"))
    assert isinstance(named, Acquisition) and (await over(holder, ModelId("mine"))).state == "complete"


async def test_the_source_of_a_local_model_is_found_by_name_and_size(around: Around, data: bytes, tmp_path: Path) -> None:
    holder = await around.start(1)
    local = tmp_path / FILE
    local.write_bytes(data)
    assert await holder.desk.add_file(local, 100_000) == TINY
    assert holder.hub_desk is not None
    found = await holder.hub_desk.origin(TINY)
    assert found == ModelOrigin(model=TINY, repo_id=REPO, filename=FILE, discovered=True)
    asked_before = len(around.hub.counters.of("list"))
    assert await holder.hub_desk.origin(TINY) == found and len(around.hub.counters.of("list")) == asked_before
    assert isinstance(await holder.hub_desk.origin(ModelId("nobody-knows")), NotFound)


async def test_search_ranks_for_this_node(around: Around, data: bytes) -> None:
    around.hub.repo(REPO).say(tags=["gguf"])
    holder = await around.start(1)
    assert holder.hub_desk is not None
    found = await holder.hub_desk.search("tiny")
    assert not isinstance(found, Refusal) and [one.repo.repo_id for one in found] == [REPO]
    assert found[0].recommended == "Q8_0" and found[0].fits_vram and found[0].replicas == 0


async def test_a_file_of_this_machine_fills_in_what_did_not_come(around: Around, data: bytes, tmp_path: Path) -> None:
    """The manifest came first, without hashes: the same file from a stick gives them."""
    holder = await around.start(1)
    assert isinstance(await asked(holder, shards=(0,)), Acquisition)
    await over(holder)
    local = tmp_path / FILE
    local.write_bytes(data)
    assert await holder.desk.add_file(local, 100_000) == TINY
    assert len(holder.store.registry.held(TINY)) == len(known_by(holder).manifest.shards)
    assert await whole_file(holder) == data and holder.store.storage.state(ShardRef(TINY, 1)) is ShardState.HELD


async def test_who_waits_for_a_header_sees_how_much_of_it_has_come(around: Around, data: bytes) -> None:
    holder = await around.start(1)
    around.hub.faults.add(Slow(4000), path=FILE, origin="cdn")
    assert holder.hub_desk is not None and holder.hub_desk.probing() == ()
    asking = asyncio.get_running_loop().create_task(holder.hub_desk.probe(REPO, FILE))
    await until(lambda: any(one.read_bytes > 0 for one in holder.hub_desk.probing()))  # type: ignore[union-attr]
    assert [(one.repo_id, one.filename) for one in holder.hub_desk.probing()] == [(REPO, FILE)]
    asking.cancel()
    await asyncio.wait((asking,))
    assert holder.hub_desk.probing() == ()
