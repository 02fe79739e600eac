"""`/v1/embeddings`: the OpenAI dialect's bodies, and the handler between them and the one inner request."""

from __future__ import annotations

import asyncio
from array import array
from base64 import b64encode
from collections.abc import Callable
from typing import Annotated, Final, Literal, cast

from msgspec import Meta, Raw, Struct, json

from swarmd.api.bounds import PROMPT_LIMIT_BYTES
from swarmd.api.calls import Call, Reply
from swarmd.api.openai import client_of
from swarmd.api.openai_shapes import ModelName
from swarmd.api.ports import Embeddings
from swarmd.domain.generation import EmbeddingRequest
from swarmd.domain.ids import ModelId, RequestId, short
from swarmd.domain.refusals import Invalid, Refusal

INPUTS_LIMIT: Final = 2048  # the OpenAI contract's own
TOKENS_LIMIT: Final = 300_000  # of a body; as many as the inputs may have together (inference.embedding)

Tokens = Annotated[list[int], Meta(max_length=TOKENS_LIMIT)]


class EmbeddingsRequest(Struct, frozen=True, kw_only=True):
    model: ModelName
    input: str | Annotated[list[str | int | Tokens], Meta(max_length=TOKENS_LIMIT)]
    """A text, several, the tokens of one, or of several."""
    encoding_format: Literal["float", "base64"] | None = None
    """The openai client asks for base64 unless told otherwise, and decodes it."""
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    lora_adapter: Annotated[str, Meta(max_length=256)] | None = None
    """Refused: vectors are those of the model itself."""
    user: str | None = None
    """Whom the client asks for: where requests wait, users take turns."""


class EmbeddingOut(Struct, frozen=True, kw_only=True):
    object: str
    index: int
    embedding: list[float] | str
    """Of length 1. As text: base64 of float32, little endian."""


class EmbeddingsUsage(Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, frozen=True, kw_only=True):
    object: str
    data: list[EmbeddingOut]
    model: str
    usage: EmbeddingsUsage


class EmbeddingHandlers:
    def __init__(self, *, embeddings: Embeddings, named: Callable[[str], ModelId | Refusal]) -> None:
        """`named`: the model that a client means."""
        self._embeddings, self._named = embeddings, named

    async def embed(self, call: Call) -> Reply | Refusal:
        body: EmbeddingsRequest = call.body
        model = self._model(body)
        if isinstance(model, Refusal):
            return model
        request = embedding_request(body, request=call.request_id, model=model, client=client_of(call, body.user))
        if isinstance(request, Invalid):
            return request
        embedded = await self._embeddings.embed(request)
        if isinstance(embedded, Refusal):
            return embedded
        show = _base64 if body.encoding_format == "base64" else _floats
        shown: list[Raw] = []
        for index, vector in enumerate(embedded.vectors):
            # One by one: together they would take a second, in which no token of anybody moves.
            shown.append(Raw(json.encode(EmbeddingOut(object="embedding", index=index, embedding=show(vector)))))
            await asyncio.sleep(0)
        reply = EmbeddingList(
            object="list",
            data=cast("list[EmbeddingOut]", shown),  # encoded ones
            model=model,
            usage=EmbeddingsUsage(prompt_tokens=embedded.tokens, total_tokens=embedded.tokens),
        )
        return Reply(body=reply, headers={"x-swarm-nodes": ",".join(map(short, embedded.nodes))})


    def _model(self, body: EmbeddingsRequest) -> ModelId | Refusal:
        """Adapters are refused by name: a vector without what was asked for looks like any other."""
        what = "embeddings are made without LoRA adapters: name the model alone"
        if body.lora_adapter is not None:
            return Invalid(what=what, param="lora_adapter")
        base, colon, _ = body.model.rpartition(":")
        if colon and not isinstance(self._named(base), Refusal):
            return Invalid(what=what, param="model")
        return self._named(body.model)


def embedding_request(
    body: EmbeddingsRequest, *, request: RequestId, model: ModelId, client: str
) -> EmbeddingRequest | Invalid:
    inputs = _inputs(body.input)
    if isinstance(inputs, Invalid):
        return inputs
    size = sum(len(one.encode()) for one in inputs if isinstance(one, str))
    if size > PROMPT_LIMIT_BYTES:
        return Invalid(what=f"the texts have {size} bytes, at most {PROMPT_LIMIT_BYTES} are taken", param="input")
    return EmbeddingRequest(request=request, model=model, client=client, inputs=inputs, dimensions=body.dimensions)


def _inputs(given: str | list[str | int | list[int]]) -> tuple[str | tuple[int, ...], ...] | Invalid:
    if isinstance(given, str):
        return _filled((given,))
    numbers = tuple(one for one in given if isinstance(one, int))
    if numbers and len(numbers) == len(given):
        return (numbers,)
    inputs = tuple(tuple(one) if isinstance(one, list) else one for one in given if not isinstance(one, int))
    if numbers or len({type(one) for one in inputs}) > 1:
        return Invalid(what="input is a text, texts, the tokens of one, or of several: not a mixture", param="input")
    if not 0 < len(inputs) <= INPUTS_LIMIT:
        return Invalid(what=f"input has {len(inputs)} texts: 1 to {INPUTS_LIMIT} are taken", param="input")
    return _filled(inputs)


def _filled(inputs: tuple[str | tuple[int, ...], ...]) -> tuple[str | tuple[int, ...], ...] | Invalid:
    for number, one in enumerate(inputs):
        if not one:
            return Invalid(what=f"input[{number}] is empty: an embedding is made of something", param=f"input[{number}]")
    return inputs


def _floats(vector: bytes) -> list[float]:
    return array("f", vector).tolist()


def _base64(vector: bytes) -> str:
    return b64encode(vector).decode()
