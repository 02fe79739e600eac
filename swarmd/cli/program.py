"""The commands and their names: the table of contents of `swarmd --help`."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from swarmd.cli import (
    adapters,
    autopilot,
    background,
    chat,
    doctor,
    downloads,
    members,
    models,
    network,
    running,
    search,
    service,
    update,
)
from swarmd.cli.failure import FAILED
from swarmd.cli.terminal import complain


class _Command(TyperCommand):
    """Its help shows no placeholder behind switches, which take no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))


class _Group(TyperGroup):
    """The same of a command with verbs."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))


def _plain(parameters: list[Any]) -> list[Any]:
    for one in parameters:
        if isinstance(one, TyperOption) and one.is_flag:
            one.metavar = ""
    return parameters


def program() -> typer.Typer:
    """Everything that `swarmd` can be asked to do."""
    commands = typer.Typer(
        name="swarmd",
        cls=_Group,
        help="One machine out of several: run one language model over many nodes.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    commands.command("run", cls=_Command)(running.run)
    commands.command("chat", cls=_Command)(chat.chat)
    commands.command("status", cls=_Command)(network.status)
    commands.command("peers", cls=_Command)(network.peers)
    commands.command("invite", cls=_Command)(network.invite)
    commands.command("join", cls=_Command)(network.join)
    commands.command("members", cls=_Command)(members.members)
    commands.command("revoke", cls=_Command)(members.revoke)
    commands.command("models", cls=_Command)(models.list_models)
    commands.add_typer(_model_program(), name="model")
    commands.add_typer(_adapters_program(), name="adapters")
    commands.command("autopilot", cls=_Command)(autopilot.autopilot)
    commands.command("lock", cls=_Command)(autopilot.lock)
    commands.command("unlock", cls=_Command)(autopilot.unlock)
    commands.command("search", cls=_Command)(search.search)
    commands.command("get", cls=_Command)(downloads.get)
    commands.add_typer(_downloads_program(), name="downloads")
    commands.command("doctor", cls=_Command)(doctor.doctor)
    commands.command("up", cls=_Command)(background.up)
    commands.command("down", cls=_Command)(background.down)
    commands.add_typer(_service_program(), name="service")
    commands.add_typer(_update_program(), name="update")
    commands.command("version", cls=_Command)(update.version)
    return commands


def main() -> None:
    """Entry point. Never returns: ends the process with the command's exit code."""
    code: Any = 0
    try:
        try:
            program()()
        except SystemExit as ended:
            code = ended.code
        sys.stdout.flush()
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


def _model_program() -> typer.Typer:
    commands = typer.Typer(cls=_Group, help="The models of this node.", no_args_is_help=True)
    commands.command("add", cls=_Command)(models.add)
    commands.command("list", cls=_Command)(models.list_models)
    commands.command("fetch", cls=_Command)(models.fetch)
    commands.command("remove", cls=_Command)(models.remove)
    return commands


def _adapters_program() -> typer.Typer:
    commands = typer.Typer(cls=_Group, help="LoRA adapters of this node.", no_args_is_help=True)
    commands.command("list", cls=_Command)(adapters.list_adapters)
    commands.command("add", cls=_Command)(adapters.add)
    commands.command("rm", cls=_Command)(adapters.remove)
    return commands


def _downloads_program() -> typer.Typer:
    commands = typer.Typer(cls=_Group, invoke_without_command=True)
    commands.callback()(downloads.show)
    commands.command("pause", cls=_Command)(downloads.pause)
    commands.command("resume", cls=_Command)(downloads.resume)
    commands.command("cancel", cls=_Command)(downloads.cancel)
    commands.command("move", cls=_Command)(downloads.move)
    return commands


def _service_program() -> typer.Typer:
    commands = typer.Typer(cls=_Group, help="The node as a service of systemd.", no_args_is_help=True)
    commands.command("install", cls=_Command)(service.install)
    commands.command("uninstall", cls=_Command)(service.uninstall)
    commands.command("status", cls=_Command)(service.status)
    return commands


def _update_program() -> typer.Typer:
    commands = typer.Typer(cls=_Group, invoke_without_command=True)
    commands.callback()(update.update)
    commands.command("check", cls=_Command)(update.check)
    commands.command("apply", cls=_Command)(update.apply)
    return commands
