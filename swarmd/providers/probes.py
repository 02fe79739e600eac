"""Is a provider there, is a model: asked with the smallest request there is, `max_tokens` 1, which costs one token."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from swarmd.domain.providers import ProviderHealth, ProviderModelStatus, Wire
from swarmd.domain.refusals import ProviderFailed
from swarmd.kit.flow import SingleFlight
from swarmd.kit.world import Clock
from swarmd.providers.known import NEWER_OPENAI
from swarmd.providers.line import DETAIL_LENGTH, PROBE_S, Line, ProviderTrouble, scrubbed, whole
from swarmd.providers.lists import ModelLists
from swarmd.providers.messages_wire import VERSION
from swarmd.providers.naming import Meant, belongs_to
from swarmd.providers.roster import Ready, Roster

REPLY_LIMIT: Final = 1024 * 1024  # bytes of a reply of one token
KEPT_S: Final = 10.0  # a page that is opened twice, or by two people, costs once


class Probes:
    """One per node."""

    def __init__(self, *, roster: Roster, line: Line, lists: ModelLists, clock: Clock) -> None:
        self._roster, self._line, self._lists, self._clock = roster, line, lists, clock
        self._flights = SingleFlight[tuple[str, str], tuple[ProviderHealth, float]]()
        self._kept: dict[str, tuple[str, ProviderHealth, float]] = {}

    async def health(self) -> tuple[ProviderHealth, ...]:
        """Of each provider that has a key or is a custom one, side by side."""
        providers = [one for one in self._roster.ready() if one.custom or one.key]
        self._kept = {one.name: self._kept[one.name] for one in providers if one.name in self._kept}
        return tuple(await asyncio.gather(*(self._health(one) for one in providers)))

    async def model(self, name: str, found: Meant | None) -> ProviderModelStatus | None:
        """None: it is one of Anthropic's, which are not asked after."""
        provider = found.provider if found is not None else None
        if belongs_to(name) == "anthropic" or (provider is not None and provider.known.wire is Wire.ANTHROPIC):
            return None
        if found is None:
            status = "not_found" if belongs_to(name) is None else "unavailable"  # its provider has no key here
            return ProviderModelStatus(model=name, status=status, latency_ms=None)
        failure, latency_ms = await self._asked(found.provider, found.model)
        return ProviderModelStatus(model=name, status=_model_status(failure), latency_ms=latency_ms)

    async def _health(self, provider: Ready) -> ProviderHealth:
        identity = f"{provider.base_url} {hash(provider.key)}"
        kept = self._kept.get(provider.name)
        if kept is not None and kept[0] == identity and self._clock.monotonic() - kept[2] < KEPT_S:
            return kept[1]
        health, at = await self._flights.do((provider.name, identity), lambda: self._fresh(provider))
        self._kept[provider.name] = (identity, health, at)
        return health

    async def _fresh(self, provider: Ready) -> tuple[ProviderHealth, float]:
        failure, latency_ms = await self._first_asked(provider)
        status = _health_status(failure)
        detail = "" if failure is None else scrubbed(failure.what, provider)[:DETAIL_LENGTH]
        health = ProviderHealth(provider=provider.name, status=status, latency_ms=latency_ms, detail=detail)
        return health, self._clock.monotonic()

    async def _first_asked(self, provider: Ready) -> tuple[ProviderFailed | None, int]:
        """A custom one is asked for the model that it lists first."""
        if provider.known.test_model:
            return await self._asked(provider, provider.known.test_model)
        began = self._clock.ticks()
        listed = await self._lists.fetched(provider)
        if isinstance(listed, ProviderFailed):
            return listed, _ms(self._clock.ticks() - began)
        if not listed:
            nothing = ProviderFailed(provider=provider.name, what="lists no model", status=404)
            return nothing, _ms(self._clock.ticks() - began)
        return await self._asked(provider, listed[0].id)

    async def _asked(self, provider: Ready, model: str) -> tuple[ProviderFailed | None, int]:
        """The failure, or None; and how long it took, in milliseconds."""
        anthropic = provider.known.wire is Wire.ANTHROPIC
        limit = "max_tokens"
        if provider.name == "openai" and model.startswith(NEWER_OPENAI):
            limit = provider.known.limit_field
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "hi"}], limit: 1}
        path = "v1/messages" if anthropic else "chat/completions"
        headers = {"anthropic-version": VERSION} if anthropic else {}
        began = self._clock.ticks()
        failure: ProviderFailed | None = None
        try:
            async with self._line.asked(
                provider, path, json.dumps(body).encode(), headers=headers, within_s=PROBE_S
            ) as response:
                await whole(provider, response, limit=REPLY_LIMIT)
        except ProviderTrouble as trouble:
            failure = trouble.refusal
            if failure.status == 400 and "output limit was reached" in failure.what:
                failure = None  # it thought for its one token, so it is there
        return failure, _ms(self._clock.ticks() - began)


def _health_status(failure: ProviderFailed | None) -> str:
    """Contract: swarm_admin_api, "provider-health"."""
    match failure:
        case None:
            return "up"
        case ProviderFailed(unreachable=True):
            return "unreachable"
        case ProviderFailed(code="provider_timeout"):
            return "timeout"
        case ProviderFailed(status=429):
            return "rate_limited"
        case ProviderFailed(status=503 | 529):
            return "overloaded"
        case _:
            return f"error_{failure.status}"


def _model_status(failure: ProviderFailed | None) -> str:
    """Contract: swarm_admin_api, "provider-model-status"."""
    match failure:
        case None:
            return "up"
        case ProviderFailed(code="provider_timeout"):
            return "timeout"
        case ProviderFailed(status=429):
            return "rate_limited"
        case ProviderFailed(status=404) | ProviderFailed(code="model_not_found"):
            return "not_found"
        case _ if failure.unreachable or failure.status >= 500:
            return "unavailable"
        case _:
            return "error"


def _ms(seconds: float) -> int:
    return round(seconds * 1e3)
