"""Replies in tasks of their own, in virtual time: queued, asked again, cancelled, swept, left to the next start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from swarmd.api.answers import Answers
from swarmd.api.responses_archive import KEPT_S, ResponseArchive, body_of, items_text
from swarmd.api.responses_prints import ResponsePrinter, opened
from swarmd.api.responses_requests import Asked, asked_of
from swarmd.api.responses_runs import BACKGROUND_AT_ONCE, BUSY_PATIENCE_S, ENDED_KEPT, SWEEP_S, ResponseRuns, Run
from swarmd.api.responses_shapes import ResponsesRequest
from swarmd.api.targets import Target
from swarmd.domain.generation import ChatMessage, GenerationRequest, TokenChunk
from swarmd.domain.ids import RequestId
from swarmd.domain.refusals import Busy, PromptTooLong
from swarmd.domain.responses import ResponseStatus, ResponseSummary
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World
from tests.fakes.inline_sqlite import inline_database
from tests.fakes.rim import TINY, FakeGeneration, FakePipeline, script

REQUEST = GenerationRequest(request=RequestId("r"), model=TINY, prompt="x")


@dataclass
class Scene:
    pipeline: FakePipeline
    archive: ResponseArchive
    runs: ResponseRuns
    supervisor: Supervisor
    world: World
    made: int = 0

    def run(self, **body: Any) -> Run:
        self.made += 1
        id, now = f"resp_{self.made:032x}", self.world.clock.now()
        asked = asked_of(msgspec.convert({"model": "m", "input": "x"} | body, ResponsesRequest), {}, response=id)
        assert isinstance(asked, Asked)
        out = opened(asked, id=id, created_at=int(now), model="m")
        summary = ResponseSummary(
            id=id, created_at=now, expires_at=now, model="m", status=ResponseStatus(out.status), background=out.background,
            previous=None, input_tokens=None, output_tokens=None, input_preview="x", output_preview="",
        )  # fmt: skip
        return Run(
            printer=ResponsePrinter(out, {}), summary=summary, input_items=items_text([]), stored=out.store,
            streamed=bool(asked.body.stream),
        )  # fmt: skip

    def begun(self, **body: Any) -> Run:
        run = self.run(**body)
        assert self.runs.begin(run, Target(TINY), REQUEST) is None
        return run

    async def status(self, run: Run) -> str | None:
        found = await self.archive.get(run.id)
        return None if found is None else found.summary.status.value


@pytest.fixture
async def scene(world: World) -> AsyncIterator[Scene]:
    async with inline_database() as db:
        pipeline, archive = FakePipeline(), ResponseArchive(db=db, clock=world.clock)
        runs = ResponseRuns(answers=Answers(pipeline), archive=archive, world=world)  # type: ignore[arg-type]
        async with Supervisor("test", world=world) as supervisor:
            await supervisor.start(runs)
            yield Scene(pipeline, archive, runs, supervisor, world)


async def settled() -> None:
    await asyncio.sleep(0.1)  # virtual: everything that can go on has gone on


@pytest.mark.looptime
async def test_a_few_at_once_and_the_others_queue(scene: Scene) -> None:
    go = asyncio.Event()
    scene.pipeline.script = [go, *script("a")]
    runs = [scene.begun(background=True) for _ in range(BACKGROUND_AT_ONCE + 2)]
    await settled()
    assert [await scene.status(run) for run in runs] == ["in_progress"] * BACKGROUND_AT_ONCE + ["queued"] * 2
    assert scene.pipeline.active == BACKGROUND_AT_ONCE
    await scene.runs.cancel(runs[-1])  # one that waits
    go.set()
    await settled()
    assert [await scene.status(run) for run in runs] == ["completed"] * (BACKGROUND_AT_ONCE + 1) + ["cancelled"]
    assert len(scene.pipeline.requests) == BACKGROUND_AT_ONCE + 1 and scene.runs.live(runs[0].id) is None


@pytest.mark.looptime
async def test_in_the_background_a_busy_node_is_asked_again(scene: Scene) -> None:
    scene.pipeline.says = Busy(what="full", retry_after_s=20)
    run, foreground = scene.begun(background=True), scene.begun()
    await settled()
    assert isinstance(foreground.refusal, Busy) and foreground.over.is_set() and await scene.status(foreground) is None
    await asyncio.sleep(50)
    assert len(scene.pipeline.requests) == 4 and await scene.status(run) == "queued"
    scene.pipeline.says = None
    await asyncio.sleep(20)
    assert await scene.status(run) == "completed"


@pytest.mark.looptime
async def test_that_patience_has_an_end_and_the_code_is_that_of_the_foreground(scene: Scene) -> None:
    scene.pipeline.says = Busy(what="full")
    run = scene.begun(background=True)
    await asyncio.sleep(BUSY_PATIENCE_S + 5)
    found = await scene.archive.get(run.id)
    assert found is not None and body_of(found)["status"] == "failed" and body_of(found)["error"]["code"] == "busy"


@pytest.mark.looptime
async def test_a_conversation_is_shortened_only_where_that_was_asked_for(scene: Scene, monkeypatch) -> None:
    asked: list[int] = []

    async def full(request: GenerationRequest) -> Any:
        asked.append(len(request.messages))
        if len(request.messages) > 2:
            return PromptTooLong(prompt_tokens=101, context_tokens=100)
        return FakeGeneration(scene.pipeline)

    monkeypatch.setattr(scene.pipeline, "open", full)
    turns = tuple(ChatMessage(role="user", content="x") for _ in range(4))
    request = GenerationRequest(request=RequestId("r"), model=TINY, messages=turns)
    for truncation, status in (("auto", "completed"), ("disabled", "failed")):
        run = scene.run(truncation=truncation, background=True)
        assert scene.runs.begin(run, Target(TINY), request) is None
        await run.over.wait()
        assert await scene.status(run) == status
    assert asked == [4, 3, 2, 4]


@pytest.mark.looptime
async def test_a_slow_client_holds_the_model_back(scene: Scene) -> None:
    scene.pipeline.script = script(*("x" * 100))
    run = scene.begun(stream=True)
    await settled()
    assert run.events.count == 2 and scene.pipeline.requests == []  # it has not even taken the first two
    events = run.events.follow(-1, paces=True)
    for _ in range(3):
        await anext(events)
    await settled()
    assert 30 < run.events.count < 45 and not run.over.is_set()
    async for _ in events:
        pass
    assert run.told and await scene.status(run) == "completed"


@pytest.mark.looptime
async def test_a_cancellation_that_comes_too_late_changes_nothing(scene: Scene) -> None:
    run = scene.begun(background=True)
    await run.over.wait()
    await scene.runs.cancel(run)
    assert run.printer.status is ResponseStatus.COMPLETED and await scene.status(run) == "completed"


@pytest.mark.looptime
async def test_a_cancellation_at_any_moment_ends_in_one_state(scene: Scene) -> None:
    """Never: cancelled for the one who follows, and completed in the store."""
    for steps in range(40):
        run = scene.begun(background=True)
        for _ in range(steps):
            await asyncio.sleep(0)
        await scene.runs.cancel(run)
        found = await scene.status(run)
        assert found in (run.printer.status.value, None) and run.printer.status.value in ("completed", "cancelled"), steps
        assert run.told and run.over.is_set() and scene.pipeline.active == 0


@pytest.mark.looptime
async def test_a_client_that_is_gone_ends_its_reply(scene: Scene) -> None:
    scene.pipeline.script = [TokenChunk(sequence=0, text="Hel"), asyncio.Event()]
    run = scene.begun()
    await settled()
    scene.runs.give_up(run)
    await settled()
    assert await scene.status(run) == "cancelled" and scene.pipeline.active == 0


@pytest.mark.looptime
async def test_a_node_that_stops_leaves_it_to_the_next_start(scene: Scene) -> None:
    scene.pipeline.script = [asyncio.Event()]
    run = scene.begun(background=True)
    await settled()
    await scene.supervisor.stop()
    assert run.over.is_set() and not run.told and scene.pipeline.active == 0
    assert await scene.status(run) == "in_progress"
    assert await scene.archive.recover() == 1 and await scene.status(run) == "failed"


@pytest.mark.looptime
async def test_swept_every_hour(scene: Scene) -> None:
    run = scene.begun()
    await run.over.wait()
    await asyncio.sleep(KEPT_S - SWEEP_S)
    assert (await scene.archive.summaries(statuses=(), limit=5))[1] == 1
    await asyncio.sleep(2 * SWEEP_S)
    assert (await scene.archive.summaries(statuses=(), limit=5))[1] == 0


@pytest.mark.looptime
async def test_events_of_the_last_few_are_kept(scene: Scene) -> None:
    runs = []
    for _ in range(ENDED_KEPT + 3):
        runs.append(scene.begun(background=True))
        await runs[-1].over.wait()
    kept = [scene.runs.followed(run.id) is run for run in runs]
    assert kept == [False] * 3 + [True] * ENDED_KEPT
    scene.runs.forget(runs[-1].id)
    assert scene.runs.followed(runs[-1].id) is None
    whole, unstored = scene.begun(), scene.begun(store=False)
    await settled()
    assert scene.runs.followed(whole.id) is scene.runs.live(unstored.id) is None
