"""A failure is a sentence and an exit code, and the codes are a contract."""

from __future__ import annotations

import pytest

from swarmd.cli.failure import EXIT_CODES, FAILED, Failure, exit_code_of


def test_it_fails_with_one_unless_told_otherwise() -> None:
    assert (str(Failure("no")), Failure("no").exit_code, Failure("no").status) == ("no", FAILED, None)
    assert Failure("wrong option", exit_code=2).exit_code == 2


def test_the_numbers_stay_what_they_are() -> None:
    """Scripts go by them: a number may be added, none may change."""
    assert {row.code: row.name for row in EXIT_CODES} == {
        0: "done", 1: "failed", 2: "usage", 3: "restart", 4: "not running", 5: "refused", 6: "not found", 7: "not now",
        8: "no key", 130: "interrupted", 141: "closed pipe",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, 5), (401, 8), (403, 5), (404, 6), (405, 5), (409, 5), (413, 5), (429, 7), (500, 1), (502, 1), (503, 7),
        (507, 7), (529, 7),
    ],
)  # fmt: skip
def test_a_status_of_the_node_has_its_code(status: int, code: int) -> None:
    assert exit_code_of(status) == code
