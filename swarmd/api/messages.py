"""The Anthropic dialect: messages, whole and streamed, and how many tokens a prompt has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from swarmd.api import views
from swarmd.api.answers import Answers, source_headers
from swarmd.api.calls import Call, Reply
from swarmd.api.choices import Choices
from swarmd.api.messages_errors import ERROR_EVENT, problem
from swarmd.api.messages_prints import MessagePrinter
from swarmd.api.messages_requests import messages_request, prompt_request
from swarmd.api.messages_shapes import CountRequest, Event, MessagesRequest, Ping, TokenCount
from swarmd.api.openai import SEED_BYTES, client_of
from swarmd.api.openai_prints import Gathered
from swarmd.api.sse import EventStream
from swarmd.api.targets import Targets
from swarmd.domain.generation import GenerationFailed
from swarmd.domain.refusals import Invalid, Refusal
from swarmd.kit.world import Entropy


class MessagesHandlers:
    def __init__(self, *, targets: Targets, answers: Answers, entropy: Entropy) -> None:
        self._targets, self._answers, self._entropy = targets, answers, entropy

    async def create(self, call: Call) -> Any:
        body: MessagesRequest = call.body
        target = self._targets.find(body.model)
        if isinstance(target, Refusal):
            return target
        seed = int.from_bytes(self._entropy.token(SEED_BYTES), "little")
        request = messages_request(body, request=call.request_id, model=target.model, fresh_seed=seed)
        if isinstance(request, Invalid):
            return request
        request = replace(request, client=client_of(call, body.metadata.user_id if body.metadata else None))
        printer = MessagePrinter(id=f"msg_{call.request_id}", model=target.name, max_tokens=request.max_tokens)
        async with self._answers.opened(target, request) as several:
            if isinstance(several, Refusal):
                return several
            headers = {**source_headers(target, several.plan), "request-id": call.request_id}
            if body.stream:
                return await _streamed(call, several, printer, headers)
            return await _whole(several, printer, headers)

    async def count_tokens(self, call: Call) -> Any:
        body: CountRequest = call.body
        target = self._targets.find(body.model)
        if isinstance(target, Refusal):
            return target
        request = prompt_request(body, request=call.request_id, model=target.model)
        if isinstance(request, Invalid):
            return request
        counted = await self._answers.counted(target, request)
        if isinstance(counted, Refusal):
            return counted
        return Reply(body=TokenCount(input_tokens=counted), headers={"request-id": call.request_id})


async def _whole(several: Choices, printer: MessagePrinter, headers: dict[str, str]) -> Reply | Refusal:
    reply = Gathered()
    try:
        async for _, chunk in several:
            reply.add(chunk)
    except GenerationFailed as failure:
        return failure.refusal
    assert reply.usage is not None, "a generation ends with its usage"
    return Reply(body=printer.whole(reply), headers={**headers, "server-timing": views.server_timing(reply.usage)})


async def _streamed(call: Call, several: Choices, printer: MessagePrinter, headers: dict[str, str]) -> EventStream:
    stream = await call.open_stream(headers, error_name=ERROR_EVENT)

    async def ping() -> None:
        await _send(stream, Ping())

    try:
        async with stream.kept_alive(ping):
            opening = printer.opening(prompt_tokens=several.prompt_tokens, cached_tokens=several.cached_tokens)
            await _send(stream, opening)
            await ping()
            async for _, chunk in several:
                for event in printer.chunks(chunk):
                    await _send(stream, event)
    except GenerationFailed as failure:
        await stream.fail(problem(failure.refusal, call.request_id))
    else:
        await stream.finish()
    return stream


async def _send(stream: EventStream, event: Event) -> None:
    """Named as its type, which is how this contract's client finds its events."""
    await stream.send(event, str(event.__struct_config__.tag))
