"""Which provider a name means."""

from __future__ import annotations

import pytest

from swarmd.providers.known import TWELVE, custom
from swarmd.providers.naming import belongs_to, is_model_id, meant
from swarmd.providers.roster import Ready

MINE = Ready(known=custom("mine", "http://10.0.0.1/v1"), base_url="http://10.0.0.1/v1", key="", custom=True)
ALL = (MINE, *(Ready(known=known, base_url=known.base_url, key="k") for known in TWELVE))
LISTS = {"mine": {"llama-3.3-70b"}, "together": {"meta-llama/Llama-3", "gpt-4o"}, "deepinfra": {"meta-llama/Llama-3"}}


def found(name: str, ready: tuple[Ready, ...] = ALL, *, plain: bool = True) -> tuple[str, str] | None:
    one = meant(name, ready, lambda provider: LISTS.get(provider.name, set()), plain=plain)
    return None if one is None else (one.provider.name, one.model)


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("openai:gpt-4o", "openai", "gpt-4o"),
        ("mine:qwen3:8b", "mine", "qwen3:8b"),
        ("together:meta-llama/Llama-3", "together", "meta-llama/Llama-3"),
        ("meta-llama/Llama-3", "together", "meta-llama/Llama-3"),
        ("gpt-4o", "together", "gpt-4o"),
        ("llama-3.3-70b", "mine", "llama-3.3-70b"),
        ("claude-sonnet-4-6", "anthropic", "claude-sonnet-4-6"),
        ("gpt-5", "openai", "gpt-5"),
        ("o1", "openai", "o1"),
        ("o3-mini", "openai", "o3-mini"),
        ("deepseek-chat", "deepseek", "deepseek-chat"),
        ("codestral-latest", "mistral", "codestral-latest"),
        ("pixtral-12b", "mistral", "pixtral-12b"),
        ("llama-3.1-8b-instant", "groq", "llama-3.1-8b-instant"),
        ("groq-qwen3", "groq", "qwen3"),
        ("nim-nemotron", "nvidia_nim", "nemotron"),
        ("cerebras-llama3.1-8b", "cerebras", "llama3.1-8b"),
        ("samba-DeepSeek-R1", "sambanova", "DeepSeek-R1"),
        ("fireworks-x", "fireworks", "x"),
        ("together-x", "together", "x"),
        ("deepinfra-x", "deepinfra", "x"),
        ("kimi-k2", "moonshot", "kimi-k2"),
        ("moonshot-v1-8k", "moonshot", "moonshot-v1-8k"),
    ],
)
def test_names(name: str, provider: str, model: str) -> None:
    assert found(name) == (provider, model)


@pytest.mark.parametrize(
    "name", ["qwen3-8b", "o12", "gpt", "nobody:gpt-4o", "openai:", "groq-", "auto", "a b", "", "x/../y", "x" * 300]
)
def test_names_that_mean_nobody(name: str) -> None:
    assert found(name) is None


def test_who_cannot_be_asked_is_not_meant() -> None:
    assert found("gpt-4o", (MINE,)) is None
    assert found("openai:gpt-4o", (MINE,)) is None


def test_plain_names_can_be_switched_off() -> None:
    assert found("gpt-4o", plain=False) is None
    assert found("meta-llama/Llama-3", plain=False) is None
    assert found("openai:gpt-4o", plain=False) == ("openai", "gpt-4o")


def test_whose_a_name_is() -> None:
    assert [belongs_to(name) for name in ("claude-x", "anthropic:claude-x", "groq-y", "mine:x", "tiny")] == [
        "anthropic", "anthropic", "groq", None, None,
    ]  # fmt: skip


def test_ids() -> None:
    assert all(map(is_model_id, ("gpt-4o", "accounts/f/models/x", "@cf/a/b", "qwen3:8b", "a+b")))
    assert not any(map(is_model_id, ("", "a b", "../x", "a\n", "é", "a//b", "-x", "x" * 257, "a?b", "a\\b")))


@pytest.mark.parametrize("name", ["openai:-x", "anthropic:--model", "groq--x"])
def test_what_stands_behind_the_provider_is_a_name_too(name: str) -> None:
    """It becomes an argument of a program, where a dash would begin an option."""
    assert found(name, plain=False) is None
    assert found(name) is None
    assert found("mine:/models/a.gguf") == ("mine", "/models/a.gguf")
