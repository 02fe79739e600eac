"""`swarmd responses`."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from swarmd.cli.responses import text_of
from tests.cli.conftest import Cli
from tests.fakes.rim import KEY


@pytest.fixture
def stored(cli: Cli) -> str:
    """Id of one that was made through the API."""
    body = json.dumps({"model": "tiny-q8", "input": "What is a shard?"}).encode()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    request = urllib.request.Request(f"{cli.url}/v1/responses", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as reply:
        made: dict[str, Any] = json.loads(reply.read())
    return made["id"]


def test_the_list_and_what_is_in_it(cli: Cli, stored: str) -> None:
    shown = cli("responses").stdout
    assert stored in shown and "What is a shard?" in shown and "Hello!" in shown and "completed" in shown
    assert [row["id"] for row in json.loads(cli("responses", "--json").stdout)["data"]] == [stored]
    assert "no stored response is failed" in cli("responses", "--status", "failed").stdout
    assert cli("responses", "--status", "no such").exit_code == 5
    assert cli("responses", "show", stored).stdout == "Hello!\n"
    assert json.loads(cli("responses", "show", stored, "--json").stdout)["id"] == stored


def test_deleting_asks_and_then_it_is_gone(cli: Cli, stored: str) -> None:
    assert cli("responses", "rm", stored).exit_code == 2
    assert "deleted" in cli("responses", "rm", stored, "--yes").stdout
    assert cli("responses", "show", stored).exit_code == 6
    assert "no response is stored" in cli("responses").stdout


def test_what_runs_not_in_the_background_is_not_cancelled(cli: Cli, stored: str) -> None:
    result = cli("responses", "cancel", stored)
    assert result.exit_code in (0, 5) and (result.exit_code == 5 or "completed" in result.stdout)
    assert cli("responses", "cancel", "resp_none").exit_code == 6
    assert cli("responses", "cancel", "../etc").exit_code == 2
    before = cli("responses", "--json", "cancel", stored)
    assert (before.exit_code, "behind the verb" in before.stderr) == (2, True)


def test_texts_of_strange_responses() -> None:
    items = [{"content": [{"text": "a"}, {"refusal": "b"}]}, {"type": "x"}, {"content": [{"text": "c"}]}]
    assert text_of({"output": items}) == "a\nc"
    assert text_of({}) == ""
