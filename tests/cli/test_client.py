"""The typed client: replies, refusals, and servers that are not ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from swarmd.cli.client import NodeClient, Turn
from swarmd.cli.failure import Failure
from swarmd.cli.place import Place
from swarmd.domain.refusals import Busy
from tests.fakes.rim import KEY, REPO, TINY, FakeDesk, Rim, failed, no_coverage, running, script

TURNS = [Turn(role="user", content="Hi")]


def place(url: str, key: str | None = KEY) -> Place:
    return Place(url=url, key=key, key_path=Path("/nowhere/api_key"))


@asynccontextmanager
async def answering(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A server that has nothing to do with us."""
    server = web.Server(handler)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def test_everything_that_is_asked_is_understood(tmp_path: Path) -> None:
    async with running(Rim(tmp_path)) as rim, NodeClient(place(rim.url)) as node:
        assert (await node.readiness()).ready
        assert (await node.stats()).node_id == "a" * 64
        assert [row.id for row in await node.models()] == ["tiny-q8", "spread-q8"]
        assert (await node.peers())[0].connected
        assert (await node.invite()).code == "swarm://abc"
        assert (await node.join("swarm://abc")).status == "ok"
        assert (await node.add_file("/models/x.gguf")).model_id == TINY
        assert (await node.fetch_model(TINY)).status == "acquiring"
        assert (await node.fetch_shard(TINY, 0)).status == "already_local"
        assert (await node.acquisition(TINY)).state == "downloading"
        assert (await node.delete_shard(TINY, 0)).shard_index == 0
        assert [row.repo_id for row in await node.search_hub("a b/c&d")] == [REPO]
        assert rim.hub.asked == [("search", "a b/c&d")]
        assert (await node.probe_hub(REPO, "x/tiny.gguf")).filename == "x/tiny.gguf"
        assert (await node.download_shards(REPO, "tiny.gguf", shards=(1, 0))).shards == [0, 1]
        assert (await node.downloads()).total == 2
        assert (await node.change_download("tiny", "pause")).status == "paused"
        assert (await node.unload(TINY)).estimated_freed_mb > 0
        assert (await node.remove_model(TINY)).files_removed == 5
        assert (await node.settings())["shard_size_mb"] == 512
        await node.change_setting("shard_size_mb", 64)
        assert (await node.settings())["shard_size_mb"] == 64


async def test_no_acquisition_and_a_failed_one(tmp_path: Path) -> None:
    from tests.fakes.rim import acquisition

    async with running(Rim(tmp_path)) as rim, NodeClient(place(rim.url)) as node:
        assert (await node.acquisition(TINY)).message != ""
        rim.desk.running[TINY] = acquisition(TINY, state="failed")
        assert (await node.acquisition(TINY)).failed == "no peer"


async def test_a_reply_comes_in_pieces_and_ends_with_its_costs(tmp_path: Path) -> None:
    async with running(Rim(tmp_path)) as rim, NodeClient(place(rim.url)) as node:
        pieces = [piece async for piece in node.chat("tiny-q8", TURNS, max_tokens=7, temperature=0.0)]
    assert "".join(piece.text for piece in pieces) == "Hello!"
    (swarm,) = [piece.swarm for piece in pieces if piece.swarm is not None]
    (usage,) = [piece.usage for piece in pieces if piece.usage is not None]
    assert usage.completion_tokens > 0 and "stop" in [piece.finish_reason for piece in pieces]
    assert swarm is not None and [stage.layers for stage in swarm.stages] == [(0, 2), (2, 4)]
    request = rim.pipeline.requests[0]
    assert (request.max_tokens, request.sampling.temperature) == (7, 0.0)


async def test_a_reply_that_is_left_ends_on_the_node(tmp_path: Path) -> None:
    import asyncio
    from contextlib import aclosing

    async with running(Rim(tmp_path)) as rim, NodeClient(place(rim.url)) as node:
        rim.pipeline.script = [*script("one")[:1], asyncio.Event()]
        async with aclosing(node.chat("tiny-q8", TURNS)) as pieces:
            async for piece in pieces:
                if piece.text:
                    break
        async with asyncio.timeout(5):
            await rim.pipeline.left.wait()
    assert rim.pipeline.active == 0


async def test_a_refusal_before_and_in_a_reply(tmp_path: Path) -> None:
    async with running(Rim(tmp_path)) as rim, NodeClient(place(rim.url)) as node:
        rim.pipeline.says = no_coverage()
        with pytest.raises(Failure, match="no connected node holds shard 2") as refused:
            [piece async for piece in node.chat("spread-q8", TURNS)]
        assert refused.value.status == 503
        rim.pipeline.says = None
        rim.pipeline.script = [*script("one")[:1], failed()]
        with pytest.raises(Failure, match="the stage went away"):
            [piece async for piece in node.chat("tiny-q8", TURNS)]


async def test_refusals_are_their_sentences(tmp_path: Path) -> None:
    async with running(Rim(tmp_path)) as rim:
        async with NodeClient(place(rim.url)) as node:
            rim.desk.says = Busy(what="it is in use")
            with pytest.raises(Failure, match="it is in use") as refused:
                await node.delete_shard(TINY, 0)
            assert refused.value.status == 503
            with pytest.raises(Failure, match=r"knows a model no-such-model"):
                await node.fetch_shard("no-such-model", 0)
        async with NodeClient(place(rim.url, "wrong")) as node:
            with pytest.raises(Failure, match="not the key of this node"):
                await node.remove_model(TINY)
        async with NodeClient(place(rim.url, None)) as node:
            with pytest.raises(Failure, match="no API key at /nowhere/api_key"):
                await node.remove_model(TINY)
            assert (await node.stats()).peers == 1, "reads are free on loopback"
    assert isinstance(rim.desk, FakeDesk)


async def test_nobody_there(nowhere: str) -> None:
    async with NodeClient(place(nowhere)) as node:
        with pytest.raises(Failure, match="start one with `swarmd run`"):
            await node.stats()
        with pytest.raises(Failure, match="start one with `swarmd run`"):
            [piece async for piece in node.chat("auto", TURNS)]


@pytest.mark.parametrize(("status", "text"), [(200, "<html>"), (200, '{"a": 1}'), (502, "bad gateway"), (302, "")])
async def test_somebody_else_is_there(status: int, text: str) -> None:
    async def handler(_request: web.BaseRequest) -> web.Response:
        return web.Response(status=status, text=text)

    async with answering(handler) as url, NodeClient(place(url)) as node:
        with pytest.raises(Failure, match="another program"):
            await node.stats()


async def test_a_stream_that_breaks_off_is_said() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n')
        return response

    async with answering(handler) as url, NodeClient(place(url)) as node:
        with pytest.raises(Failure, match="broke off"):
            [piece async for piece in node.chat("auto", TURNS)]


async def test_a_node_that_hangs_up() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with answering(handler) as url, NodeClient(place(url)) as node:
        with pytest.raises(Failure, match="hung up"):
            await node.stats()
