"""Faults of all kinds by lot, while files and shards are fetched: every byte that is kept has to be the right one.

Chunks of shards have to be small, as `tests/shards/conftest` makes them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from swarmd.domain.hub import HubPart, HubSource
from swarmd.domain.ids import ShardRef
from swarmd.downloads.engine import Engine, SourceFailed
from swarmd.downloads.files import Files, parts_of
from swarmd.downloads.ranges import RangeClient, RemoteFile
from swarmd.kit.disk import Disk
from swarmd.kit.gauges import Gauges
from swarmd.models.catalog import KnownModel
from swarmd.models.manifest import encode
from swarmd.shards.board import Board
from swarmd.shards.hub_source import HubChunks, HubLine
from swarmd.shards.jobs import Job
from swarmd.shards.landing import Landing
from swarmd.shards.sources import Trouble, Work
from swarmd.shards.storage import ShardStorage
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.holders import Store, open_store
from tests.fakes.lines import impatient_world
from tests.fakes.shards import CutModel, cut_model
from tests.hub.contents import Altered, Pattern
from tests.hub.faults import (
    ChangedContent,
    Cut,
    Delay,
    Denied,
    Failing,
    Fault,
    LyingRange,
    Misplaced,
    RateLimited,
    Rule,
    Short,
    Slow,
    Stall,
    Whole,
    WrongLength,
)
from tests.hub.hub import LocalHub
from tests.hub.messages import Exchange, Reply, Resource

REPO, FILE, MODEL_FILE = "owner/name", "file.gguf", "tiny.gguf"
SIZE = (6 << 20) + 777
TRIES = 60  # of one file or shard; each goes on where the last one ended


class Flipped(Fault):
    """One byte inverted, another one each time."""

    def __init__(self, lots: random.Random) -> None:
        self._lots = lots

    def fits_reply(self, exchange: Exchange, reply: Reply) -> bool:
        return reply.bulk and exchange.method != "HEAD" and reply.size > 0

    def bend(self, reply: Reply) -> None:
        reply.content = Altered(reply.content, (self._lots.randrange(reply.start, reply.stop),))


class Shifted(Flipped):
    """Bytes from elsewhere, from another place each time."""

    def bend(self, reply: Reply) -> None:
        Misplaced(by=self._lots.randrange(1, 5000)).bend(reply)


class Replaced(Flipped):
    """Another file of the same size, another one each time."""

    def fits_reply(self, exchange: Exchange, reply: Reply) -> bool:
        return False

    def fits_file(self, exchange: Exchange, resource: Resource) -> bool:
        return exchange.method == "GET"

    def change(self, resource: Resource) -> None:
        ChangedContent(seed=self._lots.randrange(1 << 20), etag=False).change(resource)


@dataclass
class Outcome:
    faults: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    files: int = 0
    shards: Counter[str] = field(default_factory=Counter)
    """`sealed` and `unsealed`."""
    fetched: int = 0
    """Bytes that storage sent."""
    kept: int = 0
    tries: int = 0
    """Beyond the first of each."""
    wrong: list[str] = field(default_factory=list)


def faults(lots: random.Random) -> tuple[Fault, ...]:
    flips = (Flipped(lots),) * 6  # what counts here; the others only cost time
    return (
        *flips, Shifted(lots), Replaced(lots), Short(by=1), Short(by=3000), Cut(), Cut(after=500), WrongLength(by=3),
        WrongLength(by=-3), Stall(seconds=30, after=200), Failing(status=500), Failing(status=502), Failing(retry_after=0),
        RateLimited(seconds=0), RateLimited(seconds=0, as_date=True), Denied(), Whole(), LyingRange(by=1),
        LyingRange(by=0, total_by=5), Slow(rate=2e7), Delay(seconds=0.001),
    )  # fmt: skip


class Storm:
    """Entered: a hub with a file and a small model, and what fetches from them."""

    def __init__(self, hub: LocalHub, folder: Path, seed: int) -> None:
        self.hub, self.folder = hub, folder
        self._lots = random.Random(seed)
        self._world = impatient_world()
        self._client = RangeClient(
            world=self._world, hub=lambda: hub.endpoint, token=lambda: None, proxy=lambda: None, user_agent="storm",
            stall_s=0.05,
        )  # fmt: skip
        self._engine = Engine(
            client=self._client, world=self._world, connections=lambda: 6, bytes_per_s=lambda: None
        )
        self._data = write_model(folder / MODEL_FILE, TinyModel()).read_bytes()
        self._cut = cut_model(self._data, shard_size_bytes=100_000)
        hub.repo(REPO).file(FILE, Pattern(SIZE)).file(MODEL_FILE, self._data)
        self._commit = hub.repo(REPO).head
        self._file = Pattern(SIZE).read(0, SIZE)
        self._round = 0
        self.outcome = Outcome()

    async def close(self) -> None:
        await self._client.close()

    async def blow(self, count: int, *, told: Callable[[Outcome], None] = lambda _: None) -> Outcome:
        """Fetch files and shards until so many faults have happened, three at ten requests."""
        seed = self._lots.randrange(1 << 30)
        rule = self.hub.faults.add(*faults(self._lots), origin="cdn", probability=0.3, seed=seed)
        while rule.hits < count:
            self._round += 1
            folder = self.folder / str(self._round)
            if self._round % 3 == 2:
                await self._whole(folder)
            else:
                await self._shards(folder, sealed=self._round % 3 == 0)
            self._count(rule)
            told(self.outcome)
        self.hub.faults.remove(rule)
        return self.outcome

    def _count(self, rule: Rule) -> None:
        self.outcome.faults = rule.hits
        self.outcome.kinds = self.hub.counters.faults
        self.outcome.fetched = self.hub.counters.sent.total()

    async def _whole(self, folder: Path) -> None:
        path, blob = folder / FILE, self._commit.files[FILE]
        file = RemoteFile(url=self._url(FILE), size_bytes=blob.size, name=FILE, sha256=blob.sha256)
        for _ in range(TRIES):
            try:
                await Files(engine=self._engine, disk=Disk()).fetch(file, path)
                break
            except SourceFailed:
                self.outcome.tries += 1
                self._expect(not path.exists(), "a file has its name without being whole")
        else:
            self._expect(False, "a file never came")
        self._expect(path.exists() and path.read_bytes() == self._file, "a file has wrong bytes")
        self._expect(not any(left.exists() for left in parts_of(path)), "something was left beside a file")
        self.outcome.files += 1
        self.outcome.kept += blob.size
        path.unlink()

    async def _shards(self, folder: Path, *, sealed: bool) -> None:
        store = open_store(1, folder)
        known = await adopted(store, self._cut, self._data, self._commit.sha, sealed=sealed)
        for spec in known.manifest.shards:
            ref = ShardRef(known.manifest.model, spec.index)
            landing = await self._land(store.storage, known, ref)
            if landing is None:
                continue
            right = self._cut.payloads[spec.index]
            if sealed:
                await landing.commit()
                self._expect(await store.storage.read_payload(ref, 0, spec.size_bytes) == right, "a shard has wrong bytes")
            else:
                await landing.hash()
                there = b"".join([await landing.read_chunk(number) for number in range(spec.chunk_count)])
                self._expect(there == right, "an unsealed shard has wrong bytes")
                landing.give_up()
            self.outcome.shards["sealed" if sealed else "unsealed"] += 1
            self.outcome.kept += spec.size_bytes
        await store.catalog.forget(known.manifest.model) if hasattr(store.catalog, "forget") else None

    async def _land(self, storage: ShardStorage, known: KnownModel, ref: ShardRef) -> Landing | None:
        landing = await storage.open_landing(ref)
        for _ in range(TRIES):
            trouble = await fetch(self._line(), known, self._source(), landing)
            if not landing.missing():
                return landing
            self._expect(trouble is not None and not trouble.ours, f"a shard is not here, and why is not said: {trouble}")
            self.outcome.tries += 1
        self._expect(False, "a shard never came")
        return None

    def _line(self) -> HubLine:
        return hub_line(self._engine, self._client, self.hub)

    def _source(self) -> HubSource:
        return source_of(self._cut, self._data, self._commit.sha)

    def _url(self, name: str) -> str:
        return f"{self.hub.endpoint}/{REPO}/resolve/{self._commit.sha}/{name}"

    def _expect(self, good: bool, what: str) -> None:
        if not good:
            self.outcome.wrong.append(f"round {self._round}: {what}")


def hub_line(engine: Engine, client: RangeClient, hub: LocalHub) -> HubLine:
    async def confirm(_: KnownModel) -> None:
        return None

    async def whole(_: KnownModel) -> None:
        return None

    return HubLine(
        engine=engine,
        client=client,
        files=Files(engine=engine, disk=Disk()),
        whole=whole,
        url=lambda repo, commit, name: f"{hub.endpoint}/{repo}/resolve/{commit}/{name}",
        confirm=confirm,
    )


def source_of(cut: CutModel, data: bytes, commit: str) -> HubSource:
    offset = cut.header.data_offset
    part = HubPart(filename=MODEL_FILE, size_bytes=len(data), sha256=None, data_offset=offset, virtual_offset=offset)
    return HubSource(repo_id=REPO, commit=commit, parts=(part,))


async def adopted(store: Store, cut: CutModel, data: bytes, commit: str, *, sealed: bool) -> KnownModel:
    manifest = cut.manifest
    if not sealed:
        bare = tuple(replace(shard, blake3="", chunk_blake3=()) for shard in manifest.shards)
        manifest = replace(manifest, shards=bare, source=source_of(cut, data, commit))
    known = await store.catalog.adopt(encode(manifest), data[: cut.header.data_offset])
    assert isinstance(known, KnownModel), known
    return known


def work_of(landing: Landing) -> Work:
    world = impatient_world()
    job = Job(landing.ref.model, trigger="user", started_at=0.0)
    job.want([(landing.ref.index, landing.spec.size_bytes)])
    job.begin(landing.ref.index, done_bytes=landing.done_bytes, source=None)
    board = Board(landing.missing(), count=landing.spec.chunk_count)
    return Work(job=job, landing=landing, layout="", board=board, clock=world.clock, gauges=Gauges())


async def fetch(line: HubLine, known: KnownModel, source: HubSource, landing: Landing) -> Trouble | None:
    """What is missing of one shard, from the hub alone."""
    work = work_of(landing)
    chunks = HubChunks(line=line, known=known, source=source, spec=landing.spec, near=lambda: False)
    work.join(chunks)
    try:
        return await chunks.run(work)
    finally:
        work.leave(chunks)
