"""What a hub says of its repositories, asked through `huggingface_hub`: search, files, commits. Never bytes of files.

The library blocks and is run in threads, a few at a time. It is imported when it is first needed: a node that never asks a
hub pays nothing for it. What it raises becomes a refusal that says what to do.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from swarmd.domain.hub import HubCompanion, HubRepo, HubVariant
from swarmd.domain.refusals import HubFailed, HubForbidden, Invalid, NotFound, Refusal
from swarmd.downloads.ranges import RemoteFile, retry_after_s
from swarmd.kit.flow import SingleFlight
from swarmd.kit.world import World
from swarmd.models.manifest import REPO_ID, REPO_ID_MAX, is_filename
from swarmd.models.split_files import part_names, part_of, quant_of

if TYPE_CHECKING:
    from httpx2 import Client, Response
    from huggingface_hub import HfApi

REQUEST_S: Final = 20.0  # of one call; the hub answers within one
CALLS_AT_ONCE: Final = 6  # 500 calls in five minutes are allowed to strangers; a search makes a dozen
KEPT: Final = 256  # repositories remembered, some kB each
KEPT_S: Final = 600.0  # a new upload is seen ten minutes later
SEARCH_HITS: Final = 12  # each costs one more call, for the sizes of its files
FILES_LIMIT: Final = 20_000  # in one repository; the largest of GGUF files have some hundreds
_MMPROJ: Final = "mmproj"  # in the names of vision encoders

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file of a repository at one commit."""

    filename: str
    size_bytes: int
    sha256: str | None
    """Of a large file (LFS, Xet)."""
    git_sha1: str | None
    """Of the others: git's name of their content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoFiles:
    """A repository as it was at one commit."""

    repo_id: str
    commit: str
    files: dict[str, HubFile]
    downloads: int = 0
    likes: int = 0
    tags: tuple[str, ...] = ()
    gated: bool = False

    def variants(self) -> tuple[HubVariant, ...]:
        """Its GGUF models by size; a split one counts once, and only when all its parts are there."""
        found: list[HubVariant] = []
        for name in self.files:
            if not is_filename(name) or _MMPROJ in name.lower() or (part := part_of(name) or (1, 1))[0] != 1:
                continue
            parts = [self.files.get(one) for one in part_names(name)]
            if all(parts):
                size = sum(one.size_bytes for one in parts if one is not None)
                found.append(HubVariant(filename=name, size_bytes=size, quant=quant_of(name), parts=part[1]))
        return tuple(sorted(found, key=lambda one: (one.size_bytes, one.filename)))


    def vision(self) -> HubCompanion | None:
        """The vision encoder that goes with its models: F16 where there are several, as precise and half as large as F32."""
        found = [file for name, file in self.files.items() if _MMPROJ in name.lower() and is_filename(name)]
        if not found:
            return None
        rank = {"F16": 0, "BF16": 1}
        best = min(found, key=lambda file: (rank.get(quant_of(file.filename), 2), file.size_bytes, file.filename))
        return HubCompanion(filename=best.filename, size_bytes=best.size_bytes, sha256=best.sha256)


class Hub:
    """One per node. Bounded: KEPT repositories, CALLS_AT_ONCE threads."""

    def __init__(
        self,
        *,
        endpoint: Callable[[], str],
        token: Callable[[], str | None],
        proxy: Callable[[], str | None],
        world: World,
        user_agent: str,
    ) -> None:
        """`proxy`: None for that of the environment."""
        self._proxy = proxy
        # Its own threads: a hub that does not answer would else hold those that write to the disk.
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="hub")
        self._endpoint, self._token, self._world, self._user_agent = endpoint, token, world, user_agent
        self._turns = asyncio.Semaphore(CALLS_AT_ONCE)
        self._flights: SingleFlight[tuple[str, str], RepoFiles | Refusal] = SingleFlight()
        self._kept: OrderedDict[tuple[str, str], tuple[float, RepoFiles]] = OrderedDict()

    def close(self) -> None:
        """Nothing more is asked; a call that runs ends within REQUEST_S, and nobody waits for it."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def url(self, repo_id: str, commit: str, filename: str) -> str:
        """Where a file is asked for, pinned to a commit. The names are of ordinary characters."""
        return f"{self._endpoint().rstrip('/')}/{repo_id}/resolve/{commit}/{filename}"

    def remote(self, repo: RepoFiles, file: HubFile) -> RemoteFile:
        return RemoteFile(
            url=self.url(repo.repo_id, repo.commit, file.filename),
            size_bytes=file.size_bytes,
            name=f"{repo.repo_id}/{file.filename}",
            sha256=file.sha256,
            git_sha1=file.git_sha1,
        )

    async def search(self, query: str) -> tuple[HubRepo, ...] | Refusal:
        """Repositories with GGUF models, the most downloaded first, with the sizes of their files.

        One that cannot be looked into is shown without variants. Refuses HubFailed.
        """

        def work(api: HfApi) -> list[str]:
            hits = api.list_models(search=query, filter="gguf", sort="downloads", limit=SEARCH_HITS)
            return [hit.id for hit in hits][:SEARCH_HITS]

        found = await self._call(work, f"the search for {query[:80]!r}")
        if isinstance(found, Refusal):
            return found
        names = [name for name in found if REPO_ID.fullmatch(name) and len(name) <= REPO_ID_MAX]
        looked = await asyncio.gather(*(self.repo(name) for name in names))
        return tuple(
            HubRepo(repo_id=name, downloads=0, likes=0, variants=(), gated=isinstance(repo, HubForbidden))
            if isinstance(repo, Refusal)
            else HubRepo(
                repo_id=name, downloads=repo.downloads, likes=repo.likes, variants=repo.variants(), tags=repo.tags,
                gated=repo.gated,
            )
            for name, repo in zip(names, looked, strict=True)
        )  # fmt: skip

    async def repo(self, repo_id: str, commit: str | None = None) -> RepoFiles | Refusal:
        """The files of a repository, at its newest commit or at a given one. Kept for KEPT_S.

        Refuses Invalid, NotFound, HubForbidden, HubFailed.
        """
        if not REPO_ID.fullmatch(repo_id) or len(repo_id) > REPO_ID_MAX or ".." in repo_id:
            return Invalid(what=f"{repo_id[:80]!r} is no repository: its name is owner/name", param="repo_id")
        key = (repo_id, commit or "main")
        now = self._world.clock.monotonic()
        kept = self._kept.get(key)
        if kept is not None and (commit is not None or now - kept[0] < KEPT_S):  # a commit does not change
            return kept[1]
        return await self._flights.do(key, lambda: self._repo(repo_id, commit, key))

    async def _repo(self, repo_id: str, commit: str | None, key: tuple[str, str]) -> RepoFiles | Refusal:
        found = await self._call(
            lambda api: api.model_info(repo_id, revision=commit, files_metadata=True, timeout=REQUEST_S), repo_id
        )
        if isinstance(found, Refusal):
            return found
        files = _files(found.siblings or [])
        if found.sha is None or len(found.sha) != 40:
            return HubFailed(what=f"the hub does not say which commit of {repo_id} is the newest")
        repo = RepoFiles(
            repo_id=repo_id, commit=found.sha, files=files, downloads=found.downloads or 0, likes=found.likes or 0,
            tags=tuple(str(tag)[:64] for tag in (found.tags or [])[:64]), gated=bool(found.gated),
        )  # fmt: skip
        self._kept[key] = (self._world.clock.monotonic(), repo)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return repo

    async def _call(self, work: Callable[[HfApi], T], what: str) -> T | Refusal:
        token = self._token()
        try:
            async with asyncio.timeout(2 * REQUEST_S):
                await self._turns.acquire()
                call = asyncio.get_running_loop().run_in_executor(self._threads, self._work, work, token)
                call.add_done_callback(lambda _: self._turns.release())
                return await asyncio.shield(call)  # a thread cannot be stopped: its place is free when it is
        except TimeoutError:
            return HubFailed(what=f"the hub did not answer within {2 * REQUEST_S:.0f} s about {what}: try again later")
        except Exception as error:  # whatever a library and its HTTP client raise, sorted there
            refusal = _refusal(error, what, has_token=token is not None, now=self._world.clock.now())
            if refusal is None:
                raise
            return refusal

    def _work(self, work: Callable[[HfApi], T], token: str | None) -> T:
        from huggingface_hub import HfApi, constants, errors

        if constants.HF_HUB_OFFLINE:  # the library looks at it in its own client alone
            raise errors.OfflineModeIsEnabled("HF_HUB_OFFLINE")

        # Neither telemetry nor a look for updates: a node speaks to the hub about what its user asked for.
        constants.HF_HUB_DISABLE_TELEMETRY = True
        constants.HF_HUB_DISABLE_UPDATE_CHECK = True
        library.use_proxy(self._proxy())
        return work(HfApi(endpoint=self._endpoint(), token=token or False, user_agent=self._user_agent))


