"""One path for every request: envelope, headers, ids, limits, hang-ups, and the orderly end."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from swarmd.api import server as server_module
from swarmd.api.calls import Call
from swarmd.api.guard import Guard
from swarmd.api.route import Route
from swarmd.kit.service import Fatal, Supervisor
from tests.fakes.rim import KEY, SPREAD, TINY, FakePipeline, Rim, keyed, running, script, until


def envelope(body: Any, code: str) -> None:
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == code


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "unknown_path"),
        ("GET", "/api/admin/nothing", 404, "unknown_path"),
        ("GET", "/v1/chat/completions", 405, "wrong_method"),
        ("POST", "/api/admin/stats", 405, "wrong_method"),
        ("GET", "/api/admin/models/UPPER/status", 400, "invalid_value"),
        ("GET", "/api/admin/models/..%2f..%2fetc/status", 400, "invalid_value"),
        ("GET", f"/api/admin/models/{'a' * 257}/status", 400, "invalid_value"),
        ("DELETE", f"/api/admin/models/{TINY}/shards/4294967295", 400, "invalid_value"),
        ("DELETE", f"/api/admin/models/{TINY}/shards/-1", 400, "invalid_value"),
        ("DELETE", f"/api/admin/models/{TINY}/shards/%D9%A1", 400, "invalid_value"),
        ("DELETE", "/api/admin/models/unknown", 404, "not_found"),
    ],
)
async def test_errors_have_one_shape(rim: Rim, method: str, path: str, status: int, code: str) -> None:
    import yarl

    async with rim.client(**keyed()) as client, client.request(method, yarl.URL(rim.url + path, encoded=True)) as reply:
        assert reply.status == status
        assert reply.content_type == "application/json"
        envelope(await reply.json(), code)
        if status == 405:
            assert reply.headers["allow"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None), (b"{", None), (b"\xff", None), (b"[" * 5000, None), (b"[]", ""), (b"{}", "code"),
        (b'{"code": 5}', "code"), (b'{"code": "x", "more": 1}', "more"), (b'{"code": null}', "code"), (b'"text"', ""),
    ],
)  # fmt: skip
async def test_bad_bodies(rim: Rim, body: bytes, param: str | None) -> None:
    async with rim.client(**keyed()) as client, client.post("/api/admin/join-network", data=body) as reply:
        assert reply.status == 400
        found = await reply.json()
        envelope(found, "invalid_value")
        assert (found["error"]["param"] or None) == (param or None)


@pytest.mark.parametrize(
    ("media", "status"),
    [
        ("text/plain", 415), ("application/x-www-form-urlencoded", 415), ("multipart/form-data; boundary=x", 415),
        ("application/json; charset=utf-8", 200), ("application/vnd.x+json", 200), ("application/octet-stream", 200),
        (None, 200),
    ],
)  # fmt: skip
async def test_a_body_that_says_it_is_no_json_is_refused(rim: Rim, media: str | None, status: int) -> None:
    skip = () if media else ("content-type",)
    headers = {"content-type": media} if media else {}
    async with (
        aiohttp.ClientSession(rim.url, headers={**keyed(), **headers}, skip_auto_headers=skip) as client,
        client.put("/api/admin/config", data=b"{}") as reply,
    ):
        assert reply.status == status
        if status == 415:
            envelope(await reply.json(), "no_json")


async def test_a_whole_number_is_whole_however_it_is_written(rim: Rim) -> None:
    """JSON knows numbers, not integers: clients that compute with floats write 2.0."""
    path = f"/api/admin/models/{TINY}/auto-manage"
    async with rim.client(**keyed()) as client:
        async with client.put(path, data=b'{"max_shards": 2.0}') as reply:
            assert reply.status == 200, await reply.text()
            assert (await reply.json())["max_shards"] == 2
        for wrong in (b"2.5", b'"2"', b"1e400", b"-1.0", b"1e30"):
            async with client.put(path, data=b'{"max_shards": %s}' % wrong) as reply:
                assert reply.status == 400, wrong


async def test_braces_in_a_value_of_a_path_are_a_bad_value_not_another_path(rim: Rim) -> None:
    async with rim.client() as client, client.get("/api/admin/models/a{b}/status") as reply:
        assert reply.status == 400
        assert (await reply.json())["error"]["param"] == "model"


async def test_headers_on_every_kind_of_reply(rim: Rim) -> None:
    ids = set()
    async with rim.client(**keyed()) as client:
        for method, path in (("GET", "/"), ("GET", "/health"), ("GET", "/nothing"), ("GET", "/v1/models"), ("OPTIONS", "/")):
            async with client.request(method, path) as reply:
                assert reply.headers["x-content-type-options"] == "nosniff"
                assert reply.headers["x-frame-options"] == "DENY"
                assert reply.headers["referrer-policy"] == "no-referrer"
                assert "default-src 'self'" in reply.headers["content-security-policy"]
                assert "unsafe" not in reply.headers["content-security-policy"]
                assert "server" not in reply.headers
                ids.add(reply.headers["x-request-id"])
        async with client.post(
            "/v1/chat/completions", json={"model": TINY, "messages": [{"role": "user", "content": "x"}], "stream": True}
        ) as reply:
            assert reply.headers["x-content-type-options"] == "nosniff"
            ids.add(reply.headers["x-request-id"])
    assert len(ids) == 6


async def test_head_of_open_pages(rim: Rim) -> None:
    async with rim.client() as client, client.head("/health") as reply:
        assert reply.status == 200


def extra_row(handler: Any, *, method: str = "GET", request: type | None = None) -> Route:
    return Route(
        method=method, path="/extra", guard=Guard.OPEN, handler=handler, request=request, reply=dict[str, str],
        doc="A plugin's.", owner="plugin",
    )  # fmt: skip


async def test_a_bug_is_500_with_an_id_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(call: Call) -> Any:
        raise RuntimeError("secret detail")

    async with running(Rim(tmp_path, extra=[extra_row(broken)])) as rim, rim.client() as client:
        async with client.get("/extra") as reply:
            text = await reply.text()
            assert reply.status == 500
            assert "secret" not in text and "Traceback" not in text
            assert reply.headers["x-request-id"] in text
            assert reply.headers["x-request-id"] in caplog.text
        async with client.get("/health") as reply:
            assert reply.status == 200
    assert "secret detail" in caplog.text, "the log has the traceback"


async def test_a_body_over_the_limit_is_413(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rim = Rim(tmp_path)
    rim.server._body_limit_bytes = 1000
    async with (
        running(rim),
        rim.client(**keyed()) as client,
        client.post("/api/admin/join-network", data=b"x" * 2000) as reply,
    ):
        assert reply.status == 413
        envelope(await reply.json(), "body_too_large")


async def test_the_log_has_neither_query_nor_prompt_nor_key(rim: Rim, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "swarmd")
    async with rim.client(**keyed()) as client:
        await client.get("/api/admin/stats?ticket=QUERYSECRET")
        body = {"model": TINY, "messages": [{"role": "user", "content": "PROMPTSECRET"}]}
        await client.post("/v1/chat/completions", json=body)
    assert "/api/admin/stats" in caplog.text and "/v1/chat/completions" in caplog.text
    for secret in ("QUERYSECRET", "PROMPTSECRET", KEY):
        assert secret not in caplog.text


async def test_a_write_runs_to_its_end_although_the_client_hung_up(rim: Rim) -> None:
    rim.desk.finish.clear()
    async with rim.client(**keyed()) as client:
        request = asyncio.ensure_future(client.delete(f"/api/admin/models/{SPREAD}"))
        await until(lambda: rim.server._supervisor is not None and rim.server._supervisor.spawned_count == 1)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
    await until(lambda: not rim.server._flying)
    assert rim.desk.deleted == []
    rim.desk.finish.set()
    await until(lambda: rim.desk.deleted == [SPREAD])


async def test_a_client_that_hangs_up_cancels_its_generation(rim: Rim) -> None:
    """A raw socket that disappears in the middle of the prefill, before the first token."""
    rim.pipeline.script = [asyncio.Event(), *script("never")]
    body = msgspec.json.encode({"model": TINY, "messages": [{"role": "user", "content": "x"}], "stream": True})
    host, port = rim.server.bound
    _, writer = await asyncio.open_connection(host, port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nx-api-key: {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await until(lambda: rim.pipeline.active == 1)
    began = asyncio.get_running_loop().time()
    writer.close()
    await writer.wait_closed()
    await asyncio.wait_for(rim.pipeline.left.wait(), 2)
    assert asyncio.get_running_loop().time() - began < 0.5
    assert rim.pipeline.active == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_hang_up_with_a_real_client(rim: Rim, stream: bool) -> None:
    rim.pipeline.script = [*script("a")[:1], asyncio.Event()]
    body = {"model": TINY, "messages": [{"role": "user", "content": "x"}], "stream": stream}
    async with rim.client(**keyed()) as client:
        request = asyncio.ensure_future(client.post("/v1/chat/completions", json=body))
        await until(lambda: rim.pipeline.active == 1)
        if stream:
            reply = await request
            await reply.content.readline()
            reply.close()
        else:
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        await asyncio.wait_for(rim.pipeline.left.wait(), 2)


async def test_the_end_waits_for_a_reply_in_flight(tmp_path: Path) -> None:
    rim = Rim(tmp_path)
    go = asyncio.Event()
    chunks = script("one", "two")
    rim.pipeline.script = [chunks[0], go, *chunks[1:]]
    body = {"model": TINY, "messages": [{"role": "user", "content": "x"}], "stream": True}
    async with aiohttp.ClientSession() as session:
        async with running(rim):
            url = rim.url
            reply = await session.post(f"{url}/v1/chat/completions", json=body, headers=keyed())
            await reply.content.readline()
            asyncio.get_running_loop().call_later(0.2, go.set)
        text = (await reply.read()).decode()
        assert "two" in text and "[DONE]" in text
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(f"{url}/health")


async def test_the_end_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "DRAIN_S", 0.1)
    rim = Rim(tmp_path)
    rim.pipeline.script = [asyncio.Event()]
    body = {"model": TINY, "messages": [{"role": "user", "content": "x"}], "stream": True}
    async with aiohttp.ClientSession() as session:
        async with running(rim):
            reply = await session.post(f"{rim.url}/v1/chat/completions", json=body, headers=keyed())
            assert rim.pipeline.active == 1
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 2
        assert rim.pipeline.active == 0
        reply.close()


async def test_a_taken_port_ends_the_node_with_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        rim = Rim(tmp_path)
        rim.server._port = taken.getsockname()[1]
        with pytest.raises(Fatal, match=f"cannot listen on 127.0.0.1 port {rim.server._port}"):
            async with running(rim):
                pass


async def test_it_can_run_twice(tmp_path: Path) -> None:
    """The supervisor restarts a service that failed."""
    rim = Rim(tmp_path)
    for _ in range(2):
        rim.supervisor = Supervisor("test", world=rim.world)
        async with running(rim), rim.client() as client, client.get("/health") as reply:
            assert reply.status == 200


def test_the_fake_is_what_the_rim_expects() -> None:
    from swarmd.api.ports import Counters, Generations

    pipeline = FakePipeline()
    counters: Counters = pipeline
    generations: Generations = pipeline
    assert counters and generations
