"""The commands as plain data."""

from __future__ import annotations

from swarmd.cli.outline import CommandLine, outline
from swarmd.cli.program import program


def commands() -> dict[str, CommandLine]:
    return {command.name: command for command in outline(program()).walk()}


def test_it_has_every_command_with_its_section_and_help() -> None:
    found = commands()
    assert {"", "run", "model", "model add", "downloads move", "config set"} <= set(found)
    assert all(command.help for command in found.values())
    assert all(command.section for command in outline(program()).children)


def test_it_tells_switches_values_choices_and_paths_apart() -> None:
    found = commands()
    options = {name: one for one in found["run"].options for name in one.names}
    assert options["--data-dir"].is_path and options["--data-dir"].metavar == "PATH"
    assert options["--port"].metavar == "NUMBER" and not options["--port"].is_path
    assert {name: one for one in found["rm"].options for name in one.names}["-y"].metavar is None
    (state,) = found["autopilot"].arguments
    assert state.choices == ("on", "off") and not state.required
    (words,) = found["search"].arguments
    assert words.many and words.required
