"""Requests that go to a provider as they came: the client's own JSON with the provider's name for the model in it, and the
answer byte for byte.

A dialect's row names one of these as its `elsewhere`; it is asked before the body is parsed, since what a provider takes is
the provider's to judge. Answers None where the swarm answers, or where the provider speaks another dialect: then the row's
own handler takes the inner road.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final

import msgspec
from aiohttp import web

from swarmd.api.calls import Call, Handler
from swarmd.api.messages_errors import ERROR_EVENT, problem
from swarmd.api.ports import PassedOn, ProviderRoads
from swarmd.api.replies import error_of
from swarmd.api.sse import EventStream
from swarmd.api.targets import Target, Targets
from swarmd.domain.generation import GenerationFailed
from swarmd.domain.providers import Service
from swarmd.domain.refusals import Invalid, Refusal

ANTHROPIC_HEADERS: Final = ("anthropic-version", "anthropic-beta")
ANTHROPIC_VERSION: Final = "2023-06-01"  # where the client says none


class _Named(msgspec.Struct, frozen=True):
    """What of a body says who answers it."""

    model: str
    lora_adapter: str | None = None


class PassThrough:
    def __init__(self, *, targets: Targets, providers: ProviderRoads) -> None:
        self._targets, self._providers = targets, providers

    def chat(self, call: Call, data: bytes) -> Handler | None:
        return self._elsewhere(data, Service.CHAT, {})

    def complete(self, call: Call, data: bytes) -> Handler | None:
        return self._elsewhere(data, Service.COMPLETIONS, {}) or self._refused(data, "completions", "chat/completions")

    def embed(self, call: Call, data: bytes) -> Handler | None:
        return self._elsewhere(data, Service.EMBEDDINGS, {}) or self._refused(data, "embeddings", "another provider")

    def messages(self, call: Call, data: bytes) -> Handler | None:
        return self._elsewhere(data, Service.MESSAGES, _anthropic(call))

    def count_tokens(self, call: Call, data: bytes) -> Handler | None:
        return self._elsewhere(data, Service.COUNT_TOKENS, _anthropic(call))

    def _target(self, data: bytes) -> Target | None:
        """Of a body that names a provider's model; a body that cannot be read is the row's to refuse."""
        try:
            named = msgspec.json.decode(data, type=_Named)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        target = self._targets.find(named.model, named.lora_adapter)
        return None if isinstance(target, Refusal) or target.provider is None else target

    def _elsewhere(self, data: bytes, service: Service, headers: Mapping[str, str]) -> Handler | None:
        target = self._target(data)
        if target is None or target.provider is None or not self._providers.serves(target.provider, service):
            return None
        provider = target.provider.name

        async def answer(call: Call) -> Any:
            async with self._providers.passed_on(provider, service, renamed(data, target.model), headers) as answer:
                if isinstance(answer, Refusal):
                    return answer
                if answer.is_stream:
                    return await _streamed(call, provider, service, answer)
                whole = await answer.whole()
                if isinstance(whole, Refusal):
                    return whole
                head = {**_source(call, provider, service), "content-type": answer.media}
                return web.Response(body=whole, status=answer.status, headers=head)

        return answer

    def _refused(self, data: bytes, what: str, instead: str) -> Handler | None:
        """Providers that have nothing of the kind, by name: there is no inner road for it."""
        target = self._target(data)
        if target is None or target.provider is None:
            return None
        sentence = f"provider {target.provider.name} has no {what}: use {instead}"

        async def refuse(_: Call) -> Refusal:
            return Invalid(what=sentence, param="model")

        return refuse


def renamed(data: bytes, model: str) -> bytes:
    """The same body with another model; every other field keeps its bytes."""
    fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    return msgspec.json.encode({**fields, "model": model})


def _anthropic(call: Call) -> dict[str, str]:
    sent = {name: call.request.headers[name] for name in ANTHROPIC_HEADERS if name in call.request.headers}
    return {"anthropic-version": ANTHROPIC_VERSION, **sent}


def _source(call: Call, provider: str, service: Service) -> dict[str, str]:
    own = {"request-id": call.request_id} if service in (Service.MESSAGES, Service.COUNT_TOKENS) else {}
    return {"x-swarm-provider": provider, **own}


async def _streamed(call: Call, provider: str, service: Service, answer: PassedOn) -> EventStream:
    """What comes is written as it comes; a provider that breaks off is reported as the last event, as its dialect has it."""
    anthropic = service is Service.MESSAGES
    headers = {**_source(call, provider, service), "content-type": answer.media}
    stream = await call.open_stream(headers, error_name=ERROR_EVENT if anthropic else "")
    try:
        async with aclosing(answer.pieces()) as pieces:
            async for piece in pieces:
                await stream.write(piece)
    except GenerationFailed as failure:
        refusal = failure.refusal
        await stream.fail(problem(refusal, call.request_id) if anthropic else error_of(refusal))
    else:
        await stream.finish()
    return stream
