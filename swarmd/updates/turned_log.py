"""A log file that is turned over: full, it becomes `.1`, which becomes `.2`, and the oldest goes. No thread, no event
loop."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

SIZE: Final = 10 * 1024 * 1024  # bytes of one file: some days of a busy node at level info
KEPT: Final = 4  # with the one that is written: 40 MB at most


class TurnedLog:
    def __init__(self, path: Path, *, size: int = SIZE, kept: int = KEPT) -> None:
        """Goes on where an earlier one stopped. Raises OSError when the file cannot be written."""
        self._path, self._size, self._kept = path, size, kept
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = self._open()

    def write(self, data: bytes) -> None:
        """A disk that is full costs these lines, not the node."""
        with contextlib.suppress(OSError):
            if os.fstat(self._descriptor).st_size + len(data) > self._size:
                self._turn()
            os.write(self._descriptor, data)

    def close(self) -> None:
        os.close(self._descriptor)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _turn(self) -> None:
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{number}") for number in range(1, self._kept))]
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        fresh = self._open()
        os.close(self._descriptor)
        self._descriptor = fresh
