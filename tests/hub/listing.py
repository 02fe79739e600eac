"""What the hub's API says of repositories and their files, as JSON values in its own field names."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import PurePosixPath
from urllib.parse import quote, urlencode

from tests.hub.contents import Blob
from tests.hub.messages import BadRequest, Exchange
from tests.hub.repositories import Commit, Repository

SORTS: dict[str, Callable[[Repository], object]] = {
    "createdAt": lambda one: one.created,
    "lastModified": lambda one: one.head.at,
    "downloads": lambda one: one.details.downloads,
    "likes": lambda one: one.details.likes,
    "trendingScore": lambda one: one.details.trending,
}
# Filters the hub has and this one does not: better said than passed over in silence.
NOT_HERE = ("apps", "inference", "inference_provider", "num_parameters")

EXPANDED: dict[str, Callable[[Repository], object]] = {
    "author": lambda one: one.owner,
    "cardData": lambda one: one.details.card,
    "createdAt": lambda one: moment(one.created),
    "disabled": lambda one: one.details.disabled,
    "downloads": lambda one: one.details.downloads,
    "downloadsAllTime": lambda one: one.details.downloads,
    "gated": lambda one: one.details.gated or False,
    "gguf": lambda one: one.details.gguf,
    "lastModified": lambda one: moment(one.head.at),
    "library_name": lambda one: one.details.library_name,
    "likes": lambda one: one.details.likes,
    "pipeline_tag": lambda one: one.details.pipeline_tag,
    "private": lambda one: one.details.private,
    "safetensors": lambda one: one.details.safetensors,
    "sha": lambda one: one.head.sha,
    "siblings": lambda one: siblings(one.head),
    "tags": lambda one: tags(one),
    "trendingScore": lambda one: one.details.trending,
    "usedStorage": lambda one: sum(blob.size for blob in one.head.files.values()),
}
BRIEF = ("createdAt", "downloads", "library_name", "likes", "pipeline_tag", "private", "tags", "trendingScore")
FULL = (*BRIEF, "author", "disabled", "gated", "lastModified", "sha", "siblings", "cardData")
INFO = (*FULL, "gguf", "safetensors", "usedStorage")


def moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def tags(repository: Repository) -> list[str]:
    """What it was tagged with, and what the hub sees in its files."""
    seen = {PurePosixPath(path).suffix for path in repository.head.files}
    found = [name for name in ("gguf", "safetensors", "onnx") if f".{name}" in seen]
    details = repository.details
    named = [one for one in (details.library_name, details.pipeline_tag) if one]
    return list(dict.fromkeys([*found, *details.tags, *named]))


def found(repositories: Iterable[Repository], exchange: Exchange) -> list[Repository]:
    """Those a search asks for, in the order it asks for. Raises BadRequest for what is not served here."""
    for name in NOT_HERE:
        if exchange.values(name):
            raise BadRequest(400, f"the local hub does not filter by {name}")
    _ = _expanded(exchange)  # refused also where nothing is found
    words = exchange.value("search").lower().split()
    wanted = [tag for value in exchange.values("filter") for tag in value.split(",") if tag]
    wanted += [tag for tag in exchange.values("pipeline_tag") if tag]
    author, gated, sort = exchange.value("author"), exchange.value("gated"), exchange.value("sort", "trendingScore")
    if sort not in SORTS:
        raise BadRequest(400, f"sort by one of {', '.join(SORTS)}")
    kept = [
        one
        for one in repositories
        if all(word in one.id.lower() for word in words)
        and (not author or one.owner == author)
        and (not gated or (one.details.gated is not None) == (gated.lower() == "true"))
        and set(wanted) <= set(tags(one))
    ]
    return sorted(kept, key=SORTS[sort], reverse=True)  # type: ignore[arg-type]


def brief(repository: Repository, exchange: Exchange) -> dict[str, object]:
    """One line of a search. Raises BadRequest where a property is asked for that there is none of."""
    return _said(repository, _expanded(exchange) or (FULL if exchange.flag("full") else BRIEF))


def info(repository: Repository, commit: Commit, exchange: Exchange) -> dict[str, object]:
    """One repository at one commit; with sizes and hashes of files where `blobs` is asked for. Raises BadRequest."""
    said = _said(repository, _expanded(exchange) or INFO)
    if "sha" in said:
        said["sha"], said["lastModified"] = commit.sha, moment(commit.at)
    if "siblings" in said:
        said["siblings"] = siblings(commit, blobs=exchange.flag("blobs"))
    return said


def siblings(commit: Commit, *, blobs: bool = False) -> list[dict[str, object]]:
    return [{"rfilename": path, **(_measured(blob) if blobs else {})} for path, blob in commit.files.items()]


def tree(commit: Commit, folder: str, *, recursive: bool, expand: bool) -> list[dict[str, object]] | None:
    """The entries of a folder, of all below it where `recursive`; none where there is no such folder."""
    prefix = f"{folder}/" if folder else ""
    entries: list[dict[str, object]] = []
    told: set[str] = set()
    for path, blob in commit.files.items():
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            name = prefix + "/".join(parts[:depth])
            if name not in told:
                told.add(name)
                entries.append(folder_entry(commit, name, expand=expand))
        if recursive or len(parts) == 1:
            entries.append(file_entry(commit, path, blob, expand=expand))
    return entries if entries or not folder else None


def file_entry(commit: Commit, path: str, blob: Blob, *, expand: bool) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "oid": blob.oid, "size": blob.size, "path": path}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}
    if blob.xet_hash is not None:
        entry["xetHash"] = blob.xet_hash
    if expand:
        scan = {"virusFound": False, "virusNames": None}
        entry["securityFileStatus"] = {"status": "safe", "avScan": scan, "pickleImportScan": None}
        entry["lastCommit"] = _last(commit)
    return entry


def folder_entry(commit: Commit, path: str, *, expand: bool) -> dict[str, object]:
    oid = hashlib.sha1(f"{commit.sha}/{path}".encode(), usedforsecurity=False).hexdigest()
    last = {"lastCommit": _last(commit)} if expand else {}
    return {"type": "directory", "oid": oid, "size": 0, "path": path, **last}


def folders(commit: Commit) -> set[str]:
    return {str(parent) for path in commit.files for parent in PurePosixPath(path).parents} - {"."}


def refs(repository: Repository) -> dict[str, object]:
    def ref(name: str, folder: str, sha: str) -> dict[str, str]:
        return {"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": sha}

    branches = {"main": repository.head.sha, **repository.branches}
    return {
        "branches": [ref(name, "heads", sha) for name, sha in branches.items()],
        "tags": [ref(name, "tags", sha) for name, sha in repository.tags.items()],
        "converts": [],
        "pullRequests": [],
    }


def commits(repository: Repository, newest: Commit) -> list[dict[str, object]]:
    """From `newest` back to the first."""
    return [
        {"id": one.sha, "title": one.title, "message": "", "date": moment(one.at), "authors": [{"user": repository.owner}]}
        for one in repository.commits
        if one.at <= newest.at
    ]


def page(items: list[object], exchange: Exchange, endpoint: str, *, most: int) -> tuple[list[object], dict[str, str]]:
    """One page, and the header that names the next where there is one. Raises BadRequest for a bad `limit` or `cursor`."""
    limit = exchange.value("limit", str(most))
    if not limit.isascii() or not limit.isdigit() or len(limit) > 9:
        raise BadRequest(400, "limit is a number of entries")
    try:
        start = int(base64.urlsafe_b64decode(exchange.value("cursor", "MA==")))
    except ValueError:
        raise BadRequest(400, "cursor is none that was given out") from None
    stop = start + min(int(limit), most)
    if start < 0 or stop >= len(items) or stop == start:
        return items[start:stop], {}
    cursor = base64.urlsafe_b64encode(str(stop).encode()).decode()
    query = urlencode([*((key, value) for key, value in exchange.query if key != "cursor"), ("cursor", cursor)])
    return items[start:stop], {"Link": f'<{endpoint}{quote(exchange.path, safe="/%")}?{query}>; rel="next"'}


def _said(repository: Repository, names: Iterable[str]) -> dict[str, object]:
    number = hashlib.sha1(f"{repository.kind} {repository.id}".encode(), usedforsecurity=False).hexdigest()[:24]
    said: dict[str, object] = {"_id": number, "id": repository.id}
    if repository.kind == "model":
        said["modelId"] = repository.id
    values = ((name, EXPANDED[name](repository)) for name in names)
    return said | {name: value for name, value in values if value is not None}


def _expanded(exchange: Exchange) -> list[str]:
    names = exchange.values("expand")
    for name in names:
        if name not in EXPANDED:
            raise BadRequest(400, f"expand: the local hub has no {name!r}, only {', '.join(EXPANDED)}")
    return names


def _measured(blob: Blob) -> dict[str, object]:
    said: dict[str, object] = {"size": blob.size, "blobId": blob.oid}
    if blob.lfs:
        said["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}
    if blob.xet_hash is not None:
        said["xetHash"] = blob.xet_hash
    return said


def _last(commit: Commit) -> dict[str, str]:
    return {"id": commit.sha, "title": commit.title, "date": moment(commit.at)}
