"""A failure is a sentence and an exit code."""

from __future__ import annotations

from swarmd.cli.failure import FAILED, Failure


def test_it_fails_with_one_unless_told_otherwise() -> None:
    assert (str(Failure("no")), Failure("no").exit_code, Failure("no").status) == ("no", FAILED, None)
    assert Failure("wrong option", exit_code=2).exit_code == 2
