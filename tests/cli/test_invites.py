"""`swarmd invite` and its options against the real rim."""

from __future__ import annotations

import json

import pytest
import typer

from swarmd.cli.invites import seconds
from swarmd.domain.refusals import Busy
from tests.cli.conftest import Cli


def test_terms_make_a_code_of_their_own(cli: Cli) -> None:
    lines = cli("invite", "--uses", "3", "--life", "12h").stdout.splitlines()
    assert lines[0] == "swarm://new1"
    assert "3 nodes until 2023-11-15T10:13:20" in lines[1]
    assert "--cancel " + "1" * 16 in lines[2]
    (row,) = cli.rim.codes.rows
    assert (row.uses_left, row.expires_at - row.created_at) == (3, 12 * 3600)
    assert json.loads(cli("invite", "--uses", "2", "--json").stdout)["code"] == "swarm://new2"
    assert cli.rim.codes.rows[0].expires_at - row.created_at == 86_400


def test_a_short_code_stands_alone_and_says_what_to_type(cli: Cli) -> None:
    lines = cli("invite", "--short").stdout.splitlines()
    assert lines[0] == "7-crossover-clockwork"
    assert "swarmd join 7-crossover-clockwork" in lines[1] and "2023-11-14T22:23:20" in lines[1]
    assert json.loads(cli("invite", "--short", "--json").stdout)["short"] is True
    shown = cli("invite", "--list").stdout
    assert shown.count("short") == 2 and "clockwork" not in shown


def test_a_role_makes_a_code_of_its_own(cli: Cli) -> None:
    shown = cli("invite", "--role", "inviter").stdout
    assert "swarm://new1" in shown and "may invite others" in shown
    assert "may invite others" not in cli("invite", "--role", "member").stdout
    assert [row.role for row in cli.rim.codes.rows] == ["member", "inviter"]
    listed = cli("invite", "--list").stdout
    assert "inviter" in listed and "member" in listed
    wrong = cli("invite", "--role", "boss")
    assert wrong.exit_code == 2
    assert "'boss' is no role" in " ".join(wrong.stderr.replace("│", " ").split())


def test_a_qr_code_stands_below_the_code(cli: Cli) -> None:
    lines = cli("invite", "--qr").stdout.splitlines()
    assert lines[0] == "swarm://abc", "the current code, as without --qr"
    assert cli.rim.codes.rows == []
    assert len(lines) > 15 and {len(line) for line in lines[2:]} == {len(lines[-1])}
    assert set("".join(lines[2:])) <= set(" ▀▄█")


def test_the_list_and_its_end_by_the_start_of_an_id(cli: Cli) -> None:
    assert "swarmd invite" in cli("invite", "--list").stdout, "an empty list says what to do"
    cli("invite", "--uses", "5")
    cli("invite", "--life", "30m")
    shown = cli("invite", "--list").stdout
    assert "1" * 16 in shown and "2" * 16 in shown and "live" in shown
    assert [row["uses_left"] for row in json.loads(cli("invite", "--list", "--json").stdout)] == [1, 5]
    ended = cli("invite", "--cancel", "11")
    assert (ended.exit_code, "nobody joins" in ended.stdout) == (0, True)
    assert [row.state.value for row in cli.rim.codes.rows] == ["live", "cancelled"]


@pytest.mark.parametrize(("start", "says"), [("77", "no code has an id"), ("", "2 codes have"), ("1", "2 codes have")])
def test_an_id_that_fits_not_exactly_one_code_cancels_nothing(cli: Cli, start: str, says: str) -> None:
    cli("invite", "--uses", "5")
    cli("invite", "--uses", "5")
    if start == "1":
        object.__setattr__(cli.rim.codes.rows[0], "id", "1" + "2" * 15)
    result = cli("invite", "--cancel", start)
    code = 6 if says == "no code has an id" else 2
    assert (result.exit_code, says in result.stderr) == (code, True), result.stderr
    assert {row.state.value for row in cli.rim.codes.rows} == {"live"}


def test_the_nodes_refusal_is_its_sentence(cli: Cli) -> None:
    cli.rim.codes.says = Busy(what="64 invite codes are out: cancel one first")
    result = cli("invite", "--uses", "2")
    assert (result.exit_code, result.stdout) == (7, "")
    assert "cancel one first" in result.stderr


def test_two_wishes_at_once_are_refused(cli: Cli) -> None:
    together = (
        ("--list", "--uses", "2"), ("--list", "--cancel", "11"), ("--cancel", "11", "--qr"), ("--list", "--role", "inviter"),
        ("--short", "--uses", "2"),
    )  # fmt: skip
    for wishes in together:
        result = cli("invite", *wishes)
        assert (result.exit_code, "one at a time" in result.stderr) == (2, True)


def test_lengths_of_time() -> None:
    assert [seconds(text) for text in ("7d", "12h", " 30m ")] == [604_800, 43_200, 1_800]
    for text in ("", "7", "d", "1.5h", "-1d", "7 days", "1d12h", "9" * 10 + "d", "٣d"):
        with pytest.raises(typer.BadParameter, match="7d, 12h, 30m"):
            seconds(text)


def test_a_bad_length_of_time_is_a_usage_error(cli: Cli) -> None:
    result = cli("invite", "--life", "tomorrow")
    assert result.exit_code == 2
    assert "'tomorrow' is no length of time" in " ".join(result.stderr.replace("│", " ").split())
