"""`members` and `revoke` against the real rim."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from swarmd.cli import members
from swarmd.domain.ids import NodeId
from swarmd.domain.refusals import Forbidden
from tests.cli.conftest import Cli
from tests.fakes.rim import OWN, PEER


def test_members_as_a_table_and_for_programs(cli: Cli) -> None:
    shown = cli("members").stdout
    assert PEER[:16] in shown and "linked" in shown and "this node" in shown and "2024-02-12 22:13" in shown
    assert [row["node_id"] for row in json.loads(cli("members", "--json").stdout)] == [OWN, PEER]


def test_without_a_network_it_says_what_to_do(cli: Cli) -> None:
    cli.rim.members.rows.clear()
    assert "swarmd invite" in cli("members").stdout


def test_revoke_takes_a_prefix(cli: Cli) -> None:
    result = cli("revoke", PEER[:8].upper(), "--yes")
    assert result.exit_code == 0, result.output
    assert PEER[:16] in result.stdout and "new code" in result.stdout
    assert cli.rim.members.rows[1].revoked_at is not None
    assert "out since 2023-11-14 22:15" in cli("members").stdout


@pytest.mark.parametrize(
    ("prefix", "word"),
    [(PEER[:7], "8 to 64 hex digits"), ("xyzxyzxyz", "8 to 64"), ("0" * 8, "no member"), ("c" * 8, "2 members")],
)
def test_a_prefix_that_names_no_single_member_changes_nothing(cli: Cli, prefix: str, word: str) -> None:
    row = cli.rim.members.rows[1]
    cli.rim.members.rows += [replace(row, node=NodeId("c" * 63 + digit)) for digit in "01"]
    result = cli("revoke", prefix, "--yes")
    assert result.exit_code == (2 if word.startswith("8 to 64") else 6 if word.startswith("no member") else 1)
    assert word in result.stderr.replace("\n", " ")
    assert all(row.revoked_at is None for row in cli.rim.members.rows)


def test_it_asks_on_a_terminal_and_only_there(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    result = cli("revoke", PEER)
    assert result.exit_code == 2 and "--yes" in result.stderr

    monkeypatch.setattr(members, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    for answer, out in ((False, False), (True, True)):
        asked: list[str] = []

        def confirm(question: str, *, answer: bool = answer, asked: list[str] = asked, **_: object) -> None:
            asked.append(question)
            if not answer:
                raise members.typer.Exit(1)

        monkeypatch.setattr(members, "confirm", confirm)
        result = cli("revoke", PEER)
        assert (result.exit_code == 0) is out
        assert asked == [f"Put node {PEER[:16]} (linked) out of the swarm?"]
        assert (cli.rim.members.rows[1].revoked_at is not None) is out


def test_whom_it_invited_is_said_before_and_after(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = cli.rim.members.rows
    rows[1] = replace(rows[1], role="inviter", below=3)
    monkeypatch.setattr(members, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    asked: list[str] = []
    monkeypatch.setattr(members, "confirm", lambda question, **_: asked.append(question))
    shown = " ".join(cli("revoke", PEER).stdout.split())
    assert asked == [f"Put node {PEER[:16]} (linked) out of the swarm? 3 members it invited go with it."]
    assert "3 members it invited went with it. Codes of the founder admit them again." in shown
    rows[1] = replace(rows[1], below=1, revoked_at=None)
    cli("revoke", PEER)
    assert asked[1].endswith("1 member it invited goes with it.")


def test_the_table_says_who_admitted_whom(cli: Cli) -> None:
    cli.rim.members.rows[1] = replace(cli.rim.members.rows[1], admitted_by=OWN)
    shown = cli("members").stdout
    assert "founder" in shown and shown.count(OWN[:16]) == 2
    assert [row["admitted_by"] for row in json.loads(cli("members", "--json").stdout)] == ["founder", OWN]


def test_a_refusal_is_its_sentence(cli: Cli) -> None:
    cli.rim.members.says = Forbidden(what="do it at the founder")
    result = cli("revoke", PEER, "--yes")
    assert result.exit_code == 5 and "do it at the founder" in result.stderr
