"""What one request may take, and how long others wait for it: openings, memory, loads, steps, silence. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from swarmd.config.settings import InferenceSettings, Settings
from swarmd.domain.events import WorkerReady
from swarmd.domain.generation import ChatMessage, GenerationRequest, Sampling
from swarmd.domain.ids import ModelId, RequestId, SessionId, ShardRef
from swarmd.domain.refusals import Busy, Invalid, NoCapacity, NoCoverage, Refusal, StageFailed
from swarmd.domain.structure import Grammar
from swarmd.inference import worker_frames as frames
from swarmd.inference.forwarding import SWEEP_S, UNANSWERED_STEPS, StageSession, steps_in_flight
from swarmd.inference.generation import Generation
from swarmd.inference.workers import LOAD_DEADLINE_S, LOADS_WAITING, PREFILL_ROWS, Seat, prefill_rows
from swarmd.kit.world import World
from swarmd.models.catalog import KnownModel
from swarmd.models.gguf_values import Value, ValueType, number_value, text_value
from swarmd.wire.frames import MAX_PAYLOAD
from swarmd.wire.generation import OpenStage, StageBroken, StageReady, StepOn
from swarmd.wire.messages import Refused
from tests.fakes.heads import telling
from tests.fakes.node_parts import OWN, FakePeer, NodeParts, open_parts, tiny_known

pytestmark = pytest.mark.looptime

TOKEN = memoryview(b"\0\0\0\0")
WHOLE = (0, 1, 2, 3)
SETTINGS = Settings(inference=InferenceSettings(context_tokens=256, max_batch_size=2, session_timeout_seconds=100))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> KnownModel:
    return tiny_known(tmp_path_factory.mktemp("tiny"))


@pytest_asyncio.fixture
async def parts(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NodeParts]:
    async with open_parts(world, monkeypatch, settings=lambda: SETTINGS) as found:
        yield found


def ask(model: ModelId) -> GenerationRequest:
    return GenerationRequest(request=RequestId("r"), model=model, prompt="p", sampling=Sampling(temperature=0.0))


def memory(parts: NodeParts, model: ModelId, *shards: int) -> int:
    return sum(parts.workers.memory_needed(model, index) for index in shards)


async def soon() -> None:
    await asyncio.sleep(0.01)


def now() -> float:
    return asyncio.get_running_loop().time()


# -- opening


async def test_a_refusal_does_not_wait_for_the_slowest_stage(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", (0,))
    slow = parts.meet("a", 1)
    parts.meet("b", 2, 3, says=Refused(kind="Invalid", sentence="the layout is another one"))
    began = now()
    refused = await parts.pipeline.open(ask(model))
    assert isinstance(refused, Invalid) and "the layout is another one" in refused.sentence
    assert now() - began < 1
    assert [stream.closed for _, stream in slow.opened] == [True]
    assert not parts.stages._sessions and not any(parts.registry._leases.values())
    assert parts.pipeline.active == 0


async def test_a_request_waits_while_all_seats_of_a_stage_are_taken(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", ())
    peer = parts.meet("a", *WHOLE, says=Refused(kind="Busy", sentence="all sequences are in use"))
    asking = asyncio.create_task(parts.pipeline.open(ask(model)))
    await asyncio.sleep(SETTINGS.inference.queue_seconds / 2)
    assert not asking.done() and len(peer.opened) > 1 and parts.pipeline.active == 1
    peer.says = StageReady()
    generation = await asking
    assert isinstance(generation, Generation)
    async with generation:
        pass
    assert parts.pipeline.active == 0


async def test_a_request_that_found_no_seat_is_told_when_to_come_back(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", ())
    parts.meet("a", *WHOLE, says=Refused(kind="Busy", sentence="all sequences are in use"))
    began = now()
    refused = await parts.pipeline.open(ask(model))
    assert isinstance(refused, Busy) and "all sequences are in use" in refused.sentence
    assert refused.retry_after_s is not None and refused.retry_after_s >= 1
    assert now() - began <= SETTINGS.inference.queue_seconds
    assert parts.pipeline.active == 0


async def test_a_client_that_hangs_up_while_stages_open_leaves_nothing_behind(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", (0, 1))
    slow = parts.meet("a", 2, 3)
    asking = asyncio.create_task(parts.pipeline.open(ask(model)))
    await soon()
    assert slow.opened and len(parts.stages._sessions) == 1
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert slow.opened[0][1].closed and not parts.stages._sessions and parts.pipeline.active == 0


async def test_an_opening_that_all_stages_agree_to_feeds_the_first(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", ())
    first, second = parts.meet("a", 0, 1, says=StageReady()), parts.meet("b", 2, 3, says=StageReady())
    generation = await parts.pipeline.open(ask(model))
    assert isinstance(generation, Generation), generation
    async with generation:
        assert [type(message) for message in first.opened[0][1].sent] == [StepOn]
        assert second.opened[0][1].sent == []
    assert first.opened[0][1].closed and second.opened[0][1].closed


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (number_value(ValueType.UINT32, 7), "has to be a string"),
        (text_value("x" * (frames.TEMPLATE_LIMIT + 1)), "above 1048576"),
        (None, "has no"),
    ],
    ids=["number", "endless", "none"],
)
async def test_a_chat_template_that_is_none_is_the_model_s_fault_and_no_crash(
    parts: NodeParts, known: KnownModel, value: Value | None, words: str
) -> None:
    metadata = {key: one for key, one in known.header.metadata.items() if key != "tokenizer.chat_template"}
    if value is not None:
        metadata["tokenizer.chat_template"] = value
    model = parts.add(replace(known, header=replace(known.header, metadata=metadata)), "tiny", WHOLE)
    request = replace(ask(model), prompt=None, messages=(ChatMessage(role="user", content="x"),))
    refused = await parts.pipeline.open(request)
    assert isinstance(refused, Invalid) and words in refused.sentence and refused.param == "model"


@pytest.mark.parametrize(
    ("kind", "expected"), [("Busy", Busy), ("Invalid", Invalid), ("NotFound", StageFailed), ("WorkerFailed", StageFailed)]
)
async def test_what_a_stage_refuses_keeps_its_kind(
    parts: NodeParts, known: KnownModel, kind: str, expected: type[Refusal]
) -> None:
    model = parts.add(known, "tiny", ())
    peer = parts.meet("a", *WHOLE, says=Refused(kind=kind, sentence="because"))
    refused = await parts.pipeline.open(ask(model))
    assert type(refused) is expected and "because" in refused.sentence and "aaaaaaaaaaaaaaaa" in refused.sentence
    peer.says = StageBroken(reason="no more")
    assert isinstance(await parts.pipeline.open(ask(model)), StageFailed)


# -- memory of other nodes


def lacking(peer: FakePeer) -> StageBroken:
    refusal = NoCapacity(node=peer.node, needed_bytes=7_000_000, free_bytes=1_000_000)
    return StageBroken(reason=refusal.sentence, lacking=(refusal.needed_bytes, refusal.free_bytes))


async def test_a_node_without_memory_is_planned_around_and_one_that_has_it_loaded_is_not(
    parts: NodeParts, known: KnownModel
) -> None:
    model = parts.add(known, "tiny", ())
    full = parts.meet("a", *WHOLE, free=0)
    roomy = parts.meet("b", *WHOLE)
    plan = parts.pipeline.plan(model)
    assert not isinstance(plan, Refusal) and [stage.node for stage in plan.stages] == [roomy.node]
    full.loaded = WHOLE
    plan = parts.pipeline.plan(model)
    assert not isinstance(plan, Refusal) and [stage.node for stage in plan.stages] == [full.node]
    full.loaded, roomy.free = (), 5
    refused = parts.pipeline.plan(model)
    assert isinstance(refused, NoCapacity) and refused.free_bytes == 0  # of the node that comes first and lacks most


async def test_a_stage_without_memory_is_replaced_once(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", ())
    full, roomy = parts.meet("a", *WHOLE), parts.meet("b", *WHOLE, says=StageReady())
    full.says = lacking(full)
    generation = await parts.pipeline.open(ask(model))
    assert isinstance(generation, Generation), generation
    assert [stage.node for stage in generation.plan.stages] == [roomy.node]
    assert (len(full.opened), len(roomy.opened)) == (1, 1)
    assert full.opened[0][0].session != roomy.opened[0][0].session
    async with generation:
        pass
    roomy.says = lacking(roomy)
    refused = await parts.pipeline.open(ask(model))
    assert refused == NoCapacity(node=roomy.node, needed_bytes=7_000_000, free_bytes=1_000_000, layers=((0, 4),))
    assert (len(full.opened), len(roomy.opened)) == (2, 2)


async def test_a_refusal_for_memory_keeps_its_numbers_when_nobody_can_step_in(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", (0, 1))
    full = parts.meet("a", 2, 3)
    full.says = lacking(full)
    refused = await parts.pipeline.open(ask(model))
    assert refused == NoCapacity(node=full.node, needed_bytes=7_000_000, free_bytes=1_000_000, layers=((2, 4),))
    del parts.links.peers[full.node]
    assert isinstance(await parts.pipeline.open(ask(model)), NoCoverage)


async def test_others_are_told_what_is_loaded_and_what_is_not_any_more(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", (0, 1, 2))
    with parts.bus.spy() as spy:
        assert await parts.workers.ensure(model, (0, 2)) is None
        assert parts.registry.holdings()[0].loaded == (0, 2)
        assert await parts.workers.unload_shard(ShardRef(model, 0)) == (2,)
        assert parts.registry.holdings()[0].loaded == (2,)
        assert [fact.shards for fact in spy.of(WorkerReady)] == [(0,), (0, 2), (2,)]


# -- loading


async def test_two_models_that_load_at_once_do_not_get_the_same_memory(parts: NodeParts, known: KnownModel) -> None:
    one, two = parts.add(known, "one", WHOLE), parts.add(known, "two", WHOLE)
    parts.held = (frames.Load,)
    need = memory(parts, one, 0, 1)
    parts.free = need + memory(parts, two, 0, 1) - 1
    first = asyncio.create_task(parts.workers.ensure(one, (0, 1)))
    await soon()
    assert parts.workers.free_bytes() == parts.free - need
    assert parts.workers.loading(one) == {0, 1}
    refused = await parts.workers.ensure(two, (0, 1))
    assert refused == NoCapacity(node=OWN, needed_bytes=memory(parts, two, 0, 1), free_bytes=parts.free - need)
    assert parts.processes[1].loads() == []  # all or nothing: half a stage would only take memory
    parts.processes[0].release()
    await soon()
    parts.free -= memory(parts, one, 0)  # the machine shows it now
    assert parts.workers.free_bytes() == parts.free - memory(parts, one, 1)
    parts.processes[0].release()
    assert await first is None
    assert parts.workers.free_bytes() == parts.free and parts.workers.loading(one) == frozenset()
    assert await asyncio.gather(*(parts.workers.ensure(one, (index,)) for index in (0, 1))) == [None, None]


async def test_a_model_that_is_being_loaded_is_planned_with_as_if_it_were(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", WHOLE)
    parts.held = (frames.Load,)
    parts.free = memory(parts, model, *WHOLE)
    loading = asyncio.create_task(parts.workers.ensure(model, WHOLE))
    await soon()
    assert not isinstance(parts.pipeline.plan(model), Refusal)
    for _ in WHOLE:
        parts.processes[0].release()
        await soon()
    assert await loading is None


async def test_requests_for_the_same_model_share_a_load_and_too_many_are_busy(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", WHOLE)
    parts.held = (frames.Load,)
    before = parts.supervisor.spawned_count
    asking = [asyncio.create_task(parts.workers.ensure(model, (0,))) for _ in range(LOADS_WAITING)]
    await soon()
    supervisor = parts.workers._supervisor
    assert supervisor is not None and (supervisor.spawned_count, parts.supervisor.spawned_count) == (2, before)  # and _mourn
    refused = await parts.workers.ensure(model, (0,))
    assert isinstance(refused, Busy) and f"{LOADS_WAITING} requests already wait" in refused.sentence
    asking.pop().cancel()
    await soon()
    other = asyncio.create_task(parts.workers.ensure(model, (1,)))
    await soon()
    for _ in range(2):
        parts.processes[0].release()
        await soon()
    assert set(await asyncio.gather(*asking, other)) == {None}
    assert parts.processes[0].loads() == [0, 1]
    host = parts.workers._hosts[model]
    assert (host.flights, host.waiting) == ({}, 0)


async def test_loads_that_their_askers_left_are_counted_too(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", WHOLE)
    parts.held = (frames.Load,)
    parts.workers._hosts.clear()
    host = parts.workers._host(model)
    assert host is not None
    loop = asyncio.get_running_loop()
    host.flights = {frozenset((index,)): loop.create_task(asyncio.sleep(0)) for index in range(100, 100 + LOADS_WAITING)}
    assert isinstance(await parts.workers.ensure(model, (0,)), Busy)


async def test_what_is_loaded_costs_no_task(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", WHOLE)
    assert await parts.workers.ensure(model, WHOLE) is None
    supervisor = parts.workers._supervisor
    assert supervisor is not None
    await soon()
    tasks = supervisor.spawned_count
    seat = parts.workers.take_seat(model, WHOLE, cells=4)
    with pytest.raises(StopIteration) as done:  # it never waits
        seat.send(None)
    assert isinstance(done.value.value, Seat) and supervisor.spawned_count == tasks


async def test_more_cells_than_there_will_ever_be_is_no_matter_of_waiting(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", WHOLE)
    refused = await parts.workers.take_seat(model, WHOLE, cells=100_000)
    assert isinstance(refused, Invalid) and "wants 100000" in refused.sentence and refused.param == "max_tokens"
    assert parts.processes == []  # nothing was loaded for it


# -- steps


def stage(model: ModelId, known: KnownModel, **changed: object) -> OpenStage:
    usual = OpenStage(
        session=SessionId("5e" * 16), model=model, layout=known.manifest.layout, stage=0, stages=1, first_shard=0,
        last_shard=3, cells=200, predecessor=None, successor=None, sampling=None,
    )  # fmt: skip
    return replace(usual, **changed)


async def test_steps_queued_behind_a_busy_worker_are_bounded(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", WHOLE)
    failures: list[str] = []
    async with parts.stages.session(stage(model, known), head=lambda *_: None, failed=telling(failures.append)) as session:
        assert isinstance(session, StageSession)
        (worker,) = parts.processes
        worker.held = (frames.Step,)
        for number in range(UNANSWERED_STEPS):
            session.feed(StepOn(number, number, 1, 0, []), TOKEN)
        worker.release()
        session.feed(StepOn(UNANSWERED_STEPS, UNANSWERED_STEPS, 1, 0, []), TOKEN)
        assert failures == [] and len(worker.waiting) == 1, "the others wait on this side"
        session.feed(StepOn(UNANSWERED_STEPS + 1, UNANSWERED_STEPS + 1, 1, 0, []), TOKEN)
        assert failures == [f"more than {UNANSWERED_STEPS} steps before the first of them was answered"]
        assert len(session._seat.batcher._replies) == UNANSWERED_STEPS - 1


async def test_a_head_never_has_more_in_flight_than_a_stage_takes(
    parts: NodeParts, known: KnownModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = parts.add(known, "tiny", ())
    peers = [parts.meet(digit, index, says=StageReady()) for index, digit in enumerate("abcd")]
    generation = await parts.pipeline.open(ask(model))
    assert isinstance(generation, Generation), generation
    assert generation._head._window == len(peers) + 1
    async with generation:
        pass
    monkeypatch.setattr("swarmd.inference.forwarding.UNANSWERED_STEPS", 3)
    generation = await parts.pipeline.open(ask(model))
    assert isinstance(generation, Generation) and generation._head._window == 3
    async with generation:
        pass


@pytest.mark.parametrize(("width", "steps"), [(64, 16), (1536, 16), (4096, 6), (16_384, 2), (1 << 17, 2)])
def test_steps_of_a_wide_model_that_wait_are_fewer(width: int, steps: int) -> None:
    assert steps_in_flight(width) == steps


@pytest.mark.parametrize("width", [64, 16_384, 16_416, 20_480, 1 << 17])
def test_a_chunk_of_any_width_fits_a_message(width: int) -> None:
    rows = prefill_rows(width)
    assert 16 <= rows <= PREFILL_ROWS and rows * width * 4 <= MAX_PAYLOAD
    assert rows == PREFILL_ROWS or width > 16_384


async def test_a_step_has_as_many_rows_as_the_width_allows(
    parts: NodeParts, known: KnownModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarmd.inference.workers.MAX_PAYLOAD", known.manifest.width * 4 * 8)
    model = parts.add(known, "tiny", WHOLE)
    failures: list[str] = []
    async with parts.stages.session(stage(model, known), head=lambda *_: None, failed=telling(failures.append)) as session:
        assert isinstance(session, StageSession)
        (worker,) = parts.processes
        assert {command.rows for command in worker.commands if isinstance(command, frames.Load)} == {8}
        session.feed(StepOn(0, 0, 9, 0, []), memoryview(bytes(36)))
        assert failures == ["a step of 9 rows; 1 to 8 are allowed"]


# -- silence


async def test_a_session_that_nobody_feeds_ends_and_frees_its_caches(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", WHOLE)
    failures: list[str] = []
    async with parts.stages.session(stage(model, known), head=lambda *_: None, failed=telling(failures.append)) as session:
        assert isinstance(session, StageSession)
        session.feed(StepOn(0, 0, 1, 0, []), TOKEN)
        await asyncio.sleep(90)
        session.feed(StepOn(1, 1, 1, 0, []), TOKEN)
        await asyncio.sleep(99)
        assert failures == []
        await asyncio.sleep(SWEEP_S + 1)
        assert failures == ["no step came for 100 s (inference.session_timeout_seconds)"]
        assert len(parts.workers._hosts[model]._free) == 2  # though whoever opened it has not let go yet
        session.feed(StepOn(2, 2, 1, 0, []), TOKEN)
        assert len(failures) == 1
    assert len(parts.workers._hosts[model]._free) == 2
    await asyncio.sleep(SWEEP_S)
    assert parts.stages._timer is None  # no session, no timer


async def test_a_step_that_takes_long_and_stages_that_load_are_not_silence(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", WHOLE)
    failures: list[str] = []
    async with parts.stages.session(stage(model, known), head=lambda *_: None, failed=telling(failures.append)) as session:
        assert isinstance(session, StageSession)
        await asyncio.sleep(LOAD_DEADLINE_S)  # the others are not ready yet
        (worker,) = parts.processes
        worker.held = (frames.Step,)
        session.feed(StepOn(0, 0, 1, 0, []), TOKEN)
        await asyncio.sleep(500)
        worker.release()
        await asyncio.sleep(99)
        assert failures == []
        await asyncio.sleep(SWEEP_S + 1)
        assert len(failures) == 1
    async with parts.stages.session(stage(model, known), head=lambda *_: None, failed=telling(failures.append)) as session:
        await asyncio.sleep(LOAD_DEADLINE_S + 100 + SWEEP_S)
        assert "no step came for 700 s" in failures[1]


async def test_one_timer_looks_after_all_sessions(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", WHOLE)
    other = stage(model, known, session=SessionId("ab" * 16))
    async with parts.stages.session(stage(model, known), head=lambda *_: None, failed=telling(print)) as one:
        timer = parts.stages._timer
        async with parts.stages.session(other, head=lambda *_: None, failed=telling(print)) as two:
            assert isinstance(one, StageSession) and isinstance(two, StageSession)
            assert timer is not None and parts.stages._timer is timer
            for number in range(50):
                one.feed(StepOn(number, number, 1, 0, []), TOKEN)
            assert parts.stages._timer is timer


# -- models that nobody uses


async def loaded(parts: NodeParts, model: ModelId, *shards: int) -> None:
    for index in shards:
        assert not isinstance(await parts.workers.load_shard(ShardRef(model, index)), Refusal)


async def test_the_least_recently_used_model_makes_room_and_no_other(parts: NodeParts, known: KnownModel) -> None:
    one, two, three = (parts.add(known, name, WHOLE) for name in ("one", "two", "three"))
    for model in (one, two):
        await loaded(parts, model, *WHOLE)
        await asyncio.sleep(1)
    async with parts.stages.session(stage(one, known), head=lambda _: None, failed=telling([].append)) as session:
        assert isinstance(session, StageSession)  # and over: now `two` is the one that was used longest ago
    await asyncio.sleep(1)
    parts.free = memory(parts, three, *WHOLE) - 1  # what is free beside them
    size = memory(parts, one, *WHOLE)
    assert parts.workers.available_bytes() == parts.free + 2 * size
    assert parts.workers.available_bytes(one) == parts.free + size
    unload = parts.workers._unload_model

    async def freeing(model: ModelId) -> object:
        parts.free += size
        return await unload(model)

    parts.workers._unload_model = freeing
    await loaded(parts, three, *WHOLE[:1])
    assert [parts.workers.loaded(model) for model in (one, two)] == [WHOLE, WHOLE], "one shard fits beside them"
    parts.free = memory(parts, three, *WHOLE[1:]) - 1
    assert await parts.workers.ensure(three, WHOLE) is None
    assert [parts.workers.loaded(model) for model in (one, two, three)] == [WHOLE, (), WHOLE]


async def test_what_is_in_use_or_not_enough_is_not_unloaded(parts: NodeParts, known: KnownModel) -> None:
    one, two, three = (parts.add(known, name, WHOLE) for name in ("one", "two", "three"))
    await loaded(parts, one, *WHOLE)
    await loaded(parts, two, 0)
    parts.free = 0
    with parts.registry.lease(one, WHOLE):
        assert parts.workers.available_bytes() == memory(parts, two, 0)
        refused = await parts.workers.ensure(three, WHOLE)
        assert isinstance(refused, NoCapacity) and refused.free_bytes == memory(parts, two, 0)
    assert (parts.workers.loaded(one), parts.workers.loaded(two)) == (WHOLE, (0,)), "nobody was put out for nothing"


async def test_a_model_that_nobody_uses_leaves_the_memory(
    world: World, monkeypatch: pytest.MonkeyPatch, known: KnownModel
) -> None:
    settings = replace(SETTINGS, inference=replace(SETTINGS.inference, idle_unload_minutes=2))
    async with open_parts(world, monkeypatch, settings=lambda: settings) as parts:
        used, idle = parts.add(known, "used", WHOLE), parts.add(known, "idle", WHOLE)
        await loaded(parts, idle, 0, 1)
        await loaded(parts, used, *WHOLE)
        async with parts.stages.session(stage(used, known), head=lambda _: None, failed=telling([].append)) as session:
            assert isinstance(session, StageSession)
            await asyncio.sleep(100)
            assert parts.workers.loaded(idle) == (0, 1)
            await asyncio.sleep(50)
            assert (parts.workers.loaded(idle), parts.workers.loaded(used)) == ((), WHOLE)
            await asyncio.sleep(500)
        await asyncio.sleep(60)
        assert parts.workers.loaded(used) == WHOLE, "it was in use until a minute ago"
        await asyncio.sleep(100)
        assert parts.workers.loaded(used) == ()
        settings = replace(SETTINGS, inference=replace(SETTINGS.inference, idle_unload_minutes=0))
        await loaded(parts, used, *WHOLE)
        await asyncio.sleep(100_000)
        assert parts.workers.loaded(used) == WHOLE


async def test_a_vocabulary_in_use_stays_though_the_node_holds_no_shard_of_its_model(
    world: World, monkeypatch: pytest.MonkeyPatch, known: KnownModel
) -> None:
    settings = replace(SETTINGS, inference=replace(SETTINGS.inference, idle_unload_minutes=2))
    async with open_parts(world, monkeypatch, settings=lambda: settings) as parts:
        model = parts.add(known, "tiny", ())
        for _ in range(10):
            assert await parts.workers.tokenize(model, frames.Tokenize("p")) == [0, 0, 0]
            await asyncio.sleep(60)
        assert len(parts.processes) == 1 and parts.processes[0].alive
        await asyncio.sleep(100)
        assert not parts.processes[0].alive


async def test_a_prompt_that_is_being_read_keeps_its_worker(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", ())
    assert not isinstance(await parts.workers.texts(model), Refusal)
    parts.processes[0].held = (frames.Tokenize,)
    reading = asyncio.create_task(parts.workers.tokenize(model, frames.Tokenize("p")))
    await soon()
    assert isinstance(await parts.workers.unload_model(model), Busy)
    assert parts.processes[0].alive
    parts.processes[0].release()
    assert await reading == [0, 0, 0]
    assert not isinstance(await parts.workers.unload_model(model), Refusal)
    assert not parts.processes[0].alive


async def test_a_worker_is_not_unloaded_while_it_compiles_a_grammar(parts: NodeParts, known: KnownModel) -> None:
    model = parts.add(known, "tiny", ())
    assert not isinstance(await parts.workers.texts(model), Refusal)
    parts.processes[0].held = (frames.CheckGrammar,)
    checking = asyncio.create_task(parts.workers.check_grammar(model, Grammar(schema="{}")))
    await soon()
    assert isinstance(await parts.workers.unload_model(model), Busy)
    parts.processes[0].release()
    assert await checking is None
    assert not isinstance(await parts.workers.unload_model(model), Refusal)


async def test_a_shard_that_was_deleted_before_the_worker_crashed_does_not_keep_the_others_away(
    parts: NodeParts, known: KnownModel
) -> None:
    model = parts.add(known, "tiny", (0, 1))
    await loaded(parts, model, 0, 1)
    parts.storage.shards[model] = (0,)
    parts.processes[0].ended.set_result("crashed")
    await asyncio.sleep(5)
    assert parts.workers.loaded(model) == (0,)
