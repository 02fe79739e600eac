"""A hub on this machine that speaks Hugging Face's protocol, and the storage its links lead to.

    async with LocalHub() as hub:
        hub.repo("owner/name").file("config.json", b"{}").file("model.gguf", Pattern(1 << 30))
        hub.faults.add(Cut(after=1 << 20), path="model.gguf", origin="cdn", times=1)
        ... a client with endpoint=hub.endpoint ...
        assert hub.counters.ranges("owner/name/model.gguf") == [...]

Two ports on the loopback: the hub itself (API, plain files, redirects) and storage (`hub.cdn`: signed links, ranges).
Plain files are answered by the hub, LFS files with a redirect to a signed link. Storage answers 400 to a request that
carries a token, and 403 to a link whose bytes were changed on the way or whose time is over.

Under `/__stats__`, `/__faults__` and `/__links__` the hub can be asked and told from another process: see `_control`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import mimetypes
import time
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, quote

from tests.hub import listing
from tests.hub.contents import Blob
from tests.hub.counters import Counters
from tests.hub.faults import Faults
from tests.hub.links import Links
from tests.hub.messages import BadRequest, Exchange, Reply, Resource, refuses, says, says_json, serve
from tests.hub.repositories import MOST_REPOSITORIES, Commit, Kind, Repository, load_folder
from tests.hub.server import Server

PAGE = 1000  # entries of a listing at once, as the hub has it
EXPANDED_PAGE = 50  # of a tree whose entries are expanded
LINK_SECONDS = 3600  # how long a signed link is good
HASHED_AT_ONCE = 1 << 20  # a file up to this is hashed where we are, a longer one in a thread
MOST_PATHS = 1000  # of one paths-info request
COMMIT = "X-Repo-Commit"
METHODS = {"GET": "get", "HEAD": "head"}
API_KINDS = ("tree", "refs", "commits", "auth-check", "paths-info", "xet-read-token")  # names for counters


class Refused(Exception):
    """A request that ends with this reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


