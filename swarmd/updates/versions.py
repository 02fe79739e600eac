"""What is written on disk about versions: which one runs, which is on trial, which ones failed. Survives a kill anywhere.

    <data>/versions/0.2.0/venv      an environment with that version, made by `staging`
    <data>/versions/0.2.0/before/   the node's database as it was before that version was tried
    <data>/versions/current         a link to the newest version that has ever become ready; none: the installed one
    <data>/versions/state.json      the trial, if there is one, and what was rolled back and why

The trial is written before the version is started and each attempt before it is made, so a machine that loses its power in
between, or a version that takes the whole machine down, costs one attempt. The standard library alone, without `kit/disk`:
the launcher lives as long as the node, and needs 16 MB in place of 25. """

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

from swarmd.domain.updates import Version, parse_version

FOLDER: Final = "versions"
WHOLE: Final = "whole"
ATTEMPTS: Final = 2  # one, and another where the machine itself went down during the first
STATE_LIMIT: Final = 64 * 1024  # bytes
REMEMBERED: Final = 32  # versions that were rolled back; the oldest is forgotten first
WHY_LIMIT: Final = 500  # characters of a reason
DATABASE: Final = ("state.sqlite", "state.sqlite-wal", "state.sqlite-shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    version: Version
    attempts: int = 0
    """That were begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    trial: Trial | None = None
    rolled_back: dict[str, str] = field(default_factory=dict[str, str])
    """Why, by version."""


class Versions:
    """Of one data folder. Who writes: the node while it runs, the launcher while no node runs; never both."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self.folder: Final = data / FOLDER

    def state(self) -> State:
        """Nothing is known where there is no state, or a damaged one."""
        try:
            with (self.folder / "state.json").open("rb") as file:
                return _state_of(json.loads(file.read(STATE_LIMIT)))
        except (OSError, ValueError):
            return State()

    def current(self) -> Version | None:
        """None: the version that was installed."""
        try:
            version = parse_version(str((self.folder / "current").readlink()))
        except (OSError, ValueError):
            return None
        return version if self.is_staged(version) else None

    def place(self, version: Version) -> Path:
        return self.folder / version.text

    def python(self, version: Version) -> Path:
        return self.place(version) / "venv" / "bin" / "python"

    def is_staged(self, version: Version) -> bool:
        """`staging` says so when all is in the folder."""
        return (self.place(version) / WHOLE).exists() and self.python(version).exists()

    def staged(self) -> tuple[Version, ...]:
        found: list[Version] = []
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            with contextlib.suppress(ValueError):
                found.append(parse_version(path.name))
        return tuple(sorted(one for one in found if self.is_staged(one)))

    def next(self, installed: Version, *, without: Collection[Version] = ()) -> Version | None:
        """What to start now, where `installed` is what the user installed; None: that one. `without`: versions that are not
        to be tried. Raises no error: what cannot be started is no choice."""
        trial = self.state().trial
        wanted = None if trial is None or trial.version in without else trial.version
        if wanted is not None and wanted > installed and self.is_staged(wanted):
            return wanted
        current = self.current()
        return current if current is not None and current > installed else None

    def begin_trial(self, version: Version) -> None:
        """At its next start the node is this version. Raises OSError when that cannot be written down."""
        state = self.state()
        rolled_back = {text: why for text, why in state.rolled_back.items() if text != version.text}
        self._write(State(trial=Trial(version=version), rolled_back=rolled_back))

    def count_attempt(self, by: int = 1) -> None:
        state = self.state()
        if state.trial is not None:
            self._write(replace(state, trial=replace(state.trial, attempts=max(0, state.trial.attempts + by))))

    def commit(self, version: Version) -> None:
        """It became ready: it is the current one, and the database from before is of no use any more."""
        self.folder.mkdir(parents=True, exist_ok=True)
        link = Path(tempfile.mkdtemp(dir=self.folder, prefix=".current.")) / "link"
        link.symlink_to(version.text)
        link.replace(self.folder / "current")
        link.parent.rmdir()
        _sync(self.folder)
        self._write(replace(self.state(), trial=None))
        shutil.rmtree(self.place(version) / "before", ignore_errors=True)

    def roll_back(self, version: Version, why: str) -> None:
        """It never became ready: the database is again as it was, and the version is not tried again by itself. Killed in
        between, it is done anew at the next start, for by then no attempt is left."""
        self.count_attempt(by=ATTEMPTS)
        self._restore(version)
        rolled_back = {**self.state().rolled_back, version.text: why[:WHY_LIMIT]}
        for oldest in list(rolled_back)[:-REMEMBERED]:
            del rolled_back[oldest]
        self._write(State(rolled_back=rolled_back))
        (self.place(version) / WHOLE).unlink(missing_ok=True)  # first: killed in between, what is left counts for nothing
        shutil.rmtree(self.place(version), ignore_errors=True)

    def keep_database(self, version: Version) -> None:
        """A copy from before the first attempt: a newer version may change the schema, which no older one can undo. Kept as
        it is when there is one already: then this is a second attempt. Raises OSError."""
        before = self.place(version) / "before"
        if before.exists():
            return
        copy = Path(tempfile.mkdtemp(dir=self.place(version), prefix=".before."))
        try:
            for name in DATABASE:
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy2(self._data / name, copy / name)
                    _sync(copy / name)
            copy.replace(before)
            _sync(before.parent)
        except BaseException:
            shutil.rmtree(copy, ignore_errors=True)  # half a copy on a full disk leaves no room to say so
            raise

    def forget_database(self, version: Version) -> None:
        """Before anything of that version ran: the database goes on as it is."""
        shutil.rmtree(self.place(version) / "before", ignore_errors=True)

    def _restore(self, version: Version) -> None:
        before = self.place(version) / "before"
        if not before.exists():
            return
        for name in reversed(DATABASE):
            kept = before / name
            if kept.exists():
                copy = self._data / f".{name}.back"
                shutil.copy2(kept, copy)
                _sync(copy)
                copy.replace(self._data / name)
            else:
                (self._data / name).unlink(missing_ok=True)
        _sync(self._data)

    def _write(self, state: State) -> None:
        trial = state.trial
        row = {
            "trial": None if trial is None else {"version": trial.version.text, "attempts": trial.attempts},
            "rolled_back": state.rolled_back,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=".state.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(row, indent=1).encode())
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.folder / "state.json")
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync(self.folder)


def _state_of(row: object) -> State:
    """Raises ValueError for what we did not write."""
    if not isinstance(row, dict):
        raise ValueError("no state")
    found = cast("dict[str, Any]", row)
    trial, rolled_back = found.get("trial"), found.get("rolled_back")
    if not isinstance(rolled_back, dict):
        raise ValueError("no state")
    reasons = {str(text): str(why) for text, why in cast("dict[object, object]", rolled_back).items()}
    if trial is None:
        return State(rolled_back=reasons)
    try:
        attempts = int(trial["attempts"])
        return State(trial=Trial(version=parse_version(trial["version"]), attempts=attempts), rolled_back=reasons)
    except (KeyError, TypeError) as error:
        raise ValueError("no state") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
