"""For every supported architecture: what a user reads is what stock llama.cpp says of the whole file, over three nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from swarmd.app import Node
from swarmd.domain.generation import Sampling
from swarmd.domain.ids import ModelId
from swarmd.models.architectures import FAMILIES
from tests.fakes.gguf import SHAPES, write_model
from tests.fakes.llama import Llama, NativeModel
from tests.fakes.nodes import chat, generated, spread, swarm, text_of
from tests.fakes.threads import workers_as_threads

PROMPTS = ("what is a shard?", "the head asks the tail, and the tail answers " * 4)
TOKENS = 16


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Node]]:
    with pytest.MonkeyPatch.context() as patch:
        workers_as_threads(patch)
        async with swarm(tmp_path_factory.mktemp("nodes"), 3) as three:
            yield three


@pytest.fixture(scope="module")
def llama() -> Llama:
    return Llama()


def said_by_llama_cpp(llama: Llama, path: Path, prompt: str) -> tuple[list[int], str]:
    """Greedy, with the whole file in one context and tokens going in; in chunks as long as ours."""
    tokens = llama.tokenize(path, f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n")
    reply: list[int] = []
    with NativeModel(llama, path) as model:
        for start in range(0, len(tokens), 128):
            chunk = tokens[start : start + 128]
            logits = model.run([(0, start + at, token) for at, token in enumerate(chunk)])
        while len(reply) < TOKENS:
            token = int(np.argmax(logits[-1]))
            if model.ends(token):
                break
            reply.append(token)
            logits = model.run([(0, len(tokens) + len(reply) - 1, token)])
        return reply, model.text(reply)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", FAMILIES)
async def test_three_nodes_say_what_llama_cpp_says(name: str, nodes: list[Node], llama: Llama, tmp_path: Path) -> None:
    path = write_model(tmp_path / f"{name}.gguf", replace(SHAPES[name], tokenizer=True))
    expected = [said_by_llama_cpp(llama, path, prompt) for prompt in PROMPTS]
    assert expected[0] != expected[1]
    model = await nodes[0].desk.add_file(path, 1)
    assert isinstance(model, str), model
    view = nodes[0].registry.view(ModelId(model))
    assert view is not None and len(view.shards) >= 3 and view.architecture_supported
    await spread(nodes, ModelId(model))
    for prompt, (tokens, text) in zip(PROMPTS, expected, strict=True):
        sampling = Sampling(temperature=0.0, top_logprobs=0)
        chunks = await generated(nodes[0], chat(ModelId(model), prompt, max_tokens=TOKENS, sampling=sampling))
        assert [picked.token for chunk in chunks for picked, _ in chunk.logprobs] == tokens
        assert text_of(chunks) == text
    for node in nodes:  # workers of all families at once would fill a small machine
        assert isinstance(await node.workers.unload_model(ModelId(model)), int)
