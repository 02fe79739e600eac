"""The commands and their names: the table of contents of `swarmd --help`."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Final

import typer
from msgspec import Struct
from typer.core import TyperCommand, TyperGroup, TyperOption

from swarmd import __version__
from swarmd.cli import (
    adapters,
    ask,
    autopilot,
    background,
    bench,
    chat,
    completion,
    credits,
    doctor,
    downloads,
    help_topics,
    logs,
    members,
    memory,
    models,
    network,
    providers,
    responses,
    running,
    search,
    service,
    settings,
    update,
)
from swarmd.cli.examples import say_examples
from swarmd.cli.failure import CLOSED_PIPE, FAILED
from swarmd.cli.network import AsJson
from swarmd.cli.terminal import complain, say, say_json

TALK: Final = "Talk and look"
MODELS: Final = "Models"
SWARM: Final = "The swarm"
NODE: Final = "This node"


class _Command(TyperCommand):
    """Its help shows no placeholder behind switches, which take no value, and ends with examples."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        say_examples(_name(ctx))


class _Group(TyperGroup):
    """The same of a command with verbs."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        say_examples(_name(ctx))


def _name(context: Any) -> str:
    """`model add`: without the program's own name, which may be `python -m swarmd`."""
    return "" if context.parent is None else f"{_name(context.parent)} {context.info_name}".strip()


def _plain(parameters: list[Any]) -> list[Any]:
    for one in parameters:
        if isinstance(one, TyperOption) and one.is_flag:
            one.metavar = ""
    return parameters


@dataclass(frozen=True, slots=True)
class Entry:
    """A command by its name, and under which heading of the help it stands."""

    section: str
    name: str
    run: Callable[..., None]
    hidden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verbs:
    """A command with verbs."""

    section: str
    name: str
    help: str
    verbs: tuple[tuple[str, Callable[..., None]], ...]
    alone: Callable[..., None] | None = None
    """What it does without a verb; None: it shows its help."""
    hidden: bool = False


class Versions(Struct, frozen=True, kw_only=True):
    """What `version --json` prints."""

    swarmd: str
    engine: str
    python: str
    system: str
    machine: str


def show_version(*, as_json: AsJson = False) -> None:
    """Print the versions that matter in a bug report."""
    found = Versions(
        swarmd=__version__, engine=installed("xllamacpp"), python=platform.python_version(), system=platform.system(),
        machine=platform.machine(),
    )  # fmt: skip
    if as_json:
        say_json(found)
        return
    say(f"swarmd {found.swarmd}")
    say(f"engine xllamacpp {found.engine}")
    say(f"Python {found.python} on {found.system} {found.machine}")


