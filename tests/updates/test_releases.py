"""The feed and its files over real sockets: bounded, whole, and from nowhere else."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from swarmd.domain.refusals import Invalid
from swarmd.kit.disk import Disk
from swarmd.updates import releases as module
from swarmd.updates.feed import FEED_LIMIT, WheelFile
from swarmd.updates.releases import FeedFailed, Releases

WHEEL = bytes(range(256)) * 3000


def named(data: bytes, **changes: object) -> WheelFile:
    fields = {"file": "a.whl", "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} | changes
    return WheelFile(**fields)  # type: ignore[arg-type]


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    async def answer(request: web.Request) -> web.StreamResponse:
        match request.path:
            case "/feed.json":
                return web.Response(body=b"{}")
            case "/a.whl":
                return web.Response(body=WHEEL)
            case "/endless":
                response = web.StreamResponse()
                await response.prepare(request)
                for _ in range(FEED_LIMIT // 65536 + 2):
                    await response.write(b"x" * 65536)
                return response
            case "/silent":
                await asyncio.sleep(60)
            case "/around":
                raise web.HTTPFound("/around")
            case "/nowhere":
                return web.Response(status=302, headers={"location": "http://[x"})
            case "/out":
                raise web.HTTPFound("http://example.org/feed.json")
            case _:
                pass
        raise web.HTTPNotFound

    app = web.Application()
    app.router.add_get("/{any:.*}", answer)
    async with TestServer(app) as server:
        yield server


@pytest.fixture
def releases() -> Releases:
    return Releases(proxy=lambda: None, user_agent="swarmd/test", disk=Disk())


async def test_feed_and_file(server: TestServer, releases: Releases, tmp_path: Path) -> None:
    feed = str(server.make_url("/feed.json"))
    assert await releases.feed(feed) == b"{}"
    assert await releases.file(feed, named(WHEEL), tmp_path / "a.whl") is None
    assert (tmp_path / "a.whl").read_bytes() == WHEEL


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (named(WHEEL, size_bytes=len(WHEEL) + 1), "it is cut short"),
        (named(WHEEL, size_bytes=len(WHEEL) - 1), "is larger than"),
        (named(WHEEL, sha256="0" * 64), "its SHA-256 is another"),
    ],
)
async def test_a_file_that_is_not_the_one_that_was_signed(
    server: TestServer, releases: Releases, tmp_path: Path, wanted: WheelFile, words: str
) -> None:
    found = await releases.file(str(server.make_url("/feed.json")), wanted, tmp_path / "a.whl")
    assert isinstance(found, Invalid) and words in found.sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "words"),
    [("/endless", "more than"), ("/missing", "answered 404"), ("/around", "redirects"), ("/out", "must be fetched by https"),
     ("/nowhere", "no address"),
     ("/silent", "did not come in time")],
)  # fmt: skip
async def test_a_feed_that_does_not_come(
    server: TestServer, releases: Releases, path: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEED_S", 0.3 if path == "/silent" else 20.0)
    with pytest.raises(FeedFailed, match=words):
        await releases.feed(str(server.make_url(path)))


async def test_a_server_that_is_not_there(releases: Releases, tmp_path: Path) -> None:
    with pytest.raises(FeedFailed, match="could not be fetched"):
        await releases.feed("http://127.0.0.1:9/feed.json")
    with pytest.raises(FeedFailed, match="could not be fetched"):
        await releases.file("http://127.0.0.1:9/feed.json", named(WHEEL), tmp_path / "a.whl")


def test_a_feed_by_https_does_not_lead_to_what_listens_here() -> None:
    assert module._next("https://a.example/feed.json", "/other") == "https://a.example/other"
    with pytest.raises(FeedFailed, match="from https to something else"):
        module._next("https://a.example/feed.json", "http://127.0.0.1:8800/shutdown")
