"""MCP over streamable HTTP at `/mcp`: agents and editors use the models of this node as tools.

The server side of the official package is made for Starlette, and this node answers with aiohttp through one table of
routes, one guard and one way to say no. So this is a thin layer of our own: msgspec reads and writes the messages, and
`mcp_protocol` knows what they mean. The official client drives it in the tests.

A call ends when the client says so (`notifications/cancelled`), when it hangs up, when its session is deleted, and after two
minutes. Progress is told where the client gave a token and reads event streams; else a reply is one JSON body.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from swarmd import __version__
from swarmd.api import mcp_shapes as shapes
from swarmd.api.calls import Call, Reply
from swarmd.api.mcp_protocol import (
    BUG,
    CALLERS_FAULT,
    CANNOT_NOW,
    NO_METHOD,
    SESSION_HEADER,
    VERSION_HEADER,
    Answer,
    Fault,
    Notification,
    RpcRequest,
    error_of,
    fault_of,
    negotiated,
    other_version,
    read,
)
from swarmd.api.mcp_sessions import Session, Sessions
from swarmd.api.mcp_tools import Asked, McpTools
from swarmd.api.openai import client_of
from swarmd.api.replies import TABLE
from swarmd.api.shapes import Done
from swarmd.api.sse import EventStream
from swarmd.api.status import StatusHandlers
from swarmd.domain.refusals import Invalid, Refusal
from swarmd.kit.world import Clock

STATUS_URI: Final = "swarmd://status"
EVENTS: Final = "text/event-stream"
PROGRESS_S: Final = 0.25  # between two words on progress; people read no faster
INSTRUCTIONS: Final = (
    "Language models that run on a swarm of the user's own machines. Call models to see what there is, chat to ask one, "
    "compare to ask several the same."
)

Params = TypeVar("Params")
Out = shapes.RpcResult | shapes.RpcError

logger = logging.getLogger(__name__)


class McpHandlers:
    def __init__(self, *, sessions: Sessions, tools: McpTools, status: StatusHandlers, clock: Clock) -> None:
        self._sessions, self._tools, self._status, self._clock = sessions, tools, status, clock

    async def post(self, call: Call) -> Any:
        message = read(call.body)
        if isinstance(message, shapes.RpcError):
            return Reply(body=message, status=400)
        id = message.id if isinstance(message, RpcRequest) else None
        if isinstance(message, RpcRequest) and message.method == "initialize":
            return self._initialize(message)
        wrong = other_version(call.request.headers.get(VERSION_HEADER), id)
        if wrong is not None:
            return Reply(body=wrong, status=400)
        session = self._sessions.find(call.request.headers.get(SESSION_HEADER))
        if isinstance(session, Refusal):
            return Reply(body=error_of(id, fault_of(session)), status=TABLE[type(session)].status)
        match message:
            case RpcRequest(method="tools/call"):
                return await self._call(call, session, message)
            case RpcRequest():
                return _said(message, await self._answered(message))
            case Notification():
                self._noted(session, message)
            case Answer():
                pass
        return web.Response(status=202)

    async def listen(self, call: Call) -> Any:
        """The stream on which a server may speak unasked. This one only shows that it is there."""
        if EVENTS not in call.request.headers.get("accept", ""):
            return Invalid(what=f"this is a stream of events: accept {EVENTS}", param="accept")
        session = self._sessions.find(call.request.headers.get(SESSION_HEADER))
        if isinstance(session, Refusal):
            return session
        ended = session.listen()
        try:
            stream = await call.open_stream({SESSION_HEADER: session.id})
            async with stream.kept_alive(stream.comment):
                await stream.comment()
                await ended.wait()
        finally:
            if session.listener is ended:
                session.listener = None
        await stream.finish()
        return stream

    async def end(self, call: Call) -> Any:
        session = self._sessions.find(call.request.headers.get(SESSION_HEADER))
        if isinstance(session, Refusal):
            return session
        self._sessions.end(session)
        return Done(status="ok")

    def _initialize(self, message: RpcRequest) -> Reply:
        wanted = _params(message, shapes.Initialize)
        if isinstance(wanted, Fault):
            return Reply(body=error_of(message.id, wanted), status=400)
        session = self._sessions.begin(negotiated(wanted.protocol_version))
        if isinstance(session, Refusal):
            return Reply(body=error_of(message.id, fault_of(session)), status=503)
        result = shapes.Initialized(
            protocol_version=session.version,
            capabilities=shapes.Capabilities(),
            server_info=shapes.Implementation(name="swarmd", title="swarmd", version=__version__),
            instructions=INSTRUCTIONS,
        )
        return Reply(body=shapes.RpcResult(id=message.id, result=result), headers={SESSION_HEADER: session.id})

    async def _answered(self, message: RpcRequest) -> Any | Fault:
        match message.method:
            case "ping":
                return shapes.Nothing()
            case "tools/list":
                return self._tools.cards
            case "resources/list":
                return shapes.ResourceCards(
                    resources=[
                        shapes.ResourceCard(
                            uri=STATUS_URI, name="status", title="Status of the node", mime_type="application/json",
                            description="What this node serves and what it is doing.",
                        )
                    ]
                )  # fmt: skip
            case "resources/templates/list":
                return shapes.ResourceTemplates()
            case "resources/read":
                return await self._resource(message)
            case _:
                return Fault(code=NO_METHOD, message=f"this node knows no method {message.method[:80]!r}")

    async def _resource(self, message: RpcRequest) -> Any | Fault:
        wanted = _params(message, shapes.ReadResource)
        if isinstance(wanted, Fault):
            return wanted
        if wanted.uri != STATUS_URI:
            return Fault(code=CALLERS_FAULT, message=f"there is no resource {wanted.uri[:80]!r}: {STATUS_URI} is the one")
        text = msgspec.json.encode(await self._status.now()).decode()
        return shapes.ResourceContents(
            contents=[shapes.ResourceText(uri=STATUS_URI, mime_type="application/json", text=text)]
        )

    def _noted(self, session: Session, message: Notification) -> None:
        """Others say that the client is ready, or that its roots have changed: neither changes anything here."""
        if message.method == "notifications/cancelled":
            try:
                session.cancel(msgspec.convert(message.params, shapes.Cancelled).request_id)
            except msgspec.ValidationError:
                logger.debug("a client cancelled a call without naming it")

    # -- calls

    async def _call(self, call: Call, session: Session, message: RpcRequest) -> Any:
        wanted = _params(message, shapes.CallTool)
        if isinstance(wanted, Fault):
            return _said(message, wanted)
        if (refusal := session.cannot_begin(message.id)) is not None:
            return _said(message, fault_of(refusal))
        running = _Running(self._tools, wanted, self._clock)
        accepted = call.request.headers.get("accept", "")
        token = None if wanted.meta is None else wanted.meta.progress_token
        if EVENTS in accepted and (token is not None or "json" not in accepted):
            return await self._streamed(call, session, message, running, token)
        await self._run(call, session, message, running)
        if running.outcome is None:
            return _said(message, Fault(code=CANNOT_NOW, message="the client cancelled this call"))
        return _said(message, running.outcome)

    async def _streamed(
        self, call: Call, session: Session, message: RpcRequest, running: _Running, token: shapes.CallId | None
    ) -> EventStream:
        stream = await call.open_stream({SESSION_HEADER: session.id})
        async with stream.kept_alive(stream.comment):
            running.stream, running.token = stream, token
            await self._run(call, session, message, running)
        if running.outcome is not None:  # who cancelled it does not want to hear of it
            await stream.send(_said(message, running.outcome))
        await stream.finish()
        return stream

    async def _run(self, call: Call, session: Session, message: RpcRequest, running: _Running) -> None:
        """Returns when it is done or was cancelled. This handler's own cancellation, by a hang-up, ends it too."""
        asked = Asked(request=call.request_id, client=client_of(call, None), tell=running.tell)
        async with asyncio.TaskGroup() as group:
            session.calls[message.id] = group.create_task(running.run(asked))
            try:
                await asyncio.wait((session.calls[message.id],))
            finally:
                del session.calls[message.id]


