"""A generation that a provider makes: as one of the swarm to its reader, but that no node ran a layer of it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Final, Self

import aiohttp

from swarmd.domain.generation import GenerationFailed, GenerationRequest, TokenChunk
from swarmd.domain.plans import PipelinePlan
from swarmd.domain.providers import Service, Wire
from swarmd.domain.refusals import Invalid, ProviderFailed, Refusal
from swarmd.kit.world import Clock
from swarmd.providers.chat_wire import ChatReader, WireError, WireFault, chat_body
from swarmd.providers.event_lines import EVENT_LIMIT, EventLines, EventTooLong
from swarmd.providers.line import Line, ProviderTrouble, pieces, refusal_of, whole
from swarmd.providers.loose import as_dict, as_text, parsed
from swarmd.providers.messages_wire import VERSION, MessagesReader, messages_body
from swarmd.providers.reply import Piece, ReplyInTheMaking
from swarmd.providers.roster import Ready

STATUSES: Final = {"overloaded_error": 529, "rate_limit_error": 429, "invalid_request_error": 400}
"""By type of an error that comes within a stream, where there is no status. 529 is Anthropic's own."""


class Conversation:
    """As `api.ports.Generation`. Leaving the block closes the connection, which is how a provider learns to stop."""

    def __init__(self, request: GenerationRequest, chunks: AsyncGenerator[TokenChunk], stack: AsyncExitStack) -> None:
        self._chunks, self._stack = chunks, stack
        self.plan = PipelinePlan(model=request.model, layout="", stages=(), predicted_token_ms=None)
        self.prompt_tokens = self.cached_tokens = 0  # a provider counts them, and says so at the end

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._chunks.aclose()
        finally:
            await self._stack.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenChunk:
        """Raises GenerationFailed when the provider fails before its end."""
        return await anext(self._chunks)


async def open_conversation(
    line: Line, provider: Ready, request: GenerationRequest, *, clock: Clock
) -> Conversation | Refusal:
    """Asks, and returns when the provider has begun to answer."""
    anthropic = provider.known.wire is Wire.ANTHROPIC
    body = messages_body(request) if anthropic else chat_body(provider, request)
    if isinstance(body, Invalid):
        return body
    service = Service.MESSAGES if anthropic else Service.CHAT
    headers = {"accept": "text/event-stream", **({"anthropic-version": VERSION} if anthropic else {})}
    reply = ReplyInTheMaking(clock=clock)
    async with AsyncExitStack() as stack:
        try:
            response = await stack.enter_async_context(
                line.asked(provider, service.value, json.dumps(body).encode(), headers=headers)
            )
        except ProviderTrouble as trouble:
            return trouble.refusal
        reader = MessagesReader() if anthropic else ChatReader()
        chunks = _chunks(provider, response, reader.piece_of, reply)
        return Conversation(request, chunks, stack.pop_all())
    raise AssertionError("the block above returns")


async def _chunks(
    provider: Ready, response: aiohttp.ClientResponse, piece_of: Callable[[bytes], Piece], reply: ReplyInTheMaking
) -> AsyncGenerator[TokenChunk]:
    try:
        async with aclosing(_events(provider, response)) as events:
            async for data in events:
                piece = piece_of(data)
                chunk = reply.add(piece)
                if chunk is not None:
                    yield chunk
                if piece.ended:
                    break
    except ProviderTrouble as trouble:
        raise GenerationFailed(trouble.refusal) from trouble
    except WireError as error:
        raise GenerationFailed(refusal_of(provider, status_in(error.body), error.body)) from error
    except (WireFault, EventTooLong) as error:
        what = str(error) or "sends an event without an end"
        raise GenerationFailed(ProviderFailed(provider=provider.name, what=what)) from error
    if reply.finish is None:
        raise GenerationFailed(ProviderFailed(provider=provider.name, what="ended its reply in the middle"))
    yield reply.last()


async def _events(provider: Ready, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    """Data of events. A whole reply in place of a stream counts as one event: some servers do not stream calls."""
    if response.content_type == "application/json":
        yield await whole(provider, response, limit=EVENT_LIMIT)
        return
    lines = EventLines()
    async with aclosing(pieces(provider, response)) as body:
        async for piece in body:
            for data in lines.feed(piece):
                yield data
    for data in lines.end():
        yield data


def status_in(body: bytes) -> int:
    """What status an error within a stream would have had."""
    error = as_dict(as_dict(parsed(body)).get("error"))
    code = error.get("code")
    if type(code) is int and 400 <= code < 600:
        return code
    return STATUSES.get(as_text(error.get("type")), 502)
