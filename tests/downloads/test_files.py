from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.downloads.engine import SourceFailed, Span
from swarmd.downloads.files import BLOCK_BYTES, RESTARTS, Corrupt, FileWork, parts_of
from swarmd.downloads.ranges import RemoteFile, SourceRefused
from swarmd.kit.disk import Disk
from swarmd.kit.journal import BLOCKS_LIMIT, BlockJournal
from tests.downloads.conftest import DATA, LABEL, NAME, REPO, SIZE, Setup
from tests.fakes.proxy import Proxy
from tests.hub.contents import Pattern
from tests.hub.faults import (
    ChangedContent,
    Cut,
    Delay,
    Denied,
    Failing,
    Fault,
    Flip,
    LyingRange,
    Misplaced,
    RateLimited,
    RedirectLoop,
    Short,
    Slow,
    Stall,
    Whole,
    WrongLength,
)
from tests.hub.hub import LocalHub

BLOCKS = -(-SIZE // BLOCK_BYTES)


def left_beside(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir()) if path.parent.exists() else []


async def test_a_file_comes_whole_and_leaves_nothing_beside(at: Setup) -> None:
    told: list[int] = []
    came: list[int] = []
    await at.files().fetch(at.remote(), at.path, received=came.append, progress=told.append)
    assert at.path.read_bytes() == DATA
    assert left_beside(at.path) == [NAME]
    assert told == sorted(told)
    assert (told[0], told[-1], sum(came), at.sent) == (0, SIZE, SIZE, SIZE)


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1])
async def test_files_of_every_size(at: Setup, size: int) -> None:
    at.hub.repo(REPO).file("x.gguf", Pattern(size))
    await at.files().fetch(at.remote("x.gguf"), at.path)
    assert at.path.read_bytes() == Pattern(size).read(0, size)


async def test_plain_files_are_checked_by_the_hash_of_git(at: Setup) -> None:
    await at.files().fetch(at.remote("config.json"), at.path)
    assert at.path.read_bytes() == b'{"a": 1}\n'
    await at.files().fetch(at.remote("empty.txt"), at.path.with_name("empty"))
    at.hub.faults.add(ChangedContent(etag=False), path="config")
    with pytest.raises(Corrupt):
        await at.files().fetch(at.remote("config.json"), at.path)
    wrong = RemoteFile(url="http://hub/empty", size_bytes=0, name="empty", sha256="0" * 64)
    with pytest.raises(Corrupt, match="said to be empty"):
        await at.files().fetch(wrong, at.path)


async def test_many_small_files_side_by_side(at: Setup) -> None:
    repository = at.hub.repo(REPO)
    for number in range(60):
        repository.file(f"plugin/{number}.json", f'{{"number": {number}}}')
    files, folder = at.files(), at.path.parent
    async with asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(files.fetch(at.remote(f"plugin/{number}.json"), folder / f"{number}.json"))
    assert [(folder / f"{number}.json").read_text() for number in range(60)] == [f'{{"number": {n}}}' for n in range(60)]
    assert len(left_beside(at.path)) == 60


