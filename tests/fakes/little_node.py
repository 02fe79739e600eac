"""A node as a launcher sees one, in milliseconds: `python little_node.py BEHAVIOUR NAME`. What it does goes into NAME.log
beside its data folder's state: the launcher's tests read it."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from pathlib import Path


def tell(line: str) -> None:
    os.write(int(os.environ["LAUNCHER_NOTIFY_FD"]), f"{line}\n".encode())


def main() -> None:
    behaviour, name, data = sys.argv[1], sys.argv[2], Path(os.environ["LITTLE_DATA"])
    with (data / "runs.log").open("a") as log:
        log.write(f"{name} {' '.join(sys.argv[3:])}".strip() + "\n")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    match behaviour.split(":"):
        case ["ready"]:
            tell("READY=1")
            tell("WATCHDOG=1")
            os.write(1, f"{name} is ready\n".encode())
            time.sleep(60)
        case ["silent"]:
            time.sleep(60)
        case ["stubborn"]:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(60)
        case ["migrates"]:
            with sqlite3.connect(data / "state.sqlite") as database:
                database.execute("PRAGMA user_version = 99")
            sys.exit(1)
        case ["dies", code]:
            os.write(1, f"{name} cannot start\n".encode())
            sys.exit(int(code))
        case ["once", code]:  # ready, then ends so; from the second start on it stays
            tell("READY=1")
            marker = data / f"{name}.once"
            if marker.exists():
                time.sleep(60)
            marker.touch()
            sys.exit(int(code))
        case _:
            raise AssertionError(behaviour)


main()
