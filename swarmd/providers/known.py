"""The twelve providers of the contract: where they are, what they speak, and what differs between them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from swarmd.config.settings import ProvidersSettings
from swarmd.domain.providers import ProviderModel, Service, Wire

CHAT_ONLY: Final = frozenset({Service.CHAT})
WITH_EMBEDDINGS: Final = CHAT_ONLY | {Service.EMBEDDINGS}
ALL_OPENAI: Final = WITH_EMBEDDINGS | {Service.COMPLETIONS}
MESSAGES: Final = frozenset({Service.MESSAGES, Service.COUNT_TOKENS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One of the twelve, or what holds for all custom ones."""

    name: str
    base_url: str
    environment: tuple[str, ...]
    """Variables that may hold its key, the first one that is set counts."""
    test_model: str
    """Small and cheap, for probes."""
    chosen_url: Callable[[ProvidersSettings], str] = lambda _: ""
    """The address that the settings give it; empty: none."""
    prefixes: tuple[str, ...] = ()
    """Names of models that begin so are its."""
    brands: tuple[str, ...] = ()
    """As `prefixes`, but taken off: the provider does not know them."""
    wire: Wire = Wire.OPENAI
    services: frozenset[Service] = CHAT_ONLY
    usage_option: bool = True
    """It takes `stream_options.include_usage`; who does not says the usage anyway."""
    seed_field: str = "seed"
    limit_field: str = "max_tokens"
    """Of a chat, for the number of tokens."""

    @property
    def key_header(self) -> str:
        return "x-api-key" if self.wire is Wire.ANTHROPIC else "authorization"


TWELVE: Final[tuple[Known, ...]] = (
    Known(
        name="anthropic", base_url="https://api.anthropic.com", chosen_url=lambda s: s.anthropic_url,
        environment=("ANTHROPIC_API_KEY",),
        test_model="claude-haiku-4-5", prefixes=("claude-",), wire=Wire.ANTHROPIC, services=MESSAGES,
    ),
    Known(
        name="openai", base_url="https://api.openai.com/v1", chosen_url=lambda s: s.openai_url,
        environment=("OPENAI_API_KEY",), test_model="gpt-4o-mini", prefixes=("gpt-", "o1", "o3", "o4"),
        services=ALL_OPENAI, limit_field="max_completion_tokens",
    ),
    Known(
        name="deepseek", base_url="https://api.deepseek.com", chosen_url=lambda s: s.deepseek_url,
        environment=("DEEPSEEK_API_KEY",), test_model="deepseek-chat", prefixes=("deepseek-",),
    ),
    Known(
        name="mistral", base_url="https://api.mistral.ai/v1", chosen_url=lambda s: s.mistral_url,
        environment=("MISTRAL_API_KEY",),
        test_model="mistral-small-latest", prefixes=("mistral-", "codestral-", "pixtral-"), services=WITH_EMBEDDINGS,
        usage_option=False, seed_field="random_seed",  # it refuses fields that it does not know
    ),
    Known(
        name="groq", base_url="https://api.groq.com/openai/v1", chosen_url=lambda s: s.groq_url,
        environment=("GROQ_API_KEY",), test_model="llama-3.1-8b-instant", prefixes=("llama-",), brands=("groq-",),
    ),
    Known(
        name="nvidia_nim", base_url="https://integrate.api.nvidia.com/v1", chosen_url=lambda s: s.nvidia_nim_url,
        environment=("NVIDIA_NIM_API_KEY", "NVIDIA_API_KEY"),
        test_model="meta/llama-3.1-8b-instruct", brands=("nim-",), services=ALL_OPENAI,
    ),
    Known(
        name="cerebras", base_url="https://api.cerebras.ai/v1", chosen_url=lambda s: s.cerebras_url,
        environment=("CEREBRAS_API_KEY",), test_model="llama3.1-8b", brands=("cerebras-",),
        services=CHAT_ONLY | {Service.COMPLETIONS},
    ),
    Known(
        name="sambanova", base_url="https://api.sambanova.ai/v1", chosen_url=lambda s: s.sambanova_url,
        environment=("SAMBANOVA_API_KEY",),
        test_model="Meta-Llama-3.1-8B-Instruct", brands=("samba-",), services=WITH_EMBEDDINGS,
    ),
    Known(
        name="fireworks", base_url="https://api.fireworks.ai/inference/v1", chosen_url=lambda s: s.fireworks_url,
        environment=("FIREWORKS_API_KEY",),
        test_model="accounts/fireworks/models/llama-v3p1-8b-instruct", brands=("fireworks-",), services=ALL_OPENAI,
    ),
    Known(
        name="together", base_url="https://api.together.xyz/v1", chosen_url=lambda s: s.together_url,
        environment=("TOGETHER_API_KEY",),
        test_model="meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo", brands=("together-",), services=ALL_OPENAI,
    ),
    Known(
        name="deepinfra", base_url="https://api.deepinfra.com/v1/openai", chosen_url=lambda s: s.deepinfra_url,
        environment=("DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"),
        test_model="meta-llama/Meta-Llama-3.1-8B-Instruct", brands=("deepinfra-",), services=ALL_OPENAI,
    ),
    Known(
        name="moonshot", base_url="https://api.moonshot.ai/v1", chosen_url=lambda s: s.moonshot_url,
        environment=("MOONSHOT_API_KEY", "KIMI_API_KEY"), test_model="moonshot-v1-8k", prefixes=("moonshot-", "kimi-"),
    ),
)  # fmt: skip

BY_NAME: Final[Mapping[str, Known]] = {known.name: known for known in TWELVE}

ANTHROPIC_MODELS: Final = tuple(
    ProviderModel(id=id, name=name, provider="anthropic")
    for id, name in (
        ("claude-opus-4-7", "Claude Opus 4.7"),
        ("claude-opus-4-6", "Claude Opus 4.6"),
        ("claude-opus-4-5", "Claude Opus 4.5"),
        ("claude-opus-4-1", "Claude Opus 4.1"),
        ("claude-sonnet-4-6", "Claude Sonnet 4.6"),
        ("claude-sonnet-4-5", "Claude Sonnet 4.5"),
        ("claude-haiku-4-5", "Claude Haiku 4.5"),
    )
)
"""Contract: Anthropic's list is a static one. Others that begin with `claude-` can be asked for all the same."""

NEWER_OPENAI: Final = ("o1", "o3", "o4", "gpt-5")
"""OpenAI's models that think before they answer, which refuse `max_tokens` and a temperature."""


def custom(name: str, base_url: str) -> Known:
    """Which model to probe is what it lists first."""
    return Known(name=name, base_url=base_url, environment=(), test_model="", services=ALL_OPENAI)
