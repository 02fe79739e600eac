"""How a command fails: one sentence for the person at the terminal and an exit code."""

from __future__ import annotations

FAILED = 1
USAGE = 2  # as click has it
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Failure(Exception):
    """The command cannot do what it was asked; `str()` is the sentence."""

    def __init__(self, sentence: str, *, exit_code: int = FAILED, status: int | None = None) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
        self.status = status
        """HTTP status, when it was a node that said no."""
