"""Who may ask for what: the key, the loopback, `Host`, `Origin`, and how often.

Rules, in the order in which they are applied:

1. A foreign `Origin` is refused, key or not: pages of other sites have no business here, and CORS is closed to them. So is
   what browsers ask for such pages without an `Origin` (`Sec-Fetch-Site`), unless it shows the key, which a page cannot.
2. Addresses other than loopback are rate-limited. Loopback is not: the dashboard polls, and whoever runs programs on this
   machine has better ways to keep it busy. OPEN rows, which ask for nothing else, are limited as well.
3. A row marked WRITE needs the key, always. A row marked READ is free on loopback (or from everywhere, where the settings
   say so), and needs the key from elsewhere.
4. Without the key, `Host` must name an address of ours. A page that rebound its own DNS name to this machine is of our
   origin in the browser's eyes and comes from loopback in ours, but it cannot change the name in `Host`, and has no key.

"Loopback" is the socket's other end, never a header; but a header that says "I forward for somebody" takes it away. A
reverse proxy on this machine that sends no such header (nginx, unless told to) cannot be told from a program of this
machine: its visitors would read without the key, and could obtain it. Behind one, switch `api.trust_loopback` off: then
loopback is as any address, but that a LOCAL_WRITE with the key still works from it.

What this does not do: tell apart the users of one machine. Whoever can open a socket on loopback can read what READ rows
show, and can get the key as a browser would (`POST /api/admin/session`), while `api.trust_loopback` is on.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from swarmd.api.calls import Caller
from swarmd.api.limits import RateLimit
from swarmd.api.passes import OneTimePasses
from swarmd.api.replies import NoKey, TooManyRequests
from swarmd.config.settings import Settings
from swarmd.domain.refusals import Forbidden, Refusal
from swarmd.kit.world import Clock

PeerAddress = Callable[[web.Request], str]

CORS_METHODS: Final = "GET, POST, PUT, DELETE"
CORS_HEADERS: Final = "content-type, authorization, accept, x-api-key, anthropic-version"  # contract: swarmllm.md 2.0

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_FORWARDED: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")

OPEN_PER_MINUTE: Final = 600
"""Requests to OPEN rows from one address: the dashboard has two dozen files, so twenty colleagues behind one address may
load it within a minute; of the largest reply, the reference, it is a megabyte a second."""


class Guard(Enum):
    """What a row of the table asks of its caller."""

    OPEN = "open"  # anybody: health and files without content of ours
    READ = "read"  # free on loopback (settings may open it further), the key from elsewhere
    LOCAL_READ = "local-read"  # free on loopback, the key from elsewhere, whatever the settings say
    SOCKET = "socket"  # as READ; a one-time ticket does as well, since a browser's socket carries no header
    WRITE = "write"  # the key
    LOCAL_WRITE = "local-write"  # loopback and the key
    PAGE = "page"  # loopback, with the Origin of our own page; the handler checks the page's nonce


def peer_address(request: web.Request) -> str:
    """The socket's other end."""
    return request.remote or ""


