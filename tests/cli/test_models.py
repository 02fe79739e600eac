"""`swarmd model`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from swarmd.domain.ids import ModelId
from swarmd.domain.refusals import Refusal
from swarmd.domain.shards import Acquisition
from tests.cli.conftest import Cli
from tests.fakes.rim import OWN, PEER, SPREAD, acquisition, hub_source, model_view, no_coverage


def test_the_list_says_what_can_answer(cli: Cli) -> None:
    cli.rim.models.known[ModelId("gone-q8")] = model_view(ModelId("gone-q8"), (OWN,), ())
    lines = cli("model", "list").stdout.splitlines()
    rows = {line.split()[0]: line for line in lines}
    assert "yes, alone" in rows["tiny-q8"] and "2/2" in rows["tiny-q8"]
    assert "yes, with others" in rows["spread-q8"] and "1/2" in rows["spread-q8"]
    assert "no, nobody has shard 2" in rows["gone-q8"]


def test_the_list_says_where_models_are_from_and_how_far_they_are(cli: Cli) -> None:
    view = cli.rim.models.known[SPREAD]
    assert view.manifest is not None
    cli.rim.models.known[SPREAD] = replace(view, manifest=replace(view.manifest, source=hub_source()))
    cli.rim.desk.running[SPREAD] = acquisition(SPREAD)
    rows = {line.split()[0]: line for line in cli("models").stdout.splitlines()}
    assert "Pinned" in rows["tiny-q8"] and "a file" in rows["tiny-q8"] and "loaded" in rows["tiny-q8"]
    assert "owner/Tiny-GGUF" in rows["spread-q8"] and "downloading, 40 %" in rows["spread-q8"]
    cli.rim.desk.running[SPREAD] = acquisition(SPREAD, state="failed")
    assert "failed" in cli("model", "list").stdout


def test_the_list_for_programs_and_when_it_is_empty(cli: Cli) -> None:
    assert [row["id"] for row in json.loads(cli("model", "list", "--json").stdout)] == ["tiny-q8", "spread-q8"]
    cli.rim.models.known.clear()
    assert "swarmd model add" in cli("model", "list").stdout


def test_add_sends_an_absolute_path(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli("model", "add", "tiny.gguf")
    assert result.exit_code == 0, result.output
    assert "tiny-q8 is here in 2 shards" in result.stdout
    assert cli.rim.desk.added == [tmp_path / "tiny.gguf"]


def test_another_shard_size_is_for_one_cut_only(cli: Cli) -> None:
    assert cli("model", "add", "/x.gguf").exit_code == 0
    assert cli("model", "add", "/x.gguf", "--shard-size-mb", "128").exit_code == 0
    assert cli.rim.desk.shard_sizes == [None, 128_000_000]
    assert cli.rim.settings.current().model.shard_size_mb == 512
    assert cli("model", "add", "/x.gguf", "--shard-size-mb", "3").exit_code == 2


def test_fetch_waits_until_it_is_here(cli: Cli) -> None:
    calls = 0
    status = cli.rim.desk.acquisition

    def arriving(model: ModelId) -> object:
        nonlocal calls
        calls += 1
        if calls > 3:
            cli.rim.models.known[SPREAD] = model_view(SPREAD, (OWN,), (OWN, PEER))
        return status(model)

    cli.rim.desk.acquisition = arriving  # type: ignore[method-assign]
    result = cli("model", "fetch", "spread-q8", "--shard", "1")
    assert result.exit_code == 0, result.output
    assert "spread-q8: 2 of 2 shards are here" in result.stdout


def test_fetch_of_what_is_here_or_without_waiting(cli: Cli) -> None:
    assert "2 of 2" in cli("model", "fetch", "tiny-q8", "--shard", "0", "--shard", "1").stdout
    assert "swarmd model list" in cli("model", "fetch", "spread-q8", "--no-wait").stdout
    assert SPREAD in cli.rim.desk.running


def test_fetch_that_fails_says_why(cli: Cli) -> None:
    async def failing(model: ModelId, indices: object, trigger: str = "user") -> Acquisition:
        return cli.rim.desk.running.setdefault(model, acquisition(model, state="failed"))

    async def uncovered(model: ModelId, indices: object, trigger: str = "user") -> Refusal:
        return no_coverage()

    cli.rim.desk.acquire = failing  # type: ignore[method-assign]
    result = cli("model", "fetch", "spread-q8")
    assert result.exit_code == 1
    assert "could not be fetched: no peer" in result.stderr
    cli.rim.desk.running.clear()
    cli.rim.desk.acquire = uncovered  # type: ignore[method-assign]
    assert cli("model", "fetch", "spread-q8").exit_code == 7


def test_fetch_gives_up_when_nobody_fetches(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmd.cli.models.LOOK_S", 0.01)

    async def idle(model: ModelId, indices: object, trigger: str = "user") -> Acquisition:
        return acquisition(model)

    cli.rim.desk.acquire = idle  # type: ignore[method-assign]
    result = cli("model", "fetch", "spread-q8")
    assert result.exit_code == 1
    assert "nothing fetches it any more" in result.stderr
