"""`service install`, `uninstall`, `status`: a node that systemd starts at boot and starts again when it fails.

As root a service of the system with a user of its own; otherwise one of this user. Says each file it writes and each command
it runs, and where systemd does not run, what to do instead."""

from __future__ import annotations

import importlib.resources
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from swarmd.api import whereabouts
from swarmd.cli.failure import FAILED, Failure
from swarmd.cli.place import absolute
from swarmd.cli.terminal import complain, say
from swarmd.kit.disk import Disk

UNIT: Final = "swarmd.service"
SYSTEM_DATA: Final = "/var/lib/swarmd"
RUNNING_MARK: Final = Path("/run/systemd/system")  # sd_booted(3)
COMMAND_S: Final = 330.0  # `enable --now` waits until the node is ready, for which the unit gives it 300 s
HIDDEN: Final = ("/home", "/root", "/run/user")  # by ProtectHome=yes
FILE_LIMIT: Final = 64 * 1024  # bytes of a unit

AsUser = Annotated[bool, typer.Option("--user", help="A service of this user, also for root.")]
Root = Annotated[
    Path | None, typer.Option("--root", help="Write the files below this folder and run nothing: for images and packages.")
]
NoStart = Annotated[bool, typer.Option("--no-start", help="Write the files, do not start the node.")]