FAULTS: list[Fault] = [
    Short(by=10), Cut(after=100_000), Cut(), WrongLength(by=5), WrongLength(by=-5), Stall(seconds=60, after=70_000),
    Failing(status=500), Failing(status=503), Denied(), Whole(), LyingRange(by=1), LyingRange(by=0, total_by=-1),
    RedirectLoop(), RateLimited(seconds=0), Delay(seconds=60),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_what_goes_wrong_for_a_while_costs_time_and_nothing_else(at: Setup, fault: Fault) -> None:
    at.stall_s = 0.1 if isinstance(fault, Stall | Delay) else 5.0
    rule = at.hub.faults.add(fault, origin="cdn", times=8 if isinstance(fault, RedirectLoop) else 4)
    await at.files().fetch(at.remote(), at.path)
    assert at.path.read_bytes() == DATA
    assert rule.hits >= 4
    assert left_beside(at.path) == [NAME]


async def test_an_expired_link_in_the_middle_is_looked_up_again(at: Setup) -> None:
    def received(_: int) -> None:
        if not at.hub.counters.statuses[403]:
            at.hub.expire_links()

    await at.files().fetch(at.remote(), at.path, received=received)
    assert at.path.read_bytes() == DATA
    assert at.sent <= SIZE + BLOCK_BYTES


async def test_one_slow_lane_among_quick_ones(at: Setup) -> None:
    at.hub.faults.add(Slow(rate=2_000_000), origin="cdn", times=1)
    await at.files().fetch(at.remote(), at.path)
    assert at.path.read_bytes() == DATA


@pytest.mark.parametrize("fault", [Flip(at=3_000_000), Misplaced(by=1)], ids=lambda fault: type(fault).__name__)
async def test_wrong_bytes_are_found_by_the_hash_and_mended(at: Setup, fault: Fault) -> None:
    at.hub.faults.add(fault, origin="cdn", times=1)
    await at.files().fetch(at.remote(), at.path)
    assert at.path.read_bytes() == DATA
    # All came once more to be compared, and what differed a third time: one block, or one request of several.
    assert at.sent <= 3 * SIZE


async def test_wrong_bytes_while_comparing_are_found_too(at: Setup) -> None:
    at.hub.faults.add(Flip(at=3_000_000), origin="cdn", nth=1)
    at.hub.faults.add(Flip(at=4_500_000), origin="cdn", nth=2)
    await at.files().fetch(at.remote(), at.path)
    assert at.path.read_bytes() == DATA


async def test_a_source_that_keeps_sending_something_else_is_given_up(at: Setup) -> None:
    at.hub.faults.add(ChangedContent(etag=False), origin="cdn")
    with pytest.raises(Corrupt, match="try another source"):
        await at.files().fetch(at.remote(), at.path)
    assert left_beside(at.path) == []


async def test_a_source_that_sends_something_else_each_time_is_given_up(at: Setup) -> None:
    """Seen: while comparing, a block that came otherwise each time was fetched for ever."""
    for nth in range(1, 60):
        at.hub.faults.add(ChangedContent(seed=nth, etag=False), origin="cdn", nth=nth)
    with pytest.raises(Corrupt, match=r"comes otherwise each time|another hash"):
        await at.files().fetch(at.remote(), at.path)
    assert at.sent < 12 * SIZE


async def test_what_the_disk_lost_is_fetched_again(at: Setup) -> None:
    """Seen: the compared bytes were those of the journal, so the disk kept the others and all was thrown away."""
    await interrupt(at, 3)
    part, _ = parts_of(at.path)
    with part.open("r+b") as file:
        file.write(b"\xff" * 100)
    await at.files().fetch(at.remote(), at.path)
    assert at.path.read_bytes() == DATA


# --- servers without ranges ---------------------------------------------------------------------------------------------


async def test_a_server_that_ignores_ranges_delivers_the_file_as_a_whole(at: Setup) -> None:
    at.hub.faults.add(Whole(), origin="cdn")
    await at.files().fetch(at.remote(), at.path)
    assert at.path.read_bytes() == DATA


async def test_without_ranges_it_goes_on_from_the_start_and_keeps_what_is_there(at: Setup) -> None:
    at.hub.faults.add(Whole(), origin="cdn")
    at.hub.faults.add(Cut(after=2_500_000), origin="cdn", times=12)  # those of a part asked for are not read that far
    told: list[int] = []
    await at.files().fetch(at.remote(), at.path, progress=told.append)
    assert at.path.read_bytes() == DATA
    assert told == sorted(told)


async def test_without_ranges_and_never_to_the_end_is_given_up(at: Setup) -> None:
    at.hub.faults.add(Whole(), origin="cdn")
    at.hub.faults.add(Cut(after=2_500_000), origin="cdn")
    with pytest.raises(SourceFailed, match="as a whole only, and breaks off each time"):
        await at.files().fetch(at.remote(), at.path)
    assert at.hub.counters.kinds["storage-get"] < RESTARTS + 20


# --- gone on with -------------------------------------------------------------------------------------------------------


async def interrupt(at: Setup, blocks: int, disk: Disk | None = None) -> int:
    """Cancel a fetch as soon as so many blocks are there; how many bytes of the file are."""
    done = 0
    task: asyncio.Task[None]

    def progress(size: int) -> None:
        nonlocal done
        done = size
        if size >= blocks * BLOCK_BYTES:
            task.cancel()

    task = asyncio.create_task(at.files(disk).fetch(at.remote(), at.path, progress=progress))
    with pytest.raises(asyncio.CancelledError):
        await task
    return done


@pytest.mark.parametrize("connections", [1, 4])
async def test_cancelled_it_is_gone_on_with(at: Setup, connections: int) -> None:
    at.connections = connections
    at.hub.faults.add(Slow(rate=8e6, shared=True), origin="cdn")
    await interrupt(at, 3)
    part, sidecar = parts_of(at.path)
    assert left_beside(at.path) == sorted([part.name, sidecar.name])
    at.hub.faults.clear()
    at.hub.counters.reset()
    told: list[int] = []
    await at.files().fetch(at.remote(), at.path, progress=told.append)
    assert at.path.read_bytes() == DATA
    assert told[0] >= 3 * BLOCK_BYTES
    assert at.sent <= SIZE - 3 * BLOCK_BYTES


class SlowDisk(Disk):
    """Counts who writes now. Its threads take their time."""

    writing = 0

    def write_parts_now(self, path: Path, offset: int, parts: Sequence[bytes | memoryview]) -> None:
        import time

        self.writing += 1
        time.sleep(0.01)
        super().write_parts_now(path, offset, parts)
        self.writing -= 1


async def test_cancelled_no_thread_writes_on_and_discard_leaves_nothing(at: Setup) -> None:
    disk, files = SlowDisk(), at.files()
    await interrupt(at, 2, disk)
    assert disk.writing == 0
    assert asyncio.all_tasks() <= {asyncio.current_task()} | hub_tasks()
    await files.discard(at.path)
    assert left_beside(at.path) == []
    await files.discard(at.path)


def hub_tasks() -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if "Server." in repr(task.get_coro())}


