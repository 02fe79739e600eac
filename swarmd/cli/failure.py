"""How a command ends: exit codes, and a failure as one sentence for the person at the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2  # as click has it
RESTART: Final = 3  # of `run` alone; the service file starts it again
NOT_RUNNING: Final = 4
REFUSED: Final = 5
NOT_FOUND: Final = 6
BUSY: Final = 7
NO_KEY: Final = 8
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
CLOSED_PIPE: Final = 141  # 128 + SIGPIPE, the same


@dataclass(frozen=True, slots=True)
class ExitCode:
    """One row of the table that scripts go by. The numbers never change their meaning."""

    code: int
    name: str
    meaning: str


EXIT_CODES: Final = (
    ExitCode(DONE, "done", "What was asked for was done."),
    ExitCode(FAILED, "failed", "It failed in a way that has no number of its own; or somebody answered a question with no."),
    ExitCode(USAGE, "usage", "The command line or the settings are wrong: nothing was tried."),
    ExitCode(RESTART, "restart", "`swarmd run` wants to be started again; its service does that."),
    ExitCode(NOT_RUNNING, "not running", "No node answers there."),
    ExitCode(REFUSED, "refused", "The node said no to this request: a value it does not take, or something it may not do."),
    ExitCode(NOT_FOUND, "not found", "There is no such model, adapter, node, download or code."),
    ExitCode(
        BUSY, "not now", "It may work later: the node is busy, a shard is on no connected node, or memory or disk is full."
    ),
    ExitCode(NO_KEY, "no key", "The node wants its API key, and none or a wrong one was given."),
    ExitCode(INTERRUPTED, "interrupted", "Ctrl-C."),
    ExitCode(CLOSED_PIPE, "closed pipe", "Whoever read the output went away, as `head` does."),
)


class Failure(Exception):
    """The command cannot do what it was asked; `str()` is the sentence."""

    def __init__(self, sentence: str, *, exit_code: int = FAILED, status: int | None = None) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
        self.status = status
        """HTTP status, when it was a node that said no."""


def exit_code_of(status: int) -> int:
    """Of a node's HTTP status that is no success."""
    match status:
        case 401:
            return NO_KEY
        case 404:
            return NOT_FOUND
        case 429 | 503 | 507 | 529:
            return BUSY
        case _:
            return REFUSED if 400 <= status < 500 else FAILED
