"""Provider endpoints as clients see them."""

from __future__ import annotations

import json

import pytest

from swarmd.domain.providers import (
    CustomProvider,
    KeySource,
    Provider,
    ProviderChange,
    ProviderHealth,
    ProviderModel,
    ProviderView,
    Wire,
)
from swarmd.domain.refusals import Invalid
from tests.fakes.rim import Rim, keyed

NAMES = ["anthropic", "openai", "deepseek", "mistral", "groq", "nvidia_nim", "cerebras", "sambanova", "fireworks",
         "together", "deepinfra", "moonshot"]  # fmt: skip
SECRET = "sk-0123456789abcdef"


async def test_the_list_has_no_key_in_it(rim: Rim) -> None:
    async with rim.client(**keyed()) as client:
        changed = await client.put("/api/admin/providers", json={"openai_key": SECRET, "key_source": "dashboard"})
        body = await changed.json()
        assert body == {"status": "ok", **{name: name == "openai" for name in NAMES}}
        listed = await (await client.get("/api/admin/providers")).json()
    assert [row["name"] for row in listed["providers"]] == NAMES
    assert listed["providers"][1] == {
        "name": "openai", "configured": True, "source": "config", "auth_type": "bearer", "custom": False,
        "base_url": "https://api.openai.com/v1",
    }  # fmt: skip
    assert (listed["key_source"], listed["claude_subscription_enabled"]) == ("dashboard", False)
    assert SECRET not in json.dumps([body, listed])
    assert rim.providers.changes == [ProviderChange(keys=(("openai", SECRET),), key_source=KeySource.DASHBOARD)]


async def test_everything_that_can_be_changed_at_once(rim: Rim) -> None:
    body = {
        "groq_key": "", "custom": [{"name": "mine", "base_url": "http://10.0.0.1/v1", "key": "k"}], "remove_custom": ["old"],
    }  # fmt: skip
    async with rim.client(**keyed()) as client:
        assert (await client.put("/api/admin/providers", json=body)).status == 200
    (change,) = rim.providers.changes
    assert change.keys == (("groq", ""),) and change.removed == ("old",)
    assert change.custom == (CustomProvider(name="mine", base_url="http://10.0.0.1/v1", key="k"),)


@pytest.mark.parametrize(
    "body",
    [{}, {"nothing_key": "x"}, {"key_source": "file"}, {"openai_key": 5}, {"openai_key": "x" * 600}, {"custom": [{}]}],
)
async def test_bad_changes(rim: Rim, body: object) -> None:
    async with rim.client(**keyed()) as client:
        answered = await client.put("/api/admin/providers", json=body)
        assert answered.status == 400
        assert (await answered.json())["error"]["type"] == "invalid_request_error"
    assert rim.providers.changes == []


async def test_a_refusal_names_the_field(rim: Rim) -> None:
    rim.providers.says = Invalid(what="no", param="groq_key")
    async with rim.client(**keyed()) as client:
        answered = await client.put("/api/admin/providers", json={"groq_key": "x" * 20})
        assert (answered.status, (await answered.json())["error"]["param"]) == (400, "groq_key")


async def test_the_subscription_is_gated_as_the_seed_says(rim: Rim) -> None:
    off = {"error": "claude-subscription feature not enabled"}
    async with rim.client(**keyed()) as client:
        answered = await client.get("/api/admin/claude-subscription/status")
        assert (answered.status, await answered.json()) == (200, off)
        answered = await client.put("/api/admin/providers", json={"claude_subscription_enabled": True, "groq_key": "x" * 20})
        assert (answered.status, await answered.json()) == (200, off)
        assert rim.providers.changes == [], "nothing of it was done"
        assert (await client.put("/api/admin/providers", json={"claude_subscription_enabled": False})).status == 200
        rim.set("providers.claude_subscription", True)
        assert await (await client.get("/api/admin/claude-subscription/status")).json() == {
            "cli_installed": True, "cli_version": "2.1.92 (Claude Code)", "authenticated": True,
            "subscription_type": "max", "rate_limit_tier": "default_claude_max_5x",
        }  # fmt: skip
        changed = await client.put("/api/admin/providers", json={"claude_subscription_enabled": True})
        assert (await changed.json())["status"] == "ok"
        listed = await (await client.get("/api/admin/providers")).json()
        assert listed["claude_subscription_enabled"] is True


async def test_models_health_and_status(rim: Rim) -> None:
    rim.providers.listed = [ProviderModel(id="gpt-4o", name="GPT-4o", provider="openai", context_length=128_000)]
    rim.providers.healths = [ProviderHealth(provider="openai", status="up", latency_ms=320, detail="")]
    rim.providers.keys = {"openai"}
    provider = Provider(name="mine", base_url="http://10.0.0.1/v1", wire=Wire.OPENAI, custom=True)
    rim.providers.custom = [ProviderView(provider=provider, configured=True, source="none", auth_type="none")]
    async with rim.client(**keyed()) as client:
        assert await (await client.get("/api/admin/provider-models")).json() == {
            "models": [{"id": "gpt-4o", "name": "GPT-4o", "provider": "openai"}]
        }
        assert await (await client.get("/api/admin/provider-health")).json() == {
            "providers": [{"provider": "openai", "status": "up", "latency_ms": 320, "detail": ""}]
        }
        answered = await client.post("/api/admin/provider-model-status", json={"models": ["a", "b", "a"]})
        assert await answered.json() == {
            "models": [{"model": name, "status": "not_found", "latency_ms": None} for name in ("a", "b")]
        }
        cards = await (await client.get("/v1/providers")).json()
        assert cards == [{"name": "openai", "models": ["gpt-4o"]}, {"name": "mine", "models": []}]


async def test_probing_without_a_key_is_rare(rim: Rim) -> None:
    async with rim.client() as client:
        statuses = [
            (await client.post("/api/admin/provider-model-status", json={"models": ["a"]})).status for _ in range(6)
        ]
        assert statuses == [200] * 5 + [429]
        answered = await client.post("/api/admin/provider-model-status", json={"models": ["a"]}, headers=keyed())
        assert answered.status == 200
        for bad in ({"models": ["x"] * 21}, {}, {"models": [5]}):
            answered = await client.post("/api/admin/provider-model-status", json=bad, headers=keyed())
            assert answered.status == 400
