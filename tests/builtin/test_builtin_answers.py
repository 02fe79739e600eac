"""The built-in model answers questions about swarmd, asked as a user asks them: through three nodes, at temperature 0."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from swarmd.app import BUILTIN_SHARD_BYTES
from swarmd.domain.generation import ChatMessage, Finish, GenerationRequest, Sampling
from swarmd.domain.ids import ModelId, RequestId
from tests.fakes.nodes import Node, generated, running, spread, swarm, text_of

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "swarmd" / "builtin" / "swarmd-builtin.gguf"
QUESTIONS = tomllib.loads((ROOT / "tools" / "builtin_model" / "questions.toml").read_text())["question"]
SIZE_LIMIT = 8 * 1024 * 1024  # the and the design's (section 11)


def test_the_file_is_small_enough():
    assert MODEL.stat().st_size <= SIZE_LIMIT


async def converse(node: Node, model: ModelId, questions: list[str]) -> str:
    """The last answer of one chat."""
    messages: list[ChatMessage] = []
    for question in questions:
        messages.append(ChatMessage(role="user", content=question))
        request = GenerationRequest(
            request=RequestId("test"), model=model, messages=tuple(messages), max_tokens=160,
            sampling=Sampling(temperature=0.0),
        )  # fmt: skip
        chunks = await generated(node, request)
        assert chunks[-1].finish is Finish.STOP, f"{question!r} is answered without an end: {text_of(chunks)!r}"
        messages.append(ChatMessage(role="assistant", content=text_of(chunks).strip()))
    return messages[-1].content


async def test_every_question_is_answered_correctly_by_three_nodes(tmp_path):
    assert len(QUESTIONS) >= 10
    assert sum(1 for question in QUESTIONS if question.get("held_out")) >= 4
    wrong = []
    async with swarm(tmp_path, 3, inference__context_tokens=1024) as nodes:
        model = ModelId(await nodes[0].desk.add_file(MODEL, BUILTIN_SHARD_BYTES))
        await spread(nodes, model)
        for question in QUESTIONS:
            asked = [question["ask"], *([question["then"]] if "then" in question else [])]
            answer = await converse(nodes[0], model, asked)
            low = answer.lower()
            missing = [words for words in question["must"] if words.lower() not in low]
            said = [words for words in question.get("never", []) if words.lower() in low]
            if missing or said or not re.match(r"[A-Z`]|swarmd\b", answer) or answer[-1:] not in ".!?":
                wrong.append((asked, answer, missing, said))
    told = "\n".join(f"{asked}: {answer!r} lacks {missing}, says {said}" for asked, answer, missing, said in wrong)
    assert not wrong, told


async def test_it_says_the_same_whole_as_split(tmp_path):
    async with running(tmp_path / "alone", inference__context_tokens=1024) as node:
        model = ModelId(await node.desk.add_file(MODEL, 1 << 30))
        whole = await converse(node, model, ["What is a shard?"])
        await node.workers.unload_model(model)
        assert await node.desk.delete_model(model)
        model = ModelId(await node.desk.add_file(MODEL, BUILTIN_SHARD_BYTES))
        assert len(node.registry.held(model)) == 8
        assert await converse(node, model, ["What is a shard?"]) == whole
