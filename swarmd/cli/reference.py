"""The page docs/cli.md, printed from the parser, the examples, the exit codes and the shapes of --json.

`python -m swarmd.cli.reference` writes it; a test compares.
"""

from __future__ import annotations

import typing
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from swarmd.cli.examples import EXAMPLES
from swarmd.cli.failure import EXIT_CODES
from swarmd.cli.help_topics import NODE_TEXT
from swarmd.cli.json_shapes import SHAPES, shape_name
from swarmd.cli.outline import CommandLine, OptionLine, outline
from swarmd.cli.program import program
from swarmd.kit.disk import Disk

PAGE: Final = Path("docs/cli.md")
EVERYWHERE: Final = ("--url", "--data-dir", "--config", "--api-key-file")

_HEAD: Final = """\
# Command line

What `swarmd` can be asked to do. `swarmd COMMAND --help` says the same with the terminal's own width, and
`swarmd help TOPIC` has the texts on exit codes, on JSON and on which node is meant.

This page is printed from the parser by `python -m swarmd.cli.reference`.
"""

_COMPLETION: Final = """\
## Completion

`swarmd completion bash|zsh|fish` prints a script. It completes commands, options and settings by itself, and asks the node
for the names of models, downloads, adapters, members and invites: for half a second at most, and in silence when none runs.

    swarmd completion bash > ~/.local/share/bash-completion/completions/swarmd
    swarmd completion zsh > ~/.zfunc/_swarmd        # with fpath+=~/.zfunc before compinit in ~/.zshrc
    swarmd completion fish > ~/.config/fish/completions/swarmd.fish
"""

_PIPES: Final = """\
## Pipes and colours

On a terminal tables leave out what is least important until they fit; into a pipe or a file each row is one line with every
column, and nothing is coloured. `NO_COLOR` switches colours off on the terminal as well. `ask` writes the reply alone to
stdout and all else to stderr. Whoever reads the output may go away at any time.
"""


def cli_reference() -> str:
    """The whole page."""
    root, own = outline(program()), _own()
    linked = {shape.__name__ for shape in own}
    sections: dict[str, list[CommandLine]] = {}
    for command in root.children:
        sections.setdefault(command.section, []).append(command)
    parts = [_HEAD, _which_node(), _exit_codes(), _PIPES, _COMPLETION, _overview(sections)]
    for name, commands in sections.items():
        parts.append(f"## {name}\n")
        parts += [_command(one, linked) for command in commands for one in command.walk()]
    parts += ["## JSON\n", _JSON, *map(_shape, own)]
    return "\n".join(parts)


_JSON: Final = """\
Each command that prints something takes `--json`: one value on stdout, of the shape named with the command. Within a major
version no field goes away or changes its type; fields may be added. Shapes that are not here are those of the API:
`/api/docs` on the node. When a command fails, stdout is empty.
"""


def _which_node() -> str:
    return f"## Which node\n\n{NODE_TEXT}\n"


def _exit_codes() -> str:
    rows = [f"| {row.code} | {row.name} | {row.meaning} |" for row in EXIT_CODES]
    return "\n".join(["## Exit codes", "", "| Code | Name | When |", "|---|---|---|", *rows]) + "\n"


def _overview(sections: dict[str, list[CommandLine]]) -> str:
    lines = ["## All commands", "", "| Command | What it does |", "|---|---|"]
    for commands in sections.values():
        lines += [f"| [`swarmd {one.name}`](#{_anchor(one)}) | {_cell(one.help)} |" for one in commands]
    return "\n".join(lines) + "\n"


def _command(command: CommandLine, linked: Collection[str]) -> str:
    """`linked`: names of shapes that are on this page."""
    lines = [f"### swarmd {command.name}", "", command.help, "", "```", command.usage, "```", ""]
    lines += [f"- `{one.metavar}`: {one.help or _choices(one.choices)}" for one in command.arguments]
    shared = [one for one in command.options if set(one.names) & set(EVERYWHERE)]
    lines += [_option(one) for one in command.options if one not in shared and "--help" not in one.names]
    if shared:
        lines.append(f"- {', '.join(f'`{one.names[0]}`' for one in shared)}: [which node](#which-node)")
    if command.name in SHAPES:
        lines.append(f"- prints with `--json`: {', or '.join(_linked(one, linked) for one in SHAPES[command.name])}")
    lines.append("")
    if command.name in EXAMPLES:
        lines.append("```sh")
        for line, what in EXAMPLES[command.name]:
            lines += [f"# {what}", line]
        lines += ["```", ""]
    return "\n".join(lines)


def _option(one: OptionLine) -> str:
    value = "" if one.metavar is None else f" {one.metavar}"
    default = f" (default: {one.default})" if one.default else ""
    return f"- `{', '.join(one.names)}{value}`: {one.help}{default}"


def _choices(choices: tuple[str, ...]) -> str:
    return ", ".join(f"`{one}`" for one in choices)


def _anchor(command: CommandLine) -> str:
    """As Markdown makes it of a heading."""
    return f"swarmd-{'-'.join(command.path)}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _own() -> list[type]:
    """Shapes that no API has, in the order of the commands, each once."""
    return [*dict.fromkeys(inner for shapes in SHAPES.values() for shape in shapes for inner in _structs(shape))]


def _structs(shape: Any) -> Iterator[type]:
    """The shape and what it is made of, as far as it is made here."""
    if isinstance(shape, type) and issubclass(shape, msgspec.Struct):
        if not shape.__module__.startswith("swarmd.cli."):
            return
        yield shape
        for hint in typing.get_type_hints(shape).values():
            yield from _structs(hint)
    for argument in typing.get_args(shape):
        yield from _structs(argument)


def _linked(shape: Any, linked: Collection[str]) -> str:
    name = shape_name(shape)
    own = name.removeprefix("list of ")
    return name.replace(own, f"[{own}](#{own.lower()})") if own in linked else f"`{name}`"


def _shape(shape: type) -> str:
    rows = [f"| `{name}` | {_cell(_type_text(hint))} |" for name, hint in typing.get_type_hints(shape).items()]
    return "\n".join([f"### {shape.__name__}", "", "| Field | Type |", "|---|---|", *rows]) + "\n"


def _type_text(hint: Any) -> str:
    """`int`, `list of ModelRow`, `text or null`."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is list:
        return f"list of {_type_text(arguments[0])}"
    if typing.get_origin(hint) is dict:
        return f"object of {_type_text(arguments[1])}"
    if typing.get_origin(hint) is tuple:
        return f"list of {len(arguments)}: {', '.join(map(_type_text, arguments))}"
    if arguments:
        return " or ".join(_type_text(one) for one in arguments)
    plain = {str: "text", bool: "true or false", int: "integer", float: "number", type(None): "null"}
    return plain.get(hint) or hint.__name__


def write(root: Path) -> None:
    Disk().write_atomic_now(root / PAGE, cli_reference().encode())


if __name__ == "__main__":
    write(Path.cwd())
