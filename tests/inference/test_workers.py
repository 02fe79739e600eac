"""The supervisor of workers, over real worker processes with tiny models."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from swarmd.app import STOP_TIMEOUT_S
from swarmd.config.settings import InferenceSettings, NodeSettings, ResourcesSettings, Settings
from swarmd.domain.events import WorkerDied, WorkerReady, WorkerStopped
from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.refusals import Busy, NoCapacity, NotFound, WorkerFailed
from swarmd.inference import worker_frames as frames
from swarmd.inference import worker_process
from swarmd.inference import workers as workers_module
from swarmd.inference.worker_process import CommandFailed, WorkerProcess
from swarmd.inference.workers import Seat, Texts, Workers, threads_for
from swarmd.kit.service import Supervisor
from swarmd.kit.world import real_world
from swarmd.shards.desk import ShardDesk
from swarmd.transport.loopback import LoopbackHub
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.holders import Store, open_holder

SETTINGS = Settings(
    inference=InferenceSettings(context_tokens=256, max_batch_size=2), resources=ResourcesSettings(max_cpu_threads=1)
)


@dataclass
class Scene:
    store: Store
    desk: ShardDesk
    workers: Workers
    supervisor: Supervisor
    model: ModelId
    free: int = 1 << 32

    @property
    def pid(self) -> int:
        (status,) = self.workers.statuses()
        assert status.pid is not None, status
        return status.pid


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Scene]:
    path = write_model(folder / "tiny.gguf", TinyModel(layers=3, tokenizer=True))
    async with open_holder(1, folder, LoopbackHub()) as holder:
        model = await holder.desk.add_file(path, 1)
        assert isinstance(model, str), model
        store = holder.store
        async with Supervisor("test", world=real_world()) as supervisor:
            scene: Scene
            workers = Workers(
                node=holder.id, catalog=store.catalog, storage=store.storage, registry=store.registry, bus=store.bus,
                world=real_world(), settings=lambda: SETTINGS, memory_limit=lambda: scene.free,
            )  # fmt: skip
            scene = Scene(store=store, desk=holder.desk, workers=workers, supervisor=supervisor, model=ModelId(model))
            await supervisor.start(workers)
            yield scene


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "STOP_DEADLINE_S", 0.2)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running(tmp_path) as found:
        yield found


def ref(scene: Scene, index: int) -> ShardRef:
    return ShardRef(scene.model, index)


async def test_shards_come_and_go_in_one_process(scene: Scene) -> None:
    workers = scene.workers
    assert await workers.ensure(scene.model, (0, 1)) is None
    assert workers.loaded(scene.model) == (0, 1)
    assert scene.store.registry.loaded(scene.model) == {0, 1}
    pid = scene.pid
    assert await workers.load_shard(ref(scene, 2)) == (0, 1, 2)
    assert await workers.unload_shard(ref(scene, 1)) == (0, 2)
    assert isinstance(await workers.unload_shard(ref(scene, 1)), NotFound)
    assert await workers.ensure(scene.model, (0, 1)) is None
    assert (scene.pid, workers.loaded(scene.model)) == (pid, (0, 1, 2))
    with scene.store.bus.spy() as spy:
        freed = await workers.unload_model(scene.model)
        await spy.wait_for(WorkerStopped)
    assert isinstance(freed, int) and freed > 1_000_000
    assert not psutil.pid_exists(pid)
    assert (workers.loaded(scene.model), workers.statuses(), await workers.unload_model(scene.model)) == ((), (), 0)


async def test_the_last_shard_takes_the_process_with_it(scene: Scene) -> None:
    assert await scene.workers.load_shard(ref(scene, 1)) == (1,)
    pid = scene.pid
    assert await scene.workers.unload_shard(ref(scene, 1)) == ()
    assert not psutil.pid_exists(pid)


async def test_what_is_not_there_is_not_loaded(scene: Scene) -> None:
    unknown = ModelId("nobody")
    assert isinstance(await scene.workers.ensure(unknown, (0,)), NotFound)
    assert isinstance(await scene.workers.texts(unknown), NotFound)
    assert isinstance(await scene.workers.tokenize(unknown, frames.Tokenize("x")), NotFound)
    assert isinstance(await scene.workers.load_shard(ref(scene, 9)), NotFound)
    assert await scene.store.registry.drop(ref(scene, 2))
    refused = await scene.workers.take_seat(scene.model, (0, 2), cells=4)
    assert isinstance(refused, NotFound) and "shard 3" in refused.sentence


async def test_memory_is_refused_with_numbers(scene: Scene) -> None:
    needed = scene.workers.memory_needed(scene.model, 0)
    known = scene.store.catalog.get(scene.model)
    assert known is not None and needed > known.manifest.shards[0].size_bytes  # caches and buffers count too
    scene.free = needed - 1
    refused = await scene.workers.take_seat(scene.model, (0,), cells=4)
    assert refused == NoCapacity(node=scene.store.key.node, needed_bytes=needed, free_bytes=needed - 1)
    assert scene.workers.loaded(scene.model) == ()
    scene.free = needed
    assert await scene.workers.ensure(scene.model, (0,)) is None
    scene.free = -1
    assert scene.workers.free_bytes() == 0


async def test_two_at_once_load_once(scene: Scene) -> None:
    with scene.store.bus.spy() as spy:
        seats = await asyncio.gather(*(scene.workers.take_seat(scene.model, (0, 1), cells=8) for _ in range(2)))
        assert all(isinstance(seat, Seat) for seat in seats), seats
        assert {seat.sequence for seat in seats} == {0, 1}
        assert len({seat.process.pid for seat in seats}) == 1
        assert [fact.shards for fact in spy.facts if isinstance(fact, WorkerReady)] == [(0,), (0, 1)]


async def test_whoever_hangs_up_while_a_shard_loads_does_no_harm(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()
    load = Workers._load

    async def slow(self: Workers, *arguments: object) -> object:
        begun.set()
        await asyncio.sleep(0)
        return await load(self, *arguments)

    monkeypatch.setattr(Workers, "_load", slow)
    for wanted in ((), (0,)):  # once while it starts, once while it loads
        asking = asyncio.create_task(scene.workers.ensure(scene.model, wanted))
        await (begun.wait() if wanted else asyncio.sleep(0))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert await scene.workers.ensure(scene.model, (0,)) is None
    assert isinstance(await scene.workers.texts(scene.model), Texts)
    assert scene.workers.loaded(scene.model) == (0,)


async def test_seats_run_out_and_come_back(scene: Scene) -> None:
    take = scene.workers.take_seat
    first, second = await take(scene.model, (0,), cells=200), await take(scene.model, (0,), cells=200)
    assert isinstance(first, Seat) and isinstance(second, Seat)
    refused = await take(scene.model, (0,), cells=1)
    assert isinstance(refused, Busy) and "all 2 sequences" in refused.sentence
    first.release()
    first.release()  # once is enough, twice is nothing
    again = await take(scene.model, (0,), cells=200)
    assert isinstance(again, Seat) and again.sequence == first.sequence == 0
    again.release()
    cells = scene.workers._hosts[scene.model].cells
    refused = await take(scene.model, (0,), cells=cells - 199)
    assert isinstance(refused, Busy) and f"{cells - 200} free cells and this request wants {cells - 199}" in refused.sentence
    second.release()
    assert isinstance(await take(scene.model, (0,), cells=cells), Seat)


async def test_what_runs_is_not_unloaded(scene: Scene) -> None:
    with scene.store.registry.lease(scene.model, (0,)):
        seat = await scene.workers.take_seat(scene.model, (0, 1), cells=8)
        assert isinstance(seat, Seat)
        assert isinstance(await scene.workers.unload_shard(ref(scene, 0)), Busy)
        assert isinstance(await scene.workers.unload_model(scene.model), Busy)
        assert await scene.workers.unload_shard(ref(scene, 1)) == (0,)
        assert isinstance(await scene.workers.unload_shard(ref(scene, 0)), Busy)  # the last one, that is the model
        assert seat.process.alive
    assert await scene.workers.unload_shard(ref(scene, 0)) == ()


async def test_an_unload_that_waited_for_a_load_sees_who_uses_it(scene: Scene) -> None:
    with scene.store.registry.lease(scene.model, (0,)):
        loading = asyncio.create_task(scene.workers.take_seat(scene.model, (0,), cells=8))
        await asyncio.sleep(0)
        assert isinstance(await scene.workers.unload_model(scene.model), Busy)
        assert isinstance(await loading, Seat)


async def test_a_load_that_waited_for_an_unload_gets_a_worker_of_its_own(scene: Scene) -> None:
    assert await scene.workers.ensure(scene.model, (0,)) is None
    pid = scene.pid
    unloading = asyncio.create_task(scene.workers.unload_model(scene.model))
    await asyncio.sleep(0)
    loading = asyncio.create_task(scene.workers.take_seat(scene.model, (0,), cells=8))
    assert isinstance(await unloading, int)
    seat = await loading
    assert isinstance(seat, Seat), seat
    assert seat.process.alive and seat.process.pid == scene.pid != pid


async def test_a_crash_is_told_and_repaired_with_the_same_shards(scene: Scene) -> None:
    seat = await scene.workers.take_seat(scene.model, (0, 2), cells=8)
    assert isinstance(seat, Seat)
    await scene.workers.unload_shard(ref(scene, 2))
    await scene.workers.load_shard(ref(scene, 1))
    with scene.store.bus.spy() as spy:
        os.kill(scene.pid, signal.SIGSEGV)
        died = await spy.wait_for(WorkerDied, timeout_s=5)
        assert (died.model, "SIGSEGV" in died.how) == (scene.model, True)
        (status,) = scene.workers.statuses()
        assert (status.state, status.pid, scene.workers.loaded(scene.model)) == ("restarting", None, ())
        assert scene.store.registry.loaded(scene.model) == frozenset()
        assert scene.workers._hosts[scene.model].not_before > asyncio.get_running_loop().time()
        await spy.wait_for(WorkerReady, lambda fact: fact.shards == (0, 1), timeout_s=8)
    seat.release()  # of the dead process: frees nothing in the new one
    seats = [await scene.workers.take_seat(scene.model, (0,), cells=8) for _ in range(3)]
    assert [type(one) for one in seats] == [Seat, Seat, Busy]
    assert scene.workers._hosts[scene.model].backoff.delay() >= 1.0  # the next restart waits longer


async def test_a_worker_that_cannot_read_its_vocabulary_is_no_worker(scene: Scene) -> None:
    scene.store.catalog.vocabulary_path(scene.model).unlink()
    for _ in range(2):
        refused = await scene.workers.texts(scene.model)
        assert isinstance(refused, WorkerFailed) and "cannot read the vocabulary" in refused.sentence
    assert [status.state for status in scene.workers.statuses()] == ["stopped"]


async def test_texts_and_prompts(scene: Scene) -> None:
    texts = await scene.workers.texts(scene.model)
    assert isinstance(texts, Texts) and len(texts.pieces) == TinyModel(tokenizer=True).rows and texts.ends
    ids = await scene.workers.tokenize(scene.model, frames.Tokenize("the shard"))
    assert b"".join(texts.pieces[token] for token in ids) == b"the shard"
    complaint = frames.RenderChat("{{ raise_exception('kaput') }}", [frames.Said("user", "x")])
    assert isinstance(await scene.workers.tokenize(scene.model, complaint), CommandFailed)
    assert scene.workers.loaded(scene.model) == ()
    assert scene.workers.cells_per_session(scene.model) == 256
    assert scene.workers.cells_per_session(ModelId("nobody")) is None


async def test_a_prompt_after_a_crash_waits_for_the_new_worker(scene: Scene) -> None:
    assert isinstance(await scene.workers.texts(scene.model), Texts)
    with scene.store.bus.spy() as spy:
        os.kill(scene.pid, signal.SIGKILL)
        await spy.wait_for(WorkerDied, timeout_s=5)
    assert isinstance(await scene.workers.tokenize(scene.model, frames.Tokenize("x")), list)


async def test_the_end_of_the_service_ends_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[WorkerProcess] = []
    start = workers_module.start_worker

    async def noting(**rest: object) -> WorkerProcess:
        process = await start(**rest)
        started.append(process)
        return process

    monkeypatch.setattr(workers_module, "start_worker", noting)
    loop = asyncio.get_running_loop()
    async with running(tmp_path) as scene:
        assert await scene.workers.ensure(scene.model, (0,)) is None
        os.kill(scene.pid, signal.SIGSTOP)  # one that takes no notice of anything
        began = loop.time()
        await scene.supervisor.stop()
        assert loop.time() - began < STOP_TIMEOUT_S
        assert [psutil.pid_exists(process.pid) for process in started] == [False]
        refused = await scene.workers.ensure(scene.model, (0,))
        assert isinstance(refused, WorkerFailed) and "the node is stopping" in refused.sentence


async def test_a_worker_that_is_just_starting_ends_too(tmp_path: Path) -> None:
    children = psutil.Process().children
    before = {child.pid for child in children()}
    async with running(tmp_path) as scene:
        asking = asyncio.create_task(scene.workers.ensure(scene.model, (0,)))
        async with asyncio.timeout(5):
            while not (born := {child.pid for child in children()} - before):
                await asyncio.sleep(0)
        await scene.supervisor.stop()
        assert isinstance(await asking, WorkerFailed)
    async with asyncio.timeout(3):
        while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in born):
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("contribution", "cores", "threads"),
    [("minimal", 8, 4), ("moderate", 8, 6), ("maximum", 8, 8), ("minimal", 1, 1), ("maximum", None, 2)],
)
def test_threads_by_contribution(
    contribution: str, cores: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 2 if logical else cores)
    settings = Settings(node=NodeSettings(contribution=contribution))
    assert threads_for(settings) == threads
    assert threads_for(replace(settings, resources=ResourcesSettings(max_cpu_threads=3))) == 3


async def test_a_model_deleted_and_added_again_from_another_file_gets_a_worker_of_its_own(
    scene: Scene, tmp_path: Path
) -> None:
    assert isinstance(await scene.workers.texts(scene.model), Texts)
    old = scene.pid
    await scene.desk.delete_model(scene.model)
    other = write_model(tmp_path / "tiny.gguf", TinyModel(layers=4, tokenizer=True))
    assert await scene.desk.add_file(other, 1) == scene.model
    assert await scene.workers.ensure(scene.model, (0, 3)) is None
    assert scene.pid != old
    assert scene.workers.loaded(scene.model) == (0, 3)
