"""Requests and replies: HTTP/1.1 as far as a hub and its storage speak it. No sockets here.

Ranges follow RFC 9110, section 14: one range of bytes is served, several at once are answered with the whole, as object
storage does.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from email.utils import format_datetime, parsedate_to_datetime
from http.client import responses
from typing import Literal
from urllib.parse import parse_qsl, unquote

from tests.hub.contents import Content, Held
from tests.hub.repositories import BEGINNING

Origin = Literal["hub", "cdn"]

MOST_HEAD_BYTES = 64 << 10  # of a request: a signed URL has one or two thousand
MOST_HEADERS = 100
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class BadRequest(Exception):
    """What came is no request that can be answered; the connection ends after the reply."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request, and what is known of it while it is answered."""

    origin: Origin
    method: str
    target: str  # path and query as they came, byte for byte
    headers: dict[str, str]  # names in lower case; the last of equal ones
    body: bytes = b""
    kind: str = "other"  # what it asks for: the name counters have for it
    label: str | None = None  # `owner/name/path` of the file it asks for
    user: str | None = None  # whose token it carries
    faults: list[str] = field(default_factory=list)  # what was done to it, by name

    @property
    def path(self) -> str:
        """The path as it came, escapes and all."""
        return self.target.partition("?")[0]

    @property
    def segments(self) -> list[str]:
        """The path's parts, each with its escapes undone, so that a `%2F` in a revision divides nothing."""
        return [unquote(part) for part in self.path.split("/")[1:]]

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True, max_num_fields=200)

    def values(self, name: str) -> list[str]:
        """All values of a query parameter, also as `name[]`."""
        return [value for key, value in self.query if key in (name, f"{name}[]")]

    def value(self, name: str, default: str = "") -> str:
        return (self.values(name) or [default])[-1]

    def flag(self, name: str) -> bool:
        return self.value(name).lower() in ("true", "1")


@dataclass(slots=True, kw_only=True)
class Reply:
    """What is sent: a part of a content, and how. Faults change it before it goes out."""

    status: int
    content: Content
    start: int = 0
    stop: int
    headers: dict[str, str] = field(default_factory=dict)
    bulk: bool = False  # bytes of a file; anything else is an answer of the hub itself
    length: int | None = None  # what Content-Length says in place of the truth
    delay: float = 0  # seconds before the first byte of the head
    pace: Pace | None = None
    stall_at: int | None = None  # after so many bytes of the body nothing is sent...
    stall_for: float = 0  # ...for so many seconds
    end_at: int | None = None  # after so many bytes of the body the connection ends...
    reset: bool = False  # ...with a reset in place of an orderly end

    @property
    def size(self) -> int:
        return self.stop - self.start

    def having(self, headers: dict[str, str]) -> Reply:
        """The same reply with these headers too."""
        self.headers |= headers
        return self


class Pace:
    """Bytes a second for one reply, or for all that share the object (one line for several connections)."""

    def __init__(self, rate: float) -> None:
        if rate <= 0:
            raise ValueError(f"a pace of {rate} bytes a second: it must be more than 0")
        self.rate = rate
        self._free_at = 0.0  # loop time at which the line has sent what was given to it

    @property
    def step(self) -> int:
        """Bytes to send at once: a twentieth of a second's, so that the line looks steady."""
        return max(1, min(int(self.rate / 20), 1 << 20))

    def wait(self, count: int, now: float) -> float:
        """Seconds to wait before `count` bytes may go out."""
        start = max(self._free_at, now)
        self._free_at = start + count / self.rate
        return self._free_at - now


def parse_head(head: bytes, origin: Origin) -> Exchange:
    """The head of a request, without its empty line. Raises BadRequest."""
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[1].startswith("/") or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest(400, "the first line is no HTTP/1.1 request for a path")
    if len(lines) > MOST_HEADERS:
        raise BadRequest(431, f"more than {MOST_HEADERS} headers")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest(400, "a header without a name")
        headers[name.lower()] = value.strip()
    if parts[2] == "HTTP/1.0":
        headers["connection"] = "close"
    return Exchange(origin=origin, method=parts[0], target=parts[1], headers=headers)


def head_of(reply: Reply, *, close: bool) -> bytes:
    """The head of a reply with its empty line."""
    length = reply.size if reply.length is None else reply.length
    lines = [f"HTTP/1.1 {reply.status} {responses.get(reply.status, 'Unknown')}"]
    headers = {**reply.headers}
    if reply.status != 304:
        headers["Content-Length"] = str(length)
    if close:
        headers["Connection"] = "close"
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def says(status: int, data: bytes | str, kind: str = "text/plain; charset=utf-8", **headers: str) -> Reply:
    """A short answer. Header names are written with `_` for `-`."""
    held = Held(data.encode() if isinstance(data, str) else data)
    named = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Reply(status=status, content=held, stop=held.size, headers=named)


def says_json(value: object, status: int = 200, **headers: str) -> Reply:
    return says(status, json.dumps(value).encode(), "application/json; charset=utf-8", **headers)


def refuses(status: int, message: str, code: str | None = None, **headers: str) -> Reply:
    """An error as the hub words one: X-Error-Code for programs, X-Error-Message for people, both in the body too."""
    named = {"X_Error_Message": message, **({"X_Error_Code": code} if code else {}), **headers}
    return says_json({"error": message}, status, **named)


@dataclass(slots=True, kw_only=True)
class Resource:
    """A file as it is served: faults may put another one in its place before it is looked at."""

    content: Content
    etag: str  # without quotes
    linked_etag: str | None = None  # without quotes; what the hub promises where storage serves the file
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True


def serve(exchange: Exchange, resource: Resource) -> Reply:
    """Answer GET or HEAD for a file: whole, a range, 304, 412 or 416."""
    size, etag = resource.content.size, f'"{resource.etag}"'
    modified = format_datetime(BEGINNING, usegmt=True)
    headers = {"ETag": etag, "Last-Modified": modified, "Accept-Ranges": "bytes", **resource.headers}
    headers.setdefault("Content-Type", "application/octet-stream")
    whole = Reply(status=200, content=resource.content, stop=size, headers=headers, bulk=True)
    asked = exchange.headers
    if "if-match" in asked and not _named(asked["if-match"], etag):
        return says(412, "the file is another one now\n")
    if "if-none-match" in asked and _named(asked["if-none-match"], etag):
        return Reply(status=304, content=Held(b""), stop=0, headers={"ETag": etag})
    if exchange.method != "GET" or "range" not in asked or not resource.ranges:
        return whole
    condition = asked.get("if-range")
    if condition is not None and not _unchanged(condition, etag):
        return whole
    match = RANGE.fullmatch(asked["range"].replace(" ", ""))
    if match is None or not any(match.groups()):
        return whole
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return whole  # no range at all: to be ignored
    if start >= size or start >= stop:
        return says(416, "no such bytes\n", Content_Range=f"bytes */{size}", ETag=etag)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Reply(status=206, content=resource.content, start=start, stop=stop, headers=headers, bulk=True)


def _named(header: str, etag: str) -> bool:
    return header == "*" or etag in (one.strip().removeprefix("W/") for one in header.split(","))


def _unchanged(condition: str, etag: str) -> bool:
    """If-Range: a strong tag must be equal; a date must not be before the last change."""
    if condition.startswith(('"', "W/")):
        return condition == etag
    try:
        return parsedate_to_datetime(condition) >= BEGINNING
    except (ValueError, TypeError):
        return False
