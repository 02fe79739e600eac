"""Fetches the release feed and the files it names: bounded in bytes and time, over https, or http from this machine."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Final
from urllib.parse import urljoin

import aiohttp

from swarmd.domain.refusals import Invalid
from swarmd.kit.disk import Disk
from swarmd.updates.feed import FEED_LIMIT, WheelFile, address_problem

CONNECT_S: Final = 15.0
SILENCE_S: Final = 30.0  # between two pieces
FEED_S: Final = 60.0  # for the whole feed: who sends a byte every 29 s does not hold us for a year
FILE_S: Final = 3600.0  # for a file: 256 MB in an hour is what a slow line brings
REDIRECTS: Final = 5
PIECE_BYTES: Final = 256 * 1024


class FeedFailed(Exception):
    """What was asked for did not come; the sentence says why. Another try may succeed."""


class Releases:
    """One per node. A session lives as long as one fetch: they are an hour apart."""

    def __init__(self, *, proxy: Callable[[], str | None], user_agent: str, disk: Disk) -> None:
        self._proxy, self._user_agent, self._disk = proxy, user_agent, disk

    async def feed(self, url: str) -> bytes:
        """Raises FeedFailed, also where it has more than FEED_LIMIT bytes."""
        data = bytearray()
        with _as_failure("the release feed", FEED_S):
            async with asyncio.timeout(FEED_S), self._opened(url) as response:
                async for piece in response.content.iter_chunked(PIECE_BYTES):
                    data += piece
                    if len(data) > FEED_LIMIT:
                        raise FeedFailed(f"the release feed has more than {FEED_LIMIT} bytes")
        return bytes(data)

    async def file(self, feed_url: str, wanted: WheelFile, path: Path) -> Invalid | None:
        """A file beside the feed into `path`, which is written whole or not at all. Raises FeedFailed or OSError.

        What has another size or hash than the signed feed says is refused: a truncated file as well as a changed one.
        """
        part, hasher, size = path.with_name(f".{path.name}.part"), hashlib.sha256(), 0
        await self._disk.remove(part)
        try:
            with _as_failure(wanted.file, FILE_S):
                async with asyncio.timeout(FILE_S), self._opened(urljoin(feed_url, wanted.file)) as response:
                    async for piece in response.content.iter_chunked(PIECE_BYTES):
                        if size + len(piece) > wanted.size_bytes:
                            return Invalid(
                                what=f"{wanted.file} is larger than the {wanted.size_bytes} bytes that were signed"
                            )
                        await self._disk.write_range(part, size, piece)
                        hasher.update(piece)
                        size += len(piece)
            if size < wanted.size_bytes:
                return Invalid(
                    what=f"{wanted.file} has {size} of the {wanted.size_bytes} bytes that were signed: it is cut short"
                )
            if hasher.hexdigest() != wanted.sha256:
                return Invalid(what=f"{wanted.file} is not the file that was signed: its SHA-256 is another")
            await self._disk.rename(part, path)
        finally:
            await self._disk.remove(part)
        return None

    @contextlib.asynccontextmanager
    async def _opened(self, url: str) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Each address on the way is checked: a redirect must not lead to a line on which everybody listens."""
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_S, sock_read=SILENCE_S, total=None)
        headers = {"user-agent": self._user_agent, "accept-encoding": "identity"}  # nothing is unpacked before it is checked
        async with aiohttp.ClientSession(timeout=timeout, headers=headers, trust_env=True, auto_decompress=False) as session:
            for _ in range(REDIRECTS + 1):
                if (problem := address_problem(url)) is not None:
                    raise FeedFailed(problem)
                async with session.get(url, allow_redirects=False, proxy=self._proxy()) as response:
                    if response.status in (301, 302, 303, 307, 308) and "location" in response.headers:
                        url = _next(url, response.headers["location"])
                        continue
                    if response.status != 200:
                        raise FeedFailed(f"{response.url.human_repr()[:200]} answered {response.status}")
                    yield response
                    return
        raise FeedFailed(f"more than {REDIRECTS} redirects")


def _next(url: str, location: str) -> str:
    """Where a redirect leads. From https not to http: who answers for the feed must not have this node ask what listens on
    its own machine. Raises FeedFailed."""
    try:
        following = urljoin(url, location)
    except ValueError:
        raise FeedFailed("the release feed's server redirects to what is no address") from None
    if url.startswith("https:") and not following.startswith("https:"):
        raise FeedFailed("the release feed's server redirects from https to something else")
    return following


@contextlib.contextmanager
def _as_failure(what: str, seconds: float):  # noqa: ANN202  a generator of nothing
    try:
        yield
    except TimeoutError:
        raise FeedFailed(f"{what} did not come in time ({seconds:.0f} s in all, {SILENCE_S:.0f} s without a word)") from None
    except aiohttp.ClientError as error:
        raise FeedFailed(f"{what} could not be fetched: {error}") from error