class Gate:
    """One per server."""

    def __init__(
        self,
        *,
        key: str,
        settings: Callable[[], Settings],
        clock: Clock,
        tickets: OneTimePasses,
        peer: PeerAddress = peer_address,
    ) -> None:
        """`peer` is for tests, which have only one machine."""
        self._key = key.encode()
        self._settings, self._tickets, self._peer = settings, tickets, peer
        self._limits = {name: RateLimit(clock=clock) for name in ("v1", "admin", "open")}

    def check(self, guard: Guard, request: web.Request) -> Caller | Refusal:
        """The caller, or why not."""
        caller = self.caller(request)
        if guard is not Guard.OPEN and is_foreign(request):
            origin = request.headers["origin"][:200]
            return Forbidden(what=f"pages of {origin} may not use this node: open its own dashboard instead")
        if not caller.keyed and _is_drive_by(guard, request):
            return Forbidden(what="pages of other sites may not use this node: open its own dashboard instead")
        if (limited := self._limited(guard, request, caller)) is not None:
            return limited
        if guard is Guard.OPEN:
            return caller
        refusal = self._refused(guard, request, caller)
        return caller if refusal is None else refusal

    def caller(self, request: web.Request) -> Caller:
        return Caller(
            address=self._peer(request),
            local=self._settings().api.trust_loopback and self._is_own_machine(request),
            keyed=self._is_keyed(request.headers),
            known_host=self._is_known_host(request),
        )

    def _refused(self, guard: Guard, request: web.Request, caller: Caller) -> Refusal | None:
        if guard is Guard.LOCAL_WRITE and not self._is_own_machine(request):
            return Forbidden(what="this works only on the node's own machine")
        if guard is Guard.PAGE:
            if not caller.local:
                return Forbidden(what="this works only on the node's own machine, and while api.trust_loopback is on")
            if "origin" not in request.headers:
                return Forbidden(what="this is for the dashboard's own page: other programs read the key from its file")
            return self._strange_host(request, caller)
        if caller.keyed:
            return None
        free = guard in (Guard.READ, Guard.LOCAL_READ, Guard.SOCKET) and caller.local
        if guard in (Guard.READ, Guard.SOCKET) and self._settings().api.open_reads == "everywhere":
            free = True
        if free:
            return self._strange_host(request, caller)
        if guard is Guard.SOCKET and self._tickets.redeem(request.query.get("ticket", "")):
            return None
        return NoKey(given=bool(shown_key(request.headers)))

    def _strange_host(self, request: web.Request, caller: Caller) -> Forbidden | None:
        if caller.known_host:
            return None
        name = request.headers.get("host", "")[:200]
        return Forbidden(what=f"{name!r} is not an address of this node: use localhost or its IP address, or send the key")

    def _limited(self, guard: Guard, request: web.Request, caller: Caller) -> TooManyRequests | None:
        if caller.local:
            return None
        settings = self._settings().api
        if guard is Guard.OPEN:
            name, per_minute = "open", OPEN_PER_MINUTE
        elif request.path.startswith(("/v1/", "/mcp")):
            name, per_minute = "v1", settings.rate_limit_rpm
        else:
            name, per_minute = "admin", settings.rate_limit_admin_rpm
        wait_s = self._limits[name].wait_s(caller.address, per_minute=per_minute)
        return None if wait_s is None else TooManyRequests(retry_after_s=wait_s)

    def _is_own_machine(self, request: web.Request) -> bool:
        """A socket over loopback, and no proxy that says so."""
        return _is_loopback(self._peer(request)) and not any(name in request.headers for name in _FORWARDED)

    def _is_keyed(self, headers: Mapping[str, str]) -> bool:
        shown = shown_key(headers)
        return bool(shown) and hmac.compare_digest(shown.encode(errors="surrogateescape"), self._key)

    def _is_known_host(self, request: web.Request) -> bool:
        host = host_name(request.headers.get("host", ""))
        return host in _LOOPBACK_NAMES or host == self._settings().node.listen_address or host == _bound_to(request)[0]


def shown_key(headers: Mapping[str, str]) -> str:
    """The key as the request shows it, `Authorization: Bearer` before `x-api-key`; empty when it shows none."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("x-api-key", "").strip()


def is_foreign(request: web.Request) -> bool:
    """Whether a browser says that the request comes from a page that is not ours. No Origin: no browser, or no page."""
    origin = request.headers.get("origin")
    return origin is not None and origin not in own_origins(request) and not _is_same_site(origin, request)


def _is_drive_by(guard: Guard, request: web.Request) -> bool:
    """Whether a page that is not ours makes the browser ask, as it does for pictures, scripts and frames: without Origin.
    The page cannot read the answer, but asking may cost the owner something. A link to what people read is none."""
    headers = request.headers
    if guard is Guard.OPEN or "origin" in headers or headers.get("sec-fetch-site", "") not in ("cross-site", "same-site"):
        return False
    opened = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return not (opened and guard is Guard.READ)


def own_origins(request: web.Request) -> tuple[str, ...]:
    """Origins of pages that this very port serves on its own machine; the only ones CORS is open to."""
    port = _bound_to(request)[1]
    return tuple(f"http://{name}:{port}" for name in ("localhost", "127.0.0.1", "[::1]"))


def host_name(host: str) -> str:
    """The name in a `Host` header: lower case, without port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_same_site(origin: str, request: web.Request) -> bool:
    """Origin and Host agree: the page came from where the request goes (rule 4 deals with rebound names)."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc == request.headers.get("host", "") != ""


def _bound_to(request: web.Request) -> tuple[str, int]:
    """Address and port of our end of the socket."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return (str(name[0]), int(name[1])) if name else ("", 0)


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback
