"""Replies that are made for `/v1/responses`: each in a task of its own, so that one in the background survives its client.

A reply in the foreground ends with its client, one in the background when it is cancelled; both take the same way out, and
every stage drops what it had. What is stored is written first and told then. A node that stops leaves what was under way as
it is in the store; the next start says what became of it (`ResponseArchive.recover`), as after a kill.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from swarmd.api.answers import Answers
from swarmd.api.event_buffer import EventBuffer
from swarmd.api.replies import Broken, NodeStopped
from swarmd.api.responses_archive import KEPT_S, ResponseArchive, failure_of, stored_response
from swarmd.api.responses_prints import ResponsePrinter, preview, text_of
from swarmd.api.responses_requests import shortened
from swarmd.api.responses_shapes import Event
from swarmd.api.sse import frame
from swarmd.api.targets import Target
from swarmd.domain.generation import GenerationFailed, GenerationRequest
from swarmd.domain.plans import PipelinePlan
from swarmd.domain.refusals import Busy, PromptTooLong, Refusal
from swarmd.domain.responses import ResponseStatus, ResponseSummary, StoredResponse
from swarmd.kit.service import Ready, Supervisor
from swarmd.kit.world import World

SWEEP_S: Final = 3600.0  # contract: swarmllm.md 3.3
BACKGROUND_LIMIT: Final = 32  # that run or wait; each may hold a prompt of 4 MB
BACKGROUND_AT_ONCE: Final = 4  # others wait here, so that people who look at their screen find places in the queue
BUSY_PATIENCE_S: Final = 600.0  # that one in the background asks again for a place, as a client would
BUSY_PAUSE_S: Final = 1.0  # where the refusal says nothing better
ENDED_KEPT: Final = 32  # whose events are kept for clients that come back for the rest


class Run:
    """One reply. `events` are there for streams and whatever is in the background."""

    def __init__(
        self, *, printer: ResponsePrinter, summary: ResponseSummary, input_items: str, stored: bool, streamed: bool
    ) -> None:
        """`summary`: as it is before anything has happened; `input_items`: as the store wants them."""
        self.printer, self._summary, self._input_items = printer, summary, input_items
        self.id, self.background, self.stored, self.streamed = summary.id, summary.background, stored, streamed
        self.events = EventBuffer(paced=streamed and not summary.background)
        self.begun = asyncio.Event()
        """It is in the store, if it is to be, and its first events are there."""
        self.over = asyncio.Event()
        self.told = False
        """How it ended is in the store and in the last event. False where a bug, or the node's end, came first."""
        self.lost: Refusal = NodeStopped()
        """What to say where nothing was told."""
        self.plan: PipelinePlan | None = None
        self.refusal: Refusal | None = None
        """Why it failed."""
        self.task: asyncio.Task[None] | None = None
        self.settling: asyncio.Task[None] | None = None
        self.ending: asyncio.Task[None] | None = None

    def emit(self, events: Sequence[Event]) -> None:
        if self.streamed or self.background:
            for event in events:
                self.events.append(frame(event.type, event))

    def row(self) -> StoredResponse:
        printer, first = self.printer, self._summary
        usage = printer.usage if not printer.status.is_open else None
        items = printer.items
        summary = ResponseSummary(
            id=first.id, created_at=first.created_at, expires_at=first.created_at + KEPT_S, model=first.model,
            status=printer.status, background=first.background, previous=first.previous,
            input_tokens=usage.prompt_tokens if usage is not None else None,
            output_tokens=usage.completion_tokens if usage is not None else None,
            input_preview=first.input_preview, output_preview=preview(text_of(items)),
        )  # fmt: skip
        return stored_response(summary, body=printer.body(), output=items, input_items=self._input_items)

    def close(self) -> None:
        self.events.end()
        self.begun.set()
        self.over.set()


class _Sweep:
    """Service: what has expired is deleted."""

    name = "responses sweep"

    def __init__(self, archive: ResponseArchive) -> None:
        self._archive = archive

    async def run(self, ready: Ready) -> None:
        ready()
        while True:
            await self._archive.sweep()
            await asyncio.sleep(SWEEP_S)


