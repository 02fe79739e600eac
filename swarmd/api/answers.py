"""Who answers what a dialect has parsed: the swarm, for the model and adapter that the client named.

Every dialect is a parser in front of `Answers.opened` and a printer behind it. Another source of replies is a further kind
of target and a branch here; parsers and printers do not learn of it.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from swarmd.api.choices import Choices, choices_of, opened
from swarmd.api.ports import Generations
from swarmd.api.targets import Target
from swarmd.domain.generation import GenerationRequest
from swarmd.domain.refusals import Refusal


class Answers:
    def __init__(self, generations: Generations) -> None:
        self._generations = generations

    async def counted(self, target: Target, request: GenerationRequest) -> int | Refusal:
        """Tokens of the prompt, exactly as `opened` would count them. An adapter changes none."""
        del target
        return await self._generations.count_tokens(request)

    def opened(
        self, target: Target, request: GenerationRequest, count: int = 1
    ) -> AbstractAsyncContextManager[Choices | Refusal]:
        """`count` replies to one request. They run within the block; leaving it, cancelled or not, ends them."""
        if target.adapter is not None:
            request = replace(request, adapter=target.adapter.ref)
        return opened(self._generations, choices_of(request, count))
