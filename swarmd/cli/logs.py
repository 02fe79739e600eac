"""`swarmd logs`: what the node wrote, wherever it writes to: systemd's journal, or the file of the background service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Annotated, Final

import typer

from swarmd.cli.failure import NOT_FOUND, Failure
from swarmd.cli.place import Config, DataFolder, flags_of, settings_of
from swarmd.cli.terminal import complain

UNIT: Final = "swarmd.service"
FILE_NAME: Final = "log/swarmd.log"  # in the data folder, as `swarmd up` has it
ASK_S: Final = 5.0  # systemd answers at once or not at all
POLL_S: Final = 0.3  # between two looks at a file that grows
PIECE: Final = 64 * 1024  # bytes read at a time
LINES_MAX: Final = 100_000  # kept in memory at once, some 20 MB


def logs(
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=LINES_MAX, help="So many of the last lines.")] = 100,
    data_dir: DataFolder = None,
    config: Config = None,
) -> None:
    """The log of the node of this machine: the journal's where systemd runs it, else the file of `swarmd up`."""
    try:
        folder = Path(settings_of(flags_of(data_dir), config=config).settings.node.data_dir)
        file = folder / FILE_NAME
        scope, active = _unit() if data_dir is None else (None, False)
        if file.exists() and not active:  # a file of earlier days is not what a service that runs writes
            show_file(file, lines=lines, follow=follow)
            return
        if scope is None:
            raise Failure(
                f"there is no log: no service {UNIT} is known to systemd here, and {file} is not there. A node that "
                "`swarmd run` started writes into the terminal where it runs",
                exit_code=NOT_FOUND,
            )
    except Failure as failure:
        complain(str(failure))
        raise typer.Exit(failure.exit_code) from None
    command = journal_command(scope, lines=lines, follow=follow)
    os.execvp(command[0], command)  # Ctrl-C, the pager and closed pipes are journalctl's own then


def journal_command(scope: str, *, lines: int, follow: bool) -> list[str]:
    """`scope`: `--user` or `--system`."""
    wanted = ["-f"] if follow else ["--no-pager"]
    return ["journalctl", *(["--user"] if scope == "--user" else []), "-u", UNIT, "-n", str(lines), "-o", "cat", *wanted]


def _unit() -> tuple[str | None, bool]:
    """Where systemd knows the unit, and whether it runs. None: nowhere, or there is no systemd."""
    if not shutil.which("systemctl") or not shutil.which("journalctl"):
        return None, False
    for scope in ("--user", "--system"):
        command = ["systemctl", scope, "show", "-p", "LoadState", "-p", "ActiveState", "--value", UNIT]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ASK_S)
        except (OSError, subprocess.TimeoutExpired):
            continue
        found = done.stdout.split()
        if "loaded" in found:
            return scope, "active" in found
    return None, False


def show_file(path: Path, *, lines: int, follow: bool) -> None:
    """The last lines, then what is appended. A file that begins anew, as after a rotation, is read from its start."""
    try:
        with path.open("rb") as file:
            for line in deque(file, maxlen=lines):
                _write(line)
            at = file.tell()
        while follow:
            _wait()
            at = _write_from(path, at)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise Failure(f"{path} cannot be read: {error.strerror or error}") from error


def _wait() -> None:
    import threading

    threading.Event().wait(POLL_S)


def _write_from(path: Path, at: int) -> int:
    """What stands behind `at`; the new end."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(at if at <= size else 0)
            while piece := file.read(PIECE):
                _write(piece)
            return file.tell()
    except FileNotFoundError:  # it is being rotated: the next look finds the new one
        return 0


def _write(data: bytes) -> None:
    sys.stdout.write(data.decode(errors="replace"))
    sys.stdout.flush()
