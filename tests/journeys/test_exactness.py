"""The claim the product stands on: a model split over nodes says what the whole model says, to the last bit."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from swarmd.domain.generation import Sampling, TokenChunk
from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.refusals import Refusal
from swarmd.inference.drafting import Lookup, Payoff
from swarmd.inference.forwarding import StageSession
from swarmd.inference.generation import Generation
from swarmd.inference.workers import PREFILL_ROWS
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.nodes import chat, generated, holding, running, spread, swarm, text_of

MODEL = TinyModel(layers=8, tokenizer=True)
TOKENS = 12


def everything(vocabulary: int) -> Sampling:
    """Greedy, with the logprob of every token of the vocabulary: from the raw logits, so equal bits in, equal out."""
    return Sampling(temperature=0.0, top_logprobs=vocabulary)


def bits(chunks: list[TokenChunk]) -> list[list[tuple[int, float]]]:
    return [[(one.token, one.logprob) for one in others] for chunk in chunks for _, others in chunk.logprobs]


async def reply(node, model: ModelId) -> list[TokenChunk]:
    long_prompt = "the quick brown fox jumps over the lazy dog " * 8  # more than one prefill chunk
    return await generated(node, chat(model, long_prompt, max_tokens=TOKENS, sampling=everything(MODEL.rows)))


@pytest.fixture
async def whole(tmp_path: Path) -> list[list[tuple[int, float]]]:
    path = write_model(tmp_path / "tiny.gguf", MODEL)
    async with running(tmp_path / "alone") as node:
        model = await node.desk.add_file(path, 1 << 30)  # one shard: the whole model in one llama.cpp context
        assert isinstance(model, str), model
        assert len(node.registry.view(ModelId(model)).shards) == 1
        found = bits(await reply(node, ModelId(model)))
        assert len(found) >= 1
        assert all(len(row) == MODEL.rows for row in found)
        return found


@pytest.mark.parametrize("count", [1, 2, 3, 8])
async def test_a_reply_over_encrypted_links_has_the_bits_of_the_whole_model(count, tmp_path, whole):
    async with swarm(tmp_path, count) as nodes:
        model = ModelId(await nodes[0].desk.add_file(tmp_path / "tiny.gguf", 1))  # as many shards as it has layers
        await spread(nodes, model)
        plan = nodes[0].pipeline.plan(model)
        assert [stage.node for stage in plan.stages] == [node.node for node in nodes]
        assert bits(await reply(nodes[0], model)) == whole
        again = await reply(nodes[0], model)
        assert bits(again) == whole and again[-1].usage.cached_tokens == 2 * PREFILL_ROWS, "known from before"
        if count == 3:  # and whoever asks: a head in the middle, and one that holds the tail
            assert bits(await reply(nodes[1], model)) == whole
            assert bits(await reply(nodes[2], model)) == whole


async def test_a_stage_that_has_kept_less_than_the_others_sets_where_a_reply_begins(tmp_path, whole):
    async with swarm(tmp_path, 3) as nodes:
        model = ModelId(await nodes[0].desk.add_file(tmp_path / "tiny.gguf", 1))
        await spread(nodes, model)
        assert bits(await reply(nodes[0], model)) == whole
        middle = nodes[0].pipeline.plan(model).stages[1].node
        worker = next(node for node in nodes if node.node == middle).workers
        while isinstance(await worker.unload_model(model), Refusal):  # its session ends just behind the reply
            await asyncio.sleep(0.01)
        again = await reply(nodes[0], model)
        assert bits(again) == whole and again[-1].usage.cached_tokens == 0
        assert (await reply(nodes[0], model))[-1].usage.cached_tokens == 2 * PREFILL_ROWS


async def test_users_at_once_have_the_bits_that_each_has_alone(tmp_path):
    """Their steps share batches on every stage; a prompt of several chunks comes in between.

    Of that prompt itself nothing is said: flash attention takes many rows in tiles of cells, and which cells share a tile
    depends on who else wrote into the cache (docs/inference.md).
    """
    prompts = ["what is a shard?", "a", "the head asks the tail " * 20, "nobody knows what a swarm is until", "it runs on"]
    path = write_model(tmp_path / "tiny.gguf", MODEL)
    async with swarm(tmp_path, 3, inference__max_batch_size=8, inference__context_tokens=1024) as nodes:
        model = ModelId(await nodes[0].desk.add_file(path, 1))
        await spread(nodes, model)
        requests = [chat(model, text, max_tokens=40, sampling=everything(5)) for text in prompts]
        alone = [bits(await generated(nodes[0], request)) for request in requests]
        largest = 0

        def watch(node) -> None:
            (host,) = node.workers._hosts.values()
            ask = host.process.ask

            def asked(command, payload, on_answer, *, deadline_s):
                nonlocal largest
                largest = max(largest, len(getattr(command, "runs", ())))
                ask(command, payload, on_answer, deadline_s=deadline_s)

            host.process.ask = asked

        for node in nodes:
            watch(node)
        heads = [nodes[0], nodes[0], nodes[1], nodes[0], nodes[2]]
        together = await asyncio.gather(
            *(generated(head, request) for head, request in zip(heads, requests, strict=True))
        )
        found = [bits(chunks) for chunks in together]
        assert [len(one) for one in found] == [len(one) for one in alone]
        assert found[:2] + found[3:] == alone[:2] + alone[3:]
        assert largest > 1, "they never shared a batch"


async def test_guessed_tokens_change_no_reply_and_no_bit(tmp_path, monkeypatch):
    """A random model repeats itself soon at temperature 0; with a seed it does not, and a guess is forced on it."""
    path = write_model(tmp_path / "tiny.gguf", MODEL)
    async with swarm(tmp_path, 3) as nodes:
        model = ModelId(await nodes[0].desk.add_file(path, 1))
        await spread(nodes, model)
        for sampling in (everything(3), Sampling(temperature=0.9, top_p=0.95, seed=11, top_logprobs=3)):
            request = chat(model, "the shard and the shard and the", max_tokens=150, sampling=sampling)
            monkeypatch.setattr("swarmd.inference.drafting.PAYS", 1e9)
            plain = await generated(nodes[0], request)
            assert plain[-1].usage.proposed_tokens == 0
            monkeypatch.setattr("swarmd.inference.drafting.PAYS", 0.0)  # guesses whatever it costs
            if sampling.temperature > 0.0:
                monkeypatch.setattr(Lookup, "propose", lambda _, most: [row % MODEL.rows for row in range(most)])
                monkeypatch.setattr(Payoff, "length", lambda _: 7)
            guessed = await generated(nodes[0], request)
            usage = guessed[-1].usage
            assert usage.proposed_tokens > 0
            assert text_of(guessed) == text_of(plain)
            assert bits(guessed) == bits(plain)
            assert usage.completion_tokens == plain[-1].usage.completion_tokens
            if sampling.temperature == 0.0:
                assert usage.accepted_tokens > 20


async def test_an_encrypted_pipeline_shows_no_token_to_another_node(tmp_path):
    """Everything that a node in the middle is sent is looked at: hidden states, and nothing that tells the tokens."""
    path = write_model(tmp_path / "tiny.gguf", MODEL)
    async with swarm(tmp_path, 2) as (head, middle):
        model = ModelId(await head.desk.add_file(path, 1))
        await holding(middle, model, tuple(range(1, 7)), told=head)
        request = chat(model, "the shard and the shard and the shard", max_tokens=40)
        undisturbed = text_of(await generated(head, request))
        for index in range(1, 7):
            assert await head.desk.delete_shard(ShardRef(model, index)) is None
        assert not isinstance(await head.encrypted.choose(model, enabled=True), Refusal)
        opened, steps = [], []
        session = middle.pipeline._stages.session
        feed = StageSession.feed

        def watched_session(request, produced=b"", **rest):
            opened.append((request, bytes(produced)))
            return session(request, produced, **rest)

        def watched_feed(self, step, payload):
            if self._request.stage == 1:
                steps.append((step, bytes(payload)))
            feed(self, step, payload)

        middle.pipeline._stages.session = watched_session
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StageSession, "feed", watched_feed)
            generation = await head.pipeline.open(request)
            assert isinstance(generation, Generation), generation
            assert [stage.node for stage in generation.plan.stages] == [head.node, middle.node, head.node]
            async with generation:
                chunks = [chunk async for chunk in generation]
            history = generation.history
        assert text_of(chunks) == undisturbed
        ((asked, produced),) = opened
        assert (asked.stage, asked.sampling, produced) == (1, None, b"")
        assert len(steps) > 5
        for step, payload in steps:
            assert len(payload) == step.count * MODEL.width * 4, "hidden states"
            row = np.frombuffer(payload, np.float32)
            assert np.isfinite(row).all() and np.unique(row).size > row.size // 2
            told = {step.number, step.position, step.count, step.sample, *np.array(step.trace).flatten().tolist()}
            assert len(told) <= 6, "counts and times"
        ids = np.array(history, np.int32)
        sent = b"".join(payload for _, payload in steps)
        assert not any(ids[at : at + 4].tobytes() in sent for at in range(len(ids) - 4))
