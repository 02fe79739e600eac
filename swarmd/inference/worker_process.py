"""The node's handle on one worker process: start, ask, answer, and tell how it ended.

Answers come back in the order of the commands, since a worker does one thing at a time. A step's answer reaches its
callback straight from the socket, without a task switch in between: on a small machine those switches are a measurable part
of a token's time.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import cast

import msgspec
import psutil

from swarmd.inference import worker_frames as frames
from swarmd.kit.direct_writer import DirectWriter
from swarmd.kit.service import Spawn

STDERR_LINES = 12  # of evidence kept from a worker; ggml prints the failed assertion and a short backtrace
STDERR_LINE_BYTES = 4096
START_DEADLINE_S = 60.0  # Python, numpy and a 100 MB shared object from a cold disk
LOOK_S = 0.5  # between two looks at how much a worker has computed
STALLED_S = 2.0
"""So long without a moment of processor time, with a command to answer, neither ready to run nor waiting for the disk: hung.
The deadlines of the commands are for those that spin."""
STOP_DEADLINE_S = 3.0  # a step in flight may finish; then it is killed, which loses nothing
SPIN_COUNT = "10000"
"""GOMP_SPINCOUNT of a worker: how long an idle OpenMP thread spins before it sleeps.

Stages take turns, so on a machine with several workers a thread that spins takes the processor from the stage whose turn it
is (design, section 4, point 10). Figures of `bench/` are written in docs/performance.md.
"""

logger = logging.getLogger(__name__)

OnAnswer = Callable[["Outcome"], None]


class WorkerGone(Exception):
    """The worker ended before it answered; the text says how: crashed, hung, out of memory."""


class CommandFailed(Exception):
    """The worker could not carry out a command and says why; it goes on. `kind` as in `worker_frames.Failed`."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Outcome(msgspec.Struct, frozen=True):
    """An answer with its payload, or why there is none. Exactly one of `answer` and `error` is set.

    A Struct and not a dataclass: one is made for every token, and a frozen dataclass takes 6 times as long.
    """

    answer: frames.Answer | None
    payload: memoryview
    error: WorkerGone | CommandFailed | None = None


