"""Every refusal has a type that the Anthropic contract defines, and a status that its client understands."""

from __future__ import annotations

import pytest

from swarmd.api.messages_errors import problem, status_of
from swarmd.api.replies import TABLE, BodyTooLarge, Broken, NoKey, TooManyRequests, UnknownModel
from swarmd.domain.ids import RequestId
from swarmd.domain.refusals import Busy, Invalid, NoCapacity, Refusal, StageFailed
from tests.fakes.rim import OWN, PEER, no_coverage

DEFINED = {
    "invalid_request_error", "authentication_error", "permission_error", "not_found_error", "request_too_large",
    "rate_limit_error", "api_error", "overloaded_error",
}  # fmt: skip
CASES: list[tuple[Refusal, int, str]] = [
    (Busy(what="full"), 529, "overloaded_error"),
    (NoCapacity(node=OWN, needed_bytes=2, free_bytes=1), 529, "overloaded_error"),
    (no_coverage(), 503, "api_error"),
    (StageFailed(node=PEER, reason="gone"), 503, "api_error"),
    (Broken(request=RequestId("r")), 500, "api_error"),
    (NoKey(given=False), 401, "authentication_error"),
    (UnknownModel(what="no"), 404, "not_found_error"),
    (TooManyRequests(retry_after_s=1), 429, "rate_limit_error"),
    (BodyTooLarge(limit_bytes=1), 413, "request_too_large"),
]


@pytest.mark.parametrize(("refusal", "status", "kind"), CASES)
def test_status_and_type(refusal: Refusal, status: int, kind: str) -> None:
    found = problem(refusal, RequestId("abc"))
    assert (status_of(refusal), found.error.type, found.request_id) == (status, kind, "abc")
    assert kind in DEFINED and refusal.sentence in found.error.message


def test_all_that_can_happen_has_one() -> None:
    assert {kind for _, _, kind in CASES} | {"invalid_request_error", "permission_error"} == DEFINED
    assert all(row.status in (400, 401, 403, 404, 405, 409, 413, 415, 429, 500, 502, 503, 507) for row in TABLE.values())


def test_the_field_that_was_wrong_is_in_the_sentence() -> None:
    """This envelope has no `param`."""
    assert problem(Invalid(what="too long", param="system"), RequestId("r")).error.message == "system: too long"
    assert problem(Invalid(what="system is long", param="system"), RequestId("r")).error.message == "system is long"
