"""The line at which people type in `swarmd chat`: editing, history over sessions, TAB, blocks of several lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

from swarmd.kit.disk import PRIVATE, Disk

HISTORY_LINES: Final = 1000  # a year of questions for most, and a file of some 100 kB
HISTORY_LIMIT: Final = 4 * 1024 * 1024  # bytes of the file: whoever pasted whole books starts anew
BLOCK: Final = '"""'


def history_path(environ: Mapping[str, str]) -> Path:
    """Where XDG wants what a program remembers between its runs."""
    base = environ.get("XDG_STATE_HOME", "")
    home = Path(environ.get("HOME") or Path.home())
    return (Path(base) if base.startswith("/") else home / ".local" / "state") / "swarmd" / "chat_history"


class Prompt:
    """`with Prompt(...) as prompt`. Without a terminal, or where Python has no readline, it just reads lines."""

    def __init__(self, words: Callable[[str], Sequence[str]], *, history: Path | None) -> None:
        """`words`: what a line that starts so may become. `history`: None keeps nothing on the disk."""
        self._words, self._history = words, history
        self._readline = _readline()
        self._disk = Disk()

    def __enter__(self) -> Prompt:
        if self._readline is not None:
            self._readline.set_completer_delims("")  # the whole line is completed: model names have dashes and colons
            self._readline.set_completer(self._complete)
            self._readline.parse_and_bind("tab: complete")
            self._readline.set_history_length(HISTORY_LINES)
            self._readline.clear_history()
            for line in self._remembered():
                self._readline.add_history(line)
        return self

    def __exit__(self, *_: object) -> None:
        if self._readline is not None:
            self._readline.set_completer(None)

    def line(self) -> str:
        """The next input without blanks around it; several lines between two lines of three quotes.

        Raises EOFError at the end of the input, KeyboardInterrupt for Ctrl-C.
        """
        text = input("> ").strip()
        if text.startswith(BLOCK):
            text = self._block(text.removeprefix(BLOCK))
        self._remember(text)
        return text

    def _block(self, first: str) -> str:
        lines = [first]
        while not lines[-1].rstrip().endswith(BLOCK):
            lines.append(input(". "))
        lines[-1] = lines[-1].rstrip().removesuffix(BLOCK)
        return "\n".join(lines).strip()

    def _remembered(self) -> list[str]:
        if self._history is None:
            return []
        try:
            text = self._disk.read_bytes_now(self._history, limit=HISTORY_LIMIT).decode()
        except (OSError, UnicodeDecodeError):
            return []
        return [line.replace("\\n", "\n") for line in text.splitlines() if line][-HISTORY_LINES:]

    def _remember(self, text: str) -> None:
        """Written at once: a terminal that is closed takes nothing along. A disk that is full costs the history alone."""
        if self._history is None or not text:
            return
        kept = [*self._remembered(), text][-HISTORY_LINES:]
        data = "".join(line.replace("\n", "\\n") + "\n" for line in kept).encode(errors="replace")
        if len(data) > HISTORY_LIMIT:
            return
        try:
            self._disk.make_folder_now(self._history.parent, mode=0o700)
            self._disk.write_atomic_now(self._history, data, mode=PRIVATE)
        except OSError:
            self._history = None

    def _complete(self, text: str, state: int) -> str | None:
        found = self._words(text)
        return found[state] if state < len(found) else None


def _readline() -> ModuleType | None:
    """Only on a terminal: elsewhere it would write escape sequences into the pipe."""
    if not sys.stdin.isatty() or os.environ.get("TERM") == "dumb":
        return None
    try:
        import readline  # not in every Python
    except ImportError:
        return None
    return readline
