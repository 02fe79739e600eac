"""`up`, `down`: a node in the background without systemd.

`up` starts the launcher of `swarmd/updates` in a session of its own; it starts the node, starts it again when it crashes,
keeps its log in files that are turned over, and holds a lock on the pid file for as long as it lives. `down` ends it by that
file."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Annotated, Final

import typer

from swarmd import __version__
from swarmd.api import whereabouts
from swarmd.cli.failure import FAILED, Failure
from swarmd.cli.place import Config, DataFolder, flags_of, settings_of
from swarmd.cli.terminal import complain, finish, say
from swarmd.kit import notify
from swarmd.kit.disk import Disk
from swarmd.kit.world import real_world
from swarmd.updates import launcher

PID_NAME: Final = "swarmd.pid"
LOG_NAME: Final = "log/swarmd.log"
START_S: Final = 300.0  # a node that recovers scans its shards; somebody who does not want to wait presses Ctrl-C
END_S: Final = launcher.END_S + 10.0
POLL_S: Final = 0.1
LAST_BYTES: Final = 4096  # of the log, when it did not start
LAST_LINES: Final = 5

Wait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until the node is ready.")]


def up(
    *,
    data_dir: DataFolder = None,
    config: Config = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="Port of the API; peers: this number plus 10.")] = None,
    listen: Annotated[str | None, typer.Option("--listen", help="Address of the API; 0.0.0.0 for other machines.")] = None,
    no_wait: Wait = False,
) -> None:
    """Run a node in the background, and start it again when it fails; `swarmd down` ends it."""
    given: list[tuple[str, object]] = [
        ("--data-dir", data_dir), ("--config", config), ("--port", port), ("--listen", listen)
    ]  # fmt: skip
    options = [text for name, value in given if value is not None for text in (name, _word(value))]
    try:
        flags = flags_of(data_dir, node__listen_port=port, node__listen_address=listen)
        start(Path(settings_of(flags, config=config).settings.node.data_dir), options, wait=not no_wait)
    except Failure as failure:
        complain(str(failure))
        raise typer.Exit(failure.exit_code) from None
    except OSError as error:
        complain(f"the node cannot be started: {error}")
        raise typer.Exit(FAILED) from None


def down(*, data_dir: DataFolder = None, config: Config = None) -> None:
    """End the node that `swarmd up` started; what it computes now is ended, too."""
    finish(_down(data_dir, config))


def start(folder: Path, options: list[str], *, wait: bool) -> None:
    """Raises Failure when another node runs there, and when it does not become ready, with its last words."""
    disk, log = Disk(), folder / LOG_NAME
    for made in (folder, log.parent):
        disk.make_folder_now(made, mode=0o700)
    if (pid := running_pid(folder)) is not None:
        where = whereabouts.read_now(folder, disk=disk)
        say(f"a node runs already (process {pid}){f': {where}' if where else ''}")
        return
    if (where := whereabouts.read_now(folder, disk=disk)) is not None:
        raise Failure(f"a node runs already at {where}, not by `swarmd up`: end it where it runs, or with systemctl")
    ours, theirs = socket.socketpair()
    line = launcher.command(
        data=folder, installed=__version__, arguments=["run", *options], supervise=True, log=log, pid_file=folder / PID_NAME
    )
    began = disk.size_bytes_now(log) if disk.exists_now(log) else 0
    environ = {**os.environ, notify.LAUNCHER_FD: str(theirs.fileno())}
    with ours:
        process = subprocess.Popen(
            line, env=environ, pass_fds=(theirs.fileno(),), start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        if not wait:
            _let_go(process)
            say(f"starting in the background (process {process.pid}); its log: {log}")
            return
        ready = _heard_ready(ours)
        if ready is None:
            _let_go(process)
            raise Failure(f"the node is not ready after {START_S:.0f} s; it goes on in the background, its log: {log}")
        if not ready:
            process.wait()
            raise Failure(f"the node did not start{_last_words(disk, log, began)}")
    _let_go(process)
    say(f"swarmd is ready: {whereabouts.read_now(folder, disk=disk) or 'its folder does not say where'}")
    say(f"it runs in the background (process {process.pid}); `swarmd down` ends it; its log: {log}")


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """It outlives this command, which is not to complain that nobody waited for it."""
    process.returncode = 0


def running_pid(folder: Path) -> int | None:
    """Of the launcher that holds the pid file; None: none does, whatever the file says."""
    try:
        descriptor = os.open(folder / PID_NAME, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(descriptor, 32).decode("ascii", errors="replace").strip()
        return int(text) if text.isdecimal() else None
    finally:
        os.close(descriptor)
    return None


async def _down(data_dir: Path | None, config: Path | None) -> None:
    folder = Path(settings_of(flags_of(data_dir), config=config).settings.node.data_dir)
    pid = running_pid(folder)
    if pid is None:
        where = whereabouts.read_now(folder, disk=Disk())
        if where is None:
            say("no node runs in the background")
            return
        raise Failure(f"the node at {where} was not started by `swarmd up`: end it where it runs, or with systemctl")
    clock = real_world().clock
    os.kill(pid, signal.SIGTERM)
    end = clock.monotonic() + END_S
    while running_pid(folder) == pid:
        if clock.monotonic() > end:
            raise Failure(f"process {pid} did not end within {END_S:.0f} s")
        await asyncio.sleep(POLL_S)
    say("the node has ended")


def _heard_ready(line: socket.socket) -> bool | None:
    """False: it ended. None: it takes long."""
    clock = real_world().clock
    end, text = clock.ticks() + START_S, ""
    while f"{notify.READY}\n" not in text:
        line.settimeout(max(0.0, end - clock.ticks()) or 0.001)
        try:
            data = line.recv(4096)
        except TimeoutError:
            return None
        if not data:
            return False
        text = (text + data.decode(errors="replace"))[-8192:]
    return True


def _last_words(disk: Disk, log: Path, began: int) -> str:
    try:
        size = disk.size_bytes_now(log)
        text = disk.read_range_now(log, max(began, size - LAST_BYTES), LAST_BYTES).decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip()][-LAST_LINES:]
    return "".join(f"\n  {line}" for line in lines)


def _word(value: object) -> str:
    return str(value.absolute()) if isinstance(value, Path) else str(value)
