"""`swarmd help`."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from swarmd.cli.failure import EXIT_CODES
from swarmd.cli.help_topics import TOPICS
from swarmd.cli.program import program


def shown(*words: str) -> str:
    done = CliRunner().invoke(program(), ["help", *words], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    return done.stdout


def test_topics() -> None:
    table = shown("exit-codes")
    assert all(str(row.code) in table and row.name in table for row in EXIT_CODES)
    assert [row["code"] for row in json.loads(shown("exit-codes", "--json"))] == [row.code for row in EXIT_CODES]
    assert "SWARMD_URL" in shown("node") and "--json" in shown("json")


def test_the_help_of_commands() -> None:
    assert "Usage: " in shown() and all(f"swarmd help {topic}" in shown() for topic in TOPICS)
    assert "downloads move" in shown("downloads", "move") and "PLACE" in shown("downloads", "move")


def test_what_there_is_no_help_on() -> None:
    for words in (["nonsense"], ["downloads", "nonsense"], ["status", "nonsense"]):
        done = CliRunner().invoke(program(), ["help", *words])
        assert done.exit_code == 2 and "exit-codes" in done.stderr.replace("\n", " ")
