from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from swarmd.domain.hub import HubPart, HubSource
from swarmd.domain.ids import ShardRef
from swarmd.domain.refusals import BadFile, HubFailed
from swarmd.downloads.engine import Engine
from swarmd.downloads.ranges import RangeClient
from swarmd.models.catalog import KnownModel
from swarmd.shards.hub_source import NEAR_STALL_S, HubChunks, HubLine, files_of
from swarmd.shards.landing import Landing
from swarmd.shards.sources import Work
from tests.fakes.holders import Store, open_store
from tests.fakes.landings import SMALL
from tests.fakes.lines import impatient_world
from tests.fakes.shards import CutModel, cut_model
from tests.fakes.storm import MODEL_FILE, REPO, Storm, adopted, fetch, hub_line, source_of, work_of
from tests.hub.faults import ChangedContent, Cut, Failing, Flip, RateLimited
from tests.hub.hub import LocalHub


class Here:
    """A hub with the tiny model, and a node that knows it."""

    def __init__(self, hub: LocalHub, folder: Path, tiny: Path) -> None:
        self.hub, self.data = hub, tiny.read_bytes()
        hub.repo(REPO).file(MODEL_FILE, self.data)
        self.cut: CutModel = cut_model(self.data, shard_size_bytes=100_000)
        self.store: Store = open_store(1, folder / "node")
        world = impatient_world()
        self.client = RangeClient(
            world=world, hub=lambda: hub.endpoint, token=lambda: None, proxy=lambda: None, user_agent="test", stall_s=5.0
        )
        self.engine = Engine(client=self.client, world=world, connections=lambda: 4, bytes_per_s=lambda: None)
        self.line: HubLine = hub_line(self.engine, self.client, hub)
        self.commit = hub.repo(REPO).head.sha
        self.source: HubSource = source_of(self.cut, self.data, self.commit)

    async def known(self, *, sealed: bool) -> KnownModel:
        return await adopted(self.store, self.cut, self.data, self.commit, sealed=sealed)

    async def landing(self, known: KnownModel, index: int = 1) -> Landing:
        return await self.store.storage.open_landing(ShardRef(known.manifest.model, index))

    def chunks(self, known: KnownModel, landing: Landing, *, near: bool = False, patience_s: float = 120.0) -> HubChunks:
        return HubChunks(
            line=self.line, known=known, source=self.source, spec=landing.spec, near=lambda: near, patience_s=patience_s
        )

    @property
    def sent(self) -> int:
        return self.hub.counters.sent[f"{REPO}/{MODEL_FILE}"]


@pytest.fixture
async def here(tmp_path: Path, tiny: Path) -> AsyncIterator[Here]:
    async with LocalHub() as hub:
        made = Here(hub, tmp_path, tiny)
        yield made
        await made.client.close()


async def payload(landing: Landing) -> bytes:
    return b"".join([await landing.read_chunk(number) for number in range(landing.spec.chunk_count)])


async def test_every_shard_comes_by_range_and_is_checked(here: Here) -> None:
    known = await here.known(sealed=True)
    for index, spec in enumerate(known.manifest.shards):
        here.hub.counters.reset()
        landing = await here.landing(known, index)
        assert await fetch(here.line, known, here.source, landing) is None
        assert spec.size_bytes <= here.sent <= spec.size_bytes + 64_000, "gaps between tensors, and nothing else beside"
        await landing.commit()
        ref = ShardRef(known.manifest.model, index)
        assert await here.store.storage.read_payload(ref, 0, spec.size_bytes) == here.cut.payloads[index]


async def test_without_hashes_and_tls_every_chunk_is_read_twice(here: Here) -> None:
    known = await here.known(sealed=False)
    landing = await here.landing(known)
    assert await fetch(here.line, known, here.source, landing) is None
    assert await payload(landing) == here.cut.payloads[1]
    assert here.sent >= 2 * landing.spec.size_bytes


async def test_over_tls_it_is_read_once(here: Here) -> None:
    known = await here.known(sealed=False)
    landing = await here.landing(known)
    chunks = HubChunks(
        line=replace(here.line, url=lambda *_: "https://hub/x"), known=known, source=here.source, spec=landing.spec,
        near=lambda: False,
    )  # fmt: skip
    assert await chunks.confirm(work_of(landing), 0)
    assert here.sent == 0


@pytest.mark.parametrize("sealed", [True, False])
async def test_a_flipped_byte_is_fetched_again(here: Here, sealed: bool) -> None:
    known = await here.known(sealed=sealed)
    landing = await here.landing(known)
    rule = here.hub.faults.add(Flip(), origin="cdn", times=2)
    assert await fetch(here.line, known, here.source, landing) is None
    assert rule.hits == 2
    assert await payload(landing) == here.cut.payloads[1]


