"""The OpenAI dialect: chat, completions, models. Two functions around one inner request; nothing below knows of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from msgspec import UNSET

from swarmd.api import views
from swarmd.api.answers import Answers, source_headers
from swarmd.api.calls import Call, Reply
from swarmd.api.choices import Choices
from swarmd.api.messages_errors import VERSION_HEADER, speaks_anthropic
from swarmd.api.model_cards import card_of, info, page_of
from swarmd.api.openai_prints import ChatPrinter, CompletionPrinter, Gathered
from swarmd.api.openai_requests import chat_request, choices, completion_request
from swarmd.api.openai_shapes import ChatRequest, CompletionRequest, ModelCard, ModelList, SamplingIn
from swarmd.api.ports import Models, ProviderRoads
from swarmd.api.replies import UnknownAdapter, error_of
from swarmd.api.targets import Target, Targets, unknown
from swarmd.config.settings import Settings
from swarmd.domain.generation import GenerationFailed, GenerationRequest, Usage
from swarmd.domain.providers import ProviderModel
from swarmd.domain.refusals import Invalid, Refusal
from swarmd.kit.world import Entropy

SEED_BYTES = 4  # llama.cpp seeds its generators with 32 bits

USER_LENGTH = 64  # of the name by which a client tells its users apart; they take turns in the queue

Printer = ChatPrinter | CompletionPrinter


class OpenAiHandlers:
    def __init__(
        self,
        *,
        models: Models,
        targets: Targets,
        answers: Answers,
        settings: Callable[[], Settings],
        entropy: Entropy,
        providers: ProviderRoads | None = None,
    ) -> None:
        self._models, self._targets, self._answers, self._providers = models, targets, answers, providers
        self._settings, self._entropy = settings, entropy

    async def chat(self, call: Call) -> Any:
        body: ChatRequest = call.body
        target = self._targets.find(body.model, body.lora_adapter)
        if isinstance(target, Refusal):
            return target
        request = chat_request(body, request=call.request_id, model=target.model, fresh_seed=self._fresh_seed())
        printer = ChatPrinter(
            id=f"chatcmpl-{call.request_id}", created=int(call.now), model=target.name,
            include_usage=_wants_usage(body),
        )  # fmt: skip
        return await self._answer(call, body, target, request, printer)

    async def complete(self, call: Call) -> Any:
        body: CompletionRequest = call.body
        target = self._targets.find(body.model, body.lora_adapter)
        if isinstance(target, Refusal):
            return target
        request = completion_request(body, request=call.request_id, model=target.model, fresh_seed=self._fresh_seed())
        printer = CompletionPrinter(
            id=f"cmpl-{call.request_id}", created=int(call.now), model=target.name,
            include_usage=_wants_usage(body),
        )  # fmt: skip
        return await self._answer(call, body, target, request, printer)

    async def models(self, call: Call) -> ModelList | Reply | Refusal:
        """Of either dialect: see `speaks_anthropic`. The OpenAI contract has no pages, and a wrong one is refused anyway."""
        cards = await self.cards()
        page = page_of([info(card) for card in cards], call.request.query)
        if isinstance(page, Refusal):
            return page
        if speaks_anthropic(call.request):
            return Reply(body=page, headers=_varying(call))
        return ModelList(object="list", data=cards)

    async def model(self, call: Call) -> ModelCard | Reply | Refusal:
        target = self._targets.find(call.path["id"])
        if isinstance(target, UnknownAdapter):
            return target
        if isinstance(target, Target) and target.provider is not None and self._providers is not None:
            for model in await self._providers.models():
                if (model.provider, model.id) == (target.provider.name, target.model):
                    return _in_dialect(call, self._provider_card(model))
            return unknown(call.path["id"])
        view = None if isinstance(target, Refusal) else self._models.view(target.model)
        if isinstance(target, Refusal) or view is None or view.manifest is None:
            return unknown(call.path["id"])
        return _in_dialect(call, self._card(target))

    async def cards(self) -> list[ModelCard]:
        """Of what can be asked for now: of the swarm, and of providers where those are listed."""
        cards = [self._card(target) for target in self._targets.all()]
        if self._providers is not None and self._settings().providers.list_models:
            cards += [self._provider_card(model) for model in await self._providers.models()]
        return cards

    async def _answer(
        self, call: Call, body: SamplingIn, target: Target, request: GenerationRequest | Invalid, printer: Printer
    ) -> Any:
        if isinstance(request, Invalid):
            return request
        count = choices(body)
        request = replace(request, client=client_of(call, body.user))
        async with self._answers.opened(target, request, count) as several:
            if isinstance(several, Refusal):
                return several
            headers = source_headers(target, several.plan)
            if body.stream:
                return await _streamed(call, several, count, printer, headers)
            return await _whole(several, count, printer, headers)

    def _card(self, target: Target) -> ModelCard:
        view = self._models.view(target.model)
        assert view is not None and view.manifest is not None, "only models with a manifest are shown"
        return card_of(target.name, view, view.manifest, context_tokens=self._settings().inference.context_tokens)

    def _provider_card(self, model: ProviderModel) -> ModelCard:
        """Under its plain name where that name means this provider, else behind the provider's."""
        found = self._targets.find(model.id)
        plain = isinstance(found, Target) and found.provider is not None and found.provider.name == model.provider
        context = UNSET if model.context_length is None else model.context_length
        return ModelCard(
            id=model.id if plain else f"{model.provider}:{model.id}", object="model", created=model.created,
            owned_by=model.provider, max_model_len=context, context_length=context,
        )  # fmt: skip

    def _fresh_seed(self) -> int:
        return int.from_bytes(self._entropy.token(SEED_BYTES), "little")


def _in_dialect(call: Call, card: ModelCard) -> ModelCard | Reply:
    return Reply(body=info(card), headers=_varying(call)) if speaks_anthropic(call.request) else card


def _varying(call: Call) -> dict[str, str]:
    return {"vary": VERSION_HEADER, "request-id": call.request_id}


def client_of(call: Call, user: str | None) -> str:
    """Who takes turns with others: many people may sit behind one address."""
    return f"{call.caller.address} {(user or '')[:USER_LENGTH]}"


async def _whole(several: Choices, count: int, printer: Printer, headers: dict[str, str]) -> Reply | Refusal:
    replies = [Gathered() for _ in range(count)]
    try:
        async for index, chunk in several:
            replies[index].add(chunk)
    except GenerationFailed as failure:
        return failure.refusal
    usage = replies[0].usage
    assert usage is not None, "a generation ends with its usage"
    return Reply(body=printer.whole(*replies), headers={**headers, "server-timing": views.server_timing(usage)})


async def _streamed(call: Call, several: Choices, count: int, printer: Printer, headers: dict[str, str]) -> Any:
    stream = await call.open_stream(headers)
    usages: dict[int, Usage] = {}
    try:
        async with stream.kept_alive(stream.comment):
            for index in range(count):
                for event in printer.opening(index):
                    await stream.send(event)
            async for index, chunk in several:
                for event in printer.chunks(chunk, index):
                    await stream.send(event)
                if chunk.usage is not None:
                    usages[index] = chunk.usage
        for event in printer.closing([usages[index] for index in range(count)]):
            await stream.send(event)
    except GenerationFailed as failure:
        await stream.fail(error_of(failure.refusal))  # the openai client raises APIError on it
    else:
        await stream.done()
    return stream


def _wants_usage(body: SamplingIn) -> bool:
    return bool(body.stream_options and body.stream_options.include_usage)
