"""`/v1/embeddings` over a real socket: what the openai client sends and expects, and what is refused."""

from __future__ import annotations

import asyncio
import io
import json
from array import array
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import msgspec
import openai
import pytest
from openai import AsyncOpenAI

from swarmd.api.calls import Reply
from swarmd.api.embeddings import EmbeddingHandlers, EmbeddingList, EmbeddingsRequest
from swarmd.domain.generation import Embedded, EmbeddingRequest
from swarmd.domain.ids import ModelId, RequestId
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
        ({"input": "a", "lora_adapter": "poet"}, "lora_adapter"),
        ({"input": "a", "model": f"{TINY}:poet"}, "model"),
    ],
)
async def test_what_does_not_fit_is_refused_and_nothing_is_computed(rim: Rim, body: Any, param: str) -> None:
    data = io.BytesIO(json.dumps({"model": TINY, **body}).encode())
    async with rim.client(**keyed()) as session, session.post("/v1/embeddings", data=data) as reply:
        assert (reply.status, (await reply.json())["error"]["param"]) == (400, param)
    assert not rim.embeddings.requests


async def test_a_large_reply_does_not_hold_up_everybody_else() -> None:
    count, width, turns = 200, 4096, 0
    vectors = (array("f", [0.123456789] * width).tobytes(),) * count

    class Vectors:
        async def embed(self, _request: EmbeddingRequest) -> Embedded:
            return Embedded(vectors=vectors, tokens=count, nodes=(OWN,))

    async def tick() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    handlers = EmbeddingHandlers(embeddings=Vectors(), named=lambda name: ModelId(name))
    call = SimpleNamespace(
        body=EmbeddingsRequest(model=TINY, input=["a"] * count), request_id=RequestId("r"),
        caller=SimpleNamespace(address="here"),
    )  # fmt: skip
    ticking = asyncio.create_task(tick())
    reply = await handlers.embed(call)  # type: ignore[arg-type]
    ticking.cancel()
    assert turns >= count - 1, "others had a turn between any two vectors"
    assert isinstance(reply, Reply)
    shown = msgspec.json.decode(msgspec.json.encode(reply.body), type=EmbeddingList)
    assert [one.index for one in shown.data] == list(range(count))
    assert all(one.embedding == array("f", vectors[0]).tolist() for one in shown.data)


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
