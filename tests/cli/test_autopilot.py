"""`autopilot`, `lock` and `unlock` against the real rim."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from swarmd.domain.autopilot import Gate, NotFetched
from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.refusals import Invalid
from tests.cli.conftest import Cli
from tests.fakes.rim import SPREAD, TINY


def test_the_plan_as_a_table(cli: Cli) -> None:
    result = cli("autopilot")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "the autopilot is on; 2 nodes, contribution minimal, 5.0 MB of 1.0 GB used, disk 12% full" in lines[0]
    fetch, drop, heard = (next(line for line in lines if line.startswith(word)) for word in ("fetch", "drop", "not fetched"))
    assert SPREAD in fetch and "1/2" in fetch and "5.0 MB" in fetch and "1 of 2 copies are there" in fetch
    assert TINY in drop and "heard" in heard and "it is Discovered" in heard
    assert not any(line.startswith("kept") for line in lines)
    assert "it is locked" in cli("autopilot", "--all").stdout


def test_for_programs_and_with_nothing_to_do(cli: Cli) -> None:
    assert json.loads(cli("autopilot", "--json").stdout)["fetch"][0]["shard_index"] == 1
    enough = NotFetched(model=ModelId("x"), index=0, gate=Gate.ENOUGH, why="2 of 2 copies are there")
    cli.rim.autopilot.planned = replace(
        cli.rim.autopilot.planned, enabled=False, reduced=True, fetches=(), drops=(), not_fetched=(enough,)
    )
    shown = cli("autopilot").stdout
    assert "off: this is what it would do" in shown and "reduced hours" in shown and "nothing to do" in shown
    assert "2 of 2 copies" in cli("autopilot", "--all").stdout


def test_on_and_off(cli: Cli) -> None:
    for state, on in (("off", False), ("on", True)):
        result = cli("autopilot", state)
        assert result.exit_code == 0 and f"is {state}" in result.stdout
        assert cli.rim.settings.current().auto_manage.enabled is on
    assert cli("autopilot", "maybe").exit_code == 2


def test_lock_and_unlock(cli: Cli) -> None:
    assert "is locked" in cli("lock", TINY, "1").stdout
    assert cli.rim.autopilot.locks == {ShardRef(TINY, 1)}
    assert "is unlocked" in cli("unlock", TINY, "1").stdout
    assert cli.rim.autopilot.locks == set()
    cli.rim.autopilot.says = Invalid(what="model tiny-q8 has no shard 9: it has 2, from 0 on", param="index")
    result = cli("lock", TINY, "9")
    assert result.exit_code == 5 and "has no shard 9" in result.stderr


@pytest.mark.parametrize("verb", ["lock", "unlock"])
def test_a_name_that_no_model_can_have_is_wrong_usage(cli: Cli, verb: str) -> None:
    result = cli(verb, "../x", "0")
    assert (result.exit_code, "lower-case letters" in result.stderr) == (2, True)
    assert not cli.rim.autopilot.locks