Run = Callable[[Sequence[str]], "Outcome"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a command."""

    code: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the service goes."""

    user: bool
    root: Path
    home: Path
    booted: bool
    """systemd runs here, and is ours to talk to."""

    @property
    def unit(self) -> Path:
        if self.user:
            return self._at(self.home / ".config" / "systemd" / "user" / UNIT)
        return self._at(Path("/etc/systemd/system") / UNIT)

    @property
    def others(self) -> dict[str, Path]:
        """Further files of the system's service, by the name of their template."""
        if self.user:
            return {}
        return {
            "sysusers.conf": self._at(Path("/etc/sysusers.d/swarmd.conf")),
            "tmpfiles.conf": self._at(Path("/etc/tmpfiles.d/swarmd.conf")),
        }

    @property
    def systemctl(self) -> list[str]:
        return ["systemctl", "--user"] if self.user else ["systemctl"]

    def _at(self, path: Path) -> Path:
        return self.root / path.relative_to("/")


def target(*, user: bool, root: Path | None) -> Target:
    as_user = user or (os.geteuid() != 0 and root is None)
    booted = root is None and RUNNING_MARK.is_dir()
    return Target(user=as_user, root=Path("/") if root is None else absolute(root), home=Path.home(), booted=booted)


def install(*, user: AsUser = False, root: Root = None, no_start: NoStart = False) -> None:
    """Make the node a service that starts at boot."""
    _told(lambda: put_in(target(user=user, root=root), start=not no_start, program=program_line(), run=run_command))


def uninstall(*, user: AsUser = False, root: Root = None) -> None:
    """Stop the service and remove its files. Keys, state and shards stay."""
    _told(lambda: take_out(target(user=user, root=root), run=run_command))


def status(*, user: AsUser = False) -> None:
    """Whether the service is installed, enabled, and running."""
    _told(lambda: show(target(user=user, root=None), run=run_command))


def _told(work: Callable[[], None]) -> None:
    try:
        work()
    except Failure as failure:
        complain(str(failure))
        raise typer.Exit(failure.exit_code) from None
    except OSError as error:
        complain(f"the service's files cannot be changed: {error}")
        raise typer.Exit(FAILED) from None


def put_in(where: Target, *, start: bool, program: str, run: Run) -> None:
    """Raises Failure when a command fails, or the program is where the service cannot see it; OSError."""
    if not where.user and (hidden := hidden_from_service(program)) is not None:
        raise Failure(
            f"a service of the system does not look into {hidden}, where swarmd or its Python is: install it for all users "
            "(`pipx install --global swarmd`), or take a service of your user (`swarmd service install --user`)"
        )
    text = template(f"user/{UNIT}" if where.user else UNIT)
    lines = [f"ExecStart={program}" if line.startswith("ExecStart=") else line for line in text.splitlines()]
    _write(where.unit, "\n".join(lines) + "\n")
    for name, path in where.others.items():
        _write(path, template(name))
    if not where.booted:
        _say_without_systemd(where)
        return
    if not where.user:
        _must(run, ["systemd-sysusers"])
        _must(run, ["systemd-tmpfiles", "--create", "/etc/tmpfiles.d/swarmd.conf"])
    _must(run, [*where.systemctl, "daemon-reload"])
    _must(run, [*where.systemctl, "enable", *(["--now"] if start else []), "swarmd"])
    say("the node runs, and starts at boot" if start else "the node starts at the next boot")
    if where.user:
        say("it runs while you are logged in; `loginctl enable-linger` makes it run from boot on")
    say(f"its log: journalctl {'--user ' if where.user else ''}-u swarmd -f")
    if not where.user:
        say(f"commands need to know its folder, and a user who may read it: sudo swarmd status --data-dir {SYSTEM_DATA}")


def take_out(where: Target, *, run: Run) -> None:
    files = [where.unit, *where.others.values()]
    there = [path for path in files if path.exists()]
    if not there:
        raise Failure(f"there is no service: {where.unit} does not exist")
    if where.booted:
        _must(run, [*where.systemctl, "disable", "--now", "swarmd"])
    for path in there:
        Disk().remove_now(path)
        say(f"removed {path}")
    if where.booted:
        _must(run, [*where.systemctl, "daemon-reload"])
    say(f"keys, state and shards stay{'' if where.user else f' in {SYSTEM_DATA}, and so does the user swarmd'}")


def show(where: Target, *, run: Run) -> None:
    """Raises Failure when there is no service, or it does not run."""
    if not where.unit.exists():
        raise Failure(f"there is no service ({where.unit} does not exist): `swarmd service install` makes one")
    say(f"installed: {where.unit}")
    if not where.booted:
        raise Failure("systemd does not run here, so neither does the service: `swarmd up` starts a node without it")
    enabled = run([*where.systemctl, "is-enabled", "swarmd"]).text.strip() or "unknown"
    active = run([*where.systemctl, "is-active", "swarmd"]).text.strip() or "unknown"
    say(f"starts at boot: {enabled}")
    say(f"now: {active}")
    words = run([*where.systemctl, "show", "swarmd", "--property=StatusText", "--value"]).text.strip()
    if words:
        say(words)
    url = whereabouts.read_now(Path(SYSTEM_DATA), disk=Disk()) if not where.user else None
    if url is not None:
        say(f"it answers at {url}")
    if active != "active":
        raise Failure(f"the service does not run: journalctl {'--user ' if where.user else ''}-u swarmd says why")


def program_line() -> str:
    """How the service starts this very program."""
    command = Path(sys.argv[0])
    if command.name == "swarmd" and command.is_file() and os.access(command, os.X_OK):
        return f"{_word(str(command.absolute()))} run"
    return f"{_word(sys.executable)} -m swarmd run"


def _word(path: str) -> str:
    """As a unit has it: % begins a specifier of systemd's, and a blank ends a word (systemd.service(5), "Command lines")."""
    path = path.replace("%", "%%")
    if not set(path) & set(" \t\"'\\;"):
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def hidden_from_service(program: str) -> str | None:
    """The folder of the program, or of the interpreter below it, that ProtectHome=yes hides; None: it sees both."""
    command = shlex.split(program)[0].replace("%%", "%")
    for path in (command, os.path.realpath(command), sys.prefix, sys.base_prefix):
        for folder in HIDDEN:
            if path == folder or path.startswith(f"{folder}/"):
                return folder
    return None


def template(name: str) -> str:
    """A file of the folder `systemd`: in the installed package, or beside it in a tree of the sources."""
    packaged = importlib.resources.files("swarmd") / "systemd"
    for part in name.split("/"):
        packaged = packaged / part
    if packaged.is_file():
        return packaged.read_text()
    return Disk().read_bytes_now(Path(__file__).parents[2] / "systemd" / name, limit=FILE_LIMIT).decode()


def run_command(line: Sequence[str]) -> Outcome:
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Outcome(FAILED, str(error))
    return Outcome(done.returncode, done.stdout or done.stderr)


def _must(run: Run, line: Sequence[str]) -> None:
    done = run(line)
    if done.code:
        raise Failure(f"`{' '.join(line)}` failed: {' '.join(done.text.split())[:500]}")
    say(f"ran {' '.join(line)}")


def _write(path: Path, text: str) -> None:
    disk = Disk()
    disk.make_folder_now(path.parent)
    disk.write_atomic_now(path, text.encode())
    say(f"wrote {path}")


def _say_without_systemd(where: Target) -> None:
    if where.root != Path("/"):
        say("nothing was started: the files are in place for the system that boots from there")
        return
    say("systemd does not run here, so nothing was started: `swarmd up` starts the node in the background now")
    say("to have it at boot without systemd, add this line with `crontab -e`: @reboot swarmd up")
