"""Embeddings of a split model are those of stock llama.cpp on the whole file."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openai
import pytest

from swarmd.domain.events import GenerationFinished, GenerationResumed, GenerationStarted
from swarmd.domain.generation import Embedded, EmbeddingRequest
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.refusals import Refusal
from swarmd.inference import worker_frames as frames
from swarmd.inference.batching import SHARED_ROWS
from swarmd.inference.vectors import normalised
from swarmd.inference.workers import PREFILL_ROWS
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.llama import Llama, NativeModel
from tests.fakes.nodes import chat, generated, running, spread, swarm

Matrix = npt.NDArray[np.float32]

MODEL = TinyModel(layers=6, tokenizer=True)
LENGTHS = (1, 7, 33, PREFILL_ROWS, PREFILL_ROWS + 1, 200)
NONE, MEAN, LAST = 0, 1, 3


def texts(vocabulary: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple((at * 31 + 7 * length) % vocabulary for at in range(length)) for length in LENGTHS)


def stock(path: Path, pooling: int, tokens: tuple[int, ...]) -> Matrix:
    """What llama.cpp says of the whole file: (rows, width), or the pooled vector (1, width) of one step."""
    llama = Llama()
    try:
        with NativeModel(llama, path, pooling=pooling) as model:
            rows = [(0, at, token) for at, token in enumerate(tokens)]
            steps = [rows[at : at + PREFILL_ROWS] for at in range(0, len(rows), PREFILL_ROWS)]
            return np.concatenate([model.vectors(step) for step in steps])
    finally:
        llama.close()


def check_together(found: Matrix, expected: Matrix) -> None:
    """Where several share a cache, flash attention takes the rows of a long step in tiles of cells, and which cells share a
    tile depends on who else wrote into it."""
    assert len(found) == len(expected) == len(LENGTHS)
    for vector, other, length in zip(found, expected, LENGTHS, strict=True):
        assert vector @ other > 1 - 1e-3, length
        assert length > SHARED_ROWS or np.array_equal(vector, other), length


async def embedded(node, model: ModelId, inputs: tuple[str | tuple[int, ...], ...]) -> Matrix:
    found = await node.embeddings.embed(EmbeddingRequest(request=RequestId("test"), model=model, inputs=inputs))
    assert isinstance(found, Embedded), found
    return np.array([np.frombuffer(vector, np.float32) for vector in found.vectors])


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_the_vector_of_a_split_model_has_the_bits_of_stock_llama_cpp(count: int, tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf", MODEL)
    inputs = texts(MODEL.rows)
    rows = [stock(path, NONE, one) for one in inputs]
    pooled = [stock(path, LAST, one)[-1] for one in inputs]
    assert all(np.array_equal(one[-1], other) for one, other in zip(rows, pooled, strict=True))
    expected = np.array([normalised(one) for one in pooled])
    async with swarm(tmp_path, count) as nodes:
        model = ModelId(await nodes[0].desk.add_file(path, 1))
        await spread(nodes, model)
        for text, vector in zip(inputs, expected, strict=True):
            assert np.array_equal((await embedded(nodes[0], model, (text,)))[0], vector), len(text)
        check_together(await embedded(nodes[-1], model, inputs), expected)
        together = await asyncio.gather(
            embedded(nodes[0], model, inputs), generated(nodes[0], chat(model, "the quick brown fox", max_tokens=30))
        )
        check_together(together[0], expected)
        assert together[1][-1].usage.completion_tokens > 0


async def test_a_model_that_wants_the_mean_gets_it_as_near_as_two_ways_to_add_up_can_be(tmp_path: Path) -> None:
    """llama.cpp adds up rows in a matrix product in float32, here it is done in float64: no bits, but all their digits."""
    path = write_model(tmp_path / "tiny.gguf", TinyModel(layers=4, tokenizer=True, pooling=MEAN))
    inputs = texts(MODEL.rows)
    rows = [stock(path, NONE, one) for one in inputs]
    exact = np.array([normalised(one.mean(axis=0, dtype=np.float64).astype(np.float32)) for one in rows])
    async with swarm(tmp_path, 2) as nodes:
        model = ModelId(await nodes[0].desk.add_file(path, 1))
        await spread(nodes, model)
        found = np.concatenate([await embedded(nodes[0], model, (one,)) for one in inputs])
    assert np.allclose(found, exact, rtol=0, atol=1e-7)
    assert np.array_equal(found[0], exact[0]), "of one row there is nothing to add up"
    own = [normalised(stock(path, MEAN, one)[0]) for one in inputs if len(one) <= PREFILL_ROWS]
    assert np.allclose(found[: len(own)], own, rtol=0, atol=1e-6)


async def test_texts_get_the_tokens_that_the_model_wants_at_their_end(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf", TinyModel(layers=2, tokenizer=True, pooling=LAST, ends_texts=True))
    async with running(tmp_path / "node") as node:
        model = ModelId(await node.desk.add_file(path, 1))
        text = "the shard<|im_end|>"
        tokens = await node.workers.tokenize(model, frames.Tokenize(text, whole=True))
        assert isinstance(tokens, list) and tokens[-1] == tokens[-2], "the one of the text, and the one behind it"
        assert np.array_equal(await embedded(node, model, (text,)), await embedded(node, model, (tuple(tokens),)))


async def test_a_stage_that_is_lost_is_replaced_and_the_text_is_read_again(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf", MODEL)
    text = tuple(at % MODEL.rows for at in range(500))
    async with swarm(tmp_path, 2) as nodes:
        model = ModelId(await nodes[0].desk.add_file(path, 1))
        await spread(nodes, model)
        alone = await embedded(nodes[0], model, (text,))
        worker = nodes[1].workers._hosts[model]
        ask, steps = worker.process.ask, 0

        def crash(command, payload, on_answer, *, deadline_s):
            nonlocal steps
            if type(command).__name__ == "Step":
                steps += 1
                if steps == 2:
                    worker.process._process.kill()
            ask(command, payload, on_answer, deadline_s=deadline_s)

        worker.process.ask = crash
        with nodes[0].bus.spy() as spy:
            assert np.array_equal(await embedded(nodes[0], model, (text,)), alone)
            assert len(spy.of(GenerationStarted)) == len(spy.of(GenerationResumed)) == 1
            assert [fact.outcome for fact in spy.of(GenerationFinished)] == ["embedded"]


async def test_the_genuine_openai_client_gets_vectors(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf", MODEL)
    async with swarm(tmp_path, 2) as nodes:
        model = ModelId(await nodes[0].desk.add_file(path, 1))
        await spread(nodes, model)
        key = nodes[0].api_key_path.read_text().strip()
        client = openai.AsyncOpenAI(base_url=f"{nodes[0].url}v1", api_key=key, max_retries=0)
        one = await client.embeddings.create(model=model, input="what is a shard?")
        vector = one.data[0].embedding
        assert one.object == "list" and one.model == model and one.data[0].index == 0 and len(vector) == MODEL.width
        assert abs(sum(number * number for number in vector) - 1) < 1e-6
        assert one.usage.prompt_tokens == one.usage.total_tokens > 0
        plain = await client.embeddings.create(model=model, input="what is a shard?", encoding_format="float")
        assert plain.data[0].embedding == vector
        raw = await client.embeddings.create(model=model, input="what is a shard?", encoding_format="base64")
        assert np.frombuffer(base64.b64decode(str(raw.data[0].embedding)), "<f4").tolist() == vector

        several = await client.embeddings.create(model=model, input=["what is a shard?", "a head", "what is a shard?"])
        assert [item.index for item in several.data] == [0, 1, 2]
        assert several.data[0].embedding == several.data[2].embedding == vector != several.data[1].embedding
        tokens = await client.embeddings.create(model=model, input=[5, 6, 7])
        lists = await client.embeddings.create(model=model, input=[[5, 6, 7], [8]])
        assert tokens.data[0].embedding == lists.data[0].embedding and len(lists.data) == 2
        assert lists.usage.prompt_tokens == 4
        same = await client.embeddings.create(model=model, input="a", dimensions=MODEL.width, user="me")
        assert len(same.data[0].embedding) == MODEL.width

        for wrong, words in (
            ({"input": ["a", ""]}, r"input\[1\] is empty"),
            ({"input": []}, "1 to 2048"),
            ({"input": ["a"] * 2049}, "1 to 2048"),
            ({"input": [[1], [2, 100_000]]}, r"input\[1\] has tokens"),
            ({"input": [[1], [2] * 513]}, r"input\[1\] has 513 tokens and the context holds 512"),
            ({"input": "a", "dimensions": 8}, "64 dimensions"),
            ({"input": ["a", [1]]}, "not a mixture"),
        ):
            with pytest.raises(openai.BadRequestError, match=words):
                await client.embeddings.create(model=model, **wrong)
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="nobody", input="a")
        await client.close()


@pytest.mark.parametrize(("shape", "words"), [({"pooling": 2}, "pooling type 2"), ({"causal": False}, "from both ends")])
async def test_a_model_whose_vectors_cannot_be_made_here_is_refused_by_name(tmp_path: Path, shape, words: str) -> None:
    path = write_model(tmp_path / "tiny.gguf", TinyModel(layers=2, tokenizer=True, **shape))
    async with running(tmp_path / "node") as node:
        model = ModelId(await node.desk.add_file(path, 1))
        refusal = await node.embeddings.embed(EmbeddingRequest(request=RequestId("test"), model=model, inputs=("a",)))
        assert isinstance(refusal, Refusal) and words in refusal.sentence