async def test_another_file_at_the_same_place_begins_anew(at: Setup) -> None:
    at.hub.faults.add(Slow(rate=8e6, shared=True), origin="cdn")
    await interrupt(at, 2)
    at.hub.faults.clear()
    at.hub.repo(REPO).file(NAME, Pattern(SIZE, seed=9))
    told: list[int] = []
    await at.files().fetch(at.remote(), at.path, progress=told.append)
    assert at.path.read_bytes() == Pattern(SIZE, seed=9).read(0, SIZE)
    assert told[0] == 0


async def test_a_journal_without_its_file_counts_for_nothing(at: Setup) -> None:
    at.hub.faults.add(Slow(rate=8e6, shared=True), origin="cdn")
    await interrupt(at, 2)
    at.hub.faults.clear()
    parts_of(at.path)[0].unlink()
    await at.files().fetch(at.remote(), at.path)
    assert at.path.read_bytes() == DATA


# --- side by side -------------------------------------------------------------------------------------------------------


async def test_two_fetches_of_one_file_to_one_path_are_one(at: Setup) -> None:
    """Seen: they wrote one `.part`, and the second found nothing to give its name to."""
    files = at.files()
    told: list[int] = []
    await asyncio.gather(files.fetch(at.remote(), at.path), files.fetch(at.remote(), at.path, progress=told.append))
    assert at.path.read_bytes() == DATA
    assert at.sent == SIZE
    assert told[-1] == SIZE


async def test_the_second_of_two_goes_on_when_the_first_is_cancelled(at: Setup) -> None:
    at.hub.faults.add(Slow(rate=30e6, shared=True), origin="cdn")
    files = at.files()
    one = asyncio.create_task(files.fetch(at.remote(), at.path))
    two = asyncio.create_task(files.fetch(at.remote(), at.path))
    while at.sent < 2 * BLOCK_BYTES:
        await asyncio.sleep(0.001)
    one.cancel()
    await two
    assert one.cancelled()
    assert at.path.read_bytes() == DATA


async def test_two_files_to_one_path_are_refused(at: Setup) -> None:
    files = at.files()
    one = asyncio.create_task(files.fetch(at.remote(), at.path))
    await asyncio.sleep(0)
    with pytest.raises(SourceRefused, match="another file is being fetched"):
        await files.fetch(at.remote("config.json"), at.path)
    await one
    assert at.path.read_bytes() == DATA


# --- the disk -----------------------------------------------------------------------------------------------------------


class FullDisk(Disk):
    """`room`: what it says is free. `after`: blocks until nothing more can be written."""

    def __init__(self, *, room: int | None = None, after: int | None = None, reserves: bool = True) -> None:
        self.room, self.after, self.reserves = room, after, reserves

    def free_bytes_now(self, path: Path) -> int:
        return super().free_bytes_now(path) if self.room is None else self.room

    def preallocate_now(self, path: Path, size: int) -> None:
        super().preallocate_now(path, size)
        if not self.reserves:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def write_parts_now(self, path: Path, offset: int, parts: Sequence[bytes | memoryview]) -> None:
        if self.after is not None:
            if not self.after:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            self.after -= 1
        super().write_parts_now(path, offset, parts)


@pytest.mark.parametrize("disk", [FullDisk(room=10 << 20), FullDisk(reserves=False)], ids=["says so", "fails"])
async def test_a_disk_with_too_little_room_is_seen_before_anything_is_written(at: Setup, disk: FullDisk) -> None:
    with pytest.raises(OSError, match=r"5 MB are needed|No space left") as caught:
        await at.files(disk).fetch(at.remote(), at.path)
    assert caught.value.errno == errno.ENOSPC
    assert left_beside(at.path) == []
    assert not at.hub.counters.kinds["resolve-head"]


