"""Worker processes: how they come up, what they answer, and that their ends are told apart."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

import psutil
import pytest

from swarmd.inference import worker_frames as frames
from swarmd.inference import worker_process
from swarmd.inference.worker_process import (
    SPIN_COUNT,
    CommandFailed,
    WorkerGone,
    WorkerProcess,
    _how_it_ended,
    start_worker,
    worker_environment,
)
from swarmd.kit.service import Supervisor
from swarmd.kit.world import real_world


@pytest.fixture
async def worker() -> AsyncIterator[WorkerProcess]:
    async with Supervisor("test", world=real_world()) as supervisor:
        process = await start_worker(spawn=supervisor.spawn, name="test")
        yield process
        await process.stop()


async def test_it_comes_up_says_what_it_is_and_stops_on_purpose(worker):
    assert worker.alive
    assert "llama.cpp" in worker.description
    assert worker.compared > 20
    await worker.stop()
    assert await worker.ended == "was stopped"


async def test_a_command_it_cannot_carry_out_is_a_failure_and_it_goes_on(worker):
    with pytest.raises(CommandFailed, match="not loaded"):
        await worker.call(frames.Step(0, 0, [frames.Run(0, 0, 1)], []), b"\0\0\0\0", deadline_s=10)
    with pytest.raises(CommandFailed, match="cannot load"):
        await worker.call(frames.Load(0, "/nowhere.gguf", True, None, 64, 1, 8, 1), deadline_s=10)
    assert await worker.call(frames.EndSequence(0), deadline_s=10) == (frames.Done(), memoryview(b""))


async def test_a_killed_worker_tells_whoever_waits_and_whoever_asks_later(worker):
    os.kill(worker.pid, signal.SIGSTOP)  # so that the command is certainly unanswered
    waiting = asyncio.get_running_loop().create_task(worker.call(frames.EndSequence(0), deadline_s=30))
    await asyncio.sleep(0)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerGone, match="was killed"):
        await waiting
    with pytest.raises(WorkerGone, match="was killed"):
        await worker.call(frames.EndSequence(0), deadline_s=30)


async def test_a_crash_is_named_by_its_signal(worker):
    os.kill(worker.pid, signal.SIGSEGV)
    assert "crashed with SIGSEGV" in await worker.ended


async def test_a_worker_that_does_not_answer_is_killed_as_hung(worker):
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(WorkerGone, match="hung: no answer within 0 s"):
        await worker.call(frames.EndSequence(0), deadline_s=0.2)
    assert (await worker.ended).startswith("hung")


async def test_a_stopped_worker_is_found_out_long_before_its_deadline(worker, monkeypatch):
    """SIGSTOP, or a deadlock: a step may take two minutes, but not without computing anything."""
    monkeypatch.setattr(worker_process, "STALLED_S", 0.2)
    monkeypatch.setattr(worker_process, "LOOK_S", 0.1)
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(WorkerGone, match="hung: it did not compute anything"):
        await worker.call(frames.EndSequence(0), deadline_s=60)


async def test_a_worker_that_computes_or_has_nothing_to_do_is_left_alone(worker, monkeypatch):
    monkeypatch.setattr(worker_process, "STALLED_S", 0.1)
    monkeypatch.setattr(worker_process, "LOOK_S", 0.05)
    for _ in range(20):
        worker._look.cancel()
        worker.look_for_progress()
        await asyncio.sleep(0.02)
    assert worker.alive, "nothing to do"
    monkeypatch.setattr(worker_process.psutil, "Process", lambda pid: Computing())
    os.kill(worker.pid, signal.SIGSTOP)
    waiting = asyncio.create_task(worker.call(frames.EndSequence(0), deadline_s=60))
    for _ in range(20):
        await asyncio.sleep(0.02)
        worker._look.cancel()
        worker.look_for_progress()
    assert worker.alive, "it would compute if it got a processor"
    os.kill(worker.pid, signal.SIGCONT)
    await waiting


class Computing:
    """A process that is always about to run."""

    def oneshot(self):
        return contextlib.nullcontext()

    def status(self) -> str:
        return psutil.STATUS_RUNNING


async def test_an_endless_template_hangs_the_worker_and_not_the_node(worker):
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    vocabulary_missing = frames.RenderChat(endless, [frames.Said("user", "hi")])
    with pytest.raises((WorkerGone, CommandFailed)):
        await worker.call(vocabulary_missing, deadline_s=0.3)


async def test_garbage_from_a_worker_is_a_crash(worker):
    worker._link.data_received(b"\xff" * 64)
    assert (await worker.ended).startswith("crashed: a frame announces")


def test_last_words_tell_out_of_memory_from_a_crash():
    assert _how_it_ended(-signal.SIGABRT, ["terminate called after throwing std::bad_alloc"]).startswith("ran out of memory")
    assert _how_it_ended(-signal.SIGABRT, ["GGML_ASSERT(x) failed"]) == "crashed with SIGABRT: GGML_ASSERT(x) failed"
    assert _how_it_ended(3, []) == "crashed: it ended with exit code 3"
    assert "want of memory" in _how_it_ended(-signal.SIGKILL, [])


def test_threads_are_bound_only_when_each_has_a_processor_of_its_own():
    assert worker_environment({}, threads=2, cpus=2) == {"GOMP_SPINCOUNT": SPIN_COUNT, "OMP_PROC_BIND": "true"}
    assert worker_environment({}, threads=1, cpus=2) == {"GOMP_SPINCOUNT": SPIN_COUNT}
    assert worker_environment({}, threads=1, cpus=1) == {"GOMP_SPINCOUNT": SPIN_COUNT}
    own = {"GOMP_SPINCOUNT": "7", "OMP_PROC_BIND": "false", "HOME": "/root"}
    assert worker_environment(own, threads=2, cpus=2) == own


async def test_a_callback_that_asks_again_when_the_worker_dies_hears_no_at_once_and_leaves_no_timer(worker):
    heard: list[str] = []

    def again(outcome) -> None:
        heard.append(str(outcome.error))
        if len(heard) < 3:
            worker.ask(frames.EndSequence(0), b"", again, deadline_s=60)

    os.kill(worker.pid, signal.SIGSTOP)
    worker.ask(frames.EndSequence(0), b"", again, deadline_s=60)
    worker.kill("was killed by a test")
    await worker.ended
    await asyncio.sleep(0)
    assert len(heard) == 3 and all(heard)
    assert worker._link._timer is None and not worker._link._waiting
