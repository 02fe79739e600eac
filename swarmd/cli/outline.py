"""The commands as plain data, read off the parser: what the completion scripts and the reference page are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption
from typer.main import get_command


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionLine:
    """One option of a command."""

    names: tuple[str, ...]
    """`--model`, `-m`; of a switch with a no both."""
    metavar: str | None
    """What its value is called; None: a switch."""
    choices: tuple[str, ...]
    is_path: bool
    help: str
    default: str
    """What is taken without it, in words; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentLine:
    """One positional argument."""

    metavar: str
    choices: tuple[str, ...]
    is_path: bool
    required: bool
    many: bool
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """A command, or a group of them."""

    path: tuple[str, ...]
    """Without the program's own name."""
    help: str
    section: str
    """Under which heading the help lists it."""
    usage: str
    arguments: tuple[ArgumentLine, ...]
    options: tuple[OptionLine, ...]
    children: tuple[CommandLine, ...]

    def walk(self) -> Iterator[CommandLine]:
        """This one and everything below it, in order."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def name(self) -> str:
        return " ".join(self.path)


def outline(commands: typer.Typer) -> CommandLine:
    """The whole program."""
    return outline_of(get_command(commands))


def outline_of(root: Any) -> CommandLine:
    """The same from a command of the parser, as a running command sees it."""
    return _read(root, (), root.context_class(root, info_name="swarmd", **root.context_settings))


def _read(command: Any, path: tuple[str, ...], context: Any) -> CommandLine:
    parameters = [one for one in command.get_params(context) if not getattr(one, "hidden", False)]
    children: list[CommandLine] = []
    if isinstance(command, TyperGroup):
        for name in command.list_commands(context):
            child: Any = command.get_command(context, name)
            if child is not None and not child.hidden:
                below = child.context_class(child, parent=context, info_name=name, **child.context_settings)
                children.append(_read(child, (*path, name), below))
    pieces = " ".join(command.collect_usage_pieces(context))
    return CommandLine(
        path=path, help=_words(command.help), section=getattr(command, "rich_help_panel", None) or "",
        children=tuple(children), usage=f"{context.command_path} {pieces}".rstrip(),
        arguments=tuple(_argument(one) for one in parameters if isinstance(one, TyperArgument)),
        options=tuple(_option(one) for one in parameters if isinstance(one, TyperOption)),
    )  # fmt: skip


def _argument(one: Any) -> ArgumentLine:
    return ArgumentLine(
        metavar=one.metavar or one.name.upper(), choices=_choices(one),
        is_path=_is_path(one), required=one.required, many=one.nargs == -1, help=_words(one.help),
    )  # fmt: skip


def _option(one: Any) -> OptionLine:
    default = one.show_default if isinstance(one.show_default, str) else ""
    if not default and one.default not in (None, False, ()) and not callable(one.default):
        default = str(one.default.value if isinstance(one.default, Enum) else one.default)
    if one.is_flag:
        default = ""
    metavar = None if one.is_flag else one.metavar or "|".join(_choices(one)) or _kind(one)
    return OptionLine(
        names=(*one.opts, *one.secondary_opts), metavar=metavar, choices=_choices(one), is_path=_is_path(one),
        help=_words(one.help), default=default,
    )  # fmt: skip


def _kind(one: Any) -> str:
    """What to call a value that has no name of its own."""
    described = one.type_descriptor
    if described.is_path:
        return "PATH"
    return "NUMBER" if described.is_ranged or described.annotation in (int, float) else "TEXT"


def _choices(one: Any) -> tuple[str, ...]:
    described = one.type_descriptor
    found: Any = described.choices if described.is_choice else ()
    return tuple(str(choice.value if isinstance(choice, Enum) else choice) for choice in found or ())


def _is_path(one: Any) -> bool:
    return bool(one.type_descriptor.is_path)


def _words(text: str | None) -> str:
    """One line."""
    return " ".join((text or "").split())
