"""Event streams on a real socket."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from swarmd.api.calls import Call
from swarmd.api.guard import Guard
from swarmd.api.route import Route
from tests.fakes.rim import Rim, running


def row(handler: Any) -> Route:
    return Route(method="GET", path="/stream", guard=Guard.OPEN, handler=handler, media="text/event-stream", doc="A stream.")


async def test_events_and_their_end(tmp_path: Path) -> None:
    async def handler(call: Call) -> Any:
        stream = await call.open_stream({"x-extra": "1"})
        await stream.send({"text": "line\nbreak é"})
        await stream.done()
        return stream

    rim = Rim(tmp_path, extra=[row(handler)])
    async with running(rim), rim.client() as client, client.get("/stream") as reply:
        assert reply.headers["x-extra"] == "1"
        assert reply.headers["x-accel-buffering"] == "no"
        assert await reply.text() == 'data: {"text":"line\\nbreak é"}\n\ndata: [DONE]\n\n'


async def test_events_with_names_and_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmd.api.sse.SILENT_S", 0.02)

    async def handler(call: Call) -> Any:
        stream = await call.open_stream(error_name="error")
        async with stream.kept_alive(stream.comment):
            await stream.send(1, "number")
            await asyncio.sleep(0.1)
            raise RuntimeError("secret")

    rim = Rim(tmp_path, extra=[row(handler)])
    async with running(rim), rim.client() as client, client.get("/stream") as reply:
        events = (await reply.text()).split("\n\n")
    assert events[0] == "event: number\ndata: 1" and events[1:3] == [": ", ": "]
    assert events[-2].startswith("event: error\ndata: {") and "internal_error" in events[-2]


async def test_a_failure_is_the_last_event(tmp_path: Path) -> None:
    async def handler(call: Call) -> Any:
        stream = await call.open_stream()
        await stream.send(1)
        raise RuntimeError("secret")

    rim = Rim(tmp_path, extra=[row(handler)])
    async with running(rim), rim.client() as client, client.get("/stream") as reply:
        text = await reply.text()
    assert text.startswith("data: 1\n\ndata: {") and text.endswith("}}\n\n")
    assert "internal_error" in text and "secret" not in text and "DONE" not in text


async def test_a_client_that_reads_nothing_does_not_keep_its_handler_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarmd.api.sse.STALLED_S", 0.1)
    ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def handler(call: Call) -> Any:
        stream = await call.open_stream()
        try:
            while True:
                await stream.send("x" * 100_000)
        except BaseException as error:
            ended.set_result(error)
            raise

    rim = Rim(tmp_path, extra=[row(handler)])
    async with running(rim), rim.client() as client, client.get("/stream"):
        async with asyncio.timeout(10):
            assert isinstance(await ended, ConnectionResetError)


async def test_a_client_that_is_gone_before_the_next_event_is_no_error_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its hanging up cancels the handler, but an event may be written before that."""
    wrote: list[bool] = []

    async def handler(call: Call) -> Any:
        stream = await call.open_stream()
        await stream.send(1)
        assert call.request.transport is not None
        call.request.transport.close()
        try:
            await stream.send(2)
        finally:
            wrote.append(True)
        return stream

    rim = Rim(tmp_path, extra=[row(handler)])
    with caplog.at_level(logging.ERROR):
        async with running(rim), rim.client() as client:
            with pytest.raises(aiohttp.ClientPayloadError):
                async with client.get("/stream") as reply:
                    await reply.read()
    assert wrote
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