async def test_a_hub_that_sends_something_else_is_trouble_and_nothing_of_it_stays(here: Here) -> None:
    known = await here.known(sealed=True)
    landing = await here.landing(known)
    here.hub.faults.add(ChangedContent(etag=False), origin="cdn")
    trouble = await fetch(here.line, known, here.source, landing)
    assert trouble is not None and "wrong bytes 3 times" in trouble.reason and not trouble.ours
    assert trouble.contradicts, "what the hashes are, it should know"
    assert not any(landing.has(number) for number in range(landing.spec.chunk_count))
    assert landing.open, "a peer can still bring it"


async def test_the_landing_survives_a_hub_that_fails(here: Here) -> None:
    """Seen: what was being written when the hub failed was cancelled, and the landing closed for the peers too."""
    known = await here.known(sealed=True)
    landing = await here.landing(known)
    here.hub.faults.add(Cut(after=3000), origin="cdn", times=3)
    here.hub.faults.add(Failing(status=500), origin="cdn", skip=3)
    work = work_of(landing)
    chunks = here.chunks(known, landing, patience_s=0.01)
    work.join(chunks)
    trouble = await chunks.run(work)
    assert trouble is not None and "status 500" in trouble.reason
    work.leave(chunks)
    assert work.board.free == len(landing.missing()), "what it had claimed is free again"
    for number in landing.missing():
        at = number * SMALL
        await landing.write_chunk(number, memoryview(here.cut.payloads[1][at : at + landing.chunk_size(number)]))
    await landing.commit()


async def test_what_a_killed_fetch_left_is_not_fetched_again(here: Here) -> None:
    known = await here.known(sealed=True)
    landing = await here.landing(known)
    half = landing.missing()[::2]
    for number in half:
        at = number * SMALL
        await landing.write_chunk(number, memoryview(here.cut.payloads[1][at : at + landing.chunk_size(number)]))
    await landing.end()
    again = await here.landing(known)
    assert await fetch(here.line, known, here.source, again) is None
    await again.commit()
    ranges = here.hub.counters.ranges(f"{REPO}/{MODEL_FILE}")
    assert all(stop - start <= SMALL + 1024 for start, stop in ranges)


async def test_a_manifest_that_is_not_of_this_file_is_not_fetched(here: Here) -> None:
    async def doubt(_: KnownModel) -> BadFile:
        return BadFile(what="the file at the hub has another header")

    known = await here.known(sealed=False)
    landing = await here.landing(known)
    trouble = await fetch(replace(here.line, confirm=doubt), known, here.source, landing)
    assert trouble is not None and "another header" in trouble.reason
    assert here.sent == 0


async def test_a_hub_that_stumbles_when_it_is_asked_about_the_manifest_is_asked_again(here: Here) -> None:
    """Seen: one answer with status 503, and the hub was left for the rest of the shard."""
    answers: list[HubFailed] = [HubFailed(what="the hub fails (status 503)")] * 2

    async def stumble(_: KnownModel) -> HubFailed | None:
        return answers.pop() if answers else None

    known = await here.known(sealed=False)
    landing = await here.landing(known)
    assert await fetch(replace(here.line, confirm=stumble), known, here.source, landing) is None
    assert not landing.missing() and not answers


async def test_a_hub_that_keeps_failing_is_left_after_its_patience(here: Here) -> None:
    async def fail(_: KnownModel) -> HubFailed:
        return HubFailed(what="the hub fails (status 503)", retry_after_s=3.0)

    known = await here.known(sealed=False)
    landing = await here.landing(known)
    here.line = replace(here.line, confirm=fail)
    chunks, work = here.chunks(known, landing, patience_s=2.0), work_of(landing)
    trouble = await chunks.run(work)
    assert trouble is not None and "try again in 3 s" in trouble.reason and not trouble.contradicts
    assert "it is asked again" in work.job.snapshot(at=0.0).log[0] and here.sent == 0


async def test_a_hub_that_only_says_come_back_at_once_is_left_after_its_patience(here: Here) -> None:
    here.hub.faults.add(RateLimited(seconds=0), path=MODEL_FILE)
    known = await here.known(sealed=True)
    landing = await here.landing(known)
    work = work_of(landing)
    chunks = here.chunks(known, landing, patience_s=0.05)
    work.join(chunks)
    trouble = await chunks.run(work)
    assert trouble is not None and "status 429" in trouble.reason


