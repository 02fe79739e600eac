"""Walk (a): a chat through three nodes, and everything that can cut it short."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from swarmd.domain.events import (
    GenerationFinished,
    GenerationResumed,
    GenerationStarted,
    ServeFailed,
    StageServed,
    StageUsed,
    WorkerDied,
)
from swarmd.domain.generation import Finish, GenerationFailed, GenerationRequest, Sampling
from swarmd.domain.ids import ModelId
from swarmd.domain.refusals import BadTemplate, Busy, NoCoverage, NotFound, PromptTooLong
from swarmd.inference.generation import Generation
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.nodes import Node, chat, generated, holding, running, spread, swarm, text_of

MODEL = TinyModel(layers=6, tokenizer=True)
Three = tuple[list[Node], ModelId]


@pytest.fixture
async def three(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Three]:
    path = write_model(tmp_path / "tiny.gguf", MODEL)
    async with swarm(tmp_path, 3, **getattr(request, "param", {})) as nodes:
        model = ModelId(await nodes[0].desk.add_file(path, 1))
        await spread(nodes, model)
        yield nodes, model


async def settled(nodes: list[Node], model: ModelId) -> None:
    """Every seat is free again: a further full set of generations can be opened."""
    opened = [await nodes[0].pipeline.open(chat(model, "x", max_tokens=100)) for _ in range(2)]
    assert all(isinstance(one, Generation) for one in opened), opened
    for generation in opened:
        async with generation:
            pass


async def test_usage_timings_and_facts(three):
    nodes, model = three
    with nodes[0].bus.spy() as head, nodes[1].bus.spy() as middle:
        chunks = await generated(nodes[0], chat(model, "hello", max_tokens=10))
        finished = await head.wait_for(GenerationFinished)
        served = await middle.wait_for(StageServed)
    usage = chunks[-1].usage
    assert chunks[-1].finish in (Finish.STOP, Finish.LENGTH)
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    assert usage.completion_tokens == finished.completion_tokens <= 10
    assert usage.prompt_tokens > 5
    assert [(s.node, s.layer_start, s.layer_end) for s in usage.stages] == [
        (nodes[0].node, 0, 2), (nodes[1].node, 2, 4), (nodes[2].node, 4, 6),
    ]  # fmt: skip
    assert all(0 < stage.compute_ms <= stage.node_ms for stage in usage.stages)
    assert usage.link_ms > 0
    assert usage.tokens_per_second > 0
    assert served.head == nodes[0].node
    assert served.tokens >= usage.prompt_tokens
    used = {fact.node: fact.tokens for fact in head.of(StageUsed)}
    assert used == {nodes[1].node: served.tokens, nodes[2].node: served.tokens}, "both sides count the same"
    (started,) = head.of(GenerationStarted)
    assert started.tokens == usage.prompt_tokens + 10
    await settled(nodes, model)


async def test_seeded_sampling_repeats_itself_and_another_seed_differs(three):
    nodes, model = three

    async def text(seed: int) -> str:
        sampling = Sampling(temperature=1.5, seed=seed)
        return text_of(await generated(nodes[0], chat(model, "hello", max_tokens=16, sampling=sampling)))

    first = await text(7)
    assert await text(7) == first
    assert await text(8) != first


async def test_a_stop_string_ends_the_reply_before_it(three):
    nodes, model = three
    whole = text_of(await generated(nodes[0], chat(model, "hello", max_tokens=12)))
    assert len(whole) > 4
    stop = whole[3:5]
    chunks = await generated(nodes[0], chat(model, "hello", max_tokens=12, stop=(stop,)))
    assert text_of(chunks) == whole[: whole.index(stop)]
    assert chunks[-1].finish is Finish.STOP
    await settled(nodes, model)


async def test_leaving_early_frees_every_stage(three):
    nodes, model = three
    for _ in range(5):  # more than there are seats
        generation = await nodes[0].pipeline.open(chat(model, "hello", max_tokens=100))
        assert isinstance(generation, Generation), generation
        async with generation:
            async for _chunk in generation:
                break
    assert nodes[0].pipeline.active == 0
    await settled(nodes, model)


@pytest.mark.parametrize("three", [{"inference__queue_seconds": 1}], indirect=True, ids=["impatient"])
async def test_refusals_say_what_is_wrong(three):
    nodes, model = three
    assert isinstance(await nodes[0].pipeline.open(chat(ModelId("nobody"), "x")), NotFound)
    too_long = await nodes[0].pipeline.open(chat(model, "word " * 600))
    assert isinstance(too_long, PromptTooLong)
    assert too_long.context_tokens == 512
    held = [await nodes[0].pipeline.open(chat(model, "x", max_tokens=8)) for _ in range(2)]
    assert isinstance(await nodes[0].pipeline.open(chat(model, "x", max_tokens=8)), Busy)
    for generation in held:
        async with generation:
            pass


async def long_one(head: Node, model: ModelId, **penalties: float) -> tuple[GenerationRequest, str]:
    """A reply that is longer than what the head computes ahead of its reader. A random model ends its replies at random."""
    for seed in range(50):
        request = chat(model, "hello", max_tokens=300, sampling=Sampling(temperature=0.8, seed=seed, **penalties))
        chunks = await generated(head, request)
        if chunks[-1].usage.completion_tokens > 150:
            return request, text_of(chunks)
    raise AssertionError("all replies are short")


async def test_a_killed_worker_is_started_again_and_the_reply_goes_on_as_if_nothing_had_happened(three):
    nodes, model = three
    request, undisturbed = await long_one(nodes[0], model, frequency_penalty=0.01)
    (status,) = nodes[1].workers.statuses()
    generation = await nodes[0].pipeline.open(request)
    assert isinstance(generation, Generation)
    chunks = []
    with nodes[1].bus.spy() as spy, nodes[0].bus.spy() as head:
        async with generation:
            async for chunk in generation:
                chunks.append(chunk)
                if chunk.sequence == 3:
                    os.kill(status.pid, signal.SIGKILL)
        assert text_of(chunks) == undisturbed
        assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
        assert (await head.wait_for(GenerationResumed)).lost == nodes[1].node
        died = await spy.wait_for(WorkerDied)
        assert "want of memory" in died.how
        failed = await spy.wait_for(ServeFailed)
        assert (failed.head, failed.model) == (nodes[0].node, model)
        used = [fact for fact in head.of(StageUsed) if fact.node == nodes[2].node]
        assert len(used) == 2, "once for each of its stages, before and after the loss"
    await settled(nodes, model)


@pytest.mark.parametrize("role", ["middle", "tail"])
async def test_a_lost_node_is_replaced_by_another_holder_within_the_reply(tmp_path, role):
    path = write_model(tmp_path / "tiny.gguf", MODEL)
    async with swarm(tmp_path, 3) as nodes:
        head, middle, tail = nodes
        model = ModelId(await head.desk.add_file(path, 1))
        await spread(nodes, model)
        request, undisturbed = await long_one(head, model)
        async with running(tmp_path / "standby") as standby:
            code = await head.codes.network_code()
            await standby.joiner.join(code.code)
            for node in nodes:
                assert await node.links.wait_for(standby.node, timeout_s=10)
            victim = middle if role == "middle" else tail
            await holding(standby, model, victim.registry.held(model), told=head)
            generation = await head.pipeline.open(request)
            assert isinstance(generation, Generation)
            if standby.node in {stage.node for stage in generation.plan.stages}:  # the planner is free to take either
                victim, standby = standby, victim
            chunks = []
            async with generation:
                async for chunk in generation:
                    chunks.append(chunk)
                    if chunk.sequence == 3:
                        await cut(head, victim)
            assert text_of(chunks) == undisturbed
            assert standby.node in {stage.node for stage in generation.plan.stages}
            assert victim.node not in {stage.node for stage in generation.plan.stages}


async def cut(one: Node, other: Node) -> None:
    """The link between them breaks; the other nodes keep theirs."""
    link = one.links.link(other.node)
    assert link is not None
    link.close()


async def test_a_node_that_nobody_can_replace_ends_the_request_with_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr("swarmd.inference.pipeline.RESUME_S", 0.5)
    path = write_model(tmp_path / "tiny.gguf", MODEL)
    async with swarm(tmp_path, 2) as nodes:
        model = ModelId(await nodes[0].desk.add_file(path, 1))
        async with running(tmp_path / "third") as third:
            code = await nodes[0].codes.network_code()
            await third.joiner.join(code.code)
            everybody = [*nodes, third]
            for node in everybody[:2]:
                assert await node.links.wait_for(third.node, timeout_s=10)
            await spread(everybody, model)
            generation = await nodes[0].pipeline.open(chat(model, "hello", max_tokens=400))
            assert isinstance(generation, Generation), generation
            await generation.__aenter__()
            await anext(generation)
        with pytest.raises(GenerationFailed, match=f"node {third.node[:16]} failed during the generation"):
            async for _ in generation:
                pass
        await generation.__aexit__(None, None, None)
        for _ in range(100):
            refused = await nodes[0].pipeline.open(chat(model, "hello"))
            if isinstance(refused, NoCoverage):
                break
            await asyncio.sleep(0.05)
        assert isinstance(refused, NoCoverage), refused
        assert refused.missing == (4, 5)


async def test_a_model_whose_template_refuses_is_answered_in_its_words(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.fakes.gguf.CHAT_TEMPLATE", "{{ raise_exception('only one message, please') }}")
    path = write_model(tmp_path / "tiny.gguf", MODEL)
    async with running(tmp_path / "alone") as node:
        model = ModelId(await node.desk.add_file(path, None))
        refused = await node.pipeline.open(chat(model, "hello"))
        assert isinstance(refused, BadTemplate), refused
        assert "only one message, please" in refused.sentence


async def test_the_official_client_streams_a_chat_through_three_nodes(three):
    nodes, model = three
    key = nodes[0].api_key_path.read_text().strip()

    def ask() -> tuple[list[str], object, object]:
        client = openai.OpenAI(base_url=f"{nodes[0].url}v1", api_key=key, max_retries=0)
        with client:
            assert model in [card.id for card in client.models.list()]
            stream = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "hello"}], max_tokens=8, temperature=0, stream=True,
                stream_options={"include_usage": True},
            )  # fmt: skip
            pieces, usage = [], None
            for chunk in stream:
                pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
                usage = chunk.usage or usage
            whole = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "hello"}], max_tokens=8, temperature=0
            )
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "hello"}])
            with pytest.raises(openai.AuthenticationError):
                openai.OpenAI(base_url=f"{nodes[0].url}v1", api_key="wrong" * 4, max_retries=0).models.list()
            return pieces, usage, whole

    pieces, usage, whole = await asyncio.to_thread(ask)
    expected = text_of(await generated(nodes[0], chat(model, "hello", max_tokens=8)))
    assert "".join(pieces) == expected == whole.choices[0].message.content
    assert usage.completion_tokens == whole.usage.completion_tokens > 0
