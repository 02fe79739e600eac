"""MCP over a real socket: the official client unchanged, and raw messages for what it never sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from swarmd.api import server as server_module
from swarmd.domain.generation import Finish, TokenChunk
from swarmd.domain.refusals import Busy, StageFailed
from tests.fakes.provider import FakeProvider, Office, opened, serving
from tests.fakes.rim import KEY, OWN, PEER, SPREAD, TINY, USAGE, Rim, failed, keyed, no_coverage, running, script, until

BOTH = "application/json, text/event-stream"


@asynccontextmanager
async def connected(rim: Rim, *, key: str = KEY, **more: Any) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}) as http,
        Client(streamable_http_client(f"{rim.url}/mcp", http_client=http), **more) as client,
    ):
        yield client


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_agrees_on_a_version_and_lists_what_there_is(rim: Rim, mode: Any) -> None:
    async with connected(rim, mode=mode) as client:
        assert client.protocol_version == "2025-11-25"
        assert client.server_info is not None and client.server_info.name == "swarmd" and client.instructions
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == ["chat", "models", "compare", "node_info"]
        assert all(tool.description and tool.input_schema["type"] == "object" for tool in tools)
        assert tools[0].input_schema["required"] == ["prompt"]
        (resource,) = (await client.list_resources()).resources
        (read,) = (await client.read_resource(resource.uri)).contents
        assert json.loads(read.text)["node"] == OWN[:16]  # type: ignore[union-attr]
        assert (await client.list_resource_templates()).resource_templates == []
        assert len(rim.sessions) == 1
    assert len(rim.sessions) == 0, "the client has ended its session"


@pytest.mark.filterwarnings("ignore:ping is removed")  # of a version that this node does not speak
async def test_ping(rim: Rim) -> None:
    async with connected(rim, mode="legacy") as client:
        await client.send_ping()


async def test_a_chat(rim: Rim) -> None:
    async with connected(rim) as client:
        found = await client.call_tool(
            "chat",
            {"prompt": "hello", "model": TINY, "system": "be kind", "history": [{"role": "user", "content": "hi"},
             {"role": "assistant", "content": "yes?"}], "max_tokens": 9, "temperature": 0.0, "seed": 5, "stop": ["END"]},
        )  # fmt: skip
    assert not found.is_error and found.content[0].text == "Hello!"  # type: ignore[union-attr]
    assert found.structured_content == {
        "model": TINY, "text": "Hello!", "finish_reason": "stop", "prompt_tokens": 7, "completion_tokens": 3,
        "tokens_per_second": 50.0, "nodes": [OWN[:16], PEER[:16]], "provider": None,
    }  # fmt: skip
    (request,) = rim.pipeline.requests
    assert [one.role for one in request.messages] == ["system", "user", "assistant", "user"]
    assert (request.max_tokens, request.sampling.temperature, request.sampling.seed, request.stop) == (9, 0.0, 5, ("END",))


async def test_five_point_zero_was_no_whole_number(rim: Rim) -> None:
    """Clients that compute with floats write integers so, and every other body takes them."""
    async with connected(rim) as client:
        await client.call_tool("chat", {"prompt": "x", "max_tokens": 5.0, "seed": 3.0})
        with pytest.raises(MCPError, match="max_tokens"):
            await client.call_tool("chat", {"prompt": "x", "max_tokens": 5.5})
    (request,) = rim.pipeline.requests
    assert (request.max_tokens, request.sampling.seed) == (5, 3)


async def test_a_provider_s_models_are_listed_and_asked_like_those_of_the_swarm(tmp_path: Path) -> None:
    async with serving(FakeProvider()) as fake, opened(Office(tmp_path)) as office:
        office.point(fake, "openai", "anthropic")
        await office.give_key("openai", "anthropic")
        rim = Rim(tmp_path, providers=office.desk)
        async with running(rim), connected(rim) as client, rim.client(**keyed()) as session:
            by_http = await (await session.get("/v1/models")).json()
            status = await (await session.get("/v1/status")).json()
            listed = (await client.call_tool("models")).structured_content["models"]  # type: ignore[index]
            info = (await client.call_tool("node_info")).structured_content
            assert listed == by_http["data"] and "claude-haiku-4-5" in [one["id"] for one in listed]
            assert [one["id"] for one in status["models"]] == [one["id"] for one in listed]
            assert info["models"] == status["models"]  # type: ignore[index]
            assert {"id": "small", "owned_by": "openai", "context_length": 4096} in status["models"]
            for model, provider in (("small", "openai"), ("claude-haiku-4-5", "anthropic")):
                said = (await client.call_tool("chat", {"prompt": "hi", "model": model})).structured_content
                assert (said["text"], said["provider"], said["nodes"]) == ("Hello", provider, [])  # type: ignore[index]
            compared = await client.call_tool("compare", {"prompt": "hi", "models": [TINY, "small", "openai:limited"]})
            results = compared.structured_content["results"]  # type: ignore[index]
            assert [one["status"] for one in results] == ["ok", "ok", "failed"]
            assert "openai answered 429" in results[2]["error"]["message"]
            for broken in ("openai:denied", "openai:cut", "anthropic:failing", "anthropic:overloaded"):
                with pytest.raises(MCPError, match=f"provider {broken.split(':')[0]} ") as caught:
                    await client.call_tool("chat", {"prompt": "hi", "model": broken})
                assert caught.value.code == -32000, broken
            rim.set("providers.list_models", False)
            assert len((await client.call_tool("models")).structured_content["models"]) == 2  # type: ignore[index]


async def test_models_and_the_node(rim: Rim) -> None:
    async with connected(rim) as client:
        models = (await client.call_tool("models")).structured_content
        node = (await client.call_tool("node_info")).structured_content
    assert [one["id"] for one in models["models"]] == [TINY, SPREAD] and models["models"][1]["swarm"]["source"] == "hybrid"  # type: ignore
    assert node["peers"] == 1 and node["node"] == OWN[:16]  # type: ignore[index]


async def test_a_comparison_never_fails_as_a_whole(rim: Rim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmd.api.mcp_tools.ITEM_S", 0.2)
    plain = rim.pipeline.open

    async def per_model(request: Any) -> Any:
        rim.pipeline.script = [asyncio.Event()] if request.model == SPREAD else script("I am tiny")
        return await plain(request)

    monkeypatch.setattr(rim.pipeline, "open", per_model)
    async with connected(rim) as client:
        found = await client.call_tool("compare", {"prompt": "who?", "models": [TINY, "nobody", SPREAD]})
    results = found.structured_content["results"]  # type: ignore[index]
    assert [(one["model"], one["status"]) for one in results] == [(TINY, "ok"), ("nobody", "failed"), (SPREAD, "timeout")]
    assert results[0]["reply"]["text"] == "I am tiny" and results[0]["error"] is None
    assert [one["error"]["code"] for one in results[1:]] == [-32602, -32000] and results[1]["reply"] is None
    assert json.loads(found.content[0].text) == found.structured_content  # type: ignore[union-attr]
    assert rim.pipeline.active == 0


FAULTS: list[tuple[str, dict[str, Any], Any, int]] = [
    ("chat", {"prompt": "x", "model": "nobody"}, None, -32602),
    ("chat", {}, None, -32602),
    ("chat", {"prompt": "x", "colour": "red"}, None, -32602),
    ("chat", {"prompt": "x", "temperature": 9}, None, -32602),
    ("compare", {"prompt": "x", "models": ["a"] * 2}, None, -32602),
    ("compare", {"prompt": "x", "models": [f"m{number}" for number in range(11)]}, None, -32602),
    ("research", {}, None, -32602),
    ("chat", {"prompt": "x"}, no_coverage(), -32000),
    ("chat", {"prompt": "x"}, Busy(what="ten replies are running"), -32000),
]


async def test_whose_fault_it_is(rim: Rim) -> None:
    async with connected(rim) as client:
        for tool, arguments, says, code in FAULTS:
            rim.pipeline.says = says
            with pytest.raises(MCPError) as caught:
                await client.session.call_tool(tool, arguments)
            assert caught.value.code == code and caught.value.error.message, (tool, arguments)


async def test_failures_in_the_middle_and_bugs(rim: Rim, caplog: pytest.LogCaptureFixture) -> None:
    async with connected(rim) as client:
        rim.pipeline.script = [script("Hel")[0], failed(StageFailed(node=PEER, reason="it went away"))]
        with pytest.raises(MCPError, match="it went away") as lost:
            await client.call_tool("chat", {"prompt": "x"})
        rim.pipeline.script = [RuntimeError("secret detail")]
        with pytest.raises(MCPError) as bug:
            await client.call_tool("chat", {"prompt": "x"})
        compared = await client.call_tool("compare", {"prompt": "x", "models": [TINY]})
    assert (lost.value.code, bug.value.code) == (-32000, -32603)
    assert compared.structured_content["results"][0]["error"]["code"] == -32603  # type: ignore[index]
    assert "secret" not in str(bug.value) and "secret" not in str(compared) and "secret detail" in caplog.text


async def test_a_call_has_two_minutes(rim: Rim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmd.api.mcp_tools.CALL_S", 0.05)
    rim.pipeline.script = [asyncio.Event()]
    async with connected(rim) as client:
        with pytest.raises(MCPError, match="took longer") as caught:
            await client.call_tool("chat", {"prompt": "x"})
    assert caught.value.code == -32000 and rim.pipeline.active == 0


async def test_progress_grows_and_is_only_told_to_who_asks(rim: Rim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmd.api.mcp.PROGRESS_S", 0)
    heard: list[tuple[float, float | None, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        heard.append((done, total, message))

    async with connected(rim) as client:
        found = await client.call_tool("chat", {"prompt": "x", "max_tokens": 9}, progress_callback=progress)
        assert found.content[0].text == "Hello!"  # type: ignore[union-attr]
        assert [done for done, _, _ in heard] == [0, 1, 2, 3, 4] and {total for _, total, _ in heard} == {9}
        heard.clear()
        await client.call_tool("compare", {"prompt": "x", "models": [TINY, SPREAD]}, progress_callback=progress)
        assert [(done, total) for done, total, _ in heard] == [(1, 2), (2, 2)]


@pytest.mark.parametrize("with_progress", [False, True])
async def test_a_call_that_the_client_cancels_ends_its_generation(rim: Rim, with_progress: bool) -> None:
    rim.pipeline.script = [script("a")[0], asyncio.Event()]

    async def progress(*_: object) -> None:
        pass

    async with connected(rim) as client:
        call = asyncio.ensure_future(
            client.call_tool("chat", {"prompt": "x"}, progress_callback=progress if with_progress else None)
        )
        await until(lambda: rim.pipeline.active == 1)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        async with asyncio.timeout(2):
            await rim.pipeline.left.wait()
        rim.pipeline.script = script("next")
        assert (await client.call_tool("chat", {"prompt": "x"})).content[0].text == "next"  # type: ignore[union-attr]


async def test_a_wrong_key_is_said_in_words(rim: Rim) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with connected(rim, key="wrong"):
            pass
    assert caught.group_contains(MCPError, match="not the key of this node")
    assert len(rim.sessions) == 0


# -- raw messages


def message(method: str, id: Any = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


async def begun(session: aiohttp.ClientSession, version: str = "2025-06-18") -> str:
    async with session.post("/mcp", json=message("initialize", protocolVersion=version, capabilities={})) as reply:
        assert reply.status == 200, await reply.text()
        return reply.headers["mcp-session-id"]


async def test_versions(rim: Rim) -> None:
    newest = "2025-11-25"
    async with rim.client(**keyed()) as session:
        for wanted in ("2025-06-18", newest, "2024-11-05", "2999-01-01"):
            agreed = wanted if wanted == "2025-06-18" else newest
            body = message("initialize", protocolVersion=wanted, capabilities={})
            async with session.post("/mcp", json=body) as reply:
                assert (await reply.json())["result"]["protocolVersion"] == agreed


async def test_sessions_are_asked_for_and_end(rim: Rim) -> None:
    async with rim.client(**keyed()) as session:
        async with session.post("/mcp", json=message("tools/list")) as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (400, -32602)
        async with session.post("/mcp", json=message("tools/list", 7), headers={"mcp-session-id": "gone"}) as reply:
            assert (reply.status, (await reply.json())["id"]) == (404, 7)
        mine = {"mcp-session-id": await begun(session)}
        for body, status in (
            ({"jsonrpc": "2.0", "method": "notifications/initialized"}, 202),
            ({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {}}, 202),
            ({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "never was"}}, 202),
            ({"jsonrpc": "2.0", "id": 1, "result": {}}, 202),
        ):
            async with session.post("/mcp", json=body, headers=mine) as reply:
                assert (reply.status, await reply.read()) == (status, b"")
        for method, code in (("prompts/list", -32601), ("resources/read", -32602)):
            async with session.post("/mcp", json=message(method), headers=mine) as reply:
                assert (reply.status, (await reply.json())["error"]["code"]) == (200, code)
        async with session.post("/mcp", json=message("resources/read", uri="file:///x"), headers=mine) as reply:
            assert (await reply.json())["error"]["code"] == -32602
        async with session.post("/mcp", json=message("ping"), headers={**mine, "mcp-protocol-version": "1999"}) as reply:
            assert (reply.status, (await reply.json())["error"]["data"]["requested"]) == (400, "1999")
        async with session.delete("/mcp", headers=mine) as reply:
            assert reply.status == 200
        async with session.delete("/mcp", headers=mine) as reply:
            assert reply.status == 404


BAD: list[tuple[bytes, int]] = [
    (b"", -32700), (b"{", -32700), (b"\xff", -32700), (b'{"params":' + b"[" * 5000, -32600), (b"[]", -32600),
    (b"{}", -32600), (b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}', -32600), (b'{"jsonrpc": "2.0", "id": 1}', -32600),
    (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}', -32600),
    (b'{"jsonrpc": "2.0", "id": 1.5, "method": "ping"}', -32600),
    (b'{"jsonrpc": "2.0", "id": 99999999999999999999999, "method": "ping"}', -32600),
    (b'{"jsonrpc": "2.0", "id": 1, "method": "initialize"}', -32602),
    (b'{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": [1]}', -32600),
]  # fmt: skip


async def test_bad_messages(rim: Rim) -> None:
    async with rim.client(**keyed()) as session:
        for body, code in BAD:
            async with session.post("/mcp", data=body) as reply:
                found = await reply.json()
                assert (reply.status, found["error"]["code"], found["jsonrpc"]) == (400, code, "2.0"), body[:60]


async def test_refusals_before_a_handler_are_json_rpc_too(tmp_path: Path) -> None:
    rim = Rim(tmp_path)
    rim.server._body_limit_bytes = 1000
    async with running(rim), rim.client(**keyed()) as session:
        cases: list[tuple[str, dict[str, Any], int]] = [
            ("POST", {"data": b"x" * 2000}, 413),
            ("POST", {"json": {}, "headers": {"origin": "https://elsewhere.example"}}, 403),
            ("POST", {"json": {}, "headers": {"authorization": "Bearer wrong"}}, 401),
            ("PUT", {"json": {}}, 405),
        ]
        for method, more, status in cases:
            async with session.request(method, "/mcp", **more) as reply:
                found = await reply.json()
                assert reply.status == status and found["jsonrpc"] == "2.0" and found["id"] is None, found
                assert found["error"]["code"] == -32602 and found["error"]["message"]


async def test_who_hangs_up_ends_the_call(rim: Rim) -> None:
    rim.pipeline.script = [asyncio.Event()]
    async with rim.client(**keyed(accept=BOTH)) as session:
        mine = {"mcp-session-id": await begun(session)}
        body = message("tools/call", name="chat", arguments={"prompt": "x"}, _meta={"progressToken": "t"})
        reply = await session.post("/mcp", json=body, headers=mine)
        assert reply.headers["content-type"].startswith("text/event-stream")
        await until(lambda: rim.pipeline.active == 1)
        reply.close()
        async with asyncio.timeout(2):
            await rim.pipeline.left.wait()
    await until(lambda: all(not one.calls for one in rim.sessions._sessions.values()))


async def test_deleting_the_session_ends_its_calls(rim: Rim) -> None:
    rim.pipeline.script = [asyncio.Event()]
    async with rim.client(**keyed(accept=BOTH)) as session:
        mine = {"mcp-session-id": await begun(session)}
        call = asyncio.ensure_future(
            session.post("/mcp", json=message("tools/call", name="chat", arguments={"prompt": "x"}), headers=mine)
        )
        await until(lambda: rim.pipeline.active == 1)
        async with session.post("/mcp", json=message("tools/call", name="models"), headers=mine) as twice:
            assert "runs already" in (await twice.json())["error"]["message"]
        async with session.delete("/mcp", headers=mine):
            pass
        async with await call as reply:
            assert (await reply.json())["error"]["code"] == -32000
    assert rim.pipeline.active == 0


async def test_the_stream_of_a_session_ends_with_it(tmp_path: Path) -> None:
    rim = Rim(tmp_path)
    async with running(rim), rim.client(**keyed(accept=BOTH)) as session:
        mine = {"mcp-session-id": await begun(session)}
        first = await session.get("/mcp", headers=mine)
        assert await first.content.readline() == b": \n"
        second = await session.get("/mcp", headers=mine)
        assert (await first.read()).strip() == b"", "it was replaced"
        async with session.delete("/mcp", headers=mine):
            pass
        assert await second.read()
        async with session.get("/mcp", headers=mine) as gone:
            assert gone.status == 404
        async with session.get("/mcp", headers={"accept": "application/json"}) as other:
            assert other.status == 400


async def test_the_end_of_the_node_does_not_wait_for_a_stream_without_an_end(tmp_path: Path) -> None:
    rim = Rim(tmp_path)
    async with AsyncExitStack() as stack:
        async with running(rim):
            session = await stack.enter_async_context(rim.client(**keyed(accept=BOTH)))
            reply = await session.get("/mcp", headers={"mcp-session-id": await begun(session)})
            await reply.content.readline()
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < server_module.DRAIN_S
        await reply.read()


async def test_an_event_stream_is_sent_where_nothing_else_is_read(rim: Rim) -> None:
    rim.pipeline.script = [TokenChunk(sequence=0, text="é\n", finish=Finish.STOP, usage=USAGE)]
    async with rim.client(**keyed(accept="text/event-stream")) as session:
        mine = {"mcp-session-id": await begun(session)}
        async with session.post(
            "/mcp", json=message("tools/call", "one", name="chat", arguments={"prompt": "x"}), headers=mine
        ) as reply:
            (data, _) = (await reply.text()).split("\n\n")
    found = json.loads(data.removeprefix("data: "))
    assert found["id"] == "one" and found["result"]["content"] == [{"type": "text", "text": "é\n"}]
