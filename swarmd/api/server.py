"""The aiohttp application made from the table, and the service that runs it.

One path for every request: guard, body, handler, reply. aiohttp's own errors get our envelope; an exception nobody expected
is answered with 500 and a request id, and its traceback goes to the log.

A client that hangs up cancels a handler that only reads, or that says so in its row (generations); any other handler runs
to its end unheard, so that no write is left half done because a browser tab was closed.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from aiohttp import web

from swarmd import __version__
from swarmd.api.calls import Call, Caller, Handler, Reply
from swarmd.api.connection import Connection
from swarmd.api.fresh import News
from swarmd.api.guard import CORS_HEADERS, CORS_METHODS, Gate, Guard, is_foreign, own_origins
from swarmd.api.numbers import decoded
from swarmd.api.openapi import DOCS_POLICY, document, page
from swarmd.api.pages import PageHandlers
from swarmd.api.replies import JSON, OUR_ENVELOPE, Broken, Envelope, NoJson, refusal_of_http, response_of, unreadable
from swarmd.api.route import INDEX_MAX, Route
from swarmd.api.ws import LiveFeed
from swarmd.domain.ids import RequestId, parse_model_id
from swarmd.domain.refusals import Forbidden, Invalid, Refusal
from swarmd.kit.service import Fatal, Ready, Supervisor
from swarmd.kit.world import World

BODY_LIMIT_BYTES: Final = 32 * 1024 * 1024  # contract: swarmllm.md 2.0
REQUEST_ID_BYTES: Final = 12
DRAIN_S: Final = 3.0  # for replies in flight when the node stops; the supervisor gives a service 5 s in all
AFTER_CANCEL_S: Final = 0.5  # for cancelled handlers to clean up
BIND_FAILED: Final = 1  # exit code: another program has the port

SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}

REQUEST_ID: Final = web.RequestKey("request_id", str)

logger = logging.getLogger(__name__)


class ApiServer:
    """Service. `rows` is the complete table (`routes.complete`)."""

    name = "api"

    def __init__(
        self,
        *,
        rows: Sequence[Route],
        gate: Gate,
        pages: PageHandlers,
        feed: LiveFeed,
        world: World,
        address: str,
        port: int,
        news: News,
        body_limit_bytes: int = BODY_LIMIT_BYTES,
        hush: Callable[[], None] = lambda: None,
    ) -> None:
        """`port` 0 takes a free one; see `bound`. `hush`: ends streams that never end by themselves."""
        self._gate, self._feed, self._world, self._news = gate, feed, world, news
        self._address, self._port = address, port
        self._supervisor: Supervisor | None = None
        self._flying: set[asyncio.Task[Any]] = set()
        self._bound: tuple[str, int] | None = None
        pages.describe(self._described, policy=DOCS_POLICY)
        self._rows, self._body_limit_bytes, self._hush = rows, body_limit_bytes, hush

    @property
    def bound(self) -> tuple[str, int]:
        """Address and port of the listening socket; only while it runs."""
        assert self._bound is not None, "the server does not listen"
        return self._bound

    async def run(self, ready: Ready) -> None:
        runner = web.AppRunner(
            self._build(), access_log=None, handler_cancellation=True, shutdown_timeout=AFTER_CANCEL_S, handle_signals=False
        )
        async with Supervisor("api", world=self._world) as self._supervisor:
            await runner.setup()
            listening: asyncio.Server | None = None
            try:
                try:
                    listening = await self._listen(runner)
                except OSError as error:
                    reason = error.strerror or str(error)
                    raise Fatal(BIND_FAILED, f"cannot listen on {self._address} port {self._port}: {reason}") from error
                host, port = listening.sockets[0].getsockname()[:2]
                self._bound = (str(host), int(port))
                logger.info("the API and the dashboard are at http://%s:%d/", host, port)
                ready()
                await asyncio.Event().wait()
            finally:
                self._bound = None
                await self._stop(runner, listening)

    async def _listen(self, runner: web.AppRunner) -> asyncio.Server:
        """As aiohttp's own TCPSite, but with our connections."""
        loop = asyncio.get_running_loop()
        handlers = runner.server
        assert handlers is not None, "the runner has been set up"
        return await loop.create_server(
            lambda: Connection(handlers, loop=loop, access_log=None), self._address, self._port, reuse_address=True
        )

    async def _stop(self, runner: web.AppRunner, listening: asyncio.Server | None) -> None:
        """No new connections; sockets are told; replies in flight may finish within DRAIN_S, then they are cancelled."""
        if listening is not None:
            listening.close()
        self._feed.close_all()
        self._hush()
        current = asyncio.current_task()
        flying = {task for task in self._flying if task is not current}
        if flying:
            _, late = await asyncio.wait(flying, timeout=DRAIN_S)
            for task in late:
                task.cancel()
        await runner.cleanup()

    def _build(self) -> web.Application:
        application = web.Application(client_max_size=self._body_limit_bytes, middlewares=[self._around])
        for row in self._rows:
            handler = self._handler(row)
            # aiohttp would take no braces in a value, and answer that there is no such path.
            path = re.sub(r"\{(\w+)\}", r"{\1:[^/]+}", row.path)
            if row.method == "GET" and row.guard is Guard.OPEN:
                application.router.add_get(path, handler)  # with HEAD, which monitors use
            else:
                application.router.add_route(row.method, path, handler)
        application.on_response_prepare.append(_finish_headers)
        return application

    def _described(self) -> tuple[bytes, str]:
        described = document(self._rows, version=__version__)
        return msgspec.json.encode(described), page(described)

    def _handler(self, row: Route) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            checked = self._gate.check(row.guard, request)
            outcome = checked if isinstance(checked, Refusal) else await self._answer(row, request, checked)
            return response_of(outcome, lambda refusal: _said(row.errors, refusal, request))

        return handle

    async def _answer(self, row: Route, request: web.Request, caller: Caller) -> Any:
        refusal = _check_path(request.match_info)
        if refusal is not None:
            return refusal
        call = Call(
            request=request,
            request_id=RequestId(request[REQUEST_ID]),
            caller=caller,
            now=self._world.clock.now(),
            path=dict(request.match_info),
        )
        handler = row.handler
        if row.request is not None:
            if not _is_json(request.headers.get("content-type", JSON)):
                return NoJson(media=request.content_type)
            data = await request.read()
            elsewhere = None if row.elsewhere is None else row.elsewhere(call, data)
            if elsewhere is not None:
                handler = elsewhere
            else:
                body = data if row.reads_body else _decoded(data, row.request)
                if isinstance(body, Refusal):
                    return body
                call.body = body
        if row.method == "GET" or row.hang_up_cancels:
            return await self._guarded(row, call, handler)
        assert self._supervisor is not None, "requests come only while the server runs"
        return await asyncio.shield(
            self._supervisor.spawn(self._guarded(row, call, handler), name=f"{row.method} {row.path}")
        )

    async def _guarded(self, row: Route, call: Call, handler: Handler) -> Any:
        """The border: a bug in a handler, ours or a plugin's, must not take the connection's other requests with it."""
        try:
            return await handler(call)
        except web.HTTPException:
            raise
        except ConnectionError:
            if call.request.transport is None or call.request.transport.is_closing():
                if call.stream is not None:
                    return call.stream  # the client went away while we wrote to it; raised, aiohttp would log a traceback
                raise
            logger.exception("%s %s failed (%s)", row.method, row.plain_path, call.request_id)
        except Exception:
            logger.exception("%s %s failed (%s)", row.method, row.plain_path, call.request_id)
        broken = Broken(request=call.request_id)
        if call.stream is None:
            return broken
        await call.stream.fail(_said(row.errors, broken, call.request).body)
        return call.stream

    def _envelope(self, path: str) -> Envelope:
        """Where no handler was reached."""
        for row in self._rows:
            if row.errors is not OUR_ENVELOPE and f"{path}/".startswith(f"{row.path}/"):
                return row.errors
        return OUR_ENVELOPE

    @web.middleware
    async def _around(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        request[REQUEST_ID] = self._world.entropy.token(REQUEST_ID_BYTES).hex()
        task = asyncio.current_task()
        assert task is not None, "aiohttp handles requests in tasks"
        self._flying.add(task)
        began_at = self._world.clock.ticks()
        status = 499  # nginx's number for a client that went away; only in the log
        try:
            try:
                response = _preflight(request) if request.method == "OPTIONS" else await handler(request)
            except web.HTTPException as error:
                envelope = self._envelope(request.path)
                response = response_of(refusal_of_http(error, request), lambda refusal: _said(envelope, refusal, request))
            status = response.status
            return response
        finally:
            self._flying.discard(task)
            if request.method not in ("GET", "HEAD"):
                self._news.wrote()
            quiet = request.method in ("GET", "HEAD") and status < 500  # dashboards poll
            took_ms = (self._world.clock.ticks() - began_at) * 1e3
            # Without the query, which may hold a ticket, and without anything of the body.
            logger.log(
                logging.DEBUG if quiet else logging.INFO,
                "%s %s %d in %.1f ms for %s (%s)",
                request.method, request.path[:200], status, took_ms, request.remote, request[REQUEST_ID],
            )  # fmt: skip


def _said(envelope: Envelope, refusal: Refusal, request: web.Request) -> Reply:
    return envelope.say(refusal, request, RequestId(request[REQUEST_ID]))


def _preflight(request: web.Request) -> web.StreamResponse:
    """CORS: closed but for our own pages, whichever of this machine's names they were opened under."""
    if "origin" not in request.headers or is_foreign(request):
        return response_of(Forbidden(what="pages of other sites may not use this node"))
    allowed = {
        "access-control-allow-methods": CORS_METHODS,
        "access-control-allow-headers": CORS_HEADERS,
        "access-control-max-age": "600",
    }
    return web.Response(status=204, headers=allowed)


async def _finish_headers(request: web.Request, response: web.StreamResponse) -> None:
    """On every reply, streams and sockets included."""
    response.headers["x-request-id"] = request.get(REQUEST_ID, "")
    response.headers.pop("server", None)
    for name, value in SECURITY_HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("content-security-policy", _policy(request))
    origin = request.headers.get("origin")
    if origin is not None and origin in own_origins(request):
        response.headers["access-control-allow-origin"] = origin
        response.headers["access-control-expose-headers"] = "x-request-id, x-swarm-nodes, x-swarm-provider, server-timing"
    response.headers.add("vary", "origin")


def _policy(request: web.Request) -> str:
    """Only what this node itself serves. The socket is named as well: not every browser counts it as 'self'."""
    host = request.headers.get("host", "")
    socket = f" ws://{host} wss://{host}" if re.fullmatch(r"[A-Za-z0-9.\-\[\]:]{1,255}", host) else ""
    return (
        f"default-src 'self'; connect-src 'self'{socket}; img-src 'self' data: blob:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def _decoded(data: bytes, wanted: Any) -> Any | Refusal:
    try:
        return decoded(data, wanted)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return unreadable(error)


def _is_json(media: str) -> bool:
    """Bytes of no declared kind are read as JSON; a form or a text is somebody's mistake, or a page's that is not ours."""
    name = media.partition(";")[0].strip().lower()
    return name in (JSON, "text/json", "application/octet-stream", "") or name.endswith("+json")


def _check_path(parameters: Mapping[str, str]) -> Invalid | None:
    """`model` and `index` mean the same on every path."""
    if "model" in parameters:
        try:
            parse_model_id(parameters["model"])
        except ValueError as error:
            return Invalid(what=str(error), param="model")
    index = parameters.get("index")
    if index is not None and not (re.fullmatch(r"[0-9]{1,10}", index) and int(index) <= INDEX_MAX):
        return Invalid(what=f"a shard index is a whole number from 0 to {INDEX_MAX}, not {index[:40]!r}", param="index")
    return None
