"""`swarmd run` in a place of the lab, and its API asked from inside that place."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.rig.lab import Lab

ROOT = Path(__file__).parents[2]
PORT, PEER_PORT = 8800, 8810
CLONE_NEWNET = 0x40000000
CALL_S = 60.0
LOOK_S = 0.05


class Unmet(Exception):
    """What should have happened did not, in time."""


def until(check: Callable[[], object], seconds: float, what: str) -> float:
    """Waits for something true. Returns how long it took. Raises Unmet."""
    started = time.monotonic()
    while not check():
        if time.monotonic() - started > seconds:
            raise Unmet(f"{what}: not within {seconds:.0f} s")
        time.sleep(LOOK_S)
    return time.monotonic() - started


class Node:
    def __init__(self, lab: Lab, place: str, folder: Path, **settings: str) -> None:
        self.lab, self.place, self.folder, self.settings = lab, place, folder / place, settings
        self.process: subprocess.Popen[bytes] | None = None
        self.id = ""
        self._inside = ThreadPoolExecutor(1, initializer=self._enter)

    def _enter(self) -> None:
        """Moves this one thread into the place: sockets it makes belong there."""
        with open(f"/run/netns/{self.lab.name(self.place)}", "rb") as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def start(self) -> None:
        self.end()  # a scenario that failed may have left it running
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SWARMD_")}
        settings = {"SWARMD_UI_BUILTIN_MODEL": "false", "SWARMD_AUTO_MANAGE_ENABLED": "false", **self.settings}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.lab.name(self.place), sys.executable, "-m", "swarmd", "run", "--data-dir",
                 str(self.folder), "--port", str(PORT)],
                cwd=ROOT, env={**kept, **settings}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        until(self._ready, 40, f"{self.place} is ready")
        self.id = self.call("GET", "/api/admin/stats")["node_id"]

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise Unmet(f"{self.place} ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
        try:
            return self.call("GET", "/health/ready") is not None
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number is signal.SIGKILL:
            self.process.wait()

    def restart(self) -> None:
        self.end()
        self.start()

    def stop(self) -> None:
        """For good."""
        self.end()
        self._inside.shutdown()

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def inside(self, work: Callable[[], Any]) -> Any:
        """Runs a function with sockets of this place."""
        return self._inside.submit(work).result(CALL_S)

    def call(self, method: str, path: str, body: object = None) -> Any:
        return self.inside(lambda: self._call(method, path, body))

    def _call(self, method: str, path: str, body: object) -> Any:
        key = self.folder / "api_key"
        headers = {"content-type": "application/json"}
        if key.exists():
            headers["authorization"] = f"Bearer {key.read_text().strip()}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=CALL_S) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            raise OSError(f"{method} {path}: {error.code} {error.read()[:300]!r}") from error

    def path(self, other: Node) -> str | None:
        """How the control link to it goes: `direct`, `relay`, or None without one."""
        rows = self.call("GET", "/api/admin/links")
        found = [row["path"] for row in rows if row["purpose"] == "control" and row["node_id"][:16] == other.id[:16]]
        return found[0] if found else None

    def grown(self, since: int) -> int:
        """Bytes of log since then."""
        return self.log.stat().st_size - since

    def linked(self) -> set[str]:
        """Ids (shown form) of the peers with a live link."""
        return {row["node_id"] for row in self.call("GET", "/api/admin/peers") if row["connected"]}

    def sees(self, other: Node) -> bool:
        return other.id[:16] in {node[:16] for node in self.linked()}
