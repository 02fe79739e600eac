"""As `providers.desk.Providers`, of a node whose owner gave it no keys: the twelve are there, and nobody can be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from swarmd.domain.generation import GenerationRequest
from swarmd.domain.providers import (
    KeySource,
    Provider,
    ProviderChange,
    ProviderHealth,
    ProviderModel,
    ProviderModelStatus,
    ProviderView,
    Service,
    Subscription,
)
from swarmd.domain.refusals import NotFound, Refusal
from swarmd.providers.counting import Counts
from swarmd.providers.known import TWELVE


class FakeProviders:
    def __init__(self) -> None:
        self.key_source = KeySource.AUTO
        self.subscription_chosen = False
        self.changes: list[ProviderChange] = []
        self.keys: set[str] = set()
        self.custom: list[ProviderView] = []
        self.says: Refusal | None = None
        self.healths: list[ProviderHealth] = []
        self.listed: list[ProviderModel] = []
        self.counts = Counts()

    def views(self) -> tuple[ProviderView, ...]:
        rows = [
            ProviderView(
                provider=Provider(name=known.name, base_url=known.base_url, wire=known.wire, custom=False),
                configured=known.name in self.keys, source="config" if known.name in self.keys else "none",
                auth_type="bearer" if known.key_header == "authorization" else "x-api-key",
            )
            for known in TWELVE
        ]  # fmt: skip
        return (*rows, *self.custom)

    def ready(self) -> tuple[Provider, ...]:
        return tuple(view.provider for view in self.views() if view.configured)

    async def change(self, change: ProviderChange) -> Refusal | None:
        self.changes.append(change)
        if self.says is not None:
            return self.says
        for name, key in change.keys:
            (self.keys.add if key else self.keys.discard)(name)
        self.key_source = change.key_source or self.key_source
        self.subscription_chosen = self.subscription_chosen if change.subscription is None else change.subscription
        return None

    async def models(self) -> tuple[ProviderModel, ...]:
        return tuple(self.listed)

    async def health(self) -> tuple[ProviderHealth, ...]:
        return tuple(self.healths)

    async def model_status(self, names: Sequence[str]) -> tuple[ProviderModelStatus, ...] | Refusal:
        return self.says or tuple(ProviderModelStatus(model=name, status="not_found", latency_ms=None) for name in names)

    async def subscription(self) -> Subscription:
        return Subscription(
            cli_installed=True, cli_version="2.1.92 (Claude Code)", authenticated=True, subscription_type="max",
            rate_limit_tier="default_claude_max_5x",
        )  # fmt: skip

    def find(self, name: str) -> tuple[Provider, str] | None:
        return None

    def serves(self, provider: Provider, service: Service) -> bool:
        return False

    async def open(self, provider: str, request: GenerationRequest) -> Refusal:
        return NotFound(what=f"there is no provider {provider}")

    def passed_on(
        self, provider: str, service: Service, body: bytes, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[Any]:
        raise AssertionError("no target is a provider's")
