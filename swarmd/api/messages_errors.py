"""The errors of the Anthropic dialect: `{"type": "error", "error": {"type", "message"}, "request_id"}`.

Statuses are those of `replies.TABLE`, with one difference. Who is full (`Busy`, `NoCapacity`) answers 529 with
`overloaded_error`, which is how this contract says "come back": its client waits as `retry-after` tells and tries again. A
model of which a part is on no connected node, and a stage that was lost, stay 503 with `api_error`: waiting may be in vain,
and no type of the contract is nearer to "the other side cannot".
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from swarmd.api.calls import Reply
from swarmd.api.messages_shapes import Problem, ProblemBody
from swarmd.api.replies import Envelope, ErrorReply, reply_to
from swarmd.domain import refusals
from swarmd.domain.ids import RequestId
from swarmd.domain.refusals import Refusal

OVERLOADED: Final = 529  # the contract's own number
VERSION_HEADER: Final = "anthropic-version"
ERROR_EVENT: Final = "error"
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


def status_of(refusal: Refusal) -> int:
    if isinstance(refusal, refusals.Busy | refusals.NoCapacity):
        return OVERLOADED
    return reply_to(refusal).status


def problem(refusal: Refusal, request: RequestId) -> Problem:
    """The body, and the last event of a stream that cannot go on."""
    status = status_of(refusal)
    if status == OVERLOADED:
        kind = "overloaded_error"
    elif status >= 500:
        kind = "api_error"
    else:
        kind = _TYPES.get(status, "invalid_request_error")
    return Problem(error=ProblemBody(type=kind, message=_sentence(refusal)), request_id=request)


def _sentence(refusal: Refusal) -> str:
    """This envelope has no field for the name of what was wrong."""
    param = getattr(refusal, "param", None)
    sentence = refusal.sentence
    return f"{param}: {sentence}" if param and not sentence.startswith(param) else sentence


def _said(refusal: Refusal, _request: web.Request, request_id: RequestId) -> Reply:
    usual = reply_to(refusal)
    headers = {**usual.headers, "request-id": request_id}
    return Reply(body=problem(refusal, request_id), status=status_of(refusal), headers=headers)


def _said_by_version(refusal: Refusal, request: web.Request, request_id: RequestId) -> Reply:
    return _said(refusal, request, request_id) if speaks_anthropic(request) else reply_to(refusal)


def speaks_anthropic(request: web.Request) -> bool:
    """Where two dialects share a path: only clients of this one name a version of it."""
    return VERSION_HEADER in request.headers


ANTHROPIC: Final = Envelope(_said, (Problem,))
BY_VERSION: Final = Envelope(_said_by_version, (ErrorReply, Problem))
