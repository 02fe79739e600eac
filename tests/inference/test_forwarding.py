"""Stages and hostile heads, predecessors and successors: the reason is named, and every seat is free afterwards."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
import pytest_asyncio

from swarmd.domain.events import StageServed
from swarmd.domain.generation import Sampling
from swarmd.domain.ids import ModelId, SessionId
from swarmd.domain.peers import PeerIdentity
from swarmd.domain.structure import Grammar
from swarmd.inference import forwarding, signs
from swarmd.inference.forwarding import LANE_QUEUE, LOGPROBS_LIMIT, StepSender
from swarmd.transport.stream import LinkLost, Stream, StreamReset
from swarmd.wire.generation import Lane, OpenStage, StageAlive, StageBroken, StageReady, StepDone, StepOn
from swarmd.wire.messages import Refused, encode
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.heads import telling
from tests.fakes.nodes import Node, join, running, spread

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = TinyModel(layers=4, tokenizer=True)
CELLS = 200
SESSION = SessionId("5e" * 16)
NOTHING = memoryview(b"")


@dataclass
class Scene:
    """Two linked nodes; each holds half of the model. The first one plays the villain, with its own program's parts."""

    villain: Node
    victim: Node
    model: ModelId
    layout: str

    def request(self, **changed: object) -> OpenStage:
        """For the victim: its second half, whose lane we open."""
        usual = OpenStage(
            session=SESSION, model=self.model, layout=self.layout, stage=1, stages=2, first_shard=2, last_shard=3,
            cells=CELLS, predecessor=self.villain.node, successor=None, sampling=Sampling(temperature=0.0),
        )  # fmt: skip
        return replace(usual, **changed)

    @asynccontextmanager
    async def opened(self, request: OpenStage) -> AsyncIterator[Stream]:
        async with self.villain.links.link(self.victim.node).open(request) as stream:
            yield stream

    def lane(self, session: SessionId = SESSION, stage: int = 1) -> Stream:
        return self.villain.links.link(self.victim.node).open(Lane(session=session, stage=stage))

    async def all_free(self) -> None:
        """Both seats of the victim can be taken."""
        async with asyncio.timeout(5):
            while len(self.victim.workers._hosts[self.model]._free) < 2:
                await asyncio.sleep(0.001)
        assert not self.victim.pipeline._stages._sessions
        assert not any(self.victim.registry._leases.values())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """One for all tests: each leaves it as it was, which `all_free` makes sure of."""
    folder = tmp_path_factory.mktemp("nodes")
    path = write_model(folder / "tiny.gguf", MODEL)
    async with running(folder / "a") as villain, running(folder / "b") as victim:
        await join([villain, victim])
        model = ModelId(await villain.desk.add_file(path, 1))
        await spread([villain, victim], model)
        yield Scene(villain, victim, model, villain.registry.view(model).manifest.layout)


def hidden(rows: int) -> memoryview:
    return memoryview(np.full((rows, MODEL.width), 0.5, np.float32)).cast("B")


async def said(stream: Stream) -> object:
    """Besides that it is alive."""
    async with asyncio.timeout(10):
        while (received := await stream.receive()) is not None and isinstance(received.message, StageAlive):
            pass
    assert received is not None
    return received.message


