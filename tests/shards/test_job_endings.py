"""How jobs end, stop and go on: pauses and wishes at the wrong moment, disks that are full, restarts in the last step."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace
from pathlib import Path

import pytest

from swarmd.domain.events import DownloadEnded
from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.models import ShardState
from swarmd.domain.refusals import Busy, Refusal
from swarmd.domain.shards import Acquisition, TransferState
from swarmd.identity.keys import Signed
from swarmd.models import seals
from swarmd.models.catalog import KnownModel
from swarmd.models.manifest import PayloadHasher
from swarmd.shards import desk as desks
from swarmd.shards.jobs import Job
from swarmd.shards.landing import pieces, read_payload_now
from swarmd.store.content import read_acquisitions, read_cancelled
from swarmd.store.database import Transaction
from tests.fakes.around import FILE, REPO, TINY, Around, asked, known_by, over, started, until, whole_file
from tests.fakes.holders import Holder
from tests.hub.faults import Slow


async def slow_job(around: Around, holder: Holder, *, shards: tuple[int, ...] | None = None) -> None:
    """In the middle of its first shard."""
    around.hub.faults.add(Slow(100_000), path=FILE, origin="cdn", skip=1)
    assert isinstance(await asked(holder, shards=shards), Acquisition)
    await until(lambda: any(one.done_bytes for one in started(holder).transfers))


async def knows(holder: Holder) -> KnownModel:
    """The model, and nothing is asked for."""
    assert holder.hub_desk is not None
    known = await holder.hub_desk._known(REPO, FILE, None)
    assert isinstance(known, KnownModel), known
    return known


async def test_a_wish_in_the_moment_of_a_pause_does_not_start_a_second_task(around: Around, data: bytes) -> None:
    """The first went on where nobody could stop it."""
    holder = await around.start(1)
    await slow_job(around, holder)
    old = holder.desk._tasks[TINY]
    paused, wish = await asyncio.gather(holder.desk.pause(TINY), holder.desk.acquire(TINY, (0,)))
    assert paused is None and isinstance(wish, Busy)
    await until(old.done)
    assert started(holder).state == "paused" and await holder.desk.resume(TINY) is None
    assert await holder.desk.cancel(TINY) is None and TINY not in holder.desk._tasks


async def test_a_wish_right_after_a_cancel_is_not_killed_by_its_cleaning(around: Around, data: bytes) -> None:
    """It was: "shard 1 is written by somebody else, or was deleted"."""
    holder = await around.start(1)
    await slow_job(around, holder, shards=(0, 1, 2))
    storage = holder.store.storage
    await until(lambda: all(storage.state(ShardRef(TINY, index)) is ShardState.PARTIAL for index in (0, 1)))
    async with storage._opening:  # what is to be deleted waits
        cancelling = asyncio.create_task(holder.desk.cancel(TINY))
        await until(lambda: started(holder).state == "cancelled" and TINY not in holder.desk._tasks)
        await until(lambda: bool(storage._opening._waiters))
        assert isinstance(await holder.desk.acquire(TINY, (1,)), Acquisition)
    assert await cancelling is None
    assert storage.state(ShardRef(TINY, 0)) is ShardState.ABSENT, "nobody wants it"
    assert storage.state(ShardRef(TINY, 1)) is ShardState.PARTIAL, "somebody does again"
    around.hub.faults.clear()
    done = await over(holder)
    assert done.state == "complete" and holder.store.registry.held(TINY) == (1,), done.reason


async def test_a_wish_in_the_middle_of_the_cleaning_is_fetched(around: Around, data: bytes) -> None:
    holder = await around.start(1)
    await slow_job(around, holder, shards=(0, 1))
    storage = holder.store.storage
    await until(lambda: all(storage.state(ShardRef(TINY, index)) is ShardState.PARTIAL for index in (0, 1)))
    real, wishes = holder.store.disk.remove, list[Acquisition | Refusal]()

    async def remove(path: Path) -> bool:
        if not wishes and path.name.startswith("shard_"):
            wishes.append(await holder.desk.acquire(TINY, (0, 1)))
            await until(lambda: len(storage._opening._waiters or ()) == 2)
        return await real(path)

    holder.store.disk.remove = remove  # type: ignore[method-assign]
    assert await holder.desk.cancel(TINY) is None
    assert isinstance(wishes[0], Acquisition)
    around.hub.faults.clear()
    done = await over(holder)
    assert done.state == "complete" and holder.store.registry.held(TINY) == (0, 1), done.reason


async def test_the_autopilot_does_not_end_a_persons_pause(around: Around, data: bytes) -> None:
    holder = await around.start(1)
    await slow_job(around, holder, shards=(0,))
    assert await holder.desk.pause(TINY) is None
    assert isinstance(await holder.desk.acquire(TINY, (1,), "auto_manage"), Busy)
    assert started(holder).state == "paused"
    around.hub.faults.clear()
    assert isinstance(await holder.desk.acquire(TINY, (1,), "user"), Acquisition), "a person who asks again wants it now"
    assert (await over(holder)).state == "complete"


async def test_what_a_person_adds_to_the_autopilots_job_is_pinned(around: Around, data: bytes) -> None:
    holder = await around.start(1)
    await knows(holder)
    around.hub.faults.add(Slow(100_000), path=FILE, origin="cdn", skip=1)
    assert isinstance(await holder.desk.acquire(TINY, (0,), "auto_manage"), Acquisition)
    assert not known_by(holder).pinned
    assert isinstance(await holder.desk.acquire(TINY, None, "user"), Acquisition)
    assert known_by(holder).pinned
    around.hub.faults.clear()
    assert (await over(holder)).trigger == "user"


async def test_a_full_disk_ends_a_job_with_its_reason_and_leaves_the_queue(
    around: Around, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = await around.start(1)
    await knows(holder)
    real = holder.store.disk.write_atomic_now

    def full(path: Path, content: bytes | memoryview, *, mode: int = 0o644) -> None:
        if path.suffix == ".seal":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, content, mode=mode)

    monkeypatch.setattr(holder.store.disk, "write_atomic_now", full)
    with holder.store.bus.spy() as spy:
        assert isinstance(await holder.desk.acquire(TINY, (0,), "user"), Acquisition)
        done = await over(holder)
        await until(lambda: bool(spy.of(DownloadEnded)))
    assert done.state == "failed" and "No space" in (done.reason or "") and holder.desk._queue.order() == ()
    assert await read_acquisitions(holder.desk._db) == ()


async def test_a_bug_in_a_job_is_an_end_and_not_a_ghost(
    around: Around, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = await around.start(1)
    await knows(holder)

    async def broken(job: Job, *, patience_s: float) -> str | None:
        raise AssertionError("nobody thought of that")

    monkeypatch.setattr(holder.desk._model_fetch, "run", broken)
    with holder.store.bus.spy() as spy:
        assert isinstance(await holder.desk.acquire(TINY, (0,), "user"), Acquisition)
        done = await over(holder)
        await until(lambda: bool(spy.of(DownloadEnded)))
    assert done.state == "failed" and "log" in (done.reason or "") and holder.desk._queue.order() == ()


async def test_a_restart_while_the_whole_is_compared_compares_it_again(around: Around, data: bytes) -> None:
    """The wish was forgotten before the last step, which nobody made then."""
    holder = await around.start(1)
    entered, never = asyncio.Event(), asyncio.Event()

    async def stuck(known: KnownModel) -> bool | None:
        entered.set()
        await never.wait()
        return None

    assert holder.desk._model_fetch._hub is not None
    holder.desk._model_fetch._hub = replace(holder.desk._model_fetch._hub, whole=stuck)
    assert isinstance(await asked(holder), Acquisition)
    await entered.wait()
    assert [row.model for row in await read_acquisitions(holder.desk._db)] == [TINY]
    await around.stop(1)
    done = await over(await around.start(1))
    assert done.state == "complete" and any("byte for byte" in line for line in done.log)


async def test_a_wish_while_the_last_step_runs_is_fetched(around: Around, data: bytes) -> None:
    around.hub.repo(REPO).file("mmproj-tiny-f16.gguf", bytes(200_000))
    holder = await around.start(1)
    around.hub.faults.add(Slow(200_000), path="mmproj", origin="cdn")
    assert isinstance(await asked(holder, shards=(0,)), Acquisition)
    await until(lambda: any("vision" in line for line in started(holder).log))
    assert isinstance(await asked(holder, shards=(1,)), Acquisition)
    done = await over(holder)
    assert done.state == "complete" and holder.store.registry.held(TINY) == (0, 1)
    assert await read_acquisitions(holder.desk._db) == ()


async def test_a_cancelled_vision_encoder_leaves_nothing(around: Around, data: bytes) -> None:
    around.hub.repo(REPO).file("mmproj-tiny-f16.gguf", bytes(3_000_000))
    holder = await around.start(1)
    around.hub.faults.add(Slow(200_000), path="mmproj", origin="cdn")
    assert isinstance(await asked(holder, shards=(0,)), Acquisition)
    folder = holder.store.catalog.folder(TINY)
    await until(lambda: bool(list(folder.glob("mmproj*.part"))))
    assert await holder.desk.cancel(TINY) is None
    assert not list(folder.glob("*.part*"))


async def test_what_was_cancelled_is_written_down_until_a_person_asks_for_it_again(around: Around, data: bytes) -> None:
    """Seen: after a restart nobody knew of it, and the autopilot began it anew."""
    holder = await around.start(1)
    await slow_job(around, holder)
    left = tuple(one.index for one in started(holder).transfers if one.state is not TransferState.COMPLETE)
    assert await holder.desk.cancel(TINY) is None
    assert list(await read_cancelled(holder.desk._db)) == [ShardRef(TINY, index) for index in left]
    await around.stop(1)
    holder = await around.start(1)
    cancelled = await read_cancelled(holder.desk._db)
    assert list(cancelled) == [ShardRef(TINY, index) for index in left]
    assert 0 <= holder.desk._world.clock.now() - min(cancelled.values()) < 60
    assert isinstance(await holder.desk.acquire(TINY, left[:1], "auto_manage"), Acquisition)
    assert await read_cancelled(holder.desk._db) == cancelled, "that was no person"
    assert isinstance(await holder.desk.acquire(TINY, left[:1], "user"), Acquisition)
    assert list(await read_cancelled(holder.desk._db)) == [ShardRef(TINY, index) for index in left[1:]]
    assert await holder.desk.cancel(TINY) is None
    assert sorted(await read_cancelled(holder.desk._db)) == [ShardRef(TINY, index) for index in left]


async def test_a_pause_in_the_last_moment_does_not_come_back_after_a_restart(
    around: Around, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row was written after the job had forgotten its own: a download of nothing, paused for ever."""
    holder = await around.start(1)
    real, paused = desks.forget_acquisition, list[asyncio.Task[Refusal | None]]()

    async def forget(tx: Transaction, model: ModelId) -> None:
        await real(tx, model)
        if not paused:
            paused.append(asyncio.get_running_loop().create_task(holder.desk.pause(TINY)))
            await asyncio.sleep(0)

    monkeypatch.setattr(desks, "forget_acquisition", forget)
    assert isinstance(await asked(holder), Acquisition)
    assert (await over(holder)).state == "complete"
    await asyncio.wait(paused)
    assert await read_acquisitions(holder.desk._db) == ()
    await around.stop(1)
    assert (await around.start(1)).desk.acquisition(TINY) is None


