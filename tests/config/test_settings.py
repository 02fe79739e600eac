"""Every setting is declared whole, and checks refuse what is out of range in a sentence that helps."""

from __future__ import annotations

import pytest

from swarmd.config.settings import KEYS, Settings, value_of, with_values


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: key.path)
def test_every_default_is_allowed(key) -> None:
    assert key.problem(key.default) is None


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("node.listen_port", 0, "node.listen_port cannot be 0: it must be 1 to 65525"),
        ("node.listen_port", 65526, "1 to 65525"),
        ("node.listen_port", True, "cannot be True"),
        ("node.listen_port", "8800", "cannot be '8800'"),
        ("node.listen_port", 8800.0, "cannot be 8800.0"),
        ("node.listen_address", "here", "an IP address or localhost"),
        ("node.data_dir", "relative/path", "absolute path"),
        ("node.contribution", "some", "minimal, moderate or maximum"),
        ("network.external_address", "example.org", "host:port"),
        ("inference.default_model", "../up", "a model id"),
        ("identity.region", "here or there", "up to 16 letters"),
        ("auto_manage.enabled", 1, "true or false"),
        ("api.open_reads", "nowhere", "loopback or everywhere"),
    ],
)
def test_what_is_refused(path: str, value: object, words: str) -> None:
    assert words in (KEYS[path].problem(value) or "")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("node.listen_address", "::1"),
        ("node.listen_address", "localhost"),
        ("node.data_dir", "~/swarm"),
        ("network.external_address", "[2001:db8::1]:8810"),
        ("network.external_address", "node.example.org:8810"),
        ("inference.default_model", "tinyllama-1.1b-chat-v1.0.q4-k-m"),
        ("api.api_key", "0123456789abcdef"),
        ("identity.region", "de"),
    ],
)
def test_what_is_allowed(path: str, value: object) -> None:
    assert KEYS[path].problem(value) is None


def test_a_refused_secret_is_not_repeated() -> None:
    problem = KEYS["api.api_key"].problem("short-secret")
    assert problem is not None and "short-secret" not in problem


def test_with_values_changes_only_what_is_named() -> None:
    settings = with_values(Settings(), {"node.listen_port": 9000, "ui.builtin_model": False})
    assert value_of(settings, "node.listen_port") == 9000
    assert not settings.ui.builtin_model
    assert with_values(settings, {"node.listen_port": 8800, "ui.builtin_model": True}) == Settings()
