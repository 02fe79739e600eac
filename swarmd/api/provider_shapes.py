"""Bodies of the provider endpoints. Contract: swarm_admin_api "Cloud Providers", swarmllm.md 2.6; what is ours says so."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

KeyText = Annotated[str, Meta(max_length=512)]
ModelText = Annotated[str, Meta(min_length=1, max_length=256)]
MODELS_LIMIT = 20  # contract: swarm_admin_api "provider-model-status"


class ProviderRow(Struct, frozen=True, kw_only=True):
    name: str
    configured: bool
    source: str
    """`env`, `config`, or `none`."""
    auth_type: str
    """`bearer`, `x-api-key`, or `none` of a custom one without a key."""
    custom: bool
    """Ours, as the next: added by the owner."""
    base_url: str


class ProviderList(Struct, frozen=True, kw_only=True):
    providers: list[ProviderRow]
    key_source: str
    """`auto`, `env` or `dashboard`."""
    claude_subscription_enabled: bool
    """Ours: as it was switched; in force only while the feature is on."""


class CustomIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    base_url: Annotated[str, Meta(min_length=1, max_length=2048)]
    """With `/v1` where the server has its API there."""
    key: KeyText | None = None
    """Left out: the one it has stays, unless its address changes; empty: none."""


class ProvidersRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Any subset. An empty key removes the one that is there. The last two are ours."""

    anthropic_key: KeyText | None = None
    openai_key: KeyText | None = None
    deepseek_key: KeyText | None = None
    mistral_key: KeyText | None = None
    groq_key: KeyText | None = None
    nvidia_nim_key: KeyText | None = None
    cerebras_key: KeyText | None = None
    sambanova_key: KeyText | None = None
    fireworks_key: KeyText | None = None
    together_key: KeyText | None = None
    deepinfra_key: KeyText | None = None
    moonshot_key: KeyText | None = None
    key_source: Literal["auto", "env", "dashboard"] | None = None
    claude_subscription_enabled: bool | None = None
    custom: Annotated[list[CustomIn], Meta(max_length=64)] | None = None
    """To add, or to change."""
    remove_custom: Annotated[list[str], Meta(max_length=64)] | None = None
    """Names of custom ones."""


class ProvidersChanged(Struct, frozen=True, kw_only=True):
    """Whether each has a key now, from wherever."""

    status: str
    anthropic: bool
    openai: bool
    deepseek: bool
    mistral: bool
    groq: bool
    nvidia_nim: bool
    cerebras: bool
    sambanova: bool
    fireworks: bool
    together: bool
    deepinfra: bool
    moonshot: bool


class FeatureOff(Struct, frozen=True, kw_only=True):
    error: str


class ProviderModelRow(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    provider: str


class ProviderModelList(Struct, frozen=True, kw_only=True):
    models: list[ProviderModelRow]


class HealthRow(Struct, frozen=True, kw_only=True):
    provider: str
    status: str
    """`up`, `rate_limited`, `overloaded`, `timeout`, `unreachable` or `error_<code>`."""
    latency_ms: int
    detail: str
    """At most 100 characters; empty when it is up."""


class HealthList(Struct, frozen=True, kw_only=True):
    providers: list[HealthRow]


class ModelStatusRequest(Struct, frozen=True, kw_only=True):
    models: Annotated[list[ModelText], Meta(max_length=MODELS_LIMIT)]


class ModelStatusRow(Struct, frozen=True, kw_only=True):
    model: str
    status: str
    """`up`, `rate_limited`, `not_found`, `unavailable`, `timeout` or `error`."""
    latency_ms: int | None
    """null: nobody was asked."""


class ModelStatusList(Struct, frozen=True, kw_only=True):
    models: list[ModelStatusRow]


class SubscriptionView(Struct, frozen=True, kw_only=True):
    cli_installed: bool
    cli_version: str | None
    authenticated: bool
    subscription_type: str | None
    rate_limit_tier: str | None


class ProviderCard(Struct, frozen=True, kw_only=True):
    """Of `GET /v1/providers`."""

    name: str
    models: list[str]