class _Trouble(Exception):
    """The hub answered with a status that the library would try again, sleeping in between: here the user is told."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"status {response.status_code}")
        self.response = response


class _Unreachable(Exception):
    """It did not answer at all."""


class Library:
    """Which proxy the library uses. It has one client for the whole process, and no other place for a proxy; being told
    closes that client, also under a thread that is asking with it, so that it is told only what is new."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._proxy: str | None = ""
        """Empty: nothing yet."""

    def use_proxy(self, proxy: str | None) -> None:
        from huggingface_hub import set_client_factory

        with self._lock:
            if proxy != self._proxy:
                self._proxy = proxy
                set_client_factory(_clients(proxy))

    def forget(self) -> None:
        """Somebody else gave it a client."""
        with self._lock:
            self._proxy = ""


library: Final = Library()


def _clients(proxy: str | None) -> Callable[[], Client]:
    """Of the library. Its own client waits without end, and tries for half a minute before it says that it is offline."""
    import httpx2

    class Prompt(httpx2.Client):
        def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
            try:
                response = super().send(request, **options)
            except httpx2.TransportError as error:
                raise _Unreachable(type(error).__name__) from error
            if response.status_code == 429 or response.status_code >= 500:
                response.close()
                raise _Trouble(response)
            return response

    return lambda: Prompt(proxy=proxy, timeout=REQUEST_S, follow_redirects=True)


