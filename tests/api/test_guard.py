"""Who gets in: the matrix of guards and callers, Host, Origin, proxies, limits."""

from __future__ import annotations

import re

import pytest

from swarmd.api import guard as guard_module
from swarmd.api.guard import Guard, host_name, shown_key
from swarmd.api.route import Route
from tests.fakes.rim import KEY, LAN_CLIENT, Rim, keyed

ROUTES = [
    (Guard.OPEN, "GET", "/health"),
    (Guard.READ, "GET", "/api/admin/stats"),
    (Guard.LOCAL_READ, "GET", "/api/admin/network-code"),
    (Guard.WRITE, "POST", "/api/admin/rescan-shards"),
    (Guard.LOCAL_WRITE, "POST", "/api/admin/shutdown"),
]
# guard: (loopback without key, loopback with key, elsewhere without, elsewhere with)
EXPECTED = {
    Guard.OPEN: (200, 200, 200, 200),
    Guard.READ: (200, 200, 401, 200),
    Guard.LOCAL_READ: (200, 200, 401, 200),
    Guard.WRITE: (401, 200, 401, 200),
    Guard.LOCAL_WRITE: (401, 200, 403, 403),
}


@pytest.mark.parametrize(("guard", "method", "path"), ROUTES)
async def test_matrix(rim: Rim, guard: Guard, method: str, path: str) -> None:
    found = []
    for address in (None, LAN_CLIENT):
        rim.address = address
        for headers in ({}, keyed()):
            async with rim.client() as client, client.request(method, path, headers=headers) as reply:
                found.append(reply.status)
    assert tuple(found) == EXPECTED[guard]


def filled(row: Route) -> str:
    path = row.path.replace("{model}", "tiny-q8").replace("{index}", "0").replace("{id}", "tiny-q8")
    return re.sub(r"\{[^}]*\}", "main.js", path)


async def test_no_row_that_changes_something_answers_without_the_key(rim: Rim) -> None:
    async with rim.client() as client:
        for row in rim.rows:
            if row.method == "GET" or row.guard is Guard.LOCAL_READ:  # one POST only asks, as the seed has it
                continue
            async with client.request(row.method, filled(row), json={}) as reply:
                assert reply.status in (401, 403), row.path
                assert (await reply.json())["error"]["type"] in ("authentication_error", "permission_error")


async def test_nothing_but_open_rows_answers_elsewhere_without_the_key(rim: Rim) -> None:
    rim.address = LAN_CLIENT
    async with rim.client() as client:
        for row in rim.rows:
            async with client.request(row.method, filled(row), json={}) as reply:
                assert (reply.status in (401, 403)) == (row.guard is not Guard.OPEN), row.path


async def test_reads_can_be_opened_but_not_the_invite_code(rim: Rim) -> None:
    rim.set("api.open_reads", "everywhere")
    rim.address = LAN_CLIENT
    async with rim.client() as client:
        async with client.get("/api/admin/stats") as reply:
            assert reply.status == 200
        async with client.get("/api/admin/network-code") as reply:
            assert reply.status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": KEY}, 200),
        ({"authorization": f"bearer {KEY}"}, 200),
        ({"authorization": f"Basic {KEY}"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": f"Bearer {KEY}x"}, 401),
        ({"x-api-key": KEY[:-1]}, 401),
        ({"x-api-key": "clé"}, 401),
    ],
)
async def test_forms_of_the_key(rim: Rim, headers: dict[str, str], status: int) -> None:
    async with rim.client() as client, client.get("/api/admin/api-key", headers=headers) as reply:
        assert reply.status == status
        assert ("www-authenticate" in reply.headers) == (status == 401)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
async def test_loopback_addresses(rim: Rim, address: str) -> None:
    rim.address = address
    async with rim.client() as client, client.get("/api/admin/stats") as reply:
        assert reply.status == 200


