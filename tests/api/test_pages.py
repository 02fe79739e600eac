"""The dashboard's page, its files, its way to the key."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from swarmd.api.pages import STATIC, read_static_now
from swarmd.kit.disk import Disk
from tests.fakes.rim import KEY, LAN_CLIENT, Rim, keyed, until


async def nonce_of(rim: Rim, **headers: str) -> str:
    async with rim.client() as client, client.get("/", headers=headers) as reply:
        assert reply.status == 200
        assert reply.headers["cache-control"] == "no-store"
        found = re.search(r'content="([0-9a-f]*)"', await reply.text())
    assert found is not None
    return found.group(1)


async def key_for(rim: Rim, nonce: str, **headers: str) -> tuple[int, str | None]:
    headers.setdefault("origin", rim.url)
    body = {"nonce": nonce}
    async with rim.client() as client, client.post("/api/admin/session", json=body, headers=headers) as reply:
        return reply.status, (await reply.json()).get("api_key")


async def test_the_page_gets_the_key_once(rim: Rim) -> None:
    nonce = await nonce_of(rim)
    assert len(nonce) == 64
    assert await key_for(rim, nonce) == (200, KEY)
    assert await key_for(rim, nonce) == (403, None)


async def test_every_page_has_its_own_nonce(rim: Rim) -> None:
    assert await nonce_of(rim) != await nonce_of(rim)


async def test_no_nonce_and_no_key_for_strangers(rim: Rim) -> None:
    nonce = await nonce_of(rim)
    assert (await key_for(rim, nonce, origin="https://evil.example"))[0] == 403
    assert (await key_for(rim, nonce, host="evil.example", origin="http://evil.example"))[0] == 403
    assert await nonce_of(rim, host="evil.example:8800") == ""
    assert await nonce_of(rim, **{"x-forwarded-for": "10.0.0.1"}) == ""
    rim.address = LAN_CLIENT
    assert await nonce_of(rim) == ""
    assert (await key_for(rim, nonce))[0] == 403
    rim.address = None
    assert await key_for(rim, nonce) == (200, KEY), "refusals of strangers do not use the nonce up"


async def test_programs_without_an_origin_are_sent_to_the_file(rim: Rim) -> None:
    nonce = await nonce_of(rim)
    async with rim.client() as client, client.post("/api/admin/session", json={"nonce": nonce}) as reply:
        assert reply.status == 403


async def test_a_made_up_nonce(rim: Rim) -> None:
    assert (await key_for(rim, "0" * 64))[0] == 403


async def test_files(rim: Rim) -> None:
    async with rim.client() as client:
        async with client.get("/static/main.js") as reply:
            assert reply.status == 200
            assert reply.headers["content-type"].startswith("text/javascript")
            assert reply.headers["cache-control"] == "no-cache"
            etag = reply.headers["etag"]
        for header in (etag, f'"other", W/{etag}', "*"):
            async with client.get("/static/main.js", headers={"if-none-match": header}) as reply:
                assert reply.status == 304
                assert await reply.read() == b""
        async with client.get("/static/main.js", headers={"if-none-match": '"other"'}) as reply:
            assert reply.status == 200
        async with client.get("/static/panels/a.js") as reply:
            assert reply.status == 200


@pytest.mark.parametrize(
    "name", ["nothing.js", "index.html", "../server.py", "%2e%2e/server.py", "panels", "panels/", "/etc/passwd"]
)
async def test_nothing_else_is_served(rim: Rim, name: str) -> None:
    import yarl

    async with rim.client() as client, client.get(yarl.URL(f"{rim.url}/static/{name}", encoded=True)) as reply:
        assert reply.status == 404


def test_the_dashboard_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "panels").mkdir()
    (tmp_path / "a.css").write_text("a {}")
    (tmp_path / "panels" / "b.js").write_text("b")
    files = read_static_now(Disk(), tmp_path)
    assert {name: file.media for name, file in files.items()} == {
        "a.css": "text/css; charset=utf-8",
        "panels/b.js": "text/javascript; charset=utf-8",
    }
    assert files["a.css"].etag != files["panels/b.js"].etag


def test_the_real_index_has_a_place_for_the_nonce() -> None:
    index = read_static_now(Disk(), STATIC)["index.html"]
    assert index.data.count(b"{{nonce}}") == 1


async def test_health(rim: Rim) -> None:
    rim.address = LAN_CLIENT
    async with rim.client() as client:
        async with client.get("/health") as reply:
            assert await reply.json() == {"status": "ok"}
        async with client.get("/health/ready") as reply:
            assert reply.status == 200
        rim.subsystems["inference"] = False
        async with client.get("/health/ready") as reply:
            assert reply.status == 503
            assert await reply.json() == {"ready": False, "subsystems": {"peers": True, "inference": False}}


async def test_api_key_and_tickets(rim: Rim) -> None:
    async with rim.client(**keyed()) as client:
        async with client.get("/api/admin/api-key") as reply:
            assert await reply.json() == {"api_key": KEY}
            assert reply.headers["cache-control"] == "no-store"
        async with client.post("/api/admin/ws-ticket") as reply:
            body = await reply.json()
    assert body["expires_in_seconds"] == 30
    assert rim.tickets.redeem(body["ticket"])


async def test_shutdown_is_asked_for_and_answered(rim: Rim) -> None:
    async with rim.client(**keyed()) as client, client.post("/api/admin/shutdown") as reply:
        assert await reply.json() == {"status": "shutting_down"}
    await until(rim.stop.is_set)
    assert isinstance(rim.stop, asyncio.Event)


async def test_files_come_squeezed_to_who_takes_that(rim: Rim) -> None:
    rim.pages._files = read_static_now(Disk())
    plain = (STATIC / "main.js").read_bytes()
    async with rim.client() as client:
        for accepted, encoding in (("gzip, deflate", "gzip"), ("identity", None), ("gzip;q=0", None), ("br", None)):
            async with client.get("/static/main.js", headers={"accept-encoding": accepted}) as reply:
                assert reply.headers.get("content-encoding") == encoding, accepted
                assert reply.headers["vary"] == "accept-encoding"
                assert await reply.read() == plain


def test_all_of_the_dashboard_is_less_than_300_kb_on_the_wire() -> None:
    files = read_static_now(Disk())
    assert sum(len(file.squeezed or file.data) for file in files.values()) < 300_000
