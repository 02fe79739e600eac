"""Examples are commands that exist, with options that they have."""

from __future__ import annotations

import shlex

from swarmd.cli.examples import EXAMPLES
from swarmd.cli.outline import outline
from swarmd.cli.program import program

WITHOUT = {
    "model", "model list", "model remove", "adapters", "adapters list", "adapters rm", "unlock", "version", "config path",
    "responses show", "responses cancel", "responses rm", "downloads pause", "downloads resume", "downloads cancel",
    "providers remove",
}  # fmt: skip
"""What needs none: their usage says everything."""


def test_every_command_has_examples() -> None:
    names = {command.name for command in outline(program()).walk()}
    assert set(EXAMPLES) <= names, "an example of a command that is gone"
    assert names - set(EXAMPLES) == WITHOUT


def test_every_example_can_be_typed() -> None:
    commands = {command.name: command for command in outline(program()).walk()}
    for of, examples in EXAMPLES.items():
        for line, _ in examples:
            piece = next(part for part in line.split("|") if "swarmd" in part)
            words = shlex.split(piece.split(" < ")[0].split(" > ")[0])
            words = words[words.index("swarmd") + 1 :]
            name = next(" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in commands)
            assert not of or name == of or name.startswith(f"{of} "), line
            options = {one for option in commands[name].options for one in option.names}
            used = {word for word in words if word.startswith("-") and word != "-"}
            assert used <= options, (line, used - options)


def test_they_stand_under_the_help() -> None:
    from typer.testing import CliRunner

    shown = CliRunner().invoke(program(), ["model", "add", "--help"]).stdout
    assert "Examples" in shown and "swarmd model add ~/models/tiny.gguf" in shown
