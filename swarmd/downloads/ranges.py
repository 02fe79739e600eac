"""Byte ranges of files over HTTP: redirects to signed addresses, tokens, limits of the server, and its lies.

A file on a hub is asked for at its own address, which redirects to where the bytes lie: a signed address that is good for
an hour or so. It is looked up once, used byte for byte as it was given (a signature does not survive being quoted anew), and
looked up again when it is refused. The token goes to the hub alone, never to where it redirects.
"""

from __future__ import annotations

import asyncio
import email.utils
import re
import urllib.request
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from swarmd.kit.world import World

STALL_S: Final = 30.0  # without a byte; a healthy connection of 8 at 1 Mbit/s has one every 0.1 s
CONNECT_S: Final = 20.0
HOPS: Final = 8  # of redirects in a row; real ones are one or two
BUFFER_BYTES: Final = 512 * 1024  # read ahead of a connection, twice that at most: fills 80 Mbit/s at 50 ms, each
WAIT_LIMIT_S: Final = 300.0  # a server may ask for more patience than that; it is asked again then
WAIT_S: Final = 5.0  # where it says 429 and not how long: the hub counts calls in five minutes
LOCATIONS: Final = 1024  # addresses kept; one for each file in the making

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_RATE_LIMIT: Final = re.compile(r"\bt=(\d+)")
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_BROKEN: Final = (aiohttp.ClientError, TimeoutError, ConnectionError)
_UNREACHED: Final = (*_BROKEN, ValueError)  # aiohttp, yarl and the resolver raise that of an address that is none


