"""A LoRA adapter that one node knows, over a swarm: what the whole model says with it, bit for bit."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from swarmd.domain.adapters import Adapter, NewAdapter
from swarmd.domain.events import GenerationResumed
from swarmd.domain.generation import Sampling
from swarmd.domain.ids import ModelId
from swarmd.inference.generation import Generation
from tests.fakes.adapters import random_adapter, write_adapter
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.nodes import Node, chat, generated, running, spread, swarm, text_of
from tests.journeys.test_exactness import bits, everything

MODEL = TinyModel(layers=6, tokenizer=True)
LONG = "the quick brown fox jumps over the lazy dog " * 8  # more than one prefill chunk
NAME = "tiny"


async def registered(node: Node, folder: Path, id: str = "style", **shape) -> Adapter:
    tensors = random_adapter(MODEL, **shape)
    path = write_adapter(folder / "adapters" / id, tensors, r=4, lora_alpha=8.0)
    new = NewAdapter(id=id, name="Style", base_model=NAME, rank=None, alpha=None, path=str(path))
    adapter = await node.adapters.register(new)
    assert isinstance(adapter, Adapter), adapter
    return adapter


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[tuple[list[Node], ModelId]]:
    path = write_model(tmp_path / f"{NAME}.gguf", MODEL)
    async with swarm(tmp_path, 3) as nodes:
        model = ModelId(await nodes[0].desk.add_file(path, 1))
        await spread(nodes, model)
        yield nodes, model


async def test_an_adapter_of_the_head_works_on_every_stage_with_the_bits_of_the_whole_model(three, tmp_path):
    nodes, model = three
    adapter = await registered(nodes[0], tmp_path / "node-0")
    other = await registered(nodes[0], tmp_path / "node-0", "other", seed=9, layers=(3,))
    plain = chat(model, LONG, max_tokens=10, sampling=everything(MODEL.rows))
    styled = chat(model, LONG, max_tokens=10, sampling=everything(MODEL.rows), adapter=adapter.ref)
    one_layer = chat(model, LONG, max_tokens=10, sampling=everything(MODEL.rows), adapter=other.ref)
    async with running(tmp_path / "alone") as alone:
        assert await alone.desk.add_file(tmp_path / f"{NAME}.gguf", 1 << 30) == model
        whole_adapter = await registered(alone, tmp_path / "alone")
        assert whole_adapter.ref == adapter.ref, "the same content, the same digest, however the model is cut"
        await registered(alone, tmp_path / "alone", "other", seed=9, layers=(3,))
        whole = [bits(await generated(alone, request)) for request in (plain, styled, one_layer)]
    assert len({str(one) for one in whole}) == 3, "each has to say something else"
    for request, expected in ((plain, whole[0]), (styled, whole[1]), (one_layer, whole[2]), (plain, whole[0])):
        chunks = await generated(nodes[0], request)
        assert bits(chunks) == expected
    again = await generated(nodes[0], styled)
    assert bits(again) == whole[1] and again[-1].usage.cached_tokens > 0, "from what was kept with this adapter"
    texts = await asyncio.gather(*(generated(nodes[0], request) for request in (plain, styled)))
    assert [bits(chunks) for chunks in texts] == whole[:2], "side by side, in one worker"


async def test_a_stage_killed_mid_reply_goes_on_with_the_adapter(three, tmp_path):
    nodes, model = three
    adapter = await registered(nodes[0], tmp_path / "node-0")
    for seed in range(50):  # a random model ends its replies at random
        request = chat(
            model, "hello", max_tokens=200, sampling=Sampling(temperature=0.8, seed=seed), adapter=adapter.ref
        )
        chunks = await generated(nodes[0], request)
        if chunks[-1].usage.completion_tokens > 120:
            break
    else:
        raise AssertionError("all replies are short")
    undisturbed = text_of(chunks)
    (status,) = nodes[1].workers.statuses()
    generation = await nodes[0].pipeline.open(request)
    assert isinstance(generation, Generation), generation
    pieces = []
    with nodes[0].bus.spy() as head:
        async with generation:
            async for chunk in generation:
                pieces.append(chunk)
                if chunk.sequence == 3:
                    os.kill(status.pid, signal.SIGKILL)
        assert text_of(pieces) == undisturbed
        assert (await head.wait_for(GenerationResumed)).lost == nodes[1].node


async def test_the_official_client_asks_for_model_and_adapter(three, tmp_path):
    nodes, model = three
    await registered(nodes[0], tmp_path / "node-0")
    key = nodes[0].api_key_path.read_text().strip()

    def ask() -> list[str]:
        with openai.OpenAI(base_url=f"{nodes[0].url}v1", api_key=key, max_retries=0) as client:
            names = [card.id for card in client.models.list()]
            assert names == [model, f"{model}:style"]
            assert client.models.retrieve(f"{model}:style").id == f"{model}:style"

            def said(name: str, **extra) -> str:
                reply = client.chat.completions.create(
                    model=name, messages=[{"role": "user", "content": "hello"}], max_tokens=8, temperature=0,
                    extra_body=extra,
                )  # fmt: skip
                assert reply.model == (f"{model}:style" if "style" in f"{name}{extra}" else model)
                return reply.choices[0].message.content

            texts = [said(model), said(f"{model}:style"), said(model, lora_adapter="style")]
            with pytest.raises(openai.NotFoundError, match="no LoRA adapter 'nobody'"):
                said(f"{model}:nobody")
            with pytest.raises(openai.NotFoundError, match="no model"):
                said("nobody:style")
            return texts

    plain, colon, field = await asyncio.to_thread(ask)
    assert colon == field != plain
