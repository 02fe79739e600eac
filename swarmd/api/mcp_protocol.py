"""The Model Context Protocol without I/O: what a body is, which version is spoken, and how an error is said. Pure.

Versions with the `initialize` handshake are spoken. To clients that open with `server/discover`, as those of 2026-07-28 do,
the versions are named, and they fall back to the handshake. Of 2025-03-26 batches are missing, which later versions took
out of the protocol again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiohttp import web

from swarmd.api.calls import Reply
from swarmd.api.mcp_shapes import CallId, Incoming, RpcError, RpcFault
from swarmd.api.replies import Envelope, reply_to
from swarmd.domain.ids import RequestId
from swarmd.domain.refusals import ProviderFailed, Refusal

VERSIONS: Final = ("2025-11-25", "2025-06-18", "2025-03-26")  # the newest first
SESSION_HEADER: Final = "mcp-session-id"
VERSION_HEADER: Final = "mcp-protocol-version"

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
NO_METHOD: Final = -32601
CALLERS_FAULT: Final = -32602
CANNOT_NOW: Final = -32000  # contract: swarmllm.md 3.5
BUG: Final = -32603
OTHER_VERSION: Final = -32022  # of the protocol of 2026-07-28, which tells its clients what to fall back to


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcRequest:
    id: CallId
    method: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    method: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """To a request of ours; there are none, so nobody waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    code: int
    message: str
    data: Any = msgspec.UNSET


def read(data: bytes) -> RpcRequest | Notification | Answer | RpcError:
    """One body of a POST."""
    try:
        found = msgspec.json.decode(data, type=Incoming)
    except msgspec.ValidationError as error:
        batch = data.lstrip()[:1] == b"["
        what = "this node takes no batches: send one message a request" if batch else f"this is no JSON-RPC message: {error}"
        return error_of(None, Fault(code=INVALID_REQUEST, message=what))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return error_of(None, Fault(code=PARSE_ERROR, message=f"the body is not valid JSON: {reason}"))
    if found.jsonrpc != "2.0":
        return error_of(None, Fault(code=INVALID_REQUEST, message='jsonrpc must be "2.0"'))
    if isinstance(found.method, msgspec.UnsetType):
        if found.result is msgspec.UNSET and found.error is msgspec.UNSET:
            return error_of(None, Fault(code=INVALID_REQUEST, message="the message has no method"))
        return Answer()
    params = found.params or {}
    if isinstance(found.id, msgspec.UnsetType):
        return Notification(method=found.method, params=params)
    if found.id is None:
        return error_of(None, Fault(code=INVALID_REQUEST, message="the id of a request is a text or a number"))
    return RpcRequest(id=found.id, method=found.method, params=params)


def negotiated(wanted: str) -> str:
    """The client's version where it is known here, else the newest one that is; a client that cannot speak it goes."""
    return wanted if wanted in VERSIONS else VERSIONS[0]


def other_version(wanted: str | None, id: CallId | None) -> RpcError | None:
    """A client that names none speaks one without the header, or has not been told yet."""
    if wanted is None or wanted in VERSIONS:
        return None
    data = {"supported": list(VERSIONS), "requested": wanted[:64]}
    return error_of(id, Fault(code=OTHER_VERSION, message=f"this node does not speak version {wanted[:64]!r}", data=data))


def fault_of(refusal: Refusal) -> Fault:
    usual = reply_to(refusal)
    error = usual.body.error
    data = {"code": error.code, "param": error.param}
    code = _code(usual.status)
    if isinstance(refusal, ProviderFailed) and usual.status in (401, 403):
        code = CANNOT_NOW  # the key is this node's: nothing in the call is wrong
    return Fault(code=code, message=refusal.sentence, data=data)


def _code(status: int) -> int:
    if status == 429 or status > 500:
        return CANNOT_NOW
    return BUG if status == 500 else CALLERS_FAULT


def error_of(id: CallId | None, fault: Fault) -> RpcError:
    return RpcError(id=id, error=RpcFault(code=fault.code, message=fault.message, data=fault.data))


def _said(refusal: Refusal, _request: web.Request, _id: RequestId) -> Reply:
    usual = reply_to(refusal)
    fault = fault_of(refusal)
    return Reply(body=error_of(None, fault), status=usual.status, headers=usual.headers)


JSON_RPC: Final = Envelope(_said, (RpcError,))
