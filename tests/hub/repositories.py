"""The repositories a hub has: their files, commits, branches and what is said of them.

Files are put into a working tree; the changes made between two requests become one commit of `main`. Older commits stay
reachable by their id, and keep their files. Commit ids are 40 hex digits that follow from what was put in, but no git
object is behind them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Literal

from tests.hub.contents import Blob, Content, content_of

Kind = Literal["model", "dataset"]

MOST_FILES = 100_000  # of one repository: what a listing may walk through for one request
MOST_COMMITS = 1_000  # of one repository
MOST_REPOSITORIES = 10_000
PLAIN_BYTES = 1 << 20  # a file above is in large file storage unless one says otherwise
# What the hub puts into large file storage whatever its size.
LFS_SUFFIXES = frozenset({".bin", ".gguf", ".onnx", ".parquet", ".pt", ".pth", ".safetensors", ".tar", ".gz", ".zip"})
DETAILS = "hub.json"  # beside a repository's files in a served folder: what is said of it; never a file of it
BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)  # when the first commit was made; each one after it a minute later


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One state of a repository's files."""

    sha: str
    title: str
    at: datetime
    files: dict[str, Blob]  # by path, sorted


@dataclass(slots=True, kw_only=True)
class Details:
    """What the hub says of a repository beside its files. Everything may be changed at any time."""

    private: bool = False
    gated: Literal["auto", "manual"] | None = None
    disabled: bool = False
    readers: set[str] = field(default_factory=set)  # names of users who may read it though it is private or gated
    tags: list[str] = field(default_factory=list)
    downloads: int = 0
    likes: int = 0
    trending: int = 0
    pipeline_tag: str | None = None
    library_name: str | None = None
    gguf: dict[str, object] | None = None
    safetensors: dict[str, object] | None = None
    card: dict[str, object] | None = None


class Repository:
    """One repository of models or datasets. Methods that change it return it, so that they can be chained."""

    def __init__(self, repo_id: str, kind: Kind = "model", *, created: datetime = BEGINNING) -> None:
        _check_id(repo_id)
        self.id = repo_id
        self.kind: Kind = kind
        self.details = Details()
        self.tags: dict[str, str] = {}  # git's tags: name to commit
        self.branches: dict[str, str] = {}  # besides main: name to commit
        self._created = created
        self._files: dict[str, Blob] = {}
        self._commits: list[Commit] = []
        self._changed: str | None = "initial commit"  # the title of the next commit, where there is something to commit

    @property
    def owner(self) -> str:
        return self.id.partition("/")[0]

    def file(
        self, path: str, data: Content | bytes | str | Path, *, lfs: bool | None = None, xet: bool = False
    ) -> Repository:
        """Put a file there, or another one in its place.

        `lfs` left open: as the hub decides, by suffix and size. `xet`: the hub says that the file is in Xet storage.

        Raises ValueError where the path is not one of a repository, or the repository is full.
        """
        _check_path(path)
        if len(self._files) >= MOST_FILES and path not in self._files:
            raise ValueError(f"{self.id} has {MOST_FILES} files: the local hub serves no more")
        content = content_of(data)
        if lfs is None:
            lfs = PurePosixPath(path).suffix.lower() in LFS_SUFFIXES or content.size > PLAIN_BYTES
        self._files[path] = Blob(content, lfs=lfs, xet=xet)
        self._changed = f"Upload {path}"
        return self

    def without(self, path: str) -> Repository:
        """Take a file away. Raises KeyError where there is none."""
        del self._files[path]
        self._changed = f"Delete {path}"
        return self

    def say(self, **details: object) -> Repository:
        """Change what the hub says of it: the fields of `Details`. Raises ValueError where there is no such field."""
        for name, value in details.items():
            if name not in Details.__dataclass_fields__:
                known = ", ".join(Details.__dataclass_fields__)
                raise ValueError(f"{name} is nothing the local hub says of a repository: use {known}")
            setattr(self.details, name, set(value) if name == "readers" else value)  # type: ignore[call-overload]
        return self

    def tag(self, name: str) -> Repository:
        """Give the newest commit a tag."""
        self.tags[name] = self.head.sha
        return self

    def branch(self, name: str) -> Repository:
        """A branch that stays at what is now the newest commit."""
        self.branches[name] = self.head.sha
        return self

    @property
    def head(self) -> Commit:
        """The newest commit of `main`; makes it where something was changed."""
        if self._changed is not None:
            self._commit(self._changed)
        return self._commits[-1]

    @property
    def commits(self) -> list[Commit]:
        """Newest first."""
        _ = self.head
        return self._commits[::-1]

    @property
    def created(self) -> datetime:
        return self.commits[-1].at

    def at(self, revision: str) -> Commit | None:
        """The commit a branch, tag, full commit id or `refs/heads/...` means; none where it means nothing."""
        head = self.head
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        if name == "main":
            return head
        sha = self.branches.get(name) or self.tags.get(name) or revision
        return next((commit for commit in self._commits if commit.sha == sha), None)

    def _commit(self, title: str) -> None:
        if len(self._commits) >= MOST_COMMITS:
            raise ValueError(f"{self.id} has {MOST_COMMITS} commits: the local hub keeps no more")
        digest = hashlib.sha1(self.id.encode(), usedforsecurity=False)
        digest.update(self._commits[-1].sha.encode() if self._commits else b"")
        for path, blob in sorted(self._files.items()):
            digest.update(f"{path}\0{blob.lfs}\0{blob.content.identity}\0".encode())
        at = self._created + timedelta(minutes=len(self._commits))
        files = dict(sorted(self._files.items()))
        self._commits.append(Commit(sha=digest.hexdigest(), title=title, at=at, files=files))
        self._changed = None