def _files(siblings: list[Any]) -> dict[str, HubFile]:
    """Those of which the hub tells the size."""
    files: dict[str, HubFile] = {}
    for one in siblings[:FILES_LIMIT]:
        name, size = getattr(one, "rfilename", None), getattr(one, "size", None)
        if isinstance(name, str) and isinstance(size, int) and size >= 0:
            lfs = getattr(one, "lfs", None)
            sha256 = getattr(lfs, "sha256", None)
            files[name] = HubFile(
                filename=name,
                size_bytes=size,
                sha256=sha256 if isinstance(sha256, str) else None,
                git_sha1=None if lfs is not None else getattr(one, "blob_id", None),
            )
    return files


def _refusal(error: Exception, what: str, *, has_token: bool, now: float) -> Refusal | None:
    """What the library raised, as a value; None for what must be a bug of ours."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubFailed(what="this node is told to stay away from the hub (HF_HUB_OFFLINE is set): unset it")
    if isinstance(error, errors.GatedRepoError | errors.RepositoryNotFoundError):
        return HubForbidden(repo_id=what, has_token=has_token)
    if isinstance(error, errors.RevisionNotFoundError | errors.EntryNotFoundError):
        return NotFound(what=f"{what} has no such revision or file at the hub")
    if isinstance(error, errors.HFValidationError):
        return Invalid(what=f"the hub's rules do not allow the name {what[:80]!r}", param="repo_id")
    if isinstance(error, _Unreachable):
        return HubFailed(what=f"the hub cannot be asked for {what}: {error}; is this machine online?")
    if isinstance(error, errors.HfHubHTTPError | _Trouble):
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            return HubForbidden(repo_id=what, has_token=has_token)
        wait = retry_after_s(error.response.headers, now=now) if status in (429, 503) else None
        reason = "is asked too often from here" if status == 429 else f"fails (status {status})"
        return HubFailed(what=f"the hub {reason}, asked for {what}", retry_after_s=wait or 0.0)
    if isinstance(error, OSError | ValueError) or type(error).__module__.startswith("httpx"):
        return HubFailed(what=f"the hub cannot be asked for {what}: {type(error).__name__}; is this machine online?")
    return None
