"""Who answers what a dialect has parsed: the swarm, for the model and adapter that the client named, or a provider.

Every dialect is a parser in front of `Answers.opened` and a printer behind it. Another source of replies is a further kind
of target and a branch here; parsers and printers do not learn of it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from swarmd.api.choices import Choices, choices_of, opened
from swarmd.api.ports import Generation, Generations, ProviderRoads
from swarmd.api.targets import Target
from swarmd.domain.generation import GenerationRequest
from swarmd.domain.ids import short
from swarmd.domain.plans import PipelinePlan
from swarmd.domain.refusals import Invalid, Refusal


def source_headers(target: Target, plan: PipelinePlan | None) -> dict[str, str]:
    """Who answers, for the head of a reply in whatever dialect. `plan`: None where it is not known yet."""
    if target.provider is not None:
        return {"x-swarm-provider": target.provider.name}
    return {} if plan is None else {"x-swarm-nodes": ",".join(short(stage.node) for stage in plan.stages)}


class Answers:
    def __init__(self, generations: Generations, providers: ProviderRoads | None = None) -> None:
        self._generations, self._providers = generations, providers

    async def counted(self, target: Target, request: GenerationRequest) -> int | Refusal:
        """Tokens of the prompt, exactly as `opened` would count them. An adapter changes none."""
        if target.provider is not None:
            what = f"provider {target.provider.name} does not say how many tokens a prompt has"
            return Invalid(what=what, param="model")
        return await self._generations.count_tokens(request)

    def opened(
        self, target: Target, request: GenerationRequest, count: int = 1
    ) -> AbstractAsyncContextManager[Choices | Refusal]:
        """`count` replies to one request. They run within the block; leaving it, cancelled or not, ends them."""
        if target.provider is not None:
            assert self._providers is not None, "targets of providers come from those providers"
            return opened(_Road(self._providers, target.provider.name), choices_of(request, count))
        if target.adapter is not None:
            request = replace(request, adapter=target.adapter.ref)
        return opened(self._generations, choices_of(request, count))


class _Road:
    """A provider as a source of replies, as `choices.opened` asks for one."""

    def __init__(self, providers: ProviderRoads, provider: str) -> None:
        self._providers, self._provider = providers, provider

    def open(self, request: GenerationRequest) -> Awaitable[Generation | Refusal]:
        return self._providers.open(self._provider, request)