class WorkerProcess:
    """Owner of the child process, its socket and its waiting callbacks."""

    def __init__(self, process: asyncio.subprocess.Process, link: _Link, evidence: collections.deque[str]) -> None:
        self._process, self._link, self._evidence = process, link, evidence
        self._killed_as: str | None = None
        self._progress = (0.0, 0)
        """Processor seconds and commands answered at the last look that found more than the one before."""
        self._progress_at = self._looked_at = 0.0
        self._look: asyncio.TimerHandle | None = None
        self.description = ""
        self.compared = 0
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done when the process is gone; its result says how."""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self.ended.done()

    def ask(self, command: frames.Command, payload: bytes | memoryview, on_answer: OnAnswer, *, deadline_s: float) -> None:
        """Sends a command; `on_answer` is called exactly once, from the event loop, now or later."""
        if not self._link.ask(command, payload, on_answer, deadline_s):
            how = self.ended.result() if self.ended.done() else "is ending"
            on_answer(Outcome(None, memoryview(b""), WorkerGone(how)))

    async def call(
        self, command: frames.Command, payload: bytes | memoryview = b"", *, deadline_s: float
    ) -> tuple[frames.Answer, memoryview]:
        """`ask` for those who can wait. Raises WorkerGone or CommandFailed."""
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def on_answer(outcome: Outcome) -> None:
            if not done.done():  # the caller may have been cancelled
                done.set_result(outcome)

        self.ask(command, payload, on_answer, deadline_s=deadline_s)
        outcome = await done
        if outcome.error:
            raise outcome.error
        return cast("frames.Answer", outcome.answer), outcome.payload

    def kill(self, why: str) -> None:
        """Ends the process at once; waiting callbacks hear `why`."""
        if self._killed_as is None and not self.ended.done():
            self._killed_as = why
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self) -> None:
        """Ends the process on purpose and waits for it: its memory is free afterwards."""
        if self.alive:
            self._killed_as = "was stopped"
            self._link.close()  # end of file ends the worker after the step it is in
            try:
                async with asyncio.timeout(STOP_DEADLINE_S):
                    await asyncio.shield(self.ended)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
        await asyncio.shield(self.ended)

    def look_for_progress(self) -> None:
        """Now and every half second: ends a worker that was stopped, or waits for itself."""
        if not self.alive:
            return
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(LOOK_S, self.look_for_progress)
        now, late = loop.time(), loop.time() - self._looked_at > 2 * LOOK_S
        self._looked_at = now
        # Late: it was this node that was held up, and perhaps only did not read the answer yet.
        used = self._used_s() if self._link.busy and not late else None
        if used is None or (used, self._link.answered) != self._progress:
            self._progress, self._progress_at = (used or 0.0, self._link.answered), now
        elif now - self._progress_at >= STALLED_S:
            self.kill(f"hung: it did not compute anything for {STALLED_S:.0f} s")

    def _used_s(self) -> float | None:
        """Processor seconds so far; None where that says nothing: it would compute if it could, or waits for the disk."""
        try:
            process = psutil.Process(self.pid)
            with process.oneshot():
                if process.status() in (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP):
                    return None
                times = process.cpu_times()
        except psutil.Error:  # it is just ending
            return None
        return times.user + times.system

    async def watch(self) -> None:
        """Runs beside the process until it is gone: reads its stderr, then says how it ended."""
        try:
            how = await self._until_gone()
        except asyncio.CancelledError:
            self.kill("was stopped")  # whoever watches stops before the process did: it must not stay behind
            self._over(self._killed_as or "was stopped")
            raise
        self._over(how)

    def _over(self, how: str) -> None:
        self.ended.set_result(how)
        if self._look is not None:
            self._look.cancel()
        self._link.close()  # first: a callback that asks again must hear "no", and not wait for an answer
        self._link.fail_all(WorkerGone(how))

    async def _until_gone(self) -> str:
        stderr = self._process.stderr
        assert stderr is not None
        while True:
            try:
                line = await stderr.readline()
            except ValueError:  # a line longer than the stream's limit was dropped; the next one may be of use
                continue
            if not line:
                break
            self._evidence.append(line[:STDERR_LINE_BYTES].decode(errors="replace").strip())
        code = await self._process.wait()
        return self._killed_as or _how_it_ended(code, list(self._evidence))


class _Link(asyncio.Protocol):
    """The node's end of the socket pair."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._writer: DirectWriter | None = None
        self._buffer = bytearray()
        self._waiting: collections.deque[tuple[OnAnswer, float]] = collections.deque()  # bounded by seats and steps
        self._due = math.inf
        """When the oldest command must be answered; infinite while none waits."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.answered = 0
        """Commands."""
        self.on_hang: Callable[[float], None] = lambda _seconds: None
        self.on_garbage: Callable[[str], None] = lambda _reason: None

    @property
    def busy(self) -> bool:
        """A command waits for its answer."""
        return bool(self._waiting)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._writer = DirectWriter(self._transport)

    def ask(self, command: frames.Command, payload: bytes | memoryview, on_answer: OnAnswer, deadline_s: float) -> bool:
        """False, with nothing done, when the worker has ended or is about to."""
        if self._writer is None:
            return False
        self._writer.write((frames.encode(command, len(payload)), payload))
        self.expect(on_answer, deadline_s)
        return True

    def expect(self, on_answer: OnAnswer, deadline_s: float) -> None:
        """An answer will come: to a command, or a worker's first words, which nobody asked for."""
        self._waiting.append((on_answer, deadline_s))
        if len(self._waiting) == 1:
            self._due_in(deadline_s)

    def data_received(self, data: bytes) -> None:
        buffer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        head = frames.HEADER.size
        at = 0
        try:
            while len(buffer) - at >= head:
                message_bytes, payload_bytes = frames.sizes(buffer, at)
                body = at + head + message_bytes
                end = body + payload_bytes
                if len(buffer) < end:
                    break
                view = memoryview(buffer)  # the payload keeps the buffer; what is left of it gets a new one below
                start, at = at + head, end
                self._deliver(frames.decode_answer(view[start:body]), view[body:end])
        except frames.BadFrame as error:
            self.on_garbage(str(error))
            return
        if at or buffer is data:
            self._buffer = bytearray(memoryview(buffer)[at:])

    def _deliver(self, answer: frames.Answer, payload: memoryview) -> None:
        if not self._waiting:
            raise frames.BadFrame("an answer came that nobody asked for")
        on_answer, _ = self._waiting.popleft()
        self.answered += 1
        if self._waiting:
            self._due_in(self._waiting[0][1])
        else:
            self._due = math.inf
        failed = isinstance(answer, frames.Failed)
        outcome = Outcome(None, payload, CommandFailed(answer.kind, answer.text)) if failed else Outcome(answer, payload)
        try:
            on_answer(outcome)
        except Exception:  # one caller's bug: the loop would close the socket under all the others
            logger.exception("a callback failed on %s", type(answer).__name__)

    def fail_all(self, error: WorkerGone) -> None:
        self._due = math.inf
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            on_answer, _ = self._waiting.popleft()
            on_answer(Outcome(None, memoryview(b""), error))

    def close(self) -> None:
        self._writer = None
        if self._transport:
            self._transport.close()

    def _due_in(self, deadline_s: float) -> None:
        """The deadline runs from when a command is the oldest: before that, the worker is busy with somebody else's.

        A timer that is already set for earlier stays and looks again then, since most answers come long before: no timer
        is made or cancelled for a token.
        """
        self._due = self._loop.time() + deadline_s
        if self._timer and self._timer.when() > self._due:
            self._timer.cancel()
            self._timer = None
        if not self._timer:
            self._timer = self._loop.call_at(self._due, self._look, deadline_s)

    def _look(self, deadline_s: float) -> None:
        self._timer = None
        if self._due == math.inf:
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._look, self._waiting[0][1])
        else:
            self.on_hang(self._waiting[0][1])


