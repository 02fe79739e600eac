"""Servers of others that answer in place of the swarm: what is known of one, and how it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Wire(Enum):
    """The dialect a provider speaks."""

    OPENAI = "openai"
    """`/chat/completions`, and what else of OpenAI's contract it has."""
    ANTHROPIC = "anthropic"
    """`/v1/messages`."""


class Service(Enum):
    """What of its dialect a provider may be asked for; values are the paths below its address."""

    CHAT = "chat/completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    MESSAGES = "v1/messages"
    COUNT_TOKENS = "v1/messages/count_tokens"


class KeySource(Enum):
    """Which keys count."""

    AUTO = "auto"
    """Those given to this node before those of its environment."""
    ENV = "env"
    """Those of the environment alone."""
    DASHBOARD = "dashboard"
    """Those given to this node alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One that can be asked."""

    name: str
    base_url: str
    """Without a slash at the end."""
    wire: Wire
    custom: bool
    """The owner added it; else it is one of the twelve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderView:
    """One of the twelve or a custom one, with what is known of its key, and never the key."""

    provider: Provider
    configured: bool
    source: str
    """Where the key comes from: `env`, `config` or `none`."""
    auth_type: str
    """`bearer`, `x-api-key`, or `none` of a custom one without a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderModel:
    id: str
    """As the provider calls it."""
    name: str
    """For people."""
    provider: str
    context_length: int | None = None
    created: int = 0
    """Unix seconds; 0: it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderHealth:
    provider: str
    status: str
    """`up`, `rate_limited`, `overloaded`, `timeout`, `unreachable` or `error_<code>`."""
    latency_ms: int
    detail: str
    """Scrubbed, at most 100 characters; empty when it is up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderModelStatus:
    model: str
    """As it was asked for."""
    status: str
    """`up`, `rate_limited`, `not_found`, `unavailable`, `timeout` or `error`."""
    latency_ms: int | None
    """None: nobody was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomProvider:
    """One that the owner adds."""

    name: str
    base_url: str
    key: str | None = None
    """None: the one it has stays; empty: none from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderChange:
    """All of it is done or nothing."""

    keys: tuple[tuple[str, str], ...] = ()
    """Name of one of the twelve, and its key; an empty one removes it."""
    custom: tuple[CustomProvider, ...] = ()
    removed: tuple[str, ...] = ()
    """Names of custom ones."""
    key_source: KeySource | None = None
    subscription: bool | None = None
    """Whether `claude-*` goes through the local `claude` program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What is found of the `claude` program on this machine."""

    cli_installed: bool
    cli_version: str | None
    authenticated: bool
    subscription_type: str | None
    rate_limit_tier: str | None