class LocalHub:
    """The hub and its storage, listening while it is entered.

    `host`: an address of the loopback. `port`, `cdn_port`: 0 takes a free one. `resolve_cache`: plain files are
    answered after a relative redirect, as the hub does today. `hashed_storage`: storage calls a file by its SHA-256, as
    it always does with Xet files; left open, storage has an ETag of its own, which is not the one the hub promises.

    Of Xet the headers, hashes and tokens are served, and no chunks.

    Raises ValueError for a host that is not of the loopback, OSError where a port is taken.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        cdn_port: int = 0,
        resolve_cache: bool = False,
        hashed_storage: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"{host} is not of the loopback: the local hub guards nothing, and serves this machine alone")
        self._host, self._port, self._cdn_port = host, port, cdn_port
        self._resolve_cache, self._hashed_storage = resolve_cache, hashed_storage
        self._clock = clock
        self.counters = Counters()
        self.faults = Faults()
        self.link_seconds = LINK_SECONDS
        self._links = Links()
        self._repositories: dict[tuple[Kind, str], Repository] = {}
        self._moved: dict[tuple[Kind, str], str] = {}
        self._tokens: dict[str, str] = {}
        self._stored: dict[str, tuple[Blob, str]] = {}  # what links lead to, by SHA-256: at most the blobs there are
        self._servers: list[Server] = []

    async def __aenter__(self) -> Self:
        hub, cdn = Server("hub", self._hub, self.counters), Server("cdn", self._cdn, self.counters)
        self._servers = [hub, cdn]
        try:
            self._port = hub.listen(self._host, self._port)
            self._cdn_port = cdn.listen(self._host, self._cdn_port)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        for server in self._servers:
            await server.close()

    # --- what it has -------------------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """Where the hub is: for `endpoint=` or HF_ENDPOINT."""
        return f"http://{self._at(self._port)}"

    @property
    def cdn(self) -> str:
        """Where storage is."""
        return f"http://{self._at(self._cdn_port)}"

    def _at(self, port: int) -> str:
        return f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}"

    @property
    def repositories(self) -> list[Repository]:
        return list(self._repositories.values())

    def repo(self, repo_id: str, kind: Kind = "model") -> Repository:
        """The repository of this name; a new one where there is none. Raises ValueError for a name that is none."""
        found = self._repositories.get((kind, repo_id))
        return self.add(Repository(repo_id, kind)) if found is None else found

    def add(self, repository: Repository) -> Repository:
        """Take a repository in; one of the same name goes. Raises ValueError where there are too many."""
        if len(self._repositories) >= MOST_REPOSITORIES:
            raise ValueError(f"{MOST_REPOSITORIES} repositories: the local hub serves no more")
        self._repositories[repository.kind, repository.id] = repository
        return repository

    def load(self, root: Path, *, xet: bool = False) -> list[Repository]:
        """Take in the repositories of a folder: see `load_folder`. Raises OSError, ValueError."""
        return [self.add(one) for one in load_folder(root, xet=xet)]

    def move(self, old: str, new: str, kind: Kind = "model") -> None:
        """Rename a repository; its old name is answered with a relative redirect, as the hub does. Raises KeyError."""
        repository = self._repositories.pop((kind, old))
        repository.id = new
        self._repositories[kind, new] = repository
        self._moved[kind, old] = new

    def token(self, token: str, user: str) -> None:
        """A token the hub knows, and whose it is."""
        self._tokens[token] = user

    def expire_links(self) -> None:
        """End every signed link made so far."""
        self._links.expire()

    # --- the hub -----------------------------------------------------------------------------------------------------

    async def _hub(self, exchange: Exchange) -> Reply:
        parts = exchange.segments
        if parts[0].startswith("__"):
            exchange.kind = "control"
            return self._control(exchange, parts)
        place = self._place(parts)
        exchange.label = place.label if place is not None else None
        exchange.kind = self._kind(exchange, parts, place)
        bearer = exchange.headers.get("authorization", "")
        if bearer:
            exchange.user = self._tokens.get(bearer.removeprefix("Bearer "), "unknown")
        misfortune = self.faults.meet(exchange)
        reply = misfortune.answer()
        if reply is None:
            try:
                if exchange.user == "unknown":
                    raise Refused(refuses(401, "Invalid credentials in Authorization header"))
                if place is not None:
                    reply = await self._resolve(exchange, place, misfortune.change)
                else:
                    reply = await self._api(exchange, parts)
            except Refused as refused:
                reply = refused.reply
        misfortune.bend(reply)
        return reply

    @staticmethod
    def _place(parts: list[str]) -> _Place | None:
        """Which file a path asks for, where it asks for one."""
        if parts[:2] == ["api", "resolve-cache"] and len(parts) >= 7 and parts[2] in ("models", "datasets"):
            kind: Kind = "model" if parts[2] == "models" else "dataset"
            return _Place(kind, f"{parts[3]}/{parts[4]}", parts[5], "/".join(parts[6:]), cached=True)
        kind = "model"
        if parts[0] == "datasets":
            kind, parts = "dataset", parts[1:]
        if len(parts) >= 5 and parts[2] == "resolve":
            return _Place(kind, f"{parts[0]}/{parts[1]}", parts[3], "/".join(parts[4:]))
        return None

    @staticmethod
    def _kind(exchange: Exchange, parts: list[str], place: _Place | None) -> str:
        if place is not None:
            return f"resolve-{METHODS.get(exchange.method, 'other')}"
        if parts[0] != "api" or len(parts) < 2:
            return "other"
        if parts[1] == "whoami-v2":
            return "whoami"
        if parts[1] not in ("models", "datasets"):
            return "other"
        if len(parts) > 4 and parts[4] != "revision":
            return parts[4] if parts[4] in API_KINDS else "other"
        return "list" if len(parts) == 2 else "info"

    async def _api(self, exchange: Exchange, parts: list[str]) -> Reply:
        match parts:
            case ["api", "whoami-v2"]:
                return self._whoami(exchange)
            case ["api", "agent-harnesses"]:
                return says_json({"standardEnvVars": [], "harnesses": {}})
            case ["api", "models" | "datasets" as kinds, *rest]:
                kind: Kind = "model" if kinds == "models" else "dataset"
                if not rest:
                    return self._list(exchange, kind)
                if len(rest) >= 2:
                    repository = self._find(exchange, kind, f"{rest[0]}/{rest[1]}")
                    return await self._repository_api(exchange, repository, rest[2:])
            case _:
                pass
        raise Refused(refuses(404, "Sorry, we can't find the page you are looking for."))

    def _list(self, exchange: Exchange, kind: Kind) -> Reply:
        mine = [one for one in self._repositories.values() if one.kind == kind and self._sees(exchange.user, one)]
        items, headers = listing.page(listing.found(mine, exchange), exchange, self.endpoint, most=PAGE)  # type: ignore[arg-type]
        return says_json([listing.brief(one, exchange) for one in items]).having(headers)  # type: ignore[arg-type]

    async def _repository_api(self, exchange: Exchange, repository: Repository, rest: list[str]) -> Reply:
        match rest:
            case [] | ["revision", _]:
                commit = self._commit(repository, rest[1] if rest else "main")
                if exchange.flag("blobs"):
                    await _hash(commit.files.values())
                return says_json(listing.info(repository, commit, exchange)).having({COMMIT: commit.sha})
            case ["tree", revision, *path]:
                commit = self._commit(repository, revision)
                await _hash(commit.files.values())
                expand = exchange.flag("expand")
                entries = listing.tree(commit, "/".join(path), recursive=exchange.flag("recursive"), expand=expand)
                if entries is None:
                    raise Refused(_no_entry(commit, "/".join(path)))
                most = EXPANDED_PAGE if expand else PAGE
                items, headers = listing.page(entries, exchange, self.endpoint, most=most)  # type: ignore[arg-type]
                return says_json(items).having(headers)
            case ["refs"]:
                return says_json(listing.refs(repository))
            case ["commits", revision]:
                found = listing.commits(repository, self._commit(repository, revision))
                items, headers = listing.page(found, exchange, self.endpoint, most=EXPANDED_PAGE)  # type: ignore[arg-type]
                return says_json(items).having(headers)
            case ["auth-check"]:
                self._open(exchange, repository)
                return says_json({})
            case ["paths-info", revision] if exchange.method == "POST":
                return await self._paths_info(exchange, self._commit(repository, revision))
            case ["xet-read-token", revision]:
                self._open(exchange, repository)
                self._commit(repository, revision)
                return self._xet_token()
            case _:
                raise Refused(refuses(404, "Sorry, we can't find the page you are looking for."))

    async def _paths_info(self, exchange: Exchange, commit: Commit) -> Reply:
        paths, expand = _paths_asked(exchange)
        known = [path for path in paths if path in commit.files]
        await _hash(commit.files[path] for path in known)
        folders = listing.folders(commit)
        return says_json(
            [
                listing.file_entry(commit, path, commit.files[path], expand=expand)
                if path in commit.files
                else listing.folder_entry(commit, path, expand=expand)
                for path in paths
                if path in commit.files or path in folders
            ]
        )

    def _whoami(self, exchange: Exchange) -> Reply:
        if exchange.user is None:
            raise Refused(refuses(401, "Invalid username or password."))
        token = {"type": "access_token", "accessToken": {"displayName": "local", "role": "read"}}
        said = {"type": "user", "id": "local", "name": exchange.user, "fullname": exchange.user, "orgs": [], "auth": token}
        return says_json(said)

    def _xet_token(self) -> Reply:
        expires = int(self._clock()) + LINK_SECONDS
        url = f"{self.cdn}/xet"
        said = {"casUrl": url, "exp": expires, "accessToken": "local"}
        return says_json(said, X_Xet_Cas_Url=url, X_Xet_Access_Token="local", X_Xet_Token_Expiration=str(expires))

    # --- who may read what -------------------------------------------------------------------------------------------

    def _find(self, exchange: Exchange, kind: Kind, repo_id: str) -> Repository:
        """A repository this user may know of."""
        new = self._moved.get((kind, repo_id))
        if new is not None and (kind, repo_id) not in self._repositories:
            old_part, new_part = f"/{repo_id}", f"/{new}"
            target = exchange.target.replace(old_part, new_part, 1)
            raise Refused(says(307, f"Temporary Redirect. Redirecting to {target}", Location=target))
        repository = self._repositories.get((kind, repo_id))
        if repository is None or not self._sees(exchange.user, repository):
            if exchange.user is None:
                raise Refused(refuses(401, "Invalid username or password.", "RepoNotFound"))
            raise Refused(refuses(404, "Repository not found", "RepoNotFound"))
        if repository.details.disabled:
            raise Refused(refuses(403, "Access to this resource is disabled."))
        return repository

    @staticmethod
    def _sees(user: str | None, repository: Repository) -> bool:
        return not repository.details.private or user == repository.owner or user in repository.details.readers

    @staticmethod
    def _open(exchange: Exchange, repository: Repository) -> None:
        """Refuses the files of a gated repository to who was not let in."""
        user, details = exchange.user, repository.details
        if details.gated is None or user == repository.owner or user in details.readers:
            return
        if user is None:
            why = f"Access to {repository.kind} {repository.id} is restricted: be let in, and log in."
            raise Refused(refuses(401, why, "GatedRepo"))
        why = f"Access to {repository.kind} {repository.id} is restricted and you are not in the authorized list."
        raise Refused(refuses(403, why, "GatedRepo"))

    @staticmethod
    def _commit(repository: Repository, revision: str) -> Commit:
        commit = repository.at(revision)
        if commit is None:
            raise Refused(refuses(404, f"Invalid rev id: {revision[:100]}", "RevisionNotFound"))
        return commit

    # --- files -------------------------------------------------------------------------------------------------------

    async def _resolve(self, exchange: Exchange, place: _Place, change: Callable[[Resource], None]) -> Reply:
        if exchange.method not in ("GET", "HEAD"):
            raise Refused(refuses(405, "Method Not Allowed", Allow="GET, HEAD"))
        repository = self._find(exchange, place.kind, place.repo_id)
        self._open(exchange, repository)
        commit = self._commit(repository, place.revision)
        blob = commit.files.get(place.path)
        if blob is None:
            raise Refused(_no_entry(commit, place.path))
        await _hash([blob])
        headers = {COMMIT: commit.sha, "Accept-Ranges": "bytes"}
        if blob.lfs:
            resource = Resource(content=blob.content, etag=blob.sha256, linked_etag=blob.sha256, headers=headers)
            change(resource)
            self._stored[blob.sha256] = (blob, place.label)
            name = PurePosixPath(place.path).name
            target = self.cdn + self._links.sign(blob.sha256, name, int(self._clock() + self.link_seconds))
            linked = f'"{resource.linked_etag}"'
            headers |= {"X-Linked-Size": str(resource.content.size), "X-Linked-Etag": linked, "ETag": linked}
            headers["Location"] = target
            if blob.xet_hash is not None:
                auth = f"{self.endpoint}/api/{place.kind}s/{repository.id}/xet-read-token/{commit.sha}"
                headers |= {"X-Xet-Hash": blob.xet_hash, "Link": f'<{auth}>; rel="xet-auth"'}
            return says(302, f"Found. Redirecting to {target}").having(headers)
        if self._resolve_cache and not place.cached:
            target = f"/api/resolve-cache/{place.kind}s/{repository.id}/{commit.sha}/{quote(place.path)}"
            size, etag = str(blob.size), f'"{blob.etag}"'
            headers |= {"Location": target, "X-Linked-Size": size, "X-Linked-Etag": etag}
            return says(307, f"Temporary Redirect. Redirecting to {target}").having(headers)
        headers["Content-Type"] = mimetypes.guess_type(place.path)[0] or "text/plain; charset=utf-8"
        headers["Content-Disposition"] = f"inline; filename*=UTF-8''{quote(PurePosixPath(place.path).name, safe='')}"
        resource = Resource(content=blob.content, etag=blob.etag, headers=headers)
        change(resource)
        return serve(exchange, resource)

    async def _cdn(self, exchange: Exchange) -> Reply:
        """Storage: nothing but signed links."""
        parts = exchange.segments
        stored = self._stored.get(parts[1]) if len(parts) == 2 and parts[0] == "cdn" else None
        exchange.kind = f"storage-{METHODS.get(exchange.method, 'other')}"
        exchange.label = stored[1] if stored is not None else None
        authorized = "authorization" in exchange.headers
        if authorized:
            exchange.user = self._tokens.get(exchange.headers["authorization"].removeprefix("Bearer "), "unknown")
        misfortune = self.faults.meet(exchange)
        reply = misfortune.answer()
        if reply is None:
            refusal = self._links.refusal(exchange.target, self._clock())
            if authorized:
                reply = _storage_error(400, "InvalidArgument", "Only one auth mechanism allowed")
            elif exchange.method not in ("GET", "HEAD"):
                reply = _storage_error(405, "MethodNotAllowed", "The specified method is not allowed")
            elif refusal is not None:
                why = "Request has expired" if refusal == "AccessDenied" else "The signature is not that of this link"
                reply = _storage_error(403, refusal, why)
            elif stored is None:
                reply = _storage_error(404, "NoSuchKey", "The specified key does not exist")
            else:
                blob = stored[0]
                said = dict(exchange.query)
                headers = {name: said[f"response-{name.lower()}"] for name in ("Content-Disposition", "Content-Type")}
                etag = blob.sha256 if self._hashed_storage or blob.xet else blob.storage_etag
                resource = Resource(content=blob.content, etag=etag, headers=headers)
                misfortune.change(resource)
                reply = serve(exchange, resource)
        misfortune.bend(reply)
        return reply

    # --- from another process ----------------------------------------------------------------------------------------

    def _control(self, exchange: Exchange, parts: list[str]) -> Reply:
        """`GET /__stats__` tells the counters, `DELETE` begins them anew. `POST /__faults__` adds a rule
        (`Faults.add_named`), `DELETE` takes all away. `DELETE /__links__` ends the links made so far.
        """
        match exchange.method, parts:
            case "GET", ["__stats__"]:
                return says_json(self.counters.as_json())
            case "DELETE", ["__stats__"]:
                self.counters.reset()
            case "POST", ["__faults__"]:
                try:
                    self.faults.add_named(json.loads(exchange.body))
                except ValueError as error:
                    raise BadRequest(400, str(error)) from error
            case "DELETE", ["__faults__"]:
                self.faults.clear()
            case "DELETE", ["__links__"]:
                self.expire_links()
            case _:
                raise BadRequest(404, "use /__stats__, /__faults__ or /__links__")
        return says_json({})


class _Place:
    """Where a file is asked for."""

    def __init__(self, kind: Kind, repo_id: str, revision: str, path: str, *, cached: bool = False) -> None:
        self.kind: Kind = kind
        self.repo_id, self.revision, self.path, self.cached = repo_id, revision, path, cached

    @property
    def label(self) -> str:
        return f"{self.repo_id}/{self.path}"


async def _hash(blobs: Iterable[Blob]) -> None:
    """See that the names of blobs are known, without standing still for long files."""
    for blob in list(blobs):
        if blob.size > HASHED_AT_ONCE:
            await asyncio.to_thread(getattr, blob, "etag")
        else:
            _ = blob.etag


def _no_entry(commit: Commit, path: str) -> Reply:
    return refuses(404, "Entry not found", "EntryNotFound").having({COMMIT: commit.sha})


def _paths_asked(exchange: Exchange) -> tuple[list[str], bool]:
    """The paths of a paths-info request, as a form or as JSON, and whether to expand."""
    try:
        if exchange.headers.get("content-type", "").startswith("application/json"):
            said = json.loads(exchange.body)
            paths, expand = said["paths"], bool(said.get("expand"))
            paths = [paths] if isinstance(paths, str) else [str(path) for path in paths]
        else:
            pairs = parse_qsl(exchange.body.decode(), max_num_fields=2 * MOST_PATHS)
            paths = [value for name, value in pairs if name == "paths"]
            expand = ("expand", "true") in [(name, value.lower()) for name, value in pairs]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadRequest(400, "paths-info takes paths and expand, as a form or as JSON") from None
    if len(paths) > MOST_PATHS:
        raise BadRequest(400, f"more than {MOST_PATHS} paths")
    return paths, expand


def _storage_error(status: int, code: str, message: str) -> Reply:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return says(status, body, "application/xml")