def _how_it_ended(code: int, evidence: list[str]) -> str:
    """Told apart for people: out of memory (the kernel's SIGKILL, or a failed allocation in its last words), or crashed."""
    last_words = " / ".join(line for line in evidence[-3:] if line)
    tail = f": {last_words}" if last_words else ""
    if any(word in last_words.lower() for word in ("bad_alloc", "out of memory", "memoryerror", "failed to allocate")):
        return f"ran out of memory{tail}"
    if code == -signal.SIGKILL:
        return "was killed, most likely by the system for want of memory"
    if code < 0:
        return f"crashed with {signal.Signals(-code).name}{tail}"
    return f"crashed: it ended with exit code {code}{tail}"


def worker_environment(own: Mapping[str, str], *, threads: int, cpus: int) -> dict[str, str]:
    """Of a worker with `threads` threads on a machine that gives us `cpus` processors; what the user has set stays.

    With a thread for every processor each is bound to its own: they start with every step, and one that wakes up beside
    another on the same processor keeps all of them waiting. With fewer they stay free, or all workers would be bound to
    the same first processors. Figures: docs/performance.md.
    """
    chosen = {"GOMP_SPINCOUNT": SPIN_COUNT}
    if threads >= cpus > 1:
        chosen["OMP_PROC_BIND"] = "true"
    return {**chosen, **own}


async def start_worker(*, spawn: Spawn, name: str, threads: int = 1) -> WorkerProcess:
    """Starts a worker process and waits for its first words. Raises WorkerGone when it does not come up.

    `threads`: that it will be told to use.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    evidence: collections.deque[str] = collections.deque(maxlen=STDERR_LINES)
    environment = worker_environment(os.environ, threads=threads, cpus=os.cpu_count() or 1)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "swarmd.inference.worker", "--fd", str(theirs.fileno()),
            pass_fds=(theirs.fileno(),), env=environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        ours.close()
        raise WorkerGone(f"could not be started: {error}") from error
    except asyncio.CancelledError:
        ours.close()
        raise
    finally:
        theirs.close()
    link = _Link()
    worker = WorkerProcess(process, link, evidence)
    spawn(worker.watch(), name=f"watch {name}")
    link.on_hang = lambda seconds: worker.kill(f"hung: no answer within {seconds:.0f} s")
    link.on_garbage = lambda reason: worker.kill(f"crashed: {reason}")
    try:
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
    except asyncio.CancelledError:
        ours.close()
        worker.kill("was stopped")
        raise
    first: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    link.expect(lambda outcome: None if first.done() else first.set_result(outcome), START_DEADLINE_S)
    try:
        outcome = await first
    except asyncio.CancelledError:
        worker.kill("was stopped")
        raise
    match outcome.answer:
        case frames.Ready(description, _, compared):
            worker.description, worker.compared = description, compared
            worker.look_for_progress()
            return worker
        case frames.Unusable(text):
            worker.kill(text)
            raise WorkerGone(f"cannot run: {text}")
        case _:
            worker.kill("crashed: its first words were not understood")
            raise WorkerGone(str(outcome.error or "its first words were not understood"))
