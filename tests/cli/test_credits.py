"""`swarmd credits`."""

from __future__ import annotations

import json

from tests.cli.conftest import Cli


def test_the_account(cli: Cli) -> None:
    result = cli("credits")
    assert result.exit_code == 0, result.output
    found = json.loads(cli("credits", "--json").stdout)
    assert f"{found['balance']:,} credits" in result.stdout and found["tier"] in result.stdout


def test_entries_and_peers(cli: Cli) -> None:
    entries = json.loads(cli("credits", "--entries", "-n", "1", "--json").stdout)["transactions"]
    assert len(entries) == 1 and entries[0]["kind"] in cli("credits", "--entries").stdout
    peers = json.loads(cli("credits", "--peers", "--json").stdout)
    assert peers[0]["node_id"] in cli("credits", "--peers").stdout
    both = cli("credits", "--peers", "--entries")
    assert (both.exit_code, "one at a time" in both.stderr) == (2, True)
