"""Ranges, conditions and signed links, as any HTTP client sees them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from yarl import URL

from tests.hub.contents import Pattern
from tests.hub.hub import LocalHub

SIZE = 2_500_000
DATA = Pattern(SIZE).read(0, SIZE)
FILE = "acme/tiny/it's a model.gguf"
RESOLVE = "/acme/tiny/resolve/main/it's%20a%20model.gguf"


@contextlib.asynccontextmanager
async def hub_and_link(hub: LocalHub | None = None) -> AsyncIterator[tuple[LocalHub, aiohttp.ClientSession, URL]]:
    """A hub, a client, and a signed link to a file in storage."""
    async with hub or LocalHub() as hub, aiohttp.ClientSession() as session:
        hub.repo("acme/tiny").file("it's a model.gguf", Pattern(SIZE)).file("a.txt", "0123456789")
        async with session.head(hub.endpoint + RESOLVE) as reply:
            assert reply.status == 302
            yield hub, session, URL(reply.headers["Location"], encoded=True)


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000000-1999999", 1_000_000, 2_000_000),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("bytes=2000000-99999999", 2_000_000, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
        ("bytes=-99999999", 0, SIZE),
    ],
)
async def test_one_range(asked: str, start: int, stop: int) -> None:
    async with hub_and_link() as (hub, session, link):
        async with session.get(link, headers={"Range": asked, "Accept-Encoding": "gzip"}) as reply:
            assert (reply.status, reply.headers["Content-Range"]) == (206, f"bytes {start}-{stop - 1}/{SIZE}")
            assert "Content-Encoding" not in reply.headers and reply.headers["Accept-Ranges"] == "bytes"
            assert await reply.read() == DATA[start:stop]
        assert hub.counters.ranges(FILE) == [(start, stop)]


@pytest.mark.parametrize("asked", ["bytes=5-3", "bytes=a-b", "bytes=-", "items=0-1", "bytes=0-1,5-6"])
async def test_what_is_no_range_is_answered_whole(asked: str) -> None:
    async with hub_and_link() as (_, session, link), session.get(link, headers={"Range": asked}) as reply:
        assert reply.status == 200 and await reply.read() == DATA


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=-0"])
async def test_a_range_outside(asked: str) -> None:
    async with hub_and_link() as (_, session, link), session.get(link, headers={"Range": asked}) as reply:
        assert (reply.status, reply.headers["Content-Range"]) == (416, f"bytes */{SIZE}")


async def test_conditions() -> None:
    async with hub_and_link() as (_, session, link):
        async with session.head(link) as reply:
            assert reply.status == 200 and int(reply.headers["Content-Length"]) == SIZE
            etag, modified = reply.headers["ETag"], reply.headers["Last-Modified"]
        for condition, status in ((etag, 206), ('"other"', 200), (f"W/{etag}", 200), (modified, 206), ("nonsense", 200)):
            async with session.get(link, headers={"Range": "bytes=0-9", "If-Range": condition}) as reply:
                assert reply.status == status, condition
        async with session.get(link, headers={"If-None-Match": etag}) as reply:
            assert reply.status == 304
        async with session.get(link, headers={"If-Match": '"other"'}) as reply:
            assert reply.status == 412


@pytest.mark.parametrize("hashed", [True, False])
async def test_storage_has_a_name_of_its_own_unless_told(hashed: bool) -> None:
    async with hub_and_link(LocalHub(hashed_storage=hashed)) as (hub, session, link), session.head(link) as reply:
        sha256 = hub.repo("acme/tiny").head.files["it's a model.gguf"].sha256
        assert (reply.headers["ETag"] == f'"{sha256}"') is hashed


async def test_what_the_hub_says_of_a_file() -> None:
    async with hub_and_link() as (hub, session, _):
        head = hub.repo("acme/tiny").head
        async with session.get(hub.endpoint + RESOLVE, allow_redirects=False) as reply:
            sha256 = head.files["it's a model.gguf"].sha256
            assert reply.status == 302 and reply.headers["X-Repo-Commit"] == head.sha
            assert reply.headers["X-Linked-Etag"] == reply.headers["ETag"] == f'"{sha256}"'
            assert reply.headers["X-Linked-Size"] == str(SIZE) and reply.headers["Accept-Ranges"] == "bytes"
            assert urlsplit(reply.headers["Location"]).netloc != urlsplit(hub.endpoint).netloc
        async with session.get(hub.endpoint + "/acme/tiny/resolve/main/a.txt", headers={"Range": "bytes=3-"}) as reply:
            assert reply.status == 206 and reply.headers["ETag"] == f'"{head.files["a.txt"].oid}"'
            assert reply.headers["X-Repo-Commit"] == head.sha and await reply.text() == "3456789"
        assert FILE not in hub.counters.sent  # a redirect's text is none of the file's bytes


async def test_a_link_is_good_byte_for_byte() -> None:
    async with hub_and_link() as (hub, session, link):
        assert "%27%27" in str(link) and "%3B" in str(link)
        async with session.get(link) as reply:
            assert reply.status == 200
        # What a client makes of it that undoes escapes: the same to a reader, another link to storage.
        async with session.get(URL(str(link))) as reply:
            assert reply.status == 403 and "SignatureDoesNotMatch" in await reply.text()
        async with session.get(hub.endpoint + RESOLVE) as reply:
            assert reply.status == 403
        careful = aiohttp.ClientSession(requote_redirect_url=False)
        async with careful, careful.get(hub.endpoint + RESOLVE) as reply:
            assert reply.status == 200 and await reply.read() == DATA
        async with session.get(URL(str(link).split("?")[0])) as reply:
            assert reply.status == 403


async def test_a_link_ends() -> None:
    now = 1_000.0
    async with hub_and_link(LocalHub(clock=lambda: now)) as (hub, session, link):
        now += hub.link_seconds - 1
        async with session.get(link) as reply:
            assert reply.status == 200
        now += 1
        async with session.get(link) as reply:
            assert reply.status == 403 and "expired" in await reply.text()


async def test_links_can_be_ended_at_once() -> None:
    async with hub_and_link() as (hub, session, link):
        hub.expire_links()
        async with session.get(link) as reply:
            assert reply.status == 403 and "AccessDenied" in await reply.text()
        async with session.head(hub.endpoint + RESOLVE) as reply:
            fresh = URL(reply.headers["Location"], encoded=True)
        async with session.get(fresh) as reply:
            assert reply.status == 200


async def test_a_token_at_storage_is_refused_and_counted() -> None:
    async with hub_and_link() as (hub, session, link):
        hub.token("hf_alice", "alice")
        for token in ("hf_alice", "hf_stranger"):
            async with session.get(link, headers={"Authorization": f"Bearer {token}"}) as reply:
                assert reply.status == 400
        assert hub.counters.users["cdn"] == {"alice": 1, "unknown": 1}
        assert "hf_" not in str(hub.counters.as_json())


async def test_several_connections_at_once_from_disk(tmp_path: Path) -> None:
    size, parts = 4 << 20, 8
    path = Pattern(size, seed=3).write_to(tmp_path / "a.gguf")
    async with hub_and_link() as (hub, session, _):
        hub.repo("acme/disk").file("a.gguf", path)
        async with session.head(hub.endpoint + "/acme/disk/resolve/main/a.gguf") as reply:
            link = URL(reply.headers["Location"], encoded=True)

        async def part(number: int) -> bytes:
            start = number * size // parts
            async with session.get(link, headers={"Range": f"bytes={start}-{start + size // parts - 1}"}) as reply:
                return await reply.read()

        assert b"".join(await asyncio.gather(*(part(number) for number in range(parts)))) == path.read_bytes()
        assert path.read_bytes() == Pattern(size, seed=3).read(0, size)
        assert hub.counters.sent["acme/disk/a.gguf"] == size
        assert 2 <= hub.counters.most_open["cdn"] <= parts