async def test_stages_that_cannot_be_are_refused_with_the_reason(scene: Scene) -> None:
    cases: list[tuple[dict[str, object], str, str]] = [
        ({"layout": "f" * 32}, "NotFound", "is not known here in layout"),
        ({"model": ModelId("nobody")}, "NotFound", "nobody"),
        ({"first_shard": 3, "last_shard": 2}, "Invalid", "shards 3 to 2 of 4 are no range"),
        ({"last_shard": 4}, "Invalid", "shards 2 to 4 of 4"),
        ({"first_shard": -1}, "Invalid", "shards -1"),
        ({"successor": scene.villain.node}, "Invalid", "no successor"),
        ({"last_shard": 2}, "Invalid", "no successor"),
        ({"stage": 0, "predecessor": None}, "Invalid", "stage 0 cannot begin with shard 2"),
        ({"stage": -1}, "Invalid", "stage -1"),
        ({"stage": 3}, "Invalid", "stage 3 cannot begin with shard 2"),
        ({"stages": 1}, "Invalid", "stage 1 of 1 in 4 shards"),
        ({"stages": 5}, "Invalid", "stage 1 of 5 in 4 shards"),
        ({"predecessor": None}, "Invalid", "has a predecessor"),
        ({"cells": 0}, "Invalid", "0 positions"),
        ({"cells": 4097}, "Invalid", "4097 positions do not fit a context of 4096"),
        ({"cells": 4096}, "Invalid", "have 1024 cells"),
        ({"sampling": Sampling(frequency_penalty=1e38)}, "Invalid", "frequency_penalty is 1e+38"),
        ({"sampling": Sampling(temperature=math.nan)}, "Invalid", "temperature is nan"),
        ({"sampling": Sampling(top_k=1 << 40)}, "Invalid", "top_k"),
        ({"sampling": Sampling(top_logprobs=-1)}, "Invalid", "top_logprobs"),
        ({"sampling": Sampling(logit_bias=((1 << 30, 1.0),))}, "Invalid", "logit_bias names token 1073741824"),
        ({"sampling": Sampling(logit_bias=((1, math.nan),))}, "Invalid", "logit_bias of token 1 is nan"),
        ({"sampling": Sampling(logit_bias=((1, 1.0),) * 301)}, "Invalid", "301 entries"),
        ({"sampling": Sampling(grammar=Grammar(schema='{"minItems": 100000000}'))}, "Invalid", "minItems is 100000000"),
        ({"sampling": Sampling(grammar=Grammar(schema='{"not": {}}'))}, "Invalid", "not"),
        ({"sampling": Sampling(top_logprobs=1 << 20)}, "Invalid", "top_logprobs"),
        ({"vectors": True}, "Invalid", "no token is picked"),
        ({"stage": 1, "first_shard": 1}, "NotFound", "shard 2"),  # which the other node holds
        ({"stage": 1, "first_shard": 1, "adapter": b"d" * 32, "adapter_bytes": 9}, "NotFound", "shards 2 to 4"),
        ({"adapter": b"d" * 31, "adapter_bytes": 9}, "Invalid", "an adapter"),
        ({"adapter": b"d" * 32}, "Invalid", "an adapter of 0 bytes"),
        ({"adapter": b"d" * 32, "adapter_bytes": 1 << 60}, "Invalid", "an adapter of 1152921504606846976 bytes"),
        ({"adapter": b"d" * 32, "adapter_bytes": 9}, "NotFound", "does not send it"),  # nor has it
    ]
    for changed, kind, words in cases:
        async with scene.opened(scene.request(**changed)) as stream:
            answer = await said(stream)
            assert isinstance(answer, Refused) and answer.kind == kind and words in answer.sentence, (changed, answer)
    await scene.all_free()


