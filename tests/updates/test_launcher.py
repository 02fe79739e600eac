"""Versions are started, judged and taken back, with real processes in the place of nodes."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarmd.domain.updates import parse_version
from swarmd.kit import notify
from swarmd.updates import launcher as module
from swarmd.updates.launcher import Launcher, command, take_pid_file
from swarmd.updates.versions import Versions

NODE = Path(__file__).parents[1] / "fakes" / "little_node.py"
ROOT = Path(__file__).parents[2]
OLD, NEW = parse_version("0.1.0"), parse_version("0.2.0")
HARNESS = """
import os, sys
from pathlib import Path
from swarmd.domain.updates import parse_version
from swarmd.kit import notify
from swarmd.updates.launcher import Launcher
from swarmd.updates.turned_log import TurnedLog
from swarmd.updates.versions import Versions
node, behaviour, data, log, supervise, ready_s, *arguments = sys.argv[1:]
environ = dict(os.environ)
above = notify.notifier(environ)
environ["LITTLE_DATA"] = data
launcher = Launcher(
    versions=Versions(Path(data)), installed=parse_version("0.1.0"), arguments=arguments, environ=environ, above=above,
    log=TurnedLog(Path(log)) if log else None, supervise=bool(supervise), ready_s=float(ready_s),
    own=(sys.executable, node, behaviour, "0.1.0"),
)
sys.exit(launcher.run())
"""


class Launched:
    """A launcher in a process of its own, and what it tells upwards."""

    def __init__(
        self, data: Path, behaviour: str, *, log: Path | None = None, supervise: bool = False, ready_s: float = 20.0
    ) -> None:
        """`ready_s`: far more than a little node needs on a busy machine, unless the test is of the limit."""
        self.data = data
        self.above, theirs = socket.socketpair()
        self.above.settimeout(10)
        self.process = subprocess.Popen(
            [
                sys.executable, "-c", HARNESS, str(NODE), behaviour, str(data), str(log or ""), "yes" if supervise else "",
                str(ready_s), "run",
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT), notify.LAUNCHER_FD: str(theirs.fileno())},
            pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        theirs.close()

    def runs(self) -> list[str]:
        path = self.data / "runs.log"
        return path.read_text().splitlines() if path.exists() else []

    def until(self, what: Callable[[], bool]) -> None:
        until = time.monotonic() + 10
        while not what():
            assert time.monotonic() < until, (self.runs(), self.process.poll())
            time.sleep(0.01)

    def heard(self, line: str) -> str:
        text = ""
        while f"{line}\n" not in text:
            data = self.above.recv(4096).decode()
            assert data, f"it never told {line}: {text}"
            text += data
        return text

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=10)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    made: list[Launched] = []

    def start(behaviour: str, **options: object) -> Launched:
        made.append(Launched(tmp_path, behaviour, **options))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for one in made:
        if one.process.poll() is None:
            one.stop()
        one.above.close()
        assert one.process.stderr is not None
        one.process.stderr.close()


def stage(data: Path, behaviour: str, version: str = "0.2.0") -> Versions:
    """A version whose interpreter is the little node."""
    python = data / "versions" / version / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nshift 3\nexec {sys.executable} {NODE} {behaviour} {version} "$@"\n')
    python.chmod(0o755)
    (data / "versions" / version / "whole").touch()
    return Versions(data)


def test_a_version_that_becomes_ready_takes_over(tmp_path: Path, launch: Callable[..., Launched]) -> None:
    versions = stage(tmp_path, "ready")
    versions.begin_trial(NEW)
    launched = launch("ready")
    launched.heard(notify.READY)
    assert versions.current() == NEW and versions.state().trial is None
    assert launched.runs() == ["0.2.0 run"], "with the arguments that the user gave"
    assert launched.stop() == 0
    assert launched.heard(notify.STOPPING)
    again = launch("ready")
    again.heard(notify.READY)
    assert again.runs()[1:] == ["0.2.0 run"], "and is the one from now on"


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [("silent", "did not become ready within 0.7 s"), ("dies:7", "ended with exit code 7 before it was ready"),
     ("dies:3", "ended with exit code 3")],
)  # fmt: skip
def test_one_that_does_not_is_rolled_back(tmp_path: Path, launch: Callable[..., Launched], behaviour: str, why: str) -> None:
    versions = stage(tmp_path, behaviour)
    versions.begin_trial(NEW)
    launched = launch("ready", ready_s=0.7 if behaviour == "silent" else 20.0)
    assert "is rolled back" in launched.heard(notify.READY)
    assert launched.runs() == ["0.2.0 run", "0.1.0 run"]
    state = versions.state()
    assert state.trial is None and why in state.rolled_back["0.2.0"] and versions.current() is None
    assert not versions.is_staged(NEW)


def test_the_database_is_again_as_it_was(tmp_path: Path, launch: Callable[..., Launched]) -> None:
    with sqlite3.connect(tmp_path / "state.sqlite") as database:
        database.execute("PRAGMA user_version = 11")
    stage(tmp_path, "migrates").begin_trial(NEW)
    launch("ready").heard(notify.READY)
    with sqlite3.connect(tmp_path / "state.sqlite") as database:
        assert database.execute("PRAGMA user_version").fetchone() == (11,), "an older version would refuse a newer schema"


def test_a_trial_that_was_cut_short_is_made_once_more_and_not_twice(tmp_path: Path, launch: Callable[..., Launched]) -> None:
    versions = stage(tmp_path, "silent")
    versions.begin_trial(NEW)
    for attempt in (1, 2):
        launched = launch("ready")
        launched.until(lambda attempt=attempt, launched=launched: len(launched.runs()) == attempt)
        launched.process.kill()  # as a power cut would
        launched.process.wait()
    launched = launch("ready")
    launched.heard(notify.READY)
    assert launched.runs()[2:] == ["0.1.0 run"]
    assert "was tried 2 times" in versions.state().rolled_back["0.2.0"]


def test_who_stops_the_node_during_a_trial_takes_no_attempt_from_it(tmp_path: Path, launch: Callable[..., Launched]) -> None:
    versions = stage(tmp_path, "silent")
    versions.begin_trial(NEW)
    launched = launch("ready")
    launched.until(lambda: bool(launched.runs()))
    launched.stop()
    trial = versions.state().trial
    assert trial is not None and trial.attempts == 0 and versions.is_staged(NEW)


def test_an_update_of_an_update_goes_back_to_the_first(tmp_path: Path, launch: Callable[..., Launched]) -> None:
    versions = stage(tmp_path, "ready")
    versions.commit(NEW)
    stage(tmp_path, "dies:1", "0.3.0").begin_trial(parse_version("0.3.0"))
    launched = launch("ready")
    launched.heard(notify.READY)
    assert launched.runs() == ["0.3.0 run", "0.2.0 run"] and versions.current() == NEW


def test_a_node_that_asks_for_it_is_started_again(tmp_path: Path, launch: Callable[..., Launched]) -> None:
    launched = launch("once:3")
    launched.until(lambda: launched.runs() == ["0.1.0 run"] * 2)


def test_a_crash_ends_the_launcher_too_where_somebody_above_restarts_it(
    tmp_path: Path, launch: Callable[..., Launched]
) -> None:
    launched = launch("once:9")
    assert launched.process.wait(timeout=10) == 9 and launched.runs() == ["0.1.0 run"]


def test_in_the_background_a_crash_is_a_restart_and_the_log_says_it(tmp_path: Path, launch: Callable[..., Launched]) -> None:
    log = tmp_path / "log" / "swarmd.log"
    launched = launch("once:9", log=log, supervise=True)
    launched.until(lambda: len(launched.runs()) == 2)
    assert "ended with exit code 9 and is started again in 1 s" in log.read_text()
    launched.stop()
    launched = launch("dies:1", log=log, supervise=True)
    assert launched.process.wait(timeout=10) == 1, "what never was ready is not started again and again"
    assert "0.1.0 cannot start" in log.read_text()


def test_what_the_node_says_reaches_who_started_the_launcher(tmp_path: Path, launch: Callable[..., Launched]) -> None:
    launched = launch("ready")
    text = launched.heard(notify.READY)
    assert text.startswith("STATUS=starting swarmd 0.1.0\n")
    if notify.ALIVE not in text.partition(notify.READY)[2]:
        launched.heard(notify.ALIVE)


def run_main(data: Path, *more: str) -> subprocess.CompletedProcess[str]:
    line = command(data=data, installed="0.1.0", arguments=more)
    return subprocess.run(line, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize("name", ["lock", "versions/lock"])
def test_one_launcher_or_node_per_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "versions").mkdir()
    lock = take_pid_file(tmp_path / name)
    assert lock is not None
    ended = run_main(tmp_path, "version")
    assert ended.returncode == 1 and "another swarmd runs on this data folder" in ended.stderr
    os.close(lock)


def test_it_starts_the_installed_version_with_the_arguments_it_was_given(tmp_path: Path) -> None:
    assert run_main(tmp_path, "version").stdout.startswith("swarmd ")


def test_the_pid_file_says_who_has_it(tmp_path: Path) -> None:
    held = take_pid_file(tmp_path / "pid")
    assert held is not None and take_pid_file(tmp_path / "pid") is None
    assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"
    os.close(held)


def test_a_version_whose_program_does_not_start_is_rolled_back(tmp_path: Path, launch: Callable[..., Launched]) -> None:
    versions = stage(tmp_path, "ready")
    versions.python(NEW).write_text("#!/nowhere/python\n")
    versions.begin_trial(NEW)
    assert "is rolled back" in launch("ready").heard(notify.READY)
    assert "cannot be started" in versions.state().rolled_back["0.2.0"]


class FullDisk(Versions):
    """From the moment on that `full` is set."""

    full = False

    def _write(self, state: object) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super()._write(state)  # type: ignore[arg-type]


def on_full_disk(tmp_path: Path, *, attempts: int) -> FullDisk:
    stage(tmp_path, "ready")
    (tmp_path / "state.sqlite").write_text("old")
    versions = FullDisk(tmp_path)
    versions.begin_trial(NEW)
    for _ in range(attempts):
        versions.keep_database(NEW)
        versions.count_attempt()
    versions.full = True
    return versions


@pytest.fixture
def launcher_of() -> Iterator[Callable[[Versions], Launcher]]:
    made: list[Launcher] = []

    def make(versions: Versions) -> Launcher:
        made.append(Launcher(versions=versions, installed=OLD, arguments=(), environ={}, above=notify.Notifier()))
        return made[-1]

    yield make
    for one in made:
        one._wake.close()
        one._waker.close()


def test_a_full_disk_before_the_first_attempt_leaves_the_node_as_it_was(
    tmp_path: Path, launcher_of: Callable[[Versions], Launcher]
) -> None:
    versions = on_full_disk(tmp_path, attempts=0)
    launcher = launcher_of(versions)
    assert launcher._choose() is None, "the installed version starts"
    assert not (versions.place(NEW) / "before").exists(), "a database that is gone on with is not taken back later"
    versions.full = False
    assert launcher._choose() is None
    assert launcher_of(versions)._choose() == NEW, "with room on the disk it is tried"


def test_a_full_disk_after_an_attempt_is_waited_for(
    tmp_path: Path, launcher_of: Callable[[Versions], Launcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = on_full_disk(tmp_path, attempts=2)
    launcher = launcher_of(versions)
    (tmp_path / "state.sqlite").write_text("new")
    waits = []

    def rest(seconds: float) -> bool:
        waits.append(seconds)
        versions.full = len(waits) < 3
        return True

    monkeypatch.setattr(launcher, "_rest", rest)
    assert launcher._choose() is None and len(waits) == 3
    assert (tmp_path / "state.sqlite").read_text() == "old" and versions.state().trial is None
    versions = on_full_disk(tmp_path, attempts=2)
    launcher = launcher_of(versions)
    monkeypatch.setattr(launcher, "_rest", lambda _: False)
    with pytest.raises(module._Asked):
        launcher._choose()


def test_a_node_that_is_ready_runs_on_where_that_cannot_be_written_down(
    tmp_path: Path, launcher_of: Callable[[Versions], Launcher]
) -> None:
    versions = on_full_disk(tmp_path, attempts=1)
    launcher = launcher_of(versions)
    assert not launcher._commit(NEW)
    versions.full = False
    assert launcher._commit(NEW) and versions.current() == NEW and versions.state().trial is None


def test_a_version_that_was_ready_is_not_on_trial_again_after_a_kill_at_that_moment(
    tmp_path: Path, launcher_of: Callable[[Versions], Launcher]
) -> None:
    """Else it would be rolled back one day, to the database from before its first start."""
    versions = on_full_disk(tmp_path, attempts=1)
    launcher = launcher_of(versions)
    assert not launcher._commit(NEW) and versions.current() == NEW, "the link is written first"
    versions.full = False
    assert launcher._choose() == NEW and not launcher._is_on_trial(NEW)
    trial = versions.state().trial
    assert trial is not None and trial.attempts == 1, "no attempt was counted"