async def test_a_disk_that_is_full_in_the_middle_can_be_gone_on_with(at: Setup) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        await at.files(FullDisk(after=3)).fetch(at.remote(), at.path)
    assert caught.value.errno == errno.ENOSPC
    at.hub.counters.reset()
    told: list[int] = []
    await at.files().fetch(at.remote(), at.path, progress=told.append)
    assert at.path.read_bytes() == DATA
    assert told[0] == 3 * BLOCK_BYTES


class LosingDisk(Disk):
    """A sync that fails is told of once; after it the system counts as written what was lost."""

    told = False

    def _sync(self, path: Path, flags: int) -> None:
        if path.suffix == ".part" and not self.told:
            self.told = True
            raise OSError(errno.EIO, "Input/output error", str(path))


async def test_after_a_sync_that_failed_all_of_it_is_fetched_anew(at: Setup) -> None:
    """Seen: the next try found all of it in the page cache, synced nothing without a complaint, and gave the name."""
    disk = LosingDisk()
    with pytest.raises(OSError, match="Input/output"):
        await at.files(disk).fetch(at.remote(), at.path)
    assert not at.path.exists()
    at.hub.counters.reset()
    await at.files(disk).fetch(at.remote(), at.path)
    assert at.path.read_bytes() == DATA and at.sent >= SIZE and left_beside(at.path) == [at.path.name]


async def test_a_size_that_nothing_has_is_refused_before_memory_is_taken(at: Setup) -> None:
    """Seen: an assertion in the journal, for a number that comes from outside."""
    file = RemoteFile(url="http://hub/x", size_bytes=BLOCKS_LIMIT * BLOCK_BYTES + 1, name="owner/name/x")
    with pytest.raises(SourceRefused, match="more than any disk"):
        await at.files().fetch(file, at.path)


# --- through ------------------------------------------------------------------------------------------------------------


async def test_through_a_proxy_that_dies_and_comes_back(at: Setup) -> None:
    async with Proxy() as proxy:
        at.proxy, proxy.dead = proxy.url, True

        async def revive() -> None:
            while not proxy.tried:
                await asyncio.sleep(0.001)
            proxy.dead = False

        async with asyncio.TaskGroup() as group:
            group.create_task(revive())
            group.create_task(at.files().fetch(at.remote(), at.path))
    assert at.path.read_bytes() == DATA


async def test_refusals_come_through_as_they_are(at: Setup) -> None:
    at.hub.repo(REPO).say(gated="auto")
    with pytest.raises(SourceRefused, match="behind terms"):
        await at.files().fetch(at.remote(), at.path)


@pytest.mark.parametrize("xet", [False, True])
async def test_files_of_both_storages(make: Callable[[LocalHub], Setup], xet: bool) -> None:
    async with LocalHub() as hub:
        hub.repo(REPO).file(NAME, Pattern(SIZE), xet=xet)
        at = make(hub)
        await at.files().fetch(at.remote(), at.path)
        assert hashlib.sha256(at.path.read_bytes()).hexdigest() == at.remote().sha256
        assert hub.counters.sent[LABEL] == SIZE


# --- claims -------------------------------------------------------------------------------------------------------------


class NoDisk(Disk):
    """Blocks are written nowhere."""

    def write_parts_now(self, path: Path, offset: int, parts: Sequence[bytes | memoryview]) -> None: ...
    def write_range_now(self, path: Path, offset: int, data: bytes | memoryview) -> None: ...


@given(
    st.integers(1, 40), st.sets(st.integers(0, 39)), st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=60)
)
def test_claims_are_missing_blocks_and_never_two_peoples(count: int, there: set[int], steps: list[tuple[int, int]]) -> None:
    journal = BlockJournal(NoDisk(), Path("none"), tag=bytes(32), size_bytes=count * 10, block_bytes=10)
    for number in there:
        if number < count:
            journal.record_now(number, (b"x",))
    file = RemoteFile(url="http://hub/x", size_bytes=count * 10, name="x")
    work = FileWork(NoDisk(), Path("none"), journal, file)
    missing = {number for number in range(count) if number not in there}
    claims: list[Span] = []

    def write(number: int) -> None:
        work._wanted[number] = 0
        missing.discard(number)

    def claimed() -> set[int]:
        return {number for span in claims for number in range(span.first, span.first + span.count)}

    for kind, size in steps:
        if kind < 3:
            span = work.claim(size)
            free = missing - claimed()
            assert (span is None) == (not free)
            if span is not None:
                mine = set(range(span.first, span.first + span.count))
                assert mine <= free
                assert span.first == min(free)
                assert span.count <= size
                claims.append(span)
        elif claims:
            span = claims[size % len(claims)]
            if kind == 3:
                for number in work.missing(span)[:size]:
                    write(number)
            claims.remove(span)
            work.release(span)
        assert work.left() == len(missing - claimed())
