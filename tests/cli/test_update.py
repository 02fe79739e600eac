"""`update` against the real rim."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from swarmd import __version__
from swarmd.cli import update
from swarmd.cli.failure import BUSY, REFUSED
from swarmd.domain.refusals import Invalid, UpdatesOff
from swarmd.domain.updates import UpdateApplied, UpdateState, parse_version
from tests.api.test_updates import FOUND
from tests.cli.conftest import Cli


def test_what_is_known(cli: Cli) -> None:
    assert "looks for no updates" in cli("update").stdout
    cli.rim.updates.info = FOUND
    shown = cli("update").stdout
    assert "swarmd 0.2.0 is available: `swarmd update apply`" in shown and "  better" in shown
    assert json.loads(cli("update", "--json").stdout)["latest_version"] == "0.2.0"


def test_check(cli: Cli) -> None:
    assert "0.1.0 is the newest version" in cli("update", "check").stdout
    cli.rim.updates.info = replace(FOUND, changelog="\n".join(f"change {n}" for n in range(100)))
    shown = cli("update", "check").stdout
    assert "swarmd 0.2.0 of 2026-12-01 is here; the node runs 0.1.0" in shown and "and 60 lines more" in shown
    assert json.loads(cli("update", "check", "--json").stdout)["info"]["latest_version"] == "0.2.0"
    cli.rim.updates.refusal = UpdatesOff()
    result = cli("update", "check")
    assert result.exit_code == BUSY and "updates.feed_url" in result.stderr


def test_apply_says_when_the_node_is_the_new_version(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "POLL_S", 0.01)
    fake = cli.rim.updates

    async def apply(*, retry: bool = False) -> UpdateApplied:
        assert retry
        before, after = fake.state(), replace(fake.state(), current=parse_version("0.2.0"))
        states = iter([before, before])
        fake.state = lambda: next(states, after)  # type: ignore[method-assign]
        return UpdateApplied(version=parse_version("0.2.0"), running=0, patience_s=120.0)

    monkeypatch.setattr(fake, "apply", apply)
    shown = cli("update", "apply", "--retry").stdout
    assert "switching from 0.1.0 to 0.2.0: the node restarts now" in shown and "the node runs swarmd 0.2.0" in shown
    assert f"this command is still {__version__}" in shown


def test_apply_says_that_a_version_was_taken_back(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "POLL_S", 0.01)
    fake = cli.rim.updates

    async def apply(*, retry: bool = False) -> UpdateApplied:
        state: UpdateState = replace(fake.state(), last_error="version 0.2.0 was rolled back: it died")
        fake.state = lambda: state  # type: ignore[method-assign]
        await asyncio.sleep(0)
        return UpdateApplied(version=parse_version("0.2.0"), running=0, patience_s=120.0)

    monkeypatch.setattr(fake, "apply", apply)
    result = cli("update", "apply")
    assert result.exit_code == 1 and "version 0.2.0 was rolled back: it died" in result.stderr


def test_apply_without_waiting_and_with_nothing_to_apply(cli: Cli) -> None:
    assert "the 2 replies and stages that run have ended" in cli("update", "apply", "--no-wait").stdout.replace("\n", " ")
    cli.rim.updates.refusal = Invalid(what="there is no newer version")
    result = cli("update", "apply")
    assert result.exit_code == REFUSED and "there is no newer version" in result.stderr
