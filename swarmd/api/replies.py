"""From a refusal to an HTTP status and the one error shape of the admin API and `/v1`.

`{"error": {"message", "type", "param", "code"}}`: contract swarmllm.md 2.0. Every class of refusal has a row; a test walks
the subclasses. Refusals that exist only because of HTTP are defined here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from aiohttp import web

from swarmd.api.calls import Encoded, Reply
from swarmd.api.sse import EventStream
from swarmd.domain import refusals
from swarmd.domain.ids import RequestId
from swarmd.domain.refusals import NotFound, Refusal

JSON: Final = "application/json"
RETRY_BUSY_S: Final = 1  # where nothing better is known; the openai client waits this long before its next try


@dataclass(frozen=True, slots=True, kw_only=True)
class NoKey(Refusal):
    """The request needs the API key and shows none, or a wrong one."""

    given: bool

    @property
    def sentence(self) -> str:
        if self.given:
            return "this API key is not the key of this node, which is in the file `api_key` of its data folder"
        return "this needs the API key of the node, as `Authorization: Bearer KEY` or `x-api-key: KEY`"


@dataclass(frozen=True, slots=True, kw_only=True)
class TooManyRequests(Refusal):
    retry_after_s: float

    @property
    def sentence(self) -> str:
        return f"too many requests from this address: try again in {math.ceil(self.retry_after_s)} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyTooLarge(Refusal):
    limit_bytes: int

    @property
    def sentence(self) -> str:
        return f"the body is larger than {self.limit_bytes} bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoJson(Refusal):
    """A body that says of itself that it is something else."""

    media: str

    @property
    def sentence(self) -> str:
        return f"the body has to be JSON, sent with `Content-Type: application/json`: this is {self.media[:80]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownModel(NotFound):
    """A model named in a `/v1` request; its own code, because clients look at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownAdapter(NotFound):
    """A LoRA adapter named in a `/v1` request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownResponse(NotFound):
    """A response that is not stored here."""

    param: str = "response_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPrevious(Refusal):
    """The conversation that a request continues is not stored here, or not any more."""

    what: str
    param: str = "previous_response_id"

    @property
    def sentence(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStopped(Refusal):
    """What became of a response whose node ended under it."""

    @property
    def sentence(self) -> str:
        return "the node that answered stopped before the reply was complete: ask again"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPath(NotFound):
    """No row of the table has this path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongMethod(Refusal):
    method: str
    allowed: tuple[str, ...]

    @property
    def sentence(self) -> str:
        return f"{self.method} is not possible here: {', '.join(self.allowed)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadHttp(Refusal):
    """aiohttp refused the request before a handler saw it."""

    what: str

    @property
    def sentence(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class NotStored(Refusal):
    """The settings file cannot be written."""

    reason: str

    @property
    def sentence(self) -> str:
        return f"the settings could not be stored and stay as they were: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken(Refusal):
    """A bug of ours. The traceback is in the log under the request id, and nowhere else."""

    request: RequestId

    @property
    def sentence(self) -> str:
        return f"the node made a mistake; its log says more under {self.request}"


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    type: str
    param: str | None
    code: str


class ErrorReply(msgspec.Struct, frozen=True, kw_only=True):
    """Every error of the admin API and `/v1`."""

    error: ErrorBody


@dataclass(frozen=True, slots=True)
class Row:
    """What a class of refusals is over HTTP."""

    status: int
    type: str
    code: str


REQUEST, SERVER = "invalid_request_error", "server_error"

TABLE: Final[Mapping[type[Refusal], Row]] = {
    refusals.Invalid: Row(400, REQUEST, "invalid_value"),
    refusals.NotFound: Row(404, "not_found_error", "not_found"),
    refusals.NoCoverage: Row(503, "unavailable_error", "no_coverage"),
    refusals.NoCapacity: Row(503, "unavailable_error", "no_capacity"),
    refusals.NoSpace: Row(507, "unavailable_error", "no_space"),
    refusals.Busy: Row(503, "unavailable_error", "busy"),
    refusals.PromptTooLong: Row(400, REQUEST, "context_length_exceeded"),
    refusals.BadTemplate: Row(400, REQUEST, "bad_messages"),
    refusals.UnsupportedModel: Row(400, REQUEST, "unsupported_model"),
    refusals.BadFile: Row(400, REQUEST, "bad_file"),
    refusals.IdTaken: Row(400, REQUEST, "id_taken"),
    refusals.BadCode: Row(400, REQUEST, "bad_code"),
    refusals.Expired: Row(400, REQUEST, "code_expired"),
    refusals.UsedUp: Row(400, REQUEST, "code_used"),
    refusals.HubFailed: Row(502, "unavailable_error", "hub_failed"),
    refusals.HubForbidden: Row(502, "permission_error", "hub_forbidden"),
    refusals.NoAnswer: Row(502, "unavailable_error", "no_answer"),
    refusals.Forbidden: Row(403, "permission_error", "forbidden"),
    refusals.OtherNode: Row(403, "permission_error", "other_node"),
    refusals.Revoked: Row(403, "permission_error", "revoked"),
    refusals.OpenNetwork: Row(409, REQUEST, "open_network"),
    refusals.OtherNetwork: Row(409, REQUEST, "other_network"),
    refusals.StageFailed: Row(503, "unavailable_error", "stage_failed"),
    refusals.WorkerFailed: Row(503, "unavailable_error", "worker_failed"),
    refusals.UpdatesOff: Row(503, "unavailable_error", "updates_off"),
    refusals.UpdateFailed: Row(502, "unavailable_error", "update_failed"),
    refusals.ProviderFailed: Row(502, "provider_error", "provider_failed"),  # status and code are the refusal's own
    NoKey: Row(401, "authentication_error", "invalid_api_key"),
    TooManyRequests: Row(429, "rate_limit_error", "rate_limit_exceeded"),
    BodyTooLarge: Row(413, REQUEST, "body_too_large"),
    NoJson: Row(415, REQUEST, "no_json"),
    UnknownModel: Row(404, REQUEST, "model_not_found"),
    UnknownAdapter: Row(404, REQUEST, "adapter_not_found"),
    UnknownResponse: Row(404, REQUEST, "response_not_found"),
    NoPrevious: Row(400, REQUEST, "previous_response_not_found"),
    NodeStopped: Row(503, "unavailable_error", "node_stopped"),
    NoPath: Row(404, "not_found_error", "unknown_path"),
    WrongMethod: Row(405, REQUEST, "wrong_method"),
    BadHttp: Row(400, REQUEST, "bad_request"),
    NotStored: Row(503, "unavailable_error", "not_stored"),
    Broken: Row(500, SERVER, "internal_error"),
}


def about(refusal: Refusal, param: str) -> Refusal:
    """The same, and it names the field with which the file was asked for. What is not there is a bad value of it: for where
    the contract has no 404."""
    match refusal:
        case NotFound():
            return refusals.Invalid(what=refusal.sentence, param=param)
        case refusals.BadFile(param=None) | refusals.UnsupportedModel(param=None):
            return replace(refusal, param=param)
        case _:
            return refusal


def error_of(refusal: Refusal) -> ErrorReply:
    row = _row_of(refusal)
    param = getattr(refusal, "param", None)
    return ErrorReply(error=ErrorBody(message=refusal.sentence, type=row.type, param=param, code=row.code))


def _row_of(refusal: Refusal) -> Row:
    row = TABLE[type(refusal)]
    if isinstance(refusal, refusals.ProviderFailed):
        return replace(row, status=refusal.status, code=refusal.code)
    return row


def reply_to(refusal: Refusal) -> Reply:
    headers: dict[str, str] = {}
    match refusal:
        case refusals.ProviderFailed(provider=provider, retry_after=wait):
            headers["x-swarm-provider"] = provider
            if wait is not None:
                headers["retry-after"] = wait
        case TooManyRequests(retry_after_s=wait):
            headers["retry-after"] = str(max(1, math.ceil(wait)))
        case refusals.HubFailed(retry_after_s=wait) if wait > 0:
            headers["retry-after"] = str(math.ceil(wait))
        case refusals.Busy(retry_after_s=wait):
            headers["retry-after"] = str(max(RETRY_BUSY_S, math.ceil(wait or 0)))
        case NoKey():
            headers["www-authenticate"] = "Bearer"
        case WrongMethod(allowed=allowed):
            headers["allow"] = ", ".join(allowed)
        case _:
            pass
    return Reply(body=error_of(refusal), status=_row_of(refusal).status, headers=headers)


@dataclass(frozen=True, slots=True)
class Envelope:
    """How a dialect says no. Also for what happens before a handler: the guard, a body that is too large or no JSON."""

    say: Callable[[Refusal, web.Request, RequestId], Reply]
    shapes: tuple[type, ...]
    """That a body may have."""


OUR_ENVELOPE: Final = Envelope(lambda refusal, _request, _id: reply_to(refusal), (ErrorReply,))
"""Of the admin API and the OpenAI dialect."""


def response_of(outcome: Any, say: Callable[[Refusal], Reply] = reply_to) -> web.StreamResponse:
    """What goes back to aiohttp, from anything a handler may answer."""
    match outcome:
        case web.StreamResponse():
            return outcome
        case EventStream():
            return outcome.response
        case Encoded(data):
            return web.Response(body=data, headers={"content-type": JSON})
        case Refusal():
            return response_of(say(outcome))
        case Reply():
            body = msgspec.json.encode(outcome.body)
            return web.Response(body=body, status=outcome.status, headers={"content-type": JSON, **outcome.headers})
        case _:
            return web.Response(body=msgspec.json.encode(outcome), headers={"content-type": JSON})


def refusal_of_http(error: web.HTTPException, request: web.Request) -> Refusal:
    """aiohttp's own errors (no such path, wrong method, body too large) in our envelope."""
    match error:
        case web.HTTPNotFound():
            return NoPath(what=f"there is nothing at {request.path[:200]}: /api/openapi.json lists what there is")
        case web.HTTPMethodNotAllowed():
            return WrongMethod(method=error.method, allowed=tuple(sorted(error.allowed_methods)))
        case web.HTTPRequestEntityTooLarge():
            return BodyTooLarge(limit_bytes=request.client_max_size)
        case _:
            return BadHttp(what=error.text or error.reason)


_WHERE = re.compile(r" - at `\$\.?([^`]*)`$")
_FIELD = re.compile(r"Object (?:missing required|contains unknown) field `([^`]*)`")


def unreadable(error: Exception) -> refusals.Invalid:
    """A body that is not the JSON the row asks for; the sentence names the place: `$.messages[0].role`."""
    if isinstance(error, msgspec.ValidationError):
        text = str(error)
        places = [found.group(1) for found in (_WHERE.search(text), _FIELD.match(text)) if found is not None]
        return refusals.Invalid(what=f"the body does not fit: {text}", param=".".join(places) or None)
    reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return refusals.Invalid(what=f"the body is not valid JSON: {reason}")