class _Running:
    """One call of a tool."""

    def __init__(self, tools: McpTools, wanted: shapes.CallTool, clock: Clock) -> None:
        self._tools, self._wanted, self._clock = tools, wanted, clock
        self.stream: EventStream | None = None
        self.token: shapes.CallId | None = None
        self.outcome: shapes.ToolResult | Fault | None = None
        """None: cancelled by its client."""
        self._told_at: float | None = None
        self._told = -1

    async def run(self, asked: Asked) -> None:
        try:
            self.outcome = await self._tools.call(self._wanted, asked)
        except Exception:
            logger.exception("tool %s failed (%s)", self._wanted.name, asked.request)
            message = f"the node made a mistake; its log says more under {asked.request}"
            self.outcome = Fault(code=BUG, message=message)

    async def tell(self, done: int, total: int, words: str) -> None:
        """Progress only grows, as the protocol wants it."""
        if self.stream is None or self.token is None or done <= self._told:
            return
        now = self._clock.monotonic()
        if self._told_at is not None and now - self._told_at < PROGRESS_S and done < total:
            return
        self._told, self._told_at = done, now
        progress = shapes.Progress(progress_token=self.token, progress=done, total=total, message=words)
        try:
            await self.stream.send(shapes.RpcNotification(method="notifications/progress", params=progress))
        except ConnectionError:
            self.stream = None  # the client is gone, and its hanging up is about to end the call


def _said(message: RpcRequest, outcome: Any) -> Out:
    if isinstance(outcome, Fault):
        return error_of(message.id, outcome)
    return shapes.RpcResult(id=message.id, result=outcome)


def _params(message: RpcRequest, wanted: type[Params]) -> Params | Fault:
    try:
        return msgspec.convert(message.params, wanted)
    except msgspec.ValidationError as error:
        return Fault(code=CALLERS_FAULT, message=f"the params of {message.method} do not fit: {error}")
