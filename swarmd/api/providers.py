"""Providers over HTTP: their keys go in and never come out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from swarmd.api.calls import Call
from swarmd.api.limits import RateLimit
from swarmd.api.ports import ProviderDesk
from swarmd.api.provider_shapes import (
    FeatureOff,
    HealthList,
    HealthRow,
    ModelStatusList,
    ModelStatusRequest,
    ModelStatusRow,
    ProviderCard,
    ProviderList,
    ProviderModelList,
    ProviderModelRow,
    ProviderRow,
    ProvidersChanged,
    ProvidersRequest,
    SubscriptionView,
)
from swarmd.api.replies import TooManyRequests
from swarmd.config.settings import Settings
from swarmd.domain.providers import CustomProvider, KeySource, ProviderChange
from swarmd.domain.refusals import Invalid, Refusal
from swarmd.kit.world import Clock

FEATURE_OFF = FeatureOff(error="claude-subscription feature not enabled")  # contract: swarm_admin_api
PROBES_PER_MINUTE = 5  # contract: swarmllm.md 2.0; each may cost twenty requests, and needs no key

_KEYS = tuple(name for name in ProvidersRequest.__struct_fields__ if name.endswith("_key"))


class ProviderHandlers:
    def __init__(self, *, desk: ProviderDesk, settings: Callable[[], Settings], clock: Clock) -> None:
        self._desk, self._settings = desk, settings
        self._limit = RateLimit(clock=clock)

    async def providers(self, _call: Call) -> ProviderList:
        rows = [
            ProviderRow(
                name=view.provider.name, configured=view.configured, source=view.source, auth_type=view.auth_type,
                custom=view.provider.custom, base_url=view.provider.base_url,
            )
            for view in self._desk.views()
        ]  # fmt: skip
        return ProviderList(
            providers=rows,
            key_source=self._desk.key_source.value,
            claude_subscription_enabled=self._desk.subscription_chosen,
        )

    async def change(self, call: Call) -> ProvidersChanged | FeatureOff | Refusal:
        body: ProvidersRequest = call.body
        change = change_of(body)
        if change == ProviderChange():
            known = ", ".join(ProvidersRequest.__struct_fields__)
            return Invalid(what=f"the body has none of the fields that can be changed: {known}")
        if change.subscription and not self._settings().providers.claude_subscription:
            return FEATURE_OFF
        refusal = await self._desk.change(change)
        if refusal is not None:
            return refusal
        configured = {view.provider.name: view.configured for view in self._desk.views() if not view.provider.custom}
        return ProvidersChanged(status="ok", **configured)

    async def models(self, _call: Call) -> ProviderModelList:
        return ProviderModelList(
            models=[ProviderModelRow(id=one.id, name=one.name, provider=one.provider) for one in await self._desk.models()]
        )

    async def health(self, _call: Call) -> HealthList:
        return HealthList(providers=[HealthRow(**dataclasses.asdict(one)) for one in await self._desk.health()])

    async def model_status(self, call: Call) -> ModelStatusList | Refusal:
        if not call.caller.keyed:
            wait_s = self._limit.wait_s(call.caller.address, per_minute=PROBES_PER_MINUTE)
            if wait_s is not None:
                return TooManyRequests(retry_after_s=wait_s)
        body: ModelStatusRequest = call.body
        found = await self._desk.model_status(list(dict.fromkeys(body.models)))
        if isinstance(found, Refusal):
            return found
        return ModelStatusList(models=[ModelStatusRow(**dataclasses.asdict(one)) for one in found])

    async def subscription(self, _call: Call) -> SubscriptionView | FeatureOff:
        if not self._settings().providers.claude_subscription:
            return FEATURE_OFF
        return SubscriptionView(**dataclasses.asdict(await self._desk.subscription()))

    async def cards(self, _call: Call) -> list[ProviderCard]:
        """Of `GET /v1/providers`: those that can be asked."""
        models = await self._desk.models()
        return [
            ProviderCard(name=name, models=[model.id for model in models if model.provider == name])
            for name in (view.provider.name for view in self._desk.views() if view.configured)
        ]


def change_of(body: ProvidersRequest) -> ProviderChange:
    return ProviderChange(
        keys=tuple((name.removesuffix("_key"), key.strip()) for name in _KEYS if (key := getattr(body, name)) is not None),
        custom=tuple(CustomProvider(name=one.name, base_url=one.base_url, key=one.key) for one in body.custom or ()),
        removed=tuple(dict.fromkeys(body.remove_custom or ())),
        key_source=None if body.key_source is None else KeySource(body.key_source),
        subscription=body.claude_subscription_enabled,
    )