class ResponseRuns:
    """Service."""

    name = "responses"

    def __init__(self, *, answers: Answers, archive: ResponseArchive, world: World) -> None:
        self._answers, self._archive, self._world = answers, archive, world
        self._live: dict[str, Run] = {}
        self._ended: dict[str, Run] = {}
        """At most ENDED_KEPT, the oldest first."""
        self._turns = asyncio.Semaphore(BACKGROUND_AT_ONCE)
        self._supervisor: Supervisor | None = None

    async def run(self, ready: Ready) -> None:
        async with Supervisor("responses", world=self._world) as self._supervisor:
            await self._supervisor.start(_Sweep(self._archive))  # fails by itself: replies go on
            ready()
            await asyncio.Event().wait()

    def begin(self, run: Run, target: Target, request: GenerationRequest) -> Refusal | None:
        """None: it is on its way."""
        waiting = sum(other.background for other in self._live.values())
        if run.background and waiting >= BACKGROUND_LIMIT:
            return Busy(what=f"{waiting} responses run or wait in the background already: try again later")
        self._live[run.id] = run
        run.task = self._spawn(self._drive(run, target, request), name="response")
        return None

    def under_way(self) -> tuple[int, int]:
        """Replies that are made now, in the foreground and in the background; those that wait included."""
        behind = sum(run.background for run in self._live.values())
        return len(self._live) - behind, behind

    def live(self, id: str) -> Run | None:
        """A stored one that is being made."""
        run = self._live.get(id)
        return run if run is not None and run.stored else None

    def followed(self, id: str) -> Run | None:
        """One whose events are kept: being made, or ended a while ago."""
        run = self.live(id) or self._ended.get(id)
        return run if run is not None and (run.streamed or run.background) else None

    def forget(self, id: str) -> None:
        """It was deleted: its events go, too."""
        self._ended.pop(id, None)

    async def cancel(self, run: Run) -> None:
        """Returns when every stage has been told and the store says so. One that has ended stays as it is."""
        await asyncio.shield(self.give_up(run))

    def give_up(self, run: Run) -> asyncio.Task[None]:
        """The same, for a client that is gone: nobody waits."""
        if run.ending is None:
            run.ending = self._spawn(self._end(run), name="response ends")
        return run.ending

    def _spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        assert self._supervisor is not None, "requests come only while the service runs"
        return self._supervisor.spawn(work, name=name)

    async def _drive(self, run: Run, target: Target, request: GenerationRequest) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            try:
                if run.stored:
                    await self._archive.add(run.row())
                run.emit(run.printer.created())
                run.begun.set()
                refusal = await self._work(run, target, request)
                await self._settle(run, refusal)
            finally:
                if run.printer.status.is_open and not task.cancelling():  # a bug: the log has its traceback
                    await self._settle(run, Broken(request=request.request))
        finally:
            if not task.cancelling():
                run.lost = Broken(request=request.request)  # where the store cannot be written
            if run.ending is None:
                self._close(run)

    async def _work(self, run: Run, target: Target, request: GenerationRequest) -> Refusal | None:
        if not run.background:
            await run.events.room(0)  # the client has the first events before the model is touched
            return await self._fitting(run, target, request)
        async with self._turns:
            patience_until = self._world.clock.monotonic() + BUSY_PATIENCE_S
            while True:
                refusal = await self._fitting(run, target, request)
                if not isinstance(refusal, Busy) or run.plan is not None:
                    return refusal
                pause_s = max(BUSY_PAUSE_S, refusal.retry_after_s or 0.0)
                if self._world.clock.monotonic() + pause_s > patience_until:
                    return refusal
                await asyncio.sleep(pause_s)

    async def _fitting(self, run: Run, target: Target, request: GenerationRequest) -> Refusal | None:
        refusal = await self._generate(run, target, request)
        while run.printer.truncates and isinstance(refusal, PromptTooLong) and run.plan is None:
            shorter = shortened(request, refusal)  # by a turn at least
            if shorter is None:
                break
            request = shorter
            refusal = await self._generate(run, target, request)
        return refusal

    async def _generate(self, run: Run, target: Target, request: GenerationRequest) -> Refusal | None:
        async with self._answers.opened(target, request) as several:
            if isinstance(several, Refusal):
                return several
            run.plan = several.plan
            if run.printer.status is ResponseStatus.QUEUED:
                begun = run.printer.begun()
                await self._archive.update(run.row())
                run.emit(begun)
            try:
                async for _, chunk in several:
                    run.emit(run.printer.chunk(chunk))
                    await run.events.room()
            except GenerationFailed as failure:
                return failure.refusal
        return None

    async def _settle(self, run: Run, refusal: Refusal | None) -> None:
        """Once it is known how it ended, no cancellation makes it another end."""
        run.refusal = refusal
        run.settling = self._spawn(self._settled(run), name="response is settled")
        await asyncio.shield(run.settling)

    async def _settled(self, run: Run) -> None:
        refusal = run.refusal
        if refusal is not None:
            events = run.printer.failed(failure_of(refusal))
        else:
            events = run.printer.ended(self._world.clock.now())
        if run.stored and refusal is not None and run.plan is None and not run.background and not run.streamed:
            await self._archive.delete(run.id)  # it never began, and the client does not know of it
        elif run.stored:
            await self._archive.update(run.row())
        run.emit(events)
        run.told = True

    async def _end(self, run: Run) -> None:
        try:
            if run.task is not None and not run.task.done():
                run.task.cancel()
                await asyncio.wait((run.task,))
            if run.settling is not None:
                await asyncio.wait((run.settling,))
            if run.printer.status.is_open:
                events = run.printer.cancelled()
                if run.stored:
                    await self._archive.update(run.row())
                run.emit(events)
                run.told = True
        finally:
            self._close(run)

    def _close(self, run: Run) -> None:
        if self._live.pop(run.id, None) is None:
            return
        run.close()
        if run.stored and (run.streamed or run.background):
            self._ended[run.id] = run
            while len(self._ended) > ENDED_KEPT:
                del self._ended[next(iter(self._ended))]
