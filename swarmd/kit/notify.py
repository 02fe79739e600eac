"""Tells whoever started this process that it is ready, alive or stopping: systemd, or our own launcher.

systemd takes datagrams at the socket that NOTIFY_SOCKET names (sd_notify(3)); the launcher takes the same lines on an
inherited stream, LAUNCHER_NOTIFY_FD, and passes them on. Neither there: nothing is told, and nothing fails. The standard
library alone, and no event loop: the launcher imports this, and is meant to stay small. """

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, MutableMapping
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
ALIVE: Final = "WATCHDOG=1"
LAUNCHER_FD: Final = "LAUNCHER_NOTIFY_FD"
SYSTEMD_SOCKET: Final = "NOTIFY_SOCKET"
WATCHDOG_USEC: Final = "WATCHDOG_USEC"
WATCHDOG_PID: Final = "WATCHDOG_PID"
STATUS_LIMIT: Final = 200  # characters of a line for people


class Notifier:
    """One per process. What cannot be sent is dropped: nobody listens any more, or not now."""

    def __init__(
        self,
        *,
        launcher: socket.socket | None = None,
        address: str | None = None,
        watchdog_s: float | None = None,
        taken: Mapping[str, str] | None = None,
    ) -> None:
        """`address`: of a datagram socket; a name that begins with @ is an abstract one. `watchdog_s`: silence after which
        this process is ended; None: nobody watches. `taken`: the part of the environment that said all this."""
        self._taken = dict(taken or {})
        self.launcher: Final = launcher
        """A stream that ends when the launcher does."""
        self.watchdog_s: Final = watchdog_s
        self._address = "\0" + address[1:] if address is not None and address.startswith("@") else address
        self._datagrams: socket.socket | None = None
        if self._address is not None:
            self._datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._datagrams.setblocking(False)

    @property
    def listens(self) -> bool:
        return self.launcher is not None or self._datagrams is not None

    def tell(self, *lines: str) -> None:
        message = "".join(f"{line}\n" for line in lines).encode()
        with contextlib.suppress(OSError):
            if self.launcher is not None:
                self.launcher.send(message, socket.MSG_DONTWAIT)
            elif self._datagrams is not None and self._address is not None:
                self._datagrams.sendto(message, self._address)

    def environ(self) -> dict[str, str]:
        """For the program that takes this one's place in the same process (exec): it is started by the same one."""
        if self.launcher is not None:
            self.launcher.set_inheritable(True)
        return dict(self._taken)

    def close(self) -> None:
        for one in (self.launcher, self._datagrams):
            if one is not None:
                one.close()


def status_line(text: str) -> str:
    """What `systemctl status` shows: one line for people."""
    return "STATUS=" + " ".join(text.split())[:STATUS_LIMIT]


def notifier(environ: MutableMapping[str, str]) -> Notifier:
    """By the environment, from which it takes what it used: child processes are not to speak for us."""
    taken = {
        name: environ.pop(name) for name in (LAUNCHER_FD, SYSTEMD_SOCKET, WATCHDOG_USEC, WATCHDOG_PID) if name in environ
    }
    descriptor, address = taken.get(LAUNCHER_FD, ""), taken.get(SYSTEMD_SOCKET, "")
    watchdog_s = _watchdog_s(taken.get(WATCHDOG_USEC, ""), taken.get(WATCHDOG_PID, ""))
    if descriptor.isdecimal() and descriptor.isascii():
        try:
            launcher = socket.socket(fileno=int(descriptor))
        except OSError:  # inherited the variable and not the socket
            return Notifier()
        launcher.set_inheritable(False)
        launcher.setblocking(False)
        return Notifier(launcher=launcher, watchdog_s=watchdog_s, taken=taken)
    if address.startswith(("/", "@")):
        return Notifier(address=address, watchdog_s=watchdog_s, taken=taken)
    return Notifier()


def _watchdog_s(microseconds: str, process: str) -> float | None:
    """None also where another process is the one that is watched (sd_watchdog_enabled(3))."""
    if not (microseconds.isdecimal() and microseconds.isascii()) or process not in ("", str(os.getpid())):
        return None
    return int(microseconds) / 1e6 or None
