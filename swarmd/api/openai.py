"""The OpenAI dialect: chat, completions, models. Two functions around one inner request; nothing below knows of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from swarmd.api import views
from swarmd.api.calls import Call, Reply
from swarmd.api.choices import Choices, choices_of, opened
from swarmd.api.openai_prints import ChatPrinter, CompletionPrinter, Gathered
from swarmd.api.openai_requests import chat_request, choices, completion_request
from swarmd.api.openai_shapes import ChatRequest, CompletionRequest, ModelCard, ModelList, SamplingIn
from swarmd.api.ports import Adapters, Generations, Models
from swarmd.api.replies import UnknownAdapter, UnknownModel, error_of
from swarmd.config.settings import Settings
from swarmd.domain.adapters import Adapter
from swarmd.domain.generation import GenerationFailed, GenerationRequest, Usage
from swarmd.domain.ids import ModelId, model_slug, short
from swarmd.domain.refusals import Invalid, Refusal
from swarmd.domain.shards import ModelView
from swarmd.kit.world import Entropy

SEED_BYTES = 4  # llama.cpp seeds its generators with 32 bits

USER_LENGTH = 64  # of the name by which a client tells its users apart; they take turns in the queue

Printer = ChatPrinter | CompletionPrinter


class OpenAiHandlers:
    def __init__(
        self,
        *,
        models: Models,
        generations: Generations,
        settings: Callable[[], Settings],
        entropy: Entropy,
        adapters: Adapters | None = None,
    ) -> None:
        self._adapters = adapters
        self._models, self._generations = models, generations
        self._settings, self._entropy = settings, entropy

    async def chat(self, call: Call) -> Any:
        body: ChatRequest = call.body
        target = self._target(body.model, body.lora_adapter)
        if isinstance(target, Refusal):
            return target
        model, adapter = target
        request = chat_request(body, request=call.request_id, model=model, fresh_seed=self._fresh_seed())
        printer = ChatPrinter(
            id=f"chatcmpl-{call.request_id}", created=int(call.now), model=_name_of(model, adapter),
            include_usage=_wants_usage(body),
        )  # fmt: skip
        if adapter is not None and not isinstance(request, Invalid):
            request = replace(request, adapter=adapter.ref)
        return await self._answer(call, body, request, printer)

    async def complete(self, call: Call) -> Any:
        body: CompletionRequest = call.body
        target = self._target(body.model, body.lora_adapter)
        if isinstance(target, Refusal):
            return target
        model, adapter = target
        request = completion_request(body, request=call.request_id, model=model, fresh_seed=self._fresh_seed())
        printer = CompletionPrinter(
            id=f"cmpl-{call.request_id}", created=int(call.now), model=_name_of(model, adapter),
            include_usage=_wants_usage(body),
        )  # fmt: skip
        if adapter is not None and not isinstance(request, Invalid):
            request = replace(request, adapter=adapter.ref)
        return await self._answer(call, body, request, printer)

    async def models(self, _call: Call) -> ModelList:
        adapters = self._adapters.all() if self._adapters is not None else ()
        cards: list[ModelCard] = []
        for view in self._runnable():
            cards.append(self._card(view))
            cards += [self._card(view, adapter) for adapter in adapters if adapter.base_model == view.model]
        return ModelList(object="list", data=cards)

    async def model(self, call: Call) -> ModelCard | Refusal:
        target = self._target(call.path["id"], None)
        if isinstance(target, UnknownAdapter):
            return target
        view = None if isinstance(target, Refusal) else self._models.view(target[0])
        if isinstance(target, Refusal) or view is None or view.manifest is None:
            return _unknown(call.path["id"])
        return self._card(view, target[1])

    async def _answer(self, call: Call, body: SamplingIn, request: GenerationRequest | Invalid, printer: Printer) -> Any:
        if isinstance(request, Invalid):
            return request
        count = choices(body)
        requests = choices_of(replace(request, client=client_of(call, body.user)), count)
        async with opened(self._generations, requests) as several:
            if isinstance(several, Refusal):
                return several
            headers = {"x-swarm-nodes": ",".join(short(stage.node) for stage in several.plan.stages)}
            if body.stream:
                return await _streamed(call, several, count, printer, headers)
            return await _whole(several, count, printer, headers)

    def _target(self, name: str, wanted: str | None) -> tuple[ModelId, Adapter | None] | Refusal:
        """Model and adapter: of "model:adapter", or with the adapter's id in a field of its own."""
        base, colon, behind = name.rpartition(":")
        if not colon or isinstance(model := self.named(base), Refusal):
            base, behind, model = name, "", self.named(name)
            if isinstance(model, Refusal):
                return model
        if wanted and behind and wanted != behind:
            what = f"model names the adapter {behind[:80]!r} and lora_adapter {wanted[:80]!r}: name one of them"
            return Invalid(what=what, param="lora_adapter")
        id = wanted or behind
        if not id:
            return model, None
        adapter = self._adapters.get(id) if self._adapters is not None else None
        if adapter is None:
            what = f"no LoRA adapter {id[:80]!r} is registered on this node: GET /api/admin/adapters lists those that are"
            return UnknownAdapter(what=what)
        if adapter.base_model != model:
            return Invalid(
                what=f"adapter {id} is of model {adapter.base_model}, not of {model}",
                param="lora_adapter" if wanted else "model",
            )
        return model, adapter

    def named(self, name: str) -> ModelId | Refusal:
        """`auto`, a model id, or the name of the GGUF file it was made from. Never a model with a similar name."""
        if name == "auto":
            return self._automatic()
        try:
            model = model_slug(name)
        except ValueError:
            return _unknown(name)
        return model if self._models.view(model) is not None else _unknown(name)

    def _automatic(self) -> ModelId | Refusal:
        """The configured default; else what runs with the least ado: loaded, then held whole, then over the swarm."""
        default = self._settings().inference.default_model
        if default:
            return self.named(default)
        runnable = self._runnable()
        if not runnable:
            return UnknownModel(what="no model can answer now: add one, or connect nodes that hold the missing shards")
        loaded = [view for view in runnable if any(shard.loaded for shard in view.shards)]
        whole = [view for view in runnable if views.where_from(view) == "local"]
        return (loaded or whole or runnable)[0].model

    def _runnable(self) -> list[ModelView]:
        found = [self._models.view(model) for model in self._models.models()]
        return [view for view in found if view is not None and view.covered and view.architecture_supported]

    def _card(self, view: ModelView, adapter: Adapter | None = None) -> ModelCard:
        assert view.manifest is not None, "only models with a manifest are shown"
        context = min(view.manifest.context_length, self._settings().inference.context_tokens)
        return ModelCard(
            id=_name_of(view.model, adapter),
            object="model",
            created=view.manifest.created_at,
            owned_by=views.where_from(view),
            max_model_len=context,
            context_length=context,
        )

    def _fresh_seed(self) -> int:
        return int.from_bytes(self._entropy.token(SEED_BYTES), "little")


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


def _name_of(model: ModelId, adapter: Adapter | None) -> str:
    """Under which it can be asked for."""
    return model if adapter is None else f"{model}:{adapter.id}"


def _unknown(name: str) -> UnknownModel:
    return UnknownModel(what=f"this node knows no model {name[:256]!r}: GET /v1/models lists those it can answer with")
