"""`/v1/embeddings` over a real socket: what the openai client sends and expects, and what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from swarmd.domain.refusals import PromptTooLong, StageFailed
from tests.fakes.rim import KEY, OWN, PEER, TINY, Rim, keyed


@pytest.fixture
async def client(rim: Rim) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{rim.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("abc", ("abc",)),
        (["abc", "d"], ("abc", "d")),
        ([5, 6, 7, 8], ((5, 6, 7, 8),)),
        ([[5], [6, 7]], ((5,), (6, 7))),
    ],
)
async def test_every_kind_of_input_arrives(rim: Rim, client: AsyncOpenAI, given: Any, inputs: Any) -> None:
    raw = await client.embeddings.with_raw_response.create(model=TINY, input=given, user="me")
    reply = raw.parse()
    (request,) = rim.embeddings.requests
    assert request.inputs == inputs and request.client == "127.0.0.1 me" and request.dimensions is None
    assert [item.embedding for item in reply.data] == [[index, len(one)] for index, one in enumerate(inputs)]
    assert reply.usage.total_tokens == reply.usage.prompt_tokens == sum(map(len, inputs))
    assert raw.headers["x-swarm-nodes"] == f"{OWN[:16]},{PEER[:16]}"


async def test_the_client_gets_numbers_or_base64_as_it_asks(rim: Rim, client: AsyncOpenAI) -> None:
    async with rim.client(**keyed()) as session:
        for form, expected in ((None, [0.0, 1.0]), ("float", [0.0, 1.0]), ("base64", "AAAAAAAAgD8=")):
            body = {"model": TINY, "input": "a"} | ({"encoding_format": form} if form else {})
            async with session.post("/v1/embeddings", json=body) as reply:
                assert (await reply.json())["data"] == [{"object": "embedding", "index": 0, "embedding": expected}]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input[0]"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": []}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": ["a", [1]]}, "input"),
        ({"input": ["a" * 1000_000] * 5}, "input"),
        ({"input": [True]}, "input[0]"),
        ({"input": [1.5]}, "input[0]"),
        ({"input": None}, "input"),
        ({}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ],
)
async def test_what_does_not_fit_is_refused_and_nothing_is_computed(rim: Rim, body: Any, param: str) -> None:
    data = io.BytesIO(json.dumps({"model": TINY, **body}).encode())
    async with rim.client(**keyed()) as session, session.post("/v1/embeddings", data=data) as reply:
        assert (reply.status, (await reply.json())["error"]["param"]) == (400, param)
    assert not rim.embeddings.requests


async def test_refusals_from_below_have_their_status(rim: Rim, client: AsyncOpenAI) -> None:
    rim.embeddings.refusal = PromptTooLong(prompt_tokens=600, context_tokens=512, param="input[3]")
    with pytest.raises(openai.BadRequestError, match=r"input\[3\] has 600 tokens and the context holds 512") as caught:
        await client.embeddings.create(model=TINY, input="a")
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input[3]")
    rim.embeddings.refusal = StageFailed(node=PEER, reason="gone")
    with pytest.raises(openai.InternalServerError):
        await client.embeddings.create(model=TINY, input="a")
    with pytest.raises(openai.NotFoundError):
        await client.embeddings.create(model="nobody", input="a")


async def test_it_needs_the_key(rim: Rim) -> None:
    async with rim.client() as session, session.post("/v1/embeddings", json={"model": TINY, "input": "a"}) as reply:
        assert reply.status == 401