class SourceTrouble(Exception):
    """Another try may work. The message is one clause for people, without addresses that carry signatures."""

    def __init__(self, what: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(what)
        self.retry_after_s = retry_after_s
        """The server asked to be left alone so long."""


class RangesIgnored(SourceTrouble):
    """The server sent the whole file where a part was asked for."""


class SourceRefused(Exception):
    """No try will work: the file is not there, or not for us, or is another one now. One sentence for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """One file at a fixed address. Two with the same address are the same file."""

    url: str
    size_bytes: int
    name: str
    """For people: no address of a file is shown."""
    sha256: str | None = None
    git_sha1: str | None = None
    """Of the file as git stores it: of `blob <size>`, a zero byte, and the content."""


class RangeClient:
    """One per node. Owns the HTTP session and what is known of where files lie."""

    def __init__(
        self,
        *,
        world: World,
        hub: Callable[[], str],
        token: Callable[[], str | None],
        proxy: Callable[[], str | None],
        user_agent: str,
        stall_s: float = STALL_S,
    ) -> None:
        """`hub`: address of the hub, which alone sees the `token`. `proxy`: None for that of the environment."""
        self._world, self._hub, self._token, self._proxy = world, hub, token, proxy
        self._user_agent, self._stall_s = user_agent, stall_s
        self._session: aiohttp.ClientSession | None = None
        self._locations: OrderedDict[str, URL] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def open(self, file: RemoteFile, start: int, end: int) -> AsyncGenerator[Body]:
        """Bytes [start, end) of the file, in pieces. What comes is exactly that much, or the iteration raises.

        Raises SourceTrouble and SourceRefused, also while the pieces come.
        """
        assert 0 <= start < end <= file.size_bytes, f"{start} to {end} of {file.size_bytes}"
        async with AsyncExitStack() as stack:
            try:
                location = await self._locate(file)
                response = await stack.enter_async_context(self._get(location, {"Range": f"bytes={start}-{end - 1}"}))
                self._check(response, file, start, end)
            except _UNREACHED as error:
                raise SourceTrouble(_reason(error)) from error
            yield Body(response, end - start)

    @asynccontextmanager
    async def _get(self, url: URL, headers: dict[str, str]) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Follows redirects of whoever the hub redirected to."""
        for _ in range(HOPS):
            async with self._ask("GET", url, headers) as response:
                if response.status not in _REDIRECTS:
                    yield response
                    return
                url = _next(response)
        raise SourceTrouble("the server redirects without end")

    def _ask(
        self, method: str, url: URL, headers: dict[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        token = self._token() if url.origin() == URL(self._hub()).origin() else None
        if token and not url.user:  # who writes a name into the address of the hub means that one
            headers = {**headers, "Authorization": f"Bearer {token}"}
        proxy = proxy_of(url, self._proxy())
        return self._opened().request(method, url, headers=headers, allow_redirects=False, proxy=proxy)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),  # the engine limits its connections itself
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=self._stall_s),
                headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,  # it would send what ~/.netrc says to whoever the hub redirects to
                requote_redirect_url=False,
                read_bufsize=BUFFER_BYTES,
            )
        return self._session

    async def _locate(self, file: RemoteFile) -> URL:
        """Where the bytes lie now; the hub is asked once for all who wait."""
        lock = self._locks.setdefault(file.url, asyncio.Lock())
        try:
            async with lock:
                location = self._locations.get(file.url)
                if location is None:
                    location = await self._look_up(file)
                    self._locations[file.url] = location
                    while len(self._locations) > LOCATIONS:
                        self._locations.popitem(last=False)
                return location
        finally:
            if not lock.locked():
                self._locks.pop(file.url, None)

    async def _look_up(self, file: RemoteFile) -> URL:
        url, hub = URL(file.url, encoded=True), URL(self._hub()).origin()
        try:
            for _ in range(HOPS):
                async with self._ask("HEAD", url, {}) as response:
                    self._check_hub(response, file)
                    if response.status not in _REDIRECTS:
                        return url
                    url = _next(response)
                # A mirror may have its storage at its own address; a link into it is signed for GET alone.
                if url.origin() != hub or "X-Linked-Size" in response.headers:
                    return url
        except _UNREACHED as error:
            raise SourceTrouble(_reason(error)) from error
        raise SourceTrouble("the hub redirects without end")

    def _check_hub(self, response: aiohttp.ClientResponse, file: RemoteFile) -> None:
        """What the hub says of the file, before anything of it is asked for."""
        status = response.status
        if status in (401, 403, 404, 410):
            raise SourceRefused(refused_sentence(file.name, status, response.headers.get("X-Error-Code", "")))
        if status >= 400:
            raise self._trouble(response)
        size = response.headers.get("X-Linked-Size")
        if size is not None and size != str(file.size_bytes):
            raise SourceRefused(f"{file.name} has {size[:20]} bytes at the hub now, and had {file.size_bytes}: ask anew")
        tag = response.headers.get("X-Linked-Etag", "").strip('"')
        if file.sha256 is not None and re.fullmatch(r"[0-9a-f]{64}", tag) and tag != file.sha256:
            raise SourceRefused(f"{file.name} is another file at the hub now than when it was asked for: ask anew")

    def _check(self, response: aiohttp.ClientResponse, file: RemoteFile, start: int, end: int) -> None:
        """That the body to come is the range. Raises SourceTrouble, SourceRefused."""
        status, headers = response.status, response.headers
        if status in (401, 403, 404, 410):
            self._locations.pop(file.url, None)  # the signed address is over; the hub has a new one
            raise SourceTrouble(f"the server refuses the address it was given for {file.name} (status {status})")
        if status == 416:
            self._locations.pop(file.url, None)
            raise SourceTrouble(f"the server says that {file.name} ends before byte {start}")
        if status not in (200, 206):
            raise self._trouble(response)
        if headers.get("Content-Encoding", "identity") != "identity":
            raise SourceTrouble("the server packed the bytes, which was not asked for")
        length = headers.get("Content-Length")
        if status == 200 and (start, end) != (0, file.size_bytes):
            raise RangesIgnored(f"the server sent all of {file.name} where a part was asked for")
        if length is not None and length != str(end - start):
            raise SourceTrouble(f"the server announces {length[:20]} bytes where {end - start} were asked for")
        if status == 206:
            match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
            stated = match.groups() if match else ("", "", "")
            if stated[:2] != (str(start), str(end - 1)) or stated[2] not in ("*", str(file.size_bytes)):
                self._locations.pop(file.url, None)
                raise SourceTrouble(f"the server answers with another range of {file.name} than was asked for")

    def _trouble(self, response: aiohttp.ClientResponse) -> SourceTrouble:
        wait = retry_after_s(response.headers, now=self._world.clock.now()) if response.status in (429, 503) else None
        if wait is None and response.status == 429:
            wait = WAIT_S
        what = "it is asked too often" if response.status == 429 else "it fails"
        return SourceTrouble(f"the server says that {what} (status {response.status})", retry_after_s=wait)


