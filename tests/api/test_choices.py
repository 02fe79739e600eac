"""Several replies to one request: none waits for another in vain, and all end together."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from swarmd.api.choices import Choices, choices_of, opened
from swarmd.domain.generation import GenerationFailed, GenerationRequest, Sampling, TokenChunk
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.refusals import Busy, NotFound, Refusal, StageFailed
from tests.fakes.rim import PEER, FakeGeneration, FakePipeline, failed, script

REQUEST = GenerationRequest(request=RequestId("r"), model=ModelId("m"), prompt="x", sampling=Sampling(seed=-5))


class Narrow(FakePipeline):
    """So many places, and no patience."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.places, self.most = places, 0

    async def open(self, request: GenerationRequest) -> FakeGeneration | Refusal:
        if self.active >= self.places:
            return Busy(what="no place")
        generation = await super().open(request)
        self.most = max(self.most, self.active + 1)
        await asyncio.sleep(0)
        return generation


async def gathered(pipeline: Any, count: int) -> dict[int, str] | Refusal:
    texts = dict.fromkeys(range(count), "")
    async with opened(pipeline, choices_of(REQUEST, count)) as several:
        if not isinstance(several, Choices):
            return several
        async for index, chunk in several:
            texts[index] += chunk.text
    return texts


def test_each_choice_has_a_seed_of_its_own_and_the_first_that_of_the_request() -> None:
    found = choices_of(REQUEST, 8)
    assert found[0] == REQUEST
    assert len({one.sampling.seed for one in found}) == len({one.request for one in found}) == 8
    assert all(-(2**63) <= one.sampling.seed < 2**63 for one in found)
    assert choices_of(REQUEST, 8) == found


@pytest.mark.parametrize("places", [1, 2, 5])
async def test_choices_wait_for_each_other_where_places_are_few(places: int) -> None:
    pipeline = Narrow(places)
    assert await gathered(pipeline, 4) == dict.fromkeys(range(4), "Hello!")
    assert pipeline.most <= places and pipeline.active == 0


async def test_the_first_refusal_is_the_answer() -> None:
    pipeline = FakePipeline()
    pipeline.says = NotFound(what="no such model")
    assert await gathered(pipeline, 3) == pipeline.says
    assert len(pipeline.requests) == 1


async def test_a_place_that_others_took_ends_all_with_a_refusal() -> None:
    pipeline = Narrow(1)
    pipeline.script = script("a")

    async def taken() -> dict[int, str] | Refusal:
        texts: dict[int, str] = {}
        async with opened(pipeline, choices_of(REQUEST, 2)) as several:
            assert isinstance(several, Choices)
            pipeline.places = 0
            async for index, chunk in several:
                texts[index] = chunk.text
        return texts

    with pytest.raises(GenerationFailed, match="no place"):
        await taken()
    assert pipeline.active == 0


async def test_one_that_fails_ends_the_others() -> None:
    pipeline = FakePipeline()
    pipeline.script = [script("a")[0], failed(StageFailed(node=PEER, reason="it went away"))]
    with pytest.raises(GenerationFailed, match="it went away"):
        await gathered(pipeline, 3)
    assert pipeline.active == 0


async def test_a_client_that_goes_away_ends_all() -> None:
    pipeline = FakePipeline()
    never = asyncio.Event()
    pipeline.script = [*script("a")[:1], never]
    began = asyncio.Event()

    async def read() -> None:
        async with opened(pipeline, choices_of(REQUEST, 3)) as several:
            assert isinstance(several, Choices)
            async for _ in several:
                began.set()

    task = asyncio.create_task(read())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pipeline.active == 0


async def test_a_slow_reader_holds_the_choices_back() -> None:
    pipeline = FakePipeline()
    pipeline.script = [TokenChunk(sequence=at, text="x") for at in range(500)] + list(script("end"))
    async with opened(pipeline, choices_of(REQUEST, 2)) as several:
        assert isinstance(several, Choices)
        await asyncio.sleep(0.01)
        seen = 0
        async for _ in several:
            seen += 1
            if seen == 10:
                break
    assert pipeline.active == 0