@pytest.mark.parametrize("address", ["10.0.0.1", "::ffff:10.0.0.1", "fe80::1", "", "0.0.0.0"])
async def test_other_addresses(rim: Rim, address: str) -> None:
    rim.address = address
    async with rim.client() as client, client.get("/api/admin/stats") as reply:
        assert reply.status == 401


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "X-Real-IP", "Via"])
async def test_a_proxy_on_this_machine_does_not_make_its_visitors_local(rim: Rim, header: str) -> None:
    async with rim.client() as client, client.get("/api/admin/stats", headers={header: "127.0.0.1"}) as reply:
        assert reply.status == 401


async def test_behind_a_silent_proxy_loopback_needs_the_key(rim: Rim) -> None:
    """nginx without `proxy_set_header` sends Host: localhost and nothing else: no header tells its visitors from us."""
    rim.set("api.trust_loopback", False)
    async with rim.client() as client:
        for _, method, path in ROUTES[1:]:
            async with client.request(method, path) as reply:
                assert reply.status == 401, path
            async with client.request(method, path, headers=keyed()) as reply:
                assert reply.status == 200, path
        async with client.get("/api/admin/ws") as reply:
            assert reply.status == 401
        origin = f"http://localhost:{rim.server.bound[1]}"
        async with client.post("/api/admin/session", headers={"origin": origin}, json={"nonce": "x"}) as reply:
            assert reply.status == 403
            assert "api.trust_loopback" in (await reply.json())["error"]["message"]
        async with client.get("/") as reply:
            assert not re.search(r"[0-9a-f]{64}", await reply.text())  # no nonce, which could be changed into the key


async def test_behind_a_silent_proxy_loopback_is_limited(rim: Rim) -> None:
    rim.set("api.trust_loopback", False)
    rim.set("api.rate_limit_admin_rpm", 1)
    async with rim.client() as client:
        for status in (401, 429):
            async with client.get("/api/admin/stats") as reply:
                assert reply.status == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8800", 200), ("127.0.0.1", 200), ("[::1]:9", 200), ("LOCALHOST", 200), ("evil.example:8800", 403),
        ("127.0.0.1.evil.example", 403), ("localhost.evil.example", 403), ("[", 403), ("192.168.1.5:8800", 403),
    ],
)  # fmt: skip
async def test_a_rebound_name_reads_nothing_without_the_key(rim: Rim, host: str, status: int) -> None:
    async with rim.client() as client:
        async with client.get("/api/admin/stats", headers={"host": host}) as reply:
            assert reply.status == status
        async with client.get("/api/admin/stats", headers=keyed(host=host)) as reply:
            assert reply.status == 200


async def test_the_configured_address_is_a_known_host(rim: Rim) -> None:
    rim.set("node.listen_address", "192.168.1.5")
    async with rim.client() as client, client.get("/api/admin/stats", headers={"host": "192.168.1.5:8800"}) as reply:
        assert reply.status == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "file://", "http://127.0.0.1"])
async def test_foreign_origins_are_refused_even_with_the_key(rim: Rim, origin: str) -> None:
    async with rim.client() as client:
        async with client.get("/api/admin/stats", headers=keyed(origin=origin)) as reply:
            assert reply.status == 403
            assert "access-control-allow-origin" not in reply.headers
        async with client.options("/api/admin/stats", headers={"origin": origin}) as reply:
            assert reply.status == 403


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://a]"])
async def test_an_origin_that_is_none_is_refused(rim: Rim, origin: str) -> None:
    async with rim.client() as client, client.get("/api/admin/stats", headers={"origin": origin}) as reply:
        assert reply.status == 403


@pytest.mark.parametrize("path", ["/api/admin/provider-health", "/api/admin/claude-subscription/status", "/api/admin/stats"])
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_picture_on_another_page_asks_nothing_of_this_node(rim: Rim, path: str, site: str) -> None:
    """A GET without CORS carries no Origin. The page could not read the answer, but asking costs tokens and processes."""
    headers = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    async with rim.client() as client:
        async with client.get(path, headers=headers) as reply:
            assert reply.status == 403
        for own in ("same-origin", "none"):
            async with client.get("/api/admin/stats", headers={**headers, "sec-fetch-site": own}) as reply:
                assert reply.status == 200


