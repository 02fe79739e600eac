"""What TAB does, in the shells themselves."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from swarmd.cli.completion import ARGUMENTS, OPTIONS, Shell, arguments_of, script
from swarmd.cli.outline import CommandLine, outline
from swarmd.cli.program import program
from tests.cli.conftest import Cli

CASES = (
    ("mod", {"models", "model"}),
    ("model ", {"add", "list", "fetch", "remove"}),
    ("config set node.listen_p", {"node.listen_port"}),
    ("config list res", {"resources"}),
    ("chat --max", {"--max-tokens"}),
    ("run --log-level de", {"debug"}),
    ("autopilot of", {"off"}),
    ("completion z", {"zsh"}),
    ("help exit", {"exit-codes"}),
    ("invite --uses 3 --rol", {"--role"}),
)


@pytest.fixture(scope="module")
def root() -> CommandLine:
    return outline(program())


def test_what_is_completed_by_hand_is_still_there(root: CommandLine) -> None:
    commands = {command.name: command for command in root.walk()}
    options = {name for command in root.walk() for one in command.options for name in one.names}
    assert set(ARGUMENTS) <= set(commands) and set(OPTIONS) <= options
    for name, kinds in ARGUMENTS.items():
        assert len(kinds) <= len(commands[name].arguments), name
    assert arguments_of(commands["run"], root) == ()


@pytest.fixture
def folder(tmp_path: Path, root: CommandLine) -> Path:
    """The scripts, and a `swarmd` to be asked for names."""
    for shell in Shell:
        (tmp_path / f"swarmd.{shell}").write_text(script(root, shell))
    program = tmp_path / "swarmd"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m swarmd "$@"\n')
    program.chmod(0o755)
    return tmp_path


def asked(folder: Path, shell: str, line: str) -> set[str]:
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    quoted = " ".join(map(shlex.quote, ["swarmd", *words]))
    code = {
        "bash": f"source ./swarmd.bash; COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _swarmd; "
        "printf '%s\\n' \"${COMPREPLY[@]}\"",
        "fish": f"source ./swarmd.fish; complete -C {shlex.quote('swarmd ' + line)}",
    }[shell]
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [shell, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return {text.split("\t")[0] for text in done.stdout.splitlines() if text}


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_commands_options_and_values(folder: Path, shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    for line, expected in CASES:
        found = asked(folder, shell, line)
        assert expected <= found, (line, found)
        if shell == "bash":
            assert found == expected, line


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_names_of_models_are_the_nodes(folder: Path, shell: str, cli: Cli) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    assert {"tiny-q8", "spread-q8"} <= asked(folder, shell, f"rm --url {cli.url} ")
    assert {"tiny-q8"} <= asked(folder, shell, f"chat --url {cli.url} --model t")


@pytest.mark.parametrize("shell", [*Shell])
def test_the_shell_reads_its_script(folder: Path, shell: Shell) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    done = subprocess.run(
        [shell, "-n", f"swarmd.{shell}"], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