async def test_a_job_that_goes_on_after_a_shard_was_given_up_says_so(
    around: Around, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = await around.start(1)
    real = holder.desk._fetcher.fetch

    async def fetch(
        job: Job, ref: ShardRef, layout: str, arriving: asyncio.Semaphore, *, patience_s: float
    ) -> str | None:
        if ref.index == 0:
            job.mark(0, TransferState.FAILED)
            return "shard 0: nobody has it"
        return await real(job, ref, layout, arriving, patience_s=patience_s)

    monkeypatch.setattr(holder.desk._fetcher, "fetch", fetch)
    around.hub.faults.add(Slow(60_000), path=FILE, origin="cdn", skip=1)
    assert isinstance(await asked(holder, shards=(0, 1)), Acquisition)
    await until(lambda: any(one.state is TransferState.FAILED for one in started(holder).transfers))
    assert await holder.desk.pause(TINY) is None
    around.hub.faults.clear()
    assert await holder.desk.resume(TINY) is None
    done = await over(holder)
    assert (done.state, done.reason) == ("failed", "shard 0: nobody has it") and holder.store.registry.held(TINY) == (1,)


async def test_a_model_cut_here_takes_its_missing_shards_from_the_hub(around: Around, data: bytes, tmp_path: Path) -> None:
    """The API named the repository, sent people to the hub, and the hub's desk refused: the manifest has no source."""
    holder = await around.start(1)
    local = tmp_path / FILE
    local.write_bytes(data)
    assert await holder.desk.add_file(local, 100_000) == TINY
    assert await holder.desk.delete_shard(ShardRef(TINY, 1)) is None
    layout = known_by(holder).manifest.layout
    assert isinstance(await asked(holder, shards=(1,)), Acquisition)
    assert (await over(holder)).state == "complete" and await whole_file(holder) == data
    assert known_by(holder).manifest.layout == layout and known_by(holder).manifest.publisher == holder.id
    await around.stop(1)
    again = known_by(await around.start(1)).manifest.source
    assert again is not None and again.repo_id == REPO


async def test_asking_the_hub_does_not_delete_what_is_being_fetched(around: Around, data: bytes, tmp_path: Path) -> None:
    cutter, holder = await around.start(1), await around.start(2)
    local = tmp_path / FILE
    local.write_bytes(data)
    assert await cutter.desk.add_file(local, 100_000) == TINY
    await holder.connect(cutter)
    await until(lambda: holder.store.catalog.get(TINY) is not None)
    known = known_by(holder)
    assert isinstance(await holder.desk.acquire(TINY, (0, 1), "auto_manage"), Acquisition)
    assert isinstance(await asked(holder), Acquisition)
    done = await over(holder)
    assert done.state == "complete" and await whole_file(holder) == data and known_by(holder).identity == known.identity
    around.hub.repo(REPO).file("other.Q8_0.gguf", data)


async def poisoned(around: Around, seed: int) -> Holder:
    """A member that holds wrong bytes of every shard under seals that fit them."""
    holder = await around.start(seed)
    assert isinstance(await asked(holder), Acquisition)
    assert (await over(holder)).state == "complete"
    known = known_by(holder)
    for spec in known.manifest.shards:
        path = holder.store.storage.path(ShardRef(TINY, spec.index))
        file = known.files[spec.index]
        payload = bytearray(read_payload_now(holder.store.disk, path, file, 0, spec.size_bytes))
        payload[100] ^= 0xFF
        hasher = PayloadHasher()
        hasher.feed(bytes(payload))
        seal = seals.make(
            known.manifest, spec.index, hasher.finish(), signer=holder.id,
            sign=lambda text: holder.store.key.sign(Signed.MANIFEST, text),
        )  # fmt: skip
        holder.store.catalog.seal_path(TINY, spec.index).write_bytes(seals.encode(seal))
        content = bytearray(path.read_bytes())
        for at, start, count in pieces(file.runs, 0, spec.size_bytes):
            content[at : at + count] = payload[start : start + count]
        path.write_bytes(content)
    await around.stop(seed)
    return await around.start(seed)


async def test_wrong_shards_of_a_member_do_not_pass_for_the_hubs_file(around: Around, data: bytes) -> None:
    """All came from it with seals that fit: nobody compared the whole, since nothing had come from the hub."""
    evil = await poisoned(around, 2)
    holder = await around.start(1, patience_s=1.0)
    await holder.connect(evil)
    assert isinstance(await asked(holder), Acquisition)
    done = await over(holder)
    assert done.state == "failed" or await whole_file(holder) == data
    holder.store.wire.links.clear()
    holder.store.wire.summaries.clear()
    await around.stop(2)
    assert isinstance(await asked(holder), Acquisition)
    assert (await over(holder)).state == "complete" and await whole_file(holder) == data, "without it all is well"


async def test_one_wrong_shard_of_an_earlier_day_does_not_cost_the_good_ones_for_ever(around: Around, data: bytes) -> None:
    """Each later job found the whole wrong, dropped what it had just fetched, and kept the wrong one."""
    evil = await poisoned(around, 2)
    holder = await around.start(1, patience_s=1.0)
    await holder.connect(evil)
    assert isinstance(await asked(holder, shards=(0,)), Acquisition)
    await over(holder)
    holder.store.wire.links.clear()
    holder.store.wire.summaries.clear()
    await around.stop(2)
    for _ in range(2):
        assert isinstance(await asked(holder), Acquisition)
        done = await over(holder)
    assert done.state == "complete" and await whole_file(holder) == data


async def test_a_folder_of_a_killed_adoption_goes(around: Around, data: bytes) -> None:
    holder = await around.start(1)
    folder = holder.store.catalog.folder(ModelId("half"))
    folder.mkdir()
    (folder / ".gguf_header.bin.abcd1234.tmp").write_bytes(bytes(1000))
    (folder / "shard_000.seal").write_bytes(b"x")
    stranger = holder.store.catalog.folder(ModelId("mine"))
    stranger.mkdir()
    (stranger / "notes.txt").write_bytes(b"keep me")
    await around.stop(1)
    await around.start(1)
    assert not folder.exists() and (stranger / "notes.txt").exists()