async def test_a_link_on_another_page_opens_what_people_read(rim: Rim) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    async with rim.client() as client:
        for path, status in (("/", 200), ("/metrics", 200), ("/api/admin/provider-health", 403)):
            async with client.get(path, headers=headers) as reply:
                assert reply.status == status


async def test_our_own_origins(rim: Rim) -> None:
    port = rim.server.bound[1]
    async with rim.client() as client:
        for name in ("localhost", "127.0.0.1", "[::1]"):
            origin = f"http://{name}:{port}"
            async with client.get("/api/admin/stats", headers={"origin": origin}) as reply:
                assert reply.status == 200
                assert reply.headers["access-control-allow-origin"] == origin
            async with client.options("/v1/chat/completions", headers={"origin": origin}) as reply:
                assert reply.status == 204
                assert reply.headers["access-control-allow-methods"] == "GET, POST, PUT, DELETE"


async def test_a_page_served_under_another_name_of_ours_is_not_foreign_but_needs_the_key(rim: Rim) -> None:
    rim.address = LAN_CLIENT
    headers = {"host": "box.local:8800", "origin": "http://box.local:8800"}
    async with rim.client() as client:
        async with client.get("/api/admin/stats", headers=headers) as reply:
            assert reply.status == 401
        async with client.get("/api/admin/stats", headers=keyed(**headers)) as reply:
            assert reply.status == 200


async def test_rate_limits_by_class_and_not_on_loopback(rim: Rim) -> None:
    rim.set("api.rate_limit_rpm", 2)
    rim.set("api.rate_limit_admin_rpm", 3)
    async with rim.client(**keyed()) as client:

        async def statuses(path: str, count: int) -> list[int]:
            found = []
            for _ in range(count):
                async with client.get(path) as reply:
                    found.append(reply.status)
            return found

        assert await statuses("/v1/models", 4) == [200] * 4
        rim.address = LAN_CLIENT
        assert await statuses("/v1/models", 3) == [200, 200, 429]
        assert await statuses("/api/admin/stats", 4) == [200, 200, 200, 429]
        assert await statuses("/health", 3) == [200] * 3
        async with client.get("/v1/models") as reply:
            assert 1 <= int(reply.headers["retry-after"]) <= 60
            assert (await reply.json())["error"]["code"] == "rate_limit_exceeded"
        rim.address = "192.168.7.10"
        assert await statuses("/v1/models", 1) == [200]


async def test_open_rows_are_limited_by_address_and_not_on_loopback(rim: Rim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "OPEN_PER_MINUTE", 3)
    rim.set("api.rate_limit_admin_rpm", 0)  # has nothing to do with it
    async with rim.client() as client:
        for address, expected in ((None, [200] * 5), (LAN_CLIENT, [200] * 3 + [429] * 2), ("192.168.7.10", [200])):
            rim.address = address
            found = []
            for _ in expected:
                async with client.get("/health") as reply:
                    found.append(reply.status)
                    if reply.status == 429:
                        assert 1 <= int(reply.headers["retry-after"]) <= 60
                        error = (await reply.json())["error"]
                        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
            assert found == expected
        rim.address = LAN_CLIENT
        async with client.head("/") as reply:
            assert reply.status == 429


async def test_wrong_keys_are_limited_too(rim: Rim) -> None:
    rim.set("api.rate_limit_rpm", 2)
    rim.address = LAN_CLIENT
    async with rim.client() as client:
        found = []
        for _ in range(3):
            async with client.get("/v1/models", headers={"x-api-key": "guess"}) as reply:
                found.append(reply.status)
    assert found == [401, 401, 429]


def test_host_names() -> None:
    assert host_name("LocalHost:8800") == "localhost"
    assert host_name("[::1]:8800") == "::1"
    assert host_name("") == host_name("[") == ""
    assert host_name("user@localhost") == "localhost"  # no browser sends that; aiohttp's own parser is not asked


def test_bearer_wins_over_the_other_header() -> None:
    assert shown_key({"authorization": "Bearer one", "x-api-key": "two"}) == "one"
    assert shown_key({"authorization": "Basic one", "x-api-key": "two"}) == "two"
    assert shown_key({}) == ""