ENTRIES: Final[tuple[Entry | Verbs, ...]] = (
    Entry(TALK, "chat", chat.chat),
    Entry(TALK, "ask", ask.ask),
    Verbs(
        section=TALK, name="responses", help="Responses that the node keeps; with a verb: read, cancel or delete one.",
        alone=responses.show, verbs=(("show", responses.read), ("cancel", responses.cancel), ("rm", responses.remove)),
    ),
    Entry(TALK, "status", network.status),
    Entry(TALK, "bench", bench.bench),
    Entry(MODELS, "models", models.list_models),
    Entry(MODELS, "search", search.search),
    Entry(MODELS, "get", downloads.get),
    Verbs(
        section=MODELS, name="downloads", help="What is being fetched, by shard; with a verb, change it.",
        alone=downloads.show,
        verbs=(
            ("pause", downloads.pause), ("resume", downloads.resume), ("cancel", downloads.cancel), ("move", downloads.move),
        ),
    ),
    Entry(MODELS, "load", memory.load),
    Entry(MODELS, "unload", memory.unload),
    Entry(MODELS, "rm", memory.rm),
    Verbs(
        section=MODELS, name="model", help="GGUF files of this machine, and models of the other nodes.",
        verbs=(("add", models.add), ("list", models.list_models), ("fetch", models.fetch), ("remove", memory.rm)),
    ),
    Verbs(
        section=MODELS, name="adapters", help="LoRA adapters of this node; with a verb, add or remove.", alone=adapters.show,
        verbs=(("list", adapters.list_adapters), ("add", adapters.add), ("rm", adapters.remove)),
    ),
    Verbs(
        section=MODELS, name="providers", help="Servers of others that answer in place of the swarm.", alone=providers.show,
        verbs=(
            ("set", providers.set_key), ("add", providers.add), ("remove", providers.remove),
            ("key-source", providers.key_source), ("subscription", providers.subscription),
        ),
    ),
    Entry(MODELS, "autopilot", autopilot.autopilot),
    Entry(MODELS, "lock", autopilot.lock),
    Entry(MODELS, "unlock", autopilot.unlock),
    Entry(SWARM, "invite", network.invite),
    Entry(SWARM, "join", network.join),
    Entry(SWARM, "peers", network.peers),
    Entry(SWARM, "members", members.members),
    Entry(SWARM, "revoke", members.revoke),
    Entry(SWARM, "credits", credits.credits),
    Entry(NODE, "run", running.run),
    Entry(NODE, "up", background.up),
    Entry(NODE, "down", background.down),
    Verbs(
        section=NODE, name="service", help="The node as a service of systemd.",
        verbs=(("install", service.install), ("uninstall", service.uninstall), ("status", service.status)),
    ),
    Verbs(
        section=NODE, name="update", help="New versions of swarmd: what is known; with a verb, look now, or switch.",
        alone=update.update, verbs=(("check", update.check), ("apply", update.apply)),
    ),
    Entry(NODE, "logs", logs.logs),
    Verbs(
        section=NODE, name="config", help="Every setting of the node, read and changed.",
        verbs=(
            ("list", settings.list_settings), ("get", settings.get), ("set", settings.set_), ("path", settings.where),
        ),
    ),
    Entry(NODE, "doctor", doctor.doctor),
    Entry(NODE, "version", show_version),
    Entry(NODE, "completion", completion.completion),
    Entry(NODE, "help", help_topics.show),
)  # fmt: skip


def program() -> typer.Typer:
    """Everything that `swarmd` can be asked to do."""
    commands = typer.Typer(
        name="swarmd",
        cls=_Group,
        help="One machine out of several: run one language model over many nodes.",
        no_args_is_help=True,
        invoke_without_command=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    commands.callback()(_root)
    for entry in ENTRIES:
        if isinstance(entry, Entry):
            commands.command(entry.name, cls=_Command, rich_help_panel=entry.section, hidden=entry.hidden)(entry.run)
            continue
        group = typer.Typer(cls=_Group, help=entry.help, no_args_is_help=entry.alone is None)
        if entry.alone is not None:
            group.callback(invoke_without_command=True)(entry.alone)
        for name, verb in entry.verbs:
            group.command(name, cls=_Command)(verb)
        commands.add_typer(group, name=entry.name, rich_help_panel=entry.section, hidden=entry.hidden)
    return commands


def _root(
    *, shown: Annotated[bool, typer.Option("--version", "-V", help="Print the version.", is_eager=True)] = False
) -> None:
    """One machine out of several: run one language model over many nodes."""
    if shown:
        say(f"swarmd {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point. Never returns: ends the process with the command's exit code."""
    code: Any = 0
    try:
        try:
            program()(prog_name="swarmd")
        except SystemExit as ended:
            code = ended.code
        sys.stdout.flush()
    except BrokenPipeError:
        _let_go_of_stdout()
        code = CLOSED_PIPE
    except OSError as error:
        _let_go_of_stdout()
        if not code:  # else a sentence was said already
            code = FAILED
            with contextlib.suppress(OSError):  # stderr may be as full
                what = str(error) if error.filename else f"the output cannot be written: {error.strerror or error}"
                complain(what)
    sys.exit(code)


def _let_go_of_stdout() -> None:
    """What could not be written is not tried again, which Python does at the end of a process, with a traceback."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "is not installed"
