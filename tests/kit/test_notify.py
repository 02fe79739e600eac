"""What systemd and the launcher hear."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from swarmd.kit.notify import ALIVE, READY, Notifier, notifier, status_line


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_datagrams_at_its_socket(tmp_path: Path, abstract: bool) -> None:
    path = f"swarmd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + path if abstract else path)
        systemd.settimeout(5)
        environ = {"NOTIFY_SOCKET": "@" + path if abstract else path, "WATCHDOG_USEC": "3000000", "PATH": "/bin"}
        found = notifier(environ)
        assert environ == {"PATH": "/bin"}, "worker processes must not speak for the node"
        assert found.listens and found.watchdog_s == 3.0
        found.tell(READY, status_line("two\nlines"))
        assert systemd.recv(1000) == b"READY=1\nSTATUS=two lines\n"
        found.close()


def test_the_launcher_comes_first_and_hears_a_stream() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        found = notifier(
            {"LAUNCHER_NOTIFY_FD": str(theirs.detach()), "NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000"}
        )
        found.tell(READY)
        found.tell(ALIVE)
        assert ours.recv(1000) == b"READY=1\nWATCHDOG=1\n" and found.watchdog_s == 1.0
        assert found.launcher is not None and not found.launcher.get_inheritable()
        found.close()
        assert ours.recv(1000) == b""


def test_nobody_listens() -> None:
    found = notifier({})
    found.tell(READY)
    assert not found.listens and found.watchdog_s is None


def test_a_socket_that_is_gone_or_full_stops_nobody(tmp_path: Path) -> None:
    gone = Notifier(address=str(tmp_path / "gone"))
    gone.tell(READY)
    gone.close()
    ours, theirs = socket.socketpair()
    with theirs:
        full = Notifier(launcher=ours)
        for _ in range(10_000):  # a launcher that reads nothing
            full.tell(status_line("x" * 100))
        full.close()


@pytest.mark.parametrize(
    "environ", [{"LAUNCHER_NOTIFY_FD": "987654"}, {"LAUNCHER_NOTIFY_FD": "-1"}, {"NOTIFY_SOCKET": "vsock:2"}]
)
def test_what_cannot_be_used_is_nobody(environ: dict[str, str]) -> None:
    assert not notifier(environ).listens


@pytest.mark.parametrize(
    ("microseconds", "process", "seconds"),
    [
        ("30000000", "", 30.0),
        ("30000000", "this", 30.0),  # no number here: the runs of a split suite must name their tests alike
        ("30000000", "1", None),
        ("0", "", None),
        ("x", "", None),
    ],
)
def test_only_the_process_that_is_watched_says_that_it_lives(microseconds: str, process: str, seconds: float | None) -> None:
    watched = str(os.getpid()) if process == "this" else process
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": microseconds, "WATCHDOG_PID": watched}
    found = notifier(environ)
    assert found.watchdog_s == seconds
    found.close()


def test_a_status_is_one_short_line() -> None:
    assert status_line("a\nREADY=1\n" + "b" * 500).count("\n") == 0
    assert len(status_line("b" * 500)) == len("STATUS=") + 200
