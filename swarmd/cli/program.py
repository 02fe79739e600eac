"""The commands and their names: the table of contents of `swarmd --help`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import typer

from swarmd import __version__
from swarmd.cli import autopilot, chat, doctor, downloads, members, models, network, running, search
from swarmd.cli.terminal import say


def program() -> typer.Typer:
    """Everything that `swarmd` can be asked to do."""
    commands = typer.Typer(
        name="swarmd",
        help="One machine out of several: run one language model over many nodes.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    commands.command("run")(running.run)
    commands.command("chat")(chat.chat)
    commands.command("status")(network.status)
    commands.command("peers")(network.peers)
    commands.command("invite")(network.invite)
    commands.command("join")(network.join)
    commands.command("members")(members.members)
    commands.command("revoke")(members.revoke)
    commands.command("models")(models.list_models)
    commands.add_typer(_model_program(), name="model")
    commands.command("autopilot")(autopilot.autopilot)
    commands.command("lock")(autopilot.lock)
    commands.command("unlock")(autopilot.unlock)
    commands.command("search")(search.search)
    commands.command("get")(downloads.get)
    commands.add_typer(_downloads_program(), name="downloads")
    commands.command("doctor")(doctor.doctor)
    commands.command("version")(show_version)
    return commands


def main() -> None:
    """Entry point. Never returns: ends the process with the command's exit code."""
    program()()


def show_version() -> None:
    """Print the versions that matter in a bug report."""
    say(f"swarmd {__version__}")
    say(f"engine xllamacpp {installed('xllamacpp')}")
    say(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "is not installed"


def _model_program() -> typer.Typer:
    commands = typer.Typer(help="The models of this node.", no_args_is_help=True)
    commands.command("add")(models.add)
    commands.command("list")(models.list_models)
    commands.command("fetch")(models.fetch)
    commands.command("remove")(models.remove)
    return commands


def _downloads_program() -> typer.Typer:
    commands = typer.Typer(invoke_without_command=True)
    commands.callback()(downloads.show)
    commands.command("pause")(downloads.pause)
    commands.command("resume")(downloads.resume)
    commands.command("cancel")(downloads.cancel)
    return commands
