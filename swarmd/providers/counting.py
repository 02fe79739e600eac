"""How requests to providers ended, by provider, for `/metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Final, Protocol, Self

from swarmd.domain.generation import GenerationFailed, TokenChunk
from swarmd.domain.plans import PipelinePlan
from swarmd.domain.refusals import ProviderFailed, Refusal

NAMES_LIMIT: Final = 64  # with figures of their own; custom ones come and go, and later ones share one entry
OTHER: Final = "other"
ANSWERED, LIMITED, REFUSED, FAILED, CANCELLED = "answered", "limited", "refused", "failed", "cancelled"
OUTCOMES: Final = (ANSWERED, LIMITED, REFUSED, FAILED, CANCELLED)
"""`limited`: 429 or 529, come back later; `refused`: another status below 500; `failed`: one above, or no whole answer;
`cancelled`: the client went."""


class Counts:
    """One per node. Plain numbers since its start."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}

    @property
    def by_provider(self) -> Mapping[str, Mapping[str, int]]:
        return self._counts

    def add(self, provider: str, outcome: str) -> None:
        if provider not in self._counts and len(self._counts) >= NAMES_LIMIT:
            provider = OTHER
        self._counts.setdefault(provider, dict.fromkeys(OUTCOMES, 0))[outcome] += 1

    def refused(self, provider: str, refusal: Refusal) -> None:
        """Of what the provider said. What it was never asked, since it could not be, is no request to it."""
        if isinstance(refusal, ProviderFailed):
            self.add(provider, outcome_of(refusal))


def outcome_of(refusal: ProviderFailed) -> str:
    if refusal.status in (429, 529):
        return LIMITED
    return REFUSED if refusal.status < 500 else FAILED


class _Reply(Protocol):
    plan: PipelinePlan
    prompt_tokens: int
    cached_tokens: int

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    async def __anext__(self) -> TokenChunk: ...


class Counted:
    """A reply whose end is counted."""

    def __init__(self, reply: _Reply, provider: str, counts: Counts) -> None:
        self._reply, self._provider, self._counts = reply, provider, counts
        self.plan = reply.plan
        self.prompt_tokens, self.cached_tokens = reply.prompt_tokens, reply.cached_tokens
        self._outcome = CANCELLED

    async def __aenter__(self) -> Self:
        await self._reply.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._counts.add(self._provider, self._outcome)
        await self._reply.__aexit__(kind, error, trace)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenChunk:
        """Raises what the reply raises."""
        try:
            chunk = await anext(self._reply)
        except GenerationFailed as failure:
            said = failure.refusal
            self._outcome = outcome_of(said) if isinstance(said, ProviderFailed) else FAILED
            raise
        if chunk.finish is not None:
            self._outcome = ANSWERED
        return chunk