async def test_what_a_cancelled_source_wrote_to_its_end_counts(here: Here) -> None:
    known = await here.known(sealed=True)
    landing = await here.landing(known)
    work = work_of(landing)
    for number in landing.missing():  # nobody tells the board
        at = number * SMALL
        await landing.write_chunk(number, memoryview(here.cut.payloads[1][at : at + landing.chunk_size(number)]))
    chunks = here.chunks(known, landing)
    work.join(chunks)
    async with asyncio.timeout(10):
        assert await chunks.run(work) is None
    assert not work.wanted and here.sent == 0


async def test_a_repository_that_is_closed_now_is_trouble_with_its_sentence(here: Here) -> None:
    here.hub.repo(REPO).say(gated="auto")
    known = await here.known(sealed=True)
    trouble = await fetch(here.line, known, here.source, await here.landing(known))
    assert trouble is not None and "behind terms" in trouble.reason


@pytest.mark.looptime
async def test_the_hub_is_left_alone_while_near_peers_bring_the_shard(tmp_path: Path, tiny: Path) -> None:
    hub = LocalHub()
    here = Here.__new__(Here)
    here.data, here.commit = tiny.read_bytes(), "0" * 40
    here.cut = cut_model(here.data, shard_size_bytes=100_000)
    here.store, here.source = open_store(1, tmp_path / "node"), source_of(here.cut, here.data, here.commit)
    asked: list[float] = []

    class Asked:
        async def run(self, *_: object, **__: object) -> None:
            asked.append(asyncio.get_running_loop().time())
            while work.wanted:
                work.arrived(chunks, min(work.board.missing))

    here.line = replace(hub_line(Asked(), None, hub), engine=Asked())  # type: ignore[arg-type]
    known = await here.known(sealed=True)
    landing = await here.landing(known)
    work: Work = work_of(landing)
    work.progress_at = work.now()
    chunks = here.chunks(known, landing, near=True)
    work.join(chunks)
    running = asyncio.create_task(chunks.run(work))
    await asyncio.sleep(3)
    work.came(1)
    assert await running is None
    assert len(asked) == 1 and NEAR_STALL_S + 3 <= asked[0] <= NEAR_STALL_S + 6


async def test_a_cancelled_fetch_leaves_no_task(here: Here) -> None:
    known = await here.known(sealed=True)
    landing = await here.landing(known)
    before = asyncio.all_tasks()
    task = asyncio.create_task(fetch(here.line, known, here.source, landing))
    while not here.sent:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    left = {one for one in asyncio.all_tasks() - before if "Server." not in repr(one.get_coro())}
    assert not left


def parts(*sizes: int) -> HubSource:
    """Files with headers of 100, 110, ... bytes, one behind the other from 1000 on."""
    found, at = [], 1000
    for number, size in enumerate(sizes):
        offset = 100 + 10 * number
        found.append(
            HubPart(
                filename=f"x-{number}.gguf", size_bytes=offset + size, sha256=None, data_offset=offset, virtual_offset=at
            )
        )
        at += size
    return HubSource(repo_id=REPO, commit="0" * 40, parts=tuple(found))


async def test_where_bytes_of_a_split_model_lie(here: Here) -> None:
    known = await here.known(sealed=True)
    landing = await here.landing(known)
    chunks = HubChunks(
        line=here.line, known=known, source=parts(300, 200, 500), spec=landing.spec, near=lambda: False
    )
    found = chunks._in_parts(1250, 400)
    assert [(piece.file.name[-8:], piece.offset, piece.size) for piece in found] == [
        ("x-0.gguf", 350, 50), ("x-1.gguf", 110, 200), ("x-2.gguf", 120, 150),
    ]  # fmt: skip
    assert [piece.size for piece in chunks._in_parts(1000, 1)] == [1]


def test_files_of_a_source_are_asked_for_at_their_commit() -> None:
    files = files_of(parts(5, 6), lambda name: f"http://hub/{name[:-5]}")
    assert [(one.url, one.size_bytes, one.name) for one in files] == [
        ("http://hub/x-0", 105, f"{REPO}/x-0.gguf"), ("http://hub/x-1", 116, f"{REPO}/x-1.gguf"),
    ]  # fmt: skip


async def test_a_storm_of_faults_leaves_no_wrong_byte(tmp_path: Path) -> None:
    """The whole thousand: `python -m bench.resume --faults 1000`."""
    async with LocalHub() as hub:
        storm = Storm(hub, tmp_path, seed=7)
        try:
            outcome = await storm.blow(100)
        finally:
            await storm.close()
    assert outcome.wrong == []
    assert outcome.faults >= 100
    assert outcome.files and outcome.shards["sealed"] and outcome.shards["unsealed"]