def load_folder(root: Path, *, xet: bool = False) -> Iterator[Repository]:
    """The repositories of a folder: `owner/name/<files>` for models, `datasets/owner/name/<files>` for datasets.

    Hidden files are left out. A file `hub.json` in a repository's folder says what the hub says of it (the fields of
    `Details`). Links are followed to files, never to folders.

    Raises OSError where the folder cannot be read, ValueError where a `hub.json` is not understood or there is too much.
    """
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is no folder: name one that holds owner/name/<files>")
    found = 0
    for kind, start in (("model", root), ("dataset", root / "datasets")):
        for owner in _folders(start):
            if kind == "model" and owner.name == "datasets":
                continue
            for folder in _folders(owner):
                found += 1
                if found > MOST_REPOSITORIES:
                    raise ValueError(f"{root} holds more than {MOST_REPOSITORIES} repositories")
                yield _load(folder, Repository(f"{owner.name}/{folder.name}", kind), xet=xet)  # type: ignore[arg-type]


def _load(folder: Path, repository: Repository, *, xet: bool) -> Repository:
    waiting = [folder]  # bounded by the folders below, and those by MOST_FILES
    while waiting:
        current = waiting.pop()
        for path in sorted(current.iterdir()):
            if path.name.startswith(".") and path.name != ".gitattributes":
                continue
            if path.is_dir():
                if not path.is_symlink():
                    waiting.append(path)
            elif path.is_file() and path != folder / DETAILS:
                repository.file(path.relative_to(folder).as_posix(), path, xet=xet)
    details = folder / DETAILS
    if details.is_file():
        try:
            said = json.loads(details.read_bytes())
        except ValueError as error:
            raise ValueError(f"{details} is not JSON: {error}") from error
        if not isinstance(said, dict):
            raise ValueError(f"{details} holds no object: write {{\"downloads\": 5}} or the like")
        repository.say(**said)
    return repository


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith("."))


def _check_id(repo_id: str) -> None:
    parts = repo_id.split("/")
    good = len(parts) == 2 and all(
        part and len(part) <= 96 and not part.startswith(("-", ".")) and all(one.isalnum() or one in "-_." for one in part)
        for part in parts
    )
    if not good:
        raise ValueError(f"{repo_id!r} is no name of a repository: write owner/name, of letters, digits, '-', '_' and '.'")


def _check_path(path: str) -> None:
    if not path or path.startswith("/") or path.endswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"{path!r} is no path of a file in a repository: write folder/file")