class Body:
    """Pieces of a response that together are exactly `size` bytes."""

    def __init__(self, response: aiohttp.ClientResponse, size: int) -> None:
        self._response, self._left = response, size

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    def abort(self) -> None:
        """Whoever waits for the next piece gets SourceTrouble."""
        self._response.close()

    async def __anext__(self) -> bytes:
        """Raises SourceTrouble."""
        content = self._response.content
        while self._left:
            try:
                data, _ = await content.readchunk()
            except _BROKEN as error:
                raise SourceTrouble(_reason(error)) from error
            if data:
                if len(data) > self._left:
                    raise SourceTrouble("the server sent more than was asked for")
                self._left -= len(data)
                return data
            if content.at_eof():
                raise SourceTrouble(f"the server ended {self._left} bytes before the end")
        raise StopAsyncIteration


def proxy_of(url: URL, setting: str | None) -> str | None:
    """The proxy for an address: the setting, else what HTTP_PROXY, HTTPS_PROXY and NO_PROXY say. Raises SourceRefused."""
    found = setting
    if not found and url.host and not urllib.request.proxy_bypass(url.host):
        found = urllib.request.getproxies().get(url.scheme)
    if not found:
        return None
    if "://" not in found:
        found = f"http://{found}"
    if not found.lower().startswith(("http://", "https://")):
        kind = found.partition("://")[0][:20]
        raise SourceRefused(f"a proxy of the kind {kind!r} cannot be used: name one that begins with http://")
    return found


def _next(response: aiohttp.ClientResponse) -> URL:
    """Where a redirect leads, byte for byte. Raises SourceTrouble, SourceRefused."""
    text = response.headers.get("Location", "")
    try:
        target = URL(text, encoded=True)
        url = target if target.is_absolute() else response.url.join(target)
        origin = url.origin()  # with a port, if any, that there can be
        (url.host or "").encode("idna")  # as the resolver will: a host whose labels are too long, or empty, is none
    except ValueError:
        raise SourceTrouble("the server redirects to what is no address") from None
    if origin.scheme not in ("http", "https") or (response.url.scheme == "https" and origin.scheme != "https"):
        raise SourceRefused(f"the server redirects from {response.url.scheme} to {origin.scheme}: that is not followed")
    return url


def retry_after_s(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that a server asks to wait: `Retry-After` (seconds or a date), or `RateLimit: ...;t=<seconds>`.

    RFC 9110, section 10.2.3; the hub's own rate-limit header. `now`: unix seconds. Between 0 and WAIT_LIMIT_S.
    """
    text = headers.get("Retry-After", "").strip()
    wait: float | None = None
    if text.isascii() and text.isdigit() and len(text) < 10:
        wait = float(text)
    elif text:
        try:
            wait = email.utils.parsedate_to_datetime(text).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            wait = None
    if wait is None and (match := _RATE_LIMIT.search(headers.get("RateLimit", ""))):
        wait = float(match.group(1)[:9])
    return None if wait is None else min(max(wait, 0.0), WAIT_LIMIT_S)


def refused_sentence(name: str, status: int, code: str) -> str:
    """What the hub's refusal means, and what to do about it. `code`: its `X-Error-Code`."""
    if code == "GatedRepo" or status == 403:
        return f"{name} is behind terms: accept them on the model's page at the hub, and give this node a token (HF_TOKEN)"
    if code in ("RepoNotFound", "") and status == 401:
        return f"{name} is private or does not exist: check the name, or give this node a token that may read it (HF_TOKEN)"
    if code == "RevisionNotFound":
        return f"the revision of {name} that was asked for does not exist at the hub"
    return f"{name} does not exist at the hub: check repository and file name"


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ServerTimeoutError | TimeoutError):
        return "the server sent nothing for too long"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy does not let it through (status {error.status})"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"the proxy cannot be reached ({_system(error)})"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the server's name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "the server is not the one it says it is, as far as its certificate tells"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"the server cannot be reached ({_system(error)})"
    if isinstance(error, ValueError):
        return "the server or its proxy has what is no address"
    return f"the connection broke ({type(error).__name__})"


def _system(error: aiohttp.ClientConnectorError) -> str:
    return error.os_error.strerror or type(error.os_error).__name__
