"""`status`, `peers`, `invite`, `join` against the real rim."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from rich.table import Table

from swarmd.cli import network
from swarmd.cli.network import duration
from swarmd.domain.ids import NodeId
from swarmd.domain.refusals import Expired, Forbidden
from tests.cli.conftest import Cli


def test_status_says_who_and_how(cli: Cli) -> None:
    result = cli("status")
    assert result.exit_code == 0, result.output
    assert "a" * 64 in result.stdout
    assert "ready" in result.stdout and "1 linked" in result.stdout and "2 known" in result.stdout
    assert "20 ms in the median of 3 replies" in result.stdout


def test_status_names_what_is_not_ready(cli: Cli) -> None:
    cli.rim.subsystems["inference"] = False
    assert "not ready: inference" in cli("status").stdout


def test_status_for_programs(cli: Cli) -> None:
    found = json.loads(cli("status", "--json").stdout)
    assert found["ready"] is True
    assert found["stats"]["node_id"] == "a" * 64
    assert [model["id"] for model in found["models"]] == ["tiny-q8", "spread-q8"]


def test_peers_as_a_table_and_for_programs(cli: Cli) -> None:
    shown = cli("peers").stdout
    assert "b" * 16 in shown and "linked" in shown and "1.20 ms" in shown and "spread-q8" in shown
    assert json.loads(cli("peers", "--json").stdout)[0]["node_id"] == "b" * 16


def test_links_as_a_table_and_for_programs(cli: Cli) -> None:
    line = cli.rim.peers.links[0]
    shown = cli("peers", "--links").stdout
    figures = ("1.60 ms", "1.20 ms", "2.6 MB", "5.0 kB", "1 min")
    for part in ("b" * 16, "control", "direct", *figures, "/ip4/192.168.1.5/tcp/8810"):
        assert part in shown
    cli.rim.peers.links = [replace(line, via=NodeId("c" * 64), remote=None, rtt_ms=None, min_rtt_ms=None)]
    assert f"relay {'c' * 16}" in cli("peers", "--links").stdout
    assert json.loads(cli("peers", "--links", "--json").stdout)[0]["via"] == "c" * 16
    cli.rim.peers.links = []
    assert "swarmd peers" in cli("peers", "--links").stdout


def test_peers_can_be_watched_and_a_node_that_stops_is_waited_for(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    seen: list[str] = []

    async def look(draw: Callable[[], Awaitable[Table | str]], *, every_s: float) -> None:
        shown = await draw()
        seen.append(shown if isinstance(shown, str) else f"{shown.row_count} rows every {every_s:g} s")

    monkeypatch.setattr(network, "watch", look)
    assert cli("peers", "--watch").exit_code == 0
    cli.rim.peers.rows.clear()
    cli("peers", "--watch")
    cli("peers", "--links", "--watch")
    assert seen == ["1 rows every 2 s", network.NOBODY, "1 rows every 2 s"]
    assert "one at a time" in cli("peers", "--watch", "--json").output


def test_without_peers_it_says_what_to_do(cli: Cli) -> None:
    cli.rim.peers.rows.clear()
    assert "swarmd invite" in cli("peers").stdout


def test_markup_of_a_peer_is_text(cli: Cli) -> None:
    row = cli.rim.peers.rows[0]
    object.__setattr__(row.summary, "software", "[red]x[/red]\x1b[2J")
    shown = cli("peers").stdout
    assert "\x1b" not in shown


def test_invite_prints_the_code_alone_in_its_line(cli: Cli) -> None:
    lines = cli("invite").stdout.splitlines()
    assert lines[0] == "swarm://abc"
    assert "2023-11-15" in lines[1]
    assert json.loads(cli("invite", "--json").stdout)["code"] == "swarm://abc"


def test_join_takes_a_short_code_and_where_to_look(cli: Cli) -> None:
    assert cli("join", "7-crossover-clockwork").exit_code == 0
    assert cli("join", " 7 Crossover clockwork", "--at", "10.0.0.5:99 ").exit_code == 0
    assert cli.rim.joiner.asked == ["7-crossover-clockwork", "7 Crossover clockwork@10.0.0.5:99"]
    refused = cli("join", "swarm://abc", "--at", "10.0.0.5")
    assert (refused.exit_code, "--at says where to look" in refused.stderr) == (2, True)
    assert len(cli.rim.joiner.asked) == 2


def test_join_says_with_whom(cli: Cli) -> None:
    result = cli("join", "swarm://abc")
    assert result.exit_code == 0
    assert "connected to node " + "b" * 16 in result.stdout


@pytest.mark.parametrize("refusal", [Forbidden(what="this code is for another node"), Expired(expired_at=1.0)])
def test_a_refusal_is_its_sentence(cli: Cli, refusal: Forbidden | Expired) -> None:
    cli.rim.joiner.says = refusal
    result = cli("join", "swarm://abc")
    assert result.exit_code == 5
    assert result.stdout == ""
    assert refusal.sentence in result.stderr.replace("\n", " ")


def test_join_without_a_key_says_where_it_was_looked_for(cli: Cli) -> None:
    result = cli("join", "swarm://abc", key=False)
    assert result.exit_code == 8
    assert "no API key" in result.stderr and "--data-dir" in result.stderr


def test_durations_in_words() -> None:
    assert [duration(at) for at in (42, 200, 18_720, 187_200)] == ["42 s", "3 min", "5 h 12 min", "2 d 4 h"]
