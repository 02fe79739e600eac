"""Requests on their way to who answers them; what comes of several at once is in test_choices."""

from __future__ import annotations

import pytest

from swarmd.api.answers import Answers
from swarmd.api.choices import Choices
from swarmd.api.targets import Target
from swarmd.domain.generation import GenerationRequest
from swarmd.domain.ids import RequestId
from swarmd.domain.refusals import Refusal
from tests.fakes.rim import TINY, Rim, adapter

REQUEST = GenerationRequest(request=RequestId("r"), model=TINY, prompt="x")


@pytest.mark.parametrize("count", [1, 3])
async def test_every_choice_runs_with_the_adapter_of_the_target(rim: Rim, count: int) -> None:
    poet = adapter("poet", TINY)
    async with Answers(rim.pipeline).opened(Target(TINY, poet), REQUEST, count) as several:
        assert isinstance(several, Choices)
        ends = [index async for index, chunk in several if chunk.finish is not None]
    assert sorted(ends) == list(range(count))
    assert [one.adapter for one in rim.pipeline.requests] == [poet.ref] * count
    async with Answers(rim.pipeline).opened(Target(TINY), REQUEST) as several:
        assert not isinstance(several, Refusal)
    assert rim.pipeline.requests[-1] == REQUEST
