"""The commands as they are named, and what happens to wrong ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarmd import __version__
from swarmd.cli.program import installed, program

COMMANDS = (
    "run", "chat", "ask", "responses", "status", "peers", "invite", "join", "members", "revoke", "models", "model",
    "autopilot", "lock", "unlock", "search", "get", "downloads", "load", "unload", "rm", "bench", "logs", "config",
    "adapters", "credits", "doctor", "version", "up", "down", "service", "update", "completion", "help",
)  # fmt: skip


def test_help_lists_every_command() -> None:
    shown = CliRunner().invoke(program(), ["--help"]).stdout
    assert all(f" {command} " in shown for command in COMMANDS)
    models = CliRunner().invoke(program(), ["model", "--help"]).stdout
    assert all(f" {command} " in models for command in ("add", "list", "fetch", "remove"))
    queue = CliRunner().invoke(program(), ["downloads", "--help"]).stdout
    assert all(f" {command} " in queue for command in ("pause", "resume", "cancel", "move"))
    assert "What is being fetched" in queue


def test_version() -> None:
    shown = CliRunner().invoke(program(), ["version"]).stdout
    assert f"swarmd {__version__}" in shown and "xllamacpp" in shown
    assert installed("no-such-package") == "is not installed"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("arguments", [["version"], ["--help"], ["downloads", "--help"]])
def test_a_full_disk_behind_stdout_is_a_sentence_and_no_traceback(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "swarmd", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            timeout=60,
        )  # fmt: skip
    assert done.stderr == "swarmd: the output cannot be written: No space left on device\n"
    assert done.returncode == 1


@pytest.mark.parametrize("command", [["peers"], ["get"], ["downloads"], ["downloads", "cancel"], ["model", "fetch"], []])
def test_help_has_no_placeholder_behind_switches(command: list[str]) -> None:
    shown = CliRunner().invoke(program(), [*command, "--help"], env={"COLUMNS": "140"}).stdout
    assert "--help" in shown
    assert "bool" not in shown
    assert not command or "<path>" in shown, "options with a value have one"


def test_wrong_usage_is_two() -> None:
    assert CliRunner().invoke(program(), ["status", "--no-such-option"]).exit_code == 2
    assert CliRunner().invoke(program(), ["no-such-command"]).exit_code == 2


def test_a_node_that_is_not_there_is_a_sentence(nowhere: str) -> None:
    """As a process: neither a traceback nor a word on stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "swarmd", "status", "--url", nowhere], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 4
    assert done.stdout == ""
    assert done.stderr == f"swarmd: no node answers at {nowhere}: start one with `swarmd run`\n"
