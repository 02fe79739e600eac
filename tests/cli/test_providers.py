"""`providers` against the real rim."""

from __future__ import annotations

import json
from pathlib import Path

from swarmd.api.provider_shapes import ProvidersRequest
from swarmd.cli.client import NodeClient
from swarmd.cli.place import Place
from swarmd.cli.providers import ProviderLine
from swarmd.domain.providers import CustomProvider, KeySource, Provider, ProviderChange, ProviderHealth, ProviderView, Wire
from swarmd.domain.refusals import Invalid
from tests.cli.conftest import Cli

KEY = "gsk-0123456789"


def mine() -> ProviderView:
    provider = Provider(name="mine", base_url="http://10.0.0.1/v1", wire=Wire.OPENAI, custom=True)
    return ProviderView(provider=provider, configured=True, source="none", auth_type="none")


def test_nobody_can_be_asked_at_first(cli: Cli) -> None:
    shown = cli("providers")
    assert shown.exit_code == 0 and "swarmd providers set NAME" in shown.stdout
    assert "without a key: anthropic" in shown.stdout


def test_a_key_comes_from_stdin_and_is_not_shown(cli: Cli) -> None:
    given = cli("providers", "set", "groq", input=f"{KEY}\n")
    assert given.exit_code == 0 and "groq:MODEL" in given.stdout and KEY not in given.output
    assert cli.rim.providers.changes == [ProviderChange(keys=(("groq", KEY),))]
    for bad in ("", "\n", "two words", "x" * 5000):
        assert cli("providers", "set", "groq", input=bad).exit_code == 2
    assert len(cli.rim.providers.changes) == 1


def test_the_list_says_how_they_are(cli: Cli) -> None:
    cli.rim.providers.keys = {"openai"}
    cli.rim.providers.custom = [mine()]
    cli.rim.providers.healths = [
        ProviderHealth(provider="openai", status="up", latency_ms=320, detail=""),
        ProviderHealth(provider="mine", status="unreachable", latency_ms=5, detail="cannot be reached"),
    ]
    shown = cli("providers").stdout
    assert "320 ms" in shown and "given to the node" in shown and "unreachable" in shown and "http://10.0.0.1/v1" in shown
    rows = json.loads(cli("providers", "--json").stdout)
    assert [(row["name"], row["status"]) for row in rows if row["configured"]] == [("openai", "up"), ("mine", "unreachable")]
    assert {row["status"] for row in json.loads(cli("providers", "--quick", "--json").stdout)} == {None}
    assert list(rows[0]) == list(ProviderLine.__struct_fields__)


def test_one_of_ones_own(cli: Cli) -> None:
    assert "mine:MODEL" in cli("providers", "add", "mine", "http://10.0.0.1/v1").stdout
    cli("providers", "add", "mine", "http://10.0.0.1/v1", "--with-key", input="EMPTY")
    cli.rim.providers.custom = [mine()]
    cli("providers", "set", "mine", input="other")
    assert "no provider any more" in cli("providers", "remove", "mine").stdout
    url = "http://10.0.0.1/v1"
    assert cli.rim.providers.changes == [
        ProviderChange(custom=(CustomProvider(name="mine", base_url=url),)),
        ProviderChange(custom=(CustomProvider(name="mine", base_url=url, key="EMPTY"),)),
        ProviderChange(custom=(CustomProvider(name="mine", base_url=url, key="other"),)),
        ProviderChange(removed=("mine",)),
    ]


def test_a_key_is_taken_away(cli: Cli) -> None:
    cli.rim.providers.keys = {"groq"}
    assert "no key for groq any more" in cli("providers", "remove", "groq").stdout
    assert cli.rim.providers.changes == [ProviderChange(keys=(("groq", ""),))]


def test_which_keys_count(cli: Cli) -> None:
    for word, value in (("env", KeySource.ENV), ("node", KeySource.DASHBOARD), ("auto", KeySource.AUTO)):
        said = cli("providers", "key-source", word)
        assert said.exit_code == 0 and "count" in said.stdout and cli.rim.providers.key_source is value
    assert cli("providers", "key-source", "both").exit_code == 2
    assert json.loads(cli("providers", "key-source", "env", "--json").stdout)["status"] == "ok"


def test_the_subscription_is_switched(cli: Cli) -> None:
    off = cli("providers", "subscription", "on")
    assert off.exit_code == 5 and "providers.claude_subscription" in off.stderr, off.output
    assert not cli.rim.providers.subscription_chosen
    cli.rim.set("providers.claude_subscription", True)
    assert "claude program" in cli("providers", "subscription", "on").stdout and cli.rim.providers.subscription_chosen
    assert "API key" in cli("providers", "subscription", "off").stdout and not cli.rim.providers.subscription_chosen


def test_refusals_are_told(cli: Cli) -> None:
    missing = cli("providers", "remove", "nobody")
    assert missing.exit_code == 2 and "anthropic" in missing.stderr
    cli.rim.providers.says = Invalid(what="custom provider 'x': no", param="custom[0].base_url")
    failed = cli("providers", "add", "x", "ftp://x")
    assert failed.exit_code == 5 and "custom provider 'x'" in failed.stderr


def test_every_field_of_the_twelve_can_be_set(cli: Cli) -> None:
    names = [field.removesuffix("_key") for field in ProvidersRequest.__struct_fields__ if field.endswith("_key")]
    for name in names:
        assert cli("providers", "set", name, input=KEY).exit_code == 0
    assert [change.keys for change in cli.rim.providers.changes] == [((name, KEY),) for name in names]


def test_a_reply_of_a_provider_is_read_though_its_usage_has_other_fields() -> None:
    client = NodeClient(Place(url="http://127.0.0.1:1", key=None, key_path=Path("key")))
    piece = client._piece(b'{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}, "error": null}')
    assert piece.usage is not None and piece.usage.total_tokens == 5
