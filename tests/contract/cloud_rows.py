"""The seed's "Cloud Providers", "Claude Subscription" and "Responses API listing"; fields from swarmllm.md 2.6 and 2.9."""

from __future__ import annotations

from tests.contract.row import KEY, LOCAL_READ, READ, Refused, Row

NAMES = (
    "anthropic", "openai", "deepseek", "mistral", "groq", "nvidia_nim", "cerebras", "sambanova", "fireworks", "together",
    "deepinfra", "moonshot",
)  # fmt: skip
HEALTH = "=up|=rate_limited|=overloaded|=timeout|=unreachable"  # and error_<code>, which tests/api/test_providers.py has
MODEL_STATUS = "=up|=rate_limited|=not_found|=unavailable|=timeout|=error"
SUBSCRIPTION = {
    "cli_installed": "bool", "cli_version": "str|null", "authenticated": "bool", "subscription_type": "str|null",
    "rate_limit_tier": "str|null",
}  # fmt: skip
RESPONSE = {
    "id": "str", "created_at": "int", "expires_at": "int|null", "model": "str",
    "status": "=queued|=in_progress|=completed|=failed|=cancelled|=incomplete", "background": "bool", "live": "bool",
    "input_preview": "str|null", "output_text_preview": "str|null",
    "usage": ("null", {"input_tokens": "int", "output_tokens": "int"}),
}  # fmt: skip

PROVIDERS = (
    Row(
        method="GET", path="/api/admin/providers", access=READ, live=True,
        reply={
            "providers": [
                {
                    "name": "str", "configured": "bool", "source": "=env|=config|=none", "auth_type": "str",
                    "custom": "bool", "base_url": "str",  # ours
                }
            ],
            "key_source": "=auto|=env|=dashboard",
            "claude_subscription_enabled": "bool",  # ours
        },
    ),
    Row(
        method="PUT", path="/api/admin/providers", access=KEY, body={"openai_key": "sk-test-0123"},
        reply={"status": "=ok", **dict.fromkeys(NAMES, "bool")},
        refused=[
            Refused(status=400, when="nothing that is known", body={"color": "red"}, param="color"),
            Refused(status=400, when="a number for a key", body={"openai_key": 7}, param="openai_key"),
            Refused(status=400, when="a source that is none", body={"key_source": "sky"}, param="key_source"),
            Refused(status=400, when="nothing at all", body={}),
            Refused(status=400, when="no address", body={"custom": [{"name": "x"}]},
                    param="custom[0].base_url"),
        ],
    ),
    Row(
        method="GET", path="/api/admin/provider-models", access=LOCAL_READ, live=True,
        reply={"models": [{"id": "str", "name": "str", "provider": "str"}]},
    ),
    Row(
        method="GET", path="/api/admin/provider-health", access=LOCAL_READ, live=True,
        reply={"providers": [{"provider": "str", "status": HEALTH, "latency_ms": "int|null", "detail": "str"}]},
    ),
    Row(  # the one write of the seed without the key
        method="POST", path="/api/admin/provider-model-status", access=LOCAL_READ, body={"models": []}, live=True,
        reply={"models": [{"model": "str", "status": MODEL_STATUS, "latency_ms": "int|null"}]},
        refused=[
            Refused(status=400, when="21 models", body={"models": [f"m{number}" for number in range(21)]}, param="models"),
            Refused(status=400, when="no models", body={}, param="models"),
            Refused(status=400, when="a text for the list", body={"models": "gpt-4o"}, param="models"),
        ],
    ),
    Row(
        method="GET", path="/api/admin/claude-subscription/status", access=LOCAL_READ, live=True,
        reply=(SUBSCRIPTION, {"error": "=claude-subscription feature not enabled"}),
    ),
)  # fmt: skip

RESPONSES = (
    Row(
        # Not READ: opening the reads must not show passers-by who asks what.
        method="GET", path="/api/admin/responses", access=LOCAL_READ, live=True,
        reply={"object": "=list", "data": [RESPONSE], "total": "int"},
        more=[("a limit and a filter", lambda _rim: None, "/api/admin/responses?limit=500&status=completed,failed")],
        refused=[
            Refused(status=400, when="a status that is none", path="/api/admin/responses?status=odd", param="status"),
            Refused(status=400, when="more than 500", path="/api/admin/responses?limit=501", param="limit"),
            Refused(status=400, when="a text for the limit", path="/api/admin/responses?limit=many", param="limit"),
        ],
    ),
)  # fmt: skip

ROWS = PROVIDERS + RESPONSES
