"""Each fault, as it is seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

import aiohttp
import pytest
from yarl import URL

from tests.hub.contents import Pattern
from tests.hub.faults import (
    KINDS,
    ChangedContent,
    ChangedETag,
    Cut,
    Delay,
    Denied,
    Elsewhere,
    Failing,
    Fault,
    Flip,
    LyingRange,
    Misplaced,
    RateLimited,
    RedirectLoop,
    RelativeRedirect,
    Short,
    Slow,
    Stall,
    Whole,
    WrongLength,
)
from tests.hub.hub import LocalHub
from tests.hub.messages import Pace, says

SIZE = 200_000
DATA = Pattern(SIZE).read(0, SIZE)
FILE = "acme/tiny/a.gguf"
PLAIN = "/acme/tiny/resolve/main/a.txt"
RESOLVE = "/acme/tiny/resolve/main/a.gguf"


@contextlib.asynccontextmanager
async def hub_and_link() -> AsyncIterator[tuple[LocalHub, aiohttp.ClientSession, URL]]:
    async with LocalHub() as hub, aiohttp.ClientSession() as session:
        hub.repo("acme/tiny").file("a.gguf", Pattern(SIZE)).file("a.txt", "0123456789")
        async with session.head(hub.endpoint + RESOLVE) as reply:
            yield hub, session, URL(reply.headers["Location"], encoded=True)


@contextlib.asynccontextmanager
async def reply_with(fault: Fault, asked: str | None = None) -> AsyncIterator[aiohttp.ClientResponse]:
    """What storage answers where this goes wrong."""
    async with hub_and_link() as (hub, session, link):
        hub.faults.add(fault, origin="cdn")
        async with session.get(link, headers={"Range": asked} if asked else {}) as reply:
            yield reply
        assert hub.counters.faults == {type(fault).__name__: 1}


async def test_too_many_requests() -> None:
    async with reply_with(RateLimited(seconds=7)) as reply:
        assert reply.status == 429 and reply.headers["Retry-After"] == "7"
        assert ";t=7" in reply.headers["RateLimit"] and ";r=0" in reply.headers["RateLimit"]
    async with reply_with(RateLimited(seconds=600, as_date=True, ratelimit=False)) as reply:
        until = parsedate_to_datetime(reply.headers["Retry-After"]).timestamp()
        assert 590 < until - time.time() <= 600 and "RateLimit" not in reply.headers
    async with reply_with(RateLimited(retry_after=False)) as reply:
        assert "Retry-After" not in reply.headers


async def test_a_server_that_fails() -> None:
    async with reply_with(Failing(502)) as reply:
        assert reply.status == 502
    async with reply_with(Failing(retry_after=3)) as reply:
        assert (reply.status, reply.headers["Retry-After"]) == (503, "3")


async def test_a_link_that_is_denied() -> None:
    async with reply_with(Denied()) as reply:
        assert reply.status == 403
    async with reply_with(Denied(401)) as reply:
        assert reply.status == 401


async def test_redirects() -> None:
    async with hub_and_link() as (hub, session, _):
        rule = hub.faults.add(RedirectLoop(), path="a.txt")
        with pytest.raises(aiohttp.TooManyRedirects):
            await session.get(hub.endpoint + PLAIN)
        hub.faults.remove(rule)
        rule = hub.faults.add(RelativeRedirect(), path="a.txt")
        async with session.get(hub.endpoint + PLAIN) as reply:
            assert await reply.text() == "0123456789"
            assert [one.headers["Location"] for one in reply.history] == [PLAIN + "?redirected=1"]
        hub.faults.remove(rule)
        async with LocalHub() as other:
            other.repo("acme/tiny").file("a.txt", "from elsewhere")
            hub.faults.add(Elsewhere(other.endpoint), path="a.txt")
            async with session.get(hub.endpoint + PLAIN, headers={"Authorization": "Bearer hf_x"}) as reply:
                assert await reply.text() == "from elsewhere"
            assert not other.counters.users["hub"]  # aiohttp keeps the token from the other host


async def test_a_name_that_changes() -> None:
    async with hub_and_link() as (hub, session, link):
        async with session.head(link) as reply:
            etag = reply.headers["ETag"]
        hub.faults.add(ChangedETag("ff"))
        async with session.get(link, headers={"Range": "bytes=0-9", "If-Range": etag}) as reply:
            assert (reply.status, reply.headers["ETag"]) == (200, '"ff"') and await reply.read() == DATA
        async with session.head(hub.endpoint + RESOLVE) as reply:
            assert reply.headers["X-Linked-Etag"] == '"ff"'


async def test_a_content_that_changes() -> None:
    async with reply_with(ChangedContent(seed=4), "bytes=10-19") as reply:
        body = await reply.read()
        assert reply.status == 206 and len(body) == 10 and body != DATA[10:20]
    async with reply_with(ChangedContent(size=3)) as reply:
        assert len(await reply.read()) == 3
    async with hub_and_link() as (hub, session, link):
        async with session.head(link) as reply:
            etag = reply.headers["ETag"]
        hub.faults.add(ChangedContent(etag=False))
        async with session.get(link) as reply:
            assert reply.headers["ETag"] == etag and await reply.read() != DATA


async def test_the_whole_for_a_range() -> None:
    async with reply_with(Whole(), "bytes=10-19") as reply:
        assert reply.status == 200 and "Content-Range" not in reply.headers and await reply.read() == DATA


async def test_a_range_that_lies() -> None:
    async with reply_with(LyingRange(by=5, total_by=1), "bytes=10-19") as reply:
        assert reply.headers["Content-Range"] == f"bytes 15-24/{SIZE + 1}" and await reply.read() == DATA[10:20]
    async with reply_with(Misplaced(by=5), "bytes=10-19") as reply:
        assert reply.headers["Content-Range"] == f"bytes 10-19/{SIZE}" and await reply.read() == DATA[15:25]
    async with reply_with(Misplaced(by=5), "bytes=-2") as reply:
        assert await reply.read() == DATA[3:5]


async def test_a_flipped_byte() -> None:
    async with reply_with(Flip(at=15), "bytes=10-19") as reply:
        body = await reply.read()
        assert [at for at in range(10) if body[at] != DATA[10 + at]] == [5] and reply.headers["Content-Length"] == "10"
    async with reply_with(Flip()) as reply:
        body = await reply.read()
        assert body[SIZE // 2] == DATA[SIZE // 2] ^ 0xFF and body[: SIZE // 2] == DATA[: SIZE // 2]


async def test_a_flip_outside_the_range_does_not_happen() -> None:
    async with hub_and_link() as (hub, session, link):
        rule = hub.faults.add(Flip(at=20), times=1)
        for asked, good in (("bytes=10-19", True), ("bytes=20-29", False), ("bytes=20-29", True)):
            async with session.get(link, headers={"Range": asked}) as reply:
                start = int(asked[6:8])
                assert (await reply.read() == DATA[start : start + 10]) is good
        assert (rule.hits, rule.seen) == (1, 2)


async def test_a_body_that_ends_early() -> None:
    async with reply_with(Short(by=1000)) as reply:
        assert reply.headers["Content-Length"] == str(SIZE)
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read()


async def test_a_wrong_length() -> None:
    async with reply_with(WrongLength(by=5)) as reply:
        assert reply.headers["Content-Length"] == str(SIZE + 5)
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read()
    async with reply_with(WrongLength(by=-5)) as reply:
        assert await reply.read() == DATA[:-5]


async def test_a_connection_that_is_cut() -> None:
    async with reply_with(Cut(after=100)) as reply:
        with pytest.raises((aiohttp.ClientPayloadError, ConnectionResetError)):
            await reply.read()


async def test_a_stall() -> None:
    async with hub_and_link() as (hub, session, link):
        hub.faults.add(Stall(seconds=0.3, after=1000), times=1)
        started = time.monotonic()
        async with session.get(link) as reply:
            assert await reply.content.readexactly(1000) == DATA[:1000]
            assert hub.counters.of(FILE, method="GET")[-1].sent == 1000
            assert await reply.read() == DATA[1000:]
        assert time.monotonic() - started >= 0.29


async def test_who_gives_up_in_a_stall_is_seen_to_go() -> None:
    async with hub_and_link() as (hub, session, link):
        hub.faults.add(Stall(seconds=3600))
        with pytest.raises(TimeoutError):
            async with session.get(link, timeout=aiohttp.ClientTimeout(sock_read=0.05)) as reply:
                await reply.read()
        async with asyncio.timeout(5):
            while hub.counters.open["cdn"]:
                await asyncio.sleep(0.01)


async def test_a_delay() -> None:
    async with hub_and_link() as (hub, session, link):
        hub.faults.add(Delay(0.1))
        started = time.monotonic()
        async with session.head(link):
            assert time.monotonic() - started >= 0.1


async def test_a_slow_line() -> None:
    async with hub_and_link() as (hub, session, link):
        hub.faults.add(Slow(SIZE / 0.2), origin="cdn")
        started = time.monotonic()
        async with session.get(link) as reply:
            assert await reply.content.readexactly(1000) == DATA[:1000]
            assert not hub.counters.of(FILE, method="GET")[-1].ended  # it comes bit by bit
            assert await reply.read() == DATA[1000:]
        assert time.monotonic() - started >= 0.19


async def test_a_line_of_several_connections() -> None:
    async with hub_and_link() as (hub, session, link):
        hub.faults.add(Slow(SIZE / 0.1, shared=True), origin="cdn")

        async def fetch() -> bytes:
            async with session.get(link) as reply:
                return await reply.read()

        started = time.monotonic()
        assert await asyncio.gather(fetch(), fetch(), fetch()) == [DATA] * 3
        assert time.monotonic() - started >= 0.29  # one after the other; side by side it would be 0.1 s


def test_a_pace_of_its_own_or_of_all() -> None:
    for shared in (False, True):
        fault, replies = Slow(100, shared=shared), [says(200, "x"), says(200, "y")]
        for reply in replies:
            fault.bend(reply)
        paces = [reply.pace for reply in replies]
        assert None not in paces and (paces[0] is paces[1]) is shared
    pace = Pace(100)
    assert [pace.wait(50, 10.0), pace.wait(50, 10.0), pace.wait(50, 20.0)] == [0.5, 1.0, 0.5]


async def test_which_requests_a_rule_meets() -> None:
    async with hub_and_link() as (hub, session, link):

        async def statuses(count: int, method: str = "GET") -> list[int]:
            found: list[int] = []
            for _ in range(count):
                async with session.request(method, link) as reply:
                    found.append(reply.status)
            return found

        hub.faults.add(Failing(500), path=r"a\.gguf$", origin="cdn", nth=2)
        assert await statuses(3) == [200, 500, 200]
        hub.faults.clear()
        hub.faults.add(Failing(500), skip=1, times=2)
        assert await statuses(4) == [200, 500, 500, 200]
        hub.faults.clear()
        hub.faults.add(Failing(500), method="HEAD")
        assert await statuses(1) + await statuses(1, "HEAD") == [200, 500]
        hub.faults.clear()
        hub.faults.add(Failing(500), origin="hub")
        hub.faults.add(Failing(500), path="other.gguf")
        assert await statuses(1) == [200]


async def test_lots_are_drawn_by_the_seed() -> None:
    async def run(seed: int) -> list[int]:
        found: list[int] = []
        async with hub_and_link() as (hub, session, link):
            hub.faults.add(Failing(500), Failing(502), Denied(), origin="cdn", probability=0.5, seed=seed)
            for _ in range(30):
                async with session.head(link) as reply:
                    found.append(reply.status)
        return found

    first = await run(1)
    assert first == await run(1) != await run(2)
    assert {200, 500, 502, 403} == set(first)


async def test_a_patient_client_gets_there_through_faults_at_random() -> None:
    """What can be seen from outside is seen: status, length, Content-Range."""
    async with hub_and_link() as (hub, session, link):
        seen = (Failing(), Denied(), Cut(), Short(), Whole(), LyingRange(), WrongLength(), Delay(0.001), RateLimited())
        hub.faults.add(*seen, origin="cdn", probability=0.5, seed=11)
        parts: list[bytes] = []
        for start in range(0, SIZE, SIZE // 20):
            stop = start + SIZE // 20
            for _ in range(50):
                with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                    async with session.get(link, headers={"Range": f"bytes={start}-{stop - 1}"}) as reply:
                        body = await reply.read() if reply.status == 206 else b""
                        right = reply.headers.get("Content-Range") == f"bytes {start}-{stop - 1}/{SIZE}"
                        if right and len(body) == stop - start:
                            parts.append(body)
                            break
        assert b"".join(parts) == DATA
        assert len(hub.counters.faults) >= 6 and not hub.counters.users["cdn"]


async def test_two_faults_on_one_request() -> None:
    async with hub_and_link() as (hub, session, link):
        hub.faults.add(Flip(at=0))
        hub.faults.add(Short(by=1))
        async with session.get(link) as reply:
            assert await reply.content.readexactly(1) == bytes([DATA[0] ^ 0xFF])
            with pytest.raises(aiohttp.ClientPayloadError):
                await reply.read()
        assert hub.counters.of(FILE, method="GET")[-1].faults == ("Flip", "Short")


def test_rules_that_make_no_sense() -> None:
    faults = LocalHub().faults
    for wrong in ({"path": "("}, {"probability": 2}, {"nth": 0}, {"nth": 1, "times": 1}):
        with pytest.raises(ValueError, match=r"."):
            faults.add(Flip(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one"):
        faults.add()
    unknown = [{"faults": [{"fault": "Nothing"}]}, {"faults": [{"fault": "Flip", "on": 1}]}]
    for said in ([], *unknown, {"faults": [{"fault": "Flip"}], "where": 1}):
        with pytest.raises(ValueError, match=r"."):
            faults.add_named(said)
    rule = faults.add_named({"faults": [{"fault": "Flip", "at": 5}], "path": "gguf$", "times": 1})
    assert rule.faults == (Flip(at=5),) and rule.times == 1


def test_every_kind_can_be_named() -> None:
    assert set(KINDS) == {kind.__name__ for kind in Fault.__subclasses__() if kind.__module__ == Fault.__module__}
