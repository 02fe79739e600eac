"""The process that starts versions of swarmd and judges them: it stands above the node and belongs to the version before.

`swarmd run` becomes it (exec, same process) when the node asks for an update, and at every later start as long as a version
from the data folder is to run; `swarmd up` starts it in the background. It starts the version that `versions` names. One on
trial has 60 s to say that it is ready; else it is ended and rolled back, and the version before is started. It passes
signals down and what the node tells systemd up. The standard library alone, so that it stays small.

With --supervise it also starts a node again that crashed, with --log it writes what the node prints into files that are
turned over, and with --pid-file it holds a lock that says that it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic  # the launcher measures deadlines of a process, outside of any event loop
from typing import Final

from swarmd.domain.updates import Version, parse_version
from swarmd.kit import notify
from swarmd.kit.notify import Notifier
from swarmd.updates.turned_log import TurnedLog
from swarmd.updates.versions import ATTEMPTS, Versions

EXIT_FAILED: Final = 1
EXIT_AGAIN: Final = 3
"""With which a node asks to be started again."""
READY_S: Final = 60.0  # the issue; a node on a slow disk opens its database and scans its shards in some 20 s
END_S: Final = 15.0  # from SIGTERM to SIGKILL: a node stops within 10 s
ALIVE_S: Final = 5.0  # systemd hears from us as long as the node is not ready; the unit allows 60 s
SILENT_START_S: Final = 300.0  # so long at most: a node that is not on trial may recover for minutes, but not for ever
RESTARTS_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # before each start after a crash, the last one again and again
AGAIN_S: Final = 2.0  # a node that asks to be started again sooner than this is in a circle: it waits like one that crashed
QUIET_S: Final = 300.0  # a node that ran this long is well: the next crash waits the shortest time
NO_ROOM_S: Final = 10.0  # before what could not be written is tried again: somebody has to make room on the disk
LINE_LIMIT: Final = 4096  # bytes of a line from the node that we wait for
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _Asked(Exception):
    """To stop, while it waited for room on the disk."""


class Launcher:
    def __init__(
        self,
        *,
        versions: Versions,
        installed: Version,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        above: Notifier,
        log: TurnedLog | None = None,
        supervise: bool = False,
        ready_s: float = READY_S,
        own: Sequence[str] = (sys.executable, "-m", "swarmd"),
    ) -> None:
        """`arguments`: of `swarmd`, as the user gave them. `above`: whoever started us. `own`: how the installed version is
        started."""
        self._versions, self._installed, self._arguments = versions, installed, arguments
        self._environ, self._above, self._log, self._supervise, self._ready_s = environ, above, log, supervise, ready_s
        self._own = own
        self._stopping = self._ever_ready = False
        self._crashes = 0
        self._put_off: set[Version] = set()
        """Not tried by this process: nothing could be written down before."""
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)

    def run(self) -> int:
        """Until the node has ended for good. Returns the exit code."""
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in (*STOP_SIGNALS, signal.SIGCHLD):
            signal.signal(number, self._signalled)
        try:
            return self._run()
        except _Asked:
            return EXIT_FAILED

    def _run(self) -> int:
        while True:
            version = self._choose()
            on_trial = version is not None and self._is_on_trial(version)
            began = monotonic()
            try:
                child = _Child(self._command(version), self._child_environ(version), with_output=self._log is not None)
            except OSError as error:
                if version is not None and on_trial:
                    self._roll_back(version, f"cannot be started: {error}")
                    continue
                self._say(f"swarmd {version or self._installed} cannot be started: {error}")
                if not self._supervise or not self._rest(RESTARTS_S[-1]):
                    return EXIT_FAILED
                continue
            self._above.tell(notify.status_line(f"starting swarmd {version or self._installed}"))
            was_ready, failure = self._attend(child, version if on_trial else None)
            self._ever_ready |= was_ready
            code = child.code()
            if version is not None and on_trial and not was_ready:
                if self._stopping:
                    self._versions.count_attempt(by=-1)  # it was not its fault
                    return code
                self._roll_back(version, failure or f"ended with exit code {code} before it was ready")
                continue
            if self._stopping:
                return code
            if code == EXIT_AGAIN and monotonic() - began >= AGAIN_S:
                continue
            if code != EXIT_AGAIN and not (self._supervise and code != 0 and self._ever_ready):
                return code
            self._crashes = 0 if monotonic() - began >= QUIET_S else self._crashes
            delay_s = RESTARTS_S[min(self._crashes, len(RESTARTS_S) - 1)]
            self._crashes += 1
            self._say(f"the node ended with exit code {code} and is started again in {delay_s:g} s")
            if not self._rest(delay_s):
                return code

    def _signalled(self, number: int, _frame: object) -> None:
        self._stopping = self._stopping or number in STOP_SIGNALS

    def _is_on_trial(self, version: Version) -> bool:
        trial = self._versions.state().trial
        if trial is None or trial.version != version:
            return False
        return version != self._versions.current()  # else it was killed, or had no room, between the two words of `commit`

    def _choose(self) -> Version | None:
        """What to start. An attempt is written down before it is made."""
        while True:
            version = self._versions.next(self._installed, without=self._put_off)
            trial = self._versions.state().trial
            if version is None or trial is None or not self._is_on_trial(version):
                return version
            if trial.attempts >= ATTEMPTS:
                self._roll_back(version, f"was tried {ATTEMPTS} times and never became ready")
                continue
            try:
                self._versions.keep_database(version)
                self._versions.count_attempt()
            except OSError as error:
                why = f"was not tried, since the state cannot be kept: {error}"
                if trial.attempts:
                    self._roll_back(version, why)
                else:
                    self._put_back(version, why)
                continue
            return version

    def _put_back(self, version: Version, why: str) -> None:
        """Nothing of it ran, so the node as it was can start at once, also where not even this can be written down."""
        self._put_off.add(version)
        self._versions.forget_database(version)  # what is written from now on is newer
        try:
            self._versions.roll_back(version, why)
        except OSError:
            why = f"{why}; it is tried at the next start"
        self._say(f"swarmd {version} {why}")

    def _roll_back(self, version: Version, why: str) -> None:
        """It ran, so the version before must not start on its database: this waits for room on the disk, if need be. Raises
        _Asked when somebody stops us meanwhile."""
        self._say(f"swarmd {version} {why}: it is rolled back")
        while True:
            try:
                self._versions.roll_back(version, why)
                return
            except OSError as error:
                self._say(f"going back cannot be written down, and is tried again in {NO_ROOM_S:g} s: {error}")
            if not self._rest(NO_ROOM_S):
                raise _Asked

    def _command(self, version: Version | None) -> list[str]:
        if version is None:
            return [*self._own, *self._arguments]
        return [str(self._versions.python(version)), "-P", "-m", "swarmd", *self._arguments]

    def _child_environ(self, version: Version | None) -> dict[str, str]:
        environ = dict(self._environ)
        if version is not None:  # nothing of the version before it is to be found first, by its workers neither
            for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"):
                environ.pop(name, None)
            environ["PYTHONSAFEPATH"] = "1"
        if self._above.watchdog_s is not None:
            environ[notify.WATCHDOG_USEC] = f"{self._above.watchdog_s * 1e6:.0f}"
        return environ

    def _attend(self, child: _Child, trial: Version | None) -> tuple[bool, str | None]:
        """Until it has ended: whether it ever was ready, and why we ended it, if we did."""
        course = _Course(began=monotonic(), deadline_s=self._ready_s if trial is not None else None)
        told = False
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ, "wake")
            selector.register(child.line, selectors.EVENT_READ, "line")
            if child.output is not None:
                selector.register(child.output, selectors.EVENT_READ, "output")
            while not child.ended():
                if self._stopping and not told:
                    told = True
                    self._above.tell(notify.STOPPING)
                if course.sign_of_life_is_due(monotonic()):
                    self._above.tell(notify.ALIVE)
                number = course.signal_due(monotonic(), stopping=self._stopping)
                if number is not None:
                    child.send(number)
                for key, _ in selector.select(timeout=course.pause_s(monotonic())):
                    if not self._hear(key.data, child, course, trial):
                        selector.unregister(key.fileobj)
        self._hear("line", child, course, trial)  # what it said last
        self._drain(child)
        child.close()
        return course.ready, course.failure

    def _hear(self, source: str, child: _Child, course: _Course, trial: Version | None) -> bool:
        """False: nothing more comes from there."""
        match source:
            case "wake":
                return _read_all(self._wake) is not None
            case "output":
                return self._copy_output(child)
            case _:
                lines = child.lines()
        for line in lines or ():
            if line == notify.READY:
                course.ready = True
            if trial is not None and course.ready and not course.committed:
                course.committed = self._commit(trial)
            if line != notify.STOPPING:
                self._above.tell(line)
        return lines is not None

    def _commit(self, trial: Version) -> bool:
        """False: it runs, and that could not be written down; its next word is the next occasion."""
        try:
            self._versions.commit(trial)
        except OSError as error:
            self._say(f"swarmd {trial} is ready, and that cannot be written down: {error}")
            return False
        self._say(f"swarmd {trial} is ready and takes the place of the version before")
        return True

    def _copy_output(self, child: _Child) -> bool:
        assert self._log is not None and child.output is not None
        data = os.read(child.output, 65536)
        self._log.write(data)
        return bool(data)

    def _drain(self, child: _Child) -> None:
        """Its last words; a process that it left behind may keep the other end open, and is not waited for."""
        if child.output is not None:
            os.set_blocking(child.output, False)
            with contextlib.suppress(BlockingIOError):
                while self._copy_output(child):
                    pass

    def _rest(self, seconds: float) -> bool:
        """False: somebody asked us to stop meanwhile."""
        until = monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            while not self._stopping and (left := until - monotonic()) > 0:
                self._above.tell(notify.ALIVE)
                if selector.select(timeout=min(left, ALIVE_S)):
                    _read_all(self._wake)
        return not self._stopping

    def _say(self, sentence: str) -> None:
        text = f"launcher: {sentence}\n".encode()
        if self._log is not None:
            self._log.write(text)
        else:
            with contextlib.suppress(OSError):
                os.write(2, text)
        self._above.tell(notify.status_line(sentence))


class _Course:
    """Of one run: what is due when. Times are seconds of `monotonic`."""

    def __init__(self, *, began: float, deadline_s: float | None) -> None:
        """`deadline_s`: until it has to be ready."""
        self.ready = self.committed = False
        self.failure: str | None = None
        self._began, self._deadline_s, self._alive_at = began, deadline_s, began
        self._kill_at: float | None = None

    def signal_due(self, now: float, *, stopping: bool) -> signal.Signals | None:
        if self._kill_at is not None:
            return signal.SIGKILL if now >= self._kill_at else None
        late = self._deadline_s is not None and not self.ready and now - self._began >= self._deadline_s
        if late and not stopping:
            self.failure = f"did not become ready within {self._deadline_s:g} s"
        if not late and not stopping:
            return None
        self._kill_at = now + END_S
        return signal.SIGTERM

    def sign_of_life_is_due(self, now: float) -> bool:
        """As long as the node itself sends none."""
        if self.ready or self._kill_at is not None or now < self._alive_at or now - self._began >= SILENT_START_S:
            return False
        self._alive_at = now + ALIVE_S
        return True

    def pause_s(self, now: float) -> float:
        """Until something is due that no descriptor tells."""
        due = [3600.0]
        if not self.ready:
            due.append(ALIVE_S)
            if self._deadline_s is not None:
                due.append(self._began + self._deadline_s - now)
        if self._kill_at is not None:
            due = [max(self._kill_at - now, 0.1)]
        return max(0.0, min(due))


class _Child:
    """One run of a node."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], *, with_output: bool) -> None:
        self.line, theirs = socket.socketpair()
        """The node's words come in here; it ends itself when our end closes."""
        self.line.setblocking(False)
        self._pending = b""
        self._process = subprocess.Popen(
            command, env={**environ, notify.LAUNCHER_FD: str(theirs.fileno())}, pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL if with_output else None,
            stdout=subprocess.PIPE if with_output else None, stderr=subprocess.STDOUT if with_output else None,
        )  # fmt: skip
        theirs.close()
        self.output: Final = self._process.stdout.fileno() if self._process.stdout is not None else None

    def ended(self) -> bool:
        return self._process.poll() is not None

    def code(self) -> int:
        """As shells have it: 128 and more is a signal."""
        code = self._process.wait()
        return 128 - code if code < 0 else code

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def lines(self) -> list[str] | None:
        """Whole lines that have come; None: no more come."""
        data = _read_all(self.line)
        if data is None:
            return None
        *lines, self._pending = (self._pending + data).split(b"\n")
        self._pending = self._pending[-LINE_LIMIT:]
        return [line.decode(errors="replace") for line in lines if line]

    def close(self) -> None:
        self.line.close()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _read_all(from_socket: socket.socket) -> bytes | None:
    """What is there; None: the other end is closed."""
    try:
        return from_socket.recv(65536) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None


