"""`adapters` against the real rim."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarmd.domain.refusals import Invalid
from tests.cli.conftest import Cli
from tests.fakes.rim import TINY, adapter


def test_one_is_added_shown_and_removed(cli: Cli, tmp_path: Path) -> None:
    assert "swarmd adapters add" in cli("adapters", "list").stdout
    assert cli("adapters").stdout == cli("adapters", "list").stdout, "as `downloads`, `providers` and `responses` do"
    file = tmp_path / "style.safetensors"
    file.write_bytes(b"x")
    added = cli("adapters", "add", TINY, str(file), "--id", "style", "--alpha", "32")
    assert added.exit_code == 0 and f"{TINY}:style answers" in added.stdout
    asked = cli.rim.adapters.asked[0]
    assert (asked.path, asked.name, asked.rank, asked.alpha) == (str(file), "style", None, 32.0)
    shown = cli("adapters", "list").stdout
    assert f"{TINY}:style" in shown and "32" in shown
    assert [row["id"] for row in json.loads(cli("adapters", "list", "--json").stdout)] == ["style"]
    assert "not registered any more" in cli("adapters", "rm", "style").stdout
    assert not cli.rim.adapters.rows


def test_a_file_that_is_named_by_a_way_up_is_found(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "style.safetensors"
    file.write_bytes(b"x")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert cli("adapters", "add", TINY, "../style.safetensors").exit_code == 0
    assert cli.rim.adapters.asked[0].path == str(file.resolve())


def test_a_file_of_the_nodes_own_folder_goes_as_it_is(cli: Cli) -> None:
    cli("adapters", "add", TINY, "mine/adapter_model.safetensors")
    asked = cli.rim.adapters.asked[0]
    assert (asked.path, asked.id, asked.name) == ("mine/adapter_model.safetensors", None, "adapter_model")


def test_refusals_are_told(cli: Cli) -> None:
    cli.rim.adapters.says = Invalid(what="path lies outside", param="path")
    failed = cli("adapters", "add", TINY, "x")
    assert failed.exit_code == 5 and "path lies outside" in failed.stderr
    cli.rim.adapters.rows["style"] = adapter("style", TINY)
    failed = cli("adapters", "rm", "nobody")
    assert failed.exit_code == 5 and "nobody" in failed.stderr
