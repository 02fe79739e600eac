"""`load`, `unload`, `rm`."""

from __future__ import annotations

import json

import pytest

from swarmd.cli import memory
from tests.cli.conftest import Cli
from tests.fakes.rim import TINY


def test_load_takes_what_is_here_or_the_shards_that_were_named(cli: Cli) -> None:
    result = cli("load", "tiny-q8")
    assert result.exit_code == 0, result.output
    assert "tiny-q8: 2 of 2 shards are in this node's memory" in result.stdout
    found = json.loads(cli("load", "tiny-q8", "--shard", "1", "--shard", "1", "--json").stdout)
    assert found["shards"] == [1] and 1 in found["loaded_shards"]


def test_unload_frees_the_memory_and_keeps_the_files(cli: Cli) -> None:
    result = cli("unload", "tiny-q8")
    assert result.exit_code == 0, result.output
    assert "its files stay" in result.stdout and cli.rim.desk.deleted == []
    cli("load", "tiny-q8")
    found = json.loads(cli("unload", "tiny-q8", "--shard", "0", "--json").stdout)
    assert found["shards"] == [0] and 0 not in found["loaded_shards"]


@pytest.mark.parametrize("command", ["load", "unload", "rm"])
def test_a_model_or_shard_that_is_not_there(cli: Cli, command: str) -> None:
    assert cli(command, "no-such").exit_code == 6
    assert cli(command, "../etc").exit_code == 2
    assert cli(command, "tiny-q8", "--shard", "-1").exit_code == 2
    if command != "rm":
        result = cli(command, "tiny-q8", "--shard", "9")
        assert result.exit_code in (5, 6) and result.stdout == ""


def test_rm_asks_or_is_told_not_to(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (("rm",), ("model", "remove")):
        refused = cli(*name, "tiny-q8")
        assert refused.exit_code == 2
        assert "--yes" in refused.stderr
    assert cli.rim.desk.deleted == []
    asked: list[str] = []
    monkeypatch.setattr(memory, "confirm", lambda question, **_: asked.append(question))
    assert "5 files" in cli("rm", "tiny-q8").stdout
    assert cli.rim.desk.deleted == [TINY]
    (question,) = asked
    assert question.startswith("Delete tiny-q8 with 2 shards (10.0 MB) from this node? Nobody else has all of that")


def test_rm_of_one_shard_leaves_the_others(cli: Cli) -> None:
    found = json.loads(cli("rm", "spread-q8", "--shard", "0", "--yes", "--json").stdout)
    assert found == {"model_id": "spread-q8", "shards": [0], "files_removed": 0}
    assert cli.rim.desk.deleted == []
    assert json.loads(cli("rm", "tiny-q8", "--yes", "--json").stdout)["shards"] is None
