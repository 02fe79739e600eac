"""What people see of the generations whose head this node is."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import SimpleNamespace

import pytest

from swarmd.config.settings import Settings
from swarmd.domain.events import GenerationFinished
from swarmd.domain.generation import GenerationFailed, GenerationRequest
from swarmd.domain.ids import ModelId, NodeId, RequestId
from swarmd.domain.plans import PipelinePlan, Stage
from swarmd.domain.refusals import Busy, Invalid, NotFound, Refusal, StageFailed, WorkerFailed
from swarmd.inference.generation import Generation
from swarmd.inference.head import Head
from swarmd.inference.pipeline import RESUME_S, SAMPLE_AGE_S, Pipeline, _NotOpened, _Read
from swarmd.inference.workers import Texts
from swarmd.kit.bus import EventBus
from swarmd.kit.world import World
from tests.fakes.heads import MODEL, NODES, PIECES, started

HEAD, FIRST, SECOND, THIRD = NODES[0], NODES[1], NodeId("c" * 64), NodeId("d" * 64)


def pipeline_in(world: World, bus: EventBus) -> Pipeline:
    return Pipeline(
        node=NODES[0], catalog=None, registry=None, workers=None, stages=None, links=None, spawn=None, world=world, bus=bus,
        settings=Settings, encrypted=None,
    )  # fmt: skip


class Swarm:
    """A pipeline whose one further stage can run on some nodes, and what becomes of each attempt to open it there."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, holders: dict[NodeId, list[Refusal | None]]) -> None:
        self.holders, self.tried = holders, list[NodeId]()
        self.pipeline = pipeline_in(world, EventBus())
        for name in ("_plan_without", "_open_stages"):
            monkeypatch.setattr(self.pipeline, name, getattr(self, name))
        monkeypatch.setattr(self.pipeline, "_catalog", {MODEL: object()})

    def _plan_without(self, _known: object, nodes: set[NodeId]) -> PipelinePlan | None:
        node = next((node for node in self.holders if node not in nodes), None)
        stage = Stage(node=node or HEAD, first_shard=0, last_shard=0, layer_start=0, layer_end=2)
        return None if node is None else PipelinePlan(model=MODEL, layout="0" * 32, stages=(stage,), predicted_token_ms=None)

    async def _open_stages(self, head: Head, _known: object) -> AsyncExitStack | _NotOpened:
        node = head.plan.stages[0].node
        self.tried.append(node)
        answers = self.holders[node]
        refusal = answers.pop(0) if len(answers) > 1 else answers[0]
        if refusal is not None:
            return _NotOpened(node, refusal)
        head.connect(lambda _step, _rows: None, window=1)
        return AsyncExitStack()

    async def resume(self, lost: NodeId) -> Head:
        head, _ = started(1)
        failure = StageFailed(node=lost, reason="its cable is cut")
        head.fail(failure)
        await self.pipeline._resume(head, GenerationFailed(failure), None, set())
        return head


    async def open(self) -> Generation | Refusal:
        def head(plan: PipelinePlan) -> Head:
            head, _ = started(1)
            head.plan = plan
            return head

        plan = self._plan_without(None, set())
        assert plan is not None
        opened = await self.pipeline._open_somewhere(head, plan, None)
        return opened if isinstance(opened, Refusal) else self.pipeline._generation(*opened, None, 0.0)


GONE = NotFound(what="the shard was deleted")
FULL = Busy(what="all seats are taken")


