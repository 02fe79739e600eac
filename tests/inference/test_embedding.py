"""Embeddings of several texts: how many at once, in whose name, what is refused before anything is computed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from swarmd.domain.events import GenerationFinished
from swarmd.domain.generation import Embedded, EmbeddingRequest
from swarmd.domain.ids import RequestId
from swarmd.domain.refusals import Busy, Invalid, NotFound, PromptTooLong, Refusal
from swarmd.inference.embedding import AT_ONCE, NUMBERS_LIMIT, TOKENS_LIMIT, Embeddings, pooling_of
from swarmd.inference.vectors import Pooling
from swarmd.kit.bus import EventBus
from swarmd.models.gguf import GgufHeader
from swarmd.models.gguf_values import Value, ValueType, number_value
from tests.fakes.heads import MODEL, Ticks, plan

WIDTH, VOCABULARY, CONTEXT = 2, 1000, 600


def known(**metadata: Value) -> Any:
    named = {f"llama.{key.replace('__', '.')}": value for key, value in metadata.items()}
    header = GgufHeader(version=3, metadata=named, tensors=(), alignment=32, data_offset=0)
    manifest = SimpleNamespace(model=MODEL, layout="l", width=WIDTH, vocab_size=VOCABULARY, architecture="llama")
    return SimpleNamespace(manifest=manifest, header=header)


class Reader:
    """Stages that take a moment: of each text the vector is its first token and its length."""

    def __init__(self) -> None:
        self.running = self.most = self.begun = 0
        self.started_with: list[Any] = []
        self.refuse_at: int | None = None
        self.outcomes: list[str] = []
        self.cancelled = 0
        self.clients: set[str] = set()

    def prefixes(self, known: Any, tokens: Any) -> tuple[bytes, ...]:
        return ()

    def started(self, request: Any, plan: Any, *, tokens: int) -> None:
        self.started_with.append(request)

    def ended(self, outcome: str) -> None:
        self.outcomes.append(outcome)

    async def read(self, known: Any, client: str, head_on: Any) -> Any:
        head = head_on(plan())
        self.clients.add(client)
        self.begun += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(1.0 / (1 + head.history[0]))  # those that come later are done first
            if head.history[0] == self.refuse_at:
                return Busy(what="no seat")
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return SimpleNamespace(vector=np.array([head.history[0] + 1, len(head.history)], np.float32))


class Parts:
    def __init__(self, **metadata: Value) -> None:
        self.reader, self.bus = Reader(), EventBus()
        found = self.found = known(**metadata)
        self.embeddings = Embeddings(
            catalog=SimpleNamespace(get=lambda model: found if model == MODEL else None),  # type: ignore[arg-type]
            tokenizer=self,  # type: ignore[arg-type]
            reader=self.reader, clock=SimpleNamespace(ticks=Ticks()), bus=self.bus,  # type: ignore[arg-type]
        )  # fmt: skip

    def cells_per_session(self, model: Any) -> int:
        return CONTEXT

    async def tokenize(self, model: Any, command: Any) -> list[int]:
        assert command.whole
        return list(command.text.encode())

    async def embed(self, *inputs: Any, **rest: Any) -> Embedded | Refusal:
        request = EmbeddingRequest(request=RequestId("r"), model=MODEL, client="me", inputs=inputs, **rest)
        return await self.embeddings.embed(request)


@pytest.mark.looptime
async def test_several_run_at_once_within_a_bound_and_come_back_in_order() -> None:
    parts = Parts()
    with parts.bus.spy() as spy:
        found = await parts.embed(*((index, 5, 5) for index in range(20)))
        assert isinstance(found, Embedded)
        assert parts.reader.most == AT_ONCE and parts.reader.clients == {"me"} and parts.reader.begun == 20
        assert parts.reader.started_with == [RequestId("r")], "one request, one fact"
        assert [fact.outcome for fact in spy.of(GenerationFinished)] == ["embedded"]
    vectors = [np.frombuffer(vector, np.float32) for vector in found.vectors]
    assert np.allclose([vector[0] / vector[1] * 3 for vector in vectors], range(1, 21))
    assert np.allclose([np.linalg.norm(vector) for vector in vectors], 1)
    assert found.tokens == 60 and len(found.nodes) == 2


@pytest.mark.looptime
async def test_the_first_refusal_ends_all_of_them() -> None:
    parts = Parts()
    parts.reader.refuse_at = 3
    with parts.bus.spy() as spy:
        found = await parts.embed(*((index,) for index in range(20)))
        assert isinstance(found, Busy)
        assert [fact.outcome for fact in spy.of(GenerationFinished)] == ["failed"]
    assert parts.reader.begun == AT_ONCE and parts.reader.cancelled == AT_ONCE - 1 and parts.reader.running == 0


@pytest.mark.looptime
async def test_who_hangs_up_ends_all_of_them() -> None:
    parts = Parts()
    with parts.bus.spy() as spy:
        task = asyncio.create_task(parts.embed((0,), (0,)))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [fact.outcome for fact in spy.of(GenerationFinished)] == ["cancelled"]
    assert parts.reader.cancelled == 2


@pytest.mark.parametrize(
    ("inputs", "kind", "words"),
    [
        (["a" * CONTEXT, "b" * (CONTEXT + 1)], PromptTooLong, r"input\[1\] has 601 tokens and the context holds 600"),
        ([(1,), (VOCABULARY,)], Invalid, r"input\[1\] has tokens that are none of the 1000"),
        ([(-1,)], Invalid, r"input\[0\] has tokens"),
        ([(1,), ()], Invalid, r"input\[1\] is empty"),
        ([(1,) * CONTEXT] * (TOKENS_LIMIT // CONTEXT + 1), Invalid, "more than 300000 tokens"),
    ],
)
async def test_a_text_that_does_not_fit_is_named_and_nothing_is_computed(inputs: Any, kind: Any, words: str) -> None:
    parts = Parts()
    found = await parts.embed(*inputs)
    assert isinstance(found, kind)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(found.sentence)
    assert not parts.reader.begun and not parts.reader.started_with


async def test_vectors_that_would_fill_the_memory_are_refused_before_anything_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = Parts()
    monkeypatch.setattr(parts.found.manifest, "width", NUMBERS_LIMIT // 4)
    refusal = await parts.embed(*[(0,)] * 5)
    assert isinstance(refusal, Invalid) and refusal.param == "input" and "at most 4 in a request" in refusal.what
    assert not parts.reader.begun


async def test_dimensions_are_taken_when_they_are_the_models() -> None:
    parts = Parts()
    assert isinstance(await parts.embed((0,), dimensions=WIDTH), Embedded)
    refusal = await parts.embed((0,), dimensions=1)
    assert isinstance(refusal, Invalid) and refusal.param == "dimensions"


async def test_an_unknown_model_is_not_found() -> None:
    request = EmbeddingRequest(request=RequestId("r"), model="nobody", inputs=("a",))  # type: ignore[arg-type]
    assert isinstance(await Parts().embeddings.embed(request), NotFound)


U32, BOOL = ValueType.UINT32, ValueType.BOOL


@pytest.mark.parametrize(
    ("metadata", "pooling"),
    [
        ({}, Pooling.LAST),
        ({"pooling_type": number_value(U32, 0)}, Pooling.LAST),
        ({"pooling_type": number_value(U32, 1)}, Pooling.MEAN),
        ({"pooling_type": number_value(U32, 3)}, Pooling.LAST),
        ({"attention__causal": number_value(BOOL, True)}, Pooling.LAST),
        ({"pooling_type": number_value(U32, 2)}, None),
        ({"pooling_type": number_value(U32, 4)}, None),
        ({"pooling_type": number_value(BOOL, True)}, None),
        ({"attention__causal": number_value(BOOL, False)}, None),
        ({"attention__causal": number_value(U32, 1)}, None),
    ],
)
def test_a_model_says_how_its_rows_are_pooled(metadata: Any, pooling: Pooling | None) -> None:
    found = pooling_of(known(**metadata))
    assert found is pooling if pooling is not None else isinstance(found, Invalid)