def command(
    *, data: Path, installed: str, arguments: Sequence[str], supervise: bool = False, log: Path | None = None,
    pid_file: Path | None = None,
) -> list[str]:  # fmt: skip
    """How to start one. `arguments`: of `swarmd`."""
    options = ["--data", str(data), "--installed", installed]
    options += ["--supervise"] if supervise else []
    options += ["--log", str(log)] if log is not None else []
    options += ["--pid-file", str(pid_file)] if pid_file is not None else []
    return [sys.executable, "-m", "swarmd.updates.launcher", *options, "--", *arguments]


def take_pid_file(path: Path) -> int | None:
    """Our process id in it, and a lock on it, which goes with this process. None: somebody else has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _is_locked(path: Path) -> bool:
    """By a node that runs without us: what we would start could not, and would be rolled back for it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="launcher")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--installed", type=parse_version, required=True)
    parser.add_argument("--supervise", action="store_true")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--pid-file", type=Path)
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args(arguments)
    versions = Versions(options.data)
    versions.folder.mkdir(parents=True, exist_ok=True)
    lock = take_pid_file(versions.folder / "lock")
    held = take_pid_file(options.pid_file) if options.pid_file is not None else lock
    if lock is None or held is None or _is_locked(options.data / "lock"):
        os.write(2, b"swarmd: another swarmd runs on this data folder: stop it, or choose another with --data-dir\n")
        return EXIT_FAILED
    environ = dict(os.environ)
    above = notify.notifier(environ)
    log = TurnedLog(options.log) if options.log is not None else None
    launcher = Launcher(
        versions=versions, installed=options.installed, arguments=options.arguments, environ=environ, above=above, log=log,
        supervise=options.supervise,
    )  # fmt: skip
    return launcher.run()


if __name__ == "__main__":
    sys.exit(main())
