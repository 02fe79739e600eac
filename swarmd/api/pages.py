"""Pages, files and the keys to them: the dashboard, health, the API's description, sessions and tickets."""

from __future__ import annotations

import functools
import gzip
import hashlib
import mimetypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from swarmd.api import shapes
from swarmd.api.calls import Call, Reply
from swarmd.api.passes import OneTimePasses
from swarmd.api.replies import NoPath
from swarmd.domain.refusals import Forbidden, Refusal
from swarmd.kit.disk import Disk

STATIC: Final = Path(__file__).parent / "static"
FILE_LIMIT: Final = 4 * 1024 * 1024  # of one file of the dashboard; all of them stay in memory
NONCE_LIFE_S: Final = 60.0  # between the page and its first script
TICKET_LIFE_S: Final = 30.0  # contract: swarmllm.md 2.10
INDEX: Final = "index.html"
NONCE_MARK: Final = b"{{nonce}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticFile:
    data: bytes
    media: str
    etag: str
    squeezed: bytes | None = None
    """The same as gzip; None where that saves nothing."""


def read_static_now(disk: Disk, folder: Path = STATIC) -> dict[str, StaticFile]:
    """Every file below `folder` by its path in it, at start-up. A few hundred kB: not worth a cache that can be wrong."""
    files: dict[str, StaticFile] = {}
    waiting = [folder]
    while waiting:
        for path in disk.list_folder_now(waiting.pop()):
            if path.is_dir():
                waiting.append(path)
                continue
            data = disk.read_bytes_now(path, limit=FILE_LIMIT)
            media = "text/javascript" if path.suffix == ".js" else mimetypes.guess_type(path.name)[0]
            if media is not None and (media.startswith("text/") or media.endswith(("json", "xml"))):
                media += "; charset=utf-8"
            etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
            squeezed = gzip.compress(data, compresslevel=9, mtime=0)
            files[path.relative_to(folder).as_posix()] = StaticFile(
                data=data, media=media or "application/octet-stream", etag=etag,
                squeezed=squeezed if len(squeezed) < len(data) else None,
            )  # fmt: skip
    return files


class PageHandlers:
    def __init__(
        self,
        *,
        key: str,
        files: Mapping[str, StaticFile],
        nonces: OneTimePasses,
        tickets: OneTimePasses,
        subsystems: Callable[[], Mapping[str, bool]],
    ) -> None:
        """`subsystems`: the parts of the node by name, and whether each is ready."""
        self._key, self._files, self._nonces, self._tickets = key, files, nonces, tickets
        self._subsystems = subsystems
        self._described: Callable[[], tuple[bytes, str]] = lambda: (b"{}", "")
        self._policy = "default-src 'none'"

    def describe(self, described: Callable[[], tuple[bytes, str]], *, policy: str) -> None:
        """For the server, once the table is complete: what makes of it OpenAPI and a page, and that page's CSP. Made when
        somebody asks for the first time: it takes 30 ms, which is much of a start."""
        self._described, self._policy = functools.cache(described), policy

    async def index(self, call: Call) -> web.Response | Refusal:
        """The page gets a nonce only where its script could have the key: on this machine, under our own name."""
        file = self._files.get(INDEX)
        if file is None:
            return NoPath(what="this installation has no dashboard")
        nonce = self._nonces.issue() if call.caller.local and call.caller.known_host else ""
        body = file.data.replace(NONCE_MARK, nonce.encode())
        return web.Response(body=body, headers={"content-type": file.media, "cache-control": "no-store"})

    async def static(self, call: Call) -> web.Response | Refusal:
        name = call.path["name"]
        file = None if name == INDEX else self._files.get(name)
        if file is None:
            return NoPath(what=f"there is no file {name[:200]!r}")
        # Asked for again each time, answered with 304: after an update no browser runs half of the old page.
        headers = {"etag": file.etag, "cache-control": "no-cache", "vary": "accept-encoding"}
        known = [one.strip().removeprefix("W/") for one in call.request.headers.get("if-none-match", "").split(",")]
        if file.etag in known or "*" in known:
            return web.Response(status=304, headers=headers)
        body = file.data
        if file.squeezed is not None and _takes_gzip(call.request.headers.get("accept-encoding", "")):
            body, headers["content-encoding"] = file.squeezed, "gzip"
        return web.Response(body=body, headers={"content-type": file.media, **headers})

    async def openapi(self, _call: Call) -> web.Response:
        return web.Response(body=self._described()[0], headers={"content-type": "application/json"})

    async def docs(self, _call: Call) -> web.Response:
        headers = {"content-security-policy": self._policy}
        return web.Response(text=self._described()[1], content_type="text/html", headers=headers)

    async def health(self, _call: Call) -> shapes.Health:
        return shapes.Health(status="ok")

    async def ready(self, _call: Call) -> Reply:
        subsystems = dict(self._subsystems())
        ready = all(subsystems.values())
        return Reply(body=shapes.Readiness(ready=ready, subsystems=subsystems), status=200 if ready else 503)

    async def session(self, call: Call) -> Any:
        body: shapes.SessionRequest = call.body
        if not self._nonces.redeem(body.nonce):
            return Forbidden(what="this page is too old or was used already: load it again")
        return Reply(body=shapes.ApiKey(api_key=self._key), headers={"cache-control": "no-store"})

    async def ticket(self, _call: Call) -> Reply:
        ticket = shapes.Ticket(ticket=self._tickets.issue(), expires_in_seconds=int(TICKET_LIFE_S))
        return Reply(body=ticket, headers={"cache-control": "no-store"})

    async def api_key(self, _call: Call) -> Reply:
        return Reply(body=shapes.ApiKey(api_key=self._key), headers={"cache-control": "no-store"})


def _takes_gzip(accepted: str) -> bool:
    """Of an Accept-Encoding header. `q=0` says no, and is all that its weights matter for here."""
    for one in accepted.lower().split(","):
        name, _, weight = one.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
