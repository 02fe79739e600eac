"""HTTP to providers: one door, with its limits. No redirects, cookies, proxy or netrc; addresses are checked at sockets."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, cast

import aiohttp
from yarl import URL

from swarmd.domain.refusals import ProviderFailed
from swarmd.kit.logs import Redactor
from swarmd.providers.addresses import AddressRefused, socket_maker
from swarmd.providers.loose import as_dict, as_list, parsed
from swarmd.providers.roster import Ready

CONNECT_S: Final = 5.0  # contract: swarmllm.md 2.6
PROBE_S: Final = 10.0  # contract: swarmllm.md 2.6
SILENCE_S: Final = 600.0  # models that think say nothing for minutes; official clients wait as long
ERROR_LIMIT: Final = 64 * 1024  # bytes of an error's body
WHOLE_LIMIT: Final = 64 * 1024 * 1024  # bytes of a reply that is passed on whole: 2,048 vectors of 1,536 numbers as text
DETAIL_LENGTH: Final = 100  # contract: swarmllm.md 2.6
MESSAGE_LENGTH: Final = 2000
BUFFER_BYTES: Final = 64 * 1024  # read ahead of a slow client, twice that at most

_BROKEN: Final = (aiohttp.ClientError, ConnectionError, OSError, ValueError)


class ProviderTrouble(Exception):
    """Raised inside this floor; the refusal is for the client."""

    def __init__(self, refusal: ProviderFailed) -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal


class Line:
    """One per node. Owns the sessions."""

    def __init__(self, *, private: Callable[[], bool], user_agent: str) -> None:
        """`private`: whether addresses that are not public are allowed."""
        self._private, self._user_agent = private, user_agent
        self._sessions: dict[tuple[bool, bool], aiohttp.ClientSession] = {}

    async def close(self) -> None:
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    @asynccontextmanager
    async def asked(
        self,
        provider: Ready,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        within_s: float | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """A POST of JSON, or a GET without a body. The response has a good status and nothing of its body was read: `pieces`
        and `whole` do that. `within_s`: for everything, the body included. Raises ProviderTrouble."""
        timeout = aiohttp.ClientTimeout(total=within_s, sock_connect=CONNECT_S, sock_read=SILENCE_S)
        sent = {**provider.key_headers(), **(headers or {})}
        if body is not None:
            sent["content-type"] = "application/json"
        async with AsyncExitStack() as stack:
            try:
                asking = self._session(provider).request(
                    "GET" if body is None else "POST", URL(f"{provider.base_url}/{path}"), data=body, headers=sent,
                    timeout=timeout, allow_redirects=False,
                )  # fmt: skip
                response = await stack.enter_async_context(asking)
                if not 200 <= response.status < 300:
                    raise ProviderTrouble(await _refused(provider, response))
            except TimeoutError as error:
                raise ProviderTrouble(late(provider)) from error
            except _BROKEN as error:
                raise ProviderTrouble(broken(provider, error)) from error
            yield response

    def _session(self, provider: Ready) -> aiohttp.ClientSession:
        """One for each rule: a connection that was made while private addresses were allowed serves nobody afterwards."""
        encrypted, private = provider.base_url.startswith("https:"), self._private()
        session = self._sessions.get((encrypted, private))
        if session is None:
            session = self._sessions[encrypted, private] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, ttl_dns_cache=60, socket_factory=socket_maker(encrypted=encrypted, private=private)
                ),
                headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                read_bufsize=BUFFER_BYTES,
            )
        return session


async def pieces(provider: Ready, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    """The body as it comes. Raises ProviderTrouble when it breaks off or is too slow."""
    while True:
        try:
            piece = await response.content.readany()
        except TimeoutError as error:
            raise ProviderTrouble(late(provider)) from error
        except _BROKEN as error:
            raise ProviderTrouble(broken(provider, error)) from error
        if not piece:
            return
        yield piece


async def whole(provider: Ready, response: aiohttp.ClientResponse, *, limit: int = WHOLE_LIMIT) -> bytes:
    """The body. Raises ProviderTrouble when there is more of it."""
    body = bytearray()
    async for piece in pieces(provider, response):
        if len(body) + len(piece) > limit:
            raise ProviderTrouble(ProviderFailed(provider=provider.name, what=f"answered more than {limit} bytes"))
        body += piece
    return bytes(body)


def late(provider: Ready) -> ProviderFailed:
    return ProviderFailed(provider=provider.name, what="did not answer in time", status=504, code="provider_timeout")


def broken(provider: Ready, error: Exception) -> ProviderFailed:
    """From an exception of the connection."""
    what, reached = "broke the connection off", True
    match error:
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            what, reached = "shows a certificate that is not valid", False
        case aiohttp.ClientConnectorDNSError():
            what, reached = "cannot be reached: its name leads nowhere", False
        case aiohttp.ClientConnectorError():
            inner = error.os_error
            refused = isinstance(inner, AddressRefused)
            what = f"is not asked: {inner}" if refused else f"cannot be reached: {inner.strerror or 'no connection'}"
            reached = False
        case AddressRefused():
            what, reached = f"is not asked: {error}", False
        case aiohttp.InvalidURL():
            what, reached = "has no address that can be used", False
        case _:
            pass
    return ProviderFailed(provider=provider.name, what=what, code="provider_unreachable", unreachable=not reached)


async def _refused(provider: Ready, response: aiohttp.ClientResponse) -> ProviderFailed:
    """From an answer that is none of the wished kind."""
    if response.status < 400:
        return ProviderFailed(
            provider=provider.name, what=f"answered {response.status}, and redirects are not followed: correct its address"
        )
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece[: ERROR_LIMIT - len(body)]
        if len(body) >= ERROR_LIMIT:
            break
    return refusal_of(provider, response.status, bytes(body), retry_after=response.headers.get("retry-after"))


def refusal_of(provider: Ready, status: int, body: bytes, *, retry_after: str | None = None) -> ProviderFailed:
    """From the body of an error, whatever shape it has. Keys are struck out."""
    message, code, param = _said(body)
    message = scrubbed(message, provider)[:MESSAGE_LENGTH] or "without a reason"
    if status in (401, 403):
        # Not to be taken for this node's own 401: the client's key was right.
        code, what = "provider_key_refused", f"refuses the key that this node has for it ({status}): {message}"
    else:
        what = f"answered {status}: {message}"
    return ProviderFailed(
        provider=provider.name, what=what, status=status, code=scrubbed(code, provider)[:64] or f"provider_{status}",
        param=param, retry_after=retry_after if retry_after is None or retry_after.isprintable() else None,
    )  # fmt: skip


def _said(body: bytes) -> tuple[str, str, str | None]:
    """Message, code and parameter."""
    found = parsed(body)
    if isinstance(found, list):
        found = next(iter(as_list(cast("Any", found))), None)
    if not isinstance(found, dict):
        text = found if isinstance(found, str) else body.decode(errors="replace").strip()
        return ("" if text.startswith("<") else text), "", None  # a page for people says nothing here
    outer = as_dict(cast("Any", found))
    inner = outer.get("error")
    fields = as_dict(inner) or {**outer, "message": inner or outer.get("message")}
    message = fields.get("message") or fields.get("detail") or outer.get("detail") or ""
    param = fields.get("param")
    text = message if isinstance(message, str) else json.dumps(message)
    return text, str(fields.get("code") or fields.get("type") or ""), param if isinstance(param, str) else None


def scrubbed(text: str, provider: Ready) -> str:
    """Without the key and what looks like one, in one line of printable characters."""
    redactor = Redactor()
    cleaned = text.replace(provider.key, "[hidden]") if provider.key else text
    return "".join(one if one.isprintable() else " " for one in redactor.clean(cleaned)).strip()
