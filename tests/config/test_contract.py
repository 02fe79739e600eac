"""The flat keys of the admin API: clamp, refuse, and survive a round trip."""

from __future__ import annotations

import jsonschema
import pytest

from swarmd.config.contract import FILE_ONLY, FLAT_KEYS, FlatChange, apply_flat, flat_schema, flat_view
from swarmd.config.settings import KEYS, Settings, with_values
from swarmd.domain.refusals import Invalid


def test_every_key_of_the_contract_is_shown() -> None:
    assert flat_view(Settings()) == {
        "contribution": "minimal",
        "max_concurrent_requests": 10,
        "max_bandwidth_mbps": 0,
        "max_disk_mb": 50_000,
        "listen_port": 8800,
        "session_timeout_seconds": 600,
        "auto_manage_shards": True,
        "auto_manage_max_storage_mb": 0,
        "shard_size_mb": 512,
        "max_batch_size": 8,
        "batch_timeout_ms": 50,
        "update_mode": "notify",
    }


def test_what_was_shown_can_be_sent_back() -> None:
    settings = with_values(Settings(), {"node.listen_port": 9000})
    assert apply_flat(settings, flat_view(settings)) == FlatChange(settings=settings, changes={})


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("max_concurrent_requests", 1000, 256),
        ("max_concurrent_requests", 0, 1),
        ("max_bandwidth_mbps", -5, 1),
        ("max_disk_mb", 1, 100),
        ("auto_manage_max_storage_mb", 10**9, 10_000_000),
        ("max_batch_size", 0, 1),
        ("batch_timeout_ms", 99_999, 60_000),
        ("contribution", "maximum", "maximum"),
        ("auto_manage_shards", False, False),
        ("shard_size_mb", 64, 64),
    ],
)
def test_numbers_are_clamped(name: str, value: object, stored: object) -> None:
    outcome = apply_flat(Settings(), {name: value})
    assert isinstance(outcome, FlatChange)
    assert flat_view(outcome.settings)[name] == stored
    assert list(outcome.changes.values()) == [stored]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("contribution", "huge", "contribution cannot be 'huge': it must be minimal, moderate or maximum"),
        ("shard_size_mb", 63, "shard_size_mb cannot be 63: it must be 64 to 2048"),
        ("shard_size_mb", 2049, "64 to 2048"),
        ("max_disk_mb", True, "max_disk_mb cannot be True"),
        ("max_disk_mb", 1000.0, "max_disk_mb cannot be 1000.0"),
        ("auto_manage_shards", 1, "true or false"),
        ("listen_port", 9000, "only be set in the settings file (node.listen_port)"),
        ("port", 1, "there is no key 'port': the known ones are contribution"),
    ],
)
def test_the_rest_is_refused(name: str, value: object, words: str) -> None:
    outcome = apply_flat(Settings(), {"max_batch_size": 3, name: value})
    assert isinstance(outcome, Invalid)
    assert words in outcome.what
    assert outcome.param == name


def test_clamps_lie_inside_the_settings_own_ranges() -> None:
    for key in FLAT_KEYS:
        for bound in key.clamp or ():
            assert isinstance(apply_flat(Settings(), {key.name: bound}), FlatChange)


def test_any_setting_is_taken_by_its_path_and_never_clamped() -> None:
    outcome = apply_flat(Settings(), {"inference.context_tokens": 1024})
    assert isinstance(outcome, FlatChange) and outcome.changes == {"inference.context_tokens": 1024}
    refusal = apply_flat(Settings(), {"inference.context_tokens": 1})
    assert isinstance(refusal, Invalid) and refusal.param == "inference.context_tokens" and "256 to" in refusal.what


@pytest.mark.parametrize("path", [path for path in FILE_ONLY if path in KEYS])
def test_some_settings_stay_on_the_machine(path: str) -> None:
    refusal = apply_flat(Settings(), {path: "/somewhere/else-0123456789"})
    assert isinstance(refusal, Invalid) and "only be set in the settings file" in refusal.what


def test_the_schema_says_of_every_key_what_is_taken() -> None:
    schema = flat_schema()
    properties = schema["properties"]
    assert list(properties) == [*(key.name for key in FLAT_KEYS), *KEYS] and schema["additionalProperties"] is False
    assert (properties["inference.context_tokens"]["minimum"], properties["network.relay"]["type"]) == (256, "boolean")
    assert properties["shard_size_mb"]["minimum"] == 64 and properties["shard_size_mb"]["maximum"] == 2048
    assert properties["contribution"]["enum"] == ["minimal", "moderate", "maximum"]
    assert properties["auto_manage_shards"]["type"] == "boolean"
    assert "minimum" not in properties["max_disk_mb"], "it is clamped, not refused"
    assert all(one["type"] in ("integer", "boolean", "string") and one["description"] for one in properties.values())
    jsonschema.validate(flat_view(Settings()), schema)


def test_where_keys_of_providers_go_is_not_said_over_http() -> None:
    """Else whoever has this node's key would point an address at himself and read the provider's key there."""
    paths = [path for path in KEYS if path.startswith("providers.") and path.endswith("_url")]
    assert len(paths) >= 11 and set(paths) <= set(FILE_ONLY)
    for path in (*paths, "downloads.hub_endpoint"):
        refusal = apply_flat(Settings(), {path: "https://elsewhere.example/v1"})
        assert isinstance(refusal, Invalid) and refusal.param == path