@pytest.mark.looptime
async def test_a_standby_that_deleted_its_shard_does_not_end_a_reply_that_a_third_node_could_go_on_with(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = Swarm(world, monkeypatch, {FIRST: [None], SECOND: [GONE], THIRD: [None]})
    await swarm.resume(FIRST)
    assert swarm.tried == [SECOND, THIRD]


@pytest.mark.looptime
async def test_a_full_standby_is_waited_for_as_long_as_a_missing_one_and_who_failed_is_not_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = Swarm(world, monkeypatch, {FIRST: [None], SECOND: [FULL] * 12 + [None]})
    head = await swarm.resume(FIRST)
    assert set(swarm.tried) == {SECOND} and len(swarm.tried) == 13
    assert head.resumes == 1, "those that came to nothing are no resumes"


@pytest.mark.looptime
async def test_two_full_standbys_are_both_asked_before_anybody_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = Swarm(world, monkeypatch, {FIRST: [None], SECOND: [FULL], THIRD: [FULL, None]})
    await swarm.resume(FIRST)
    assert swarm.tried == [SECOND, THIRD, SECOND, THIRD]


@pytest.mark.looptime
async def test_an_own_worker_that_does_not_start_is_barred_like_a_node_and_asked_again_when_there_is_nobody_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed = WorkerFailed(model=MODEL, how="crashed")
    swarm = Swarm(world, monkeypatch, {HEAD: [crashed, None], SECOND: [GONE]})
    await swarm.resume(FIRST)
    assert swarm.tried == [HEAD, SECOND, HEAD]


async def test_a_reply_that_cannot_go_on_within_its_grammar_is_not_tried_again_on_eight_sets_of_nodes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = Swarm(world, monkeypatch, {HEAD: [None], FIRST: [None]})
    head, _ = started(1)
    barred = set[NodeId]()
    with pytest.raises(GenerationFailed, match="no token fits"):
        await swarm.pipeline._resume(head, GenerationFailed(Invalid(what="no token fits")), None, barred)
    assert (swarm.tried, barred, head.resumes) == ([], set(), 0)


class Reading:
    """Workers that read prompts."""

    def __init__(self) -> None:
        self.read = 0

    async def texts(self, _model: ModelId) -> Texts:
        return Texts(pieces=PIECES, ends=frozenset())

    async def tokenize(self, _model: ModelId, _command: object) -> list[int]:
        self.read += 1
        return [1, 2]

    def cells_per_session(self, _model: ModelId) -> int:
        return 100


@pytest.mark.looptime
async def test_a_request_that_waits_for_a_seat_is_tokenised_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, workers, opened = pipeline_in(world, EventBus()), Reading(), list[Refusal]()
    known = SimpleNamespace(manifest=SimpleNamespace(vocab_size=10))
    monkeypatch.setattr(pipeline, "_catalog", {MODEL: known})
    monkeypatch.setattr(pipeline, "_workers", workers)

    async def busy(read: _Read, _arrived: float) -> Refusal:
        assert read.tokens == [1, 2]
        opened.append(FULL if len(opened) < 2 else GONE)
        if len(opened) == 2:
            monkeypatch.setattr(pipeline, "_catalog", {MODEL: SimpleNamespace(manifest=known.manifest)})
        return opened[-1]

    monkeypatch.setattr(pipeline, "_open", busy)
    assert await pipeline.open(GenerationRequest(request=RequestId("r"), model=MODEL, prompt="p", max_tokens=5)) == GONE
    assert opened == [FULL, FULL, GONE]
    assert workers.read == 2, "once, and once more for the model that came in its place"


async def test_megabytes_of_schema_are_refused_before_the_worker_sees_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = pipeline_in(world, EventBus())  # without any workers
    known = SimpleNamespace(manifest=SimpleNamespace(vocab_size=10))
    schema = '{"title": "' + "x" * 4_000_000 + '"}'
    request = GenerationRequest(request=RequestId("r"), model=MODEL, prompt="p", max_tokens=5, schema=schema)
    refusal = await pipeline._held_to_grammar(known, request, None)
    assert isinstance(refusal, Invalid) and refusal.param == "response_format" and "65536 are taken" in refusal.what


@pytest.mark.looptime
async def test_a_resume_has_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    swarm = Swarm(world, monkeypatch, {FIRST: [StageFailed(node=FIRST, reason="it hangs")], SECOND: [FULL]})
    with pytest.raises(GenerationFailed, match="its cable is cut"):
        await swarm.resume(FIRST)
    assert RESUME_S < asyncio.get_running_loop().time() < RESUME_S + 5


HANGS = StageFailed(node=FIRST, reason="it gave no sign of life for 2 s")


@pytest.mark.parametrize("refusal", [HANGS, GONE])
async def test_a_request_is_not_refused_because_of_one_node_while_others_have_what_it_holds(
    world: World, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    swarm = Swarm(world, monkeypatch, {FIRST: [refusal], SECOND: [refusal], THIRD: [None]})
    generation = await swarm.open()
    assert isinstance(generation, Generation)
    assert [stage.node for stage in generation.plan.stages] == [THIRD]


@pytest.mark.looptime
@pytest.mark.parametrize("refusal", [HANGS, WorkerFailed(model=MODEL, how="crashed")])
async def test_a_worker_that_hung_while_nobody_asked_costs_no_request_its_reply(
    world: World, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    swarm = Swarm(world, monkeypatch, {FIRST: [refusal, None]})
    assert isinstance(await swarm.open(), Generation)
    swarm = Swarm(world, monkeypatch, {FIRST: [refusal]})
    assert await swarm.open() == refusal
    assert swarm.tried == [FIRST, FIRST]


async def test_a_request_that_nobody_can_open_is_refused_and_one_that_has_to_wait_asks_nobody_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = Swarm(world, monkeypatch, {FIRST: [HANGS], SECOND: [GONE]})
    assert await swarm.open() == GONE
    swarm = Swarm(world, monkeypatch, {FIRST: [FULL], SECOND: [None]})
    assert await swarm.open() == FULL
    assert swarm.tried == [FIRST]


@pytest.mark.looptime
async def test_counters_latencies_and_the_last_speed(world: World) -> None:
    bus = EventBus()
    pipeline = pipeline_in(world, bus)
    assert (pipeline.last_tokens_per_second, pipeline.latencies_ms(), pipeline.active) == (None, [], 0)

    async def one(tokens: int, outcome: str) -> None:
        head, tail = started(1, limit=tokens, ticks=world.clock.ticks)
        for _ in range(tokens):
            await asyncio.sleep(0.5)
            tail.answer(0)
        assert await pipeline._admission.enter("") is None
        pipeline._finished(head, outcome)

    with bus.spy() as spy:
        await one(5, "length")
        fact = await spy.wait_for(GenerationFinished)
    assert (fact.completion_tokens, fact.outcome, fact.duration_ms) == (5, "length", pytest.approx(2500))
    assert pipeline.last_tokens_per_second == pytest.approx(2.0)
    await one(3, "cancelled")
    await one(1, "stop")  # a single token has no speed: the one before stays
    assert pipeline.last_tokens_per_second == pytest.approx(2.0)
    assert pipeline.latencies_ms() == [pytest.approx(2500), pytest.approx(500)]
    assert pipeline.active == 0
    await asyncio.sleep(SAMPLE_AGE_S + 1)
    assert pipeline.latencies_ms() == []