async def test_a_stage_without_memory_says_so_with_its_numbers(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = scene.victim.workers
    assert isinstance(await workers.unload_model(scene.model), int)
    monkeypatch.setattr(workers, "_memory_limit", lambda: 5)
    async with scene.opened(scene.request()) as stream:
        answer = await said(stream)
    assert isinstance(answer, StageBroken) and "free some" in answer.reason
    assert answer.lacking == (sum(workers.memory_needed(scene.model, index) for index in (2, 3)), 5)
    assert workers.loaded(scene.model) == ()
    await scene.all_free()


async def test_an_answer_with_all_the_logprobs_that_may_be_asked_for_fits_a_message() -> None:
    logprobs = [((1 << 22) - 1, -12.345678)] * (LOGPROBS_LIMIT + 1)
    encode(StepDone(1 << 20, [1 << 20], [logprobs], [(1 << 40, 1 << 40)] * 4096))


async def test_a_stage_that_is_open_already_and_one_too_many(scene: Scene) -> None:
    async with scene.opened(scene.request()) as one:
        assert isinstance(await said(one), StageReady)
        async with scene.opened(scene.request()) as again:
            answer = await said(again)
            assert isinstance(answer, Refused) and "already open" in answer.sentence
        async with scene.opened(scene.request(session=SessionId("ab" * 16))) as two:
            assert isinstance(await said(two), StageReady)
            async with scene.opened(scene.request(session=SessionId("cd" * 16))) as three:
                answer = await said(three)
                assert isinstance(answer, Refused) and answer.kind == "Busy"
    await scene.all_free()


async def test_steps_that_do_not_fit_break_the_stage_with_the_reason(scene: Scene) -> None:
    good = StepOn(0, 0, 2, 1, [(1, 2)])
    cases: list[tuple[StepOn, memoryview, str]] = [
        (StepOn(0, 1, 2, 1, [(1, 2)]), hidden(2), "position 1 where 0 is next"),
        (StepOn(0, -1, 2, 1, [(1, 2)]), hidden(2), "position -1"),
        (StepOn(0, 0, 0, 1, [(1, 2)]), NOTHING, "a step of 0 rows; 1 to 128 are allowed"),
        (StepOn(0, 0, -5, 1, [(1, 2)]), NOTHING, "a step of -5 rows"),
        (StepOn(0, 0, 129, 1, [(1, 2)]), hidden(129), "a step of 129 rows"),
        (good, hidden(1), "2 rows with 256 bytes"),
        (good, hidden(3), "2 rows with 768 bytes"),
        (good, NOTHING, "2 rows with 0 bytes"),
        (StepOn(0, 0, 2, 3, [(1, 2)]), hidden(2), "3 tokens to pick from 2 rows"),
        (StepOn(0, 0, 2, -1, [(1, 2)]), hidden(2), "-1 tokens to pick"),
        (StepOn(0, 0, 2, 1, []), hidden(2), "did not come through the stages before"),
        (StepOn(0, 0, 2, 1, [(1, 2)] * 2), hidden(2), "did not come through the stages before"),
    ]
    for step, payload, words in cases:
        async with scene.opened(scene.request()) as stream:
            assert isinstance(await said(stream), StageReady)
            lane = scene.lane()
            await lane.send(step, payload)
            answer = await said(stream)
            assert isinstance(answer, StageBroken) and words in answer.reason, (step, answer)
            lane.reset()
        await scene.all_free()


async def test_cells_are_a_promise(scene: Scene) -> None:
    async with scene.opened(scene.request(cells=130)) as stream:
        assert isinstance(await said(stream), StageReady)
        lane = scene.lane()
        await lane.send(StepOn(0, 0, 128, 0, [(1, 2)]), hidden(128))
        done = await said(stream)
        assert isinstance(done, StepDone) and done.tokens == [] and len(done.trace) == 2
        await lane.send(StepOn(1, 128, 3, 1, [(1, 2)]), hidden(3))
        answer = await said(stream)
        assert isinstance(answer, StageBroken) and "beyond the 130 positions" in answer.reason
        lane.reset()
    await scene.all_free()


async def test_a_tail_without_sampling_and_messages_in_the_wrong_place(scene: Scene) -> None:
    async with scene.opened(scene.request(sampling=None)) as stream:
        assert isinstance(await said(stream), StageReady)
        lane = scene.lane()
        await lane.send(StepOn(0, 0, 1, 1, [(1, 2)]), hidden(1))
        answer = await said(stream)
        assert isinstance(answer, StageBroken) and "not started with a sampler" in answer.reason
        lane.reset()
    await scene.all_free()
    async with scene.opened(scene.request()) as stream:
        assert isinstance(await said(stream), StageReady)
        await stream.send(StepOn(0, 0, 1, 1, [(1, 2)]), hidden(1))  # only a first stage is fed by the head
        answer = await said(stream)
        assert isinstance(answer, StageBroken) and "the head sent StepOn" in answer.reason
    await scene.all_free()
    async with scene.opened(scene.request()) as stream:
        assert isinstance(await said(stream), StageReady)
        lane = scene.lane()
        await lane.send(StageReady())
        answer = await said(stream)
        assert isinstance(answer, StageBroken) and "the stage before sent StageReady" in answer.reason
        lane.reset()
    await scene.all_free()


async def test_a_stage_that_makes_vectors_answers_with_one_and_picks_no_token(scene: Scene) -> None:
    async with scene.opened(scene.request(sampling=None, vectors=True)) as stream:
        assert isinstance(await said(stream), StageReady)
        lane = scene.lane()
        for number, (position, count, sample) in enumerate([(0, 40, 0), (40, 40, 1), (80, 40, 40)]):
            await lane.send(StepOn(number, position, count, sample, [(1, 1)]), hidden(count))
            async with asyncio.timeout(10):
                while isinstance((received := await stream.receive()).message, StageAlive):
                    pass
            assert isinstance(received.message, StepDone) and received.message.tokens == []
            numbers = np.frombuffer(received.payload, np.float32)
            assert numbers.shape == ((MODEL.width,) if sample else (0,)) and np.isfinite(numbers).all()
        await lane.send(StepOn(3, 120, 2, 3, [(1, 1)]), hidden(2))
        answer = await said(stream)
        assert isinstance(answer, StageBroken) and "3 tokens to pick from 2 rows" in answer.reason
    async with scene.opened(scene.request(sampling=None, vectors=True)) as stream:
        await stream.send(StepOn(0, 0, 1, 1, []), hidden(1))
        assert isinstance(await said(stream), StageReady | StageBroken)
    await scene.all_free()


async def test_a_lane_of_nobody_s_is_reset(scene: Scene) -> None:
    async with scene.opened(scene.request(predecessor=scene.victim.node)) as stream:  # not us
        assert isinstance(await said(stream), StageReady)
        for lane in (scene.lane(), scene.lane(stage=2), scene.lane(session=SessionId("00" * 16))):
            with pytest.raises(StreamReset, match="there is no such stage here"):
                await said(lane)
    await scene.all_free()


@pytest.mark.parametrize("how", ["reset", "end", "link"])
async def test_a_head_that_vanishes_frees_the_seat_and_is_counted(scene: Scene, how: str) -> None:
    before = scene.victim.pipeline.forwards_served
    with scene.victim.bus.spy() as spy:
        async with scene.opened(scene.request()) as stream:
            assert isinstance(await said(stream), StageReady)
            lane = scene.lane()
            await lane.send(StepOn(0, 0, 3, 0, [(1, 2)]), hidden(3))
            assert isinstance(await said(stream), StepDone)
            if how == "end":
                stream.end()
            elif how == "link":
                scene.villain.links.link(scene.victim.node).close("gone")
            else:
                stream.reset()
            served = await spy.wait_for(StageServed)
        assert (served.model, served.head, served.tokens) == (scene.model, scene.villain.node, 3)
        assert scene.victim.pipeline.forwards_served - before == 3
        await scene.all_free()
    assert await scene.villain.links.wait_for(scene.victim.node, timeout_s=10)


async def test_a_successor_that_is_not_there_ends_the_stage(scene: Scene) -> None:
    tokens = memoryview(np.array([1, 2], np.int32)).cast("B")
    own = replace(
        scene.request(), stage=0, first_shard=0, last_shard=1, predecessor=None, successor=scene.victim.node, sampling=None
    )
    failures: asyncio.Queue[str] = asyncio.Queue(4)
    stages = scene.villain.pipeline._stages
    async with stages.session(own, head=lambda *_: None, failed=telling(failures.put_nowait)) as session:
        session.feed(StepOn(0, 0, 2, 0, []), tokens)  # no stage of this session is open there
        async with asyncio.timeout(5):
            assert "the next stage is gone: failed: there is no such stage here" in await failures.get()
        session.feed(StepOn(1, 2, 2, 0, []), tokens)  # nothing happens any more
        assert failures.empty()
    async with stages.session(
        replace(own, successor=scene.villain.node), head=lambda *_: None, failed=telling(failures.put_nowait)
    ) as session:
        session.feed(StepOn(0, 0, 2, 0, []), tokens)
        async with asyncio.timeout(5):
            assert await failures.get() == "the next stage on this node is gone"


async def test_a_line_between_two_stages_that_went_silent_ends_the_step_that_went_into_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head reaches both and sees nothing of it; the link itself is given up after eight seconds only."""
    monkeypatch.setattr(signs, "ALIVE_S", 0.02)
    monkeypatch.setattr(signs, "LOOK_S", 0.02)
    monkeypatch.setattr(signs, "SILENCE_S", 0.3)
    own = replace(
        scene.request(), stage=0, first_shard=0, last_shard=1, predecessor=None, successor=scene.victim.node, sampling=None
    )
    failures: asyncio.Queue[tuple[str, object]] = asyncio.Queue(4)

    def failed(reason: str, *, culprit: object = None) -> None:
        failures.put_nowait((reason, culprit))

    stages = scene.villain.pipeline._stages
    async with scene.opened(scene.request()) as stream, stages.session(own, head=lambda *_: None, failed=failed) as session:
        assert isinstance(await said(stream), StageReady)
        session.feed(StepOn(0, 0, 2, 1, []), memoryview(np.array([1, 2], np.int32)).cast("B"))
        assert isinstance(await said(stream), StepDone)
        async with asyncio.timeout(5):
            for _ in range(30):  # more than the silence, in signs that are heard
                await stream.receive()
            assert failures.empty()
            monkeypatch.setattr(forwarding, "_tell", lambda stream: True)
            reason, culprit = await failures.get()
    assert "the next stage gave no sign of life for 0." in reason
    assert culprit == scene.victim.node
    await scene.all_free()


async def test_bad_tokens_at_the_first_stage_are_refused_by_its_worker(scene: Scene) -> None:
    own = replace(
        scene.request(), stage=0, first_shard=0, last_shard=1, predecessor=None, successor=scene.victim.node, sampling=None
    )
    failures: asyncio.Queue[str] = asyncio.Queue(4)
    stages, failed = scene.villain.pipeline._stages, telling(failures.put_nowait)
    async with stages.session(own, head=lambda *_: None, failed=failed) as session:
        session.feed(StepOn(0, 0, 1, 0, []), memoryview(np.array([1 << 30], np.int32)).cast("B"))
        async with asyncio.timeout(5):
            assert "outside" in await failures.get()


class StuckStream:
    """A stream whose other end takes nothing until it is let go, or breaks."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.free = asyncio.Event()
        self.broken: Exception | None = None
        self.peer = PeerIdentity.__new__(PeerIdentity)
        object.__setattr__(self.peer, "node", "a" * 64)

    def send_now(self, message: object, payload: memoryview) -> bool:
        if self.broken:
            raise self.broken
        if self.free.is_set():
            self.sent.append(message)
        return self.free.is_set()

    async def send(self, message: object, payload: memoryview) -> None:
        await self.free.wait()
        assert self.send_now(message, payload)


def sender(stream: StuckStream) -> tuple[StepSender, list[str]]:
    failures: list[str] = []

    def spawn(work, *, name: str) -> asyncio.Task:
        assert name.startswith("steps to")
        return asyncio.get_running_loop().create_task(work)

    return StepSender(stream, spawn=spawn, failed=telling(failures.append)), failures


async def test_a_successor_that_takes_nothing_is_waited_for_and_then_a_failure() -> None:
    stream = StuckStream()
    steps, failures = sender(stream)
    for number in range(LANE_QUEUE):
        steps.push(number, NOTHING)
    assert failures == []
    steps.push(LANE_QUEUE, NOTHING)
    assert failures == ["the next node does not take its steps"]
    stream.free.set()
    while len(stream.sent) < LANE_QUEUE:
        await asyncio.sleep(0)
    assert stream.sent == list(range(LANE_QUEUE))  # in order
    await asyncio.sleep(0)
    steps.push("later", NOTHING)
    assert stream.sent[-1] == "later"


@pytest.mark.parametrize("error", [LinkLost("the cable is cut"), StreamReset(2, "no more")])
async def test_a_stream_that_breaks_is_told_once_for_all_that_waits(error: Exception) -> None:
    stream = StuckStream()
    steps, failures = sender(stream)
    for number in range(5):
        steps.push(number, NOTHING)
    stream.broken = error
    stream.free.set()
    while not failures:
        await asyncio.sleep(0)
    assert failures == [str(error)]
    steps.push(5, NOTHING)
    assert failures == [str(error)] * 2
    assert stream.sent == []

