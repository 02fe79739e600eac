"""What is no HTTP, and what is too long of it, over a real socket."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from tests.fakes.rim import KEY, Rim

HOST = b"Host: localhost\r\n"


async def said(rim: Rim, sent: bytes) -> tuple[bytes, bytes]:
    """Status line and headers, and the body, until the node closes."""
    reader, writer = await asyncio.open_connection(*rim.server.bound)
    writer.write(sent)
    async with asyncio.timeout(5):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return head, body


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"GET /api/admin/stats?x=" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", "8190 bytes"),
        (b"GET /health HTTP/1.1\r\n" + HOST + b"X-Api-Key: " + KEY.encode() * 150 + b"\r\n\r\n", "8190 bytes"),
        (b"GARBAGE\r\n\r\n", "no HTTP/1.1 request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "no HTTP/1.1 request"),
        (b"POST /v1/completions HTTP/1.1\r\n" + HOST + b"Content-Length: abc\r\n\r\n", "no HTTP/1.1 request"),
    ],
    ids=["a long address", "a long header", "garbage", "TLS", "a length that is none"],
)
async def test_what_is_no_http_gets_the_envelope_and_no_traceback(
    rim: Rim, sent: bytes, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    head, body = await said(rim, sent)
    error = json.loads(body)["error"]
    assert head.split(b"\r\n")[0].endswith(b"400 Bad Request")
    assert b"application/json" in head and b"aiohttp" not in head
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "bad_request")
    assert words in error["message"]
    assert "Traceback" not in caplog.text and KEY not in caplog.text
    noisy = [one for one in caplog.records if one.levelno >= logging.WARNING and one.name != "asyncio"]
    assert not noisy, "strangers do not fill the log"


async def test_the_next_connection_is_served(rim: Rim) -> None:
    await said(rim, b"GARBAGE\r\n\r\n")
    async with rim.client() as client, client.get("/health") as reply:
        assert reply.status == 200
